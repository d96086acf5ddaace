"""The model card of a trained pre-decoder, in Markdown, from what its checkpoint records."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Sequence

from qec.markdown import markdown_table
from qec.predecoder.correction import Predecoder
from qec.predecoder.rule import CommitRule, CommitRules, Gap
from qec.training.choice import HEADS, looks, scores, validation_rows
from qec.training.settings import LABELS

_CARD = """\
# Pre-decoder `{name}`

{parameters} parameters in {layers} convolutions; {cost:.2g} million multiply-adds per data qubit
and round{sparse}.

| decoder | commits above | whole syndrome to {matchings} at a logical gap |
|---|---|---|
| `predecoder+pymatching` | {uncorrelated.threshold} | {gap_uncorrelated} |
| `predecoder+pymatching-correlated` | {correlated.threshold} | {gap_correlated} |

| | |
|---|---|
| training shots | {shots} |
| minutes | {minutes} |
| labels | {labels} |
| distances, rounds | {distances}, {rounds} |
| noise | {noises}; p = {ps} |
| orientations | {orientations}; bases X and Z |
| optimiser | {muon}AdamW at {adamw_lr}; batch {batch}; weight average {ema} |
| schedule | {warmup} steps of warm-up, then linear decay |
| seed | {seed} |
| started from | {started_from} |
| command | {sessions} |

## Choice of the commit rules

{validation_shots} validation shots per circuit ({validation_circuits};
p = {validation_p}, seeds from {validation_seed}), which neither training nor any published figure
uses. F and C: logical error rates of uncorrelated and of correlated matching alone over that of the
rule, same shots, same (basis-split) error model; geometric means over the two bases.
Events: detection events of memory checks sampled over those that matching gets, residuals and whole syndromes. The
gap is a fraction of the weight of the lightest logical operator: shots below it are matched as a
whole. Each rule has one threshold, and a gap for each distance and noise. At p = {validation_p}: {rule_of_c}
{rule_of_f}.{quiet_rule}

Without a gap, and without fallback where there is one look:

{plain}

At the chosen thresholds:

{gaps}
{quiet}{second}{warning}"""  # noqa: E501

_SPARSE = """ over all cells, on a CPU only a few per cent of them: features in cells with
detection events only"""

_RULE_OF_C = """before
correlated matching that which hands on the fewest events at C = {validation_c:g} or more (with every larger gap, too,
to within two standard errors), before uncorrelated matching"""  # noqa: E501

_RULE_OF_F = """that with the highest F at {validation_density:g} times fewer events or more, or, where that gives no F of
{validation_f:g}, the fewest events at that F"""  # noqa: E501

_QUIET_RULE = """ At p = {validation_quiet_p}
logical errors are mostly too rare to choose by, so there they take {largest}none smaller than at p = {validation_p:g}, and
the latter at least one with the C asked for, if any. Between these noises the gap is linear in the logarithm of the mean
detection rate, and between distances linear in the distance."""  # noqa: E501

_SECOND = """\

Second looks: at a gap below "doubt" a shot is decoded by what commits above {threshold:g} leave, and matched as a
whole if the gap is then below "gap". At p = {validation_p} they were chosen as the gaps before uncorrelated matching, at
p = {validation_quiet_p} with the largest doubt, equal to the gap, that has {validation_quiet_density:g} times fewer events, or
the doubt at {validation_p}. They are taken from the first distance on from which F is higher than with one look: d = {start}.

{table}
"""  # noqa: E501

_QUIET = """\

At p = {validation_quiet_p}:

