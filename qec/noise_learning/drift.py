"""Noise that drifts: estimates from recent shots, and an alarm when something changes at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import stim
from scipy.stats import norm

from qec.noise_learning.error_structure import ErrorStructure
from qec.noise_learning.estimator import Estimator, NoiseEstimate
from qec.noise_learning.learn import NoiseLearner
from qec.support.errors import QecError

FALSE_ALARM = 1e-6
"""Probability per look that the alarm goes off although nothing changed."""


def alarm_threshold(num_detectors: int) -> float:
    """Standard deviations beyond which a detector's change raises the alarm, two-sided."""
    return float(norm.isf(FALSE_ALARM / 2 / num_detectors))


@dataclasses.dataclass(frozen=True, eq=False)
class DriftUpdate:
    """What the tracker saw in one piece of data.

    Attributes:
        shots: shots seen so far, this piece included.
        event_rate: detection events per detector and shot in this piece.
        score: largest deviation of a detector's rate from the recent past, in standard deviations.
        changed: int64, detectors whose rate changed beyond the alarm's threshold; empty: no alarm.
        estimate: the noise as of now.
    """

    shots: int
    event_rate: float
    score: float
    changed: np.ndarray
    estimate: NoiseEstimate


class DriftTracker:
    """Follows the noise through a stream of detection events.

    The weight of a shot halves every ``half_life`` shots.  Each piece of data is first compared
    with what came before: a detector whose rate of events moved by more than chance allows raises
    the alarm (two-sided, Bonferroni over the detectors, ``FALSE_ALARM`` per look), and the past is
    then forgotten but for a tenth of its weight.

    Args:
        structure: as for ``learn_noise``.
        half_life: shots.
        method: as for ``NoiseLearner.estimate``.

    Raises:
        QecError: a half-life that is not positive, or as ``NoiseLearner``.
    """

    def __init__(
        self,
        structure: stim.Circuit | stim.DetectorErrorModel | ErrorStructure,
        half_life: float,
        method: str = "auto",
    ) -> None:
        if not half_life > 0:
            raise QecError(f"half_life={half_life!r} must be a number of shots above 0.")
        self.learner = NoiseLearner(structure)
        self.half_life = half_life
        self.method = method
        self.shots = 0
        self.threshold = alarm_threshold(self.learner.structure.num_detectors)

    def push(self, detection_events: np.ndarray) -> DriftUpdate:
        """Adds shots, in the order in which they were taken, and estimates the noise anew.

        Args:
            detection_events: as for ``learn_noise``.

        Raises:
            QecError: events of the wrong width.
        """
        past = self.learner.moments
        new = self.learner.inversion.accumulator()
        new.update(self.learner.packed(detection_events))
        singles = self.learner.structure.num_detectors
        rate = new.odd[:, :singles].sum(axis=0) / new.shots
        score = np.zeros(singles)
        if past.shots:
            before = past.odd[:, :singles].sum(axis=0) / past.shots
            both = (before * past.effective_shots + rate * new.shots) / (
                past.effective_shots + new.shots
            )
            variance = both * (1 - both) * (1 / new.shots + 1 / past.effective_shots)
            score = (rate - before) / np.sqrt(np.maximum(variance, 1e-12))
        changed = np.flatnonzero(np.abs(score) > self.threshold)
        past.forget(2 ** (-new.shots / self.half_life) * (0.1 if len(changed) else 1.0))
        past.merge(new)
        self.shots += int(new.shots)
        estimate = Estimator(self.learner.structure, self.learner.inversion, past, None).run(
            self.method
        )
        worst = float(np.abs(score).max())
        return DriftUpdate(self.shots, float(rate.mean()), worst, changed, estimate)
