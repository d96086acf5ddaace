"""Commit rules for a trained network: chosen, written with it, shown.

    python -m qec.training.rules CHECKPOINT out=FOLDER [key=value ...]

does so for a network that has been trained already, with the keys of conf/train.yaml that the
choice goes by: the validation keys, thresholds, gaps, ensemble.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from qec.config import module_main
from qec.errors import QecError
from qec.files import atomic_path, make_folder
from qec.predecoder.checkpoint import load_predecoder, save_predecoder
from qec.predecoder.network import PreDecoderNetwork
from qec.training.card import model_card
from qec.training.choice import choose_rules, validation_table
from qec.training.settings import TrainSettings
from qec.training.validate import VALIDATION_SEED, validation_names


def write_with_rules(
    network: PreDecoderNetwork,
    architecture: dict[str, object],
    history: dict[str, object],
    settings: TrainSettings,
) -> Path:
    """Chooses the rules; writes the checkpoint, ``settings.checkpoint``, and its card.

    What validation counts stays in validation.jsonl next to them: it goes on from there when it was
    stopped, and another choice from the same candidates takes no time.

    Args:
        network: trained.
        architecture: its arguments.
        history: how it was trained.
        settings: what the choice goes by.

    Raises:
        Preempted: after SIGUSR1 or SIGTERM.
    """
    choice = choose_rules(network, settings, settings.out / "validation.jsonl")
    history = {
        **history,
        "validation_shots": settings.validation_shots,
        "validation_circuits": validation_names(settings),
        "validation_p": settings.validation_p,
        "validation_quiet_p": settings.validation_quiet_p,
        "validation_quiet": choice.quiet,
        "validation_seed": VALIDATION_SEED,
        "validation": choice.records,
        "validation_density": settings.validation_density,
        "validation_quiet_density": settings.validation_quiet_density,
        "validation_quiet_density_correlated": settings.validation_quiet_density_correlated,
        "validation_f": settings.validation_f,
        "validation_c": settings.validation_c,
        "warnings": choice.warnings,
    }
    path = settings.checkpoint
    save_predecoder(path, network.state_dict(), architecture, choice.rules, history)
    with atomic_path(path.with_suffix(".md")) as temporary:
        temporary.write_text(model_card(load_predecoder(path)))
    Console().print(validation_table(choice))
    for warning in choice.warnings:
        print(f"warning: {warning}.")
    print(f"{path}: {history['shots']} shots, {history['minutes']} minutes, {choice.rules}")
    return path


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or "=" in arguments[0]:
        print("usage: python -m qec.training.rules CHECKPOINT out=FOLDER [key=value ...]")
        return 2
    name, *overrides = arguments
    return module_main("qec.training.rules", "train", overrides, functools.partial(_run, name))


def _run(name: str, config: DictConfig) -> None:
    settings = TrainSettings.from_config(config)
    predecoder = load_predecoder(name)
    if "model" not in predecoder.metadata:
        raise QecError(f"checkpoint {name} does not say how it was trained.")
    make_folder(settings.out)
    write_with_rules(
        predecoder.network, predecoder.metadata["model"], predecoder.metadata, settings
    )


if __name__ == "__main__":
    sys.exit(main())
