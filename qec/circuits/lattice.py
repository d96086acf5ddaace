"""From a detector error model to the space-time grid that the pre-decoder works on.

Everything is read off the model itself: shape, rounds and check types from the detector coordinates
(``qec.circuits.patch``), the support of the logical observable from the mechanisms that flip it.
So it works for circuits that this package did not make, and for the bare model that sinter hands to
a decoder.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import stim

from qec.circuits.error_model import Mechanisms
from qec.circuits.patch import MEMORY, NOT_SURFACE_CODE, Frame, Patch, recognise, shape_name
from qec.circuits.surface_code import plaquette_sites
from qec.support.errors import QecError, first_line


@dataclasses.dataclass(frozen=True, eq=False)
class SpaceTimeLattice:
    """Detectors of a rotated-surface-code memory experiment on their space-time grid.

    Attributes:
        shape: rows and columns of data qubits in the canonical frame (``qec.circuits.patch``).
        rounds: number of check rounds R; detectors lie in layers 0 .. R.
        parity: (row + col) % 2 of the memory checks in the canonical frame.
        layer, row, col: int64 (num_detectors,), place of each detector on the plaquette grid; -1
            for padding, which never fires.
        sector: int64 (num_detectors,), 0 for the memory sector, 1 for the other, 2 for padding.
        logical_support: bool ``shape``, data qubits whose memory-sector error flips observable 0.
        detection_rate: float64 (num_detectors,), probability that each detector fires.
        mechanisms: the model's mechanisms as arrays.
        frame: maps circuit coordinates to canonical (row, col).

    Examples:
        >>> import stim, qec
        >>> circuit = stim.Circuit.generated("surface_code:rotated_memory_x", distance=3, rounds=4,
        ...                                  after_clifford_depolarization=0.001)
        >>> lattice = qec.SpaceTimeLattice.from_dem(circuit.detector_error_model())
        >>> lattice.shape, lattice.rounds, lattice.num_detectors
        ((3, 3), 4, 32)
    """

    shape: tuple[int, int]
    rounds: int
    parity: int
    layer: np.ndarray
    row: np.ndarray
    col: np.ndarray
    sector: np.ndarray
    logical_support: np.ndarray
    detection_rate: np.ndarray
    mechanisms: Mechanisms
    frame: Frame

    @classmethod
    def from_dem(cls, dem: stim.DetectorErrorModel) -> SpaceTimeLattice:
        """Recognises the lattice of a detector error model.

        Raises:
            QecError: coordinates missing, or not a rotated surface code with one observable.
        """
        if dem.num_detectors == 0:
            raise QecError("the detector error model has no detectors.")
        mechanisms = Mechanisms.from_dem(dem)
        patch, support = _patch(dem, mechanisms)
        kinds = _edge_kinds(mechanisms, patch)
        row_sign, col_sign = _familiar_side(kinds)
        patch = patch.mirrored(row_sign < 0, col_sign < 0)
        support = support[::row_sign, ::col_sign].copy()
        return cls(
            shape=(patch.rows, patch.cols),
            rounds=patch.rounds,
            parity=patch.parity,
            layer=patch.layer,
            row=patch.row,
            col=patch.col,
            sector=patch.sector,
            logical_support=support,
            detection_rate=mechanisms.detection_rates(),
            mechanisms=mechanisms,
            frame=patch.frame,
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
        """How many detectors the error model declares."""
        return len(self.layer)

    @property
    def distance(self) -> int:
        """The fewest data errors that flip the observable unseen; of a square patch d."""
        return self.shape[1]

    def __str__(self) -> str:
        return shape_name(*self.shape)

    def cut(self, start: int, end: int, *, memory_only: bool = False) -> SpaceTimeLattice:
        """Layers [start, end) by themselves: their detectors, no mechanisms."""
        inside = (self.layer >= start) & (self.layer < end)
        kept = np.flatnonzero(inside & ((self.sector == MEMORY) | (not memory_only)))
        arrays = ("layer", "row", "col", "sector", "detection_rate")
        parts = {name: getattr(self, name)[kept] for name in arrays}
        parts["layer"] = parts["layer"] - start
        nothing = Mechanisms.from_dem(stim.DetectorErrorModel("logical_observable L0"))
        return dataclasses.replace(self, rounds=end - start - 1, mechanisms=nothing, **parts)

    @functools.cached_property
    def silent(self) -> np.ndarray:
        """int64, the detectors that no mechanism flips."""
        return np.flatnonzero(~self.mechanisms.fires)

    @functools.cached_property
    def memory_detectors(self) -> np.ndarray:
        """int64, the detectors of the memory sector, which alone decide the observable."""
        return np.flatnonzero(self.sector == MEMORY)

    @functools.cached_property
    def check_sites(self) -> np.ndarray:
        """bool (2, rows+1, cols+1): sites of the memory checks and of the other checks."""
        return np.stack(
            [
                plaquette_sites(self.shape, self.parity, on_rows=True),
                plaquette_sites(self.shape, 1 - self.parity, on_rows=False),
            ]
        )


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


def _coordinates(dem: stim.DetectorErrorModel, fires: np.ndarray) -> np.ndarray:
    """float64 (n, 3), x, y and t of each detector; NaN for those without that never fire."""
    found = dem.get_detector_coordinates()
    places = [found.get(k, ())[:3] for k in range(dem.num_detectors)]
    short = [k for k, place in enumerate(places) if len(place) < 3]
    if fires[short].any() or len(short) == len(places):
        raise QecError(
            f"{len(short)} of {dem.num_detectors} detectors have no (x, y, t) coordinates "
            f"(first: D{short[0]}). Keep the DETECTOR coordinates of the circuit in the model."
        )
    nowhere = (np.nan,) * 3
    return np.array([place if len(place) == 3 else nowhere for place in places], dtype=np.float64)


# Which way the diagonals run ---------------------------------------------------------------------


def _edge_kinds(mechanisms: Mechanisms, patch: Patch) -> dict[tuple[int, ...], float]:
    """The kinds of edges that mechanisms flip, with the sum of the probabilities of each.

    A kind is a sector and the step (layer, row, column) from one end to the other, whose first
    number that is not 0 is positive.
    """
    part = 2 * mechanisms.mechanism.astype(np.int64) + patch.sector[mechanisms.detector]
    order = np.argsort(part, kind="stable")
    part = part[order]
    starts = np.flatnonzero(np.diff(part, prepend=-1))
    first = starts[np.diff(starts, append=len(part)) == 2]
    one, two = mechanisms.detector[order[first]], mechanisms.detector[order[first + 1]]
    weight = mechanisms.probability[mechanisms.mechanism[order[first]]]
    # One number for each kind: steps are far below _WIDE.
    numbers = (patch.layer * _WIDE + patch.row) * _WIDE + patch.col
    step = np.abs(numbers[two] - numbers[one])
    numbers, which = np.unique(2 * step + patch.sector[one], return_inverse=True)
    total = np.bincount(which, weight)
    return {_kind(*divmod(n, 2)): w for n, w in zip(numbers.tolist(), total.tolist(), strict=True)}


_WIDE = 1 << 12


def _kind(step: int, sector: int) -> tuple[int, int, int, int]:
    col = (step + _WIDE // 2) % _WIDE - _WIDE // 2
    step = (step - col) // _WIDE
    row = (step + _WIDE // 2) % _WIDE - _WIDE // 2
    return sector, (step - row) // _WIDE, row, col


def _familiar_side(kinds: dict[tuple[int, ...], float]) -> tuple[int, int]:
    """How to mirror the patch (rows, cols), so that its diagonals run one way.

    Two-qubit errors between the gates of a round join checks diagonally in space and time, in the
    direction that the order of the gates gives.  Networks then learn one direction, nearly: from
    an event to a later one, rows and columns get smaller more often than larger.
    """
    total = sum(kinds.values())
    signs = []
    for axis in (2, 3):
        upwards = sum(weight * kind[axis] for kind, weight in kinds.items() if kind[1] > 0)
        signs.append(-1 if upwards > _SKEWED * total else 1)
    return signs[0], signs[1]


_SKEWED = 1e-3  # of the probability of all edges: less is a matter of rounding


def _patch(dem: stim.DetectorErrorModel, mechanisms: Mechanisms) -> tuple[Patch, np.ndarray]:
    """The first patch that detectors fill and on which the observable is a logical operator.

    Returns:
        The patch, and the support of the observable there.
    """
    fires = mechanisms.fires
    refusal: QecError | None = None
    for patch in recognise(_coordinates(dem, fires), fires):
        try:
            return patch, _logical_support(mechanisms, patch)
        except QecError as error:
            refusal = refusal or error
    assert refusal is not None  # ``recognise`` yields a patch, or raises
    raise refusal


def _logical_support(mechanisms: Mechanisms, patch: Patch) -> np.ndarray:
    """Data qubits that flip the observable, read off the mechanisms that look like one data error.

    A mechanism whose memory-sector detectors lie in one layer and are those of one data qubit is an
    error of that qubit, up to stabilisers; the observable's sign of the likeliest one counts.
    """
    seen = patch.sector[mechanisms.detector] == MEMORY
    owner, det = mechanisms.mechanism[seen], mechanisms.detector[seen]
    count = np.bincount(owner, minlength=len(mechanisms.probability))
    start = np.searchsorted(owner, np.arange(len(count)))
    edge = np.flatnonzero((count == 1) | (count == 2))
    one, two = det[start[edge]], det[start[edge] + count[edge] - 1]
    same = patch.layer[one] == patch.layer[two]
    edge, one, two = edge[same], one[same], two[same]
    width = patch.cols + 1
    sites = (patch.rows + 1) * width
    site = patch.row * width + patch.col
    pair = np.minimum(site[one], site[two]) * sites + np.maximum(site[one], site[two])
    sign = np.where(mechanisms.flips_observable[edge], 1.0, -1.0)
    keys, place = np.unique(pair, return_inverse=True)
    votes = np.bincount(place, sign * mechanisms.probability[edge], minlength=len(keys))
    vote = dict(zip(keys.tolist(), votes.tolist(), strict=True))
    shape = (patch.rows, patch.cols)
    support = np.zeros(shape, dtype=bool)
    memory = plaquette_sites(shape, patch.parity, on_rows=True)
    for r, c in np.ndindex(shape):
        around = [(r + dr) * width + c + dc for dr in (0, 1) for dc in (0, 1)]
        checks = [s for s in around if memory.flat[s]]
        key = min(checks) * sites + max(checks)
        if not vote.get(key):
            raise QecError(
                f"no mechanism of the model tells whether the data qubit in row {r}, column "
                f"{c} belongs to the observable. Give every data qubit a non-zero error rate."
            )
        support[r, c] = vote[key] > 0
    stabilisers = np.argwhere(plaquette_sites(shape, 1 - patch.parity, on_rows=False))
    for r, c in stabilisers:
        if support[max(r - 1, 0) : r + 1, max(c - 1, 0) : c + 1].sum() % 2:
            raise QecError(NOT_SURFACE_CODE.format("observable 0 is not a logical operator"))
    return support
