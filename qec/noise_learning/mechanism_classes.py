"""Mechanisms of the same shape, or of the same formula: those that may share their rates."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from qec.noise_learning.faults import Faults


def faults_by_shape(sets: csr_array, x: np.ndarray, coordinates: np.ndarray | None) -> Faults:
    """One fault per mechanism, with a parameter for every shape and a site for every place.

    Args:
        sets: sparse (m, num_detectors), the detectors of each mechanism.
        x: float64 (m,), rates.
        coordinates: float64 (num_detectors, 3); without them the shape is the number of detectors,
            and every mechanism has a site of its own.
    """
    m = sets.shape[0]
    size = np.diff(sets.indptr)
    shape, site = size, np.arange(m)
    if coordinates is not None:
        shape, site = shapes_and_sites(sets, coordinates)
    _, first, parameter = np.unique(shape, return_index=True, return_inverse=True)
    names = tuple(f"shape {k} of {size[j]} detectors" for k, j in enumerate(first))
    every = np.arange(m)
    return Faults(every, x.copy(), parameter.ravel(), every, site, names)


def shapes_and_sites(sets: csr_array, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels of equal shape, and of equal shape and place in space, int64 (m,) each.

    Two mechanisms have the same shape if a translation in space and time that keeps the
    checkerboard of check types maps the detectors of one onto those of the other.
    """
    kind = checkerboard(coordinates)
    row = np.repeat(np.arange(sets.shape[0]), np.diff(sets.indptr))
    where = coordinates[sets.indices]
    # Detectors of a mechanism in the order of time and place; the first is the origin.
    order = np.lexsort([*where.T, row])
    where, kind = where[order], kind[sets.indices][order]
    start = sets.indptr[:-1]
    relative = np.round(where - where[start][row], 6)
    size = np.diff(sets.indptr)
    width = int(size.max())
    table = np.full((sets.shape[0], width, 4), np.inf)
    within = np.arange(len(row)) - start[row]
    table[row, within, :3] = relative
    table[row, within, 3] = kind
    flat = table.reshape(len(size), -1)
    shape = np.unique(flat, axis=0, return_inverse=True)[1].ravel()
    placed = np.column_stack([shape, np.round(where[start][:, :2], 6)])
    site = np.unique(placed, axis=0, return_inverse=True)[1].ravel()
    return shape, site


def formula_classes(faults: Faults, mechanisms: int) -> np.ndarray:
    """Labels of mechanisms that are the same function of the noise parameters, int64 (m,)."""
    formula = faults.design(mechanisms)
    digits = np.round(formula / max(np.abs(formula).max(), 1e-300), 9)
    return np.unique(digits, axis=0, return_inverse=True)[1].ravel()


def checkerboard(coordinates: np.ndarray) -> np.ndarray:
    """0 or 1 for the two colours of checks, from (x, y): neighbours along the axes differ.

    Works on the two frames in use, Stim's and that of Google's devices, whose checks are spaced
    evenly along both axes.
    """
    place = np.zeros((len(coordinates), 2))
    for k in range(2):
        levels = np.unique(np.round(coordinates[:, k], 6))
        step = np.diff(levels).min() if len(levels) > 1 else 1.0
        place[:, k] = np.rint((coordinates[:, k] - levels[0]) / step)
    return place.sum(axis=1) % 2
