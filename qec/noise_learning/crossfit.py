"""Logical error rates with learned weights, never on the shots that they were learned from.

As Google Quantum AI did: what is learned from the even shots (0, 2, ...) decodes the odd ones, and
the other way round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import stim

from qec.decoder import named_decoder
from qec.noise_learning.learn import NoiseLearner
from qec.noise_learning.structure import ErrorStructure
from qec.stats import Estimate, error_rate, paired_ratio

Halves = tuple[stim.DetectorErrorModel, stim.DetectorErrorModel]
"""The models for the odd shots and for the even ones."""


@dataclasses.dataclass(frozen=True)
class Score:
    """Predictions of one decoder with one model, next to a baseline model on the same shots.

    Attributes:
        model, decoder, baseline: names.
        shots, errors: of the model.
        baseline_errors, both: shots that the baseline, that both predict wrongly.
    """

    model: str
    decoder: str
    baseline: str
    shots: int
    errors: int
    baseline_errors: int
    both: int

    @property
    def rate(self) -> Estimate:
        return error_rate(self.errors, self.shots)

    @property
    def ratio(self) -> Estimate:
        return paired_ratio(self.errors, self.baseline_errors, self.both)


def cross_fit(structure: ErrorStructure, events: np.ndarray, method: str) -> Halves:
    """Models learned from the even and from the odd shots; events bit-packed."""
    even, odd = (NoiseLearner(structure).update(events[k::2]).estimate(method).dem for k in (0, 1))
    return even, odd


def decode_halves(models: Halves, events: np.ndarray, decoder: str) -> np.ndarray:
    """Predicted flips, uint8 (shots,), each half of the shots with the model for it."""
    predictions = np.zeros(len(events), dtype=np.uint8)
    for half, model in zip((1, 0), models, strict=True):
        found = named_decoder(decoder, model).decode_recorded(events[half::2])
        predictions[half::2] = found[:, 0]
    return predictions


def scores(
    models: Mapping[str, Halves],
    events: np.ndarray,
    flips: np.ndarray,
    decoders: Sequence[str],
    baseline: str,
) -> list[Score]:
    """Every model with every decoder on the same shots, next to the model ``baseline``."""
    found = []
    for decoder in decoders:
        wrong = {name: decode_halves(m, events, decoder) != flips for name, m in models.items()}
        found += [
            score(name, decoder, baseline, mine, wrong[baseline]) for name, mine in wrong.items()
        ]
    return found


def score(name: str, decoder: str, baseline: str, wrong: np.ndarray, other: np.ndarray) -> Score:
    """Counts of two decodings, bool (shots,) each."""
    counts = (int(np.count_nonzero(w)) for w in (wrong, other, wrong & other))
    return Score(name, decoder, baseline, len(wrong), *counts)
