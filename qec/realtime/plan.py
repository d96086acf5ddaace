"""How an experiment is decoded: its windows, its blocks, and what decodes them."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np
import stim

from qec.decoding.cascade import NATS, RESIDUAL_NATS
from qec.windows.template import ExperimentTemplate, Window, rounds_needed
from qec.windows.window_decoder import block_windows, parallel_windows, scheduled_windows
from qec.windows.window_matcher import WindowCompiler
from qec.windows.window_state import Block, BlockCorrection, ScheduledWindow

if TYPE_CHECKING:
    from qec.predecoder.predecoder import Predecoder

NOTHING = "nothing"
"""The name of the pre-decoder that explains nothing and costs nothing."""


class NullBlock:
    """Explains nothing."""

    def apply(self, layers: np.ndarray) -> BlockCorrection:
        """uint8 (B, layers, width) -> no correction and no flip."""
        nothing = np.zeros(len(layers), dtype=np.uint8)
        return BlockCorrection(np.zeros_like(layers), nothing)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Goes to the processes, which build what they need of it.

    Attributes:
        model: the text of the detector error model of a reference.
        rounds: check rounds R of the experiment.
        commit, buffer: as in ``qec.windows.window_decoder.parallel_windows``.
        correlated: as in ``qec.Decoder.from_dem``; None is the matcher that does nothing.
        predecoder: name or path of a checkpoint, ``NOTHING``, or None for no pre-decoding.
        cascade, beliefs: as in ``qec.windows.window_decoder.WindowDecoder``.
        device, backend: as in ``qec.Decoder.from_dem``.
        qubits: experiments that run side by side.
        deadline: nanoseconds from the last event of a window or block, after which the network or
            a better matching is left out; None: never.
    """

    model: str
    rounds: int
    commit: int
    buffer: int
    correlated: bool | None = False
    predecoder: str | None = None
    device: str = "cpu"
    backend: str = "eager"
    cascade: bool = False
    beliefs: bool = False
    qubits: int = 1
    deadline: int | None = None

    def __reduce__(self) -> tuple:
        """Without what was built: matchings cannot be passed on, a process makes its own."""
        return Plan, dataclasses.astuple(self)

    @property
    def layers(self) -> int:
        """Layers of detectors: one more than rounds."""
        return self.rounds + 1

    def within(self, deadline_us: float | None) -> Plan:
        """The same with a deadline."""
        deadline = None if deadline_us is None else round(1000 * deadline_us)
        return self if deadline == self.deadline else dataclasses.replace(self, deadline=deadline)

    @functools.cached_property
    def reference(self) -> ExperimentTemplate:
        """Raises QecError: as ``ExperimentTemplate``."""
        return ExperimentTemplate(stim.DetectorErrorModel(self.model))

    @functools.cached_property
    def windows(self) -> list[ScheduledWindow]:
        """Parallel windows: layer A at even places, the gaps of layer B between them.

        Raises:
            QecError: as ``parallel_windows``, a model that is too short, or as ``load_predecoder``.
        """
        nats = RESIDUAL_NATS if self._has_network else NATS
        cutter = WindowCompiler(
            self.reference,
            self.correlated,
            cascade=self.cascade,
            nats=nats,
            beliefs=self.beliefs,
        )
        return scheduled_windows(self._stages, self.layers, cutter)

    def last_steps(self, experiments: int) -> np.ndarray:
        """int64 (windows of all experiments,), the step at which the last event of each arrives.

        A gap of layer B needs what its neighbours need.
        """
        ends = np.array([w.window.end for w in self.windows])
        gaps = np.flatnonzero([w.before for w in self.windows])
        ends[gaps] = ends[gaps + 1]
        return self._steps(ends, experiments)

    def last_block_steps(self, experiments: int) -> np.ndarray:
        """The same for the blocks of the pre-decoder.

        int64 (blocks of all experiments,).
        """
        return self._steps(np.array([w.end for w in self.block_windows], dtype=int), experiments)

    def _steps(self, ends: np.ndarray, experiments: int) -> np.ndarray:
        groups = np.arange(experiments) // self.qubits
        return (groups[:, None] * self.layers + ends - 1).reshape(-1)

    @functools.cached_property
    def block_windows(self) -> list[Window]:
        """The layers of the blocks; none without a pre-decoder.

        Raises:
            QecError: as ``load_predecoder``.
        """
        if self.predecoder is None:
            return []
        reach = self._predecoder.network.reach if self._has_network else 0
        return block_windows(self._stages, self.layers, reach)

    def check(self) -> None:
        """Makes windows and blocks once, so that no process dies of what does not go.

        Raises:
            QecError: as ``windows``, or the network does not fit the error model.
        """
        _ = self.windows
        if self._has_network:
            from qec.predecoder.model_fit import bind_where_it_fits  # torch only where needed

            bind_where_it_fits(self._predecoder, self.reference.lattice, needed=True)
        self._blocks("cpu", "eager")  # whatever runs the network later: the refusals are the same

    def blocks(self) -> list[Block]:
        """What pre-decodes each of ``block_windows``.

        Raises:
            QecError: as ``check``, or the device is not there.
        """
        return self._blocks(self.device, self.backend)

    def _blocks(self, device: str, backend: str) -> list[Block]:
        if not self._has_network:
            return [NullBlock() for _ in self.block_windows]
        from qec.windows.predecode_blocks import BlockCompiler

        cutter = BlockCompiler(self._predecoder, self.reference, device, backend)
        return [cutter.block(window, self.layers) for window in self.block_windows]

    @functools.cached_property
    def _stages(self) -> list[list[Window]]:
        return parallel_windows(self.layers, self.commit, self.buffer)

    @property
    def _has_network(self) -> bool:
        return self.predecoder not in (None, NOTHING)

    @functools.cached_property
    def _predecoder(self) -> Predecoder:
        from qec.predecoder.checkpoint import load_predecoder  # torch only where needed

        assert self.predecoder is not None
        return load_predecoder(self.predecoder)


def model_rounds(commit: int, buffer: int, reach: int) -> int:
    """Rounds of a reference from which windows and blocks of any longer experiment can be cut."""
    last = commit + buffer + 1  # layers of the last core, at most
    longest = (commit + 2 * buffer, last + buffer, max(commit, buffer) + 2 * reach, last + reach)
    return rounds_needed(max(longest))
