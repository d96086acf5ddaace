"""Checkpoints side by side, through the command line."""

from __future__ import annotations

import pytest
import torch

from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.rule import CommitRule
from qec.training.compare import main as compare
from qec.training.rules import main as rules

TINY = [
    "--set",
    "validation_shots=64",
    "validation_distances=[3]",
    "thresholds=[0.5]",
    "gaps=[0.3]",
]


def test_table_of_shipped_checkpoints(capsys):
    assert compare(["swift", *TINY]) == 0
    text = capsys.readouterr().out
    assert "swift@" in text
    assert "64 shots per circuit" in text


def test_bad_input_is_one_line(capsys):
    for arguments, message in (
        (["nowhere"], "nowhere"),
        (["swift", "--set", "shots=0"], "shots=0"),
    ):
        assert compare(arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1


def test_a_trained_network_gets_other_rules(tmp_path):
    keys = ["validation_quiet_p=null", f"out={tmp_path / 'mine'}", *TINY[1:], "ensemble=3"]
    assert rules(["fast", *keys]) == 0
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


@pytest.mark.slow
def test_rules_are_extended_to_another_distance(tmp_path, capsys):
    keys = [*TINY[1:], "quiet_gaps=[0.3]", "validation_noises=[uniform]"]
    first, second = (tmp_path / name / f"{name}.safetensors" for name in ("first", "second"))
    assert rules(["fast", f"out={first.parent}", *keys]) == 0
    more = [f"out={second.parent}", *keys, "validation_distances=[5]", "validation_shots=32"]
    assert rules(["--extend", str(first), *more]) == 0
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
    assert rules(["--extend", str(second), f"out={first.parent}", *more[1:]]) == 0
    assert load_predecoder(first).metadata["validation"] == after.metadata["validation"]
    assert rules(["--extend", str(second), *more, "validation_p=0.005"]) == 2
    assert "validated at validation_p=0.006" in capsys.readouterr().err


def test_bad_input_of_rules_is_one_line(tmp_path, capsys):
    out = f"out={tmp_path / 'mine'}"
    for arguments, message in (
        (["nowhere", out], "nowhere"),
        (["fast", out, "gaps=[2]"], "gaps=2"),
        ([out], "usage"),
        (["--extend", out], "usage"),
    ):
        assert rules(arguments) == 2
        said = "".join(capsys.readouterr())
        assert message in said
        assert len(said.splitlines()) == 1
