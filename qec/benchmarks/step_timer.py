"""The time of each step of a decoder, step by step as ``Decoder.decode_batch`` takes them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from qec.decoding.decoder import Decoder, unpacked

INSIDE = {"cells": "cells", "network": "predict", "residual": "commit"}
"""The pre-decoder's own steps, and the methods of ``CompiledPredecoder`` that take them."""

STEPS = ("unpack", *INSIDE, "match")


@dataclasses.dataclass(frozen=True)
class Profile:
    """Microseconds per round and shot.

    Attributes:
        steps: ``STEPS`` in their order: bits to bytes; detection events to cells; network;
            commits, residual and what is around; matching, with the last stage of a cascade.
        handed_on: fraction of the shots whose whole syndrome that stage decoded.
        batches: of how many the times are means.
    """

    steps: dict[str, float]
    handed_on: float
    batches: int

    @property
    def total(self) -> float:
        """The time of all steps together."""
        return sum(self.steps.values())


class Profiler:
    """Decodes the same batches over and over, in several turns.

    Args:
        decoder: the methods of its pre-decoder are timed from now on.
        batches: bit-packed shots, uint8 (B, ceil(num_detectors / 8)) each; the first is decoded
            once, and that does not count.
        rounds: of the experiment.
    """

    def __init__(self, decoder: Decoder, batches: list[np.ndarray], rounds: int) -> None:
        self._decoder, self._batches, self._rounds = decoder, batches, rounds
        decoder.decode_batch(batches[0], bit_packed_shots=True)
        self._spent = dict.fromkeys(("unpack", "predecode", "match"), 0.0)
        self._inside = dict.fromkeys(INSIDE, 0.0)
        if decoder.predecoder is not None:
            for step, method in INSIDE.items():
                timed = _timed(getattr(decoder.predecoder, method), self._inside, step)
                setattr(decoder.predecoder, method, timed)
        self._shots = self._handed_on = self._count = 0

    def run(self, seconds: float) -> None:
        """One turn, of so many seconds at least."""
        end = sum(self._spent.values()) + seconds
        while sum(self._spent.values()) < end:
            batch = self._batches[self._count % len(self._batches)]
            times = [time.perf_counter()]
            detectors = unpacked(batch, self._decoder.num_detectors, packed=True)
            times.append(time.perf_counter())
            predecoded = self._decoder.predecode(detectors)
            times.append(time.perf_counter())
            matched = self._decoder.match(detectors, predecoded)
            times.append(time.perf_counter())
            for step, elapsed in zip(self._spent, np.diff(times).tolist(), strict=True):
                self._spent[step] += elapsed
            self._shots += len(batch)
            self._handed_on += int(matched.handed_on.sum())
            self._count += 1

    def profile(self) -> Profile:
        """Of all turns so far, one at least."""
        spent, inside = dict(self._spent), dict(self._inside)
        around = spent.pop("predecode") - sum(inside.values())
        if self._decoder.predecoder is not None:
            inside["residual"] += around
        in_all = {**spent, **inside}
        steps = {step: 1e6 * in_all[step] / self._shots / self._rounds for step in STEPS}
        return Profile(steps, self._handed_on / self._shots, self._count)


def _timed(
    call: Callable[..., object], spent: dict[str, float], step: str
) -> Callable[..., object]:
    def timed(*args: object) -> object:
        start = time.perf_counter()
        result = call(*args)
        spent[step] += time.perf_counter() - start
        return result

    return timed
