"""Work in other processes, whose results come as they are ready."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from typing import Any, Generic, TypeVar

from qec.support import child_processes as child
from qec.support.errors import QecError
from qec.support.settings import positive_integer

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


class Workers(Generic[Job, Result]):
    """A context with processes that each do one job at a time; leaving it ends them at once.

    They leave signals to the process that started them, and end with it.

    Attributes:
        number: how many there are.
        idle: numbers of those that have nothing to do.
    """

    def __init__(self, number: int, function: Callable[[Job], Result]) -> None:
        """``function``: what each calls with its jobs; a copy of its own, if it has a state."""
        self.number, self._function = number, function
        self._pipes: dict[connection.Connection, int] = {}
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self.idle: set[int] = set()

    def __enter__(self) -> Workers[Job, Result]:
        try:
            for number in range(self.number):
                ours, theirs = multiprocessing.Pipe()
                self._pipes[ours] = number
                self._processes.append(child.start(_work, (self._function,), (theirs,)))
                theirs.close()  # so that the end of the process is the end of the pipe
        except BaseException:
            self.__exit__()
            raise
        self.idle = set(range(self.number))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return len(self.idle) < self.number

    def give(self, number: int, job: Job) -> None:
        """Hands a job to an idle worker."""
        self.idle.remove(number)
        pipe = next(pipe for pipe, other in self._pipes.items() if other == number)
        with _worker_alive():
            pipe.send(job)

    def wait(self) -> list[tuple[int, Result]]:
        """The results that are there, with the numbers of their workers; waits for one.

        Raises:
            QecError: a worker died, be it an idle one.
            Exception: what ``function`` raised.
        """
        done = []
        ready: list[Any] = connection.wait(self._pipes)
        for pipe in ready:  # of idle ones, too: they say nothing but die
            with _worker_alive():
                error, result = pipe.recv()
            if error is not None:
                raise error
            self.idle.add(self._pipes[pipe])
            done.append((self._pipes[pipe], result))
        return done

    def results(self, jobs: Iterable[Job]) -> Iterator[tuple[int, Result]]:
        """The place of each job and its result, in the order in which they are ready."""
        waiting, places = collections.deque(enumerate(jobs)), {}
        while waiting or self.busy:
            for number in sorted(self.idle)[: len(waiting)]:
                places[number], job = waiting.popleft()
                self.give(number, job)
            for number, result in self.wait():
                yield places[number], result


@contextlib.contextmanager
def _worker_alive() -> Iterator[None]:
    """A context in which the end of a pipe is a QecError."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise QecError(
            "a worker process died, out of memory perhaps: use fewer, or smaller distances."
        ) from error


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
    jobs = list(jobs)
    with Workers(min(workers, len(jobs)), function) as pool:
        for place, result in pool.results(jobs):
            yield jobs[place], result


def _work(pipe: connection.Connection, function: Callable[[Job], Result]) -> None:
    with contextlib.suppress(EOFError, ConnectionError):  # whoever gave the jobs has ended
        while True:
            job = pipe.recv()
            answer: tuple[Exception | None, Result | None]
            try:
                answer = (None, function(job))
            except Exception as error:
                error.add_note(traceback.format_exc())
                answer = (error, None)
            pipe.send(answer)
