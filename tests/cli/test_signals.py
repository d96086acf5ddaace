"""Signals, dead workers and full disks: one line, nothing lost, nobody left behind."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sinter
from kill_jobs import Session, campaign, jobs

from qec.evaluation.collect import _rows, _Unfinished, collect
from qec.evaluation.collected_rows import read_collected
from qec.evaluation.paired_sampler import PairedSampler
from qec.support import child_processes as child
from qec.support.errors import QecError, exit_status
from qec.support.journal import append_text
from qec.support.process_pool import Workers, results
from qec.support.stop_signals import Terminated
from qec.training.training_log import TrainingLog

# A command line that is asked to stop ------------------------------------------------------------


def raising(error: BaseException):
    def run():
        raise error

    return run


def kills(number: int):
    return lambda: os.kill(os.getpid(), number) or time.sleep(60)


@pytest.mark.parametrize(
    ("run", "status", "said"),
    [
        (raising(KeyboardInterrupt()), 130, "\nqec: interrupted; go on.\n"),
        (raising(Terminated(signal.SIGTERM)), 143, "qec: stopped by SIGTERM; go on.\n"),
        (kills(signal.SIGINT), 130, "\nqec: interrupted; go on.\n"),
        (kills(signal.SIGTERM), 143, "qec: stopped by SIGTERM; go on.\n"),
        (kills(signal.SIGUSR1), 138, "qec: stopped by SIGUSR1; go on.\n"),
        (raising(QecError("no such\nthing.")), 2, "qec: error: no such thing.\n"),
        (
            raising(OSError(errno.ENOSPC, "No space left on device", "a.csv")),
            2,
            "qec: error: cannot write a.csv: No space left on device.\n",
        ),
        (
            raising(OSError(errno.ENOSPC, "No space left on device")),
            2,
            "qec: error: cannot write a file: No space left on device.\n",
        ),
        (raising(MemoryError()), 2, "qec: error: there is not enough memory: use fewer"),
    ],
)
def test_what_ends_a_command_early_is_one_line(capsys, run, status, said):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    assert exit_status("qec", "go on", run) == status
    assert capsys.readouterr().err.startswith(said)
    after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    assert after == before


def test_an_error_that_may_be_a_mistake_of_ours_is_not_hidden():
    with pytest.raises(FileNotFoundError):
        exit_status("qec", "", raising(FileNotFoundError(errno.ENOENT, "No such file")))


_DEAF = """
import signal, sys, time
import qec.support.stop_signals
from qec.support.errors import exit_status

def run():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("first", flush=True)
        time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)
qec.support.stop_signals._PATIENCE = 60
sys.exit(exit_status("qec", "go on", run))
"""


def test_a_second_ctrl_c_ends_at_once_and_a_second_sigterm_does_not():
    with subprocess.Popen([sys.executable, "-c", _DEAF], stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout.readline() == "ready\n"
        job.send_signal(signal.SIGTERM)
        assert job.stdout.readline() == "first\n"
        job.send_signal(signal.SIGTERM)  # of a batch system that sends it twice
        with pytest.raises(subprocess.TimeoutExpired):
            job.wait(0.5)
        job.send_signal(signal.SIGINT)
        assert job.wait(30) == 130


def test_a_signal_that_is_ignored_stays_ignored(capsys):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert exit_status("qec", "", lambda: os.kill(os.getpid(), signal.SIGTERM)) == 0
    finally:
        signal.signal(signal.SIGTERM, before)


# Workers -----------------------------------------------------------------------------------------


def double(number: int) -> int:
    if number == 13:
        raise QecError("unlucky.")
    return 2 * number


def blocked(_: int) -> list[int]:
    return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))


@pytest.mark.slow
def test_workers_do_their_jobs_and_hand_errors_on():
    assert sorted(results(double, range(5), 2)) == [(k, 2 * k) for k in range(5)]
    with pytest.raises(QecError, match="unlucky"):
        list(results(double, range(11, 20), 2))


@pytest.mark.slow
def test_workers_never_hear_the_signals_of_their_parent():
    wanted = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
    assert all(wanted <= set(found) for _, found in results(blocked, [0, 1], 2))


@pytest.mark.slow
def test_a_worker_that_dies_is_noticed():
    with Workers(2, os._exit) as workers:
        workers.give(0, 1)
        with pytest.raises(QecError, match="a worker process died"):
            workers.wait()


def test_so_is_an_idle_one():
    with Workers(2, sleep) as workers:
        workers.give(0, 0)
        workers._processes[1].kill()
        with pytest.raises(QecError, match="a worker process died"):
            workers.wait()


def sleep(_: int) -> None:
    time.sleep(600)


def test_leaving_ends_workers_at_once():
    with Workers(2, sleep) as workers:
        workers.give(0, 0)
        processes = list(workers._processes)
    assert not any(process.is_alive() for process in processes)


_PARENT = """
import os, sys, time
from qec.support import child_processes as child

