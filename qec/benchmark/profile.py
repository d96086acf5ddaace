"""The time of each step of a decoder, step by step as ``Decoder.decode_batch`` takes them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from qec.decoder import Decoder, unpacked

INSIDE = {"cells": "cells", "network": "forward", "residual": "commit", "gap": "gap"}
"""The pre-decoder's own steps, and the methods of ``BoundPredecoder`` that take them."""

STEPS = ("unpack", *INSIDE, "match")


@dataclasses.dataclass(frozen=True)
class Profile:
    """Microseconds per round and shot.

    Attributes:
        steps: ``STEPS`` in their order: bits to bytes; detection events to cells; network;
            corrections, residual and what is around; the network's logical gap; matching, with the
            shots matched as a whole.
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
        decoder: the methods of its pre-decoder are timed from now on.
        batches: bit-packed shots, uint8 (B, ceil(num_detectors / 8)) each.
        seconds: for how long at least; the first batch does not count.
    """
    decoder.decode_batch(batches[0], bit_packed_shots=True)
    spent = dict.fromkeys(("unpack", "predecode", "match"), 0.0)
    inside = dict.fromkeys(INSIDE, 0.0)
    if decoder.predecoder is not None:
        for step, method in INSIDE.items():
            timed = _timed(getattr(decoder.predecoder, method), inside, step)
            setattr(decoder.predecoder, method, timed)
    shots = fell_back = count = 0
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
    around = spent.pop("predecode") - sum(inside.values())
    if decoder.predecoder is not None:
        inside["residual"] += around
    per_round = {step: 1e6 * t / shots / rounds for step, t in {**spent, **inside}.items()}
    return Profile({step: per_round[step] for step in STEPS}, fell_back / shots, count)


def _timed(
    call: Callable[..., object], spent: dict[str, float], step: str
) -> Callable[..., object]:
    def timed(*args: object) -> object:
        start = time.perf_counter()
        result = call(*args)
        spent[step] += time.perf_counter() - start
        return result

    return timed
