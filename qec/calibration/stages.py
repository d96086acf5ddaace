"""What the stages of a cascade do to the shots of an error model, and what they cost.

No true flips are needed: what counts is which predictions a better decoder changes, and its time.
So recorded events serve as well as sampled ones.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import stim

from qec.circuits.error_model import AtMostHalf, at_most_half
from qec.circuits.lattice import SpaceTimeLattice
from qec.decoding.cascade import NATS, Cascade
from qec.decoding.decoder_names import DECODERS
from qec.matching.matcher import Unexplained, basis_split, matching_graph, unexplained
from qec.support.errors import QecError
from qec.support.statistics import Estimate, error_rate

SHOTS = 4096
"""Sampled shots, where no events are given."""
CHECKED = 500
"""Shots that a better decoder decodes, of those handed on and of those kept."""

CASCADES = {
    "correlated matching": "matching-cascade",
    "belief matching": "matching-cascade-beliefs",
    "ensemble": "matching-cascade-ensemble",
}
"""What decodes the shots in doubt, and the decoder that has it as its last stage."""

_CHUNK = 4096  # shots that memory-check matching gets at a time
_PART = 128  # and a better decoder

Over = Callable[[Sequence[int]], Iterable[int]]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A better decoder behind memory-check matching, on the shots of one error model.

    Attributes:
        name: of the better decoder.
        nats: the logical gap below which memory-check matching hands a shot on.
        shots: that memory-check matching decoded.
        handed_on: those of them that it hands on.
        checked_handed_on: those of the latter that the better decoder decoded here.
        changed_handed_on: those of the latter that it predicts otherwise.
        checked_kept, changed_kept: the same of shots that are kept, which a cascade never hands on.
        memory_us: CPU time of memory-check matching and its decision, microseconds per shot.
        handed_on_us, kept_us: of the better decoder on shots of either kind; 0 where none is there.
    """

    name: str
    nats: float
    shots: int
    handed_on: int
    checked_handed_on: int
    changed_handed_on: int
    checked_kept: int
    changed_kept: int
    memory_us: float
    handed_on_us: float
    kept_us: float

    @property
    def share(self) -> Estimate:
        """Share of the shots that is handed on."""
        return error_rate(self.handed_on, self.shots)

    @property
    def cascade_us(self) -> float:
        """CPU time of the cascade, microseconds per shot."""
        return self.memory_us + self.handed_on / self.shots * self.handed_on_us

    @property
    def alone_us(self) -> float:
        """CPU time of the better decoder on all shots, microseconds per shot."""
        part = self.handed_on / self.shots
        return part * self.handed_on_us + (1 - part) * self.kept_us

    @property
    def time_share(self) -> float:
        """CPU time of the cascade over that of the better decoder alone."""
        return self.cascade_us / self.alone_us

    @property
    def most_changed(self) -> float:
        """Upper limit of the share of all shots whose prediction the better decoder changes.

        It adds the upper ends of both kinds' 95 % intervals.
        """
        handed_on = error_rate(self.changed_handed_on, self.checked_handed_on).high
        kept = error_rate(self.changed_kept, self.checked_kept).high
        part = self.handed_on / self.shots
        return part * handed_on + (1 - part) * kept

    @property
    def asked(self) -> str:
        """For which shots asking the better decoder pays: "none", "doubtful" or "all"."""
        if not self.changed_handed_on and not self.changed_kept:
            return "none"
        return "doubtful" if self.time_share < 1 else "all"


