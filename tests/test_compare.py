"""Checkpoints side by side, through the command line."""

from __future__ import annotations

import subprocess
import sys

import torch

from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.rule import CommitRule

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


def rules(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "qec.training.rules", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_trained_network_gets_other_rules(tmp_path):
    keys = ["validation_quiet_p=null", f"out={tmp_path / 'mine'}", *TINY[1:], "ensemble=3"]
    done = rules("fast", *keys)
    assert done.returncode == 0, done.stderr
    found, fast = load_predecoder(tmp_path / "mine" / "mine.safetensors"), load_predecoder("fast")
    rates = [rate for _, rate, _ in found.rules.correlated.gap]
    assert len(rates) == 3  # one for each validation noise
    assert found.rules.correlated == CommitRule(0.5, tuple((3, rate, 0.3) for rate in rates), 3)
    assert found.metadata["shots"] == fast.metadata["shots"]
    for ours, theirs in zip(found.network.parameters(), fast.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    card = (tmp_path / "mine" / "mine.md").read_text()
    assert "# Pre-decoder `mine`" in card
    assert "64 validation shots per circuit" in card


def test_rules_are_extended_to_another_distance(tmp_path):
    keys = [*TINY[1:], "quiet_gaps=[0.3]", "validation_noises=[uniform]"]
    first, second = (tmp_path / name / f"{name}.safetensors" for name in ("first", "second"))
    assert rules("fast", f"out={first.parent}", *keys).returncode == 0
    more = [f"out={second.parent}", *keys, "validation_distances=[5]", "validation_shots=32"]
    done = rules("--extend", str(first), *more)
    assert done.returncode == 0, done.stderr
    before, after = load_predecoder(first), load_predecoder(second)
    for name in ("uncorrelated", "correlated"):
        gap = getattr(after.rules, name).gap
        assert gap[:2] == getattr(before.rules, name).gap
        assert [distance for distance, *_ in gap] == [3, 3, 5, 5]
    for key in ("validation", "validation_quiet"):
        records = after.metadata[key]
        assert [r for r in records if r["distance"] == 3] == before.metadata[key]
        assert {r["distance"] for r in records} == {3, 5}
    card = second.with_suffix(".md").read_text()
    assert (
        "64 validation shots per circuit (uniform d=3 X, uniform d=3 Z, uniform d=5 X (32" in card
    )
    # The same distance once more replaces what was there.
    done = rules("--extend", str(second), f"out={first.parent}", *more[1:])
    assert load_predecoder(first).metadata["validation"] == after.metadata["validation"]
    done = rules("--extend", str(second), *more, "validation_p=0.005")
    assert done.returncode == 2
    assert "validated at validation_p=0.006" in done.stderr


def test_bad_input_of_rules_is_one_line(tmp_path):
    out = f"out={tmp_path / 'mine'}"
    for arguments, message in (
        (["nowhere", out], "nowhere"),
        (["fast", out, "gaps=[2]"], "gaps=2"),
        ([out], "usage"),
        (["--extend", out], "usage"),
    ):
        done = rules(*arguments)
        assert done.returncode == 2
        assert message in done.stderr + done.stdout
        assert len((done.stderr + done.stdout).splitlines()) == 1
