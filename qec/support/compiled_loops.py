"""Loops compiled by numba when they are first needed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from numba import njit
from numba.core import event


def compiled(function: Callable) -> Callable:
    """The function in machine code, which is kept on disk where there is a place for it."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder nor the home can be written to
        return njit(nogil=True, error_model="numpy")(function)


class _Said(event.Listener):
    """Says once that something is compiled, which what is kept on disk is not."""

    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: event.Event) -> None:
        if not self._said:
            print("qec: compiling loops, once", file=sys.stderr)
        self._said = True

    def on_end(self, event: event.Event) -> None:
        pass


@contextlib.contextmanager
def compiling_said() -> Iterator[None]:
    """Where the block compiles loops, standard error says so: it takes many seconds."""
    with event.install_listener("numba:compile", _Said()):
        yield
