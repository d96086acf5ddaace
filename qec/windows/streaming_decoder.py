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

from qec.support.errors import QecError
from qec.support.settings import positive_integer
from qec.windows.template import EDGE, ExperimentTemplate, Window, rounds_needed
from qec.windows.window_decoder import cutters
from qec.windows.window_state import ScheduledWindow, WindowState

if TYPE_CHECKING:
    from qec.predecoder.predecoder import Predecoder

_WINDOWS_KEPT = 4  # as many are decided before what is left moves to the front


class StreamingDecoder:
    """Decodes a batch of independent memory experiments while their detection events arrive.

    Memory does not grow with the number of rounds.

    Args:
        dem: detector error model of the same experiment with any number of rounds that leaves room
            for three windows, R >= commit + buffer + 3, and for a pre-decoder R >= commit + 3 and
            twice its reach (`standard`: 18, `small`: 5); its bulk stands for that of the stream.
        commit: rounds that a window decides; ``push`` does so once per that many rounds.
        buffer: rounds that a window looks ahead.
        correlated, predecoder, cascade, beliefs, device: as in ``WindowDecoder``.
        confidence: whether to tell how sure each window is, at a price as in
            ``WindowDecoder.decode_batch``.  Predictions stay the same.
        batch: number of experiments.

    Attributes:
        rounds_seen: layers that arrived.
        rounds_committed: layers that matching has decided.
        confidence: float64 (batch,), nats, of the cores committed so far the least: infinite before
            the first one.  A window's is what ``WindowDecoder.decode_batch`` returns.
            After ``flush`` it is that of the whole experiments, until the next layer arrives.
            None unless asked for.
        core_confidence: the same for the core committed last.

    Raises:
        QecError: commit or buffer below 1, a model with too few rounds, whose rounds differ, or as
            ``WindowDecoder``.

    Examples:
        >>> import numpy as np, stim, qec
        >>> circuit = stim.Circuit.generated("surface_code:rotated_memory_x", distance=3, rounds=20,
        ...                                  after_clifford_depolarization=0.003)
        >>> dem = circuit.detector_error_model(decompose_errors=True)
        >>> decoder = qec.StreamingDecoder(dem, commit=3, buffer=3)
        >>> *layers, last = decoder.split(np.zeros((1, dem.num_detectors), dtype=np.uint8))
        >>> for layer in layers:
        ...     frame = decoder.push(layer)
        >>> decoder.flush(last)
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
        beliefs: bool = False,
        confidence: bool = False,
        device: str = "cpu",
        batch: int = 1,
    ) -> None:
        self.commit = positive_integer("commit", commit)
        self.buffer = positive_integer("buffer", buffer)
        self._reference = ExperimentTemplate(dem)
        self._cutter, self._blocks = cutters(
            self._reference, correlated, predecoder, device, cascade=cascade, beliefs=beliefs
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
            self._cutter.window(self._window(start), None, before=True).warm_up()
            if self._asked:
                self._cutter.gap(self._window(start), None, before=True)
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
        reach = 0 if self._blocks is None else self._blocks.reach
        self._layers = (_WINDOWS_KEPT + 5) * self.commit + self.buffer + 2 * reach
        self._windows = self._layers // self.commit + 2
        self._rounds_predecoded = 0
        self._first = -1  # the window that is kept longest; layers are kept from its end on
        self._state = WindowState.of(
            np.zeros((batch, self._layers, self._reference.width), dtype=np.uint8),
            self._windows,
            predecoder=self._blocks is not None,
        )

    def _forget_confidence(self) -> None:
        unknown = np.full(len(self._frame), np.inf) if self._asked else None
        self.confidence = self.core_confidence = unknown

    def split(self, shots: np.ndarray) -> list[np.ndarray]:
        """Shots of the model that the decoder was built from, layer by layer.

        bool or uint8 (B, num_detectors) -> for each layer (B, detectors of the layer).
        """
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
        layer = self._checked(events, self._reference.detectors_of_layer(self.rounds_seen))
        if self.rounds_seen == 0:  # it may still be that of the stream before
            self._forget_confidence()
        self._take(layer)
        while self._predecodable() >= self.commit:
            self._predecode(self._rounds_predecoded + self.commit, None)
        while self._ready() >= self.commit + self.buffer:
            self._decide(self._window(self.rounds_committed), None)
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
        self._take(self._checked(events, self._reference.detectors_of_layer(0)))
        layers = self.rounds_seen
        windows = -(-(layers - self.commit - self.buffer) // self.commit)  # before the last one
        last = windows * self.commit
        if self._blocks is not None:
            self._predecode_the_rest(last, layers)
        while self.rounds_committed < last:
            self._decide(self._window(self.rounds_committed), layers)
        self._decide(Window(last, layers, last, layers), layers)
        frame, confidence = self._frame, (self.confidence, self.core_confidence)
        self.reset(len(frame))
        self.confidence, self.core_confidence = confidence
        return frame

    def _checked(self, events: np.ndarray, detectors: int) -> np.ndarray:
        events, want = np.asarray(events), (len(self._frame), detectors)
        if events.shape != want or events.dtype not in (np.uint8, np.bool_):
            raise QecError(
                f"detection events of a layer have shape {events.shape} and dtype {events.dtype}: "
                f"give uint8 or bool of shape {want}."
            )
        return events

    def _take(self, events: np.ndarray) -> None:
        """Enters a layer, for which there is room once old windows are forgotten."""
        if self._row(self.rounds_seen) == self._layers:
            needed = self.rounds_committed
            if self._blocks is not None:
                needed = min(needed, self._rounds_predecoded) - self._blocks.reach
            first = max(needed // self.commit - 1, -1)
            windows = first - self._first
            self._state.forget(len(self._frame), windows, windows * self.commit)
            self._first = first
        layers = self._state.events.reshape(len(self._frame), self._layers, -1)
        layers[:, self._row(self.rounds_seen), : events.shape[1]] = events
        self.rounds_seen += 1

    def _row(self, layer: int) -> int:
        return layer - (self._first + 1) * self.commit

    def _places(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Its numbers and first rows in the state, of all experiments."""
        experiment = np.arange(len(self._frame))
        number = window.core_start // self.commit - self._first
        first = self._row(window.start)
        return experiment * self._windows + number, experiment * self._layers + first

    def _predecodable(self) -> int:
        """Layers whose block sees all that it needs."""
        if self._blocks is None:
            return 0
        return self.rounds_seen - self._blocks.reach - self._rounds_predecoded

    def _predecode(self, end: int, layers: int | None) -> None:
        """Pre-decodes the next block, which ends there."""
        assert self._blocks is not None
        start, reach = self._rounds_predecoded, self._blocks.reach
        latest = end + reach if layers is None else min(end + reach, layers)
        window = Window(max(start - reach, 0), latest, start, end)
        self._state.predecode(window, self._blocks.block(window, layers), *self._places(window))
        self._rounds_predecoded = end

    def _predecode_the_rest(self, last: int, layers: int) -> None:
        """Layers ``last`` and later are one block, even if some of them were others already."""
        for core in range(last, self._rounds_predecoded, self.commit):
            self._state.carry[self._places(self._window(core))[0]] = 0
        self._rounds_predecoded = min(self._rounds_predecoded, last)
        while self._rounds_predecoded < last:
            self._predecode(self._rounds_predecoded + self.commit, layers)
        self._predecode(layers, layers)

    def _ready(self) -> int:
        """Layers that wait for matching alone."""
        there = self.rounds_seen if self._blocks is None else self._rounds_predecoded
        return there - self.rounds_committed

    def _decide(self, window: Window, layers: int | None) -> None:
        """Decides a window at the start of what waits, and commits its core."""
        matcher = self._cutter.window(window, layers, before=True)
        ahead = range(window.core_end, window.end, self.commit)  # where later blocks start
        carries = tuple((k, core - window.start) for k, core in enumerate(ahead))
        scheduled = ScheduledWindow(window, True, False, matcher, range(len(carries) + 1), carries)
        places = self._places(window)
        if self._asked:
            gap = self._cutter.gap(window, layers, before=True)
            self.core_confidence = gap.of(self._state.syndrome(scheduled, gap.columns, *places))
            assert self.confidence is not None
            self.confidence = np.minimum(self.confidence, self.core_confidence)
        self._state.decide(scheduled, *places)
        self._frame ^= self._state.flip[places[0]]
        self.rounds_committed = window.core_end
