"""Checkpoints side by side on the fixed validation shots: which one deserves to be shipped.

``python -m qec.training.compare data/fast.safetensors out/fast/fast.safetensors``
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import sys

import torch
from rich.console import Console
from rich.table import Table

from qec.config import load_config
from qec.errors import exit_status
from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.correction import Predecoder
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.precision import autocast, network_dtype
from qec.training.choice import Choice, choose_rules, chosen_by, mean_log
from qec.training.data import Batch, Labeller, Source
from qec.training.loss import cross_entropy
from qec.training.settings import TrainSettings
from qec.training.validate import VALIDATION_SEED, validation_grid, validation_names


def teacher_batches(settings: TrainSettings, shots: int = 1024) -> list[Batch]:
    """Batches of the validation circuits' shots with the matching teacher's labels."""
    return [
        Labeller(Source(d, d, "ZV", basis, noise, settings.validation_p, "matching")).batch(
            shots, VALIDATION_SEED
        )
        for noise, d, basis in validation_grid(settings)
    ]


def mean_cross_entropy(network: PreDecoderNetwork, batches: list[Batch]) -> float:
    """Binary cross-entropy in nats per visible chain bit that the network tells, their mean."""
    cpu = torch.device("cpu")
    total = bits = 0.0
    with torch.inference_mode(), autocast(cpu):
        for events, static, labels, valid in batches:
            for part in zip(events.split(256), labels.split(256), strict=True):
                seen = valid[network.bits].sum().item() * len(part[0])
                logits = network(part[0].to(network_dtype(cpu)), static)
                total += cross_entropy(logits, part[1], valid, network.bits).item() * seen
                bits += seen
    return total / bits


def row(predecoder: Predecoder, bce: float, choice: Choice) -> list[str]:
    """One checkpoint: its training, what its network does alone, and its best rules."""
    lowest = min((r["threshold"], r["gap"]) for r in choice.records)
    alone = [r for r in choice.records if (r["threshold"], r["gap"]) == lowest]
    cells = [
        f"{predecoder.name}@{predecoder.digest}",
        str(predecoder.metadata.get("shots", "")),
        f"{predecoder.metadata.get('minutes', math.nan):.0f}",
        f"{bce:.5f}",
        f"{_mean(alone, 'F'):.3f} /{_mean(alone, 'events'):.1f}",
    ]
    for rule in (choice.rules.uncorrelated, choice.rules.correlated):
        found = [r for r in choice.records if chosen_by(rule, r)]
        gaps = " ".join(f"{r['gap']:g}" for r in found)
        cells.append(
            f"{rule.threshold:g}, {gaps}: F {_mean(found, 'F'):.3f} C {_mean(found, 'C'):.3f} "
            f"/{_mean(found, 'events'):.1f}"
        )
    return cells


def _mean(records: list[dict], name: str) -> float:
    """Geometric mean over distances and noises."""
    return math.exp(mean_log([r[name] for r in records]))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", help="names or paths")
    parser.add_argument("--set", nargs="*", default=[], help="validation keys of `qec train`")
    args = parser.parse_args(arguments)
    return exit_status(
        "qec.training.compare", "run the same command again", functools.partial(_compare, args)
    )


def _compare(args: argparse.Namespace) -> None:
    settings = TrainSettings.from_config(load_config("train", args.set))
    settings = dataclasses.replace(settings, validation_quiet_p=None, second_look=False)
    predecoders = [load_predecoder(name) for name in args.checkpoints]
    batches, p = teacher_batches(settings), settings.validation_p
    table = Table("checkpoint", "shots", "minutes", "BCE", "F at the lowest threshold, no fallback")
    for name in ("uncorrelated", "correlated"):
        table.add_column(f"{name}: threshold, gaps, F, C, events")
    for predecoder in predecoders:
        bce = mean_cross_entropy(predecoder.network, batches)
        choice = choose_rules(predecoder.network, settings)
        table.add_row(*row(predecoder, bce, choice))
    console = Console()
    console.width = max(console.width, 170)
    console.print(table)
    print(
        f"means over {', '.join(validation_names(settings))}, p = {p:g}; "
        f"{settings.validation_shots} shots per circuit, seeds from {VALIDATION_SEED}; "
        "BCE: against correlated matching, nats per bit"
    )


if __name__ == "__main__":
    sys.exit(main())
