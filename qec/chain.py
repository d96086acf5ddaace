"""Error chains on the space-time lattice: boundary map, logical parity, canonical form.

With m_k the check flips measured in round k, E_k the accumulated data errors at the end of round k
and H the parity map of a sector, a chain has *spacelike* bits q_k = E_k + E_{k-1} and *timelike*
bits t_k = m_k + H E_k.  Its detection events are d_k = H q_k + t_k + t_{k-1}, exactly.

Arrays carry a trailing shots axis.  Every operation is bitwise, so one implementation serves
uint64 words of 64 shots (labels), and uint8 torch tensors with one byte a shot (inference).
"""

from __future__ import annotations

import functools
import operator
from typing import Any, NamedTuple

import numpy as np

from qec.lattice import SpaceTimeLattice
from qec.patch import MEMORY, OTHER

Array = Any  # np.ndarray or torch.Tensor, of an integer dtype


class Chain(NamedTuple):
    """A batch of error chains.

    Attributes:
        q: (2, R+1, d, d, ...) spacelike bits: sector, layer, data row, data column, shots.
        t: (R, d+1, d+1, ...) timelike bits: layer, plaquette row, plaquette column, shots; each
            site belongs to the sector of its check.
    """

    q: Array
    t: Array


def zeros(lattice: SpaceTimeLattice, words: int) -> Chain:
    """The empty chain, uint64 words of 64 shots each."""
    d, r = lattice.distance, lattice.rounds
    return Chain(
        np.zeros((2, r + 1, d, d, words), dtype=np.uint64),
        np.zeros((r, d + 1, d + 1, words), dtype=np.uint64),
    )


def boundary(chain: Chain, lattice: SpaceTimeLattice) -> Array:
    """Detection events of a chain, d_k = H q_k + t_k + t_{k-1}.

    Returns:
        (R+1, d+1, d+1, ...) on the plaquette grid, zero where no detector exists; the array type
        and dtype of ``chain``.
    """
    q, t = chain
    r = lattice.rounds
    events = parity_map(q, lattice)
    events[:r] ^= t
    events[1:] ^= t
    rows, cols = np.nonzero(lattice.check_sites[OTHER])
    events[0, rows, cols] = 0
    events[r, rows, cols] = 0
    return events


def parity_map(q: Array, lattice: SpaceTimeLattice) -> Array:
    """H q: the checks that data errors violate, layer by layer.

    Args:
        q: (2, layers, d, d, ...) errors per sector.

    Returns:
        (layers, d+1, d+1, ...), zero at sites without a check.
    """
    d = lattice.distance
    shape = (q.shape[1], d + 1, d + 1, *q.shape[4:])
    events = np.zeros(shape, q.dtype) if isinstance(q, np.ndarray) else q.new_zeros(shape)
    for sector in (MEMORY, OTHER):
        for row in (0, 1):
            for col in (0, 1):
                data = q[sector, :, row::2, col::2]
                for place, _ in _checks_of_data(lattice, sector, row, col):
                    events[(slice(None), *place)] ^= data
    rows, cols = np.nonzero(~lattice.check_sites.any(axis=0))
    events[:, rows, cols] = 0
    return events


def logical_parity(chain: Chain, lattice: SpaceTimeLattice) -> Array:
    """Parity of the memory-sector errors on the support of observable 0, shape (...)."""
    return functools.reduce(operator.xor, logical_bits(chain, lattice))


def logical_bits(chain: Chain, lattice: SpaceTimeLattice) -> Array:
    """The bits whose parity that is, (n, ...)."""
    rows, cols = np.nonzero(lattice.logical_support)
    lines = chain.q[MEMORY][:, rows, cols]
    return lines.reshape(-1, *lines.shape[2:])


def weight(chain: Chain) -> int:
    """Number of set bits over all shots (numpy only)."""
    return int(np.bitwise_count(chain.q).sum()) + int(np.bitwise_count(chain.t).sum())


def drop_invisible(chain: Chain, lattice: SpaceTimeLattice) -> Chain:
    """Clears, in place, the bits that no detector and no observable sees."""
    for sector in (MEMORY, OTHER):
        chain.q[sector][~lattice.data_exists[sector]] = 0
    chain.t[~lattice.time_exists] = 0
    return chain


def canonicalise(chain: Chain, lattice: SpaceTimeLattice, max_sweeps: int = 20) -> Chain:
    """Reduces chains, in place, to light representatives of their homology class.

    Generators of the trivial cycles are stabilisers within a layer, and a data qubit's error in two
    consecutive layers with the timelike bits of its checks between (at the open time boundaries of
    the other sector: in one layer).  A generator is added where a majority of its bits is set; on a
    tie, where its designated bit is not.  The designated bit is the generator's largest in one
    global order, so each flip lowers the potential (weight, -sum of 2^rank) and sweeps converge.

    Args:
        chain: uint64 numpy arrays, bits that no detector sees already clear.
        max_sweeps: sweeps end earlier when one of them changes nothing.
    """
    for _ in range(max_sweeps):
        changed = False
        for generator in _generator_classes(lattice):
            changed |= generator.reduce(chain)
        if not changed:
            break
    return chain


