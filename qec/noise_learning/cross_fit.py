"""Logical error rates with learned weights, never on the shots that they were learned from.

As Google Quantum AI did: what is learned from the even shots (0, 2, ...) decodes the odd ones, and
the other way round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import stim

from qec.decoding.decoder import named_decoder
from qec.noise_learning.error_structure import ErrorStructure
from qec.noise_learning.learn import NoiseLearner
from qec.support.statistics import Estimate, error_rate, paired_ratio

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
        """Logical error rate per shot."""
        return error_rate(self.errors, self.shots)

    @property
    def ratio(self) -> Estimate:
        """Logical errors over those of the baseline, on the same shots."""
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
        predictions[half::2] = np.asarray(found)[:, 0]
    return predictions


class Scored:
    """Shots decoded with a baseline model, to compare others with it.

    Args:
        events: bit-packed, uint8 (shots, ceil(num_detectors / 8)).
        flips: uint8 (shots,), the true ones.
        decoders: names.
        baseline, models: the baseline's name and its models.

    Attributes:
        wrong: for each decoder bool (shots,), what it predicts wrongly with the baseline.

    Raises:
        QecError: a decoder that does not take the model, or events that it does not explain.
    """

    def __init__(
        self,
        events: np.ndarray,
        flips: np.ndarray,
        decoders: Sequence[str],
        baseline: str,
        models: Halves,
    ) -> None:
        self.baseline = baseline
        self._events, self._flips = events, flips
        self.wrong = {name: self._wrong(models, name) for name in decoders}

    def scores(self, models: Mapping[str, Halves]) -> list[Score]:
        """For each decoder the baseline, and then every model next to it on the same shots."""
        found = []
        for decoder, wrong in self.wrong.items():
            of_model = {name: self._wrong(halves, decoder) for name, halves in models.items()}
            found += [
                score(name, decoder, self.baseline, mine, wrong)
                for name, mine in {self.baseline: wrong, **of_model}.items()
            ]
        return found

    def _wrong(self, models: Halves, decoder: str) -> np.ndarray:
        return decode_halves(models, self._events, decoder) != self._flips


def score(name: str, decoder: str, baseline: str, wrong: np.ndarray, other: np.ndarray) -> Score:
    """Counts of two decodings, bool (shots,) each."""
    counts = (int(np.count_nonzero(w)) for w in (wrong, other, wrong & other))
    return Score(name, decoder, baseline, len(wrong), *counts)
