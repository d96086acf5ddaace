"""Files: where the package keeps its own, and how it writes others so that none is half-written."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from qec.support.errors import QecError, first_line

STANDARD = "-"
"""The path of standard input, and of standard output."""


def resource_dir(name: str) -> Path:
    """The folder "conf" or "data": inside an installed package, at the root of a checkout.

    Raises:
        QecError: there is none.
    """
    package = Path(__file__).resolve().parents[1]
    for place in (package / name, package.parent / name):
        if place.is_dir():
            return place
    raise QecError(f"the folder {name}/ of the qec package is missing: install the package again.")


def config_file(name: str) -> Path:
    """The path of conf/<name>.yaml.

    Raises:
        QecError: there is no such file.
    """
    path = resource_dir("conf") / f"{name}.yaml"
    if not path.is_file():
        raise QecError(f"{path} is missing: install the qec package again.")
    return path


def is_file(path: str | Path) -> bool:
    """As ``Path.is_file``; False for what cannot be the path of a file, a very long text, say."""
    return os.path.isfile(path)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder that becomes ``path`` if the block succeeds.

    A symbolic link stays, and the file that it names is replaced.  A pipe or device, and standard
    output for "-", get what was written once it is complete.

    Raises:
        QecError: the file cannot be written, whatever the exception that the writer reports it by.
    """
    target = Path(os.path.realpath(path))
    with contextlib.ExitStack() as stack:
        try:
            if _is_stream(path):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                temporary = folder / f"stream{path.suffix}"
                yield temporary
                _copy(temporary, path)
                return
            temporary = target.with_name(f".{os.getpid()}.{target.name}")
            stack.callback(_remove, temporary)
            yield temporary
            _sync(temporary)
            temporary.replace(target)
        except QecError:
            raise
        except Exception as error:
            if (reason := _refused(error)) is None:
                raise
            raise QecError(f"cannot write {path}: {reason}.") from error


def print_files(paths: Iterable[Path]) -> None:
    """Prints which files a command has written: their names, a line per folder."""
    for folder, group in itertools.groupby(paths, key=lambda path: path.parent):
        print(f"files in {folder}: {' '.join(path.name for path in group)}")


def make_folder(path: Path) -> None:
    """Creates a folder unless it exists, and makes sure that files can be written to it.

    Raises:
        QecError: they cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()  # without a name, where the system can
    except OSError as error:
        raise QecError(f"cannot write to the folder {path}: {error.strerror or error}.") from error


def make_place(path: Path) -> None:
    """Makes sure that a file can be written: its folder, created unless it exists, is no obstacle.

    Raises:
        QecError: as ``make_folder``, or ``path`` is a folder.
    """
    if os.path.isdir(path):
        raise QecError(f"{path} is a folder: give the path of a file.")
    if not _is_stream(path):
        make_folder(Path(os.path.realpath(path) if os.path.islink(path) else path).parent)


def _is_stream(path: Path) -> bool:
    """Whether it is written to, not replaced: neither an ordinary file nor a place for one."""
    if str(path) == STANDARD or Path(os.path.abspath(path)).parent in _DEVICES:
        return True
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


_DEVICES = (Path("/dev"), Path("/dev/fd"))


def _copy(source: Path, stream: Path) -> None:
    with contextlib.ExitStack() as stack:
        written = stack.enter_context(source.open("rb"))
        if str(stream) == STANDARD:
            sys.stdout.flush()
            out = sys.stdout.buffer
        else:
            out = stack.enter_context(stream.open("wb"))
        shutil.copyfileobj(written, out)
        out.flush()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _sync(path: Path) -> None:
    """Waits until it is on the disk: what does not fit may be noticed only then."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _refused(error: Exception) -> str | None:
    """Why the operating system did not write a file; None for an error of another kind.

    Libraries wrap its error (``SafetensorError``), or keep no more than its text.
    """
    for cause in (error, error.__cause__, error.__context__):
        if isinstance(cause, OSError):
            return cause.strerror or first_line(cause)
    texts = (os.strerror(code) for code in errno.errorcode)
    return next((text for text in texts if text in str(error)), None)
