"""Matching of windows cut from a reference, with or without a fallback on the whole syndrome."""

from __future__ import annotations

import dataclasses
import re
from typing import NamedTuple

import numpy as np
import stim

from qec.errors import QecError
from qec.gap import GapMatcher
from qec.matching import Matcher
from qec.pieces import Pieces
from qec.reference import Reference, Window
from qec.window_model import WindowModel, window_model

_WARM_UP_SHOTS, _WARM_UP_RATE = 16, 0.005  # of every mechanism: enough for doubt to be looked at


class Decided(NamedTuple):
    """What a window commits.

    Attributes:
        flips: uint8 (B,), logical flips.
        defects: uint8 (B, 2, width), artificial defects in the layer before its core and in the
            layer after it.
        fell_back: bool (B,), whether the syndrome was matched in place of the residual, so that
            nothing that the pre-decoder committed in the core stands.
    """

    flips: np.ndarray
    defects: np.ndarray
    fell_back: np.ndarray


class WindowCutter:
    """Windows for experiments of any length, cut from a reference; those that are alike once.

    Args:
        reference: an experiment that is long enough, see ``Reference.place``.
        correlated: use PyMatching's correlated matching; None: no matching at all, nothing is
            corrected (to measure what everything else costs).
        gap: as in ``qec.predecoder.rule.CommitRule``.  Above 0 residuals are matched without
            correlations, and syndromes, with them, in the windows where that leaves doubt.
        itself: the windows are those of the reference itself; it may differ from round to round.
    """

    def __init__(
        self,
        reference: Reference,
        correlated: bool | None,
        gap: float = 0.0,
        *,
        itself: bool = False,
    ) -> None:
        self.reference = reference
        self._correlated, self._gap, self._itself = correlated, gap, itself
        self._pieces = Pieces.of(reference.lattice)
        self._cut: dict[tuple[Window, bool, bool], WindowMatcher] = {}
        self._matchers: dict[tuple[str, bool], Matcher] = {}

    def window(
        self, window: Window, layers: int | None, before: bool = False, after: bool = False
    ) -> WindowMatcher:
        """What decodes ``window`` of an experiment of ``layers`` layers (None: far from its end).

        Args:
            before, after: whether the layers before, after it are committed already.

        Raises:
            QecError: as ``Reference.place``, or matching refuses the model.
        """
        place = window if self._itself else self.reference.place(window, layers)
        key = (place, before, after)
        if key not in self._cut:
            self._cut[key] = self._make(place, before, after)
        return self._cut[key]

    def _make(self, place: Window, before: bool, after: bool) -> WindowMatcher:
        layer = np.arange(self.reference.layers)
        done = before & (layer < place.start) | after & (layer >= place.end)
        if not self._gap:
            model = window_model(self._pieces, place, done)
            matcher = None if self._correlated is None else self._matcher(model, self._correlated)
            return WindowMatcher(_Columns.of(model, place, self.reference), matcher, _shots(model))
        model = window_model(self._pieces, place, done, exits=True)
        columns = _Columns.of(model, place, self.reference)
        whole = self._matcher(window_model(self._pieces, place, done), correlated=True)
        inner = Window(place.start, place.end, place.start, place.end)
        closed = self._matcher(
            window_model(self._pieces, inner, done, closed=True), correlated=False
        )
        lattice = self.reference.lattice.cut(place.start, place.end)
        return WindowMatcher(
            columns,
            self._matcher(model, correlated=False),
            _shots(model),
            Doubt(GapMatcher(closed.graph, lattice, self._gap), columns.exits, whole),
        )

    def _matcher(self, model: WindowModel, correlated: bool) -> Matcher:
        key = (model.text, correlated)
        if key not in self._matchers:
            self._matchers[key] = Matcher(stim.DetectorErrorModel(model.text), correlated)
        return self._matchers[key]


