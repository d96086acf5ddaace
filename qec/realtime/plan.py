"""Parallel windows over an experiment of any length, cut from the model of a short one."""

from __future__ import annotations

import dataclasses

import numpy as np
import stim

from qec.errors import QecError
from qec.lattice import SpaceTimeLattice
from qec.matching import Matcher
from qec.streaming import detectors_by_layer
from qec.windows import Pieces, Window, parallel_windows


@dataclasses.dataclass(frozen=True)
class Slot:
    """One window of the experiment.

    Attributes:
        window: its layers.
        kind: which template decodes it.
        gap: whether it fills the gap between two cores (layer B), after windows index - 1 and
            index + 1; those of layer A depend on no other.
    """

    window: Window
    kind: str
    gap: bool


class Plan:
    """The windows of an experiment in the order of time, and what decodes them.

    Args:
        dem: model of the same experiment with any number of rounds that leaves room for the
            templates, see ``rounds_needed``.
        rounds: check rounds R of the experiment.
        commit, buffer: as in ``qec.windows.parallel_windows``.
        correlated: use PyMatching's correlated matching.

    Attributes:
        slots: layer A at even places, the gaps of layer B between them.
        width: detectors of a layer of the bulk, the most that any layer has.

    Raises:
        QecError: as ``parallel_windows``, or a model that is too short or no surface code.
    """

    def __init__(
        self, dem: stim.DetectorErrorModel, rounds: int, commit: int, buffer: int, correlated: bool
    ) -> None:
        self._lattice = SpaceTimeLattice.from_dem(dem)
        self.rounds = rounds
        ahead, *gaps = parallel_windows(rounds + 1, commit, buffer)
        if self._lattice.rounds < (need := rounds_needed(commit, buffer)) and len(ahead) > 1:
            raise QecError(
                f"the model has {self._lattice.rounds} rounds: {need} are needed to cut windows of "
                f"{commit} + 2 * {buffer} layers from it."
            )
        self._by_layer = detectors_by_layer(self._lattice)
        self.width = max(len(d) for d in self._by_layer)
        self._pieces = Pieces.of(self._lattice)
        self._correlated = correlated
        self._templates: dict[str, _Template] = {}
        self.slots: list[Slot] = []
        for k, window in enumerate(ahead):
            self.slots.append(Slot(window, self._template(window, rounds + 1, commit), False))
            if k + 1 < len(ahead):
                self.slots.append(Slot(gaps[0][k], self._gap_template(commit, buffer), True))

    def _template(self, window: Window, layers: int, commit: int) -> str:
        """Makes the template of a window of layer A unless it is there; returns its name."""
        own = self._lattice.rounds + 1
        if window.core_start == 0 and window.core_end == layers:
            kind, place = "whole", window
            if own != layers:
                raise QecError(
                    f"{layers - 1} rounds are one window: give the model of that very experiment."
                )
        elif window.core_start == 0:
            kind, place = "first", window
        elif window.core_end == layers:
            shift = own - layers
            kind = f"last {window.core_end - window.core_start}"
            place = Window(*(end + shift for end in dataclasses.astuple(window)))
        else:
            before = window.core_start - window.start
            start = commit + before
            kind = "bulk"
            place = Window(
                start - before, start + window.end - window.core_start, start, start + commit
            )
        self._compile(kind, place, np.zeros(own, dtype=bool))
        return kind

    def _gap_template(self, commit: int, buffer: int) -> str:
        done = np.ones(self._lattice.rounds + 1, dtype=bool)
        done[commit : commit + buffer] = False
        self._compile("gap", Window(commit, commit + buffer, commit, commit + buffer), done)
        return "gap"

    def _compile(self, kind: str, place: Window, done: np.ndarray) -> None:
        if kind in self._templates:
            return
        window = self._pieces.window(place, done).build(self._correlated)
        layer = self._lattice.layer
        column = np.concatenate([np.arange(len(d)) for d in self._by_layer])
        column = column[np.argsort(np.concatenate(self._by_layer))]
        gather = (layer[window.detectors] - place.start) * self.width + column[window.detectors]
        after = layer[window.seam] >= place.core_end  # else just before the core
        scatter = after * self.width + column[window.seam]
        self._templates[kind] = _Template(window.matcher, gather, scatter)

    def split(self, events: np.ndarray) -> np.ndarray:
        """One shot as layers: uint8 (num_detectors,) -> (rounds + 1, width), padded with zeros.

        Raises:
            QecError: another number of detectors than the experiment has.
        """
        layers = np.zeros((self.rounds + 1, self.width), dtype=np.uint8)
        sizes = [len(self._by_layer[0])] + [self.width] * (self.rounds - 1)
        sizes.append(len(self._by_layer[-1]))
        if len(events) != sum(sizes):
            raise QecError(
                f"a shot has {len(events)} detectors, but {self.rounds} rounds {sum(sizes)}."
            )
        for layer, part in zip(layers, np.split(events, np.cumsum(sizes)[:-1]), strict=True):
            layer[: len(part)] = part
        return layers

    def decode(self, slot: Slot, layers: np.ndarray) -> tuple[int, np.ndarray]:
        """Matches one window.

        Args:
            slot: of ``slots``.
            layers: uint8 (end - start, width), its layers, artificial defects included.

        Returns:
            the logical flip that it commits, and the artificial defects, uint8 (2, width): in the
            layer before its core and in the layer after.
        """
        template = self._templates[slot.kind]
        found = template.matcher.decode_all(layers.reshape(1, -1)[:, template.gather])[0]
        defects = np.zeros((2, self.width), dtype=np.uint8)
        defects.reshape(-1)[template.scatter] = found[1:]
        return int(found[0]), defects


@dataclasses.dataclass(frozen=True, eq=False)
class _Template:
    """A kind of window, ready for the hot path.

    Attributes:
        matcher: of its model.
        gather: int64, where its detectors stand in its layers, flattened.
        scatter: int64, where its artificial defects go in (2, width), flattened.
    """

    matcher: Matcher
    gather: np.ndarray
    scatter: np.ndarray


def rounds_needed(commit: int, buffer: int) -> int:
    """Rounds of a model from which the windows of any longer experiment can be cut."""
    return 4 * commit + 5 * buffer
