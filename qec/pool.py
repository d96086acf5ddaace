"""Work in other processes, whose results come as they are ready."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from qec.config import positive_integer
from qec.errors import QecError
from qec.preemption import STOP_SIGNALS

Job = TypeVar("Job")
Result = TypeVar("Result")


def worker_count(value: object, key: str = "num_workers") -> int:
    """The value of a key, null being one per core; QecError if it is no number."""
    return len(available_cores()) if value is None else positive_integer(key, value)


def available_cores() -> list[int]:
    """Numbers of the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def process_pool(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    """Workers that leave signals to the process that started them, and end with it."""
    context = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_start)


def results(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Iterator[tuple[Job, Result]]:
    """Each job with what the function makes of it, in the order in which they are ready.

    Args:
        function: one that can be pickled, as can jobs and results.
        workers: processes; with one the jobs are done here, in order.

    Raises:
        QecError: a process died.
    """
    if workers <= 1:
        for job in jobs:
            yield job, function(job)
        return
    others = set(multiprocessing.active_children())
    pool = process_pool(workers)
    try:
        futures = {pool.submit(function, job): job for job in jobs}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise QecError(
            "a worker process died, out of memory perhaps: use fewer, or smaller distances."
        ) from error
    finally:
        # Whoever stops early, by Ctrl-C for one, does not wait for what is under way.
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.kill()


def _start() -> None:
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
