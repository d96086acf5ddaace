"""The choice of the commit rules among those that ``qec.training.validate`` tried."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from rich.table import Table

from qec.errors import QecError
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.rule import CommitRule, CommitRules, SecondLook
from qec.training.candidates import Tried
from qec.training.settings import TrainSettings
from qec.training.validate import FoundCounts, validation_records


class Choice(NamedTuple):
    """Commit rules and why.

    Attributes:
        rules: those chosen.
        records: what ``validation_records`` found at ``validation_p``.
        quiet: the same at ``validation_quiet_p``, for the thresholds chosen.
        warnings: what no candidate reaches.
        second: the second looks that are best, at both noise strengths.
    """

    rules: CommitRules
    records: list[dict]
    quiet: list[dict]
    warnings: list[str]
    second: list[dict] = []  # noqa: RUF012


def choose_rules(
    network: PreDecoderNetwork,
    settings: TrainSettings,
    kept: Path | None = None,
    earlier: Mapping[str, object] = MappingProxyType({}),
) -> Choice:
    """Picks a threshold for each rule, and gaps for each distance and noise.

    The rule for correlated matching hands the fewest events to matching while C is
    ``validation_c`` there (see ``_backed``); that for uncorrelated matching has the highest F, mean
    over distances and noises, of those that cut the events of each by ``validation_density``, or as
    far as it goes with an F of ``validation_f``, as it does without that density.  Without
    ``validation_c`` the latter is taken for both.  Both get other gaps at ``validation_quiet_p``,
    see ``with_quiet_gaps``, and the former a second look at doubtful shots, see ``second_looks``,
    if the latter has a higher threshold.

    What is counted goes to the file ``kept``, and what is there is not counted again.  ``earlier``,
    the history of the network's checkpoint, adds records at other distances and noises.

    Raises:
        QecError: records of ``earlier`` that do not go together with these.
        Preempted: after SIGUSR1 or SIGTERM.
    """
    for key in ("validation_p", "validation_quiet_p"):
        if earlier and earlier[key] != getattr(settings, key):
            raise QecError(f"the checkpoint was validated at {key}={earlier[key]}: use the same.")
    found = FoundCounts(kept)
    loud_p, quiet_p = settings.validation_p, settings.validation_quiet_p

    further = dict.fromkeys((settings.agree, settings.agree_correlated))  # looks of either rule

    def records(p: float, tried: Tried) -> list[dict]:
        return validation_records(network, settings, p, tried, found)

    def with_every_look(p: float, thresholds: Sequence[float], gaps: Sequence[float]) -> list[dict]:
        tries = [Tried(tuple(thresholds), tuple(gaps), agree=agree) for agree in further]
        return [record for tried in tries for record in records(p, tried)]

    def with_earlier(new: list[dict], key: str) -> list[dict]:
        return _joined(new, earlier.get(key, ()))

    loud = with_every_look(loud_p, settings.thresholds, (0.0, *settings.gaps))
    choice = pick_rules(with_earlier(loud, "validation"), settings)
    thresholds = tuple(sorted({rule.threshold for rule in vars(choice.rules).values()}))
    if quiet_p is not None:
        gaps = (0.0, *settings.quiet_gaps) if any(further) else settings.quiet_gaps
        quiet = with_every_look(quiet_p, thresholds, gaps)
        choice = with_quiet_gaps(choice, with_earlier(quiet, "validation_quiet"), settings)
    looks_once = choice.rules.uncorrelated.threshold == thresholds[-1]
    if settings.agree or not settings.second_look or looks_once:
        return choice
    second = second_looks(
        records(loud_p, Tried(thresholds, settings.gaps, second=True)),
        records(quiet_p, Tried(thresholds, settings.quiet_gaps, second=True)) if quiet_p else [],
        settings,
    )
    return with_second_look(choice, with_earlier(second, "validation_second"))


def _joined(new: list[dict], earlier: Iterable[dict]) -> list[dict]:
    """In order of distance, noise, looks and gap; new ones stand for all of their place."""
    places = {_place(record) for record in new}
    joined = [*new, *(record for record in earlier if _place(record) not in places)]
    return sorted(joined, key=lambda r: (*_series(r), r["gap"]))


def pick_rules(records: list[dict], settings: TrainSettings) -> Choice:
    """The choice among the records at ``validation_p`` that ``choose_rules`` describes."""
    warnings = []
    density = _density(settings.validation_density)
    own = [r for r in records if _agree(r) == settings.agree]
    uncorrelated = _best(
        _sparse(own, settings),
        own,
        lambda r: r["F"],
        lambda found: sum(r["events"] >= density for r in found),
    )
    if uncorrelated is None:
        warnings.append(f"no rule has F = {settings.validation_f:g} everywhere: train longer")
    elif min(r["events"] for r in uncorrelated) < density < math.inf:
        warnings.append(
            f"no rule cuts the events by {density:g} everywhere, at F = {settings.validation_f:g}: "
            "train longer"
        )
    if uncorrelated is None:
        uncorrelated = _best(own, own, lambda r: r["F"])
    if settings.validation_c is None:
        rule = _rule(uncorrelated, settings)
        return Choice(CommitRules(rule, rule), records, [], warnings)
    own = [r for r in records if _agree(r) == settings.agree_correlated]
    cautious = [r for r in own if r["gap"] > 0 or _agree(r)]
    backed = _backed(cautious, settings.validation_c)
    correlated = _best(backed, own, lambda r: r["events"])
    if correlated is None:
        warnings.append(
            f"no rule reaches C = {settings.validation_c:g} everywhere: train longer or allow "
            "larger gaps"
        )
        correlated = _best(cautious, own, lambda r: r["C"])
    rules = CommitRules(*(_rule(found, settings) for found in (uncorrelated, correlated)))
    return Choice(rules, records, [], warnings)


def with_quiet_gaps(choice: Choice, quiet: list[dict], settings: TrainSettings) -> Choice:
    """The rules with other gaps for quieter noise.

    There logical errors are mostly too rare to choose by, but falling back costs little: so each
    rule takes, at each distance and noise, the largest gap that leaves its events cut by its
    ``validation_quiet_density``, at least the gap that it has, and, before correlated matching, at
    least one with C of ``validation_c`` there.
    """
    density = {
        "uncorrelated": _density(settings.validation_quiet_density),
        "correlated": _density(settings.validation_quiet_density_correlated),
    }

    def extended(name: str, rule: CommitRule) -> CommitRule:
        steps = list(rule.gap)
        for chosen in (r for r in choice.records if chosen_by(rule, r)):
            there = [r for r in quiet if _series(r) == _series(chosen)]
            if not there:
                raise QecError(
                    f"the rules now commit above {rule.threshold:g}, which was not tried at low "
                    f"noise with d={chosen['distance']}: choose anew, without --extend."
                )
            gaps = [r["gap"] for r in there if r["events"] >= density[name]] + [chosen["gap"]]
            if name == "correlated" and settings.validation_c is not None:
                backed = _backed(there, settings.validation_c)
                gaps.append(min((r["gap"] for r in backed), default=max(settings.quiet_gaps)))
            steps.append((chosen["distance"], there[0]["rate"], max(gaps)))
        return dataclasses.replace(rule, gap=_rising(steps))

    rules = vars(choice.rules).items()
    rules = CommitRules(**{name: extended(name, rule) for name, rule in rules})
    return choice._replace(rules=rules, quiet=quiet)


def second_looks(loud: list[dict], quiet: list[dict], settings: TrainSettings) -> list[dict]:
    """The best candidates for a second look, at each distance and noise.

    At ``validation_p`` as ``pick_rules`` chooses the rule for uncorrelated matching.  At
    ``validation_quiet_p`` doubt and gap are the same: the largest that leaves the events cut by
    ``validation_quiet_density``, but none smaller than the doubt at ``validation_p``.
    """
    sensible = [r for r in loud if r["gap"] <= r["doubt"]]
    fitting = _sparse(sensible, settings)
    found = _best(fitting, sensible, lambda r: r["F"]) or _best(
        sensible, sensible, lambda r: r["F"]
    )
    density = _density(settings.validation_quiet_density)
    for chosen in tuple(found):
        same = [r for r in quiet if _place(r) == _place(chosen) and r["doubt"] == r["gap"]]
        enough = [r for r in same if r["events"] >= density]
        least = [r for r in same if r["doubt"] >= chosen["doubt"]] or same[-1:]
        found += sorted(enough[-1:] + least[:1], key=lambda r: r["doubt"])[-1:]
    return sorted(found, key=lambda r: (*_place(r), r["rate"]))


def with_second_look(choice: Choice, found: list[dict]) -> Choice:
    """The rule for uncorrelated matching with second looks, by the threshold of the other one.

    They begin at the first distance from which on each has a higher F than one look, in the mean
    over noises, or there are none.

    Raises:
        QecError: no second look where there is one look.
    """
    once = {_place(r): r for r in choice.records if chosen_by(choice.rules.uncorrelated, r)}
    loud = {_place(r): r for r in sorted(found, key=lambda r: r["rate"])}
    if loud.keys() != once.keys():
        raise QecError(
            "the checkpoint has no second looks at its other distances or noises: choose anew, "
            "without --extend, or use second_look=false."
        )
    start = None
    for distance in sorted({distance for distance, _ in once}, reverse=True):
        places = [place for place in once if place[0] == distance]
        if mean_log([loud[place]["F"] / once[place]["F"] for place in places]) <= 0:
            break
        start = distance
    if start is None:
        return choice._replace(second=found)
    used = [r for r in found if r["distance"] >= start]
    doubt, gap = (
        _rising([(r["distance"], r["rate"], r[key]) for r in used]) for key in ("doubt", "gap")
    )
    second = SecondLook(choice.rules.correlated.threshold, doubt, gap)
    uncorrelated = dataclasses.replace(choice.rules.uncorrelated, second=second)
    return choice._replace(rules=CommitRules(uncorrelated, choice.rules.correlated), second=found)


def _place(record: dict) -> tuple[int, str]:
    return record["distance"], record["noise"]


def _density(asked: float | None) -> float:
    """How many times fewer events are enough: None, no number of them."""
    return math.inf if asked is None else asked


def _agree(record: dict) -> tuple[float, ...]:
    """The further looks; records of earlier versions have none."""
    return tuple(record.get("agree", ()))


def _series(record: dict) -> tuple[int, str, float, tuple[float, ...]]:
    """What the candidates that differ by their gap only have in common."""
    return *_place(record), record["threshold"], _agree(record)


def _sparse(records: list[dict], settings: TrainSettings) -> list[dict]:
    """Records with F of ``validation_f`` whose events are cut by ``validation_density``.

    Where a threshold has none of them at some distance and noise, the one that cuts them most.
    """
    found = []
    helpful = [r for r in records if r["F"] >= settings.validation_f]
    helpful.sort(key=lambda r: (_series(r), r["events"]))
    density = _density(settings.validation_density)
    for _, group in itertools.groupby(helpful, key=_series):
        *others, last = group
        found += [r for r in others if r["events"] >= density] + [last]
    return found


def _backed(records: list[dict], least: float) -> list[dict]:
    """Records with C of ``least``, whose larger gaps have it, too, to within two standard errors.

    C rises with the gap but for chance, which the choice of the smallest sufficient gap would
    otherwise favour.
    """
    found, doubted = [], set()
    for record in sorted(records, key=lambda r: -r["gap"]):
        if record["C"] * math.exp(2 * record["C_error"]) < least:
            doubted.add(_series(record))
        if record["C"] >= least and _series(record) not in doubted:
            found.append(record)
    return found[::-1]  # of those that come to the same, the smallest gap is taken


def _best(
    fitting: list[dict],
    records: list[dict],
    value: Callable[[dict], float],
    rank: Callable[[list[dict]], int] = len,
) -> list[dict] | None:
    """Of one threshold, for each distance and noise the fitting record of the highest value.

    The threshold is that of the highest rank and, among those, of the highest mean log value; None
    where none has a fitting record everywhere where there are ``records``.
    """
    by_threshold: dict[float, dict[tuple[int, str], dict]] = {}
    for record in fitting:
        chosen = by_threshold.setdefault(record["threshold"], {})
        rival = chosen.get(_place(record))
        if rival is None or value(record) > value(rival):
            chosen[_place(record)] = record
    places = sorted({_place(record) for record in records})
    complete = [
        [chosen[place] for place in places]
        for chosen in by_threshold.values()
        if len(chosen) == len(places)
    ]
    return max(complete, key=lambda found: (rank(found), mean_log(map(value, found))), default=None)


def mean_log(values: Sequence[float]) -> float:
    """Of positive numbers."""
    return float(np.mean([math.log(value) for value in values]))


def _rule(found: list[dict], settings: TrainSettings) -> CommitRule:
    steps = [(r["distance"], r["rate"], r["gap"]) for r in found]
    first, members = found[0], settings.ensemble
    return CommitRule(first["threshold"], _rising(steps), members, agree=_agree(first))


def _rising(steps: list[tuple[int, float, float]]) -> tuple[tuple[int, float, float], ...]:
    """In order; where two noises have the same rate, the larger gap."""
    largest = {step[:2]: step for step in sorted(steps)}
    return tuple(largest.values())


def chosen_by(rule: CommitRule, record: dict) -> bool:
    """Whether a rule has the looks of a record, and its gap at that distance and noise."""
    step = (record["distance"], record["rate"], record["gap"])
    looks = (record["threshold"], _agree(record))
    return looks == (rule.threshold, rule.agree) and step in rule.gap


HEADS = (
    "distance",
    "noise",
    "threshold",
    "gap",
    "F",
    "C",
    "events before / after",
    "matched as a whole",
)


def validation_rows(records: list[dict], rules: CommitRules) -> list[tuple[str, ...]]:
    """The candidates with the thresholds of the rules, those chosen marked; columns: ``HEADS``."""
    used = [rule.threshold for rule in vars(rules).values()]
    return [
        (
            str(record["distance"]),
            record["noise"],
            looks(record),
            " ".join(
                [f"{record['gap']:g}"]
                + [f"({name})" for name, rule in vars(rules).items() if chosen_by(rule, record)]
            ),
            *scores(record),
        )
        for record in records
        if record["threshold"] in used
    ]


def looks(record: dict) -> str:
    """The thresholds of all looks of a candidate."""
    thresholds = dict.fromkeys((record["threshold"], *_agree(record)))
    return ", ".join(f"{threshold:g}" for threshold in thresholds)


def scores(record: dict) -> tuple[str, ...]:
    """The last four columns of ``HEADS``."""
    return (
        *(f"{record[name]:.3f}" for name in "FC"),
        f"{record['events']:.1f}",
        f"{100 * record['fallback']:.1f} %",
    )


def validation_table(choice: Choice) -> Table:
    """For the terminal."""
    table = Table(*HEADS, title="validation, means over circuits")
    for row in validation_rows([*choice.quiet, *choice.records], choice.rules):
        table.add_row(*row)
    return table
