"""``learn_noise``: from detection events to a weighted detector error model."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable

import numpy as np
import stim

from qec.errors import QecError
from qec.noise_learning.classes import formula_classes
from qec.noise_learning.channels import ChannelFit, fit_channels
from qec.noise_learning.inversion import Inversion
from qec.noise_learning.local import KINDS, Deviations
from qec.noise_learning.moments import MomentAccumulator
from qec.noise_learning.structure import ErrorStructure

METHODS = ("auto", "correlation", "correlation-pooled", "channels", "local", "network")


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """What was learned.

    Attributes:
        structure: the structure that it is about.
        method: the method that was used; for "auto" the one that was chosen.
        x: float64 (m,), -ln(1 - 2 p) of every mechanism.
        standard_error: float64 (m,), of ``x``.
        spread: standard deviation of sites, locations and mechanisms around the channel fit, as
            parts of the rates; None for methods that do not estimate it.
        shots: effective number of shots.
    """

    structure: ErrorStructure
    method: str
    x: np.ndarray
    standard_error: np.ndarray
    shots: float
    spread: dict[str, float] | None = None

    @property
    def probability(self) -> np.ndarray:
        """float64 (m,), probability of every mechanism."""
        return -np.expm1(-self.x) / 2

    @property
    def dem(self) -> stim.DetectorErrorModel:
        """The structure's model with the learned probabilities."""
        return self.structure.to_dem(self.x)


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

    >>> import stim, qec
    >>> make = lambda p: stim.Circuit.generated("surface_code:rotated_memory_x", distance=3,
    ...                                         rounds=3, after_clifford_depolarization=p)
    >>> events = make(0.01).compile_detector_sampler(seed=1).sample(100_000, bit_packed=True)
    >>> learned = qec.learn_noise(make(0.001), events)
    >>> round(learned[0].args_copy()[0] / make(0.01).detector_error_model()[0].args_copy()[0], 1)
    1.0
    """
    learner = NoiseLearner(structure)
    return learner.update(detection_events).estimate(method, prior).dem


class NoiseLearner:
    """Accumulates detection events and estimates the noise behind them, again and again.

    Args:
        structure: as in ``learn_noise``.
    """

    def __init__(
        self, structure: stim.Circuit | stim.DetectorErrorModel | ErrorStructure
    ) -> None:
        self.structure = ErrorStructure.of(structure)
        self.inversion = Inversion(self.structure)
        self.moments = self.inversion.accumulator()

    def update(self, detection_events: np.ndarray | Iterable[np.ndarray]) -> NoiseLearner:
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
                function of the noise parameters; "channels": one strength per noise parameter; "local": rates that
                differ from place to place, drawn towards the channels as far as the data allow;
                "auto": "local" where the data show that places differ, else "channels".
            prior: an estimate or a model whose probabilities take the place of the structure's.

        Raises:
            QecError: unknown method, no shots, or a prior of another structure.
        """
        if method not in METHODS:
            raise QecError(f"method={method!r} is unknown: use one of {', '.join(METHODS)}.")
        return Estimator(self.structure, self.inversion, self.moments, prior).run(method)


