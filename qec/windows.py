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

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import stim

from qec.config import positive_integer
from qec.decoder import unpacked
from qec.dem import Mechanisms
from qec.errors import QecError
from qec.lattice import MEMORY, SpaceTimeLattice
from qec.matching import Matcher, basis_split
from qec.reference import Reference, Window

if TYPE_CHECKING:
    from qec.predecoder.correction import Predecoder


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
    ahead, gaps, start = [], [], 0
    while True:
        end = start + commit
        if end + buffer >= layers:  # too little is left for a gap and another core
            end = layers
        ahead.append(Window(max(start - buffer, 0), min(end + buffer, layers), start, end))
        if end == layers:
            return [ahead, gaps] if gaps else [ahead]
        gaps.append(Window(end, end + buffer, end, end + buffer))
        start = end + buffer


class WindowDecoder:
    """Decodes whole shots window by window, with the arguments of ``qec.Decoder``.

    Args:
        dem: detector error model of a rotated surface-code memory experiment.
        commit, buffer: layers, see ``sliding_windows`` and ``parallel_windows``.
        parallel: which of the two.
        correlated: use PyMatching's correlated matching in the windows.
        predecoder: as in ``qec.Decoder.from_dem``.  Its rule for ``correlated`` says what it
            commits; in windows there is no fallback.
        tile: layers, rows and columns of cells that its network computes at a time; None: all.  The
            corrections are the same, tiles bound the memory for long experiments.
        device: where the network runs, "cpu" or "cuda".

    Raises:
        QecError: as ``SpaceTimeLattice.from_dem`` or ``load_predecoder``, or windows or tiles that
            make no sense.

    >>> import stim
    >>> circuit = stim.Circuit.generated("surface_code:rotated_memory_x", distance=3, rounds=30,
    ...                                  after_clifford_depolarization=0.003)
    >>> decoder = WindowDecoder(circuit.detector_error_model(decompose_errors=True), 3, 3)
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
        tile: tuple[int, int, int] | None = None,
        device: str = "cpu",
    ) -> None:
        lattice = SpaceTimeLattice.from_dem(dem)
        self.num_detectors = lattice.num_detectors
        self._predecoder = self._rule = None
        if predecoder is not None:
            from qec.predecoder.checkpoint import as_predecoder  # torch only where needed

            loaded = as_predecoder(predecoder)
            self._rule = loaded.rules.correlated if correlated else loaded.rules.uncorrelated
            self._predecoder = loaded.bind(lattice, device, tile=tile)
        schedule = parallel_windows if parallel else sliding_windows
        self.stages = schedule(lattice.rounds + 1, commit, buffer)
        pieces = Pieces.of(lattice)
        matchers: dict[str, Matcher] = {}
        done = np.zeros(lattice.rounds + 1, dtype=bool)
        self._compiled: list[list[CompiledWindow]] = []
        for stage in self.stages:
            compiled = [pieces.window(w, done) for w in stage]
            for window in compiled:  # windows of the bulk are all alike
                if window.text not in matchers:
                    matchers[window.text] = window.build(correlated).matcher
                window.matcher = matchers[window.text]
            self._compiled.append(compiled)
            for w in stage:
                done[w.core_start : w.core_end] = True

    def decode_batch(self, shots: np.ndarray, *, bit_packed_shots: bool = False) -> np.ndarray:
        """bool or uint8 (B, num_detectors), or bit-packed -> uint8 (B, 1), predicted flips.

        Raises:
            QecError: ``shots`` has the wrong shape or dtype.
        """
        events = unpacked(np.asarray(shots), self.num_detectors, bit_packed_shots)
        if self._predecoder is None:
            events, flips = events.copy(), np.zeros(len(events), dtype=np.uint8)
        else:
            ((events, flips),) = self._predecoder.apply(events, self._rule)
        for stage in self._compiled:
            committed = [w.matcher.decode_all(events[:, w.detectors]) for w in stage]
            for window, found in zip(stage, committed, strict=True):
                flips ^= found[:, 0]
                events[:, window.seam] ^= found[:, 1:]
        return flips[:, None]


class WindowCutter:
    """Windows for experiments of any length, cut from a reference; those that are alike once.

    Args:
        reference: an experiment that is long enough, see ``Reference.place``.
        correlated: use PyMatching's correlated matching; None: no matching at all, nothing is
            corrected (to measure what everything else costs).
    """

    def __init__(self, reference: Reference, correlated: bool | None) -> None:
        self.reference = reference
        self._correlated = correlated
        self._pieces = Pieces.of(reference.lattice)
        self._cut: dict[tuple[Window, bool, bool], LayerWindow] = {}

    def window(
        self, window: Window, layers: int | None, before: bool = False, after: bool = False
    ) -> LayerWindow:
        """What decodes ``window`` of an experiment of ``layers`` layers (None: far from its end).

        Args:
            before, after: whether the layers before, after it are committed already.

        Raises:
            QecError: as ``Reference.place``.
        """
        place = self.reference.place(window, layers)
        key = (place, before, after)
        if key not in self._cut:
            layer = np.arange(self.reference.layers)
            done = before & (layer < place.start) | after & (layer >= place.end)
            compiled = self._pieces.window(place, done)
            if self._correlated is not None:
                compiled.build(self._correlated)
            self._cut[key] = LayerWindow.of(compiled, place, self.reference)
        return self._cut[key]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerWindow:
    """A window that takes its events layer by layer.

    Attributes:
        matcher: of its model; None corrects nothing.
        gather: int64, where its detectors stand in its layers, flattened.
        scatter: int64, where its artificial defects go in (2, width), flattened.
        width: of a layer.
    """

    matcher: Matcher | None
    gather: np.ndarray
    scatter: np.ndarray
    width: int

    @classmethod
    def of(cls, compiled: CompiledWindow, place: Window, reference: Reference) -> LayerWindow:
        layer, column = reference.lattice.layer, reference.column
        gather = (layer[compiled.detectors] - place.start) * reference.width
        after = layer[compiled.seam] >= place.core_end
        edge = np.where(after, place.core_end, place.core_start - 1)
        if (layer[compiled.seam] != edge).any():
            raise QecError("an error flips detectors more than one round apart: no windows fit.")
        scatter = after * reference.width + column[compiled.seam]
        return cls(compiled.matcher, gather + column[compiled.detectors], scatter, reference.width)

    def decode(self, layers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Matches a batch.

        Args:
            layers: uint8 (B, end - start, width), its layers, artificial defects included.

        Returns:
            uint8 (B,), the logical flips that it commits, and uint8 (B, 2, width), the artificial
            defects in the layer before its core and in the layer after it.
        """
        flips = np.zeros(len(layers), dtype=np.uint8)
        defects = np.zeros((len(layers), 2, self.width), dtype=np.uint8)
        if self.matcher is not None:
            found = self.matcher.decode_all(layers.reshape(len(layers), -1)[:, self.gather])
            flips = found[:, 0]
            defects.reshape(len(layers), -1)[:, self.scatter] = found[:, 1:]
        return flips, defects


