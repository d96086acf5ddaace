"""One prediction for a shot, whatever its batch, the threads and the kind of CPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
import stim
import torch

from qec.cli import main
from qec.decoder import Decoder
from qec.errors import QecError
from qec.predecoder import correction
from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.precision import network_dtype
from qec.predecoder.runtime import torch_threads

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def experiment(stim_circuit):
    """A circuit of d = 5, and 400 shots of it."""
    circuit = stim_circuit(5, 5, "X", 0.008)
    return circuit, circuit.compile_detector_sampler(seed=1).sample(400)


def everything(found):
    """What a pre-decoder makes of a batch, as one array."""
    looks = [part for look in (found, *found.others) for part in (look.residual.T, look.committed)]
    return np.vstack(looks)


def with_rounding(decoder, size, seed=0):
    """Makes errors in the network's logits that are up to ``size``."""
    run, rng = decoder.predecoder._run, torch.Generator().manual_seed(seed)

    def rounded(events):
        logits = run(events)
        return logits + size * (2 * torch.rand(logits.shape, generator=rng) - 1)

    decoder.predecoder._run = rounded
    return decoder


# Number formats


def test_a_cpu_computes_in_float32_whatever_it_could(experiment, monkeypatch):
    everything_there = dict.fromkeys(("avx512_bf16", "amx_bf16", "amx_tile", "avx512f"), True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: everything_there, raising=False)
    assert network_dtype(CPU) == torch.float32
    circuit, _ = experiment
    assert Decoder.from_circuit(circuit, predecoder="swift").predecoder.dtype == torch.float32
    asked = Decoder.from_circuit(circuit, predecoder="swift", precision="bfloat16")
    assert asked.predecoder.dtype == torch.bfloat16


# Rounding


@pytest.mark.parametrize("name", ["swift", "fast", "balanced"])
@pytest.mark.slow
def test_rounding_decides_nothing(experiment, name, monkeypatch):
    """Errors far larger than those of float32: float64 decides wherever they could."""
    circuit, dets = experiment
    dets = dets[:60] if name == "balanced" else dets
    plain = Decoder.from_circuit(circuit, predecoder=name)
    want = everything(plain.predecode(dets))
    monkeypatch.setattr(correction, "ROUNDING", 0.3)
    for seed in (1, 2):
        decoder = with_rounding(Decoder.from_circuit(circuit, predecoder=name), 0.29, seed)
        np.testing.assert_array_equal(everything(decoder.predecode(dets)), want)
    monkeypatch.setattr(correction, "ROUNDING", 0.0)
    careless = with_rounding(Decoder.from_circuit(circuit, predecoder=name), 0.29)
    assert (everything(careless.predecode(dets)) != want).any()


@pytest.mark.slow
def test_rounding_moves_no_gap_across_a_limit(stim_circuit, monkeypatch):
    circuit = stim_circuit(3, 3, "X", 0.02)
    detectors = circuit.compile_detector_sampler(seed=1).sample(2000).view(np.uint8)
    limit = 2.5  # nats: bits that cost four or more take no part

    def below(size, margin):
        monkeypatch.setattr(correction, "ROUNDING", margin)
        fresh = with_rounding(
            Decoder.from_circuit(circuit, predecoder="fast", correlated=True), size
        )
        (found,) = fresh.predecoder.apply(detectors, fresh._rule, limits=[limit])
        assert all(limit > 0 for limit in fresh._matcher.limits)
        return found.gap < limit

    want = below(0.0, 0.0)
    assert want.any()
    assert not want.all()
    # A gap is the sum of a few logits.
    np.testing.assert_array_equal(below(0.2, 1.2), want)
    assert (below(0.2, 0.0) != want).any()


@pytest.mark.parametrize("name", ["swift", "fast", "balanced"])
@pytest.mark.slow
def test_batches_order_and_threads_change_nothing(experiment, name):
    circuit, dets = experiment
    dets = dets[:130] if name == "balanced" else dets
    decoder = Decoder.from_circuit(circuit, predecoder=name)
    want = decoder.decode_batch(dets)
    found = decoder.predecode(dets)
    for size in (1, 7, 64):
        parts = [decoder.decode_batch(dets[k : k + size]) for k in range(0, len(dets), size)]
        np.testing.assert_array_equal(np.concatenate(parts), want)
    np.testing.assert_array_equal(decoder.decode_batch(dets[::-1])[::-1], want)
    two = Decoder.from_circuit(circuit, predecoder=name, threads=2)
    np.testing.assert_array_equal(two.decode_batch(dets), want)
    np.testing.assert_array_equal(everything(two.predecode(dets)), everything(found))


_IN_A_PROCESS = """
import sys
import numpy as np, stim, torch
import qec
shots, out = np.load(sys.argv[1]), {}
circuit = stim.Circuit.from_file(sys.argv[2])
for name in ("swift", "fast", "balanced"):
    decoder = qec.Decoder.from_circuit(circuit, predecoder=name)
    out[name] = decoder.decode_batch(shots if name != "balanced" else shots[:60])
out["logits"] = decoder.predecoder.logits(torch.from_numpy(shots[:20].view(np.uint8))).numpy()
out["kind"] = torch.backends.cpu.get_cpu_capability()
np.savez(sys.argv[3], **out)
"""


