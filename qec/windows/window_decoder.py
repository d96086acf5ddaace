"""Matching in windows of rounds, for experiments that are too long to be matched as a whole.

A window decodes some layers of detectors and *commits* the corrections that touch its core; the
layers around, the buffer, only lend their events.  Committed corrections that reach beyond the core
flip detectors there: these artificial defects are added to the events that later windows see.

Sliding windows (Dennis et al., J. Math. Phys. 43, 4452, 2002) follow one another.  In parallel
windows (Skoric et al., Nature Communications 14, 7040, 2023; Tan et al., PRX Quantum 4, 040344,
2023) those of layer A, with a buffer on either side, all run at once, and those of layer B then
fill the gaps.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import stim

from qec.decoding.cascade import RESIDUAL_NATS
from qec.decoding.decoder import unpacked
from qec.decoding.decoder_names import DECODERS
from qec.support.errors import QecError
from qec.support.settings import positive_integer
from qec.windows.template import ExperimentTemplate, Window
from qec.windows.window_matcher import WindowCompiler, WindowGap
from qec.windows.window_state import ScheduledWindow, SimilarWindows, WindowState, schedule

if TYPE_CHECKING:
    from qec.predecoder.predecoder import Predecoder
    from qec.windows.predecode_blocks import BlockCompiler

_SHOTS_PER_PASS = 1024  # bounds the memory

_WHOLE_ONLY = {"members", "peer", "decomposition", "memory_only"}
WINDOW_DECODERS: dict[str, dict[str, Any]] = {
    name: options for name, options in DECODERS.items() if not _WHOLE_ONLY & options.keys()
}
"""Those of ``qec.decoding.decoder_names`` that run in windows, as arguments of ``WindowDecoder``.

