"""The benchmark of learned weights, small, with resumption."""

import pytest
from printed import listed_files

from qec.benchmarks.learned_weights import WeightsRecord, pooled, read_records
from qec.cli.commands import main

SMALL = [
    *("distance=3", "kind=channels,site", "draws=1", "shots=500", "methods=channels"),
    *("target_errors=50", "max_shots=20000", "num_workers=1", "p=[0.006,0.01]"),
]


@pytest.mark.slow
def test_it_learns_evaluates_and_resumes(tmp_path, capsys):
    assert main(["benchmark-weights", *SMALL, f"out={tmp_path}"]) == 0
    first = read_records(tmp_path / "draws.csv")
    assert {(r.kind, r.method, r.learned_from, r.correlated) for r in first} == {
        (kind, *method, correlated)
        for kind in ("channels", "site")
        for method in (("uniform guess", 0), ("channels", 500))
        for correlated in (False, True)
    }
    for r in first:
        assert r.shots == 20000
        assert r.both <= min(r.errors, r.true_errors)
    text = capsys.readouterr().out
    assert "uniform guess" in text
    assert listed_files(text, tmp_path) == ["draws.csv"]

    # Only what is missing is done again: here the second draw, of which a row is lost.
    path = tmp_path / "draws.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert main(["benchmark-weights", *SMALL, f"out={tmp_path}"]) == 0
    again = read_records(path)
    assert [(r.kind, r.errors, r.true_errors, r.both) for r in again] == [
        (r.kind, r.errors, r.true_errors, r.both) for r in first
    ]


def test_draws_are_pooled_by_their_errors():
    records = [
        WeightsRecord("site", 5, k, "auto", 1000, 0.1, True, 10_000, errors, true, both)
        for k, (errors, true, both) in enumerate([(110, 100, 90), (310, 300, 290)])
    ]
    assert pooled(records).value == pytest.approx(420 / 400)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("kind=qubit", "kind='qubit' is unknown"),
        ("methods=magic", "methods='magic' is unknown"),
        ("p=0.003", "two numbers"),
        ("draws=0", "draws=0"),
    ],
)
def test_bad_settings_are_refused(tmp_path, capsys, override, message):
    assert main(["benchmark-weights", *SMALL, override, f"out={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_tracked_weights_follow_a_drift(tmp_path, capsys):
    small = [
        *("distance=3", "shots=40000", "period=40000", "look=5000", "half_life=5000"),
        *("every=4", "decoded=2000", f"out={tmp_path}"),
    ]
    assert main(["benchmark-drift", *small]) == 0
    text = capsys.readouterr().out
    assert text.count(" tracked ") == text.count(" static ") == 2
    assert listed_files(text, tmp_path) == sorted(path.name for path in tmp_path.iterdir())
    assert main(["benchmark-drift", *small, "rates=[gate]"]) == 2
    assert "rates='gate' is unknown" in capsys.readouterr().err
