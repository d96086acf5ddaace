"""Matching of windows cut from a reference: in doubt of the whole syndrome, and how sure it is."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import stim

from qec.decoding.cascade import NATS
from qec.matching.belief_matching import BeliefMatcher
from qec.matching.complementary_gap import GapMatcher
from qec.matching.matcher import Matcher, matching_graph
from qec.matching.matching_edges import MatchingEdges
from qec.support.errors import QecError
from qec.windows.template import ExperimentTemplate, Window
from qec.windows.window_beliefs import WindowBeliefs
from qec.windows.window_error_model import WindowModel, window_model

_WARM_UP_SHOTS, _WARM_UP_RATE = 16, 0.005  # of every mechanism: enough for doubt to be looked at


class WindowResult(NamedTuple):
    """What matching makes of a batch of windows.

    Attributes:
        observables: uint8 (B, 1 + seam or more): the logical flip that a window commits, and which
            detectors beyond its core its corrections flip (``Columns.scatter``).
        fell_back: bool (B,), whether the syndrome was matched in place of the residual, so that
            nothing that the pre-decoder committed in the core stands.
        late: bool (B,), whether there was no time left for that.
    """

    observables: np.ndarray
    fell_back: np.ndarray
    late: np.ndarray


class WindowCompiler:
    """Windows for experiments of any length, cut from a reference; those that are alike once.

    Args:
        reference: an experiment that is long enough, see ``ExperimentTemplate.place``.
        correlated: use PyMatching's correlated matching; None: no matching at all, nothing is
            corrected (to measure what everything else costs).
        cascade: match the memory checks, or what a pre-decoder leaves of them, and the whole
            syndrome, with correlations, in the windows where that leaves a gap below ``nats``.
        nats: as of ``qec.decoding.cascade.Cascade``.
        beliefs: belief matching in place of correlated matching, of the windows in doubt or, where
            there is no cascade, of all.
        itself: the windows are those of the reference itself; it may differ from round to round.
    """

    def __init__(
        self,
        reference: ExperimentTemplate,
        correlated: bool | None,
        *,
        cascade: bool = False,
        nats: float = NATS,
        beliefs: bool = False,
        itself: bool = False,
    ) -> None:
        self.reference = reference
        self._correlated, self._cascade, self._nats = correlated, cascade, nats
        self._itself = itself
        self._pieces = MatchingEdges.of(reference.lattice)
        self._memory = self._pieces.memory_only()
        self._beliefs = WindowBeliefs(reference.lattice, self._pieces) if beliefs else None
        self._cut: dict[tuple[Window, bool, bool], WindowMatcher] = {}
        self._gaps: dict[tuple[Window, bool, bool], WindowGap] = {}
        self._made: dict[tuple[str | bytes, ...], WindowMatcher] = {}  # those that are alike once
        self._matchers: dict[tuple[str, bool], Matcher] = {}

    def window(
        self, window: Window, layers: int | None, before: bool = False, after: bool = False
    ) -> WindowMatcher:
        """What decodes ``window`` of an experiment of ``layers`` layers (None: far from its end).

        Args:
            before, after: whether the layers before, after it are committed already.

        Raises:
            QecError: as ``ExperimentTemplate.place``, or matching refuses the model.
        """
        key = (self._place(window, layers), before, after)
        if key not in self._cut:
            self._cut[key] = self._make(*key)
        return self._cut[key]

    def gap(
        self, window: Window, layers: int | None, before: bool = False, after: bool = False
    ) -> WindowGap:
        """What tells the confidence of a window; arguments and errors as of ``window``.

        Raises:
            QecError: as ``qec.matching.complementary_gap.GapMatcher``, too.
        """
        place, *_ = key = (self._place(window, layers), before, after)
        if key not in self._gaps:
            done = self._done(*key)
            model = window_model(self._memory, place, done, exits=True)
            self._gaps[key] = WindowGap(
                Columns.of(model, place, self.reference),
                self._matcher(model),
                self._closed(self._closed_model(place, done), place, searched=False),
            )
        return self._gaps[key]

    def _place(self, window: Window, layers: int | None) -> Window:
        return window if self._itself else self.reference.place(window, layers)

    def _done(self, place: Window, before: bool, after: bool) -> np.ndarray:
        """bool (layers,), those that are committed."""
        layer = np.arange(self.reference.layers)
        return before & (layer < place.start) | after & (layer >= place.end)

    def _make(self, place: Window, before: bool, after: bool) -> WindowMatcher:
        done = self._done(place, before, after)
        if self._cascade:
            return self._make_cascade(place, done)
        # The other checks never flip the observable: only correlations make use of them.
        alone = not (self._correlated or self._beliefs)
        pieces, seam = self._memory if alone else self._pieces, self._beliefs is not None
        model = window_model(pieces, place, done, memory_seam=seam)
        columns = Columns.of(model, place, self.reference)
        key = model.text, columns.key
        if key not in self._made:
            matcher = None
            if self._correlated is not None:
                matcher = self._matcher(model) if alone else self._better(model, place, done)
            self._made[key] = WindowMatcher(columns, matcher, _typical(model))
        return self._made[key]

    def _make_cascade(self, place: Window, done: np.ndarray) -> WindowMatcher:
        model = window_model(self._memory, place, done, exits=True)
        whole = window_model(self._pieces, place, done, memory_seam=True)
        closed = self._closed_model(place, done)
        columns, of_whole = (Columns.of(m, place, self.reference) for m in (model, whole))
        key = model.text, columns.key, whole.text, of_whole.key, closed.text
        if key not in self._made:
            gap = self._closed(closed, place, nats=self._nats)
            better = self._better(whole, place, done)
            doubt = ConfidenceTest(gap, self._nats, better, of_whole, _typical(whole))
            matcher = self._matcher(model)
            self._made[key] = WindowMatcher(columns, matcher, _typical(model), doubt)
        return self._made[key]

    def _better(
        self, model: WindowModel, place: Window, done: np.ndarray
    ) -> Matcher | BeliefMatcher:
        """What decides by the events of both bases."""
        if self._beliefs is not None:
            return self._beliefs.matcher(place, done, model)
        return self._matcher(model, correlated=True)

    def _closed_model(self, place: Window, done: np.ndarray) -> WindowModel:
        """Of the memory checks, without the edges out of the window."""
        inner = Window(place.start, place.end, place.start, place.end)
        return window_model(self._memory, inner, done, closed=True)

    def _closed(self, model: WindowModel, place: Window, **options: Any) -> GapMatcher:
        """Of what ``_closed_model`` returns; options as ``GapMatcher``."""
        lattice = self.reference.lattice.cut(place.start, place.end, memory_only=True)
        return GapMatcher(matching_graph(stim.DetectorErrorModel(model.text)), lattice, **options)

    def _matcher(self, model: WindowModel, correlated: bool = False) -> Matcher:
        key = (model.text, correlated)
        if key not in self._matchers:
            self._matchers[key] = Matcher(stim.DetectorErrorModel(model.text), correlated)
        return self._matchers[key]


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """Where the parts of a window's model stand in its layers.

    Attributes:
        layer_start: int64 (layers + 1,), which of its detectors is the first of each layer.
        column: int64 (detectors,), where each stands in its layer.
        scatter: int64, its seam, in flattened defects (2, width).
        exits: int64, among its detectors.
    """

    layer_start: np.ndarray
    column: np.ndarray
    scatter: np.ndarray
    exits: np.ndarray

    @classmethod
    def of(cls, model: WindowModel, place: Window, reference: ExperimentTemplate) -> Columns:
        """The columns of a window's model, for a place in the reference.

        Raises:
            QecError: an error flips detectors more than one round apart.
        """
        layer, column = reference.lattice.layer, reference.column
        after = layer[model.seam] >= place.core_end
        edge = np.where(after, place.core_end, place.core_start - 1)
        if (layer[model.seam] != edge).any():
            raise QecError("an error flips detectors more than one round apart: no windows fit.")
        return cls(
            layer_start=np.searchsorted(
                layer[model.detectors], np.arange(place.start, place.end + 1)
            ),
            column=column[model.detectors],
            scatter=after * reference.width + column[model.seam],
            exits=np.searchsorted(model.detectors, model.exits),
        )

    @property
    def key(self) -> bytes:
        """The same for those that are the same."""
        arrays = self.layer_start, self.column, self.scatter, self.exits
        return b"|".join(array.tobytes() for array in arrays)

    def closed(self, events: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Events without those that matching explains by edges out of the window.

        Args:
            events: uint8 (B, detectors).
            found: uint8 (B, observables), what matching of the model with exits returns.

        Returns:
            uint8 (B, detectors).
        """
        closed = events.copy()
        closed[:, self.exits] ^= found[:, 1 + len(self.scatter) :]
        return closed


