"""The classes of a circuit's error mechanisms, and what data cannot tell about its noise."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
from scipy.linalg import null_space
from scipy.sparse import csr_array

from qec.noise_learning.error_structure import ErrorStructure, detector_coordinates
from qec.noise_learning.mechanism_classes import checkerboard, shapes_and_sites
from qec.support.errors import QecError


@dataclasses.dataclass(frozen=True)
class MechanismClass:
    """Mechanisms of one shape with one formula.

    Attributes:
        size: detectors that each flips: 1 or 2 in one basis is an edge of matching.
        is_edge: whether all its detectors are of one basis and at most two.
        count: mechanisms of the class.
        formula: noise parameter -> how many of its faults add up to the mechanism.
    """

    size: int
    is_edge: bool
    count: int
    formula: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
    """Classes, and the directions of the noise parameters that no mechanism depends on.

    Attributes:
        classes: most frequent first.
        parameter_names: the noise parameters.
        rank: how many combinations of them the mechanisms determine.
        gauge: float64 (parameters - rank, parameters), orthonormal: changes of the parameters' x
            that leave all mechanisms as they are.
    """

    classes: tuple[MechanismClass, ...]
    parameter_names: tuple[str, ...]
    rank: int
    gauge: np.ndarray


def catalogue(structure: ErrorStructure, *, margin: int = 0) -> Catalogue:
    """Sorts the mechanisms of a circuit into classes.

    Args:
        structure: of a circuit whose detectors have (x, y, t) coordinates.
        margin: leave out mechanisms with a detector less than this many layers of checks or rounds
            from the boundary; what is left with a margin of 2 is the bulk.

    Raises:
        QecError: no coordinates.
    """
    coordinates = detector_coordinates(structure.model)
    if coordinates is None:
        raise QecError("the catalogue needs detectors with (x, y, t) coordinates.")
    faults, m = structure.faults, structure.num_mechanisms
    shape, _ = shapes_and_sites(structure.sets, coordinates)
    ones = np.ones(len(faults.x))
    size = (m, len(faults.parameter_names))
    counts = csr_array((ones, (faults.mechanism, faults.parameter)), shape=size).toarray()
    inner = _inside(coordinates, margin)
    kept = structure.sets @ (~inner).astype(np.int64) == 0
    one_basis = _in_one_basis(structure, coordinates)

    members: collections.Counter = collections.Counter()
    example: dict[tuple, int] = {}
    for k in np.flatnonzero(kept).tolist():
        key = (int(shape[k]), counts[k].tobytes())
        members[key] += 1
        example.setdefault(key, k)
    classes = []
    for key, count in members.most_common():
        k = example[key]
        formula = tuple(
            (faults.parameter_names[j], int(counts[k, j])) for j in np.flatnonzero(counts[k])
        )
        n = int(structure.size[k])
        classes.append(MechanismClass(n, bool(n <= 2 and one_basis[k]), count, formula))
    design = np.unique(counts, axis=0)
    gauge = null_space(design).T
    return Catalogue(tuple(classes), faults.parameter_names, design.shape[1] - len(gauge), gauge)


def _inside(coordinates: np.ndarray, margin: int) -> np.ndarray:
    """bool (num_detectors,): at least ``margin`` steps from every face of the box of detectors."""
    inner = np.ones(len(coordinates), dtype=bool)
    for axis in coordinates.T:
        levels = np.unique(np.round(axis, 6))
        place = np.searchsorted(levels, np.round(axis, 6))
        inner &= (place >= margin) & (place < len(levels) - margin)
    return inner


def _in_one_basis(structure: ErrorStructure, coordinates: np.ndarray) -> np.ndarray:
    """bool (m,): all detectors of the mechanism on one colour of the checkerboard."""
    odd = structure.sets @ checkerboard(coordinates)
    return (odd == 0) | (odd == structure.size)
