"""Kills jobs at random moments, lets them go on, and checks what is left.

    python tests/kill_jobs.py [--kills 50] [--terms 20] [--seed 1] [JOB ...]

for each of the jobs sweep, evaluate, train, learn-noise, realtime: so many SIGKILL and SIGTERM to
the first process only.  After each, no process of its session is left within 5 seconds, nothing is
left in /dev/shm, and no file that is replaced as a whole is torn.  Then the same command goes on in
the same folder.  When it has come to its end, no row is lost or doubled and no temporary file left.
On a machine that others use, give it a /dev/shm of its own:

    unshare -m sh -c "mount -t tmpfs none /dev/shm; python tests/kill_jobs.py"
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.image
import sinter
import stim
from safetensors import safe_open
from safetensors.torch import load_file

from qec.support.folder_lock import LOCK

PATIENCE = 5.0  # seconds in which all of a job has to be gone
SHOTS = 300_000
_CHAIN = 5  # kills before a job comes to its end


@dataclasses.dataclass(frozen=True)
class Job:
    """A command without its out=, and what must be true of the folder once it is done."""

    words: tuple[str, ...]
    check: Callable[[Path], None]

    def start(self, out: Path) -> Session:
        return Session([sys.executable, "-m", "qec.cli", *self.words, f"out={out}"], out.parent)


def check_shots(wanted: int | None, out: Path) -> None:
    lines = (out / "collected.csv").read_text().splitlines()
    assert len(set(lines)) == len(lines), "a row is there twice"
    stats = sinter.read_stats_from_csv_files(out / "collected.csv")
    if wanted is not None:
        assert all(stat.shots == wanted for stat in stats), [stat.shots for stat in stats]
        seeds = [line.split()[1] for line in (out / "collected.seeds").read_text().splitlines()]
        assert len(set(seeds)) == len(seeds), "a seed is there twice"


def check_training(out: Path) -> None:
    steps = [int(load_step(out)), 6400 // 64]
    assert steps[0] == steps[1], steps
    with safe_open(out / f"{out.name}.safetensors", framework="pt") as file:
        history = json.loads(file.metadata()["qec"])["history"]
    assert history["shots"] == 6400
    begun = [session["step"] for session in history["sessions"]]
    assert begun[0] == 0
    assert begun == sorted(begun)


def load_step(out: Path) -> str:
    with safe_open(out / "state.safetensors", framework="pt") as file:
        return file.metadata()["step"]


def check_learned(out: Path) -> None:
    assert stim.DetectorErrorModel.from_file(out / "learned.dem").num_detectors == 24


def check_report(out: Path) -> None:
    (run,) = json.loads((out / "report.json").read_text())["runs"]
    assert run["decided"] == run["windows"]


def jobs(folder: Path) -> dict[str, Job]:
    """All of them; files that they read go to ``folder``."""
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_x", distance=3, rounds=3, after_clifford_depolarization=0.01
    )
    circuit.to_file(folder / "memory.stim")
    circuit.compile_detector_sampler(seed=1).sample_write(
        20_000, filepath=str(folder / "events.b8"), format="b8"
    )
    points = ("distance=3", "p=0.01", "basis=X", "noise=uniform", "num_workers=2")
    sweep = (*points, "batch=256", f"max_shots={SHOTS}")
    stream = ("p=0.003", "rounds=60", "shots=4", "period_us=500")
    few = ("distances=3", "rounds=2", "shots=6400", "save_every=0", "log_every=10")
    return {
        "sweep": Job(
            ("sweep", *sweep, "decoders=[pymatching,pymatching-css]"),
            lambda out: check_shots(SHOTS, out),
        ),
        "evaluate": Job(
            ("evaluate", *points, "precision=0.3", "min_shots=5000", "max_shots=20000"),
            lambda out: check_shots(None, out),
        ),
        "train": Job(("train", "model={width: 8, layers: 2}", *few), check_training),
        "learn-noise": Job(
            ("learn-noise", f"structure={folder / 'memory.stim'}", f"dets={folder / 'events.b8'}"),
            check_learned,
        ),
        "realtime": Job(
            ("realtime", "distance=3", *stream, "workers=2", "decoders=[pymatching-css]"),
            check_report,
        ),
    }


class Session:
    """A job in a session of its own, so that all its processes can be found."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        # Not a pipe, which would end with the last process only.
        self._error = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=self._error,
            cwd=folder,
            preexec_fn=_with_usual_signals,
        )

    def members(self) -> list[str]:
        """Those that run, as ps shows them."""
        shown = subprocess.run(
            ["ps", "-ww", "-eo", "pid,sid,stat,args"], capture_output=True, text=True
        )
        rows = [line.split(maxsplit=3) for line in shown.stdout.splitlines()[1:]]
        return [" ".join(r) for r in rows if r[1] == str(self.process.pid) and r[2][0] != "Z"]

    def check_gone(self, shared: set[str] | None = None) -> float:
        """Seconds until its processes, and what is in /dev/shm beyond ``shared``, are gone.

        Raises:
            AssertionError: there is some left after ``PATIENCE``.
        """
        start = time.monotonic()
        while True:
            left = self.members()
            memory = set() if shared is None else set(os.listdir("/dev/shm")) - shared
            seconds = time.monotonic() - start
            if not left and not memory:
                return seconds
            if seconds > PATIENCE:
                for row in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(row.split()[0]), signal.SIGKILL)
                raise AssertionError(f"left: {left} {sorted(memory)}")
            time.sleep(0.05)

    def end(self) -> tuple[int, str]:
        """Waits for the first process; its exit status, and standard error so far."""
        status = self.process.wait(timeout=600)
        self._error.seek(0)
        return status, self._error.read()


