"""Checkpoints side by side, through the command line."""

from __future__ import annotations

import subprocess
import sys

TINY = [
    "--set",
    "validation_shots=64",
    "validation_distances=[3]",
    "thresholds=[0.5]",
    "gaps=[0.3]",
]


def compare(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "qec.training.compare", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_table_of_shipped_checkpoints():
    done = compare("fast", *TINY)
    assert done.returncode == 0, done.stderr
    assert "fast@" in done.stdout
    assert "64 shots per circuit" in done.stdout


def test_bad_input_is_one_line():
    for arguments, message in ((["nowhere"], "nowhere"), (["fast", "--set", "shots=0"], "shots=0")):
        done = compare(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
