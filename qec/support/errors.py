"""The exception types, and how command lines turn them into one line and an exit status."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable

from qec.support.stop_signals import ended_by_signals


class QecError(ValueError):
    """Bad input to qec: the message names the problem and the fix.

    A command line prints it as one line and exits with status 2.

    Examples:
        >>> import qec
        >>> try:
        ...     qec.RotatedSurfaceCode(4)
        ... except qec.QecError as error:
        ...     print(error)
        distance=4 is not supported: use an odd integer >= 3 (3, 5, 7, ...).
    """


class Preempted(Exception):
    """A signal asked a long job to stop; what it needs to go on has been saved.

    A command line prints it and exits with ``PREEMPTED_STATUS``.
    """


PREEMPTED_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again


# What a file system says when it cannot take more; whoever else raises OSError explains it.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def exit_status(program: str, interrupted: str, run: Callable[[], object]) -> int:
    """Runs a command line; what ends it early goes to standard error.

    Args:
        program: its name.
        interrupted: what is kept and how to go on, once a signal or Ctrl-C has stopped it.

    Returns:
        0; 2 after a ``QecError``, a full disk or memory; ``PREEMPTED_STATUS`` after ``Preempted``;
        128 and the number of the signal after any other: 130 after Ctrl-C, 143 after SIGTERM.
    """
    try:
        with ended_by_signals():
            run()
    except Preempted as stop:
        print(f"{program}: {stop}: {interrupted}.", file=sys.stderr)
        return PREEMPTED_STATUS
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)
        # Ctrl-C has left a ^C on the line.
        by = "\n{}: interrupted" if number == signal.SIGINT else "{}: stopped by " + number.name
        print(f"{by.format(program)}; {interrupted}.", file=sys.stderr)
        return 128 + number
    except (QecError, MemoryError, OSError) as error:
        if (message := _explained(error)) is None:
            raise
        print(f"{program}: error: {one_line(message)}", file=sys.stderr)
        return 2
    return 0


def _explained(error: QecError | MemoryError | OSError) -> str | None:
    """What to tell the user of an error that is no mistake in this package; None if it may be."""
    if isinstance(error, QecError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory: use fewer worker processes, shots or distances."
    if error.errno in _NO_ROOM:
        return f"cannot write {error.filename or 'a file'}: {error.strerror}."
    return None


def one_line(message: str) -> str:
    """A message without line breaks; of one that quotes a very long input, both ends."""
    line = " ".join(message.split())
    return line if len(line) <= 1500 else f"{line[:1000]} ... {line[-400:]}"


def first_line(error: BaseException) -> str:
    """First line of an exception's message without its full stop; its type where it has none.

    Of a line that quotes a whole input, the beginning.
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return line if len(line) <= 300 else f"{line[:300]}..."