class _GeneratorClass(NamedTuple):
    """Disjoint generators of equal shape.

    Attributes:
        bits: per bit of the generator a strided view of the chain, (array name, index); the
            designated bit first.  Global order: q before t, earlier layer, smaller row, column.
        exists: per bit, where it exists (uint64, all ones or zero), or None for everywhere.
        partial: uint64, all ones where one of the bits does not exist; None for nowhere.
    """

    bits: tuple[tuple[str, tuple], ...]
    exists: tuple[np.ndarray | None, ...]
    partial: np.ndarray | None

    def reduce(self, chain: Chain) -> bool:
        views = [getattr(chain, name)[index] for name, index in self.bits]
        flip = self._where_lighter(*views)
        if not flip.any():
            return False
        for view, exists in zip(views, self.exists, strict=True):
            view ^= flip if exists is None else flip & exists
        return True

    def _where_lighter(self, first: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        """Where adding the generator lowers the potential; absent bits read as zero."""
        if len(rest) == 1:  # both bits set, or a tie without the designated bit
            return rest[0].copy()
        if len(rest) == 2:
            a, b = rest
            either = a | b
            flip = (a & b) | (first & either)
            # With one of a, b absent two bits are left: as above.
            return flip if self.partial is None else flip | (self.partial & either)
        a, b, c = rest
        either = a | b
        two_of_rest = (a & b) | (c & either)
        # Three of four with the designated bit need two of the rest, and so does a tie without it.
        if self.partial is None:
            return two_of_rest
        return two_of_rest | (self.partial & first & (either | c))


@functools.lru_cache(maxsize=64)
def _generator_classes(lattice: SpaceTimeLattice) -> tuple[_GeneratorClass, ...]:
    d, r = lattice.distance, lattice.rounds
    classes: list[_GeneratorClass] = []
    for sector in (MEMORY, OTHER):
        first, last = (0, r) if sector == MEMORY else (1, r - 1)
        if first > last:
            continue
        classes += _stabilisers(lattice, sector, slice(first, last + 1))
        for row in (0, 1):
            for col in (0, 1):
                place = (slice(row, d, 2), slice(col, d, 2))
                checks = _checks_of_data(lattice, sector, row, col)
                for k in (first, first + 1):
                    if k < last:
                        later = slice(k + 1, last + 1, 2)
                        now = slice(k, last, 2)
                        qs = [("q", (sector, now, *place)), ("q", (sector, later, *place))]
                        classes.append(_with_checks(qs, now, checks))
                if sector == OTHER:  # open time boundaries
                    for layer, t_layer in ((first, 0), (last, last)):
                        qs = [("q", (sector, layer, *place))]
                        classes.append(_with_checks(qs, t_layer, checks))
    return tuple(classes)


def _stabilisers(lattice: SpaceTimeLattice, sector: int, layers: slice) -> list[_GeneratorClass]:
    """Stabilisers that commute with the sector's checks: the supports of the other checks."""
    d = lattice.distance
    parity = lattice.parity if sector == OTHER else 1 - lattice.parity
    classes = []
    for row in (1, 2):  # in the bulk: plaquettes 1 .. d-1
        col = 1 + (parity + row + 1) % 2
        bits = [
            ("q", (sector, layers, slice(row + dr, d + dr, 2), slice(col + dc, d + dc, 2)))
            for dr in (-1, 0)
            for dc in (-1, 0)
        ]
        classes.append(_GeneratorClass(tuple(bits), (None,) * 4, None))
    for edge in (0, d):  # weight 2: on rows for memory checks, on columns for the others
        along = 1 + (parity + edge + 1) % 2
        line = min(edge, d - 1)
        bits = []
        for step in (-1, 0):
            run = slice(along + step, d + step, 2)
            place = (run, line) if sector == MEMORY else (line, run)
            bits.append(("q", (sector, layers, *place)))
        classes.append(_GeneratorClass(tuple(bits), (None,) * 2, None))
    return classes


def _checks_of_data(lattice: SpaceTimeLattice, sector: int, row: int, col: int):
    """The two plaquette views next to the data sublattice (row, col), and where they exist."""
    d = lattice.distance
    parity = lattice.parity if sector == MEMORY else 1 - lattice.parity
    views = []
    for dr in (0, 1):
        dc = (parity + row + col + dr) % 2
        place = (slice(row + dr, d + dr, 2), slice(col + dc, d + dc, 2))
        views.append((place, lattice.check_sites[sector][place]))
    return views


def _with_checks(qs: list[tuple[str, tuple]], layer: slice | int, checks) -> _GeneratorClass:
    bits = tuple(qs) + tuple(("t", (layer, *place)) for place, _ in checks)
    masks = [_words(exists) for _, exists in checks]
    partial = ~(masks[0] & masks[1])
    exists = (None,) * len(qs) + tuple(masks)
    return _GeneratorClass(bits, exists, partial if partial.any() else None)


def _words(mask: np.ndarray) -> np.ndarray:
    """bool -> uint64 of all ones or zero, with an axis for the shots."""
    return np.where(mask, ~np.uint64(0), np.uint64(0))[..., None]
