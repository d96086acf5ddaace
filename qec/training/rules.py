"""Commit rules for a trained network: chosen, written with it, shown.

    python -m qec.training.rules [--extend] CHECKPOINT out=FOLDER [key=value ...]

does so for a network that has been trained already, with the keys of conf/train.yaml that the
choice goes by: the validation keys, thresholds, gaps, ensemble.  With --extend what the checkpoint
was validated on before, at other distances and noises, counts, too.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from qec.config import module_main
from qec.errors import QecError
from qec.files import atomic_path
from qec.lock import sole_writer
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
    extend: bool = False,
) -> Path:
    """Chooses the rules; writes the checkpoint, ``settings.checkpoint``, and its card.

    What validation counts stays in validation.jsonl next to them: it goes on from there when it was
    stopped, and another choice from the same candidates takes no time.

    Args:
        network: trained.
        architecture: its arguments.
        history: how it was trained.
        settings: what the choice goes by.
        extend: whether the validation that ``history`` tells of counts, too.

    Raises:
        Preempted: after SIGUSR1 or SIGTERM.
    """
    earlier = history if extend else {}
    choice = choose_rules(network, settings, settings.out / "validation.jsonl", earlier)
    history = {
        **history,
        **_validated(settings, earlier),
        "validation_p": settings.validation_p,
        "validation_quiet_p": settings.validation_quiet_p,
        "validation_quiet": choice.quiet,
        "validation_second": choice.second,
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


def _validated(settings: TrainSettings, earlier: Mapping[str, object]) -> dict[str, object]:
    """The validation circuits in words, and the number of shots of those that do not say."""
    names, shots = validation_names(settings), settings.validation_shots
    if not earlier:
        return {"validation_shots": shots, "validation_circuits": names}
    kept = [text for text in earlier["validation_circuits"] if text.split(" (")[0] not in names]
    if shots != earlier["validation_shots"]:
        names = [f"{name} ({shots} shots)" for name in names]
    return {
        "validation_shots": earlier["validation_shots"],
        "validation_circuits": [*kept, *names],
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    extend = arguments[:1] == ["--extend"]
    name, *overrides = arguments[extend:] or [""]
    if not name or "=" in name or name.startswith("-"):
        print(
            "usage: python -m qec.training.rules [--extend] CHECKPOINT out=FOLDER [key=value ...]"
        )
        return 2
    run = functools.partial(_run, name, extend)
    return module_main("qec.training.rules", "train", overrides, run)


def _run(name: str, extend: bool, config: DictConfig) -> None:
    settings = TrainSettings.from_config(config)
    predecoder = load_predecoder(name)
    if "model" not in predecoder.metadata:
        raise QecError(f"checkpoint {name} does not say how it was trained.")
    history = predecoder.metadata
    with sole_writer(settings.out):
        write_with_rules(predecoder.network, history["model"], history, settings, extend)


if __name__ == "__main__":
    sys.exit(main())
