"""One writer per output folder: an advisory lock that ends with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from omegaconf import DictConfig

from qec.support.errors import QecError
from qec.support.files import make_folder
from qec.support.settings import required_path

Result = TypeVar("Result")

LOCK = ".qec.lock"
"""The name of the lock's file: it is there as long as the folder has a writer."""

# What atomic_path names by its process.
_LEFT_OVER = re.compile(
    r"\.\d+\..+\.(csv|seeds|jsonl?|safetensors|png|svg|md|txt|dem|onnx|stim|yaml|html)"
)
_held: dict[tuple[int, int], int] = {}  # file descriptors by device and inode of the folder


def writes_out_alone(run: Callable[..., Result]) -> Callable[..., Result]:
    """For a command, whose first argument is its configuration: ``out`` is its own as it runs.

    Raises:
        QecError: as ``sole_writer``, or there is no ``out``.
    """

    @functools.wraps(run)
    def alone(config: DictConfig, *rest: object, **named: object) -> Result:
        with sole_writer(required_path(config, "out")):
            return run(config, *rest, **named)

    return alone


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Creates a folder and keeps other processes from writing to it during the context.

    Clears away temporary files of a writer that was killed.  What was created and stays empty is
    removed.  On file systems without locks nobody is kept from anything.

    Raises:
        QecError: another process writes to the folder; or it cannot be written to.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    place = folder.stat()
    key = (place.st_dev, place.st_ino)
    descriptor = None if key in _held else _lock(folder)  # a caller of ours may have it
    if descriptor is None:
        yield
        return
    _held[key] = descriptor
    try:
        if os.fstat(descriptor).st_size:  # a writer that was killed has left it
            _clear(folder)
        _introduce(descriptor)
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()  # while it is ours
        os.close(_held.pop(key))
        with contextlib.suppress(OSError):
            for path in created:
                path.rmdir()


def _clear(folder: Path) -> None:
    """Removes temporary files that nobody will finish."""
    for path in folder.iterdir():
        if _LEFT_OVER.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _introduce(descriptor: int) -> None:
    """Says who has the lock; others can do without, where the disk is full."""
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    text = f"{os.getpid()} {socket.gethostname()} {shlex.join(command)}"
    with contextlib.suppress(OSError):
        os.truncate(descriptor, 0)
        os.write(descriptor, text.encode(errors="replace"))


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the lock; None where the file system has no locks."""
    path = folder / LOCK
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 10_000).decode(errors="replace")
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise QecError(_refusal(folder, holder)) from error
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # its last holder has just removed it


def _refusal(folder: Path, holder: str) -> str:
    pid, _, rest = holder.partition(" ")
    host, _, command = rest.partition(" ")
    who = f"process {pid} on {host} ({command})" if command else "another process"
    return f"{who} is writing to {folder}: wait for it, stop it, or choose another out=."


def _forget() -> None:
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


# A process that is forked, to make batches say, would hold the lock with its parent and after it.
os.register_at_fork(after_in_child=_forget)
