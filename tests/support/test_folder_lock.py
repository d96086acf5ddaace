"""One writer per output folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from qec.cli.commands import main
from qec.support.errors import QecError
from qec.support.folder_lock import LOCK, sole_writer

_HOLD = """
import sys
from pathlib import Path
from qec.support.folder_lock import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held(folder):
    """Another process writes to the folder."""
    command = [sys.executable, "-c", _HOLD, str(folder), "some", "words"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """A folder that another process writes to, and that process."""
    folder = tmp_path_factory.mktemp("taken")
    with held(folder) as holder:
        yield folder, holder


COMMANDS = {
    "sweep": ["distance=3", "basis=X", "decoders=[pymatching]"],
    "merge": ["merge=true", "distance=3", "decoders=[pymatching]"],
    "evaluate": ["distance=3"],
    "train": ["distances=3"],
    "learn-noise": ["structure=memory.stim", "dets=events.b8"],
    "realtime": ["distance=3"],
    "benchmark": ["distance=3"],
    "calibrate": ["distance=3"],
    "export": ["distance=3"],
    "benchmark-weights": [],
    "benchmark-drift": [],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_writer_is_refused(taken, capsys, tmp_path, monkeypatch, name):
    folder, holder = taken
    monkeypatch.chdir(tmp_path)
    for file in ("memory.stim", "events.b8"):  # what is missing is said before
        (tmp_path / file).touch()
    before = sorted(folder.iterdir())
    words = [*COMMANDS[name], f"out={folder}"]
    assert main(["sweep" if name == "merge" else name, *words]) == 2
    error = capsys.readouterr().err
    assert f"process {holder.pid} on " in error
    assert f"some words) is writing to {folder}: wait for it, stop it" in error
    assert error.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_the_tasks_of_an_array_write_side_by_side(taken):
    words = ["distance=3", "basis=X", "decoders=[pymatching]", "array_task=3", "array_tasks=4"]
    assert main(["sweep", *words, f"out={taken[0]}"]) == 0


def test_a_killed_writer_holds_nothing_and_is_cleared_away(tmp_path):
    with held(tmp_path) as holder:
        (tmp_path / ".12.stats.csv").touch()
        (tmp_path / "stats.csv").touch()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert (tmp_path / LOCK).exists()
    with sole_writer(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, "stats.csv"]
    assert [path.name for path in tmp_path.iterdir()] == ["stats.csv"]


def test_files_of_others_stay(tmp_path):
    mine = tmp_path / ".2026.notes"
    mine.touch()
    with sole_writer(tmp_path):
        pass
    assert mine.exists()


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_it_is_released_whatever_happens(tmp_path, error):
    out = tmp_path / "some" / "out"
    with contextlib.suppress(RuntimeError, KeyboardInterrupt), sole_writer(out):
        assert (out / LOCK).exists()
        with sole_writer(out):  # by the same process: a command that calls another
            pass
        assert (out / LOCK).exists()
        if error is not None:
            raise error
    assert list(tmp_path.iterdir()) == []  # it has created what it removes
    with held(out):
        pass


def test_a_forked_process_does_not_hold_it(tmp_path):
    with sole_writer(tmp_path):
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
    try:
        with held(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_file_systems_without_locks_do(tmp_path, monkeypatch):
    def refuses(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    with sole_writer(tmp_path):
        (tmp_path / "results").touch()
    assert (tmp_path / "results").exists()


def test_what_is_not_there_cannot_be_locked(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(QecError, match="cannot write to the folder"),
        sole_writer(tmp_path / "file"),
    ):
        pass
