"""The strengths of a few noise parameters, fitted to the estimated rates of all mechanisms.

In x = -ln(1 - 2 p) the model is linear, x_mechanism = C theta with theta >= 0, so the fit is
convex: weighted non-negative least squares.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.optimize import nnls

from qec.noise_learning.faults import Faults

PRIOR_SPREAD = 1.0
"""Standard deviation, relative to the common scale, of a parameter's strength before the data."""

SMALLEST = 1e-3
"""A parameter is not taken below this part of its prior strength: nothing has weight infinity."""


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelFit:
    """Result of ``fit_channels``.

    Attributes:
        strength: float64 (parameters,), factors on the parameters of the structure.
        faults: the faults with their x multiplied accordingly.
        x: float64 (m,), the mechanisms' rates.
        response: float64 (m, m) as two factors (m, parameters) and (parameters, m): d x by
            d estimate, for standard errors.
    """

    strength: np.ndarray
    faults: Faults
    x: np.ndarray
    response: tuple[np.ndarray, np.ndarray]

    def variance(self, variance: np.ndarray, deviations: np.ndarray | None) -> np.ndarray:
        """Variance of ``x``, float64 (m,).

        Args:
            variance: float64 (m,), of the estimates, taken for independent.
            deviations: float64 (blocks, m), ``RatesFromParities.block_deviations``, which know how
                they depend on each other; they are preferred where given.
        """
        outer, inner = self.response
        if deviations is None:
            return ((outer @ (inner * np.sqrt(variance))) ** 2).sum(axis=1)
        return ((outer @ (inner @ deviations.T)) ** 2).sum(axis=1)


def fit_channels(
    faults: Faults, estimate: np.ndarray, known: np.ndarray, variance: np.ndarray
) -> ChannelFit:
    """Fits one factor per noise parameter.

    The prior is weak: all parameters together as the structure has them, within a factor of two,
    and each one within +- ``PRIOR_SPREAD`` of what the data say of all together.  It decides only
    what the data cannot tell apart.

    Args:
        faults: with their prior x.
        estimate: float64 (m,), the estimated rate of every mechanism.
        known: bool (m,), whether there is one.
        variance: float64 (m,), of the estimates.
    """
    m, parameters = len(estimate), len(faults.parameter_names)
    design = faults.design(m)
    weight = np.where(known, 1 / np.sqrt(variance), 0.0)
    weighted = design * weight[:, None]
    target = np.where(known, estimate, 0.0) * weight
    total = weighted.sum(axis=1)
    scale = max((1 + total @ target) / (1 + total @ total), SMALLEST)
    # Strengths in units of the scale; the prior is an observation of 1 for each of them.
    normal = np.eye(parameters) / PRIOR_SPREAD**2 + scale**2 * weighted.T @ weighted
    right = np.full(parameters, 1 / PRIOR_SPREAD**2) + scale * weighted.T @ target
    triangle = np.linalg.cholesky(normal).T
    relative, _ = nnls(triangle, np.linalg.solve(triangle.T, right))
    strength = scale * np.maximum(relative, SMALLEST)
    fitted = dataclasses.replace(faults, x=faults.x * strength[faults.parameter])
    return ChannelFit(
        strength=strength,
        faults=fitted,
        x=fitted.mechanism_rates(m),
        response=(scale * design, np.linalg.solve(normal, scale * weighted.T * weight)),
    )