def _shots(model: WindowModel) -> np.ndarray:
    """uint8 (B, detectors), events of its own mechanisms: any others need not have a matching."""
    frequent = re.sub(r"error\([^)]*\)", f"error({_WARM_UP_RATE})", model.text)
    sampler = stim.DetectorErrorModel(frequent).compile_sampler(seed=0)
    return sampler.sample(_WARM_UP_SHOTS)[0].view(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class _Columns:
    """Where the parts of a window's model stand in its layers.

    Attributes:
        gather: int64, its detectors, in the flattened layers.
        scatter: int64, its seam, in the flattened defects (2, width).
        exits: int64, among its detectors.
        width: of a layer.
    """

    gather: np.ndarray
    scatter: np.ndarray
    exits: np.ndarray
    width: int

    @classmethod
    def of(cls, model: WindowModel, place: Window, reference: Reference) -> _Columns:
        layer, column = reference.lattice.layer, reference.column
        gather = (layer[model.detectors] - place.start) * reference.width
        after = layer[model.seam] >= place.core_end
        edge = np.where(after, place.core_end, place.core_start - 1)
        if (layer[model.seam] != edge).any():
            raise QecError("an error flips detectors more than one round apart: no windows fit.")
        return cls(
            gather=gather + column[model.detectors],
            scatter=after * reference.width + column[model.seam],
            exits=np.searchsorted(model.detectors, model.exits),
            width=reference.width,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Doubt:
    """When a window had better be matched as a whole.

    The logical gap (``qec.gap``) is that of the window with the ends in time that matching chose:
    what it matched to edges out of the window counts as explained, and there are no other such
    edges.  So an event near the end of a window, whose partner is still to come, casts no doubt.
    The network's gap is that of the block in its core.

    Attributes:
        gap: on the closed window.
        exits: int64, detectors of the window that edges out of it end on.
        whole: correlated matching of the syndrome.
    """

    gap: GapMatcher
    exits: np.ndarray
    whole: Matcher

    def about(
        self, events: np.ndarray, explained: np.ndarray, network: np.ndarray | float
    ) -> np.ndarray:
        """bool (B,).

        Args:
            events: uint8 (B, detectors).
            explained: uint8 (B, exits), for the exits.
            network: (B,), the network's gaps in nats.
        """
        closed = events.copy()
        closed[:, self.exits] ^= explained
        return np.minimum(self.gap.decode_batch(closed)[1], network) < self.gap.cap


@dataclasses.dataclass(frozen=True, eq=False)
class WindowMatcher:
    """Decodes a window from its layers.

    Attributes:
        columns: where its detectors stand.
        matcher: of its model; None corrects nothing.
        typical: uint8 (B, detectors), events to warm up with.
        doubt: None never falls back.
    """

    columns: _Columns
    matcher: Matcher | None
    typical: np.ndarray
    doubt: Doubt | None = None

    def warm_up(self) -> None:
        """Matches something by every part: PyMatching builds its graphs at the first call."""
        if self.matcher is None:
            return
        found = self.matcher.decode_all(self.typical)
        if self.doubt is not None:
            self.doubt.about(self.typical, found[:, 1 + len(self.columns.scatter) :], np.inf)
            self.doubt.whole.decode_all(self.typical)

    def decode(self, syndrome: np.ndarray, residual: np.ndarray, gap: np.ndarray) -> Decided:
        """Matches a batch.

        Args:
            syndrome: uint8 (B, end - start, width), its layers, artificial defects included.
            residual: the same after the pre-decoder; what is matched at first.
            gap: float32 (B,), the network's logical gaps in its core, in nats.
        """
        batch, seam = len(residual), len(self.columns.scatter)
        defects = np.zeros((batch, 2, self.columns.width), dtype=np.uint8)
        fell_back = np.zeros(batch, dtype=np.bool_)
        if self.matcher is None:
            return Decided(np.zeros(batch, dtype=np.uint8), defects, fell_back)
        events = residual.reshape(batch, -1).take(self.columns.gather, axis=1)
        found = self.matcher.decode_all(events)
        if self.doubt is not None:
            fell_back = self.doubt.about(events, found[:, 1 + seam :], gap)
            if fell_back.any():
                whole = syndrome[fell_back].reshape(np.count_nonzero(fell_back), -1)
                whole = self.doubt.whole.decode_all(whole.take(self.columns.gather, axis=1))
                found[fell_back, : 1 + seam] = whole
        defects.reshape(batch, -1)[:, self.columns.scatter] = found[:, 1 : 1 + seam]
        return Decided(found[:, 0], defects, fell_back)
