"""Which patch of rotated surface code the detectors of a model lie on, from their coordinates.

Canonical frame.  Only the *memory* sector (the checks of the basis that is prepared and read out,
sector 0) and the *other* sector (sector 1) are told apart, not X and Z.  The grid is transposed
where needed, so that the weight-2 memory checks sit on the first and last row.  What remains is
``parity``, (row + col) % 2 of the memory checks.

Only the order of times matters.  The n-th detector of a memory check lies in layer n, counted from
0; the n-th one of another check in layer n + 1, since the first round makes its outcome random.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from qec.circuits.surface_code import plaquette_sites
from qec.support.errors import QecError

MEMORY, OTHER, PADDING = 0, 1, 2

NOT_SURFACE_CODE = (
    "the detectors do not lie on the grid of a rotated surface code: {}. "
    "Use a rotated surface-code memory experiment, e.g. from qec.memory_circuit or "
    "`stim gen --code surface_code --task rotated_memory_x`, or decode by pymatching or "
    "pymatching-correlated, which need no grid."
)


@dataclasses.dataclass(frozen=True)
class Frame:
    """Affine map from circuit coordinates to the canonical plaquette grid."""

    matrix: np.ndarray  # (2, 2): rows give (row, col) before the shift
    shift: np.ndarray  # (2,)

    def __call__(self, xy: np.ndarray) -> np.ndarray:
        """(n, 2) circuit coordinates -> (n, 2) (row, col); data qubits land on half-integers."""
        return np.asarray(xy, dtype=np.float64) @ self.matrix.T + self.shift


@dataclasses.dataclass(frozen=True, eq=False)
class Patch:
    """The places of n detectors.

    Attributes:
        rows, cols: data qubits in a column and in a row.
        rounds: number of check rounds R; detectors lie in layers 0 .. R.
        parity: (row + col) % 2 of the memory checks.
        layer, row, col: int64 (n,), place on the plaquette grid; -1 for padding.
        sector: int64 (n,), MEMORY, OTHER, or PADDING: a detector that never fires, off the grid.
        frame: maps circuit coordinates to canonical (row, col).
    """

    rows: int
    cols: int
    rounds: int
    parity: int
    layer: np.ndarray
    row: np.ndarray
    col: np.ndarray
    sector: np.ndarray
    frame: Frame

    def mirrored(self, rows: bool, cols: bool) -> Patch:
        """The patch with its rows, its columns, or both in reverse order."""
        signs = np.array([-1 if rows else 1, -1 if cols else 1])
        ends = np.array([self.rows if rows else 0, self.cols if cols else 0])
        frame = Frame(signs[:, None] * self.frame.matrix, signs * self.frame.shift + ends)
        there = self.sector != PADDING
        return dataclasses.replace(
            self,
            parity=int(self.parity + ends.sum()) % 2,
            row=np.where(there, signs[0] * self.row + ends[0], -1),
            col=np.where(there, signs[1] * self.col + ends[1], -1),
            frame=frame,
        )


def recognise(coordinates: np.ndarray, fires: np.ndarray) -> list[Patch]:
    """Finds the frames in which detectors fill the check pattern of a rotated surface code.

    Args:
        coordinates: float64 (n, 3), x, y and t of each detector; NaN where there are none.
        fires: bool (n,), whether some mechanism flips it.  Those that never fire may be padding.

    Returns:
        One patch, or several among which the mechanisms decide: the memory checks of one round
        alone are those of a 5 x 5 patch as well as of a 3 x 7 one.  Square ones come first.

    Raises:
        QecError: they fill no such pattern; the message names what they look like.
    """
    known = np.isfinite(coordinates).all(axis=1)
    if len(np.unique(coordinates[known, 2])) < 2:
        raise QecError(NOT_SURFACE_CODE.format("all detectors have the same time coordinate"))
    reasons = []  # each with how much it looks like the memory sector's checks are told rightly
    patches = []
    for candidates in (known, known & fires):
        for frame, sites in _frames(coordinates, candidates):
            for rows, cols, shift, parity in _patterns(sites):
                place = sites + shift
                moved = dataclasses.replace(frame, shift=frame.shift + shift)
                sector = np.where(candidates, (place.sum(axis=1) % 2 != parity), PADDING)
                layers = _layers(place, sector.astype(np.int64), coordinates[:, 2], fires)
                if not isinstance(layers, str) and (fires & (layers < 0)).any():
                    layers = "some detectors are elsewhere"
                if not isinstance(layers, str):
                    patches.append(_patch(rows, cols, parity, place, sector, layers, moved))
                    continue
                lead = np.count_nonzero(sector == MEMORY) - np.count_nonzero(sector == OTHER)
                reasons.append(
                    (lead, f"it has the checks of {shape_name(rows, cols)}, but {layers}")
                )
        if patches:
            return sorted(patches, key=lambda patch: abs(patch.rows - patch.cols))
    other = _another_code(coordinates[known & fires, :2])
    places = len(np.unique(coordinates[known, :2], axis=0))
    what = max(reasons)[1] if reasons else f"{places} check positions do not form its pattern"
    raise QecError(NOT_SURFACE_CODE.format(other or what))


def shape_name(rows: int, cols: int) -> str:
    """A patch in words: "d = 5", or "3 x 5" data qubits."""
    return f"d = {rows}" if rows == cols else f"{rows} x {cols}"


def _patch(
    rows: int,
    cols: int,
    parity: int,
    place: np.ndarray,
    sector: np.ndarray,
    layers: np.ndarray,
    frame: Frame,
) -> Patch:
    there = layers >= 0
    row, col = np.where(there[:, None], place, -1).T
    sector = np.where(there, sector, PADDING).astype(np.int64)
    rounds = int(layers.max())
    return Patch(rows, cols, rounds, parity, layers, row, col, sector, frame)


# Axes of the two families of coordinate frames: Stim's, and the one rotated by 45 degrees in which
# checks and data qubits share one square lattice (Google's devices).
_AXES = (np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[-1.0, 1.0], [1.0, 1.0]]))


_FARTHEST = 1 << 20  # sites; larger numbers are no coordinates


def _frames(coordinates: np.ndarray, used: np.ndarray) -> Iterator[tuple[Frame, np.ndarray]]:
    """Frames in which detectors have whole coordinates from 0 on, int64 (n, 2); -9: not used."""
    xy = coordinates[used, :2]
    for axes in _AXES:
        for matrix in (axes, axes[::-1]):
            grid = xy @ matrix.T
            spacing = [_spacing(axis) for axis in grid.T]
            if min(spacing) <= 0 or not np.isclose(spacing[0], spacing[1]):
                continue
            least = grid.min(axis=0) / spacing[0]
            sites = grid / spacing[0] - least
            if sites.max() < _FARTHEST and np.allclose(sites, np.rint(sites), atol=1e-6):
                whole = np.full((len(used), 2), -9)
                whole[used] = np.rint(sites)
                yield Frame(matrix / spacing[0], -least), whole


def _spacing(values: np.ndarray) -> float:
    distinct = np.unique(np.round(values, 6))
    return float(np.diff(distinct).min()) if len(distinct) > 1 else 0.0


def _patterns(sites: np.ndarray) -> Iterator[tuple[int, int, np.ndarray, int]]:
    """Patches (rows, cols, shift, parity) whose check sites are these.

    All checks, or those of the memory sector alone, as of one round: their columns start at 1.
    """
    found = {(int(r), int(c)) for r, c in sites if r >= 0}
    most = np.max(sites, axis=0)
    for shift in (0, 1):
        rows, cols = int(most[0]), int(most[1]) + 2 * shift
        checks = (rows + 1) * (cols - 1) / 2 if shift else rows * cols - 1
        if min(rows, cols) < 3 or abs(len(found) - checks) > 0.5:
            continue
        moved = {(r, c + shift) for r, c in found}
        for parity in (0, 1):
            memory = plaquette_sites((rows, cols), parity, on_rows=True)
            other = plaquette_sites((rows, cols), 1 - parity, on_rows=False)
            if moved == _site_set(memory if shift else memory | other):
                yield rows, cols, np.array([0, shift]), parity


def _site_set(mask: np.ndarray) -> set[tuple[int, int]]:
    return {(int(r), int(c)) for r, c in np.argwhere(mask)}


def _layers(
    place: np.ndarray, sector: np.ndarray, t: np.ndarray, fires: np.ndarray
) -> np.ndarray | str:
    """int64 (n,), the layer of each detector, -1 for padding; or why there are none.

    Worked example, R = 1: memory check m has detectors at t = 0 and 1, so these lie in layers 0
    and 1.  Another check o has one at t = 0, where it should have R - 1 = 0: if that never fires,
    it is padding.
    """
    layer = np.full(len(t), -1)
    memory = np.flatnonzero(sector == MEMORY)
    rank, count = _ranks(place[memory], t[memory])
    if rank is None:
        return "two detectors of one check have the same time"
    if count.min() != count.max() or count.min() < 2:
        return f"checks of the memory basis have {count.min()} to {count.max()} detectors"
    rounds = int(count[0]) - 1
    layer[memory] = rank
    first, last = (t[memory[rank == k]] for k in (0, rounds))
    other = np.flatnonzero(sector == OTHER)
    # Some tools pad the first and the last layer, so that all layers are alike.
    ends = (t[other] <= first.max()) | (t[other] >= last.min())
    other = other[fires[other] | ~ends]
    rank, count = _ranks(place[other], t[other])
    if rank is None:
        return "two detectors of one check have the same time"
    wanted = rounds - 1
    sites = len({tuple(site) for site in place[sector == OTHER].tolist()})
    if (len(count) and (count.min() != wanted or count.max() != wanted)) or (
        len(other) != wanted * sites
    ):
        return (
            f"checks of the other basis have {count.min(initial=wanted)} to "
            f"{count.max(initial=0)} detectors in {rounds} rounds, not {wanted} each"
        )
    layer[other] = rank + 1
    if not (_apart(layer[memory], t[memory]) and _apart(layer[other], t[other])):
        return "some of a layer come later than some of the next one"
    return layer


def _apart(layer: np.ndarray, t: np.ndarray) -> bool:
    """Whether every layer has ended when the next one begins."""
    if not len(layer):
        return True
    order = np.argsort(layer, kind="stable")
    starts = np.flatnonzero(np.diff(layer[order], prepend=-1))
    begin, end = (f.reduceat(t[order], starts) for f in (np.minimum, np.maximum))
    return bool((begin[1:] > end[:-1]).all())


def _ranks(place: np.ndarray, t: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Each detector's number among those of its check in time; detectors of each check.

    The first is None where two detectors of a check have the same time.
    """
    if not len(t):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    _, check, count = np.unique(place, axis=0, return_inverse=True, return_counts=True)
    check = check.ravel()
    order = np.lexsort((t, check))
    starts = np.cumsum(count) - count
    rank = np.empty(len(t), dtype=np.int64)
    rank[order] = np.arange(len(t)) - starts[check[order]]
    same = (np.diff(t[order]) <= 1e-9) & (np.diff(check[order]) == 0)
    return (None if same.any() else rank), count


def _another_code(xy: np.ndarray) -> str:
    """What detectors at such places look like, if like another code; else nothing."""
    places = np.unique(xy, axis=0)
    if len(places) < 2 or np.ptp(places, axis=0).min() == 0:
        return f"{len(places)} checks in a line are no patch of distance 3 or more"
    spacing = _spacing(places[:, 0])
    sites = (places - places.min(axis=0)) / spacing
    if not (sites.max() < _FARTHEST and np.allclose(sites, np.rint(sites), atol=1e-6)):
        return ""
    found = {(int(x), int(y)) for x, y in np.rint(sites)}
    wide, high = (int(n) + 1 for n in np.rint(sites).max(axis=0))
    # The checks of both types take every second site of a grid, those of one type a grid.
    if len(found) == wide * high // 2 and all((x + y) % 2 for x, y in found):
        return f"it is an unrotated surface code, {shape_name((high + 1) // 2, (wide + 1) // 2)}"
    if len(found) == wide * high and abs(wide - high) == 1:
        return f"it is an unrotated surface code, d = {max(wide, high)}"
    return ""