def _with_usual_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


_READERS: dict[str, Callable[[Path], object]] = {
    ".png": matplotlib.image.imread,
    ".svg": xml.etree.ElementTree.parse,
    ".json": lambda path: json.loads(path.read_text()),
    ".safetensors": load_file,
    ".dem": stim.DetectorErrorModel.from_file,
    ".md": Path.read_text,
    ".txt": Path.read_text,
}


def check_files(out: Path, *, done: bool) -> None:
    """No file is torn; and once a job is ``done``, nothing temporary is there."""
    if not out.exists():
        return
    for path in out.rglob("*"):
        temporary = re.match(r"\.\d+\.|\.qec\.lock", path.name)
        assert not (done and temporary), path
        if not temporary and path.suffix in _READERS:
            _READERS[path.suffix](path)


def rows_so_far(out: Path) -> list[str]:
    """Whole lines of the file that grows."""
    if not (out / "collected.csv").exists():
        return []
    text = (out / "collected.csv").read_text()
    return text[: text.rfind("\n") + 1].splitlines()


def check_signalled(number: int, status: int, error: str) -> None:
    """What a job that was asked to stop says."""
    assert "Traceback" not in error, error
    if number == signal.SIGKILL:
        assert status in (-number, 0), status
    elif status == -number:
        assert not error, error  # before Python itself was ready
    elif status != 0:
        assert status in (75, 128 + number), status
        lines = [line for line in error.strip().splitlines() if line.startswith("qec: ")]
        assert len(lines) == 1, error


def campaign(
    name: str,
    job: Job,
    folder: Path,
    signals: Sequence[int],
    rng: random.Random,
    *,
    seconds: float | None = None,
    memory: bool = False,
) -> collections.Counter:
    """Kills a job with each of the signals, in chains of some in one folder; counts what it saw.

    A chain ends after ``_CHAIN`` kills, or once the job has come to its end before it was killed.

    Args:
        seconds: within which it is killed; None: those that it takes without.
        memory: whether what is new in /dev/shm must be of the job.
    """
    seen: collections.Counter = collections.Counter()
    seconds = seconds or _finish(job, folder / f"{name}-whole")
    chain = links = 0
    for k, number in enumerate(signals):
        out = folder / f"{name}-{chain}"
        links += 1
        try:
            ended = _kill(job, out, number, rng.uniform(0.2, seconds), seen, memory)
            if not ended and (links == _CHAIN or k == len(signals) - 1):
                before = rows_so_far(out)
                _finish(job, out)
                assert rows_so_far(out)[: len(before)] == before, "rows are lost"
                ended = True
        except AssertionError as problem:
            seen["PROBLEMS"] += 1
            print(f"{name}, kill {k} ({signal.Signals(number).name}): {problem}", flush=True)
            ended = True
        if ended:
            chain, links = chain + 1, 0
    return seen


def _kill(
    job: Job, out: Path, number: int, seconds: float, seen: collections.Counter, memory: bool
) -> bool:
    """Starts a job, sends it a signal after some time, and looks; whether it had ended before."""
    before, shared = rows_so_far(out), set(os.listdir("/dev/shm"))
    session = job.start(out)
    with contextlib.suppress(subprocess.TimeoutExpired):
        session.process.wait(seconds)
    holder = (out / LOCK).read_text() if (out / LOCK).exists() else ""
    sent = time.monotonic()
    session.process.send_signal(number)
    session.process.wait(600)
    answered = time.monotonic() - sent
    gone = session.check_gone(shared if memory else None)
    status, error = session.end()
    if status == 0:
        seen["ended before"] += 1
    else:
        at_work = holder.startswith(f"{session.process.pid} ")
        seen[f"{signal.Signals(number).name} {'at work' if at_work else 'at its start'}"] += 1
        for key, value in (("ms to answer", answered), ("ms until all was gone", gone)):
            seen[f"at most {key}"] = max(seen[f"at most {key}"], round(1000 * value))
    check_signalled(number, status, error)
    check_files(out, done=status == 0)
    assert rows_so_far(out)[: len(before)] == before, "rows are lost"
    if status == 0:
        job.check(out)
    return status == 0


def _finish(job: Job, out: Path) -> float:
    """Runs the job to its end and checks its folder; returns how long it took."""
    start = time.monotonic()
    session = job.start(out)
    status, error = session.end()
    seconds = time.monotonic() - start
    assert status == 0, error
    session.check_gone()
    check_files(out, done=True)
    job.check(out)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="JOB")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--terms", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    problems = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, job in jobs(Path(folder)).items():
            if args.names and name not in args.names:
                continue
            rng = random.Random(f"{name} {args.seed}")
            signals = [signal.SIGKILL] * args.kills + [signal.SIGTERM] * args.terms
            rng.shuffle(signals)
            seen = campaign(name, job, Path(folder), signals, rng, memory=True)
            problems += seen.get("PROBLEMS", 0)
            print(f"{name:<12}", *(f"{key} {value}" for key, value in seen.items()), flush=True)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
