"""PyMatching on a detector error model, with the basis-split decomposition.

Stim's ``decompose_errors`` splits a hyperedge by whatever pieces happen to be graphlike, and keeps
two-detector mechanisms that join an X check with a Z check.  Splitting each mechanism into its part
on the memory checks and its part on the other checks makes the matching graph two separate planar
graphs; PyMatching decodes it better at no cost.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pymatching
import scipy.sparse
import stim
from scipy.sparse import csgraph

from qec.circuits.error_model import silent_detectors, untagged
from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.patch import MEMORY
from qec.support.errors import QecError, first_line


def basis_split(lattice: SpaceTimeLattice) -> stim.DetectorErrorModel:
    """The model of ``lattice`` with each mechanism split into ``memory part ^ other part``.

    Parts with more than two detectors (no CSS circuit has them) fall back on the pieces of the
    decomposition that the model came with, regrouped by sector.  Where mechanisms flip the same
    memory checks, but not all of them the observable, the likelier ones stand first: matching takes
    the observable of an edge from the first.  A flip of the observable that no memory check sees is
    left out, since nothing can tell it.

    Raises:
        QecError: a part that flips more than two detectors and has no suggested pieces.
    """
    table = lattice.mechanisms
    sector = lattice.sector[table.detector]
    mechanism = table.mechanism.astype(np.int64)
    size = np.bincount(2 * mechanism + sector, minlength=2 * len(table.probability))
    # A part is one piece; where it is no edge, each component that it came with is a piece.
    is_hyperedge = size[2 * mechanism + sector] > 2
    piece = np.where(is_hyperedge, table.component + 1, 0)
    _check_graphlike(lattice, piece, sector)
    return _as_text_model(lattice, mechanism, sector, piece, _likelier_first(lattice))


def _likelier_first(lattice: SpaceTimeLattice) -> np.ndarray:
    """int64 (mechanisms,), the place of each mechanism in an order for matching.

    Worked example: ``error(1e-7) D0 L0`` and ``error(0.02) D0`` are one edge, which does not flip
    the observable in 0.02 of the shots and does in 1e-7.  So the first line goes to the end.
    """
    table = lattice.mechanisms
    memory = lattice.sector[table.detector] == MEMORY
    owner, detector = table.mechanism[memory].astype(np.int64), table.detector[memory]
    owner, first, count = np.unique(owner, return_index=True, return_counts=True)
    edge = count <= 2
    owner, first, count = owner[edge], first[edge], count[edge]
    ends = np.sort(np.stack([detector[first], detector[first + count - 1]]), axis=0)
    _, which = np.unique(ends, axis=1, return_inverse=True)
    sign = np.where(table.flips_observable[owner], 1, -1)
    vote = np.bincount(which.ravel(), sign * table.probability[owner])
    unlikely = np.zeros(len(table.probability), dtype=np.bool_)
    unlikely[owner] = sign * vote[which.ravel()] < 0
    place = np.empty(len(unlikely), dtype=np.int64)
    place[np.argsort(unlikely, kind="stable")] = np.arange(len(unlikely))
    return place


def _as_text_model(
    lattice: SpaceTimeLattice,
    mechanism: np.ndarray,
    sector: np.ndarray,
    piece: np.ndarray,
    place: np.ndarray,
) -> stim.DetectorErrorModel:
    """One line ``error(p) [memory pieces] [L0] ^ [other pieces]`` per mechanism.

    Every word gets a key (mechanism, slot in its line); sorting by it lays out all lines.
    """
    table = lattice.mechanisms
    per_sector = 3 * (int(piece.max(initial=0)) + 1)  # separator, detectors, observable
    line = 2 * per_sector + 2
    detector_key = place[mechanism] * line + sector * per_sector + 3 * piece + 2

    # The observable is a memory-basis operator: it goes with the first memory piece.
    memory_key = np.full(len(place), np.iinfo(np.int64).max)
    np.minimum.at(memory_key, mechanism[sector == MEMORY], detector_key[sector == MEMORY])
    seen = memory_key < np.iinfo(np.int64).max
    flips = np.flatnonzero(table.flips_observable & seen)

    pieces = np.unique(detector_key)
    owner = pieces // line
    follows = np.concatenate([[False], owner[1:] == owner[:-1]])

    used = np.unique(mechanism)
    rates, rate_of = np.unique(table.probability, return_inverse=True)
    n = lattice.num_detectors
    vocabulary = np.array(
        [f"D{k}" for k in range(n)] + ["L0", "^"] + [f"\nerror({p!r})" for p in rates.tolist()],
        dtype=object,
    )
    keys = np.concatenate(
        [place[used] * line, detector_key, memory_key[flips] + 1, pieces[follows] - 1]
    )
    words = np.concatenate(
        [
            n + 2 + rate_of[used],
            table.detector,
            np.full(len(flips), n),
            np.full(int(follows.sum()), n + 1),
        ]
    )
    text = " ".join(vocabulary[words[np.argsort(keys, kind="stable")]].tolist())
    # Detectors that no mechanism touches still have to be counted.
    return stim.DetectorErrorModel(f"{text}\ndetector D{n - 1}\nlogical_observable L0")


def _check_graphlike(lattice: SpaceTimeLattice, piece: np.ndarray, sector: np.ndarray) -> None:
    table = lattice.mechanisms
    names = (2 * table.mechanism.astype(np.int64) + sector) * (piece.max(initial=0) + 1) + piece
    _, which, count = np.unique(names, return_inverse=True, return_counts=True)
    if count.max(initial=0) > 2:
        bad = table.detector[which == int(np.argmax(count))]
        raise QecError(
            f"a mechanism flips the detectors {sorted(bad.tolist())} of one basis: matching cannot "
            "use it. Decompose the model (Stim's decompose_errors=True) first."
        )


# More than two detectors between separators.
_HYPEREDGE = re.compile(r"D\d+ (?:L\d+ )*D\d+ (?:L\d+ )*D\d+")
# A component without detectors, at the front of a mechanism or behind another component.
_UNSEEN = re.compile(r"(?<=\) )(?:L\d+ )+\^ | \^(?: L\d+)+(?= \^|$)", re.MULTILINE)


class Unexplained(QecError):
    """A shot has detection events that no set of the model's mechanisms explains.

    Args:
        shot: its number; None: not known.
        detectors: among these it has an odd number of events.
    """

    def __init__(self, shot: int | None = None, detectors: Sequence[int] = ()) -> None:
        self.shot, self.detectors = shot, detectors
        text = "the detection events of a shot cannot all be explained by the error model"
        if shot is not None:
            names = ", ".join(f"D{k}" for k in detectors[:8]) + ", ..." * (len(detectors) > 8)
            text = (
                f"shot {shot} has an odd number of detection events among {names}, which the "
                "error model flips two at a time only"
            )
        super().__init__(f"{text}: do the events belong to it?")

    def __reduce__(self) -> tuple:
        return Unexplained, (self.shot, self.detectors)

    def after(self, shots: int) -> Unexplained:
        """The error in a batch of which so many shots came before."""
        return self if self.shot is None else Unexplained(self.shot + shots, self.detectors)


def unexplained(
    graph: pymatching.Matching, detectors: np.ndarray
) -> tuple[int, Sequence[int]] | None:
    """The first shot with an odd number of events where edges only join detectors to each other.

    Args:
        graph: as ``matching_graph`` makes it.
        detectors: uint8 (B, num_detectors).

    Returns:
        Its number, and the detectors that are joined, none of them to a boundary; or None.
    """
    n = graph.num_detectors  # the boundary's number
    ends = np.array([(u, n if v is None else v) for u, v, _ in graph.edges()]).T
    joined = scipy.sparse.coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(n + 1, n + 1))
    count, part = csgraph.connected_components(joined, directed=False)
    shot, place = np.nonzero(detectors)
    events = np.bincount(shot * count + part[place], minlength=len(detectors) * count)
    odd = events.reshape(len(detectors), count) % 2 == 1
    odd[:, part[n]] = False
    if not odd.any():
        return None
    first, which = np.argwhere(odd)[0]
    return int(first), np.flatnonzero(part == which).tolist()


def _told_apart(error: ValueError) -> ValueError:
    """Unexplained where PyMatching says that a shot has no matching, else its own error."""
    return Unexplained() if "perfect matching" in str(error) else error


def decode(graph: pymatching.Matching, detectors: np.ndarray, **options: bool) -> np.ndarray:
    """``graph.decode_batch``; raises Unexplained where a shot has no matching.

    uint8 (B, num_detectors) -> uint8 (B, observables).
    """
    try:
        return graph.decode_batch(detectors, **options)
    except ValueError as error:
        raise _told_apart(error) from error


def matched_pairs(graph: pymatching.Matching, events: np.ndarray) -> np.ndarray:
    """``graph.decode_to_matched_dets_array``; raises Unexplained where there is no matching.

    uint8 (num_detectors,) -> int64 (pairs, 2), matched detectors; -1 is the boundary.
    """
    try:
        return graph.decode_to_matched_dets_array(events)
    except ValueError as error:
        raise _told_apart(error) from error


class Matcher:
    """PyMatching behind one call; ``correlated`` switches its two-pass correlated matching on.

    Args:
        dem: a graphlike-decomposed model.
        correlated: see ``pymatching.Matching.decode_batch(enable_correlations=...)``.
        silent: int64, the detectors that no mechanism flips, where they are known.

    Raises:
        QecError: PyMatching refuses the model: correlated matching takes no probability above 1/2.
            In decoding ``Unexplained``: no set of mechanisms explains the events of a shot.
    """

    def __init__(
        self, dem: stim.DetectorErrorModel, correlated: bool, silent: np.ndarray | None = None
    ) -> None:
        self.correlated = correlated
        self.graph = matching_graph(dem, correlated, silent)
        set_up(self.graph, correlated)

    def decode_batch(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B,), predicted flips of observable 0."""
        return self.decode_all(detectors)[:, 0]

    def decode_all(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B, observables), flips of all observables."""
        return decode(self.graph, detectors, enable_correlations=self.correlated)


def matching_graph(
    dem: stim.DetectorErrorModel, correlated: bool = False, silent: np.ndarray | None = None
) -> pymatching.Matching:
    """The graph of a model, not set up yet; arguments and errors as of ``Matcher``.

    Detectors that no mechanism flips get an edge of no weight to the boundary: their events mean
    nothing.
    """
    silent = silent_detectors(dem) if silent is None else silent
    if len(silent):
        lines = "\n".join(f"error(0.5) D{k}" for k in silent.tolist())
        dem = dem + stim.DetectorErrorModel(lines)
    try:
        return pymatching.Matching.from_detector_error_model(dem, enable_correlations=correlated)
    except ValueError as error:
        raise _refused(error) from error


class MemoryMatcher:
    """Uncorrelated matching of the memory checks alone, which decide the observable.

    Its predictions are those of ``Matcher`` on the basis-split model, where the sectors do not
    meet, for half the work.

    Args:
        lattice: whose shots are decoded.

    Raises:
        QecError: PyMatching refuses the model.
    """

    correlated = False

    def __init__(self, lattice: SpaceTimeLattice) -> None:
        both = matching_graph(basis_split(lattice), silent=lattice.silent)
        self._detectors = lattice.memory_detectors
        self.graph = graph_of(*memory_edges(both, lattice))
        set_up(self.graph)

    def decode_batch(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B,), predicted flips of observable 0."""
        return decode(self.graph, detectors.take(self._detectors, axis=1))[:, 0]


