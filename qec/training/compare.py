"""Checkpoints side by side on the fixed validation shots: which one deserves to be shipped.

``python -m qec.training.compare data/fast.safetensors out/fast/fast.safetensors``
"""

from __future__ import annotations

import argparse
import math
import sys

import torch
from rich.console import Console
from rich.table import Table

from qec.config import load_config
from qec.errors import QecError
from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.correction import Predecoder
from qec.predecoder.network import PreDecoderNetwork
from qec.training.data import Batch, Labeller, Source
from qec.training.settings import TrainSettings
from qec.training.validate import VALIDATION_SEED, Choice, choose_rules, validation_circuits


def teacher_batches(settings: TrainSettings, shots: int = 1024) -> list[Batch]:
    """Batches of the validation circuits' shots with the matching teacher's labels."""
    return [
        Labeller(Source(d, d, "ZV", basis, noise, settings.validation_p, "matching")).batch(
            shots, VALIDATION_SEED
        )
        for noise in settings.validation_noises
        for d in settings.validation_distances
        for basis in ("X", "Z")
    ]


def cross_entropy(network: PreDecoderNetwork, batches: list[Batch]) -> float:
    """Mean binary cross-entropy in nats per visible chain bit, over batches."""
    total = bits = 0.0
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for events, static, labels, valid in batches:
            for part in range(0, len(events), 256):
                logits = network(events[part : part + 256].to(torch.bfloat16), static)
                wanted = labels[part : part + 256].float()
                total += torch.nn.functional.binary_cross_entropy_with_logits(
                    logits.float(), wanted, weight=valid.float(), reduction="sum"
                ).item()
                bits += valid.sum().item() * len(logits)
    return total / bits


def row(predecoder: Predecoder, bce: float, choice: Choice) -> list[str]:
    """One checkpoint: its training, what its network does alone, and its best rules."""
    by_rule = {(r["threshold"], r["gap"]): r for r in choice.records}
    alone = min(choice.records, key=lambda r: (r["threshold"], r["gap"]))
    cells = [
        f"{predecoder.name}@{predecoder.digest}",
        str(predecoder.metadata.get("shots", "")),
        f"{predecoder.metadata.get('minutes', math.nan):.0f}",
        f"{bce:.5f}",
        f"{math.exp(alone['mean_log_F']):.3f} /{alone['density_ratio']:.1f}",
    ]
    for rule in (choice.rules.uncorrelated, choice.rules.correlated):
        found = by_rule[rule.threshold, rule.gap]
        factors = [f"{name} {math.exp(found[f'mean_log_{name}']):.3f}" for name in "FC"]
        cells.append(
            f"{rule.threshold:g}, {rule.gap:g}: {' '.join(factors)} /{found['density_ratio']:.1f} "
            f"{100 * found['fallback']:.1f} %"
        )
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", help="names or paths")
    parser.add_argument("--set", nargs="*", default=[], help="validation keys of `qec train`")
    args = parser.parse_args()
    try:
        settings = TrainSettings.from_config(load_config("train", args.set))
        predecoders = [load_predecoder(name) for name in args.checkpoints]
    except QecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    batches = teacher_batches(settings)
    table = Table("checkpoint", "shots", "minutes", "BCE", "F at the lowest threshold, no fallback")
    for name in ("uncorrelated", "correlated"):
        table.add_column(f"{name}: threshold, gap, F, C, events, fallback")
    for predecoder in predecoders:
        bce = cross_entropy(predecoder.network, batches)
        table.add_row(*row(predecoder, bce, choose_rules(predecoder.network, settings)))
    console = Console()
    console.width = max(console.width, 170)
    console.print(table)
    print(
        f"means over {', '.join(validation_circuits(settings))}, p = {settings.validation_p:g}; "
        f"{settings.validation_shots} shots per circuit, seeds from {VALIDATION_SEED}; "
        "BCE: against correlated matching, nats per bit"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
