"""What `qec draw` shows of a shot, and where in space-time it lies."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.patch import MEMORY, PADDING
from qec.decoding.decoder import Decoder
from qec.matching.matcher import MemoryMatcher

_STUB = 0.65  # sites from a detector to where an edge to the boundary ends: behind the data qubit
_FLIP = ("no flip", "flip")


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnShot:
    """A shot on its way through the decoder.

    Edges are pairs of detectors, int64 (k, 2); -1 for the boundary.  The network and matching work
    on the memory checks, which alone decide the observable; the network reads the others, too.

    Attributes:
        lattice: of the error model.
        title: which shot it is, in words.
        decoder: its name.
        network: name of the checkpoint; None: matching alone.
        events: uint8 (num_detectors,), detection events.
        errors: edges that an odd number of the mechanisms that happened contain; None: not known.
        committed: edges that the network commits.
        residual: uint8 (num_detectors,), the events that these leave.
        matched: edges of memory-check matching of the residual.
        handed_on: whether the logical gap was so small that the cascade's last stage predicted.
        prediction: 0 or 1, of the flip of observable 0.
        truth: 0 or 1; None: not known.
    """

    lattice: SpaceTimeLattice
    title: str
    decoder: str
    network: str | None
    events: np.ndarray
    errors: np.ndarray | None
    committed: np.ndarray
    residual: np.ndarray
    matched: np.ndarray
    handed_on: bool
    prediction: int
    truth: int | None

    @classmethod
    def of(
        cls,
        decoder: Decoder,
        name: str,
        network: str | None,
        lattice: SpaceTimeLattice,
        events: np.ndarray,
        errors: np.ndarray | None,
        truth: int | None,
        title: str,
    ) -> DrawnShot:
        """Decodes a shot step by step.

        Args:
            decoder: begins with memory-check matching, or with a network before it.
            name: of the decoder.
            network: name of its checkpoint; not used where the decoder has none.
            lattice: with the error model that the decoder is made for.
            events: uint8 (num_detectors,), detection events.
            errors: int64 (k, 2), edges; None: not known.
            truth, title: as the attributes.

        Raises:
            QecError: no set of mechanisms explains the events.
        """
        bound = decoder.predecoder
        predecoded = decoder.predecode(events[None])
        decoded = decoder.match(events[None], predecoded)
        return cls(
            lattice=lattice,
            title=title,
            decoder=name,
            network=None if bound is None else network,
            events=events,
            errors=errors,
            committed=_no_edges() if bound is None else bound.committed_edges(events),
            residual=predecoded.residual[0],
            matched=matched_edges(lattice, predecoded.residual[0]),
            handed_on=bool(decoded.handed_on[0]),
            prediction=int(decoded.flips[0]),
            truth=truth,
        )

    @functools.cached_property
    def memory(self) -> np.ndarray:
        """bool (num_detectors,), detectors of the memory checks."""
        return self.lattice.sector == MEMORY

    @functools.cached_property
    def other(self) -> np.ndarray:
        """bool (num_detectors,), detectors of the other checks."""
        return (self.lattice.sector != MEMORY) & (self.lattice.sector != PADDING)

    @functools.cached_property
    def places(self) -> np.ndarray:
        """float64 (num_detectors, 3): x and y of the circuit, and the layer, one for each round."""
        return self.at(self.lattice.row, self.lattice.col, self.lattice.layer)

    def at(self, row: np.ndarray, col: np.ndarray, layer: np.ndarray | int) -> np.ndarray:
        """float64 (k, 3), as ``places``, of (row, col, layer) of the plaquette grid."""
        frame = self.lattice.frame
        sites = np.stack(np.broadcast_arrays(row, col), axis=-1).reshape(-1, 2)
        xy = (sites - frame.shift) @ np.linalg.inv(frame.matrix).T
        return np.column_stack([xy, np.broadcast_to(layer, len(xy))])

    def segments(self, edges: np.ndarray) -> np.ndarray:
        """float64 (k, 2, 3), the places of both ends of edges.

        Edges to the boundary lead to the nearer one: of the memory checks it is a column's.
        """
        lattice = self.lattice
        first = np.where(edges[:, 0] < 0, edges[:, 1], edges[:, 0])
        second = np.where(edges[:, 0] < 0, edges[:, 0], edges[:, 1])
        row, col = lattice.row[first].astype(float), lattice.col[first].astype(float)
        rows, cols = lattice.shape
        memory = self.memory[first]
        out_row = row + np.where(memory, 0, np.where(2 * row < rows, -_STUB, _STUB))
        out_col = col + np.where(memory, np.where(2 * col < cols, -_STUB, _STUB), 0)
        outside = self.at(out_row, out_col, lattice.layer[first])
        far = np.where((second < 0)[:, None], outside, self.places[second])
        return np.stack([self.places[first], far], axis=1)

    @property
    def steps(self) -> str:
        """What decodes it, in words."""
        network = "no network" if self.network is None else f"network {self.network}"
        return f"{network}, decoder {self.decoder}"

    @property
    def verdict(self) -> tuple[str, str]:
        """Prediction of the observable and truth, and what follows, in words."""
        truth = "not known" if self.truth is None else _FLIP[self.truth]
        outcome = "correct" if self.truth == self.prediction else "a logical error"
        parts = [] if self.truth is None else [outcome]
        parts += ["by the cascade's last stage"] if self.handed_on else []
        return f"predicted: {_FLIP[self.prediction]}, truth: {truth}", ", ".join(parts)


def matched_edges(lattice: SpaceTimeLattice, residual: np.ndarray) -> np.ndarray:
    """The edges by which PyMatching explains the events of memory checks.

    Args:
        lattice: with its error model.
        residual: uint8 (num_detectors,).

    Returns:
        int64 (k, 2), detectors; -1 for the boundary.
    """
    detectors = lattice.memory_detectors
    found = MemoryMatcher(lattice).graph.decode_to_edges_array(residual[detectors])
    return np.where(found < 0, -1, detectors[found])


def odd_edges(edges: np.ndarray) -> np.ndarray:
    """Those that stand an odd number of times among edges, int64 (k, 2), once each."""
    found, count = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    return found[count % 2 == 1]


def edge_count(edges: np.ndarray) -> str:
    """How many edges, int64 (k, 2), in words."""
    return "1 edge" if len(edges) == 1 else f"{len(edges)} edges"


def _no_edges() -> np.ndarray:
    return np.empty((0, 2), dtype=np.int64)
