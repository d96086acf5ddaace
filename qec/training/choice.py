"""The choice of the commit rules among those that ``qec.training.validate`` tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from rich.table import Table

from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.rule import CommitRule, CommitRules
from qec.training.settings import TrainSettings
from qec.training.validate import validation_records


class Choice(NamedTuple):
    """Commit rules and why.

    Attributes:
        rules: those chosen.
        records: what ``validation_records`` found at ``validation_p``.
        quiet: the same at ``validation_quiet_p``, for the thresholds chosen.
        warnings: what no candidate reaches.
    """

    rules: CommitRules
    records: list[dict]
    quiet: list[dict]
    warnings: list[str]


def choose_rules(network: PreDecoderNetwork, settings: TrainSettings) -> Choice:
    """Picks a threshold for each rule, and gaps for each distance.

    The rule for correlated matching hands the fewest events to matching while C is
    ``validation_c`` at each distance; that for uncorrelated matching has the highest F, mean over
    the distances, of those that cut the events of each by ``validation_density``.  Both get other
    gaps at ``validation_quiet_p``, see ``with_quiet_gaps``.
    """
    records = validation_records(
        network, settings, settings.validation_p, settings.thresholds, (0.0, *settings.gaps)
    )
    choice = pick_rules(records, settings)
    if settings.validation_quiet_p is None:
        return choice
    thresholds = tuple(sorted({rule.threshold for rule in vars(choice.rules).values()}))
    quiet = validation_records(
        network, settings, settings.validation_quiet_p, thresholds, settings.quiet_gaps
    )
    return with_quiet_gaps(choice, quiet, settings)


def pick_rules(records: list[dict], settings: TrainSettings) -> Choice:
    """The choice among the records at ``validation_p`` that ``choose_rules`` describes."""
    warnings = []
    uncorrelated = _best(
        records, lambda r: r["events"] >= settings.validation_density, lambda r: r["F"]
    )
    if uncorrelated is None:
        density = settings.validation_density
        warnings.append(f"no rule cuts the events by {density:g} at each distance: train longer")
        uncorrelated = _best(records, lambda r: True, lambda r: r["F"])
    cautious = [r for r in records if r["gap"] > 0]
    correlated = _best(cautious, lambda r: r["C"] >= settings.validation_c, lambda r: r["events"])
    if correlated is None:
        warnings.append(
            f"no rule reaches C = {settings.validation_c:g} at each distance: train longer or "
            "allow larger gaps"
        )
        correlated = _best(cautious, lambda r: True, lambda r: r["C"])
    rules = CommitRules(*(_rule(found, settings) for found in (uncorrelated, correlated)))
    return Choice(rules, records, [], warnings)


def with_quiet_gaps(choice: Choice, quiet: list[dict], settings: TrainSettings) -> Choice:
    """The rules with other gaps for quieter noise.

    There logical errors are too rare to choose by, but falling back costs little: so each rule
    takes, at each distance, the largest gap that leaves its events cut by its
    ``validation_quiet_density``, and at least the gap that it has.
    """
    density = {
        "uncorrelated": settings.validation_quiet_density,
        "correlated": settings.validation_quiet_density_correlated,
    }

    def extended(name: str, rule: CommitRule) -> CommitRule:
        steps = []
        for distance, rate, gap in rule.gap:
            place = (distance, rule.threshold)
            there = [r for r in quiet if (r["distance"], r["threshold"]) == place]
            sparse = [r["gap"] for r in there if r["events"] >= density[name]]
            steps += [(distance, there[0]["rate"], max([gap, *sparse])), (distance, rate, gap)]
        return CommitRule(rule.threshold, tuple(steps), rule.members)

    rules = vars(choice.rules).items()
    rules = CommitRules(**{name: extended(name, rule) for name, rule in rules})
    return choice._replace(rules=rules, quiet=quiet)


def _best(
    records: list[dict], fits: Callable[[dict], bool], value: Callable[[dict], float]
) -> list[dict] | None:
    """Of one threshold, for each distance the record of the highest value among those that fit.

    The threshold is the one with the highest mean log value; None where none has a record that
    fits at each distance.
    """
    by_threshold: dict[float, dict[int, dict]] = {}
    for record in filter(fits, records):
        chosen = by_threshold.setdefault(record["threshold"], {})
        rival = chosen.get(record["distance"])
        if rival is None or value(record) > value(rival):
            chosen[record["distance"]] = record
    distances = sorted({record["distance"] for record in records})
    complete = [
        [chosen[distance] for distance in distances]
        for chosen in by_threshold.values()
        if len(chosen) == len(distances)
    ]
    return max(complete, key=lambda found: mean_log(map(value, found)), default=None)


def mean_log(values: Sequence[float]) -> float:
    """Of positive numbers."""
    return float(np.mean([math.log(value) for value in values]))


def _rule(found: list[dict], settings: TrainSettings) -> CommitRule:
    steps = tuple((r["distance"], r["rate"], r["gap"]) for r in found)
    return CommitRule(found[0]["threshold"], steps, settings.ensemble)


def chosen_by(rule: CommitRule, record: dict) -> bool:
    """Whether a rule has the threshold of a record, and its gap at that distance and noise."""
    step = (record["distance"], record["rate"], record["gap"])
    return record["threshold"] == rule.threshold and step in rule.gap


HEADS = ("distance", "threshold", "gap", "F", "C", "events before / after", "matched as a whole")


def validation_rows(records: list[dict], rules: CommitRules) -> list[tuple[str, ...]]:
    """The candidates with the thresholds of the rules, those chosen marked; columns: ``HEADS``."""
    used = [rule.threshold for rule in vars(rules).values()]
    return [
        (
            str(record["distance"]),
            f"{record['threshold']:g}",
            " ".join(
                [f"{record['gap']:g}"]
                + [f"({name})" for name, rule in vars(rules).items() if chosen_by(rule, record)]
            ),
            *(f"{record[name]:.3f}" for name in "FC"),
            f"{record['events']:.1f}",
            f"{100 * record['fallback']:.1f} %",
        )
        for record in records
        if record["threshold"] in used
    ]


def validation_table(choice: Choice) -> Table:
    """For the terminal."""
    table = Table(*HEADS, title="validation, means over circuits")
    for row in validation_rows([*choice.quiet, *choice.records], choice.rules):
        table.add_row(*row)
    return table
