"""What tests read in the folder of a training."""

from __future__ import annotations

import contextlib
import pathlib

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


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
