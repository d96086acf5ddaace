"""Reliability of the network: predicted probability of an error against how often it is there."""

from __future__ import annotations

import dataclasses

import numpy as np
import stim
import torch

from qec.chain import canonicalise
from qec.lattice import SpaceTimeLattice
from qec.predecoder.correction import Predecoder
from qec.sampling import FrameSampler

_EDGES = np.arange(-10, 10.5, 0.5)  # of the bins, in logits: fine where probabilities are extreme
_SHOTS_PER_PASS = 512  # bounds the memory
_SEED = 424_242_000  # the same shots for every checkpoint; not those of validation


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Predicted and observed chain bits of one circuit, in bins of predicted probability.

    Attributes:
        shots: sampled.
        threshold: probability above which the pre-decoder commits.
        bits: int64 (bins,), chain bits of all shots whose prediction falls into the bin.
        observed: int64 (bins,), those of them that the sampled error has.
        predicted: float64 (bins,), sum of their predicted probabilities.
    """

    shots: int
    threshold: float
    bits: np.ndarray
    observed: np.ndarray
    predicted: np.ndarray

    @property
    def calibration_error(self) -> float:
        """Mean over the bits of |predicted - observed|, bin by bin (the ECE)."""
        return float(np.abs(self.predicted - self.observed).sum() / self.bits.sum())


def reliability(circuit: stim.Circuit, predecoder: Predecoder, shots: int) -> Reliability:
    """Compares the network's probabilities with the sampled errors in canonical form.

    That form is what ``labels: frames`` trains on.  The default labels are those of a matching
    teacher, which differ from the sampled error where the syndrome leaves a choice: a network that
    imitates it perfectly is too sure of itself here.

    Args:
        circuit: a memory experiment with qubit coordinates.
        predecoder: its network is used, its commit threshold only recorded.
        shots: rounded up to a multiple of 64.

    Raises:
        QecError: the circuit is no rotated surface code.
    """
    lattice = SpaceTimeLattice.from_circuit(circuit)
    sampler, bound = FrameSampler(circuit, lattice), predecoder.bind(lattice)
    shots = 64 * -(-shots // 64)
    sums = np.zeros((3, len(_EDGES) + 1))
    for start in range(0, shots, _SHOTS_PER_PASS):
        drawn = sampler.sample(min(_SHOTS_PER_PASS, shots - start), _SEED + start)
        events = np.unpackbits(drawn.detectors, axis=1, bitorder="little").T
        logits = bound.logits(torch.from_numpy(np.ascontiguousarray(events))).double()
        logits = logits[:, bound.grid.valid].numpy().ravel()
        labels = bound.grid.pack_chain(canonicalise(drawn.chain, lattice))
        labels = labels[:, bound.grid.valid].numpy().ravel()
        place = np.digitize(logits, _EDGES)
        probability = 1 / (1 + np.exp(-logits))
        for row, weights in enumerate((None, labels, probability)):
            sums[row] += np.bincount(place, weights, minlength=len(_EDGES) + 1)
    bits, observed = sums[:2].astype(np.int64)
    return Reliability(shots, predecoder.rules.uncorrelated.threshold, bits, observed, sums[2])
