"""The one exception type that means "your input is wrong"."""


class QecError(ValueError):
    """Bad input to qec: the message names the problem and the fix.

    The command line prints it as one line and exits with status 2.
    """


def first_line(error: BaseException) -> str:
    """First line of an exception's message without its full stop; its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
