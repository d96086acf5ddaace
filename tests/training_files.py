"""Settings of small trainings in tests, and what those read in their folders."""

from __future__ import annotations

import contextlib
import pathlib

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TINY = [
    "model={width: 8, layers: 4}",
    "noises=[uniform]",
    "ps=[0.01]",
    "batch=128",
    "save_every=0",
    "precision=float32",
    "validation_shots=64",
    "validation_distances=[3]",
    "validation_noises=[uniform]",
    "thresholds=[0.9]",
    "gaps=[0.3]",
]


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
