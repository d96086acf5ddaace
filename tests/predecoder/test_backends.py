"""Backends: the same pre-decoder on torch.compile, ONNX Runtime and OpenVINO."""

import shutil
import sys

import numpy as np
import pytest
import torch

from qec.benchmarks.backends import benchmark
from qec.circuits.lattice import SpaceTimeLattice
from qec.cli.config import load_config
from qec.decoding.decoder import Decoder
from qec.predecoder.backends import BACKENDS, network_runtime
from qec.predecoder.checkpoint import load_predecoder
from qec.support.errors import QecError

EIGHT_BIT = [name for name in BACKENDS if name.endswith("-int8")]


@pytest.mark.parametrize(
    "backend", [pytest.param("compile", marks=pytest.mark.slow), "onnxruntime", "openvino"]
)
@pytest.mark.slow
def test_backends_agree_with_torch(stim_circuit, backend):
    if backend == "openvino":
        pytest.importorskip("openvino")
    if backend == "compile" and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler")
    circuit = stim_circuit(3, 3, "X", 0.006)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    predecoder = load_predecoder("standard")
    reference = predecoder.compile_for(lattice, dtype=torch.float32)
    bound = predecoder.compile_for(lattice, dtype=torch.float32, backend=backend)
    dets = circuit.compile_detector_sampler(seed=1).sample(300).view(np.uint8)
    for shots in (dets, dets[:5], dets[:1]):
        got, want = bound.log_odds(shots), reference.log_odds(shots)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    for got, want in zip(bound.apply(dets), reference.apply(dets), strict=True):
        np.testing.assert_array_equal(got, want)  # log-odds next to the threshold are float64's


@pytest.mark.slow
@pytest.mark.parametrize("backend", EIGHT_BIT)
def test_eight_bits_are_nearly_enough(stim_circuit, backend):
    """Fixed seeds: a check of the code, not of statistics."""
    if backend.startswith("openvino"):
        pytest.importorskip("openvino")
    circuit = stim_circuit(5, 5, "X", 0.006)
    options = {"predecoder": "standard", "cascade": False}
    reference = Decoder.from_circuit(circuit, **options)
    eight_bit = Decoder.from_circuit(circuit, **options, backend=backend)
    dets, flips = circuit.compile_detector_sampler(seed=4).sample(4000, separate_observables=True)
    dets = dets.view(np.uint8)
    some = dets[:500]
    want, got = reference.predecoder.log_odds(some), eight_bit.predecoder.log_odds(some)
    assert 1e-3 < np.abs(got - want).mean() < 0.3  # of log-odds around -8 for most edges
    cut = reference.predecoder.cut
    assert ((got > cut) != (want > cut)).mean() < 2e-3
    wrong, reference_wrong = (
        (decoder.decode_batch(dets) != flips).sum() for decoder in (eight_bit, reference)
    )
    assert abs(wrong - reference_wrong) < 0.15 * reference_wrong
    again = Decoder.from_circuit(circuit, **options, backend=backend)
    np.testing.assert_allclose(again.predecoder.log_odds(some), got)  # calibrated on the same shots


@pytest.mark.slow
def test_onnxruntime_stays_in_float32_where_torch_would_not(stim_circuit):
    circuit = stim_circuit(3, 2, "X", 0.006)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    predecoder = load_predecoder("standard")
    batch = circuit.compile_detector_sampler(seed=3).sample(50).view(np.uint8)
    bound = predecoder.compile_for(lattice, dtype=torch.bfloat16, backend="onnxruntime")
    want = predecoder.compile_for(lattice, dtype=torch.float32).log_odds(batch)
    assert bound.forward(bound.cells(torch.from_numpy(batch))).dtype == torch.float32
    # What does not depend on the shot is computed in bfloat16.
    np.testing.assert_allclose(bound.log_odds(batch), want, rtol=0.02, atol=0.2)


@pytest.mark.slow
def test_the_decoder_takes_a_backend(stim_circuit):
    circuit = stim_circuit(3, 3, "Z", 0.006)
    decoder = Decoder.from_circuit(circuit, predecoder="standard", backend="onnxruntime")
    dets, flips = circuit.compile_detector_sampler(seed=2).sample(2000, separate_observables=True)
    wrong = (decoder.decode_batch(dets) != flips).mean()
    assert wrong < 0.5 * flips.mean()


@pytest.mark.slow
def test_the_benchmark_compares_on_the_same_shots(capsys):
    options = ["distance=3", "backends=[eager,onnxruntime]", "batch=32", "batches=2"]
    eager, other = benchmark(load_config("benchmark-backends", options))
    assert (eager.time_ratio, eager.changed_shots) == (1, 0)
    assert other.time_ratio > 0
    assert other.changed_shots <= 1
    assert "onnxruntime" in capsys.readouterr().out


def test_bad_backends_are_named(stim_circuit, monkeypatch):
    circuit = stim_circuit(3, 3, "X", 0.006)
    with pytest.raises(QecError, match="backend='fastest' is unknown: use eager, compile"):
        Decoder.from_circuit(circuit, predecoder="standard", backend="fastest")
    lattice, predecoder = SpaceTimeLattice.from_circuit(circuit), load_predecoder("standard")
    on_gpu = torch.empty(1, 1, 1, 1, 1, device="meta")
    with pytest.raises(QecError, match="runs on the CPU only"):
        network_runtime("onnxruntime-int8", predecoder.network, on_gpu, torch.float32, sampled=list)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(QecError, match=r"openvino is not installed: pip install openvino$"):
        predecoder.compile_for(lattice, backend="openvino")
    with pytest.raises(QecError, match="dtype='int8' is not supported"):
        benchmark(load_config("benchmark-backends", ["dtype=int8"]))