Uncorrelated windows match the memory checks only, so ``pymatching-memory-css`` is no other one.
"""


def check_window_decoder(name: str, *others: str) -> None:
    """QecError unless it is one of ``WINDOW_DECODERS``, or one of ``others``."""
    if name in WINDOW_DECODERS or name in others:
        return
    why = ": an ensemble's proposals have no seam" if DECODERS.get(name, {}).get("members") else ""
    known = ", ".join([*WINDOW_DECODERS, *others])
    raise QecError(f"decoder {name!r} does not run in windows{why}. Use one of {known}.")


def sliding_windows(layers: int, commit: int, buffer: int) -> list[list[Window]]:
    """Stages of one window each: ``commit`` layers, and ``buffer`` layers ahead.

    Raises:
        QecError: commit or buffer below 1.
    """
    positive_integer("commit", commit)
    positive_integer("buffer", buffer)
    stages, start = [], 0
    while True:
        end = min(start + commit + buffer, layers)
        core_end = layers if end == layers else start + commit
        stages.append([Window(start, end, start, core_end)])
        if core_end == layers:
            return stages
        start = core_end


def parallel_windows(layers: int, commit: int, buffer: int) -> list[list[Window]]:
    """Layer A, cores of ``commit`` layers with ``buffer`` layers around; layer B, the gaps.

    The gaps between the cores are ``buffer`` layers.

    Raises:
        QecError: commit below 1, or buffer below 2 (corrections would join two cores of layer A).
    """
    positive_integer("commit", commit)
    positive_integer("buffer", buffer, least=2)
    ahead: list[Window] = []
    gaps: list[Window] = []
    start = 0
    while True:
        end = start + commit
        if end + buffer >= layers - 1:  # too little is left for a gap and another core
            end = layers
        ahead.append(Window(max(start - buffer, 0), min(end + buffer, layers), start, end))
        if end == layers:
            return [ahead, gaps] if gaps else [ahead]
        gaps.append(Window(end, end + buffer, end, end + buffer))
        start = end + buffer


def scheduled_windows(
    stages: list[list[Window]], layers: int, cutter: WindowCompiler
) -> list[ScheduledWindow]:
    """The windows of all stages in the order of time.

    Raises:
        QecError: as ``WindowCompiler.window``.
    """
    order = _in_order(stages)
    numbers = [number for _, number in order]
    made = []
    for k, (window, number) in enumerate(order):
        before = k > 0 and numbers[k - 1] < number
        after = k + 1 < len(order) and numbers[k + 1] < number
        made.append((window, before, after, cutter.window(window, layers, before, after)))
    return schedule(made)


def block_windows(stages: list[list[Window]], layers: int, reach: int) -> list[Window]:
    """The blocks of a pre-decoder: the windows' cores with the network's reach around."""
    return [
        Window(
            max(w.core_start - reach, 0), min(w.core_end + reach, layers), w.core_start, w.core_end
        )
        for w, _ in _in_order(stages)
    ]


def _in_order(stages: list[list[Window]]) -> list[tuple[Window, int]]:
    """The windows in the order of time, each with the number of its stage."""
    entries = ((window, number) for number, stage in enumerate(stages) for window in stage)
    return sorted(entries, key=lambda entry: entry[0].core_start)


def cutters(
    reference: ExperimentTemplate,
    correlated: bool,
    predecoder: Predecoder | str | Path | None,
    device: str,
    *,
    cascade: bool | None = None,
    beliefs: bool = False,
    itself: bool = False,
) -> tuple[WindowCompiler, BlockCompiler | None]:
    """What makes windows, and the blocks of a pre-decoder; arguments as in ``WindowDecoder``.

    Raises:
        QecError: as ``load_predecoder``; correlated together with a cascade, beliefs or a
            pre-decoder; a pre-decoder and beliefs without a cascade.
    """
    if correlated and (cascade or beliefs or predecoder is not None):
        raise QecError(
            "correlated goes with neither a cascade nor beliefs nor a pre-decoder: leave it out."
        )
    cascade = predecoder is not None if cascade is None else cascade
    if predecoder is not None and beliefs and not cascade:
        raise QecError("beliefs go with a pre-decoder in a cascade only: leave cascade=False out.")
    make = functools.partial(
        WindowCompiler, reference, correlated, cascade=cascade, beliefs=beliefs, itself=itself
    )
    if predecoder is None:
        return make(), None
    from qec.predecoder.checkpoint import as_predecoder
    from qec.predecoder.model_fit import bind_where_it_fits
    from qec.windows.predecode_blocks import BlockCompiler  # torch only where needed

    predecoder = as_predecoder(predecoder)
    if bind_where_it_fits(predecoder, reference.lattice, device, needed=not cascade) is None:
        return make(), None
    return make(nats=RESIDUAL_NATS), BlockCompiler(predecoder, reference, device, itself=itself)


class WindowDecoder:
    """Decodes whole shots window by window, with the arguments of ``qec.Decoder``.

    Args:
        dem: detector error model of a rotated surface-code memory experiment.
        commit, buffer: layers, see ``sliding_windows`` and ``parallel_windows``.
        parallel: which of the two.
        correlated, predecoder, cascade, beliefs, device: as in ``qec.Decoder.from_dem``.  A window
            goes to the cascade's second stage by itself; see ``ConfidenceTest``.

    Raises:
        QecError: as ``SpaceTimeLattice.from_dem`` or ``load_predecoder``, windows that make no
            sense, or correlated together with a cascade or a pre-decoder.

    Examples:
        >>> import stim, qec
        >>> circuit = stim.Circuit.generated("surface_code:rotated_memory_x", distance=3, rounds=30,
        ...                                  after_clifford_depolarization=0.003)
        >>> dem = circuit.detector_error_model(decompose_errors=True)
        >>> decoder = qec.WindowDecoder(dem, commit=3, buffer=3)
        >>> decoder.decode_batch(circuit.compile_detector_sampler(seed=1).sample(5)).shape
        (5, 1)
    """

    def __init__(
        self,
        dem: stim.DetectorErrorModel,
        commit: int,
        buffer: int,
        *,
        parallel: bool = False,
        correlated: bool = False,
        predecoder: Predecoder | str | Path | None = None,
        cascade: bool | None = None,
        beliefs: bool = False,
        device: str = "cpu",
    ) -> None:
        self._reference = reference = ExperimentTemplate(dem)
        layers = reference.layers
        self.stages = (parallel_windows if parallel else sliding_windows)(layers, commit, buffer)
        self._cutter, blocks = cutters(
            reference,
            correlated,
            predecoder,
            device,
            cascade=cascade,
            beliefs=beliefs,
            itself=True,
        )
        self._windows = scheduled_windows(self.stages, layers, self._cutter)
        self._blocks = []
        if blocks is not None:
            windows = block_windows(self.stages, layers, blocks.reach)
            self._blocks = [(window, blocks.block(window, layers)) for window in windows]

    @functools.cached_property
    def _gaps(self) -> list[WindowGap]:
        return [
            self._cutter.gap(w.window, self._reference.layers, w.before, w.after)
            for w in self._windows
        ]

    def decode_batch(
        self, shots: np.ndarray, *, bit_packed_shots: bool = False, return_confidence: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Predicts flips, window by window.

        Args:
            shots: bool or uint8 (B, num_detectors), or bit-packed.
            bit_packed_shots: which of the two.
            return_confidence: also tell how sure each window is.  Predictions stay the same.  It
                takes three matchings of the memory checks, and longer than correlated matching.

        Returns:
            uint8 (B, 1), predicted flips.  With ``return_confidence`` also float64 (B, windows),
            nats, for the committed cores in the order of time: the logical gap of the closed window
            (``ConfidenceTest``) as uncorrelated matching sees it.  That holds where
            correlated matching or a network decided, too: it does not say how sure these are.

        Raises:
            QecError: ``shots`` has the wrong shape or dtype; the logical gap is not defined.
        """
        detectors = self._reference.lattice.num_detectors
        events = unpacked(np.asarray(shots), detectors, bit_packed_shots)
        passes = range(0, max(len(events), 1), _SHOTS_PER_PASS)
        found = [
            self._decode(events[start : start + _SHOTS_PER_PASS], return_confidence)
            for start in passes
        ]
        predictions, confidence = (np.concatenate(parts) for parts in zip(*found, strict=True))
        predictions = predictions[:, None]
        return (predictions, confidence) if return_confidence else predictions

    def _decode(self, events: np.ndarray, judged: bool) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (B, num_detectors) -> uint8 (B,), float64 (B, windows), the latter where asked."""
        batch, n, layers = len(events), len(self._windows), self._reference.layers
        state = WindowState.of(
            self._reference.split(events, layers - 1), n, predecoder=bool(self._blocks)
        )
        first = n * np.arange(batch)[:, None]  # the numbers of the shots' first windows
        if self._blocks:
            windows, kinds = zip(*((w, id(block)) for w, block in self._blocks), strict=True)
            alike = SimilarWindows(windows, kinds, layers, batch)
            for k, *places in alike.groups(np.arange(batch * n)):
                state.predecode(*self._blocks[k], *places)
        alike = SimilarWindows.of(self._windows, layers, batch)
        index = {scheduled.window: k for k, scheduled in enumerate(self._windows)}
        confidence = np.empty(batch * n)
        for stage in self.stages:
            of_stage = (first + [index[window] for window in stage]).ravel()
            for k, *places in alike.groups(of_stage):
                if judged:
                    gap = self._gaps[k]
                    events = state.syndrome(self._windows[k], gap.columns, *places)
                    confidence[places[0]] = gap.of(events)
                state.decide(self._windows[k], *places)
        flips = np.bitwise_xor.reduce(state.flip.reshape(batch, n), axis=1)
        return flips, confidence.reshape(batch, n)
