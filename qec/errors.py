"""The one exception type that means "your input is wrong"."""


class QecError(ValueError):
    """Bad input to qec: the message names the problem and the fix.

    The command line prints it as one line and exits with status 2.
    """
