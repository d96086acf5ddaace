"""Whether a network fits an error model: does it keep what its probabilities promise there?

Networks are told the error model, and can be wrong about models unlike those that they were
trained on.  Then the edges that they commit have fired less often than they say.  Shots of the
model itself, with the edges that fire in them, show it: some thousand edges, in a second or less.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import numpy as np

from qec.circuits.lattice import SpaceTimeLattice
from qec.predecoder.backends import torch_threads
from qec.predecoder.labelled_shots import LabelledSampler
from qec.predecoder.predecoder import CompiledPredecoder, Predecoder
from qec.support.errors import QecError

_FIRED = 6000  # edges that fire in all shots, about
_SHOTS = (16, 1024)  # at least, at most
_SHOTS_PER_PASS = 64  # bounds the memory
_SEED = 77_000_000
_HARMLESS = 1.25  # wrong commits over expected ones
_SIGMAS = 4.0


@dataclasses.dataclass(frozen=True)
class Fit:
    """Commits of a network on labelled shots of an error model.

    Attributes:
        shots: sampled.
        committed: edges that the network commits in them.
        wrong: those of them that have not fired.
        expected: how many of them are wrong if its probabilities are right.
        sigma: standard deviation of ``wrong - expected``, from the differences between shots.
    """

    shots: int
    committed: int
    wrong: int
    expected: float
    sigma: float

    @property
    def fits(self) -> bool:
        """Whether no more commits are wrong than 1.25 times the expected ones, or than chance."""
        most = self.expected + _SIGMAS * self.sigma
        return self.wrong <= max(_HARMLESS * self.expected, most)

    def __str__(self) -> str:
        if not self.committed:
            return "it commits nothing"
        parts = (f"{n / self.committed:.1%}" for n in (self.wrong, self.expected))
        return "{} of the edges that it commits have not fired, where it promises {}".format(*parts)

    @property
    def in_words(self) -> str:
        """The whole, with what follows."""
        use = "it fits and is used" if self.fits else "it does not fit and is left out"
        return f"{self}, in {self.shots} sampled shots: {use}"


def bind_where_it_fits(
    predecoder: Predecoder,
    lattice: SpaceTimeLattice,
    device: str = "cpu",
    *,
    needed: bool,
    **options: Any,
) -> CompiledPredecoder | None:
    """The pre-decoder on a lattice; None, with a warning, where it does not fit its error model.

    Args:
        predecoder: that might fit.
        lattice: with its error model.
        needed: whether that is an error instead.
        device, options: as of ``Predecoder.bind``.

    Raises:
        QecError: as ``Predecoder.bind``; it does not fit and is needed.
    """
    sampler = LabelledSampler(lattice)
    bound = predecoder.compile_for(sampler.grid, device, **options)
    fit = fit_of(bound, sampler)
    if fit.fits:
        return bound
    what = f"the network {predecoder.name} does not fit this error model: {fit}"
    if needed:
        raise QecError(f"{what}. Decode without it, or train one on this model (qec train).")
    warnings.warn(f"{what}; decoding goes on without it", stacklevel=3)
    return None


def fit_of(bound: CompiledPredecoder, sampler: LabelledSampler) -> Fit:
    """Runs the network on shots of its error model, always the same ones.

    Args:
        bound: on ``sampler.grid``.
        sampler: of the error model.
    """
    grid = sampler.grid
    fired_per_shot = max(float(grid.edges.probability.sum()), 1e-9)
    least, most = _SHOTS
    shots = min(max(math.ceil(_FIRED / fired_per_shot), least), most)
    counts = [
        _counts(bound, sampler, min(_SHOTS_PER_PASS, shots - start), _SEED + start)
        for start in range(0, shots, _SHOTS_PER_PASS)
    ]
    committed, wrong, expected = np.concatenate(counts, axis=1)
    sigma = float(np.sqrt(((wrong - expected) ** 2).sum()))
    return Fit(shots, int(committed.sum()), int(wrong.sum()), float(expected.sum()), sigma)


@torch_threads(1)  # others do not live in forks
def _counts(
    bound: CompiledPredecoder, sampler: LabelledSampler, shots: int, seed: int
) -> np.ndarray:
    """float64 (3, shots): edges committed, those of them not fired, and how many are expected."""
    events, fired = sampler.sample(shots, seed)
    told = bound.forward(bound.cells(events.to(bound.device))).movedim(1, -1).flatten(1)
    log_odds = told.float().cpu().numpy()[:, sampler.grid.place].astype(np.float64)
    happened = fired.movedim(1, -1).flatten(1).numpy()[:, sampler.grid.place]
    committed = log_odds > bound.cut
    expected = committed / (1 + np.exp(log_odds))
    return np.stack(
        [part.sum(axis=1) for part in (committed, committed & (happened == 0), expected)]
    )
