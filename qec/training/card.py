"""The model card of a trained pre-decoder, in Markdown, from what its checkpoint records."""

from __future__ import annotations

from qec.predecoder.correction import Predecoder

_CARD = """\
# Pre-decoder `{name}`

{parameters} parameters in {layers} convolutions; {cost:.2f} million multiply-adds per data qubit
and round.  Commits a correction where its probability is above {threshold}.

| | |
|---|---|
| training shots | {shots} |
| minutes | {minutes} ({hardware}) |
| labels | {labels} |
| distances, rounds | {distances}, {rounds} |
| noise | {noises}; p from {low} to {high} |
| orientations | {orientations}; bases X and Z |
| optimiser | Muon at {muon_lr}, AdamW at {adamw_lr}; batch {batch}; weight average {ema} |
| seed | {seed} |
| started from | {init_from} |
| command | `{command}` |

## Choice of the threshold

{validation_shots} validation shots per circuit (uniform noise, p = {validation_p}, seeds from
{validation_seed}), which neither training nor any published figure uses. F: logical error rate of
uncorrelated matching over that of pre-decoder and uncorrelated matching, same shots, same
(basis-split) error model.

| threshold | {columns} | events before / after |
|{rule}
{rows}
"""


def model_card(predecoder: Predecoder) -> str:
    """The card of a checkpoint that ``qec train`` wrote (its history fills the fields)."""
    history, network = predecoder.metadata, predecoder.network
    figures = history["validation"]
    rows = []
    for record in figures:
        mark = " (chosen)" if record["threshold"] == predecoder.threshold else ""
        factors = " | ".join(f"{factor:.2f}" for factor in record["F"].values())
        rows.append(f"| {record['threshold']}{mark} | {factors} | {record['density_ratio']} |")
    listed = {key: ", ".join(map(str, v)) for key, v in history.items() if isinstance(v, list)}
    fields = {
        **history,
        **listed,
        "name": predecoder.name,
        "threshold": predecoder.threshold,
        "parameters": sum(p.numel() for p in network.parameters()),
        "layers": len(network.hidden) + 2,
        "cost": network.multiply_adds_per_site() / 1e6,
        "low": history["p_range"][0],
        "high": history["p_range"][1],
        "init_from": history["init_from"] or "random weights",
        "columns": " | ".join(f"F, {name}" for name in figures[0]["F"]),
        "rule": "---|" * (len(figures[0]["F"]) + 2),
        "rows": "\n".join(rows),
    }
    return _CARD.format(**fields)
