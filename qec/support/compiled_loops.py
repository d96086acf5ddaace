"""Loops compiled by numba when they are first needed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from numba import njit
from numba.core import event


def compiled(function: Callable) -> Callable:
    """The function in machine code, which is kept on disk where there is a place for it."""
    try:
        found: Any = njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder nor the home can be written to
        return njit(nogil=True, error_model="numpy")(function)
    found._cache = _Cache(found._cache)
    return found


class _Cache:
    """A cache of numba that forgets what an earlier version of this package has left there.

    numba unpickles the argument types before it compares the dates of the sources, and types may
    have changed their names since.
    """

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, *arguments: Any) -> Any:
        """As numba's; None, so that it compiles, where what is kept cannot be read."""
        try:
            return self._cache.load_overload(*arguments)
        except (AttributeError, ImportError):
            self._cache.flush()
            return None


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
