"""Detection events round by round in, the logical frame out: windows for streams of any length.

A stream's bulk looks the same at all times, so three kinds of sliding windows serve all of it: one
at the start, one in the bulk, one at the end.  They are cut from the detector error model of a
shorter experiment of the same kind, and so are the blocks of a pre-decoder that goes ahead of them.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import stim

from qec.config import positive_integer
from qec.errors import QecError
from qec.reference import EDGE, Reference, Window, rounds_needed
from qec.windows import cutters

if TYPE_CHECKING:
    from qec.predecoder.blocks import Predecoded
    from qec.predecoder.correction import Predecoder


class StreamingDecoder:
    """Decodes a batch of independent memory experiments while their detection events arrive.

    Memory does not grow with the number of rounds.

    Args:
        dem: detector error model of the same experiment with any number of rounds that leaves room
            for three windows, R >= commit + buffer + 3, and for a pre-decoder R >= commit + 3 and
            twice its reach (`standard`: 18, `small`: 5); its bulk stands for that of the stream.
        commit: rounds that a window decides; ``push`` does so once per that many rounds.
        buffer: rounds that a window looks ahead.
        correlated, predecoder, cascade, device: as in ``qec.windows.WindowDecoder``.
        confidence: whether to tell how sure each window is, at a price as in
            ``WindowDecoder.decode_batch``.  Predictions stay the same.
        batch: number of experiments.

    Attributes:
        rounds_seen: layers that arrived.
        rounds_committed: layers that matching has decided.
        confidence: float64 (batch,), nats, of the cores committed so far the least: infinite before
            the first one.  A window's is what ``qec.windows.WindowDecoder.decode_batch`` returns.
            After ``flush`` it is that of the whole experiments, until the next layer arrives.
            None unless asked for.
        core_confidence: the same for the core committed last.

    Raises:
        QecError: commit or buffer below 1, a model with too few rounds, whose rounds differ, or as
            ``WindowDecoder``.

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
        cascade: bool | None = None,
        confidence: bool = False,
        device: str = "cpu",
        batch: int = 1,
    ) -> None:
        self.commit = positive_integer("commit", commit)
        self.buffer = positive_integer("buffer", buffer)
        self._reference = Reference(dem)
        self._windows, self._blocks = cutters(
            self._reference, correlated, predecoder, device, cascade=cascade
        )
        self._asked = confidence
        self._check_rounds()
        self.reset(positive_integer("batch", batch))

    def _check_rounds(self) -> None:
        """Whatever the windows of any stream need is there, and made before the first event."""
        need = rounds_needed(self.commit + self.buffer)
        if self._blocks is not None:
            need = max(need, rounds_needed(self.commit + 2 * self._blocks.reach))
        if self._reference.layers - 1 < need:
            raise QecError(
                f"a model of {self._reference.layers - 1} rounds is too short for windows of "
                f"{self.commit} + {self.buffer} layers: give one of the same experiment with "
                f"{need} rounds or more."
            )
        for start in (0, self.commit):
            self._windows.window(self._window(start), None, before=True).warm_up()
            if self._asked:
                self._windows.gap(self._window(start), None, before=True)
        if self._blocks is not None:
            reach, block = self._blocks.reach, self.commit
            for core in range(0, reach + block + EDGE, block):
                start = max(core - reach, 0)
                self._blocks.block(Window(start, core + block + reach, core, core + block), None)

    def _window(self, start: int) -> Window:
        return Window(start, start + self.commit + self.buffer, start, start + self.commit)

    def reset(self, batch: int = 1) -> None:
        """Forgets the stream; the next layer is the first of ``batch`` new experiments."""
        self.rounds_seen = self.rounds_committed = 0
        self._frame = np.zeros(batch, dtype=np.uint8)
        self._forget_confidence()
        self._waiting: list[np.ndarray] = []  # layers that are not committed, from the first on
        self._left: list[np.ndarray] = []  # the same after their blocks, as far as there are any
        self._predecoded: list[Predecoded] = []  # blocks of the layers that wait
        self._seam = np.zeros((batch, self._reference.width), dtype=np.uint8)
        self._ahead = None
        if self._blocks is not None:
            from qec.predecoder.blocks import StreamingPredecoder

            self._ahead = StreamingPredecoder(self._blocks, self.commit)

    def _forget_confidence(self) -> None:
        unknown = np.full(len(self._frame), np.inf) if self._asked else None
        self.confidence = self.core_confidence = unknown

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
            uint8 (batch,), the logical flips committed so far (a copy).

        Raises:
            QecError: another shape or dtype; the readout, which has fewer detectors, is for
                ``flush``.
        """
        layer = self._take(events, self._reference.detectors_of_layer(self.rounds_seen))
        if self.rounds_seen == 0:  # it may still be that of the stream before
            self._forget_confidence()
        self.rounds_seen += 1
        if self._ahead is not None and (block := self._ahead.push(layer)) is not None:
            self._enter(block)
        while self._ready() >= self.commit + self.buffer:
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
        if self._ahead is not None:
            windows = -(-(layers - self.commit - self.buffer) // self.commit)  # before the last one
            for block in self._ahead.flush(layer, last=windows * self.commit):
                self._enter(block)
        while self._ready() > self.commit + self.buffer:
            self._decode(self._window(self.rounds_committed), layers)
        start = self.rounds_committed
        self._decode(Window(start, layers, start, layers), layers)
        frame, confidence = self._frame, (self.confidence, self.core_confidence)
        self.reset(len(frame))
        self.confidence, self.core_confidence = confidence
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
        self._waiting.append(layer)
        return layer

    def _enter(self, block: Predecoded) -> None:
        self._predecoded.append(block)
        self._left += list(np.moveaxis(block.left, 1, 0))

    def _ready(self) -> int:
        """Layers that wait for matching alone."""
        return len(self._waiting if self._ahead is None else self._left)

    def _decode(self, window: Window, layers: int | None) -> None:
        """Decodes a window at the start of what waits, and commits its core (see ``Board``)."""
        length, core = window.end - window.start, window.core_end - window.start
        syndrome = np.stack(self._waiting[:length], axis=1)
        syndrome[:, 0] ^= self._seam
        residual, blocks = syndrome, []
        if self._ahead is not None:
            residual = np.stack(self._left[:length], axis=1)
            residual[:, 0] ^= self._seam
            blocks = [b for b in self._predecoded if b.start < window.end]
            for before, after in itertools.pairwise(blocks):
                residual[:, after.start - window.start] ^= before.carry
        committed = [b for b in blocks if b.start < window.core_end]
        matcher = self._windows.window(window, layers, before=True)
        found = matcher.decode(syndrome, residual)
        if self._asked:
            self.core_confidence = self._windows.gap(window, layers, before=True).of(syndrome)
            self.confidence = np.minimum(self.confidence, self.core_confidence)
        self._frame ^= found.flips
        self._seam = found.defects[:, 1].copy()
        stands = (~found.fell_back).astype(np.uint8)
        for block in committed:
            self._frame ^= block.flips * stands
        if committed:
            self._seam ^= committed[-1].carry * stands[:, None]
        del self._predecoded[: len(committed)], self._waiting[:core], self._left[:core]
        self.rounds_committed += core
