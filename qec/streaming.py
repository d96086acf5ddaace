"""Detection events round by round in, the logical frame out: windows for streams of any length.

A stream's bulk looks the same at all times, so three kinds of sliding windows serve all of it: one
at the start, one in the bulk, one at the end.  They are cut from the detector error model of a
shorter experiment of the same kind, and so are the blocks of a pre-decoder that goes ahead of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import stim

from qec.config import positive_integer
from qec.errors import QecError
from qec.reference import EDGE, Reference, Window, rounds_needed
from qec.windows import WindowCutter

if TYPE_CHECKING:
    from qec.predecoder.correction import Predecoder


class StreamingDecoder:
    """Decodes a batch of independent memory experiments while their detection events arrive.

    Memory does not grow with the number of rounds.

    Args:
        dem: detector error model of the same experiment with any number of rounds that leaves room
            for three windows, R >= commit + buffer + 3, and for a pre-decoder R >= block + 15 with
            the shipped networks (twice their reach and 3); its bulk stands for that of the stream.
        commit: rounds that a window decides; ``push`` does so once per that many rounds.
        buffer: rounds that a window looks ahead.
        correlated: use PyMatching's correlated matching in the windows.
        predecoder: a loaded one, the name of a shipped checkpoint, a path, or None.  Its rule for
            ``correlated`` says what it commits; in windows there is no fallback.
        block: rounds that the pre-decoder takes at a time; None: ``commit``.
        device: where its network runs, "cpu" or "cuda".
        batch: number of experiments.

    Attributes:
        rounds_seen: layers that arrived.
        rounds_committed: layers that matching has decided.

    Raises:
        QecError: commit, buffer or block below 1, a model with too few rounds, whose rounds differ,
            or as ``load_predecoder``.

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
        predecoder: Predecoder | str | Path | None = None,
        block: int | None = None,
        device: str = "cpu",
        batch: int = 1,
    ) -> None:
        self.commit, self.buffer = commit, buffer
        self.block = commit if block is None else block
        for name, value in (("commit", commit), ("buffer", buffer), ("block", self.block)):
            positive_integer(name, value)
        self._reference = Reference(dem)
        self._windows = WindowCutter(self._reference, correlated)
        self._blocks = None
        if predecoder is not None:
            from qec.predecoder.blocks import BlockCutter  # torch only where needed
            from qec.predecoder.checkpoint import as_predecoder

            loaded = as_predecoder(predecoder)
            rule = loaded.rules.correlated if correlated else loaded.rules.uncorrelated
            self._blocks = BlockCutter(loaded, rule, self._reference, device)
        self._check_rounds()
        self.reset(positive_integer("batch", batch))

    def _check_rounds(self) -> None:
        """Whatever the windows of any stream need is there, and made before the first event."""
        need = rounds_needed(self.commit + self.buffer)
        if self._blocks is not None:
            need = max(need, rounds_needed(self.block + 2 * self._blocks.reach))
        if self._reference.layers - 1 < need:
            raise QecError(
                f"a model of {self._reference.layers - 1} rounds is too short for windows of "
                f"{self.commit} + {self.buffer} layers"
                + (f" and blocks of {self.block}" if self._blocks else "")
                + f": give one of the same experiment with {need} rounds or more."
            )
        for start in (0, self.commit):
            self._windows.window(self._window(start), None, before=True)
        if self._blocks is not None:
            reach, block = self._blocks.reach, self.block
            for core in range(0, reach + block + EDGE, block):
                start = max(core - reach, 0)
                self._blocks.block(Window(start, core + block + reach, core, core + block), None)

    def _window(self, start: int) -> Window:
        return Window(start, start + self.commit + self.buffer, start, start + self.commit)

    def reset(self, batch: int = 1) -> None:
        """Forgets the stream; the next layer is the first of ``batch`` new experiments."""
        self.rounds_seen = self.rounds_committed = 0
        self._frame = np.zeros(batch, dtype=np.uint8)
        self._waiting: list[np.ndarray] = []  # residual layers that are not committed
        self._ahead = None
        if self._blocks is not None:
            from qec.predecoder.blocks import StreamingPredecoder

            self._ahead = StreamingPredecoder(self._blocks, self.block)

    def split(self, shots: np.ndarray) -> list[np.ndarray]:
        """Shots of the model that the decoder was built from, layer by layer."""
        layers = self._reference.layers
        split = self._reference.split(shots, layers - 1)
        sizes = [self._reference.detectors_of_layer(k, layers) for k in range(layers)]
        return [split[:, k, :size] for k, size in enumerate(sizes)]

    def push(self, events: np.ndarray) -> np.ndarray:
        """Takes the next layer of detection events.

        Args:
            events: bool or uint8 (batch, detectors of the layer), in the order of the model.

        Returns:
            uint8 (batch,), the logical flips committed so far (a copy), by the pre-decoder too.

        Raises:
            QecError: another shape or dtype; the readout, which has fewer detectors, is for
                ``flush``.
        """
        layer = self._take(events, self._reference.detectors_of_layer(self.rounds_seen))
        self.rounds_seen += 1
        if self._ahead is None:
            self._waiting.append(layer)
        else:
            self._predecoded(*self._ahead.push(layer))
        while len(self._waiting) >= self.commit + self.buffer:
            self._decode(self._window(self.rounds_committed), None)
        return self._frame.copy()

    def flush(self, events: np.ndarray) -> np.ndarray:
        """Takes the last layer, that of the data's readout, and ends the stream.

        Returns:
            uint8 (batch,), the logical flips of the whole experiments.

        Raises:
            QecError: another shape or dtype, or a stream shorter than one window.
        """
        if self.rounds_seen < self.commit + self.buffer:
            raise QecError(
                f"the stream ends after {self.rounds_seen} rounds, within its first window: decode "
                "so short an experiment with qec.Decoder."
            )
        layer = self._take(events, self._reference.detectors_of_layer(0))
        layers = self.rounds_seen + 1
        if self._ahead is None:
            self._waiting.append(layer)
        else:
            self._predecoded(*self._ahead.flush(layer))
        while len(self._waiting) > self.commit + self.buffer:
            self._decode(self._window(self.rounds_committed), layers)
        start = self.rounds_committed
        self._decode(Window(start, layers, start, layers), layers)
        frame = self._frame
        self.reset(len(frame))
        return frame

    def _take(self, events: np.ndarray, detectors: int) -> np.ndarray:
        events, want = np.asarray(events), (len(self._frame), detectors)
        if events.shape != want or events.dtype not in (np.uint8, np.bool_):
            raise QecError(
                f"detection events of a layer have shape {events.shape} and dtype {events.dtype}: "
                f"give uint8 or bool of shape {want}."
            )
        layer = np.zeros((len(events), self._reference.width), dtype=np.uint8)
        layer[:, :detectors] = events
        return layer

    def _predecoded(self, layers: list[np.ndarray], flips: np.ndarray) -> None:
        self._waiting += layers
        self._frame ^= flips

    def _decode(self, window: Window, layers: int | None) -> None:
        """Decodes a window at the start of what waits, and commits its core."""
        waiting = np.stack(self._waiting[: window.end - window.start], axis=1)
        decoder = self._windows.window(window, layers, before=True)
        flips, defects, _ = decoder.decode(waiting, waiting)
        self._frame ^= flips
        core = window.core_end - window.core_start
        del self._waiting[:core]
        self.rounds_committed += core
        if self._waiting:
            self._waiting[0] = self._waiting[0] ^ defects[:, 1]
