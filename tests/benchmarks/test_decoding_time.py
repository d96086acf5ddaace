"""`qec benchmark`: every step is timed, and the machine's limit stands beside the network."""

import json
import math

import numpy as np
import pytest
import torch
from printed import listed_files

from qec.benchmarks.roofline import Roofline, rate
from qec.benchmarks.step_timer import STEPS, Profiler
from qec.cli.commands import main
from qec.decoding.decoder import Decoder
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.predecoder import Predecoder
from qec.predecoder.unit_cells import EDGE_CHANNELS, edge_ends


def test_the_steps_make_up_the_whole(our_circuit):
    circuit = our_circuit(3, 3, "X")
    decoder = Decoder.from_circuit(circuit, predecoder="standard")
    sampler = circuit.compile_detector_sampler(seed=1)
    batches = [sampler.sample(64, bit_packed=True) for _ in range(2)]
    profiler = Profiler(decoder, batches, 3)
    profiler.run(0.1)
    before = profiler.profile()
    profiler.run(0.1)
    found = profiler.profile()
    assert before.batches < found.batches
    assert tuple(found.steps) == STEPS
    assert min(found.steps.values()) > 0
    assert found.steps["network"] == max(found.steps.values())
    assert 0 < found.handed_on < 1
    assert found.batches >= 1
    alone = Profiler(Decoder.from_circuit(circuit, predecoder="small", cascade=False), batches, 3)
    alone.run(0.05)
    assert alone.profile().handed_on == 0
    plain = Profiler(Decoder.from_circuit(circuit), batches, 3)
    plain.run(0.05)
    assert [step for step in STEPS if plain.profile().steps[step]] == ["unpack", "match"]


def test_the_limit_counts_multiply_adds_and_bytes(our_circuit):
    bound = bind(our_circuit(3, 3, "X"), width=16, layers=4)
    shape = bound.grid.shape
    cells = math.prod(shape)
    ones = torch.ones(1, 1, *shape)
    taps = torch.nn.functional.conv3d(ones, torch.ones(1, 1, 3, 3, 3), padding=1).sum().item()
    kernels = 4 * 16 + 2 * 16 * 16 + 16 * 28
    slow = Roofline(multiply_adds=1e6, bytes=np.inf)
    events = torch.zeros(7, 4, *shape)
    assert slow.seconds(bound, events) == pytest.approx(kernels * taps / 1e6)
    # 4 and 16 channels in and out of the first layer, 16 and 16 of two, 16 and 28 of the last.
    channels = 20 + 2 * 32 + 44
    narrow = Roofline(multiply_adds=np.inf, bytes=1e6)
    assert narrow.seconds(bound, events) == pytest.approx(4 * channels * cells / 1e6)


def test_the_limit_leaves_cells_without_features_out(our_circuit):
    bound = bind(our_circuit(5, 5, "X"), width=16, layers=4, active_only=True)
    events = torch.zeros(2, 4, *bound.grid.shape)
    # Of two shots one is silent; the other has two neighbours, with 27 cells around each, and
    # beside one of them an event of a check that does not decide.
    events[0, 1, 2, 1, 1] = events[0, 2, 3, 1, 1] = events[0, 0, 1, 1, 1] = 1
    heads = sum(len(edge_ends(channel)) for channel in range(EDGE_CHANNELS))
    assert EDGE_CHANNELS < heads < 2 * EDGE_CHANNELS
    first, hidden, last = (4 + 1) * 16, 2 * 4 * 16 * 16, 2 * heads * 16
    slow = Roofline(multiply_adds=1e6, bytes=np.inf)
    assert slow.seconds(bound, events) == pytest.approx((first + hidden + last) / 2 / 1e6)


def bind(circuit, **architecture):
    predecoder = Predecoder(PreDecoderNetwork(**architecture), 1)
    return Decoder.from_circuit(circuit, predecoder=predecoder).predecoder


def test_rates_are_measured():
    calls = []
    assert rate(lambda: calls.append(1), 0.01) > 100
    found = Roofline.measured(torch.float32, seconds=0.01)
    assert found.multiply_adds > 1e8
    assert found.bytes > 1e7


@pytest.mark.slow
def test_the_command_reports_and_plots(tmp_path, capsys):
    names = ["pymatching-css", "predecoder+pymatching"]
    overrides = ["distance=3", f"decoders={','.join(names)}", "seconds=0.1", "batch=16,32"]
    assert main(["benchmark", *overrides, "workers=1", f"out={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert "uncorrelated" in text
    assert "GMAC/s" in text
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert found["processes"] == 1
    assert [(t["metadata"]["batch"], t["decoder"]) for t in found["timings"]] == [
        (batch, name) for batch in (16, 32) for name in names
    ]
    for t in found["timings"]:
        assert t["total"] == pytest.approx(sum(t["steps"].values()))
        assert t["steps"]["match"] > 0
        assert bool(t["steps"]["network"]) == (t["decoder"] == names[1]) == bool(t["dtype"])
    files = ["benchmark.json", "steps.png", "steps.svg"]
    assert listed_files(text, tmp_path) == sorted(p.name for p in tmp_path.iterdir()) == files


@pytest.mark.slow
def test_networks_are_compared_on_all_they_vary_in(tmp_path, capsys):
    overrides = ["distance=3", "decoders=pymatching-css,predecoder+pymatching", "seconds=0.05"]
    axes = ["predecoder=standard,small", "precision=bfloat16", "threads=2", "batch=16"]
    assert main(["benchmark", *overrides, *axes, "workers=2", f"out={tmp_path}"]) == 0
    written = json.loads((tmp_path / "benchmark.json").read_text())
    found = written["timings"]
    assert written["processes"] == 2
    assert {t["metadata"]["threads"] for t in found} == {2}
    plain, *networks = found
    assert plain["network"] == {}
    assert len(networks) == len({tuple(t["network"].values()) for t in networks}) == 2
    assert all(t["dtype"] == t["network"]["precision"] for t in networks)
    assert "pymatching small eager bfloat16" in capsys.readouterr().out


@pytest.mark.slow
def test_decoders_whose_network_has_no_steps_of_its_own_are_timed_as_a_whole(tmp_path):
    overrides = ["distance=3", "decoders=belief-matching", "seconds=0.05", "batch=16"]
    assert main(["benchmark", *overrides, "workers=1", f"out={tmp_path}"]) == 0
    (timing,) = json.loads((tmp_path / "benchmark.json").read_text())["timings"]
    assert [step for step, spent in timing["steps"].items() if spent] == ["unpack", "match"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seconds=0", "seconds=0"),
        ("batch=0", "batch=0"),
        ("workers=0", "workers=0"),
        ("threads=0", "threads=0"),
        pytest.param("precision=int4", "precision='int4'", marks=pytest.mark.slow),
        pytest.param("backend=tpu", "backend='tpu'", marks=pytest.mark.slow),
        ("decoders=[mwpm]", "'mwpm' is unknown"),
        pytest.param("predecoder=nothing", "no pre-decoder checkpoint", marks=pytest.mark.slow),
    ],
)
def test_bad_settings_are_refused(tmp_path, capsys, override, message):
    overrides = ["distance=3", "decoders=predecoder+pymatching", "workers=1", "seconds=0.1"]
    assert main(["benchmark", *overrides, override, f"out={tmp_path}"]) == 2
    assert message in capsys.readouterr().err
