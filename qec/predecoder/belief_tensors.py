"""Belief propagation as tensors: on GPUs, and in exported graphs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from qec.matching.belief_propagation import DAMPING, LEAST, MOST, NONE, BeliefPropagation
from qec.support.ragged_arrays import padded_rows


@dataclasses.dataclass(frozen=True, eq=False)
class BeliefTensors:
    """What ``BeliefPropagation`` does to arrays, up to rounding; names as there.

    On a CPU its loops take a twentieth of the time.
    """

    iterations: int
    odds: torch.Tensor  # (M,)
    difference: torch.Tensor  # (K,), what each mechanism tells at first
    mechanism: torch.Tensor  # (K,)
    detector: torch.Tensor  # (K,)
    at_mechanism: torch.Tensor  # (M, k), messages; K fills up
    at_detector: torch.Tensor  # (num_detectors, k)
    edges: list[torch.Tensor]  # k times (E,)
    edge_odds: torch.Tensor  # (E,)

    @classmethod
    def of(cls, of: BeliefPropagation, device: torch.device) -> BeliefTensors:
        """On a device."""
        odds, each = of.odds[of.mechanism], np.arange(len(of.mechanism))
        arrays = (
            *(of.odds, (1 - odds) / (1 + odds), of.mechanism, of.detector),
            padded_rows(of.mechanism, each, len(of.odds), len(each)),
            padded_rows(of.detector, each, len(of.detector_start) - 1, len(each)),
        )
        edges = [torch.from_numpy(column.copy()).to(device) for column in of.edges.T]
        tensors: list[Any] = [torch.from_numpy(array).to(device) for array in arrays]
        tensors += [edges, torch.from_numpy(of.edge_odds).to(device)]
        return cls(of.iterations, *tensors)

    def __call__(self, detectors: torch.Tensor) -> torch.Tensor:
        """(B, num_detectors) of any dtype, 0 or 1 -> float32 (B, E), belief in each edge."""
        sign = 1 - 2 * detectors.float()
        told = self.difference.expand(detectors.shape[0], -1)  # as in CellGrid.pack_events
        damped = None
        for _ in range(self.iterations):
            rest = (sign * _product(told, self.at_detector)).index_select(1, self.detector)
            heard = ((told - rest) / (told + rest)).abs().clamp(float(LEAST), float(MOST))
            damped = heard if damped is None else torch.lerp(heard, damped, float(DAMPING))
            odds = self.odds * _product(damped, self.at_mechanism)
            rest = odds.index_select(1, self.mechanism)
            told = (damped - rest) / (damped + rest)
            told = torch.where(told.abs() < float(NONE), float(NONE), told)
        odds = torch.nn.functional.pad(odds.clamp(max=float(MOST)), (0, 1))
        edge = torch.zeros_like(self.edge_odds)
        for one in self.edges:  # an odd number of two: p (1 - q) + q (1 - p)
            more = odds.index_select(1, one)
            edge = (edge + more) / (1 + edge * more)
        root = (edge.clamp(float(LEAST), float(MOST)) / self.edge_odds).sqrt().sqrt()
        return 2 * (root - 1) / (root + 1)


def _product(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(B, K), int64 (n, k) -> (B, n), the products of what the rows name; K is 1."""
    padded = torch.nn.functional.pad(values, (0, 1), value=1.0)
    return padded.index_select(1, rows.flatten()).unflatten(1, rows.shape).prod(dim=2)