@dataclasses.dataclass(frozen=True)
class Stages:
    """What ``measure_stages`` found, one for each of ``CASCADES``."""

    stages: tuple[Stage, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """As JSON holds it."""
        return [dataclasses.asdict(stage) for stage in self.stages]

    @classmethod
    def from_json(cls, content: Sequence[Mapping[str, Any]]) -> Stages:
        """What ``to_json`` gave; TypeError or ValueError for anything else."""
        stages = tuple(Stage(**entry) for entry in content)
        if [stage.name for stage in stages] != list(CASCADES):
            raise ValueError("these are other stages")
        return cls(stages)


def settings_of(name: str) -> dict[str, Any]:
    """The arguments of ``Cascade`` for a decoder of ``CASCADES``."""
    options = DECODERS[name]
    return {
        "members": options.get("members", 0),
        "beliefs": options.get("beliefs", False),
        "nats": NATS,
    }


def measure_stages(
    dem: stim.DetectorErrorModel,
    events: np.ndarray | None = None,
    *,
    shots: int = SHOTS,
    checked: int = CHECKED,
    seed: int = 0,
    over: Over = iter,
) -> Stages:
    """Runs each cascade on shots of an error model, and its last stage also where it is not asked.

    Args:
        dem: of a rotated surface code, with detector coordinates.
        events: uint8 (B, ceil(num_detectors / 8)), bit-packed, B >= 1; None: ``shots`` sampled
            ones.
        shots: sampled where no events are given.
        checked: shots that the last stage decodes, at most, of those handed on and of those kept.
        seed: of the sampled shots, and of the choice of what is checked.
        over: runs over the parts; may show how far it is.

    Raises:
        QecError: the model is no rotated surface code, or does not explain the events of a shot.
    """
    likely = at_most_half(dem)
    lattice = SpaceTimeLattice.from_dem(likely.dem)
    if events is None:
        events = dem.compile_sampler(seed=seed).sample(shots, bit_packed=True)[0]
    if not len(events):
        raise QecError("there are no shots to measure the stages on.")
    shots_of_model = _Shots(events, likely)
    try:
        return Stages(
            tuple(
                _measured(
                    name,
                    Cascade(lattice, **settings_of(decoder)),
                    shots_of_model,
                    checked,
                    np.random.default_rng(seed),
                    over,
                )
                for name, decoder in CASCADES.items()
            )
        )
    except Unexplained as error:
        graph = matching_graph(basis_split(lattice), silent=lattice.silent)
        raise shots_of_model.named(error, graph) from error


@dataclasses.dataclass(frozen=True)
class _Shots:
    """Bit-packed events, and what turns them into those of a model that matching takes."""

    events: np.ndarray
    likely: AtMostHalf

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors), one byte per detector."""
        usual = self.likely.events
        bits = np.unpackbits(self.events[which], axis=1, count=len(usual), bitorder="little")
        return bits ^ usual

    def named(self, error: Unexplained, graph: object) -> Unexplained:
        """The error with the first such shot and its detectors."""
        for start in range(0, len(self), _CHUNK):
            if (found := unexplained(graph, self[start : start + _CHUNK])) is not None:
                return Unexplained(*found).after(start)
        return error


def _measured(
    name: str,
    cascade: Cascade,
    shots: _Shots,
    checked: int,
    rng: np.random.Generator,
    over: Over,
) -> Stage:
    few = shots[:_PART]
    cascade.memory.decide(few, cascade.nats)  # numba compiles on the first call
    cascade.last.decode_batch(few)
    flips, sure = np.empty(len(shots), np.uint8), np.empty(len(shots), np.bool_)
    spent = 0.0
    for start in over(range(0, len(shots), _CHUNK)):
        part = slice(start, start + _CHUNK)
        detectors = shots[part]
        begun = time.process_time()
        flips[part], sure[part] = cascade.memory.decide(detectors, cascade.nats)
        spent += time.process_time() - begun
    found = []
    for kind in (~sure, sure):
        members = np.flatnonzero(kind)
        chosen = np.sort(rng.choice(members, min(checked, len(members)), replace=False))
        found.append(_checked(cascade, shots, chosen, flips[chosen], over))
    (handed_on, changed_handed_on, handed_on_us), (kept, changed_kept, kept_us) = found
    return Stage(
        name=name,
        nats=cascade.nats,
        shots=len(shots),
        handed_on=int((~sure).sum()),
        checked_handed_on=handed_on,
        changed_handed_on=changed_handed_on,
        checked_kept=kept,
        changed_kept=changed_kept,
        memory_us=1e6 * spent / len(shots),
        handed_on_us=handed_on_us,
        kept_us=kept_us,
    )


def _checked(
    cascade: Cascade, shots: _Shots, chosen: np.ndarray, flips: np.ndarray, over: Over
) -> tuple[int, int, float]:
    """Shots of one kind, those that the last stage changes, its CPU microseconds per shot."""
    changed, spent = 0, 0.0
    for start in over(range(0, len(chosen), _PART)):
        part = slice(start, start + _PART)
        detectors = shots[chosen[part]]
        begun = time.process_time()
        found = cascade.last.decode_batch(detectors)
        spent += time.process_time() - begun
        changed += int(np.count_nonzero(found != flips[part]))
    return len(chosen), changed, 1e6 * spent / max(len(chosen), 1)
