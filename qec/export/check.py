"""An exported graph against the torch pre-decoder, on the same shots in ONNX Runtime."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING

import numpy as np

from qec.decoding.decoder import Decoder
from qec.export.graph import INPUT
from qec.predecoder.onnx_model import onnxruntime_session
from qec.predecoder.predecoder import CompiledPredecoder
from qec.predecoder.threshold import PredecodeResult
from qec.support.statistics import Estimate, paired_ratio

if TYPE_CHECKING:
    import onnx

# Runtimes add the products of a convolution in different orders, so float32 log-odds differ in
# their last bits; those this close to the threshold may fall on either side of it.
ROUNDING = 1e-4
_BATCH = 64


class GraphRunner:
    """An exported graph in ONNX Runtime, on one core.

    Raises:
        QecError: onnxruntime is not installed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session = onnxruntime_session(model, threads=1)

    def predecode(self, detectors: np.ndarray) -> PredecodeResult:
        """uint8 (B, num_detectors) -> residual and committed flips."""
        output, *_ = self._session.run(None, {INPUT: detectors})
        return PredecodeResult(output[:, 1:], output[:, 0])


@dataclasses.dataclass(frozen=True)
class Check:
    """How a graph compares with torch in float32.

    Attributes:
        shots: number of shots.
        changed_bits, changed_shots: output bits that differ, and shots that have any.
        not_rounding: of those shots, the ones without log-odds within ``ROUNDING`` of the
            threshold; None for a graph of lower precision.
        errors, torch_errors: logical errors of the pipeline, matching included, with
            the graph and with torch as its pre-decoder.
        error_ratio: of the two, paired, with its interval.
        time_over_torch, time_over_float32: time of the graph, one thread, over that of torch and
            of the float32 graph on the same batches of 64 shots.
    """

    shots: int
    changed_bits: int
    changed_shots: int
    not_rounding: int | None
    errors: int
    torch_errors: int
    error_ratio: Estimate
    time_over_torch: float
    time_over_float32: float

    def as_json(self) -> dict[str, object]:
        """The values; null where a ratio or an end of its interval is not finite."""
        ratio = dataclasses.asdict(self.error_ratio)
        finite = {k: v if math.isfinite(v) else None for k, v in ratio.items()}
        return {**dataclasses.asdict(self), "error_ratio": finite}

    def lines(self) -> list[str]:
        """For people."""
        ratio = self.error_ratio
        changed = f"{self.changed_shots}, {self.changed_bits} bits"
        if self.not_rounding is not None:
            changed += f" (not rounding near the threshold: {self.not_rounding})"
        return [
            f"check on {self.shots} shots, ONNX Runtime against torch in float32, one thread:",
            f"  shots with a different output: {changed}",
            f"  logical errors: {self.errors}, torch {self.torch_errors}, ratio {ratio.value:.3f} "
            f"(95 % interval {ratio.low:.3f} to {ratio.high:.3f})",
            f"  time: {self.time_over_torch:.2f} of torch's, {self.time_over_float32:.2f} of the "
            "float32 graph's",
        ]


def compare(
    model: onnx.ModelProto,
    float32: onnx.ModelProto,
    bound: CompiledPredecoder,
    decoder: Decoder,
    detectors: np.ndarray,
    flips: np.ndarray,
) -> Check:
    """Runs ``model``, ``float32`` and torch on the same shots.

    Args:
        model: the graph in question, at any precision.
        float32: the float32 graph; may be the same.
        bound: the pre-decoder, bound with ``dtype=torch.float32``.
        decoder: matches what they leave.
        detectors: uint8 (B, num_detectors).
        flips: uint8 (B,), true flips of observable 0.
    """
    runners = {
        "torch": bound.apply,
        "float32": GraphRunner(float32).predecode,
        "graph": GraphRunner(model).predecode,
    }
    if model is float32:
        del runners["float32"]
    found, seconds = _run(runners, detectors)
    graph, reference = found["graph"], found["torch"]
    changed = (graph.residual != reference.residual).sum(1)
    changed += graph.committed != reference.committed
    odd, not_rounding = np.flatnonzero(changed), None
    if model is float32:
        not_rounding = int((_distance_to_cut(bound, detectors[odd]) > ROUNDING).sum())
    wrong, torch_wrong = (decoder.match(detectors, p).flips != flips for p in (graph, reference))
    errors, torch_errors = int(wrong.sum()), int(torch_wrong.sum())
    both = int((wrong & torch_wrong).sum())
    return Check(
        shots=len(detectors),
        changed_bits=int(changed.sum()),
        changed_shots=len(odd),
        not_rounding=not_rounding,
        errors=errors,
        torch_errors=torch_errors,
        error_ratio=paired_ratio(errors, torch_errors, both),
        time_over_torch=seconds["graph"] / seconds["torch"],
        time_over_float32=seconds["graph"] / seconds.get("float32", seconds["graph"]),
    )


def _run(
    runners: dict, detectors: np.ndarray
) -> tuple[dict[str, PredecodeResult], dict[str, float]]:
    """Each runner's result and seconds; they take turns, batch by batch."""
    parts: dict[str, list[PredecodeResult]] = {name: [] for name in runners}
    seconds = dict.fromkeys(runners, 0.0)
    for run in runners.values():
        run(detectors[:_BATCH])  # first calls set things up: keep them out of the timings
    for start in range(0, len(detectors), _BATCH):
        batch = detectors[start : start + _BATCH]
        for name, run in runners.items():
            begun = time.perf_counter()
            parts[name].append(run(batch))
            seconds[name] += time.perf_counter() - begun
    joined = {
        name: PredecodeResult(*(np.concatenate([part[k] for part in found]) for k in (0, 1)))
        for name, found in parts.items()
    }
    return joined, seconds


def _distance_to_cut(bound: CompiledPredecoder, detectors: np.ndarray) -> np.ndarray:
    """float32 (B,): how close the nearest log-odds of each shot are to the threshold."""
    return np.abs(bound.log_odds(detectors) - bound.cut).min(axis=1)