@dataclasses.dataclass
class CompiledWindow:
    """A window ready to be matched.

    Attributes:
        detectors: int64, those whose events it sees.
        seam: int64, those that its committed corrections may flip beyond its core.
        text: its detector error model; observable 0 is that of the experiment, as far as committed,
            observable 1 + k a flip of seam[k], so that one batch call returns both.
    """

    detectors: np.ndarray
    seam: np.ndarray
    text: str
    matcher: Matcher | None = None

    def build(self, correlated: bool) -> CompiledWindow:
        """Makes the matcher of the window's model."""
        self.matcher = Matcher(stim.DetectorErrorModel(self.text), correlated)
        return self


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
    """The edges that the mechanisms of a basis-split model consist of.

    Attributes:
        layer: int64 (num_detectors,).
        probability: float64 (mechanisms,).
        mechanism: int64 (pieces,), ascending.
        ends: int64 (pieces, 2), detectors; -1 where a piece ends on the boundary.
        flips: bool (pieces,), whether it flips the observable.
    """

    layer: np.ndarray
    probability: np.ndarray
    mechanism: np.ndarray
    ends: np.ndarray
    flips: np.ndarray

    @classmethod
    def of(cls, lattice: SpaceTimeLattice) -> Pieces:
        table = Mechanisms.from_dem(basis_split(lattice))
        mechanism = table.mechanism.astype(np.int64)
        key = mechanism * (int(table.component.max()) + 1) + table.component
        _, first, piece = np.unique(key, return_index=True, return_inverse=True)
        ends = np.full((len(first), 2), -1)
        order = np.argsort(piece, kind="stable")
        piece, detector = piece[order], table.detector[order]
        second = np.concatenate([[False], piece[1:] == piece[:-1]])
        ends[piece[~second], 0] = detector[~second]
        ends[piece[second], 1] = detector[second]
        owner = mechanism[first]
        # The observable goes with the first memory piece of its mechanism, as in basis_split.
        memory = lattice.sector[ends[:, 0]] == MEMORY
        flips = np.zeros(len(first), dtype=bool)
        lead = np.unique(owner[memory], return_index=True)[1]
        flips[np.flatnonzero(memory)[lead]] = table.flips_observable[owner[memory][lead]]
        return cls(lattice.layer, table.probability, owner, ends, flips)

    def window(self, window: Window, done: np.ndarray) -> CompiledWindow:
        """The model of a window; ``done`` bool (layers,), what earlier stages have committed."""
        exists = self.ends >= 0
        layer = np.where(exists, self.layer[self.ends], -1)
        inside = exists & (layer >= window.start) & (layer < window.end)
        core = exists & (layer >= window.core_start) & (layer < window.core_end)
        committed = core.any(axis=1)
        kept = np.flatnonzero(inside.any(axis=1) & ~(exists & done[layer]).any(axis=1))
        detectors = np.flatnonzero(
            (self.layer >= window.start) & (self.layer < window.end) & ~done[self.layer]
        )
        beyond = exists & ~core & committed[:, None]
        seam = np.unique(self.ends[kept][beyond[kept]])
        number = np.full(len(self.layer), -1)
        number[detectors] = np.arange(len(detectors))
        crossing = np.full(len(self.layer), -1)
        crossing[seam] = np.arange(1, len(seam) + 1)
        lines: list[str] = []
        last = -1
        for k, (a, b) in zip(kept.tolist(), self.ends[kept].tolist(), strict=True):
            words = [f"D{number[e]}" for e, i in zip((a, b), inside[k], strict=True) if i]
            if committed[k] and self.flips[k]:
                words.append("L0")
            words += [f"L{crossing[e]}" for e, far in zip((a, b), beyond[k], strict=True) if far]
            text = " ".join(words)
            if self.mechanism[k] == last:
                lines[-1] += f" ^ {text}"
            else:
                lines.append(f"error({float(self.probability[self.mechanism[k]])!r}) {text}")
            last = self.mechanism[k]
        lines += [f"detector D{len(detectors) - 1}", f"logical_observable L{len(seam)}"]
        return CompiledWindow(detectors, seam, "\n".join(lines))
