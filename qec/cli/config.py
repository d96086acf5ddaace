"""Configuration: the YAML files of conf/ with command-line overrides in Hydra's syntax."""

from __future__ import annotations

import copy
import difflib
import functools
import re
from collections.abc import Mapping, Sequence

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Transformer
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qec.cli.keys import INPUTS, as_typed, check_inputs, check_value
from qec.support.errors import QecError, first_line
from qec.support.files import config_file
from qec.support.settings import plain_values, required_path

_DEEPEST = 8  # brackets of a value
_SHOWN = 100  # characters of a text in a message


def load_config(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Composes conf/<name>.yaml with overrides such as ``"p=0.003"``.

    A comma makes a list: ``distance=5,9,13`` is the list [5, 9, 13] (Hydra's sweep syntax).  Keys
    of paths and names take the text as typed; there a file whose name holds commas is that file.

    Raises:
        QecError: an override that cannot be parsed, a key or choice that does not exist, or a value
            that no command could use.
    """
    defaults = _composed(name)
    keys, groups = _keys(defaults), config_groups(name)
    typed = [as_typed(name, text, keys) for text in overrides]
    hydra = [_parse(name, text) for text, t in zip(overrides, typed, strict=True) if not t]
    for override in hydra:
        _check(name, override, keys, groups)
    chosen = {o.key_or_group: o for o in hydra if o.key_or_group in groups}
    values = [_as_list(o) for o in hydra if o.key_or_group not in groups]
    config = copy.deepcopy(_composed(name, *(str(o.input_line) for o in chosen.values())))
    for override in values:
        try:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException as error:
            raise QecError(f"{_cut(override.input_line)!r}: {first_line(error)}.") from error
    for key, value in filter(None, typed):
        config[key] = value
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise QecError(f"{name} cannot be configured: {first_line(error)}.") from error
    given = [*(override.key_or_group for override in values), *(t[0] for t in typed if t)]
    for key in dict.fromkeys(given):
        if key in config and not OmegaConf.is_missing(config, key):
            value, default = (plain_values(c)[key] for c in (config, defaults))
            check_value(name, key, value, default)
    return config


def check_paths(name: str, config: DictConfig) -> None:
    """QecError where a path that a command needs is left open, or a file that it reads is missing.

    The commands see to the same, once they have imported what they need.
    """
    instead = config.get("google") is not None  # of the keys that are left open
    usual = _composed(name)
    needed = [str(k) for k in config if not instead and OmegaConf.is_missing(usual, k)]
    for key in (*needed, *(["out"] if usual.get("out") else [])):
        required_path(config, key)
    for key in INPUTS:
        if key in config and not OmegaConf.is_missing(config, key):
            check_inputs(key, plain_values(config)[key])


@functools.cache
def _composed(name: str, *choices: str) -> DictConfig:
    """conf/<name>.yaml with choices of its groups, "group=choice"; nobody may change it.

    Hydra takes a tenth of a second for it, so that other overrides are not left to it.
    """
    with initialize_config_dir(str(config_file(name).parent), version_base=None):
        return compose(name, overrides=list(choices))


def _parse(name: str, text: str) -> Override:
    key, _, value = text.partition("=")
    if called := re.match(r"[^'\"]*?(\w+)\s*\(", value):
        raise QecError(
            f"{key}: {called[1]}(...) is not supported: write the values as a list, {key}=a,b,c."
        )
    try:
        if max(value.count("["), value.count("{")) > _DEEPEST:
            raise HydraException(f"more than {_DEEPEST} opening brackets")
        override = OverridesParser.create().parse_override(text)
        override.value()
        return override
    except (HydraException, ValueError) as error:  # ValueError: thousands of digits
        raise QecError(
            f"cannot read {_cut(text)!r} as key=value for {name} ({first_line(error)}). "
            "Examples: p=0.006  distance=5,9  'decoders=[pymatching,pymatching-css]'"
        ) from error


def _cut(text: str | None) -> str:
    text = text or ""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _as_list(override: Override) -> Override:
    """The override, with a sweep over values turned into a list of them."""
    if not override.is_sweep_override():
        return override
    try:
        values = override.sweep_iterator(transformer=Transformer.str)
        text = f"{override.key_or_group}=[{','.join(map(str, values))}]"
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise QecError(f"{override.input_line!r}: write the values as a list, a,b,c.") from error


def _keys(config: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in map(str, config):
        keys.append(f"{prefix}{key}")
        if not OmegaConf.is_missing(config, key) and isinstance(config[key], DictConfig):
            keys += _keys(config[key], f"{prefix}{key}.")
    return keys


@functools.cache
def config_groups(name: str) -> dict[str, list[str]]:
    """The choices of each config group: conf/<group>/ for the groups of conf/<name>.yaml."""
    path = config_file(name)
    entries = DictConfig(OmegaConf.load(path)).get("defaults", [])
    groups = [str(group) for entry in entries if isinstance(entry, DictConfig) for group in entry]
    return {g: sorted(file.stem for file in (path.parent / g).glob("*.yaml")) for g in groups}


def _check(
    name: str, override: Override, keys: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> None:
    """QecError unless the override changes a key, or takes one of a group's choices."""
    if override.type is not OverrideType.CHANGE or override.package is not None:
        raise QecError(f"{_cut(override.input_line)!r}: keys cannot be added, removed or moved.")
    key = override.key_or_group
    if key in groups:
        if override.value() not in (None, *groups[key]):
            raise QecError(f"{_cut(override.input_line)} is unknown: use {', '.join(groups[key])}.")
    elif key not in keys:
        known = [*keys, *groups]
        close = difflib.get_close_matches(key, known, n=3) or [k for k in known if key in k][:3]
        hint = f"did you mean {' or '.join(close)}?" if close else f"use {', '.join(known)}."
        raise QecError(f"{name} has no key {_cut(key)!r}: {hint}")
