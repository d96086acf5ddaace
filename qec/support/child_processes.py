"""How other processes are started: deaf to the signals of their parent, and gone when it is gone.

What a child does first is here, so that it needs no more than the standard library: the imports of
its work take seconds, in which its parent may be killed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess

from qec.support.stop_signals import STOP_SIGNALS, handled

_SPAWN = multiprocessing.get_context("spawn")
_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_started: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


def start(
    function: Callable[..., object], arguments: tuple = (), shared: tuple = (), name: str = ""
) -> BaseProcess:
    """Runs ``function(*shared, *arguments)`` in a new process, which ends with this one.

    Args:
        function, arguments: can be pickled.
        shared: pipes and shared arrays, which can be handed to a new process only.
        name: for messages.

    Returns:
        the process; signals that ask to stop are for the one that starts it: use ``kill``.
    """
    job = pickle.dumps((function, arguments))
    process = _SPAWN.Process(target=_run, args=(job, *shared), name=name or None, daemon=True)
    resource_tracker.ensure_running()  # its start would unblock the signals
    try:
        with signals_blocked():
            process.start()
            _started.add(process)
    except BaseException:  # a signal that has come meanwhile: nobody else will know of the process
        if process in _started:
            process.kill()
        raise
    return process


@atexit.register
def _kill_all() -> None:
    """At exit ``multiprocessing`` would ask them to end, with a signal that they never hear."""
    for process in _started:
        process.kill()


os.register_at_fork(after_in_child=_started.clear)  # they are not its own


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Processes that are started in this context never hear Ctrl-C, SIGTERM or SIGUSR1.

    A terminal and Slurm send these to all processes of a job; the one that started the others acts
    on them.  Here they come after the context.
    """
    numbers = (signal.SIGINT, *STOP_SIGNALS)
    came: list[int] = []
    try:
        # Another thread, that of a progress bar say, may get what this one blocks.
        ours = [n for n in numbers if signal.getsignal(n) is not None]  # Python's
        with handled(dict.fromkeys(ours, lambda number, _: came.append(number))):
            before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
            try:
                yield
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
    finally:
        for number in came:
            signal.raise_signal(number)


def end_with_parent(*, at_once: bool = True) -> None:
    """Call first in a process of ``multiprocessing``: it is killed when its parent ends.

    Linux does so by itself, even while other code holds Python's lock.  Elsewhere, and where the
    parent is gone already, a thread does.

    Args:
        at_once: False leaves it to the thread, which does not strike while a library holds Python's
            lock.  Torch does where it has made shared memory and has not yet taken away its name.
    """
    if at_once and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(job: bytes, *shared: object) -> None:
    end_with_parent()
    function, arguments = pickle.loads(job)
    function(*shared, *arguments)
