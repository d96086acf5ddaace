"""One estimate of the noise: from accumulated parities to the rates of all mechanisms."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import stim

from qec.noise_learning.channel_fit import ChannelFit, fit_channels
from qec.noise_learning.error_structure import ErrorStructure
from qec.noise_learning.faults import Faults
from qec.noise_learning.local_rates import KINDS, LocalDeviations
from qec.noise_learning.mechanism_classes import formula_classes
from qec.noise_learning.parities import ParityAccumulator
from qec.noise_learning.rates_from_parities import RatesFromParities
from qec.support.errors import QecError

SURE = 4.0
"""z-score above which "auto" believes that places differ."""


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """What was learned.

    Attributes:
        structure: the structure that it is about.
        method: the method that was used; for "auto" the one that was chosen.
        x: float64 (m,), -ln(1 - 2 p) of every mechanism.
        standard_error: float64 (m,), of ``x``.
        shots: effective number of shots.
        faults: the structure's faults with the learned strengths of their parameters; as they came
            for methods that have no parameters.
        spread: standard deviation of sites, locations and mechanisms around the channel fit, as
            parts of the rates; None for methods that do not estimate it.
    """

    structure: ErrorStructure
    method: str
    x: np.ndarray
    standard_error: np.ndarray
    shots: float
    faults: Faults
    spread: dict[str, float] | None = None

    @property
    def probability(self) -> np.ndarray:
        """float64 (m,), probability of every mechanism."""
        return -np.expm1(-self.x) / 2

    @property
    def probability_error(self) -> np.ndarray:
        """float64 (m,), standard error of ``probability``: dp = dx (1 - 2 p) / 2."""
        return self.standard_error / 2 * np.exp(-self.x)

    @property
    def parameters(self) -> dict[str, float]:
        """Learned over prior strength of each noise parameter (those of rate 0 are left out)."""
        names = self.structure.faults.parameter_names
        before, after = (
            np.bincount(f.parameter, f.x, minlength=len(names))
            for f in (self.structure.faults, self.faults)
        )
        return {n: float(a / b) for n, a, b in zip(names, after, before, strict=True) if b > 0}

    @property
    def event_rates(self) -> np.ndarray:
        """float64 (num_detectors,), probability that each detector fires."""
        return -np.expm1(-(self.structure.sets.T @ self.x)) / 2

    @property
    def dem(self) -> stim.DetectorErrorModel:
        """The structure's model with the learned probabilities."""
        return self.structure.to_dem(self.x)


