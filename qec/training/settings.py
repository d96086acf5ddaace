"""The settings of ``qec train``: all of conf/train.yaml, checked before anything is written."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from qec.circuits.noise_model import CircuitNoise
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.predecoder.architectures import architecture
from qec.support.errors import QecError
from qec.support.settings import plain_values, value_list

RANDOM_NOISE = "random"
"""Among ``noises``: 25 rates that are drawn at random."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The values of conf/train.yaml, whose comments say what each key means, validated.

    Lists are tuples, and what is listed twice in the mixture is drawn twice as often.  ``model``
    holds the arguments of ``PreDecoderNetwork``; ``batch`` and ``shots`` count shots, ``warmup``
    and ``log_every`` steps, ``save_every`` seconds.
    """

    out: Path
    model: dict[str, Any]
    seed: int
    threshold: float
    model_of: tuple[str, ...]
    distances: tuple[int, ...]
    rounds: int | None
    orientations: tuple[str, ...]
    orders: tuple[str, ...]
    noises: tuple[str, ...]
    ps: tuple[float, ...]
    with_cz: float
    spread: float
    shots: int
    batch: int
    shards: int
    muon_lr: float | None
    adamw_lr: float
    warmup: int
    ema: float
    init_from: str | None
    device: str
    workers: int
    precision: str
    tf32: bool
    compile: bool
    fused: bool
    log_every: int
    save_every: float

    @classmethod
    def from_config(cls, config: DictConfig) -> TrainSettings:
        """Checks every value; a single value stands for a list of one.

        Raises:
            QecError: a value of the wrong type or out of range, or a device that is not there.
        """
        values = plain_values(config)
        for key in _LISTS:
            empty = key in _MAY_BE_EMPTY and values[key] in (None, [])
            values[key] = () if empty else value_list(key, values[key])
        if isinstance(values["shots"], float) and values["shots"].is_integer():
            values["shots"] = int(values["shots"])  # 1e6 is a float in YAML
        for key, (fits, wanted) in _RULES.items():
            for value in values[key] if key in _LISTS else (values[key],):
                if not fits(value):
                    raise QecError(f"{key}={value!r} is not supported: use {wanted}.")
        for distance in values["distances"]:
            RotatedSurfaceCode(distance)
        for orientation in values["orientations"]:
            for order in values["orders"]:
                RotatedSurfaceCode(3, orientation, order)
        for noise in values["noises"]:
            for p in values["ps"]:
                CircuitNoise.named("uniform" if noise == RANDOM_NOISE else noise, p)
        if values["shots"] < values["batch"]:
            raise QecError(f"shots={values['shots']} is less than one batch of {values['batch']}.")
        if values["batch"] % (64 * values["shards"]):
            raise QecError(
                f"batch={values['batch']} does not make shards={values['shards']} equal parts: use "
                f"a multiple of {64 * values['shards']}."
            )
        # Torch is imported only where all that can be told without it is sound.
        from qec.predecoder.device import PRECISIONS, resolve_device

        if (precision := values["precision"]) not in PRECISIONS:
            wanted = " or ".join(PRECISIONS)
            raise QecError(f"precision={precision!r} is not supported: use {wanted}.")
        resolve_device(values["device"])
        return cls(
            **values | {"out": Path(values["out"]), "model": dict(architecture(values["model"]))}
        )

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.shots // self.batch

    @property
    def checkpoint(self) -> Path:
        """Where the trained pre-decoder goes; the name of its folder is its own."""
        return self.out / f"{self.out.resolve().name}.safetensors"

    def deciding(self) -> dict[str, Any]:
        """What decides the weights after a given number of steps, as JSON values."""
        return json.loads(json.dumps({key: getattr(self, key) for key in _DECIDING}))


_DECIDING = (
    *("model", "seed", "model_of", "distances", "rounds", "orientations", "orders", "noises", "ps"),
    *("with_cz", "spread", "batch", "shards", "muon_lr", "adamw_lr", "warmup", "ema", "init_from"),
)
_MAY_BE_EMPTY = ("model_of",)
_LISTS = ("distances", "orientations", "orders", "noises", "ps", *_MAY_BE_EMPTY)


def _integer(low: int, multiple: int = 1) -> Callable[[object], bool]:
    def fits(value: Any) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and low <= value < 2**63 and value % multiple == 0

    return fits


def _number(inside: Callable[[float], bool]) -> Callable[[object], bool]:
    def fits(value: Any) -> bool:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        return real and math.isfinite(value) and inside(value)

    return fits


_FLAG = (lambda x: isinstance(x, bool), "true or false")
_POSITIVE = (_number(lambda x: x > 0), "a number above 0")
_STRENGTH = (_number(lambda x: 0 < x <= 1), "numbers above 0 and at most 1")
_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "out": (lambda x: isinstance(x, str) and Path(x).resolve().name != "", "the path of a folder"),
    "model": (lambda x: isinstance(x, str | dict), "a name or {width: 64, layers: 6}"),
    "device": (lambda x: isinstance(x, str), "cpu, cuda or cuda:N"),
    "seed": (_integer(0), "an integer >= 0"),
    "rounds": (lambda x: x is None or _integer(1)(x), "null or an integer >= 1"),
    "ps": _STRENGTH,
    "model_of": (lambda x: isinstance(x, str), "null or paths"),
    "threshold": (_number(lambda x: 0.5 <= x <= 1), "a probability in [0.5, 1]"),
    "with_cz": (_number(lambda x: 0 <= x <= 1), "a number in [0, 1]"),
    "spread": (_number(lambda x: 0 <= x <= 2), "a number in [0, 2]"),
    "workers": (_integer(0), "an integer >= 0"),
    **dict.fromkeys(("tf32", "compile", "fused"), _FLAG),
    "shots": (_integer(1), "an integer >= 1"),
    "batch": (_integer(64, multiple=64), "a positive multiple of 64"),
    "shards": (_integer(1), "an integer >= 1"),
    "muon_lr": (lambda x: x is None or _POSITIVE[0](x), "null or a number above 0"),
    "adamw_lr": _POSITIVE,
    "warmup": (_integer(0), "an integer >= 0"),
    "ema": (_number(lambda x: 0 <= x < 1), "a number in [0, 1)"),
    "init_from": (lambda x: x is None or isinstance(x, str), "null, a name or a path"),
    "log_every": (_integer(1), "an integer >= 1"),
    "save_every": (_number(lambda x: x >= 0), "seconds >= 0"),
}
