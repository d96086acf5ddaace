"""Parities of detection events, E[prod_{i in S} (-1)^{d_i}], accumulated from bit-packed shots.

For independent mechanisms -ln E_S is the sum of x = -ln(1 - 2 p) over those that flip an odd number
of the detectors in S.  Taken with alternating signs over the subsets of S it becomes
c(S) = 2^{1 - |S|} sum_{T in S} (-1)^{|T| + 1} (-ln E_T) = sum of x over the mechanisms that flip
all of S: for a pair this is the "p_ij" of Google Quantum AI (Nature 595, 383, 2021).
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from scipy.sparse import csr_array

from qec.support.errors import QecError

BLOCKS = 32
"""Blocks of shots that an accumulator keeps apart."""

_CHUNK = 1 << 16  # shots that are transposed at a time
_WORDS = 1 << 22  # words of parities that are held at a time


@dataclasses.dataclass(frozen=True, eq=False)
class SubsetFamily:
    """Detector sets closed under taking non-empty subsets.

    Attributes:
        sets: by size k = 1, 2, ..., int64 (n_k, k), detectors ascending, rows in lexical order.
        num_detectors: of the experiment.
    """

    sets: tuple[np.ndarray, ...]
    num_detectors: int

    @classmethod
    def closure(cls, groups: list[np.ndarray], num_detectors: int) -> SubsetFamily:
        """All non-empty subsets of the rows of ``groups``, arrays (n, k) of detectors."""
        by_size: dict[int, list[np.ndarray]] = {}
        for group in groups:
            for k in range(1, group.shape[1] + 1):
                for columns in itertools.combinations(range(group.shape[1]), k):
                    by_size.setdefault(k, []).append(group[:, columns])
        singles = np.arange(num_detectors)[:, None]
        by_size[1] = [singles]
        sets = tuple(np.unique(np.concatenate(by_size[k]), axis=0) for k in sorted(by_size))
        return cls(sets, num_detectors)

    def __len__(self) -> int:
        return sum(len(s) for s in self.sets)

    def as_sparse(self) -> csr_array:
        """float64 (sets, num_detectors), 1 where the detector is in the set."""
        size = np.concatenate([np.full(len(s), s.shape[1]) for s in self.sets])
        row = np.repeat(np.arange(len(self)), size)
        column = np.concatenate([s.ravel() for s in self.sets])
        return csr_array((np.ones(len(row)), (row, column)), shape=(len(self), self.num_detectors))

    def find(self, group: np.ndarray) -> np.ndarray:
        """Index of each row of ``group``, (n, k) with ascending detectors, in the family.

        Raises:
            QecError: detector sets that are too large to be looked up.
        """
        k = group.shape[1]
        offset = sum(len(s) for s in self.sets[: k - 1])
        power = self.num_detectors ** np.arange(k)[::-1].astype(object)
        if k * np.log2(self.num_detectors) >= 63:
            raise QecError("sets are too large to be looked up.")
        keys = self.sets[k - 1] @ power.astype(np.int64)
        return offset + np.searchsorted(keys, group @ power.astype(np.int64))

    def containment(self, groups: list[np.ndarray]) -> csr_array:
        """K with c = K m: from m_T = -ln E_T to the x of all mechanisms that flip all of a set.

        Rows follow ``groups``, arrays (n, k) of detectors, one after the other.
        """
        rows, columns, values, start = [], [], [], 0
        for group in groups:
            n, size = group.shape
            for k in range(1, size + 1):
                for subset in itertools.combinations(range(size), k):
                    rows.append(np.arange(start, start + n))
                    columns.append(self.find(group[:, subset]))
                    values.append(np.full(n, (-1.0) ** (k + 1) * 2.0 ** (1 - size)))
            start += n
        data = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
        return csr_array(data, shape=(start, len(self)))


class ParityAccumulator:
    """Streams shots into parities of a family of detector sets.

    Words of 64 shots are dealt out to ``BLOCKS`` blocks in turn, whose scatter gives the
    statistical error.

    Attributes:
        family: the sets.
        odd: float64 (BLOCKS, sets), weighted number of shots in which an odd number of the set
            fired.
        weight: float64 (BLOCKS,), sum of the shots' weights: their number without forgetting.
        weight2: sum of the squares of all weights.
    """

    def __init__(self, family: SubsetFamily) -> None:
        self.family = family
        self.odd = np.zeros((BLOCKS, len(family)))
        self.weight = np.zeros(BLOCKS)
        self.weight2 = 0.0
        self._next = 0  # the block that gets the next word

    @property
    def shots(self) -> float:
        """Sum of the shots' weights."""
        return float(self.weight.sum())

    @property
    def effective_shots(self) -> float:
        """Shots of weight one with the same statistical error (Kish)."""
        return self.shots**2 / self.weight2 if self.weight2 else 0.0

    def update(self, packed: np.ndarray) -> ParityAccumulator:
        """Adds shots.

        Args:
            packed: detection events, uint8 (shots, ceil(num_detectors / 8)), little-endian.

        Raises:
            QecError: another shape or dtype.
        """
        check_packed(packed, self.family.num_detectors)
        for start in range(0, len(packed), _CHUNK):
            shots = packed[start : start + _CHUNK]
            words = _by_detector(shots, self.family.num_detectors)
            block = (self._next + np.arange(words.shape[1])) % BLOCKS
            self.odd += _odd_shots(words, block, self.family)
            filled = np.full(words.shape[1], 64)
            filled[-1] -= -len(shots) % 64
            self.weight += np.bincount(block, filled, minlength=BLOCKS)
            self._next = int(block[-1] + 1) % BLOCKS
        self.weight2 += len(packed)
        return self

    def forget(self, factor: float) -> ParityAccumulator:
        """Multiplies the weight of all shots so far by ``factor`` in [0, 1]."""
        self.odd *= factor
        self.weight *= factor
        self.weight2 *= factor**2
        return self

    def merge(self, other: ParityAccumulator) -> ParityAccumulator:
        """Adds the shots of another accumulator of the same family.

        Raises:
            QecError: an accumulator of another family.
        """
        same = len(self.family.sets) == len(other.family.sets) and all(
            np.array_equal(a, b) for a, b in zip(self.family.sets, other.family.sets, strict=True)
        )
        if not same:
            raise QecError("the accumulators have different detector sets: they cannot be merged.")
        self.odd += other.odd
        self.weight += other.weight
        self.weight2 += other.weight2
        return self

    def parities(self) -> np.ndarray:
        """float64 (sets,), the means of prod (-1)^{d_i}.

        Raises:
            QecError: there are no shots yet.
        """
        if not self.shots:
            raise QecError("there are no detection events to learn from.")
        return 1 - 2 * self.odd.sum(axis=0) / self.shots

    def blocks(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights (b,) and odd counts (b, sets) of the blocks that have shots."""
        used = self.weight > 0
        return self.weight[used], self.odd[used]


def check_packed(packed: np.ndarray, num_detectors: int) -> None:
    """QecError unless ``packed`` is uint8 (shots >= 1, ceil(num_detectors / 8))."""
    width = -(-num_detectors // 8)
    if packed.ndim != 2 or packed.shape[1] != width or packed.dtype != np.uint8 or not len(packed):
        raise QecError(
            f"detection events have shape {packed.shape} and dtype {packed.dtype}; the structure "
            f"has {num_detectors} detectors, so give uint8 of shape (shots, {width}), bit-packed."
        )


def _by_detector(packed: np.ndarray, num_detectors: int) -> np.ndarray:
    """uint64 (num_detectors, words), packed over shots."""
    bits = np.unpackbits(packed, axis=1, count=num_detectors, bitorder="little")
    by_detector = np.zeros((num_detectors, -(-len(packed) // 64) * 64), dtype=np.uint8)
    by_detector[:, : len(packed)] = bits.T
    return np.packbits(by_detector, axis=1, bitorder="little").view(np.uint64)


def _odd_shots(words: np.ndarray, block: np.ndarray, family: SubsetFamily) -> np.ndarray:
    """float64 (BLOCKS, sets), shots with odd parity by the block of their word."""
    at_a_time = max(1, _WORDS // words.shape[1])
    # Words in the order of their blocks, so that a block is a stretch that is summed at once.
    words = words[:, np.argsort(block, kind="stable")]
    used, starts = np.unique(np.sort(block), return_index=True)
    counts = np.zeros((BLOCKS, len(family)))
    column = 0
    for sets in family.sets:
        for start in range(0, len(sets), at_a_time):
            chunk = sets[start : start + at_a_time]
            parity = words[chunk[:, 0]]
            for detector in chunk.T[1:]:
                parity ^= words[detector]
            ones = np.bitwise_count(parity)
            sums = np.add.reduceat(ones, starts, axis=1, dtype=np.int64)
            counts[used, column : column + len(chunk)] = sums.T
            column += len(chunk)
    return counts
