"""Mutated input for everything that reads files or words: a result or one line, nothing else.

``python tests/fuzz_readers.py READER COUNT [SEED]``, READER being one of ``READERS`` or ``all``.
Inputs are the same for the same seed.  Each batch is read in a forked process with little memory
and a time limit: a traceback other than a QecError's, a signal or a time-out is a bug.  Its input
is kept, and the exit status is 1.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
from fuzz_inputs import READERS, Reader

from qec.support.errors import QecError

SECONDS = 10  # for one input
MEMORY = 2 * 2**30  # bytes that reading may take, beyond what the process has
_BATCH = 100  # inputs to a process


@dataclasses.dataclass
class Outcome:
    """What came of the inputs: how many were read and refused, and the bugs, (number, what)."""

    read: int = 0
    refused: int = 0
    bugs: list[tuple[int, str]] = dataclasses.field(default_factory=list)


def inputs(reader: Reader, seed: int, numbers: range) -> list[bytes]:
    """The inputs of these numbers."""
    valid = reader.valid()
    found = []
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        found.append(reader.mutate(valid[int(rng.integers(len(valid)))], rng))
    return found


def fuzz(name: str, count: int, seed: int = 0) -> Outcome:
    """Reads ``count`` mutated inputs."""
    reader, outcome, start = READERS[name], Outcome(), 0
    reader.valid()  # imports what is needed, before the first fork
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / reader.name
        for valid in reader.valid():
            path.write_bytes(valid)
            reader.read(path)
        while start < count:
            numbers = range(start, min(count, start + _BATCH))
            start = _batch(reader, inputs(reader, seed, numbers), numbers, path, outcome)
    return outcome


def _batch(reader: Reader, batch: list[bytes], numbers: range, path: Path, outcome: Outcome) -> int:
    """Reads a batch in a process of its own, until one kills it; returns the next number."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _limit()
        with os.fdopen(writing, "w", buffering=1) as out:
            for data in batch:
                path.write_bytes(data)
                print(json.dumps(_verdict(reader, path)), file=out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as lines:
        verdicts = [json.loads(line) for line in lines]
    _, status = os.waitpid(child, 0)
    for number, verdict in zip(numbers, verdicts, strict=False):
        if verdict in ("read", "refused"):
            setattr(outcome, verdict, getattr(outcome, verdict) + 1)
        else:
            outcome.bugs.append((number, verdict))
    if len(verdicts) == len(batch):
        return numbers.stop
    died = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"{status=}"
    number = numbers[len(verdicts)]
    outcome.bugs.append((number, f"{died}{' (hangs)' if died == 'SIGALRM' else ''}"))
    return number + 1


def _limit() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _verdict(reader: Reader, path: Path) -> str:
    signal.alarm(SECONDS)
    try:
        reader.read(path)
        return "read"
    except QecError:
        return "refused"
    except BaseException:
        return traceback.format_exc(limit=-3)
    finally:
        signal.alarm(0)


def main(arguments: list[str]) -> int:
    names = list(READERS) if arguments[0] == "all" else [arguments[0]]
    count, seed = int(arguments[1]), int(arguments[2]) if len(arguments) > 2 else 0
    failed = False
    for name in names:
        begun = time.monotonic()
        outcome = fuzz(name, count, seed)
        print(
            f"{name}: {outcome.read} read, {outcome.refused} refused, {len(outcome.bugs)} bugs "
            f"({time.monotonic() - begun:.0f} s)",
            flush=True,
        )
        for number, what in outcome.bugs[:20]:
            kept = Path(tempfile.gettempdir()) / f"fuzz-{name}-{seed}-{number}"
            kept.write_bytes(inputs(READERS[name], seed, range(number, number + 1))[0])
            print(f"{kept}: {what}")
        failed |= bool(outcome.bugs)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
