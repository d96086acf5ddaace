"""Being asked to stop: Ctrl-C, SIGTERM, and the signal with which Slurm announces a job's end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
_PATIENCE = 5.0  # seconds after which a signal that comes again is not the echo of the first


class Terminated(KeyboardInterrupt):
    """A signal other than Ctrl-C asks to end; what ends orderly at Ctrl-C does so here.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = signal.Signals(number)


class StopRequest:
    """Whether a stop signal has come.

    Attributes:
        name: of the signal, such as "SIGUSR1"; None as long as there was none.
    """

    name: str | None = None

    def note(self, number: int, _: object) -> None:
        """The signal handler."""
        self.name = signal.Signals(number).name


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Takes note of stop signals in place of ending.

    Outside of the main thread, where Python allows no handlers, nothing changes.
    """
    request = StopRequest()
    with handled(dict.fromkeys(STOP_SIGNALS, request.note)):
        yield request


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Stop signals raise ``Terminated`` and Ctrl-C ``KeyboardInterrupt``, once.

    Whoever presses Ctrl-C a second time ends the process at once.  Other signals that follow soon
    are those of a batch system, which sends several: the first is being answered.  A signal that
    this process was started to ignore stays ignored, and nothing changes outside of the main
    thread.
    """
    first: list[float] = []

    def answer(number: int, _: object) -> None:
        now = time.monotonic()
        if not first:
            first.append(now)
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)
        if number == signal.SIGINT or now - first[0] > _PATIENCE:
            if sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\n")  # a progress bar has hidden the cursor
            os._exit(128 + number)

    usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}
    usual |= dict.fromkeys(STOP_SIGNALS, signal.SIG_DFL)
    with handled({n: answer for n, handler in usual.items() if signal.getsignal(n) == handler}):
        yield


@contextlib.contextmanager
def handled(handlers: Mapping[int, Any]) -> Iterator[None]:
    """Signals have these handlers; outside of the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with contextlib.ExitStack() as stack:  # all are put back, even if one of them raises meanwhile
        for number, handler in handlers.items():
            stack.callback(signal.signal, number, signal.signal(number, handler))
        yield