def report(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    child.start(report, (sys.argv[1],))
    time.sleep(600)
"""


@pytest.mark.parametrize("started", [True, False])
def test_a_child_ends_with_its_parent(tmp_path, started):
    """Also one that is still starting."""
    script, path = tmp_path / "parent.py", tmp_path / "pid"
    script.write_text(_PARENT)
    job = Session([sys.executable, str(script), str(path)], tmp_path)
    first_worker(job)
    while started and not path.exists():
        time.sleep(0.02)
    job.process.kill()
    job.end()
    job.check_gone()


class Interrupts:
    """Asks this process to stop while it is handed to another one."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGINT)
        return int, ()


def wait(_: int, seconds: float) -> None:
    time.sleep(seconds)


def test_a_signal_while_a_child_starts_leaves_none():
    with pytest.raises(KeyboardInterrupt):
        child.start(wait, (600.0,), (Interrupts(),))
    for process in multiprocessing.active_children():
        process.join(10)
        assert not process.is_alive()


def test_signals_wait_even_if_another_thread_gets_them():
    thread, through = threading.Thread(target=time.sleep, args=(1,)), []
    thread.start()

    def start_something():
        with child.signals_blocked():
            signal.pthread_kill(thread.ident, signal.SIGINT)
            time.sleep(0.2)
            through.append(True)

    with pytest.raises(KeyboardInterrupt):
        start_something()
    assert through
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    thread.join()


_FORGETS = """
import time
from qec.support import child_processes as child

if __name__ == "__main__":
    child.start(time.sleep, (600,))
"""


def test_a_child_that_was_forgotten_does_not_keep_its_parent(tmp_path):
    """It never hears the SIGTERM with which Python ends children at exit."""
    script = tmp_path / "parent.py"
    script.write_text(_FORGETS)
    job = Session([sys.executable, str(script)], tmp_path)
    try:
        assert job.process.wait(60) == 0
    finally:
        job.process.kill()
        job.check_gone()


# Sampling ----------------------------------------------------------------------------------------


def task(circuit, **options) -> sinter.Task:
    return sinter.Task(
        circuit=circuit,
        detector_error_model=circuit.detector_error_model(decompose_errors=True),
        decoder="paired",
        json_metadata={"d": 3, "p": len(options)},
        collection_options=sinter.CollectionOptions(**options),
    )


SAMPLER = PairedSampler(("pymatching",), "", batch=100)


@pytest.mark.slow
def test_shots_are_exactly_those_asked_for(tmp_path, stim_circuit):
    """Several tasks on several workers, and errors that are enough."""
    circuits = [stim_circuit(3, rounds, "X", 0.01) for rounds in (2, 3, 4)]
    tasks = [task(circuit, max_shots=3050) for circuit in circuits]
    tasks.append(task(stim_circuit(3, 5, "X", 0.05), max_shots=10**7, max_errors=60))
    path, seeds = tmp_path / "collected.csv", tmp_path / "collected.seeds"
    found = collect(tasks, SAMPLER, path, {}, num_workers=2, seeds=seeds)
    again = read_collected(path)
    assert [again[t.strong_id()].shots for t in tasks[:3]] == [3050] * 3
    assert {k: (v.shots, v.errors) for k, v in again.items()} == {
        k: (v.shots, v.errors) for k, v in found.items()
    }
    enough = found[tasks[3].strong_id()]
    assert 60 <= enough.errors < 400
    ids = {line.split()[0] for line in seeds.read_text().splitlines()}
    assert ids == found.keys()
    assert collect(tasks, SAMPLER, path, again, num_workers=2) == again


def test_what_does_not_fit_leaves_no_half_row(tmp_path):
    path, limits = tmp_path / "rows", resource.getrlimit(resource.RLIMIT_FSIZE)
    append_text(path, "first row\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (15, limits[1]))
    try:
        with pytest.raises(QecError, match=r"cannot write .*rows: File too large"):
            append_text(path, "second row\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "first row\n"


@pytest.mark.parametrize(("points", "samplers"), [(1, 3), (2, 5), (3, 3), (4, 6)])
def test_all_workers_share_few_points(tmp_path, stim_circuit, points, samplers):
    """Three of them: a point for each, and those that are left for all."""
    tasks = [task(stim_circuit(3, 2 + k, "X", 0.01), max_shots=3000) for k in range(points)]
    missing = [_Unfinished(one, None) for one in tasks]
    workers, seeds = Inline(3), tmp_path / "seeds"
    rows = list(_rows(missing, workers, seeds))
    assert sum(row.shots for row in rows) == 3000 * points
    assert workers.used == {0, 1, 2}
    assert len(seeds.read_text().splitlines()) == samplers


class Inline:
    """Stands for ``Workers``: each does what it is asked for when all have been asked."""

    def __init__(self, number: int) -> None:
        self.number, self.idle, self.used = number, set(range(number)), set()
        self.orders: dict[int, object] = {}

    @property
    def busy(self) -> bool:
        return bool(self.orders)

    def give(self, number: int, order) -> None:
        self.idle.remove(number)
        self.used.add(number)
        self.orders[number] = order

    def wait(self) -> list:
        done = [(k, sinter.AnonTaskStats(shots=o.shots, seconds=1)) for k, o in self.orders.items()]
        self.idle |= self.orders.keys()
        self.orders.clear()
        return done


def test_a_full_disk_is_one_line(tmp_path, stim_circuit):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full")
    few = task(stim_circuit(3, 3, "X", 0.01), max_shots=100)
    with pytest.raises(QecError, match="cannot write /dev/full: No space left on device"):
        append_text(full, "row\n")
    with pytest.raises(QecError, match="cannot write /dev/full: No space left on device"):
        collect([few], SAMPLER, full, {}, num_workers=1)
    log = TrainingLog(tmp_path, 0, 10)
    log._curves._path = full
    with pytest.raises(QecError, match="cannot write /dev/full: No space left on device"):
        log.loss(1, 0.5, 1.0)


# Jobs as users run them --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sweep", "realtime", "train"])
@pytest.mark.slow
def test_a_killed_job_leaves_nothing_and_goes_on(tmp_path, capfd, name):
    job, rng = jobs(tmp_path)[name], random.Random(name)
    seen = campaign(name, job, tmp_path, [signal.SIGKILL], rng, seconds=6)
    assert "PROBLEMS" not in seen, capfd.readouterr().out


LONG_SWEEP = [
    *(sys.executable, "-m", "qec.cli", "sweep", "distance=3", "basis=X", "max_shots=100000000"),
    *("decoders=[pymatching]", "num_workers=2"),
]


def first_worker(job: Session) -> int:
    """Its number, as soon as there is one: it is still importing."""
    deadline = time.monotonic() + 120
    while not (workers := [row for row in job.members() if "spawn_main" in row]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(workers[0].split()[0])


@pytest.mark.slow
def test_a_sweep_whose_worker_is_killed_says_so(tmp_path):
    job = Session(LONG_SWEEP, tmp_path)
    os.kill(first_worker(job), signal.SIGKILL)
    status, error = job.end()
    assert status == 2
    assert error.strip() == (
        "qec: error: a worker process died, out of memory perhaps: use fewer, or smaller distances."
    )
    job.check_gone()


@pytest.mark.slow
def test_ctrl_c_while_workers_start_is_one_line(tmp_path):
    job = Session(LONG_SWEEP, tmp_path)
    first_worker(job)
    os.killpg(job.process.pid, signal.SIGINT)
    status, error = job.end()
    assert status == 130
    assert len(error.strip().splitlines()) == 1
    assert error.strip().startswith("qec: interrupted; ")
    job.check_gone()
