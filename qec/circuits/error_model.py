"""A detector error model as flat numpy arrays, the form that the package computes on."""

from __future__ import annotations

import dataclasses
import re
from typing import NamedTuple

import numpy as np
import stim

from qec.support.errors import QecError

MOST_DETECTORS = 10**7
"""Models with more are taken for a slip: no memory would hold what is made of them."""


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

    @property
    def fires(self) -> np.ndarray:
        """bool (num_detectors,), the detectors that some mechanism flips."""
        possible = self.probability[self.mechanism] > 0
        return np.bincount(self.detector, possible, minlength=self.num_detectors) > 0

    def detection_rates(self) -> np.ndarray:
        """Probability that each detector fires, float64 (num_detectors,).

        The mechanisms are independent: P = (1 - prod(1 - 2 p)) / 2 over those that flip it.
        """
        log = np.log(np.maximum(np.abs(1 - 2 * self.probability), 1e-300))[self.mechanism]
        negative = (self.probability > 0.5)[self.mechanism]
        total = np.bincount(self.detector, weights=log, minlength=self.num_detectors)
        sign = 1 - 2 * (np.bincount(self.detector, negative, self.num_detectors) % 2)
        return (1 - sign * np.exp(total)) / 2


class AtMostHalf(NamedTuple):
    """A model without probabilities above 1/2, and what turns shots of one into shots of the other.

    Attributes:
        dem: the model.
        events: uint8 (num_detectors,), XORed with the detection events of a shot.
        flip: 0 or 1, XORed with the flip of observable 0.
    """

    dem: stim.DetectorErrorModel
    events: np.ndarray
    flip: int


_MOST = 0.5 - 1e-6  # at 1/2 the logarithms of rates are infinite
# Every probability above _MOST, and few others: most models need not be looked at in detail.
_MAY_BE_LIKELY = re.compile(r"error\((?:0\.(?:[5-9]|49999)|1)")


def at_most_half(dem: stim.DetectorErrorModel) -> AtMostHalf:
    """Takes the mechanisms that happen more often than not for granted.

    Where such a mechanism of probability p happens is where one of probability 1 - p does not, in
    shots whose events are flipped by it.  Matching takes no negative weights with correlations, and
    no infinite ones, such as of p = 1.
    """
    events, flip = np.zeros(dem.num_detectors, dtype=np.uint8), 0
    if not _MAY_BE_LIKELY.search(untagged(dem)):
        return AtMostHalf(dem, events, flip)
    made = stim.DetectorErrorModel()
    for item in dem.flattened():
        if item.type != "error" or not item.args_copy()[0] > _MOST:
            made.append(item)
            continue
        p, targets = item.args_copy()[0], item.targets_copy()
        if p > 0.5:
            for target in targets:
                if target.is_relative_detector_id():
                    events[target.val] ^= 1
                elif target.is_logical_observable_id():
                    flip ^= 1
        made.append("error", min(p, 1 - p, _MOST), targets, tag=item.tag)
    return AtMostHalf(made, events, flip)


_ERROR, _SEPARATOR, _OBSERVABLE = -1.0, -2.0, -3.0


def _numeric_tokens(flat: stim.DetectorErrorModel) -> np.ndarray:
    """The error instructions as one float64 array: _ERROR p D D _SEPARATOR D _OBSERVABLE ...

    Reading the model's text with numpy is several times faster than its Python objects.
    """
    text = "\n".join(line for line in untagged(flat).splitlines() if line.startswith("error"))
    text = text.replace("error(", "-1 ").replace(")", "")
    text = text.replace("^", "-2").replace("L0", "-3").replace("D", "")
    return np.fromstring(text, dtype=np.float64, sep=" ")


def untagged(dem: stim.DetectorErrorModel) -> str:
    """The text of a model without the tags of its instructions, which may hold anything."""
    text = str(dem)
    return re.sub(r"\[[^\]]*\]", "", text) if "[" in text else text


def silent_detectors(dem: stim.DetectorErrorModel) -> np.ndarray:
    """int64, the detectors of a model that no mechanism flips."""
    lines = (line for line in untagged(dem.flattened()).splitlines() if line.startswith("error"))
    text = "\n".join(line for line in lines if not line.startswith("error(0)"))
    flipped = np.array(re.findall(r"D(\d+)", text), dtype=np.int64)
    return np.setdiff1d(np.arange(dem.num_detectors), flipped)
