"""The exception types that the command line turns into one line and an exit status."""


class QecError(ValueError):
    """Bad input to qec: the message names the problem and the fix.

    The command line prints it as one line and exits with status 2.
    """


class Preempted(Exception):
    """A signal asked a long job to stop; what it needs to go on has been saved.

    The command line prints it and exits with ``PREEMPTED_STATUS``.
    """


PREEMPTED_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again


def first_line(error: BaseException) -> str:
    """First line of an exception's message without its full stop; its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
