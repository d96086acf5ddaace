"""Being asked to stop: the signals with which Slurm announces the end of a job."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


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
    """Takes note of stop signals in place of dying of them.

    Outside of the main thread, where Python allows no handlers, nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.note) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