class Estimator:
    """One estimate: the steps that the methods share."""

    def __init__(
        self,
        structure: ErrorStructure,
        inversion: Inversion,
        moments: MomentAccumulator,
        prior: NoiseEstimate | stim.DetectorErrorModel | None,
    ) -> None:
        self.structure, self.inversion, self.moments = structure, inversion, moments
        self.faults = structure.faults
        if prior is not None:
            self.faults = _with_rates(structure, prior)
        self.rates, self.known = inversion.rates(moments)
        self._warn_of_useless_detectors()

    def run(self, method: str) -> NoiseEstimate:
        if method in ("correlation", "correlation-pooled"):
            return self._correlation(pooled=method == "correlation-pooled")
        fit, deviations, spread, score = self._channels()
        if method == "auto":
            method = "local" if score > 4 else "channels"
        if method == "channels":
            return self._made(method, fit.x, np.sqrt(self._fit_variance(fit)))
        return self._local(fit, deviations, spread)

    def _channels(self) -> tuple[ChannelFit, Deviations, np.ndarray, float]:
        """The channel fit and, from its residuals, the deviations around it."""
        m = self.structure.num_mechanisms
        x = np.bincount(self.faults.mechanism, self.faults.x, minlength=m)
        extra, spread, score = np.zeros(m), np.zeros(len(KINDS)), 0.0
        for _ in range(3):
            variance = self.inversion.variance(x, self.moments)
            fit = fit_channels(self.faults, self.rates, self.known, variance + extra)
            deviations = Deviations.around(fit.faults, m)
            variance = self.inversion.variance(fit.x, self.moments)
            spread, score = deviations.spread_of(self.rates, self.known, variance)
            x, extra = fit.x, deviations.variance(spread)
        return fit, deviations, spread, score

    def _local(
        self, fit: ChannelFit, deviations: Deviations, spread: np.ndarray
    ) -> NoiseEstimate:
        x = fit.x
        for _ in range(2):  # the statistical error depends on the local rates, too
            variance = self.inversion.variance(x, self.moments)
            x = deviations.predict(spread, self.rates, self.known, variance)
        before = deviations.variance(spread)
        after = np.where(self.known, before * variance / (before + variance), before)
        named = dict(zip(KINDS, np.sqrt(spread).tolist(), strict=True))
        return self._made("local", x, np.sqrt(after + self._fit_variance(fit)), named)

    def _fit_variance(self, fit: ChannelFit) -> np.ndarray:
        variance = self.inversion.variance(fit.x, self.moments)
        return fit.variance(variance, self.inversion.block_deviations(self.moments))

    def _correlation(self, pooled: bool) -> NoiseEstimate:
        """Every rate from its own coincidences; what is unknown or negative gets a small one.

        A clipped hyperedge would add to the edges in it.  So rates are taken from the largest sets
        to the smallest, and each takes off what its supersets were given.
        """
        x, prior = self.rates.copy(), self._prior()
        variance = self.inversion.variance(prior, self.moments)
        if pooled:
            group = formula_classes(self.faults, len(x))
            count = np.maximum(np.bincount(group, self.known), 1)
            variance = (np.bincount(group, variance * self.known) / count**2)[group]
            x = (np.bincount(group, x * self.known) / count)[group]
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
        x = np.where(self.known, x, prior)
        name = "correlation-pooled" if pooled else "correlation"
        return self._made(name, np.maximum(x, 1e-9), np.sqrt(variance))

    def _prior(self) -> np.ndarray:
        """The prior rates at the scale that the data have; float64 (m,)."""
        m = self.structure.num_mechanisms
        x = np.bincount(self.faults.mechanism, self.faults.x, minlength=m)
        scale = self.rates[self.known].sum() / max(x[self.known].sum(), 1e-300)
        return x * max(scale, 1e-3)

    def _made(
        self, method: str, x: np.ndarray, error: np.ndarray, spread: dict[str, float] | None = None
    ) -> NoiseEstimate:
        shots = self.moments.effective_shots
        return NoiseEstimate(self.structure, method, x, error, shots, spread)

    def _warn_of_useless_detectors(self) -> None:
        fires = self.moments.odd[:, : self.structure.num_detectors].sum(axis=0) / self.moments.shots
        m = self.structure.num_mechanisms
        prior = np.bincount(self.faults.mechanism, self.faults.x, minlength=m)
        expected = -np.expm1(-(self.structure.sets.T @ prior)) / 2
        silent = (fires == 0) & (expected * self.moments.shots > 30)
        _warn("never fire, as if dead", np.flatnonzero(silent), fires)
        _warn("fire half of the time or more", np.flatnonzero(fires >= 0.49), fires)


def _warn(what: str, detectors: np.ndarray, fires: np.ndarray) -> None:
    if len(detectors):
        names = ", ".join(f"D{k} ({fires[k]:.3g})" for k in detectors[:8])
        more = f" and {len(detectors) - 8} more" if len(detectors) > 8 else ""
        warnings.warn(
            f"the detectors {names}{more} {what}: mechanisms that flip them keep their prior "
            "rates. Check the readout, and that the events belong to this structure.",
            stacklevel=4,
        )


def _with_rates(
    structure: ErrorStructure, prior: NoiseEstimate | stim.DetectorErrorModel
) -> object:
    """The structure's faults scaled so that they add up to the prior's rates."""
    if isinstance(prior, stim.DetectorErrorModel):
        other = ErrorStructure.of(prior)
        same, x = other.sets, other.x
    else:
        same, x = prior.structure.sets, prior.x
    if same.shape != structure.sets.shape or (same != structure.sets).nnz:
        raise QecError("the prior has other error mechanisms than the structure.")
    faults = structure.faults
    ratio = x / np.where(structure.x > 0, structure.x, 1)
    return dataclasses.replace(faults, x=faults.x * ratio[faults.mechanism])
