"""Whether recorded detection events look like those of an error model.

Two numbers tell.  The events of a shot: those of devices differ from their models' by tens of per
cent, seldom by a factor of 2.  And how much more often than by chance two detectors fire together
that one mechanism flips.  Where events are read with the circuit of another distance, what stands
at the two ends of a mechanism has nothing to do with each other: a third of the expected
coincidences is left, or less, however many events there are.  Another number of rounds leaves most
of them, and is not told.
"""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import scipy.sparse
import stim

from qec.circuits.error_model import Mechanisms

_SHOTS = 4096  # that are looked at, at most
_BITS = 2**24  # of them
_LARGEST = 4  # detectors of the mechanisms that are looked at
_FACTOR = 3.0  # by which honest events are not off
_COINCIDENCES = 0.5  # of the expected ones, for the events there are: honest data have more
_SIGMAS = 5.0  # what is off by chance is not reported


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Detection events next to what a model expects.

    Attributes:
        events, expected_events: mean of a shot's detection events.
        pairs, expected_pairs: covariances of all pairs of detectors that one mechanism flips,
            summed with the signs that the model gives them: negative ones are of mechanisms that
            happen more often than not.
        events_error, pairs_error: standard errors of ``events`` and ``pairs``.
    """

    events: float
    expected_events: float
    events_error: float
    pairs: float
    expected_pairs: float
    pairs_error: float

    @property
    def events_differ(self) -> bool:
        """Whether there are far more, or far fewer, than chance explains."""
        low, high = self.expected_events / _FACTOR, self.expected_events * _FACTOR
        reach = _SIGMAS * self.events_error
        return not low - reach <= self.events <= high + reach

    @property
    def unrelated(self) -> bool:
        """Whether what should fire together does so too seldom, the number of events given."""
        share = min(self.events / self.expected_events, 1.0) if self.expected_events else 0.0
        wanted = _COINCIDENCES * share * self.expected_pairs
        return self.pairs + _SIGMAS * self.pairs_error < wanted


def agreement(shots: np.ndarray, mechanisms: Mechanisms) -> Agreement:
    """Compares detection events with an error model, on some thousand shots.

    Args:
        shots: uint8 (B, ceil(num_detectors / 8)), bit-packed, B >= 1.
        mechanisms: of the model.
    """
    n = mechanisms.num_detectors
    count = max(1, min(len(shots), _SHOTS, _BITS // n))
    chosen = shots[np.linspace(0, len(shots) - 1, count).astype(np.int64)]
    bits = np.unpackbits(chosen, axis=1, count=n, bitorder="little").astype(np.float32)
    rate = mechanisms.detection_rates()
    covariance = _covariances(mechanisms, rate)
    expected = rate.sum(), abs(covariance).sum() / 2

    together = covariance.sign().astype(np.float32)
    away = bits - bits.mean(axis=0)
    pairs = np.einsum("ij,ji->i", away, together @ away.T, dtype=np.float64) / 2
    pairs *= count / max(count - 1, 1)  # the mean has been taken from the same shots
    events = bits.sum(axis=1, dtype=np.float64)
    # What is rare may not have been seen: no error is below that of a Poisson process.
    errors = [
        math.sqrt(max(found.var(), abs(mean)) / count)
        for found, mean in zip((events, pairs), expected, strict=True)
    ]
    return Agreement(
        events=float(events.mean()),
        expected_events=float(expected[0]),
        events_error=errors[0],
        pairs=float(pairs.mean()),
        expected_pairs=float(expected[1]),
        pairs_error=errors[1],
    )


def _covariances(mechanisms: Mechanisms, rate: np.ndarray) -> scipy.sparse.csr_array:
    """(n, n): of detectors that one mechanism flips; 0 for all others.

    Mechanisms are independent: for the signs s and t of two detectors, E[s t] is E[s] E[t] over the
    product of (1 - 2 p)^2 of those that flip both.
    """
    size = np.bincount(mechanisms.mechanism, minlength=len(mechanisms.probability))
    start = np.cumsum(size) - size
    log = -2 * np.log(np.maximum(np.abs(1 - 2 * mechanisms.probability), 0.02))
    ends, logs = [], []
    for a in range(_LARGEST):
        for b in range(a):
            has = np.flatnonzero((size > a) & (size <= _LARGEST))
            ends.append(mechanisms.detector[start[has][:, None] + [a, b]])
            logs.append(log[has])
    i, j = np.concatenate(ends).T
    value = np.concatenate(logs)
    n = mechanisms.num_detectors
    both_ways = (np.r_[value, value], (np.r_[i, j], np.r_[j, i]))
    total = scipy.sparse.coo_array(both_ways, shape=(n, n)).tocsr()
    sign = 1 - 2 * rate
    row = np.repeat(np.arange(n), np.diff(total.indptr))
    total.data = sign[row] * sign[total.indices] * np.expm1(total.data) / 4
    return total


def warn_of_disagreement(
    shots: np.ndarray, dem: stim.DetectorErrorModel, path: object, *, guess: bool = False
) -> None:
    """One line on standard error where detection events contradict the model that decodes them.

    Args:
        shots: as of ``agreement``.
        dem: the model.
        path: where it is from, to be named.
        guess: the model's probabilities are a first guess: the number of events tells nothing.
    """
    found = agreement(shots, Mechanisms.from_dem(dem))
    differ = found.events_differ and not guess
    if not (differ or found.unrelated):
        return
    said = f"{found.events:.3g} a shot, where it expects {found.expected_events:.3g}"
    if found.unrelated:
        share = max(found.pairs / found.expected_pairs, 0)
        said += f", and {share:.0%} of the coincidences that it expects"
    print(
        f"qec: warning: the detection events do not look like those of {path}: {said}. Were they "
        "taken with another circuit?",
        file=sys.stderr,
    )
