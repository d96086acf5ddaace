"""Commit rules at work on validation shots: what each of them gets wrong, and what it costs."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import pickle
from typing import NamedTuple

import numpy as np
import stim
import torch

from qec.fallback import whole_matcher
from qec.gap import GapMatcher
from qec.lattice import SpaceTimeLattice
from qec.matching import Matcher, basis_split
from qec.predecoder.correction import Predecoder
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.rule import CommitRule, CommitRules

SHOTS_PER_PASS = 1024


class Counts(NamedTuple):
    """Of one candidate on shots of one circuit."""

    shots: int
    uncorrelated: int  # errors of matching alone
    correlated: int
    errors: int  # of the candidate
    differ: int  # shots on which just one of the candidate and correlated matching is wrong
    before: int  # detection events of memory checks
    after: int
    fallbacks: int


class Tried(NamedTuple):
    """Candidates: every threshold with every gap (see ``CommitRule``).

    Or second looks (see ``SecondLook``), by two thresholds: every doubt among the gaps with every
    gap.  With ``agree`` that of ``CommitRule``.
    """

    thresholds: tuple[float, ...]
    gaps: tuple[float, ...]
    second: bool = False
    agree: tuple[float, ...] = ()

    def named(self) -> list[dict[str, float]]:
        """Each candidate, in order."""
        if self.second:
            pairs = itertools.product(self.gaps, self.gaps)
            return [{"threshold": self.thresholds[0], "doubt": a, "gap": b} for a, b in pairs]
        pairs = itertools.product(self.thresholds, self.gaps)
        return [{"threshold": threshold, "gap": gap} for threshold, gap in pairs]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A network on the shots of a circuit, with every candidate.

    Attributes:
        network: on the CPU, or on ``device``.
        circuit: a memory experiment.
        seed: of its shots.
        tried: the candidates.
        members: of the ensemble to which doubtful shots go.
        device: where the network runs.
        key: tells it from others, by all of the above but the device.
    """

    network: PreDecoderNetwork = dataclasses.field(compare=False)
    circuit: str = dataclasses.field(compare=False)
    seed: int = dataclasses.field(compare=False)
    tried: Tried = dataclasses.field(compare=False)
    members: int = dataclasses.field(compare=False)
    device: str
    key: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        said = (self.network, self.circuit, self.seed, self.tried, self.members)
        digest = hashlib.sha256(repr(said).encode())
        for tensor in self.network.state_dict().values():
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
        object.__setattr__(self, "key", digest.hexdigest()[:16])

    # Left to itself torch hands tensors to other processes in shared memory, by a thread that
    # complains when one of them is killed.
    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "network": pickle.dumps(self.network)}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, network=pickle.loads(state["network"]))


class Pass(NamedTuple):
    """``shots`` shots of a trial, from number ``start`` on, a multiple of ``SHOTS_PER_PASS``."""

    trial: Trial
    start: int
    shots: int

    @property
    def key(self) -> str:
        return f"{self.trial.key}-{self.start}-{self.shots}"


def count(part: Pass) -> np.ndarray:
    """int64 (candidates, 8), the ``Counts`` of every candidate on the same shots."""
    return _at_work(part.trial).count(part.start, part.shots)


@functools.lru_cache(maxsize=1)
def _at_work(trial: Trial) -> _AtWork:
    return _AtWork(trial)


