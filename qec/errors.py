"""The exception types, and how command lines turn them into one line and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable


class QecError(ValueError):
    """Bad input to qec: the message names the problem and the fix.

    A command line prints it as one line and exits with status 2.
    """


class Preempted(Exception):
    """A signal asked a long job to stop; what it needs to go on has been saved.

    A command line prints it and exits with ``PREEMPTED_STATUS``.
    """


PREEMPTED_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again


def exit_status(program: str, interrupted: str, run: Callable[[], object]) -> int:
    """Runs a command line; what ends it early goes to standard error.

    Args:
        program: its name.
        interrupted: what is kept and how to go on, once a signal or Ctrl-C has stopped it.

    Returns:
        0; 2 after a ``QecError``; ``PREEMPTED_STATUS`` after ``Preempted``; 130 after Ctrl-C.
    """
    try:
        run()
    except QecError as error:
        print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Preempted as stop:
        print(f"{program}: {stop}: {interrupted}.", file=sys.stderr)
        return PREEMPTED_STATUS
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted; {interrupted}.", file=sys.stderr)
        return 130
    return 0


def first_line(error: BaseException) -> str:
    """First line of an exception's message without its full stop; its type where it has none.

    Of a line that quotes a whole input, the beginning.
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return line if len(line) <= 300 else f"{line[:300]}..."
