"""Files: where the package keeps its own, and how it writes others so that none is half-written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from qec.errors import QecError


def resource_dir(name: str) -> Path:
    """The folder "conf" or "data": inside an installed package, at the root of a checkout."""
    package = Path(__file__).resolve().parent
    for place in (package / name, package.parent / name):
        if place.is_dir():
            return place
    raise QecError(f"the folder {name}/ of the qec package is missing: install the package again.")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder that becomes ``path`` if the block succeeds."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise QecError(f"cannot write {path}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Creates a folder unless it exists, and makes sure that files can be written to it."""
    probe = path / f".{os.getpid()}.probe"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise QecError(f"cannot write to the folder {path}: {error.strerror or error}.") from error
