"""One prediction for a shot, whatever its batch, the threads and the kind of CPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
import stim
import torch

from qec.cli.commands import main
from qec.decoding.decoder import Decoder
from qec.predecoder import predecoder as correction
from qec.predecoder.backends import torch_threads
from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.device import network_dtype
from qec.predecoder.model_fit import Fit
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.predecoder import Predecoder
from qec.support.errors import QecError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def experiment(stim_circuit):
    """A circuit of d = 5, and 400 shots of it."""
    circuit = stim_circuit(5, 5, "X", 0.008)
    return circuit, circuit.compile_detector_sampler(seed=1).sample(400)


def eager(**architecture):
    """An untrained pre-decoder that commits arbitrary edges."""
    torch.manual_seed(0)
    network = PreDecoderNetwork(width=8, layers=4, **architecture)
    torch.nn.init.constant_(network.head.bias, 3.0)
    with torch.no_grad():
        network.head.weight *= 20
    return Predecoder(network, 0.7, name="eager")


UNTRAINED = {
    "dense": eager(),
    "sparse": eager(active_only=True),
    "separable": eager(active_only=True, separable=True),
}


@pytest.fixture
def fits_all(monkeypatch):
    """Decoders take networks that fit no error model, such as ``eager``."""
    monkeypatch.setattr(Fit, "fits", True)


def everything(found):
    """What a pre-decoder makes of a batch, as one array."""
    return np.vstack([found.residual.T, found.committed])


def with_rounding(decoder, size, seed=0):
    """Makes errors in the network's log-odds that are up to ``size``."""
    bound, rng = decoder.predecoder, torch.Generator().manual_seed(seed)
    run = bound._run

    def off(shape):
        return size * (2 * torch.rand(shape, generator=rng) - 1)

    def rounded(events):
        told = run(events)
        return told + off(told.shape)

    bound._run = rounded
    if bound._sparse is not None:  # it adds up log-odds where it commits
        bound._before = bound._before + off(bound._before.shape).numpy()
    return decoder


# Number formats


def test_a_cpu_computes_in_float32_whatever_it_could(experiment, monkeypatch):
    everything_there = dict.fromkeys(("avx512_bf16", "amx_bf16", "amx_tile", "avx512f"), True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: everything_there, raising=False)
    assert network_dtype(CPU) == torch.float32
    circuit, _ = experiment
    assert Decoder.from_circuit(circuit, predecoder="small").predecoder.dtype == torch.float32
    asked = Decoder.from_circuit(circuit, predecoder="small", precision="bfloat16")
    assert asked.predecoder.dtype == torch.bfloat16


# Rounding


@pytest.mark.parametrize("kind", UNTRAINED)
@pytest.mark.usefixtures("fits_all")
def test_rounding_decides_nothing(experiment, kind, monkeypatch):
    """Errors far larger than those of float32: float64 decides wherever they could."""
    circuit, dets = experiment

    def built():
        return Decoder.from_circuit(circuit, predecoder=UNTRAINED[kind])

    want = everything(built().predecode(dets))
    assert (want[:-1] != dets.T).any(axis=0).mean() > 0.5
    monkeypatch.setattr(correction, "ROUNDING", 0.3)
    for seed in (1, 2):
        found = with_rounding(built(), 0.29, seed).predecode(dets)
        np.testing.assert_array_equal(everything(found), want)
    monkeypatch.setattr(correction, "ROUNDING", 0.0)
    assert (everything(with_rounding(built(), 0.29).predecode(dets)) != want).any()


@pytest.mark.parametrize("name", ["standard", "small", *UNTRAINED])
@pytest.mark.slow
@pytest.mark.usefixtures("fits_all")
def test_batches_order_and_threads_change_nothing(experiment, name):
    circuit, dets = experiment
    predecoder = UNTRAINED.get(name, name)
    decoder = Decoder.from_circuit(circuit, predecoder=predecoder)
    want = decoder.decode_batch(dets)
    found = decoder.predecode(dets)
    for size in (1, 7, 64):
        parts = [decoder.decode_batch(dets[k : k + size]) for k in range(0, len(dets), size)]
        np.testing.assert_array_equal(np.concatenate(parts), want)
    np.testing.assert_array_equal(decoder.decode_batch(dets[::-1])[::-1], want)
    two = Decoder.from_circuit(circuit, predecoder=predecoder, threads=2)
    np.testing.assert_array_equal(two.decode_batch(dets), want)
    np.testing.assert_array_equal(everything(two.predecode(dets)), everything(found))


_IN_A_PROCESS = """
import sys
import numpy as np, stim, torch
import qec
shots, out = np.load(sys.argv[1]), {}
circuit = stim.Circuit.from_file(sys.argv[2])
for name in ("small", "standard"):
    decoder = qec.Decoder.from_circuit(circuit, predecoder=name, cascade=False)
    out[name] = decoder.decode_batch(shots)
    out[f"{name} residual"] = decoder.predecode(shots).residual
out["log_odds"] = decoder.predecoder.log_odds(shots[:20].view(np.uint8)) - decoder.predecoder.cut
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
    for name in ("small", "standard"):
        np.testing.assert_array_equal(here[name], there[name])
        np.testing.assert_array_equal(here[f"{name} residual"], there[f"{name} residual"])
    assert there["kind"].item() == "DEFAULT"
    if here["kind"].item() != "DEFAULT":  # it is another kind: float32 sums differ
        assert (here["log_odds"] != there["log_odds"]).any()
    near = np.abs(here["log_odds"]) < 1
    assert near.any()
    assert np.abs(here["log_odds"] - there["log_odds"])[near].max() < correction.ROUNDING / 2


# Threads


def test_a_decoder_leaves_torchs_threads_alone(experiment):
    circuit, dets = experiment
    with torch_threads(2):
        for threads in (1, 2, 3):
            decoder = Decoder.from_circuit(circuit, predecoder="small", threads=threads)
            network = decoder.predecoder._sparse
            seen, run = [], network.terms

            def noted(events, run=run, seen=seen):
                seen.append(torch.get_num_threads())
                return run(events)

            network.terms = noted
            decoder.decode_batch(dets)
            assert set(seen) == {threads}
            assert torch.get_num_threads() == 2
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(QecError, match="threads="):
            Decoder.from_circuit(circuit, predecoder="small", threads=wrong)


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
    return qec.Decoder.from_circuit(circuit, predecoder="standard", threads=threads)
torch.set_num_threads(2)
torch.ones(10**6).sum()  # the threads of OpenMP, which do not live in forks, are there now
decoders = {threads: build(threads) for threads in (1, 2)}
want = decoders[2].decode_batch(dets)
other = qec.Decoder.from_circuit(circuit, predecoder="standard", backend="onnxruntime")
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
        load_predecoder("small")
        assert torch.get_num_threads() == 2
    assert set(counts) == {1}
