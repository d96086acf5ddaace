"""From a detector error model to the space-time grid that the pre-decoder works on.

Everything is read off the model itself: the code distance and the rounds from the detector
coordinates, the check types from the checkerboard, the memory basis from the detectors of the
first layer, the support of the logical observable from the mechanisms that flip it.  So it works
for circuits that this package did not make, and for the bare model that sinter hands to a decoder.

Canonical frame.  Only the *memory* sector (the checks of the basis that is prepared and read out,
sector 0) and the *other* sector (sector 1) are told apart, not X and Z.  The grid is transposed
where needed, so that the weight-2 memory checks sit on the first and last row.  What remains is
``parity``, (row + col) % 2 of the memory checks.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import stim

from qec.code import plaquette_sites
from qec.dem import Mechanisms
from qec.errors import QecError, first_line

MEMORY, OTHER = 0, 1

_NOT_SURFACE_CODE = (
    "the detectors do not lie on the grid of a rotated surface code with odd distance >= 3: {}. "
    "Use a rotated surface-code memory experiment, e.g. from qec.memory_circuit or "
    "`stim gen --code surface_code --task rotated_memory_x`."
)


@dataclasses.dataclass(frozen=True)
class _Frame:
    """Affine map from circuit coordinates to the canonical plaquette grid."""

    matrix: np.ndarray  # (2, 2): rows give (row, col) before the shift
    shift: np.ndarray  # (2,)

    def __call__(self, xy: np.ndarray) -> np.ndarray:
        """(n, 2) circuit coordinates -> (n, 2) (row, col); data qubits land on half-integers."""
        return np.asarray(xy, dtype=np.float64) @ self.matrix.T + self.shift


@dataclasses.dataclass(frozen=True, eq=False)
class SpaceTimeLattice:
    """Detectors of a rotated-surface-code memory experiment on their space-time grid.

    Attributes:
        distance: code distance d.
        rounds: number of check rounds R; detectors lie in layers 0 .. R.
        parity: (row + col) % 2 of the memory checks in the canonical frame.
        layer, row, col: int64 (num_detectors,), place of each detector on the plaquette grid.
        sector: int64 (num_detectors,), 0 for the memory sector, 1 for the other.
        logical_support: bool (d, d), data qubits whose memory-sector error flips observable 0.
        detection_rate: float64 (num_detectors,), probability that each detector fires.
        mechanisms: the model's mechanisms as arrays.
        frame: maps circuit coordinates to canonical (row, col).
    """

    distance: int
    rounds: int
    parity: int
    layer: np.ndarray
    row: np.ndarray
    col: np.ndarray
    sector: np.ndarray
    logical_support: np.ndarray
    detection_rate: np.ndarray
    mechanisms: Mechanisms
    frame: _Frame

    @classmethod
    def from_dem(cls, dem: stim.DetectorErrorModel) -> SpaceTimeLattice:
        """Recognises the lattice of a detector error model.

        Raises:
            QecError: coordinates missing, or not a rotated surface code with one observable.
        """
        coords = _coordinates(dem)
        layer, rounds = _layers(coords[:, 2])
        frame, distance, parity = _recognise(coords[:, :2], layer == 0)
        row, col = np.rint(frame(coords[:, :2])).astype(np.int64).T
        sector = ((row + col) % 2 != parity).astype(np.int64)
        _check_layers(layer, row, col, sector, rounds, distance, parity)
        mechanisms = Mechanisms.from_dem(dem)
        support = _logical_support(mechanisms, layer, row, col, sector, distance, parity)
        return cls(
            distance=distance,
            rounds=rounds,
            parity=parity,
            layer=layer,
            row=row,
            col=col,
            sector=sector,
            logical_support=support,
            detection_rate=mechanisms.detection_rates(),
            mechanisms=mechanisms,
            frame=frame,
        )

    @classmethod
    def from_circuit(cls, circuit: stim.Circuit) -> SpaceTimeLattice:
        """The lattice of a circuit's detector error model.

        Raises:
            QecError: as ``from_dem``, or when the circuit has no valid detector error model.
        """
        return cls.from_dem(detector_error_model(circuit))

    @property
    def num_detectors(self) -> int:
        return len(self.layer)

    def cut(self, start: int, end: int) -> SpaceTimeLattice:
        """Layers [start, end) by themselves: their detectors, no mechanisms."""
        kept = np.flatnonzero((self.layer >= start) & (self.layer < end))
        arrays = ("layer", "row", "col", "sector", "detection_rate")
        parts = {name: getattr(self, name)[kept] for name in arrays}
        parts["layer"] = parts["layer"] - start
        nothing = Mechanisms.from_dem(stim.DetectorErrorModel("logical_observable L0"))
        return dataclasses.replace(self, rounds=end - start - 1, mechanisms=nothing, **parts)

    @functools.cached_property
    def memory_detectors(self) -> np.ndarray:
        """int64, the detectors of the memory sector, which alone decide the observable."""
        return np.flatnonzero(self.sector == MEMORY)

    @functools.cached_property
    def check_sites(self) -> np.ndarray:
        """bool (2, d+1, d+1): sites of the memory checks and of the other checks."""
        return np.stack(
            [
                plaquette_sites(self.distance, self.parity, on_rows=True),
                plaquette_sites(self.distance, 1 - self.parity, on_rows=False),
            ]
        )

    @functools.cached_property
    def data_exists(self) -> np.ndarray:
        """bool (2, R+1): layers with spacelike bits that some detector can see, per sector."""
        k = np.arange(self.rounds + 1)
        return np.stack([k >= 0, (k >= 1) & (k < self.rounds)])

    @functools.cached_property
    def time_exists(self) -> np.ndarray:
        """bool (R, d+1, d+1): timelike bits that some detector can see."""
        sites = self.check_sites[MEMORY] | (self.check_sites[OTHER] & (self.rounds > 1))
        return np.broadcast_to(sites, (self.rounds, *sites.shape))


def detector_error_model(circuit: stim.Circuit) -> stim.DetectorErrorModel:
    """The decomposed detector error model of a circuit, made the way that sinter makes it.

    Raises:
        QecError: Stim finds no valid model (say, non-deterministic detectors).
    """
    try:
        return circuit.detector_error_model(decompose_errors=True, approximate_disjoint_errors=True)
    except ValueError as error:
        reason = first_line(error)
        raise QecError(f"Stim cannot derive a detector error model: {reason}") from error


def _coordinates(dem: stim.DetectorErrorModel) -> np.ndarray:
    if dem.num_detectors == 0:
        raise QecError("the detector error model has no detectors.")
    found = dem.get_detector_coordinates()
    short = [k for k in range(dem.num_detectors) if len(found.get(k, ())) < 3]
    if short:
        raise QecError(
            f"{len(short)} of {dem.num_detectors} detectors have no (x, y, t) coordinates "
            f"(first: D{short[0]}). Keep the DETECTOR coordinates of the circuit in the model."
        )
    return np.array([found[k][:3] for k in range(dem.num_detectors)], dtype=np.float64)


def _layers(t: np.ndarray) -> tuple[np.ndarray, int]:
    values, layer = np.unique(t, return_inverse=True)
    if len(values) < 2:
        raise QecError(_NOT_SURFACE_CODE.format("all detectors have the same time coordinate"))
    steps = np.diff(values)
    if not np.allclose(steps, steps[0]):
        raise QecError(_NOT_SURFACE_CODE.format("the time coordinates are not evenly spaced"))
    return layer.astype(np.int64), len(values) - 1


# Axes of the two families of coordinate frames: Stim's, and the one rotated by 45 degrees in which
# checks and data qubits share one square lattice (Google's devices).
_AXES = (np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[-1.0, 1.0], [1.0, 1.0]]))


def _recognise(xy: np.ndarray, first_layer: np.ndarray) -> tuple[_Frame, int, int]:
    """Finds the frame in which the detectors fill the check pattern of a rotated surface code."""
    for axes in _AXES:
        for matrix in (axes, axes[::-1]):
            grid = xy @ matrix.T
            spacing = [_spacing(axis) for axis in grid.T]
            if min(spacing) <= 0 or not np.isclose(*spacing):
                continue
            sites = grid / spacing[0]
            sites -= sites.min(axis=0)
            if not np.allclose(sites, np.rint(sites), atol=1e-6):
                continue
            place = _match(np.rint(sites).astype(np.int64), first_layer)
            if place is not None:
                shift, distance, parity = place
                shift = shift - grid.min(axis=0) / spacing[0]
                return _Frame(matrix / spacing[0], shift), distance, parity
    sites = len(np.unique(xy, axis=0))
    raise QecError(_NOT_SURFACE_CODE.format(f"{sites} check positions do not form its pattern"))


def _spacing(values: np.ndarray) -> float:
    distinct = np.unique(np.round(values, 6))
    return float(np.diff(distinct).min()) if len(distinct) > 1 else 0.0


def _match(sites: np.ndarray, first_layer: np.ndarray) -> tuple[np.ndarray, int, int] | None:
    """Compares sites (n, 2) with the pattern; returns (shift, distance, parity) on a match."""
    distance = int(sites[:, 0].max())  # memory checks line the first and last row
    if distance < 3 or distance % 2 == 0:
        return None
    found = {(int(r), int(c)) for r, c in sites}
    memory = {(int(r), int(c)) for r, c in sites[first_layer]}
    for parity in (0, 1):
        want_memory = _site_set(plaquette_sites(distance, parity, on_rows=True))
        want_other = _site_set(plaquette_sites(distance, 1 - parity, on_rows=False))
        for shift in (0, 1):  # with one round only memory checks have detectors: columns start at 1
            moved = {(r, c + shift) for r, c in memory}
            if moved != want_memory:
                continue
            everything = {(r, c + shift) for r, c in found}
            if everything in (want_memory, want_memory | want_other):
                return np.array([0, shift]), distance, parity
    return None


def _site_set(mask: np.ndarray) -> set[tuple[int, int]]:
    return {(int(r), int(c)) for r, c in np.argwhere(mask)}


def _check_layers(layer, row, col, sector, rounds: int, distance: int, parity: int) -> None:
    checks = (distance**2 - 1) // 2
    want = np.full((2, rounds + 1), checks)
    want[OTHER, [0, rounds]] = 0
    have = np.zeros_like(want)
    np.add.at(have, (sector, layer), 1)
    places = np.stack([layer, row, col])
    if (have != want).any() or np.unique(places, axis=1).shape[1] != len(layer):
        s, k = np.argwhere(have != want)[0] if (have != want).any() else (0, 0)
        raise QecError(
            _NOT_SURFACE_CODE.format(
                f"layer {k} has {have[s, k]} detectors of the {('memory', 'other')[s]} basis, "
                f"expected {want[s, k]} for d = {distance}, {rounds} rounds"
            )
        )


def _logical_support(
    mechanisms: Mechanisms, layer, row, col, sector, distance: int, parity: int
) -> np.ndarray:
    """Data qubits that flip the observable, read off the mechanisms that look like one data error.

    A mechanism whose memory-sector detectors lie in one layer and are those of one data qubit is an
    error of that qubit, up to stabilisers; the observable's sign of the likeliest one counts.
    """
    seen = sector[mechanisms.detector] == MEMORY
    owner, det = mechanisms.mechanism[seen], mechanisms.detector[seen]
    count = np.bincount(owner, minlength=len(mechanisms.probability))
    start = np.searchsorted(owner, np.arange(len(count)))
    edge = np.flatnonzero((count == 1) | (count == 2))
    one, two = det[start[edge]], det[start[edge] + count[edge] - 1]
    same = layer[one] == layer[two]
    edge, one, two = edge[same], one[same], two[same]
    width = distance + 1
    site = row * width + col
    pair = np.minimum(site[one], site[two]) * width**2 + np.maximum(site[one], site[two])
    sign = np.where(mechanisms.flips_observable[edge], 1.0, -1.0)
    keys, place = np.unique(pair, return_inverse=True)
    votes = np.bincount(place, sign * mechanisms.probability[edge], minlength=len(keys))
    vote = dict(zip(keys.tolist(), votes.tolist(), strict=True))
    support = np.zeros((distance, distance), dtype=bool)
    memory = plaquette_sites(distance, parity, on_rows=True)
    for r in range(distance):
        for c in range(distance):
            around = [(r + dr) * width + c + dc for dr in (0, 1) for dc in (0, 1)]
            checks = [s for s in around if memory.flat[s]]
            key = min(checks) * width**2 + max(checks)
            if not vote.get(key):
                raise QecError(
                    f"no mechanism of the model tells whether the data qubit in row {r}, column "
                    f"{c} belongs to the observable. Give every data qubit a non-zero error rate."
                )
            support[r, c] = vote[key] > 0
    stabilisers = np.argwhere(plaquette_sites(distance, 1 - parity, on_rows=False))
    for r, c in stabilisers:
        if support[max(r - 1, 0) : r + 1, max(c - 1, 0) : c + 1].sum() % 2:
            raise QecError(_NOT_SURFACE_CODE.format("observable 0 is not a logical operator"))
    return support