@pytest.mark.slow
def test_kinds_of_cpu_predict_the_same(experiment, tmp_path):
    """As far down as this one can be told to go: SSE 4.1 and what every x86-64 has."""
    circuit, dets = experiment
    np.save(tmp_path / "shots.npy", dets)
    circuit.to_file(tmp_path / "memory.stim")
    plain = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}
    old = {**plain, "ONEDNN_MAX_CPU_ISA": "SSE41", "DNNL_MAX_CPU_ISA": "SSE41"}
    found = []
    for k, environment in enumerate(({}, old)):
        files = (tmp_path / name for name in ("shots.npy", "memory.stim", f"{k}.npz"))
        subprocess.run(
            [sys.executable, "-c", _IN_A_PROCESS, *files],
            env={**os.environ, **environment},
            check=True,
        )
        found.append(np.load(tmp_path / f"{k}.npz"))
    here, there = found
    for name in ("swift", "fast", "balanced"):
        np.testing.assert_array_equal(here[name], there[name])
    assert there["kind"].item() == "DEFAULT"
    if here["kind"].item() != "DEFAULT":  # it is another kind: float32 sums differ
        assert (here["logits"] != there["logits"]).any()
    near = np.abs(here["logits"]) < 1
    assert near.any()
    assert np.abs(here["logits"] - there["logits"])[near].max() < correction.ROUNDING / 2


# Threads


def test_a_decoder_leaves_torchs_threads_alone(experiment):
    circuit, dets = experiment
    with torch_threads(2):
        for threads in (1, 2, 3):
            decoder = Decoder.from_circuit(circuit, predecoder="swift", threads=threads)
            seen, run = [], decoder.predecoder._run

            def noted(events, run=run, seen=seen):
                seen.append(torch.get_num_threads())
                return run(events)

            decoder.predecoder._run = noted
            decoder.decode_batch(dets)
            assert set(seen) == {threads}
            assert torch.get_num_threads() == 2
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(QecError, match="threads="):
            Decoder.from_circuit(circuit, predecoder="swift", threads=wrong)


@pytest.mark.slow
def test_decode_takes_threads(experiment, tmp_path, capsys):
    circuit, dets = experiment
    circuit.to_file(tmp_path / "memory.stim")
    stim.write_shot_data_file(
        data=dets, path=tmp_path / "dets.b8", format="b8", num_detectors=dets.shape[1]
    )
    files = [f"circuit={tmp_path}/memory.stim", f"dets={tmp_path}/dets.b8"]
    for threads in (1, 2):
        overrides = [*files, f"threads={threads}", f"out={tmp_path}/{threads}.01"]
        assert main(["decode", *overrides]) == 0
    assert (tmp_path / "1.01").read_bytes() == (tmp_path / "2.01").read_bytes()
    assert main(["decode", *files, "threads=0", f"out={tmp_path}/0.01"]) == 2
    assert "threads=0 is not supported" in capsys.readouterr().err
    assert not (tmp_path / "0.01").exists()


_FORKED = """
import multiprocessing
import stim, torch
import qec
circuit = stim.Circuit.generated(
    "surface_code:rotated_memory_x", distance=5, rounds=5, after_clifford_depolarization=0.008
)
dets = circuit.compile_detector_sampler(seed=1).sample(200)
def build(threads):
    return qec.Decoder.from_circuit(circuit, predecoder="fast", threads=threads)
torch.set_num_threads(2)
torch.ones(10**6).sum()  # the threads of OpenMP, which do not live in forks, are there now
decoders = {threads: build(threads) for threads in (1, 2)}
want = decoders[2].decode_batch(dets)
other = qec.Decoder.from_circuit(circuit, predecoder="fast", backend="onnxruntime")
other.decode_batch(dets[:1])
def work(_):
    same = [(d.decode_batch(dets) == want).all() for d in (*decoders.values(), build(1), build(2))]
    try:
        other.decode_batch(dets[:1])
    except qec.QecError as error:
        return *same, str(error)
with multiprocessing.get_context("fork").Pool(1) as pool:
    (*same, refused) = pool.apply_async(work, [None]).get(timeout=600)
assert all(same) and len(same) == 4, same
assert "build it in each process" in refused
"""


@pytest.mark.slow
def test_decoders_live_on_in_a_fork():
    """torch with several threads waits in a fork for ever for those of the other process."""
    subprocess.run([sys.executable, "-c", _FORKED], check=True, timeout=900)


def test_a_checkpoint_is_loaded_with_one_thread(monkeypatch):
    counts, finite = [], torch.isfinite
    monkeypatch.setattr(
        torch, "isfinite", lambda t: counts.append(torch.get_num_threads()) or finite(t)
    )
    with torch_threads(2):
        load_predecoder("swift")
        assert torch.get_num_threads() == 2
    assert set(counts) == {1}
