"""The time of each step of a decoder, step by step as ``Decoder.decode_batch`` takes them."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from qec.decoder import Decoder, unpacked

INSIDE = ("cells", "network", "residual")
"""The pre-decoder's own steps, by the labels that ``BoundPredecoder.apply`` gives them."""

STEPS = ("unpack", *INSIDE, "match")


@dataclasses.dataclass(frozen=True)
class Profile:
    """Microseconds per round and shot.

    Attributes:
        steps: ``STEPS`` in their order: bits to bytes; detection events to cells; network;
            corrections and residual; matching, the shots matched as a whole included.
        fell_back: fraction of the shots that were matched as a whole.
        batches: of how many the times are means.
    """

    steps: dict[str, float]
    fell_back: float
    batches: int

    @property
    def total(self) -> float:
        return sum(self.steps.values())


def profile(decoder: Decoder, batches: list[np.ndarray], rounds: int, seconds: float) -> Profile:
    """Decodes the batches over and over.

    Args:
        batches: bit-packed shots, uint8 (B, ceil(num_detectors / 8)) each.
        seconds: for how long at least; the first batch does not count.
    """
    spent = dict.fromkeys(("unpack", "predecode", "match"), 0.0)
    shots = fell_back = count = 0
    decoder.decode_batch(batches[0], bit_packed_shots=True)
    while sum(spent.values()) < seconds:
        batch = batches[count % len(batches)]
        times = [time.perf_counter()]
        detectors = unpacked(batch, decoder.num_detectors, packed=True)
        times.append(time.perf_counter())
        predecoded = decoder.predecode(detectors)
        times.append(time.perf_counter())
        matched = decoder.match(detectors, predecoded)
        times.append(time.perf_counter())
        for step, elapsed in zip(spent, np.diff(times).tolist(), strict=True):
            spent[step] += elapsed
        shots += len(batch)
        fell_back += int(matched.fell_back.sum())
        count += 1
    per_round = {step: 1e6 * elapsed / shots / rounds for step, elapsed in spent.items()}
    predecode = per_round.pop("predecode")
    shares = _shares(decoder, detectors) if decoder.predecoder is not None else {}
    inside = {step: predecode * shares.get(step, 0.0) for step in INSIDE}
    steps = {**per_round, **inside}
    return Profile({step: steps[step] for step in STEPS}, fell_back / shots, count)


def _shares(decoder: Decoder, detectors: np.ndarray) -> dict[str, float]:
    """How ``predecode`` divides its time among ``INSIDE``; from torch's profiler."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    with torch_profile(activities=[ProfilerActivity.CPU]) as found:
        decoder.predecode(detectors)
    spent = {event.key: event.cpu_time_total for event in found.key_averages()}
    spent = {step: spent[f"qec: {step}"] for step in INSIDE}
    return {step: elapsed / sum(spent.values()) for step, elapsed in spent.items()}
