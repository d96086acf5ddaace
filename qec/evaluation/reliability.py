"""Reliability of the network: predicted probability of edges against how often they have fired."""

from __future__ import annotations

import dataclasses

import numpy as np

from qec.circuits.lattice import SpaceTimeLattice
from qec.predecoder.labelled_shots import LabelledSampler
from qec.predecoder.predecoder import Predecoder

_EDGES = np.arange(-10, 10.5, 0.5)  # of the bins, in nats: fine where probabilities are extreme
_SHOTS_PER_PASS = 512  # bounds the memory
_SEED = 424_242_000  # the same shots for every checkpoint; not those of training


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Predicted and observed edges of one error model, in bins of predicted probability.

    Attributes:
        shots: sampled.
        threshold: probability above which the pre-decoder commits.
        edges: int64 (bins,), edges of all shots whose prediction falls into the bin.
        observed: int64 (bins,), those of them that have fired.
        predicted: float64 (bins,), sum of their predicted probabilities.
    """

    shots: int
    threshold: float
    edges: np.ndarray
    observed: np.ndarray
    predicted: np.ndarray

    @property
    def calibration_error(self) -> float:
        """Mean over the edges of |predicted - observed|, bin by bin (the ECE)."""
        return float(np.abs(self.predicted - self.observed).sum() / self.edges.sum())


def reliability(lattice: SpaceTimeLattice, predecoder: Predecoder, shots: int) -> Reliability:
    """Compares the network's probabilities with the edges that have fired.

    Args:
        lattice: with its error model.
        predecoder: its network is used, its threshold only recorded.
        shots: sampled ones.

    Raises:
        QecError: networks know no such lattice.
    """
    sampler = LabelledSampler(lattice)
    bound = predecoder.compile_for(sampler.grid)
    sums = np.zeros((3, len(_EDGES) + 1))
    for start in range(0, shots, _SHOTS_PER_PASS):
        events, fired = sampler.sample(min(_SHOTS_PER_PASS, shots - start), _SEED + start)
        told = bound.forward(bound.cells(events)).float()
        log_odds, happened = (x[:, sampler.grid.valid].numpy().ravel() for x in (told, fired))
        probability = 1 / (1 + np.exp(-log_odds.astype(np.float64)))
        place = np.digitize(log_odds, _EDGES)
        for row, weights in enumerate((None, happened, probability)):
            sums[row] += np.bincount(place, weights, minlength=len(_EDGES) + 1)
    edges, observed = sums[:2].astype(np.int64)
    return Reliability(shots, predecoder.threshold, edges, observed, sums[2])