def _typical(model: WindowModel) -> np.ndarray:
    """uint8 (B, detectors), events of its mechanisms: others need not have a matching."""
    frequent = re.sub(r"error\([^)]*\)", f"error({_WARM_UP_RATE})", model.text)
    sampler = stim.DetectorErrorModel(frequent).compile_sampler(seed=0)
    return sampler.sample(_WARM_UP_SHOTS)[0].view(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class ConfidenceTest:
    """When a window had better be matched as a whole.

    The logical gap (``qec.matching.complementary_gap``) is that of the window with the ends in time
    that matching chose: what it matched to edges out of the window counts as explained, and there
    are no other such edges.  So an event near the end of a window, whose partner is still to come,
    casts no doubt.

    Attributes:
        gap: on the closed window.
        nats: below which a gap is doubt.
        whole: correlated or belief matching of the syndrome.
        columns: where its detectors stand.
        typical: uint8 (B, detectors), events to warm up with.
    """

    gap: GapMatcher
    nats: float
    whole: Matcher | BeliefMatcher
    columns: Columns
    typical: np.ndarray

    def about(self, closed: np.ndarray) -> np.ndarray:
        """uint8 (B, detectors), as ``Columns.closed`` returns -> bool (B,)."""
        return ~self.gap.decide(closed, self.nats)[1]


@dataclasses.dataclass(frozen=True, eq=False)
class WindowGap:
    """How sure uncorrelated matching is of its correction of a window: the closed window's gap.

    It is about the whole syndrome of the window with the ends in time that uncorrelated matching of
    the memory checks chooses (see ``ConfidenceTest``), whatever decides the window in the end.

    Attributes:
        columns: where the memory checks of the window stand.
        matcher: of its model with exits.
        closed: of the window without the edges out of it.
    """

    columns: Columns
    matcher: Matcher
    closed: GapMatcher

    def of(self, events: np.ndarray) -> np.ndarray:
        """uint8 (B, detectors) of ``columns``, the syndrome -> float64 (B,), nats."""
        closed = self.columns.closed(events, self.matcher.decode_all(events))
        return self.closed.decode_batch(closed)[1]


@dataclasses.dataclass(frozen=True, eq=False)
class WindowMatcher:
    """Decodes windows.

    Attributes:
        columns: where the detectors that are matched at first stand.
        matcher: of their model; None corrects nothing.
        typical: uint8 (B, detectors), events to warm up with.
        doubt: None never falls back.
    """

    columns: Columns
    matcher: Matcher | BeliefMatcher | None
    typical: np.ndarray
    doubt: ConfidenceTest | None = None

    def warm_up(self) -> None:
        """Matches something by every part: PyMatching builds its graphs at the first call."""
        typical = self.typical if self.doubt is None else self.doubt.typical
        self.decode(self.typical, lambda which: typical[which])
        if self.doubt is not None:  # there may be none about these
            self.doubt.whole.decode_all(typical)

    def decode(
        self,
        residual: np.ndarray,
        syndrome: Callable[[np.ndarray], np.ndarray],
        due: np.ndarray | None = None,
    ) -> WindowResult:
        """Matches a batch.

        Args:
            residual: uint8 (B, detectors) of ``columns``; what is matched at first.
            syndrome: which ones, bool (B,) -> their events as of ``doubt.columns``.
            due: int64 (B,), by ``time.monotonic_ns()``: from when on a window is late, so that what
                was matched at first stands; None: never.
        """
        fell_back = late = np.zeros(len(residual), dtype=np.bool_)
        if self.matcher is None:
            nothing = np.zeros((len(residual), 1 + len(self.columns.scatter)), dtype=np.uint8)
            return WindowResult(nothing, fell_back, late)
        found = self.matcher.decode_all(residual)
        if self.doubt is not None:
            fell_back = self.doubt.about(self.columns.closed(residual, found))
            if due is not None:
                late = fell_back & (due < time.monotonic_ns())
                fell_back &= ~late
            if fell_back.any():
                better = self.doubt.whole.decode_all(syndrome(fell_back))
                found[fell_back, : better.shape[1]] = better
        return WindowResult(found, fell_back, late)