class _AtWork:
    """A trial with its decoders."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._circuit = stim.Circuit(trial.circuit)
        lattice = SpaceTimeLattice.from_circuit(self._circuit)
        self._plain = Matcher(basis_split(lattice), correlated=False)
        self._decisive = lattice.memory_detectors  # whose events are counted
        self._with_gap = GapMatcher(self._plain.graph, lattice, largest=max(trial.tried.gaps))
        self._correlated = Matcher(basis_split(lattice), correlated=True)
        self._whole = self._correlated
        if trial.members > 1:
            self._whole = whole_matcher(lattice, trial.members)
        rules = CommitRules.same(0.5)
        self._bound = Predecoder(trial.network, rules).bind(lattice, trial.device)
        self._cuts = [CommitRule(threshold).cut for threshold in trial.tried.thresholds]
        self._other_cuts = [CommitRule(threshold).cut for threshold in trial.tried.agree]
        self._rewind()

    def _rewind(self) -> None:
        self._sampler = self._circuit.compile_detector_sampler(seed=self._trial.seed)
        self._drawn = 0

    def _shots(self, start: int, shots: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (shots, num_detectors) detection events, uint8 (shots,) flips of observable 0."""
        if start < self._drawn:
            self._rewind()
        while self._drawn < start:  # a pass of another process: Stim draws shots in order only
            self._sampler.sample(SHOTS_PER_PASS)
            self._drawn += SHOTS_PER_PASS
        sampled, observables = self._sampler.sample(shots, separate_observables=True)
        self._drawn += shots
        return sampled.view(np.uint8), observables[:, 0].view(np.uint8)

    def count(self, start: int, shots: int) -> np.ndarray:
        """As the function of that name."""
        detectors, truth = self._shots(start, shots)
        events = torch.from_numpy(detectors).to(self._trial.device)
        weight = detectors.take(self._decisive, axis=1).sum(axis=1, dtype=np.int64)
        uncorrelated = self._plain.decode_batch(detectors) != truth
        correlated = self._correlated.decode_batch(detectors) != truth
        logits = self._bound.logits(events)
        doubt = self._bound.gap(logits)
        cuts = list(dict.fromkeys([*self._cuts, *self._other_cuts]))
        looks = {
            cut: self._judged(*committed, truth, doubt, gaps=cut in self._cuts)
            for cut, committed in zip(cuts, self._bound.commit(events, logits, cuts), strict=True)
        }
        judged = []
        for own in self._cuts:
            others = (looks[cut] for cut in self._other_cuts if cut != own)
            judged.append(functools.reduce(_agreeing, others, looks[own]))
        whole = correlated
        if self._trial.members > 1:
            whole = correlated.copy()
            least = np.min([found.gap for found in judged], axis=0)
            asked = np.flatnonzero(least < self._with_gap.cap)
            whole[asked] = self._whole.decode_batch(detectors[asked]) != truth[asked]
        nats = [gap * self._with_gap.logical_weight for gap in self._trial.tried.gaps]
        if self._trial.tried.second:
            first, again = judged
            judged = [_combined(first, again, first.gap < doubt) for doubt in nats]
        counts = []
        for found, gap in itertools.product(judged, nats):
            doubtful = found.gap < gap
            errors = np.where(doubtful, whole, found.wrong)
            counts.append(
                Counts(
                    shots,
                    uncorrelated.sum(),
                    correlated.sum(),
                    errors.sum(),
                    (errors != correlated).sum(),
                    weight.sum(),
                    found.left.sum() + weight[doubtful].sum(),
                    doubtful.sum(),
                )
            )
        return np.array(counts, dtype=np.int64)

    def _judged(
        self,
        residual: np.ndarray,
        flipped: np.ndarray,
        truth: np.ndarray,
        doubt: np.ndarray,
        gaps: bool,
    ) -> _Judged:
        flips, found = self._with_gap.decode_batch(residual, np.inf if gaps else 0.0)
        wrong = (flips ^ flipped) != truth
        seen = residual.take(self._decisive, axis=1)
        return _Judged(seen.sum(axis=1, dtype=np.int64), wrong, np.minimum(found, doubt))


class _Judged(NamedTuple):
    """Shots by what a threshold leaves, shapes (B,): events left, whether wrong, gap in nats."""

    left: np.ndarray
    wrong: np.ndarray
    gap: np.ndarray


def _agreeing(first: _Judged, other: _Judged) -> _Judged:
    """With one more look at all shots; those that the two decide differently are in doubt."""
    gap = np.where(first.wrong == other.wrong, first.gap, -np.inf)
    return _Judged(first.left + other.left, first.wrong, gap)


def _combined(first: _Judged, again: _Judged, doubtful: np.ndarray) -> _Judged:
    """With a second look at doubtful shots; what the others leave decides them."""
    return _Judged(
        first.left + again.left * doubtful,
        np.where(doubtful, again.wrong, first.wrong),
        np.where(doubtful, again.gap, np.inf),
    )
