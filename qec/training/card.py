"""The model card of a trained pre-decoder, in Markdown, from what its checkpoint records."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from qec.markdown import markdown_table
from qec.predecoder.correction import Predecoder
from qec.predecoder.rule import CommitRule, CommitRules
from qec.training.settings import LABELS
from qec.training.validate import by_distance, validation_cells

_CARD = """\
# Pre-decoder `{name}`

{parameters} parameters in {layers} convolutions; {cost:.2f} million multiply-adds per data qubit
and round{sparse}.

| decoder | commits above | whole syndrome to {voters} at a gap |
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
rule, same shots, same (basis-split) error model; geometric means. Events: detection events sampled
over those that matching gets, residuals and whole syndromes. The rule for correlated matching hands
on the fewest events at C = {validation_c:g}; that for uncorrelated matching has the highest F with
{validation_density:g} times fewer events or more.

Without fallback:

{plain}

At these thresholds, by the logical gap (as a fraction of the weight of the lightest logical
operator) below which a shot is matched as a whole:

{gaps}
{quiet}{warning}"""

_SPARSE = """ over all cells, on a CPU only a few per cent of them: features in cells with
detection events only"""

_HEADS = ("threshold", "gap", "F", "C", "events", "matched as a whole")

_QUIET = """\

At p = {validation_quiet_p} logical errors are too rare to choose by, so each takes the largest gap there with
{validation_quiet_density:g} times fewer events; between the two the gap is linear in the logarithm of the mean
detection rate:

{table}
"""  # noqa: E501


def model_card(predecoder: Predecoder) -> str:
    """The card of a checkpoint that ``qec train`` wrote (its history fills the fields)."""
    history, network = predecoder.metadata, predecoder.network
    figures, rules = history["validation"], predecoder.rules
    plain = [
        (
            f"{record['threshold']:g}",
            *(f"{factor:.2f}" for factor in by_distance(record, "F").values()),
            f"{record['density_ratio']:.1f}",
        )
        for record in figures
        if record["gap"] == 0
    ]
    used = (rules.uncorrelated.threshold, rules.correlated.threshold)
    by_gap = [
        (
            *validation_cells(record, rules),
            *(f"{factor:.2f}" for factor in by_distance(record, "C").values()),
        )
        for record in figures
        if record["threshold"] in used
    ]
    distances = list(by_distance(figures[0], "F"))
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
        **{f"gap_{name}": _gap(rule) for name, rule in vars(rules).items()},
        "quiet": _quiet(history, rules),
        "voters": _voters(rules.uncorrelated.members),
        "muon": f"Muon at {history['muon_lr']}, " if history["muon_lr"] else "",
        "started_from": history["started_from"] or "random weights",
        "sessions": "<br>".join(map(_session, history["sessions"])),
        "warning": "".join(f"\n**Warning: {text}.**\n" for text in history["warnings"]),
        "plain": markdown_table(["threshold", *(f"F, {d}" for d in distances), "events"], plain),
        "gaps": markdown_table([*_HEADS, *(f"C, {d}" for d in distances)], by_gap),
        "validation_circuits": ", ".join(figures[0]["F"]),
    }
    return _CARD.format(**fields)


def _gap(rule: CommitRule) -> str:
    """The gap in words."""
    if not isinstance(rule.gap, tuple):
        return f"below {rule.gap:g}"
    return "; ".join(
        f"below {gap:g} at a mean detection rate of {rate:.4f}" for rate, gap in rule.gap
    )


def _quiet(history: dict, rules: CommitRules) -> str:
    """How the gap for quieter noise was chosen, and what it does there."""
    if not history.get("validation_quiet"):
        return ""
    rows = []
    for name, rule in vars(rules).items():
        for record in history["validation_quiet"]:
            if record["threshold"] == rule.threshold:
                threshold, _, *cells = validation_cells(record, rules)
                chosen = f" ({name})" if record["gap"] == rule.gap[0][1] else ""
                rows.append((threshold, f"{record['gap']:g}{chosen}", *cells))
    return _QUIET.format(**history, table=markdown_table(_HEADS, rows))


def _voters(members: int) -> str:
    return f"{members} voting correlated matchings" if members > 1 else "correlated matching"


def _counted(values: Sequence) -> str:
    """``["a", "b", "b"]`` -> ``a, b (twice)``: how often each is listed in the mixture."""
    times = {1: "", 2: " (twice)"}
    counts = collections.Counter(values).items()
    return ", ".join(f"{value}{times.get(n, f' ({n} times)')}" for value, n in counts)


def _session(session: dict) -> str:
    start = f"from step {session['step']}: " if session["step"] else ""
    return f"{start}`{session['command']}` ({session['hardware']})"
