"""``learn_noise``: from detection events to a weighted detector error model."""

from __future__ import annotations

import numpy as np
import stim

from qec.noise_learning.error_structure import ErrorStructure
from qec.noise_learning.estimator import Estimator, NoiseEstimate
from qec.noise_learning.rates_from_parities import RatesFromParities
from qec.support.errors import QecError

METHODS = ("auto", "correlation", "correlation-pooled", "channels", "local")


def learn_noise(
    structure: stim.Circuit | stim.DetectorErrorModel | ErrorStructure,
    detection_events: np.ndarray,
    *,
    method: str = "auto",
    prior: NoiseEstimate | stim.DetectorErrorModel | None = None,
) -> stim.DetectorErrorModel:
    """Learns the probabilities of a detector error model from detection events alone.

    Args:
        structure: a circuit, whose noise instructions tell which rates belong together, or a model.
            Its probabilities are a first guess.
        detection_events: uint8 (shots, ceil(num_detectors / 8)), bit-packed little-endian, or bool
            or uint8 (shots, num_detectors).
        method: see ``NoiseLearner.estimate``.
        prior: an estimate or model in place of the structure's own probabilities.

    Returns:
        the model of ``structure`` with the same lines and the learned probabilities.

    Raises:
        QecError: events of the wrong width, unknown method, a structure that cannot be used.

    Examples:
        >>> import stim, qec
        >>> make = lambda p: stim.Circuit.generated("surface_code:rotated_memory_x", distance=3,
        ...                                         rounds=3, after_clifford_depolarization=p)
        >>> events = make(0.01).compile_detector_sampler(seed=1).sample(100_000, bit_packed=True)
        >>> learned = qec.learn_noise(make(0.001), events)
        >>> true = make(0.01).detector_error_model()
        >>> 0.8 < learned[0].args_copy()[0] / true[0].args_copy()[0] < 1.2
        True
    """
    learner = NoiseLearner(structure)
    return learner.update(detection_events).estimate(method, prior).dem


class NoiseLearner:
    """Accumulates detection events and estimates the noise behind them, again and again.

    Args:
        structure: as in ``learn_noise``.
    """

    def __init__(self, structure: stim.Circuit | stim.DetectorErrorModel | ErrorStructure) -> None:
        self.structure = ErrorStructure.of(structure)
        self.inversion = RatesFromParities(self.structure)
        self.moments = self.inversion.accumulator()

    def update(self, detection_events: np.ndarray) -> NoiseLearner:
        """Adds shots, bit-packed or one byte per detector."""
        self.moments.update(self.packed(detection_events))
        return self

    def packed(self, events: np.ndarray) -> np.ndarray:
        """``events`` bit-packed; QecError if they do not have the structure's detectors."""
        events, n = np.asarray(events), self.structure.num_detectors
        if events.ndim == 2 and events.shape[1] == n and n > 1:
            if events.dtype not in (np.bool_, np.uint8) or events.max(initial=0) > 1:
                raise QecError("detection events of one byte each must be 0 or 1, bool or uint8.")
            return np.packbits(events, axis=1, bitorder="little")
        return events

    def estimate(
        self,
        method: str = "auto",
        prior: NoiseEstimate | stim.DetectorErrorModel | None = None,
    ) -> NoiseEstimate:
        """Estimates the rates from the shots so far.

        Args:
            method: "correlation": every mechanism by itself, from the coincidences of its
                detectors; "correlation-pooled": the mean of that over mechanisms that are the same
                function of the noise parameters; "channels": one strength per noise parameter;
                "local": rates that differ from place to place, drawn towards the channels as far
                as the data allow;
                "auto": "local" where the data show that places differ, else "channels".
            prior: an estimate or a model whose probabilities take the place of the structure's.

        Raises:
            QecError: unknown method, no shots, or a prior of another structure.
        """
        if method not in METHODS:
            raise QecError(f"method={method!r} is unknown: use one of {', '.join(METHODS)}.")
        return Estimator(self.structure, self.inversion, self.moments, prior).run(method)
