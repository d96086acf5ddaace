"""`qec train`."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from qec.training.settings import TrainSettings


def train_command(config: DictConfig, command: Sequence[str] = ("qec", "train")) -> None:
    """Trains as configured by conf/train.yaml, or goes on where a training was stopped.

    Raises:
        QecError: a value that makes no sense, or an output folder that is of another training.
    """
    settings = TrainSettings.from_config(config)
    from qec.training.loop import train  # torch, once the values are known to be sound

    train(settings, command)
