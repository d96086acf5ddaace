"""A detector error model as flat numpy arrays, the form that the package computes on."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import stim

from qec.errors import QecError


@dataclasses.dataclass(frozen=True)
class Mechanisms:
    """The error mechanisms of a detector error model.

    Attributes:
        probability: float64 (m,).
        mechanism: int32 (k,), for each detector entry the mechanism that it belongs to, ascending.
        detector: int32 (k,), the detector of each entry; a detector stands once per mechanism.
        component: int32 (k,), which ``^``-component of the suggested decomposition held it.
        flips_observable: bool (m,), whether observable 0 is flipped.
        num_detectors: detectors of the model.
    """

    probability: np.ndarray
    mechanism: np.ndarray
    detector: np.ndarray
    component: np.ndarray
    flips_observable: np.ndarray
    num_detectors: int

    @classmethod
    def from_dem(cls, dem: stim.DetectorErrorModel) -> Mechanisms:
        """Reads every ``error`` instruction of ``dem`` (loops unrolled).

        Raises:
            QecError: more or fewer than one observable, or a probability that is not in [0, 1].
        """
        if dem.num_observables != 1:
            raise QecError(
                f"the detector error model has {dem.num_observables} observables; a surface-code "
                "memory experiment has exactly one."
            )
        token = _numeric_tokens(dem.flattened())
        is_start = token == _ERROR
        mechanism = np.cumsum(is_start) - 1
        start = np.flatnonzero(is_start)
        probability = token[start + 1]
        if not ((probability >= 0) & (probability <= 1)).all():
            raise QecError("the detector error model has a probability that is not in [0, 1].")
        token[start + 1] = _ERROR  # what is left non-negative is a detector
        separators = np.cumsum(token == _SEPARATOR)
        component = separators - separators[start][mechanism]
        flips = np.bincount(mechanism[token == _OBSERVABLE], minlength=len(start)) % 2 == 1
        is_detector = token >= 0
        detector = token[is_detector].astype(np.int64)
        mechanism, component = mechanism[is_detector], component[is_detector]
        # A detector that stands in two components of one mechanism cancels.
        key = mechanism * dem.num_detectors + detector
        _, first, count = np.unique(key, return_index=True, return_counts=True)
        kept = first[count % 2 == 1]
        return cls(
            probability=probability,
            mechanism=mechanism[kept].astype(np.int32),
            detector=detector[kept].astype(np.int32),
            component=component[kept].astype(np.int32),
            flips_observable=flips,
            num_detectors=dem.num_detectors,
        )

    def detection_rates(self) -> np.ndarray:
        """Probability that each detector fires, float64 (num_detectors,).

        The mechanisms are independent: P = (1 - prod(1 - 2 p)) / 2 over those that flip it.
        """
        log = np.log(np.maximum(np.abs(1 - 2 * self.probability), 1e-300))[self.mechanism]
        negative = (self.probability > 0.5)[self.mechanism]
        total = np.bincount(self.detector, weights=log, minlength=self.num_detectors)
        sign = 1 - 2 * (np.bincount(self.detector, negative, self.num_detectors) % 2)
        return (1 - sign * np.exp(total)) / 2


_ERROR, _SEPARATOR, _OBSERVABLE = -1.0, -2.0, -3.0


def _numeric_tokens(flat: stim.DetectorErrorModel) -> np.ndarray:
    """The error instructions as one float64 array: _ERROR p D D _SEPARATOR D _OBSERVABLE ...

    Reading the model's text with numpy is several times faster than its Python objects.
    """
    lines = [line for line in str(flat).splitlines() if line.startswith("error")]
    text = "\n".join(lines)
    if "[" in text:  # instruction tags
        text = re.sub(r"\[[^\]]*\]", "", text)
    text = text.replace("error(", "-1 ").replace(")", "")
    text = text.replace("^", "-2").replace("L0", "-3").replace("D", "")
    return np.fromstring(text, dtype=np.float64, sep=" ")
