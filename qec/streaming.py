"""Detection events round by round in, the logical frame out: windows for streams of any length.

A stream's bulk looks the same at all times, so three kinds of sliding windows serve all of it: one
at the start, one in the bulk, one at the end.  They are cut from the detector error model of a
shorter experiment of the same kind.
"""

from __future__ import annotations

import numpy as np
import stim

from qec.config import positive_integer
from qec.errors import QecError
from qec.lattice import SpaceTimeLattice
from qec.windows import CompiledWindow, Pieces, Window


class StreamingDecoder:
    """Decodes a batch of independent memory experiments while their detection events arrive.

    Memory does not grow with the number of rounds.

    Args:
        dem: detector error model of the same experiment with any number of rounds that leaves room
            for three windows, R >= 2 commit + 2 buffer + 2; its bulk stands for that of the stream.
        commit: rounds that a window decides; ``push`` does so once per that many rounds.
        buffer: rounds that a window looks ahead.
        correlated: use PyMatching's correlated matching in the windows.
        batch: number of experiments.

    Raises:
        QecError: commit or buffer below 1, a model with too few rounds, or whose rounds differ.

    >>> import stim
    >>> circuit = stim.Circuit.generated("surface_code:rotated_memory_x", distance=3, rounds=20,
    ...                                  after_clifford_depolarization=0.003)
    >>> decoder = StreamingDecoder(circuit.detector_error_model(decompose_errors=True), 3, 3)
    >>> events = circuit.compile_detector_sampler(seed=1).sample(1)
    >>> for layer in decoder.split(events)[:-1]:
    ...     frame = decoder.push(layer)
    >>> decoder.flush(decoder.split(events)[-1])
    array([0], dtype=uint8)
    """

    def __init__(
        self,
        dem: stim.DetectorErrorModel,
        commit: int,
        buffer: int,
        *,
        correlated: bool = False,
        batch: int = 1,
    ) -> None:
        for name, value in (("commit", commit), ("buffer", buffer), ("batch", batch)):
            positive_integer(name, value)
        self.commit, self.buffer, self.correlated = commit, buffer, correlated
        self._lattice = SpaceTimeLattice.from_dem(dem)
        self._rounds = self._lattice.rounds
        if self._rounds < 2 * (commit + buffer) + 2:
            raise QecError(
                f"a model of {self._rounds} rounds is too short for windows of {commit} + {buffer} "
                "layers: give one of the same experiment with "
                f"{2 * (commit + buffer) + 2} rounds or more."
            )
        self._by_layer = detectors_by_layer(self._lattice)
        self._pieces = Pieces.of(self._lattice)
        self._first = self._compile(0, commit + buffer, commit)
        self._bulk = self._compile(commit, 2 * commit + buffer, 2 * commit)
        self._last: dict[int, tuple[int, CompiledWindow]] = {}
        self.reset(batch)

    def _compile(self, start: int, end: int, core_end: int) -> tuple[int, CompiledWindow]:
        """The window of the reference experiment, and the layer that it starts at."""
        done = np.arange(self._rounds + 1) < start
        window = self._pieces.window(Window(start, end, start, core_end), done)
        return start, window.build(self.correlated)

    def reset(self, batch: int = 1) -> None:
        """Forgets the stream; the next layer is the first of ``batch`` new experiments."""
        self.rounds_seen = self.rounds_committed = 0
        self._frame = np.zeros(batch, dtype=np.uint8)
        self._waiting: list[np.ndarray] = []  # events of the layers that are not committed

    def split(self, shots: np.ndarray) -> list[np.ndarray]:
        """Shots of the model that the decoder was built from, layer by layer."""
        return [shots[:, detectors] for detectors in self._by_layer]

    def push(self, events: np.ndarray) -> np.ndarray:
        """Takes the next layer of detection events.

        Args:
            events: bool or uint8 (batch, detectors of the layer), in the order of the model.

        Returns:
            uint8 (batch,), the logical flips committed so far (a copy).

        Raises:
            QecError: another shape or dtype; the readout, which has fewer detectors, is for
                ``flush``.
        """
        self._take(events, 0 if self.rounds_seen == 0 else 1)
        self.rounds_seen += 1
        if len(self._waiting) == self.commit + self.buffer:
            self._decode(self._first if self.rounds_committed == 0 else self._bulk, self.commit)
        return self._frame.copy()

    def flush(self, events: np.ndarray) -> np.ndarray:
        """Takes the last layer, that of the data's readout, and ends the stream.

        Returns:
            uint8 (batch,), the logical flips of the whole experiments.

        Raises:
            QecError: another shape or dtype, or a stream shorter than one window.
        """
        if self.rounds_committed == 0:
            raise QecError(
                f"the stream ends after {self.rounds_seen} rounds, within its first window: decode "
                "so short an experiment with qec.Decoder."
            )
        self._take(events, self._rounds)
        left = len(self._waiting)
        if left not in self._last:
            layers = self._rounds + 1
            self._last[left] = self._compile(layers - left, layers, layers)
        self._decode(self._last[left], left)
        frame = self._frame
        self.reset(len(frame))
        return frame

    def _take(self, events: np.ndarray, like: int) -> None:
        events, want = np.asarray(events), (len(self._frame), len(self._by_layer[like]))
        if events.shape != want or events.dtype not in (np.uint8, np.bool_):
            raise QecError(
                f"detection events of a layer have shape {events.shape} and dtype {events.dtype}: "
                f"give uint8 or bool of shape {want}."
            )
        self._waiting.append(events.astype(np.uint8))

    def _decode(self, compiled: tuple[int, CompiledWindow], core: int) -> None:
        """Decodes the waiting layers and commits the first ``core`` of them."""
        start, window = compiled
        found = window.matcher.decode_all(np.concatenate(self._waiting, axis=1))
        self._frame ^= found[:, 0]
        del self._waiting[:core]
        self.rounds_committed += core
        # Artificial defects lie in the layers that still wait.
        where = self._lattice.layer[window.seam] - start - core
        for k, events in enumerate(self._waiting):
            here = np.flatnonzero(where == k)
            place = np.searchsorted(self._by_layer[start + core + k], window.seam[here])
            events[:, place] ^= found[:, 1 + here]


def detectors_by_layer(lattice: SpaceTimeLattice) -> list[np.ndarray]:
    """Detectors of every layer, ascending; QecError unless those of the bulk are alike."""
    layers = [np.flatnonzero(lattice.layer == k) for k in range(lattice.rounds + 1)]
    place = np.stack([lattice.row, lattice.col], axis=1)
    for k in range(2, lattice.rounds):
        if not np.array_equal(place[layers[k]], place[layers[1]]):
            raise QecError(
                f"the detectors of round {k} are in another order than those of round 1: a stream "
                "needs rounds that are all alike."
            )
    return layers