{table}
"""


def model_card(predecoder: Predecoder) -> str:
    """The card of a checkpoint that ``qec train`` wrote (its history fills the fields)."""
    history, network = predecoder.metadata, predecoder.network
    figures, rules = history["validation"], predecoder.rules
    fields = {
        **history,
        **{key: _counted(history[key]) for key in ("distances", "orientations", "noises", "ps")},
        "name": predecoder.name,
        **vars(rules),
        "parameters": sum(p.numel() for p in network.parameters()),
        "layers": len(network.hidden) + 2,
        "cost": network.multiply_adds_per_site() / 1e6,
        "sparse": _SPARSE if network.active_only else "",
        "labels": LABELS[history["labels"]],
        "rounds": history["rounds"] or "as many as the distance",
        **{f"gap_{name}": _gaps(rule) for name, rule in vars(rules).items()},
        "rule_of_c": _rule_of_c(history["validation_c"]),
        "rule_of_f": _rule_of_f(history),
        **_quiet(history, rules),
        "second": _second(history, rules),
        "matchings": _matchings(rules.uncorrelated.members),
        "muon": f"Muon at {history['muon_lr']}, " if history["muon_lr"] else "",
        "started_from": history["started_from"] or "random weights",
        "sessions": "<br>".join(map(_session, history["sessions"])),
        "warning": "".join(f"\n**Warning: {text}.**\n" for text in history["warnings"]),
        "plain": markdown_table(*_without_fallback(figures)),
        "gaps": markdown_table(HEADS, validation_rows(figures, rules)),
        "validation_circuits": ", ".join(history["validation_circuits"]),
    }
    return _CARD.format(**fields)


def _gaps(rule: CommitRule) -> str:
    """The gaps in words."""
    if rule.agree:
        above = ", ".join(f"{threshold:g}" for threshold in rule.other_thresholds)
        differ = f"where another look (commits above {above}) decides differently"
        no_gap = isinstance(rule.gap, tuple) and not any(gap for _, _, gap in rule.gap)
        return differ if no_gap else f"{differ}, and {_below(rule.gap)}"
    if rule.second is None:
        return _below(rule.gap)
    second = rule.second
    return (
        f"after a second look (commits above {second.threshold:g}) {_below(second.gap)}.<br>"
        f"A second look: {_below(second.doubt)}.<br>In windows, which look once: {_below(rule.gap)}"
    )


def _below(gap: Gap) -> str:
    if not isinstance(gap, tuple):
        return f"below {gap:g}"
    parts = []
    for distance, steps in itertools.groupby(gap, key=lambda step: step[0]):
        at = ", ".join(f"{part:g} (mean detection rate {rate:.4f})" for _, rate, part in steps)
        parts.append(f"d={distance}: {at}")
    return "below, " + "; ".join(parts)


def _without_fallback(records: list[dict]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Heads and rows: F and events of each threshold at each distance and noise."""
    rows: dict[str, list[str]] = {}
    for record in records:
        if record["gap"] == 0:
            cells = rows.setdefault(looks(record), [looks(record)])
            cells.append(f"{record['F']:.2f}, {record['events']:.1f}")
    places = dict.fromkeys(f"{record['noise']} d={record['distance']}" for record in records)
    heads = [f"F, events: {place}" for place in places]
    return ["looks: threshold", *heads], [tuple(cells) for cells in rows.values()]


def _rule_of_c(validation_c: float | None) -> str:
    if validation_c is None:
        return "before either matching"
    return _RULE_OF_C.format(validation_c=validation_c)


def _rule_of_f(history: dict) -> str:
    if history["validation_density"] is None:
        return f"that which hands on the fewest events at an F of {history['validation_f']:g}"
    return _RULE_OF_F.format(**history)


def _quiet(history: dict, rules: CommitRules) -> dict[str, str]:
    """How the gaps for quieter noise were chosen, and what they do there."""
    if not history["validation_quiet"]:
        return {"quiet_rule": "", "quiet": ""}
    table = markdown_table(HEADS, validation_rows(history["validation_quiet"], rules))
    asked = history["validation_quiet_density"], history["validation_quiet_density_correlated"]
    return {
        "quiet_rule": _QUIET_RULE.format(**history, largest=_largest(*asked)),
        "quiet": _QUIET.format(**history, table=table),
    }


def _largest(*densities: float | None) -> str:
    """The gaps for quieter noise that are taken for their own sake."""
    kinds = zip(densities, ("uncorrelated", "correlated"), strict=True)
    asked = [f"{times:g} times ({kind})" for times, kind in kinds if times is not None]
    return f"the largest gaps with {' and '.join(asked)} fewer events, but " if asked else ""


def _second(history: dict, rules: CommitRules) -> str:
    """The second looks, where there are any, and what they do."""
    if rules.uncorrelated.second is None:
        return ""
    heads = ("distance", "noise", "mean detection rate", "doubt", "gap", *HEADS[4:])
    rows = [
        (
            *(str(record["distance"]), record["noise"], f"{record['rate']:.4f}"),
            *(f"{record['doubt']:g}", f"{record['gap']:g}", *scores(record)),
        )
        for record in history["validation_second"]
    ]
    second, table = rules.uncorrelated.second, markdown_table(heads, rows)
    start = second.doubt[0][0]
    return _SECOND.format(**history, threshold=second.threshold, start=start, table=table)


def _matchings(members: int) -> str:
    return f"{members} correlated matchings" if members > 1 else "correlated matching"


def _counted(values: Sequence) -> str:
    """``["a", "b", "b"]`` -> ``a, b (twice)``: how often each is listed in the mixture."""
    times = {1: "", 2: " (twice)"}
    counts = collections.Counter(values).items()
    return ", ".join(f"{value}{times.get(n, f' ({n} times)')}" for value, n in counts)


def _session(session: dict) -> str:
    start = f"from step {session['step']}: " if session["step"] else ""
    return f"{start}`{session['command']}` ({session['hardware']})"
