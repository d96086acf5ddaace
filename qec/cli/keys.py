"""The keys of conf/: which hold paths and names, and what can be told of a value at once.

It imports nothing heavy, so that a slip in a command line is answered before torch is imported.
"""

from __future__ import annotations

import numbers
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qec.circuits.noise_model import CircuitNoise
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.decoding.decoder_names import check_decoder_name
from qec.predecoder.shipped import checkpoint_path
from qec.support.errors import QecError
from qec.support.files import STANDARD, is_file
from qec.support.settings import positive_integer

TEXT_KEYS = frozenset(
    (
        *("circuit", "structure", "reference", "weights", "google", "noise", "noises"),
        *("dets", "dets_format", "obs", "obs_format", "out", "out_format", "confidence"),
        *("predecoder", "init_from", "model_of", "graph", "evaluation"),
    )
)
"""Keys of paths and names: they get the text as it was typed, not what Hydra would read in it."""

SEVERAL: dict[str, frozenset[str]] = {
    "sweep": frozenset({"circuit", "noise", "predecoder"}),
    "evaluate": frozenset({"noise"}),
    "benchmark": frozenset({"noise", "predecoder"}),
    "benchmark-windows": frozenset({"noise"}),
    "learn-noise": frozenset({"google"}),
    "train": frozenset({"noises", "model_of"}),
}
"""Those of them that may hold several, with commas, by command."""

INPUTS = (
    *("circuit", "structure", "reference", "weights", "dets", "obs", "graph"),
    *("noise", "noises", "predecoder"),
)
"""Those of them that name what is read."""

_COUNTS = frozenset(
    (
        *("shots", "max_shots", "min_shots", "reliability_shots", "calibration_shots", "batch"),
        *("shots_per_step", "steps", "max_errors", "target_errors", "draws", "look", "checked"),
        *("batches", "threads", "num_workers", "predecoder_workers", "qubits"),
        *("rounds_per_distance", "period", "every", "decoded"),
    )
)
_LARGEST = 2**63  # of integers
_NOTHING = ("null", "None")
_COMMAS = 20  # at most, in the name of a file of a list
_WORDS = {"period_us": ("max",)}  # what stands for a number


def as_typed(
    command: str, override: str, keys: Sequence[str]
) -> tuple[str, str | list[str | None] | None] | None:
    """Key and value of ``key=value`` where the key holds paths or names; None for any other.

    ``null`` is None, and quotes around the whole are dropped.  Where several are allowed, a comma
    separates them, unless it is part of the name of a file that exists.

    Args:
        command: the name of its file in conf/.
        override: as typed.
        keys: those of the command.
    """
    key, equals, value = override.partition("=")
    if not equals or key not in TEXT_KEYS or key not in keys:
        return None
    if value in _NOTHING:
        return key, None
    if key not in SEVERAL.get(command, ()) or is_file(value):
        return key, _unquoted(value)
    bracketed = value.startswith("[") and value.endswith("]")
    parts = re.findall(r"""'[^']*'|"[^"]*"|[^,]+""", value[1:-1] if bracketed else value)
    found = _rejoined([part.strip() for part in parts])
    return key, found if bracketed or len(found) != 1 else found[0]


def _rejoined(parts: list[str]) -> list[str | None]:
    """Parts between commas; those that are the name of one file together are joined again."""
    found, start = [], 0
    while start < len(parts):
        ends = range(min(len(parts), start + 1 + _COMMAS), start + 1, -1)
        end = next((k for k in ends if is_file(",".join(parts[start:k]))), start + 1)
        text = ",".join(parts[start:end])
        found.append(None if text in _NOTHING else _unquoted(text))
        start = end
    return found


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted and not is_file(text) else text


def check_value(command: str, key: str, value: object, default: object) -> None:
    """QecError where no command could use a value.

    Args:
        command: the name of its file in conf/.
        key: of that file.
        value: a single one or a list.
        default: of the key; where it is a number or a flag, so must the value be.
    """
    items = value if isinstance(value, list) else [value]
    usual = next(iter(default), None) if isinstance(default, list) else default
    for item in items:
        if isinstance(item, list | dict) and (key in _CHECKS or isinstance(usual, int | float)):
            raise QecError(f"{key}={value} is nested: give one value, or a list of values.")
        if isinstance(item, int) and abs(item) >= _LARGEST:
            raise QecError(f"{key}={str(item)[:20]}... is not supported: use a number below 2**63.")
        is_flag = isinstance(item, bool)
        is_number = isinstance(item, numbers.Real) and not is_flag
        if isinstance(usual, bool):
            if not is_flag:
                raise QecError(f"{key}={item!r} is not supported: use true or false.")
        elif isinstance(usual, int | float) and not (
            is_number or item is None or item in _WORDS.get(key, ())
        ):
            raise QecError(f"{key}={item!r} is not supported: use a number.")
        if key in _COUNTS and not (item is None and default is None):
            if isinstance(item, float) and item.is_integer():  # 1e6
                item = int(item)
            positive_integer(key, item)
        if key in _CHECKS and (command, key) != ("realtime", "decoders"):
            _CHECKS[key](item)


def check_inputs(key: str, value: object) -> None:
    """QecError where a file that one of ``INPUTS`` names does not exist."""
    for item in value if isinstance(value, list) else [value]:
        if key == "predecoder":
            checkpoint_path(str(item))
        elif "noise" in key and Path(str(item)).suffix not in (".yaml", ".yml"):
            continue  # a name
        elif item not in (None, STANDARD):
            try:
                os.stat(str(item))
            except FileNotFoundError as error:
                raise QecError(f"there is no file {item}.") from error
            except OSError:
                pass  # who reads it says what is wrong with it


def _check_rounds(rounds: object) -> None:
    if rounds is None:
        return
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise QecError(f"rounds={rounds!r} is not supported: use an integer >= 1, or null.")


def _check_basis(basis: object) -> None:
    if basis not in ("X", "Z"):
        raise QecError(f"basis={basis!r} is not supported: use X or Z.")


def _check_columns(columns: object) -> None:
    if columns not in ("main", "all"):
        raise QecError(f"columns={columns!r} is not supported: use main or all.")


def _check_noise(noise: object) -> None:
    if Path(str(noise)).suffix not in (".yaml", ".yml"):
        CircuitNoise.named(str(noise), 0)


def _check_orientation(orientation: object) -> None:
    RotatedSurfaceCode(3, str(orientation))


_CHECKS: dict[str, Callable[[Any], object]] = {
    **dict.fromkeys(("distance", "distances"), RotatedSurfaceCode),
    **dict.fromkeys(("orientation", "orientations"), _check_orientation),
    "noise": _check_noise,
    "noises": lambda noise: None if noise == "random" else _check_noise(noise),  # of training
    **dict.fromkeys(("decoder", "decoders"), check_decoder_name),
    "basis": _check_basis,
    "p": lambda p: None if p is None else CircuitNoise.uniform(p),
    "rounds": _check_rounds,
    "columns": _check_columns,
}
