"""PyMatching on a detector error model, with the basis-split decomposition.

Stim's ``decompose_errors`` splits a hyperedge by whatever pieces happen to be graphlike, and keeps
two-detector mechanisms that join an X check with a Z check.  Splitting each mechanism into its part
on the memory checks and its part on the other checks makes the matching graph two separate planar
graphs; PyMatching decodes it better at no cost.
"""

from __future__ import annotations

import re

import numpy as np
import pymatching
import stim

from qec.errors import QecError, first_line
from qec.lattice import MEMORY, SpaceTimeLattice


def basis_split(lattice: SpaceTimeLattice) -> stim.DetectorErrorModel:
    """The model of ``lattice`` with each mechanism split into ``memory part ^ other part``.

    Parts with more than two detectors (no CSS circuit has them) fall back on the pieces of the
    decomposition that the model came with, regrouped by sector.

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
    return _as_text_model(lattice, mechanism, sector, piece)


def _as_text_model(
    lattice: SpaceTimeLattice, mechanism: np.ndarray, sector: np.ndarray, piece: np.ndarray
) -> stim.DetectorErrorModel:
    """One line ``error(p) [memory pieces] [L0] ^ [other pieces]`` per mechanism.

    Every word gets a key (mechanism, slot in its line); sorting by it lays out all lines.
    """
    table = lattice.mechanisms
    per_sector = 3 * (int(piece.max(initial=0)) + 1)  # separator, detectors, observable
    line = 2 * per_sector + 2
    detector_key = mechanism * line + sector * per_sector + 3 * piece + 2

    flips = np.flatnonzero(table.flips_observable)
    memory_key = np.full(len(table.probability), np.iinfo(np.int64).max)
    np.minimum.at(memory_key, mechanism[sector == MEMORY], detector_key[sector == MEMORY])
    has_memory = memory_key < np.iinfo(np.int64).max
    # The observable is a memory-basis operator: it goes with the first memory piece, or alone.
    observable_key = np.where(has_memory[flips], memory_key[flips] + 1, flips * line + 1)

    pieces = np.unique(detector_key)
    owner = pieces // line
    follows = np.concatenate([[False], owner[1:] == owner[:-1]])
    follows |= table.flips_observable[owner] & ~has_memory[owner]

    used = np.union1d(mechanism, flips)
    rates, rate_of = np.unique(table.probability, return_inverse=True)
    n = lattice.num_detectors
    vocabulary = np.array(
        [f"D{k}" for k in range(n)] + ["L0", "^"] + [f"\nerror({p!r})" for p in rates.tolist()],
        dtype=object,
    )
    keys = np.concatenate([used * line, detector_key, observable_key, pieces[follows] - 1])
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


class Matcher:
    """PyMatching behind one call; ``correlated`` switches its two-pass correlated matching on.

    Args:
        dem: a graphlike-decomposed model.
        correlated: see ``pymatching.Matching.decode_batch(enable_correlations=...)``.

    Raises:
        QecError: PyMatching refuses the model: correlated matching takes no probability above 1/2.
    """

    def __init__(self, dem: stim.DetectorErrorModel, correlated: bool) -> None:
        self.correlated = correlated
        self.graph = matching_graph(dem, correlated)
        set_up(self.graph, correlated)

    def decode_batch(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B,), predicted flips of observable 0."""
        return self.decode_all(detectors)[:, 0]

    def decode_all(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B, observables), flips of all observables."""
        return self.graph.decode_batch(detectors, enable_correlations=self.correlated)


def matching_graph(dem: stim.DetectorErrorModel, correlated: bool = False) -> pymatching.Matching:
    """The graph of a model, not set up yet; arguments and errors as of ``Matcher``."""
    try:
        return pymatching.Matching.from_detector_error_model(dem, enable_correlations=correlated)
    except ValueError as error:
        raise QecError(
            f"PyMatching refuses the model ({first_line(error)}): lower its noise."
        ) from error


class MemoryMatcher:
    """Uncorrelated matching of the memory checks alone, which decide the observable.

    Its predictions are those of ``Matcher`` on the basis-split model, where the sectors do not
    meet, for half the work.

    Args:
        lattice: whose shots are decoded.

    Raises:
        QecError: PyMatching refuses the model.
    """

    def __init__(self, lattice: SpaceTimeLattice) -> None:
        both = matching_graph(basis_split(lattice))
        self._detectors = lattice.memory_detectors
        self.graph = graph_of(*memory_edges(both, lattice))
        set_up(self.graph)

    def decode_batch(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B,), predicted flips of observable 0."""
        return self.graph.decode_batch(detectors.take(self._detectors, axis=1))[:, 0]


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
    """Has PyMatching prepare what it otherwise prepares on its first shot: seconds, at d = 31."""
    nothing = np.zeros((1, graph.num_detectors), dtype=np.uint8)
    graph.decode_batch(nothing, enable_correlations=correlated)


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
        if found := _HYPEREDGE.search(str(dem)):
            raise QecError(
                f"a mechanism flips {found[0]!r} at once: matching would drop it. Decompose the "
                "model (Stim's decompose_errors=True), or use a css decoder."
            )
        return dem
    raise QecError(f"decomposition={decomposition!r} is unknown: use 'css' or 'stim'.")
