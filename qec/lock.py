"""One writer per output folder: an advisory lock that ends with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shlex
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from qec.errors import QecError
from qec.files import make_folder

LOCK = ".qec.lock"
"""The name of the lock's file: it is there as long as the folder has a writer."""

_LEFT_OVER = re.compile(r"\.\d+\..+")  # what atomic_path and make_folder name by their process
_held: dict[tuple[int, int], int] = {}  # file descriptors by device and inode of the folder


@contextlib.contextmanager
def sole_writer(folder: Path, command: Sequence[str]) -> Iterator[None]:
    """Creates a folder and keeps others from writing to it during the context.

    Clears away temporary files of a writer that was killed.  A folder that was created and stays
    empty is removed.  On file systems without locks nothing is kept from anyone.

    Args:
        command: tells the others who writes.

    Raises:
        QecError: another process writes to the folder; or it cannot be written to.
    """
    is_new = not folder.exists()
    make_folder(folder)
    key = (folder.stat().st_dev, folder.stat().st_ino)
    if key in _held:  # by a caller of ours
        yield
        return
    descriptor = _lock(folder)
    if descriptor is None:
        yield
        return
    _held[key] = descriptor
    try:
        with contextlib.suppress(OSError):  # what it says is for people, a full disk can do without
            os.truncate(descriptor, 0)
            os.write(
                descriptor, f"{os.getpid()} {socket.gethostname()} {shlex.join(command)}".encode()
            )
        for path in folder.iterdir():
            if _LEFT_OVER.fullmatch(path.name) and path.is_file():
                path.unlink()
        yield
    finally:
        with contextlib.suppress(OSError):
            (
                folder / LOCK
            ).unlink()  # while it is ours: who waits for nobody finds none or a new one
        os.close(_held.pop(key))
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()


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