def memory_edges(
    graph: pymatching.Matching, lattice: SpaceTimeLattice
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The edges of a basis-split model among the memory checks.

    Returns:
        int64 their ends, numbered as in ``lattice.memory_detectors`` (the second is -1 at a
        boundary), float64 weights in nats, bool whether they flip observable 0.
    """
    detectors = lattice.memory_detectors
    place = np.full(lattice.num_detectors, -1)
    place[detectors] = np.arange(len(detectors))
    found = [
        (place[u], -1 if v is None else place[v], data["weight"], 0 in data["fault_ids"])
        for u, v, data in graph.edges()
        if place[u] >= 0
    ]
    u, v, weight, flip = (np.array(column) for column in zip(*found, strict=True))
    return u, v, weight, flip


def graph_of(
    u: np.ndarray, v: np.ndarray, weight: np.ndarray, flip: np.ndarray
) -> pymatching.Matching:
    """The matching graph with such edges, as ``memory_edges`` returns them."""
    graph = pymatching.Matching()
    for a, b, w, f in zip(u.tolist(), v.tolist(), weight.tolist(), flip.tolist(), strict=True):
        faults = {0} if f else set()
        if b < 0:
            graph.add_boundary_edge(a, weight=w, fault_ids=faults)
        else:
            graph.add_edge(a, b, weight=w, fault_ids=faults)
    return graph


def set_up(graph: pymatching.Matching, correlated: bool = False) -> None:
    """Has PyMatching prepare what it otherwise prepares on its first shot: seconds, at d = 31.

    Raises:
        QecError: PyMatching refuses the model.
    """
    nothing = np.zeros((1, graph.num_detectors), dtype=np.uint8)
    try:
        graph.decode_batch(nothing, enable_correlations=correlated)
    except ValueError as error:
        raise _refused(error) from error


def _refused(error: ValueError) -> QecError:
    return QecError(f"PyMatching refuses the model: {first_line(error)}.")


def matching_model(
    dem: stim.DetectorErrorModel, lattice: SpaceTimeLattice | None, decomposition: str
) -> stim.DetectorErrorModel:
    """The model that the matcher is built on: ``"css"`` (basis-split) or ``"stim"`` (as given).

    Raises:
        QecError: another ``decomposition``, or a model that is not decomposed into edges.
    """
    if decomposition == "css":
        return basis_split(lattice or SpaceTimeLattice.from_dem(dem))
    if decomposition == "stim":
        text = untagged(dem)
        if found := _HYPEREDGE.search(text):
            raise QecError(
                f"a mechanism flips {found[0]!r} at once: matching would drop it. Decompose the "
                "model (Stim's decompose_errors=True), or use a css decoder."
            )
        # PyMatching refuses components without detectors, or passes over them.
        return stim.DetectorErrorModel(_UNSEEN.sub("", text)) if _UNSEEN.search(text) else dem
    raise QecError(f"decomposition={decomposition!r} is unknown: use 'css' or 'stim'.")
