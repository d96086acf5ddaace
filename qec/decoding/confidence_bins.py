"""Shots and logical errors by confidence: counts that add up, and curves of post-selection."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


def counts_by_nat(confidence: np.ndarray, wrong: np.ndarray) -> collections.Counter[str]:
    """Shots and errors in bins of one nat, as custom counts of sinter.

    ``shots:nats=3-4`` and ``errors:nats=3-4`` count confidences from 3 to below 4 nats, infinite
    ones are in ``nats=inf``, and bins without a count have no key.  Counts of several runs add up.

    Args:
        confidence: float64 (B,), nats, not negative.
        wrong: bool (B,), predictions that are.
    """
    lower = np.floor(confidence)
    counts: collections.Counter[str] = collections.Counter()
    for what, part in (("shots", lower), ("errors", lower[wrong])):
        for k, count in zip(*np.unique(part, return_counts=True), strict=True):
            ends = f"{k:.0f}-{k + 1:.0f}" if np.isfinite(k) else "inf"
            counts[f"{what}:nats={ends}"] = int(count)
    return counts


class PostSelection(NamedTuple):
    """What is left where shots below a confidence are discarded.

    Attributes:
        nats: float64 (K,), confidences, rising.
        shots: int64 (K,), those of at least so many nats.
        errors: int64 (K,), logical errors among them.
    """

    nats: np.ndarray
    shots: np.ndarray
    errors: np.ndarray


def post_selection(counts: Mapping[str, int]) -> PostSelection:
    """The curve that ``counts_by_nat`` holds, e.g. ``custom_counts`` of a sinter row.

    Keys of other kinds are passed over.
    """
    found: dict[str, collections.Counter[float]] = {
        what: collections.Counter() for what in ("shots", "errors")
    }
    for key, count in counts.items():
        what, separator, ends = key.partition(":nats=")
        if separator and what in found:
            found[what][float(ends.partition("-")[0])] += count
    nats = np.array(sorted(found["shots"]), dtype=np.float64)
    kept = [np.array([part[k] for k in nats], dtype=np.int64) for part in found.values()]
    return PostSelection(nats, *(np.cumsum(part[::-1])[::-1] for part in kept))
