"""Rates that differ from place to place: a hierarchical prior around the channel fit.

A mechanism's rate is x_e = sum_f x_f (1 + s_site(f) + l_location(f) + k_e) over its faults f, with
x_f from the channel fit and independent random deviations of three kinds: of a *site* (the same
qubits, at all times), of a *location* (one application of a channel), and of the mechanism itself
(anything that the circuit does not know of).  How much each kind varies is estimated first, by
matching the scatter of the estimates around the fit (Haseman-Elston regression, Behavior Genetics
2, 3, 1972); then the rates are the best linear prediction from the data.  Where nothing varies this
is the channel fit; with many shots it follows the data.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.optimize import nnls
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, cg

from qec.noise_learning.faults import Faults

KINDS = ("site", "location", "mechanism")

SMALLEST = 0.02
"""A rate is not taken below this part of what the channel fit says."""


@dataclasses.dataclass(frozen=True, eq=False)
class LocalDeviations:
    """How mechanisms share random deviations from their prior rates.

    Attributes:
        loads: for each of ``KINDS`` a sparse (m, labels): d x_e / d deviation.
        x: float64 (m,), the prior rates.
    """

    loads: tuple[csr_array, ...]
    x: np.ndarray

    @classmethod
    def around(cls, faults: Faults, mechanisms: int) -> LocalDeviations:
        """Around the rates that ``faults`` add up to."""
        loads = []
        for label in (faults.site, faults.location, faults.mechanism):
            shape = (mechanisms, int(label.max()) + 1)
            loads.append(csr_array((faults.x, (faults.mechanism, label)), shape=shape))
        return cls(tuple(loads), faults.mechanism_rates(mechanisms))

    def variance(self, spread: np.ndarray) -> np.ndarray:
        """float64 (m,): prior variance of the rates, ``spread`` (3,) the variance of each kind."""
        each = [(load.multiply(load)).sum(axis=1) for load in self.loads]
        return np.stack(each, axis=1) @ spread

    def covariance(self, spread: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """The prior covariance of the rates, (m, m), times a vector."""
        return sum(
            s * (load @ (load.T @ vector)) for s, load in zip(spread, self.loads, strict=True)
        )

    def spread_of(
        self, estimate: np.ndarray, known: np.ndarray, variance: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Variance of each kind of deviation, and how sure it is that there is any.

        E[r r^T] = V + sum_k s_k G_k G_k^T for the residuals r; matching the quadratic forms
        |G_k^T D^-1 r|^2, D the diagonal of the right-hand side, gives linear equations for s >= 0.

        Returns:
            float64 (3,), and the largest z-score of the quadratic forms if nothing varied.
        """
        residual = np.where(known, estimate - self.x, 0.0)
        spread = np.zeros(len(KINDS))
        score = 0.0
        for iteration in range(4):
            weight = np.where(known, 1 / (variance + self.variance(spread)), 0.0)
            scaled = [load * weight[:, None] for load in self.loads]
            noise = np.array([(g.multiply(g) @ np.ones(g.shape[1])) @ variance for g in scaled])
            forms = np.array([np.sum((g.T @ residual) ** 2) for g in scaled]) - noise
            overlap = np.array([[((a.T @ b).power(2)).sum() for b in self.loads] for a in scaled])
            if iteration == 0:
                null = np.sqrt([2 * ((g * variance[:, None]).T @ g).power(2).sum() for g in scaled])
                score = float((forms / np.maximum(null, 1e-300)).max())
            # Rows in units of their own size, so that no kind dominates the least squares.
            size = np.maximum(overlap.diagonal(), 1e-300)  # 0 where nothing is known
            spread, _ = nnls(overlap / size[:, None], forms / size)
            spread = np.minimum(spread, 4.0)
        return spread, score

    def predict(
        self, spread: np.ndarray, estimate: np.ndarray, known: np.ndarray, variance: np.ndarray
    ) -> np.ndarray:
        """Best linear prediction of the rates; float64 (m,), positive where the prior is."""
        m = len(self.x)
        noise = np.where(known, variance, np.inf)
        scale = np.sqrt(self.variance(spread) + np.where(known, variance, 0.0))
        scale = np.where(known & (scale > 0), scale, 1.0)

        # What is unknown is left out of the system.
        def apply(v: np.ndarray) -> np.ndarray:
            v = np.where(known, v.ravel(), 0.0) / scale
            w = self.covariance(spread, v) + np.where(known, noise, 0.0) * v
            return np.where(known, w / scale, v)

        residual = np.where(known, estimate - self.x, 0.0) / scale
        operator = LinearOperator((m, m), matvec=apply, dtype=np.float64)
        solution, _ = cg(operator, residual, rtol=1e-5, maxiter=500)
        moved = self.covariance(spread, np.where(known, solution / scale, 0.0))
        return np.maximum(self.x + moved, SMALLEST * self.x)
