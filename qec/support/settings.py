"""Values of settings: checked one by one, with a message that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from qec.support.errors import QecError


def plain_values(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists, strings and numbers."""
    values = OmegaConf.to_container(config)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def required_path(config: DictConfig, key: str) -> Path:
    """The path ``config[key]``; QecError where it is left open (???), null or empty."""
    value = None if OmegaConf.is_missing(config, key) else config[key]
    if value is None or str(value) == "":
        raise QecError(f"{key} is empty: give {key}=PATH.")
    return Path(str(value))


def value_list(key: str, value: object) -> tuple:
    """A list, or a single value, as a tuple; QecError if empty or nested."""
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, list | dict) for item in items):
        raise QecError(f"{key}={items} is nested: give one value, or a list of values.")
    if not items:
        raise QecError(f"{key} is empty: give at least one value.")
    return tuple(items)


def distinct_values(key: str, value: object) -> tuple:
    """As ``value_list``, without repetitions."""
    return tuple(dict.fromkeys(value_list(key, value)))


def positive_integer(key: str, value: object, least: int = 1) -> int:
    """``value`` if it is an integer >= ``least``, else QecError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise QecError(f"{key}={value!r} is not supported: use an integer >= {least}.")
    return value