class Estimator:
    """The steps that the methods share.

    Args:
        structure, inversion: of the experiment.
        moments: parities of its detection events.
        prior: an estimate or model in place of the structure's own rates, or None.

    Raises:
        QecError: no shots, or a prior with other mechanisms.
    """

    def __init__(
        self,
        structure: ErrorStructure,
        inversion: RatesFromParities,
        moments: ParityAccumulator,
        prior: NoiseEstimate | stim.DetectorErrorModel | None,
    ) -> None:
        self.structure, self.inversion, self.moments = structure, inversion, moments
        self.faults = structure.faults
        if prior is not None:
            self.faults = _with_rates(structure, prior)
        self.rates, self.known = inversion.rates(moments)
        self._block_deviations = inversion.block_deviations(moments)
        self._leave_out_useless_detectors()

    def run(self, method: str) -> NoiseEstimate:
        """The estimate by any method of ``NoiseLearner.estimate``."""
        if method in ("correlation", "correlation-pooled"):
            return self._correlation(pooled=method == "correlation-pooled")
        fit, deviations, spread, score = self._channels()
        if method == "auto":
            method = "local" if score > SURE else "channels"
        if method == "channels":
            return self._made(method, fit.x, np.sqrt(self._fit_variance(fit)), fit.faults)
        return self._local(fit, deviations, spread)

    def _channels(self) -> tuple[ChannelFit, LocalDeviations, np.ndarray, float]:
        """The channel fit and, from its residuals, the deviations around it."""
        m = self.structure.num_mechanisms
        variance = self._variance(self.faults.mechanism_rates(m))
        extra, spread, score = np.zeros(m), np.zeros(len(KINDS)), 0.0
        for _ in range(3):
            fit = fit_channels(self.faults, self.rates, self.known, variance + extra)
            deviations = LocalDeviations.around(fit.faults, m)
            variance = self._variance(fit.x)
            spread, score = deviations.spread_of(self.rates, self.known, variance)
            extra = deviations.variance(spread)
        return fit, deviations, spread, score

    def _local(
        self, fit: ChannelFit, deviations: LocalDeviations, spread: np.ndarray
    ) -> NoiseEstimate:
        x = fit.x
        for _ in range(2):  # the statistical error depends on the local rates, too
            variance = self._variance(x)
            x = deviations.predict(spread, self.rates, self.known, variance)
        before = deviations.variance(spread)
        after = np.where(self.known, before * variance / (before + variance), before)
        named = dict(zip(KINDS, np.sqrt(spread).tolist(), strict=True))
        error = np.sqrt(after + self._fit_variance(fit))
        return self._made("local", x, error, fit.faults, named)

    def _fit_variance(self, fit: ChannelFit) -> np.ndarray:
        return fit.variance(self._variance(fit.x), self._block_deviations)

    def _variance(self, x: np.ndarray) -> np.ndarray:
        """Variance of ``rates`` if the mechanisms have the rates ``x``."""
        shots = self.moments.effective_shots
        return self.inversion.variance(x, shots, self._block_deviations)

    def _correlation(self, pooled: bool) -> NoiseEstimate:
        """Every rate from its own coincidences; what is unknown or negative gets a small one.

        A clipped hyperedge would add to the edges in it.  So rates are taken from the largest sets
        to the smallest, and each takes off what its supersets were given.
        """
        x, prior = self.rates.copy(), self._prior()
        variance = self._variance(prior)
        if pooled:
            group = formula_classes(self.faults, len(x))
            count = np.bincount(group, self.known)[group]
            known = count > 0
            count = np.maximum(count, 1)
            variance = np.bincount(group, variance * self.known)[group] / count**2
            x = np.bincount(group, x * self.known)[group] / count
            variance, x = np.where(known, variance, prior**2), np.where(known, x, prior)
            x = np.maximum(x, np.minimum(np.sqrt(variance) / 10, prior))
        else:
            containment = self.inversion.containment
            contained, x = containment @ x, np.zeros_like(x)
            for size in np.unique(self.structure.size)[::-1]:
                same = np.flatnonzero(self.structure.size == size)
                own = contained[same] - containment[same] @ x
                x[same] = np.where(self.known[same], own, prior[same])
                floor = np.sqrt(variance[same]) / 10
                x[same] = np.maximum(x[same], np.minimum(floor, prior[same]))
        name = "correlation-pooled" if pooled else "correlation"
        return self._made(name, np.maximum(x, 1e-9), np.sqrt(variance), self.faults)

    def _prior(self) -> np.ndarray:
        """The prior rates at the scale that the data have; float64 (m,)."""
        x = self.faults.mechanism_rates(self.structure.num_mechanisms)
        events = self.moments.effective_shots / 2  # expected for a mechanism of x = 1
        scale = (1 + events * self.rates[self.known].sum()) / (1 + events * x[self.known].sum())
        return x * max(scale, 1e-3)

    def _made(
        self,
        method: str,
        x: np.ndarray,
        error: np.ndarray,
        faults: Faults,
        spread: dict[str, float] | None = None,
    ) -> NoiseEstimate:
        shots = self.moments.effective_shots
        estimate = NoiseEstimate(self.structure, method, x, error, shots, faults, spread)
        self._warn_of_misfit(estimate)
        return estimate

    def _fires(self) -> np.ndarray:
        """float64 (num_detectors,), observed rate of each detector."""
        return (1 - self.moments.parities()[: self.structure.num_detectors]) / 2

    def _warn_of_misfit(self, estimate: NoiseEstimate) -> None:
        """Warns of detectors that fire at another rate than any rates of the structure give."""
        fires, learned = self._fires(), estimate.event_rates
        chance = np.sqrt(learned * (1 - learned) / self.moments.effective_shots)
        off = np.abs(fires - learned) > np.maximum(6 * chance, 0.3 * np.maximum(fires, learned))
        off &= (fires > 0) & (fires < 0.49)  # those have a warning of their own
        _warn(
            fires,
            np.flatnonzero(off),
            "fire at a rate that the structure cannot explain: do the events belong to it, and "
            "does it have all their error mechanisms?",
        )

    def _leave_out_useless_detectors(self) -> None:
        fires = self._fires()
        expected = -np.expm1(-(self.structure.sets.T @ self._prior())) / 2
        silent = (fires == 0) & (expected * self.moments.effective_shots > 30)
        self.known &= self.structure.sets @ silent.astype(np.int64) == 0
        kept = "nothing is learned from mechanisms that flip them. Check the readout."
        _warn(fires, np.flatnonzero(silent), f"never fire, as if dead; {kept}")
        _warn(fires, np.flatnonzero(fires >= 0.49), f"fire half of the time or more; {kept}")


def _warn(fires: np.ndarray, detectors: np.ndarray, what: str) -> None:
    if len(detectors):
        names = ", ".join(f"D{k} ({fires[k]:.3g})" for k in detectors[:8])
        more = f" and {len(detectors) - 8} more" if len(detectors) > 8 else ""
        warnings.warn(f"detectors {names}{more} {what}", stacklevel=5)


def _with_rates(
    structure: ErrorStructure, prior: NoiseEstimate | stim.DetectorErrorModel
) -> Faults:
    """The structure's faults, scaled so that they add up to the prior's rates."""
    if isinstance(prior, NoiseEstimate):
        other, faults, x = prior.structure, prior.faults, prior.x
    else:
        other = ErrorStructure.of(prior)
        faults, x = structure.faults, other.x
    if not other.has_mechanisms_of(structure):
        raise QecError("the prior has other error mechanisms than the structure.")
    if faults.parameter_names != structure.faults.parameter_names:
        faults = structure.faults
    total = faults.mechanism_rates(len(x))
    ratio = x / np.where(total > 0, total, 1)
    return dataclasses.replace(faults, x=faults.x * ratio[faults.mechanism])
