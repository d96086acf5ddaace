"""The model card of a trained pre-decoder, in Markdown, from what its checkpoint records."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from qec.predecoder.correction import Predecoder
from qec.training.settings import LABELS

_CARD = """\
# Pre-decoder `{name}`

{parameters} parameters in {layers} convolutions; {cost:.2f} million multiply-adds per data qubit
and round.  Commits a correction where its probability is above {threshold}.

| | |
|---|---|
| training shots | {shots} |
| minutes | {minutes} |
| labels | {labels} |
| distances, rounds | {distances}, {rounds} |
| noise | {noises}; p = {ps} |
| orientations | {orientations}; bases X and Z |
| optimiser | Muon at {muon_lr}, AdamW at {adamw_lr}; batch {batch}; weight average {ema} |
| schedule | {warmup} steps of warm-up, then linear decay |
| seed | {seed} |
| started from | {started_from} |
| command | {sessions} |

## Choice of the threshold

{validation_shots} validation shots per circuit (uniform noise, p = {validation_p}, seeds from
{validation_seed}), which neither training nor any published figure uses. F: logical error rate of
uncorrelated matching over that of pre-decoder and uncorrelated matching, same shots, same
(basis-split) error model.

| threshold | {columns} | events before / after |
|{rule}
{rows}
{warning}"""


def model_card(predecoder: Predecoder) -> str:
    """The card of a checkpoint that ``qec train`` wrote (its history fills the fields)."""
    history, network = predecoder.metadata, predecoder.network
    figures, warning = history["validation"], history["validation_warning"]
    rows = []
    for record in figures:
        mark = " (chosen)" if record["threshold"] == predecoder.threshold else ""
        factors = " | ".join(f"{factor:.2f}" for factor in record["F"].values())
        rows.append(f"| {record['threshold']}{mark} | {factors} | {record['density_ratio']} |")
    fields = {
        **history,
        **{key: _counted(history[key]) for key in ("distances", "orientations", "noises", "ps")},
        "name": predecoder.name,
        "threshold": predecoder.threshold,
        "parameters": sum(p.numel() for p in network.parameters()),
        "layers": len(network.hidden) + 2,
        "cost": network.multiply_adds_per_site() / 1e6,
        "labels": LABELS[history["labels"]],
        "rounds": history["rounds"] or "as many as the distance",
        "started_from": history["started_from"] or "random weights",
        "sessions": "<br>".join(map(_session, history["sessions"])),
        "warning": f"\n**Warning: {warning}.**\n" if warning else "",
        "columns": " | ".join(f"F, {name}" for name in figures[0]["F"]),
        "rule": "---|" * (len(figures[0]["F"]) + 2),
        "rows": "\n".join(rows),
    }
    return _CARD.format(**fields)


def _counted(values: Sequence) -> str:
    """``["a", "b", "b"]`` -> ``a, b (twice)``: how often each is listed in the mixture."""
    times = {1: "", 2: " (twice)"}
    counts = collections.Counter(values).items()
    return ", ".join(f"{value}{times.get(n, f' ({n} times)')}" for value, n in counts)


def _session(session: dict) -> str:
    start = f"from step {session['step']}: " if session["step"] else ""
    return f"{start}`{session['command']}` ({session['hardware']})"
