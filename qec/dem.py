"""A detector error model as flat numpy arrays: the form that the rest of the package computes on."""

from __future__ import annotations

import dataclasses

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
        # Going through the text is several times faster than through Python instruction objects.
        probability: list[float] = []
        mechanism: list[int] = []
        detector: list[int] = []
        component: list[int] = []
        flips: list[bool] = []
        for line in str(dem.flattened()).splitlines():
            if not line.startswith("error"):
                continue
            head, _, tail = line.partition(") ")
            index = len(probability)
            probability.append(float(head[head.index("(") + 1 :]))
            flip, part, seen = False, 0, {}
            for token in tail.split():
                if token[0] == "D":
                    seen[token] = None if token in seen and seen[token] is not None else part
                elif token[0] == "L":
                    flip = not flip
                else:
                    part += 1
            for token, where in seen.items():
                if where is not None:
                    mechanism.append(index)
                    detector.append(int(token[1:]))
                    component.append(where)
            flips.append(flip)
        p = np.array(probability, dtype=np.float64)
        if not ((p >= 0) & (p <= 1)).all():
            raise QecError("the detector error model has a probability that is not in [0, 1].")
        return cls(
            probability=p,
            mechanism=np.array(mechanism, dtype=np.int32),
            detector=np.array(detector, dtype=np.int32),
            component=np.array(component, dtype=np.int32),
            flips_observable=np.array(flips, dtype=bool),
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
