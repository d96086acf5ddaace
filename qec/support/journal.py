"""Files that grow line by line, so that whatever ends a job leaves all but the last line."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from qec.support.errors import QecError
from qec.support.files import atomic_path


def append_text(path: Path, text: str) -> None:
    """Adds whole lines at the end of a file.

    Raises:
        QecError: there is no room for them, say; then none of them is there.
    """
    try:
        whole = path.stat().st_size if path.exists() else 0
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, whole)
            raise
    except OSError as error:
        raise QecError(
            f"cannot write {path}: {error.strerror or error}; what it holds stays."
        ) from error


def keep(path: Path, text: str) -> None:
    """Replaces what is there by the part of it that is whole."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
