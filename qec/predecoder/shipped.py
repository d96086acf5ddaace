"""Where checkpoints are; it imports nothing heavy."""

from __future__ import annotations

import warnings
from pathlib import Path

from qec.support.errors import QecError
from qec.support.files import is_file, resource_dir

_RENAMED = {"fast": "standard", "balanced": "standard", "accurate": "standard", "swift": "small"}


def shipped_checkpoints() -> list[str]:
    """The names of those in data/."""
    return sorted(path.stem for path in resource_dir("data").glob("*.safetensors"))


def checkpoint_path(name_or_path: str | Path) -> Path:
    """The file of a shipped checkpoint, by name, or of any checkpoint; QecError without one."""
    path = Path(name_or_path)
    if path.suffix != ".safetensors":
        name = str(name_or_path)
        if name in _RENAMED:
            text = f"the checkpoint {name} is gone, {_RENAMED[name]} takes its place"
            warnings.warn(f"{text}: use that name", FutureWarning, stacklevel=3)
        path = resource_dir("data") / f"{_RENAMED.get(name, name)}.safetensors"
    if not is_file(path):
        raise QecError(
            f"no pre-decoder checkpoint {str(name_or_path)!r}: give the path of a .safetensors "
            f"file or one of the shipped names {shipped_checkpoints()}."
        )
    return path
