"""Small trainings in tests: their settings, a network of one, and what tests read in folders."""

from __future__ import annotations

import atexit
import contextlib
import functools
import pathlib
import shutil
import tempfile

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qec.cli.config import load_config
from qec.predecoder.architectures import build_network
from qec.predecoder.checkpoint import save_predecoder
from qec.training.loop import train
from qec.training.settings import TrainSettings

TINY = [
    "model={width: 8, layers: 4}",
    "noises=[uniform]",
    "ps=[0.01]",
    "batch=128",
    "save_every=0",
    "precision=float32",
]


SMALL = [
    *(
        "model={width: 16, layers: 4}",
        "distances=[3,5]",
        "orders=[across]",
        "with_cz=0",
        "spread=0",
    ),
    *("noises=[uniform,stim,si1000]", "ps=[0.001,0.02]", "shots=25600", "ema=0.98", "workers=0"),
]


@functools.cache
def trained() -> str:
    """The path of a checkpoint that fits memory experiments of d = 3 and 5, and commits edges.

    It is trained once in each process, in some seconds.
    """
    config = load_config("train", [*SMALL, f"out={_folder()}/small"])
    with contextlib.redirect_stdout(None):
        return str(train(TrainSettings.from_config(config)))


@functools.cache
def quiet() -> str:
    """The path of a checkpoint that commits nothing, and so fits all error models."""
    path, arguments = _folder() / "quiet.safetensors", {"width": 4, "layers": 2}
    save_predecoder(path, build_network(arguments).state_dict(), arguments, 1.0, {})
    return str(path)


def _folder() -> pathlib.Path:
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


def saved_step(state: pathlib.Path) -> int:
    """The step of a resumable state; 0 where there is none, or while it is being replaced."""
    with contextlib.suppress(OSError, RuntimeError), safe_open(state, framework="pt") as file:
        return int(file.metadata()["step"])
    return 0


def loss_curve(out: pathlib.Path) -> dict[int, float]:
    """The loss by step, from TensorBoard's files."""
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    return {event.step: event.value for event in events.Scalars("loss")}


def assert_same_training(first: pathlib.Path, second: pathlib.Path) -> None:
    """Equal bits: the loss curve, and weights, average and optimisers at the end."""
    assert loss_curve(first) == loss_curve(second)
    want, found = (load_file(out / "state.safetensors") for out in (first, second))
    assert want.keys() == found.keys()
    for key, tensor in want.items():
        assert torch.equal(tensor, found[key]), key
