"""`qec evaluate` through the command line, and its parts: stopping rule, tables, reliability."""

import collections
import math
import types

import numpy as np
import pytest
import sinter
import torch
from printed import listed_files
from training_files import quiet, trained

from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.cli.commands import COMMANDS, main
from qec.cli.config import load_config
from qec.evaluation.evaluate import EvaluateSettings, next_target
from qec.evaluation.gain_over_matching import BASELINES, GAINS, PIPELINE, Accuracy, report
from qec.evaluation.paired_sampler import SAMPLER, PairedSampler
from qec.evaluation.reliability import _SEED, reliability
from qec.predecoder.labelled_shots import LabelledSampler
from qec.predecoder.unit_cells import CellGrid
from qec.support.statistics import Estimate

SMALL = ["distance=3", "noise=uniform", "basis=X", "num_workers=1", "reliability_shots=64"]
FILES = [
    *("accuracy.md", "accuracy.png", "accuracy.svg", "accuracy.txt", "collected.csv"),
    *("reliability.png", "reliability.svg", "stats.csv"),
]


def evaluate(out, *overrides):
    return main(["evaluate", f"out={out}", *SMALL, *overrides])


@pytest.fixture
def own():
    """The override for a network that fits all noise of these tests."""
    return f"predecoder={trained()}"


def collected(out):
    return sinter.read_stats_from_csv_files(out / "collected.csv")


def settings(*overrides):
    return EvaluateSettings.from_config(load_config("evaluate", [*SMALL, *overrides]))


def made_up(shots, f, c, **metadata):
    """Statistics with errors (baseline, decoder, both) of the network and of the pipeline."""
    counts = collections.Counter({"events": 80 * shots, "errors:pymatching": f[0]})
    for name in BASELINES:
        counts[f"events_left:{name}"] = 10 * shots
        counts[f"match_ns:{name}"] = (1 if name.startswith("predecoder") else 5) * shots
    for name, (baseline, errors, both) in zip(GAINS, (f, c), strict=True):
        counts[f"errors:{BASELINES[name]}"] = baseline
        counts |= {f"errors:{name}": errors, f"both:{name}": both}
    counts[f"fallbacks:{PIPELINE}"] = 3 * shots // 100
    known = {"d": 5, "r": 5, "p": 0.006, "b": "X", "noise": "stim", "o": "ZV"}
    known |= {"decoders": list(BASELINES), "baselines": list(BASELINES.values())}
    return sinter.TaskStats(
        strong_id=str(metadata),
        decoder=SAMPLER,
        json_metadata=known | {"predecoder": "mine@12345678"} | metadata,
        shots=shots,
        custom_counts=counts,
    )


# End to end --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_evaluate_writes_its_files_and_resumes(tmp_path, capsys, own):
    out = tmp_path / "a" / "b"
    small = (own, "p=0.01", "noise=uniform,si1000", "rounds_per_distance=2", "precision=1e-6")
    assert evaluate(out, *small, "min_shots=300", "max_shots=900") == 0
    text = capsys.readouterr().out
    assert listed_files(text, out) == sorted(path.name for path in out.iterdir()) == FILES
    assert (out / "accuracy.txt").read_text().rstrip() in text
    lines = (out / "accuracy.md").read_text().splitlines()
    assert [line.split(" | ")[:6] for line in lines[2:]] == [
        [f"| {noise}", "0.01", "3", "6", "X", "900"] for noise in ("uniform", "si1000")
    ]
    for expected in (
        "uniform noise, basis X, small@",
        "si1000 noise, basis X, small@",
        "precision of 1e-06 reached at 0 of 2 points",
        "1800 new shots, 0 resumed",
        f": qec evaluate out={out} ",
    ):
        assert expected in text
    for stat in collected(out):
        assert stat.json_metadata["r"] == 6
        assert stat.json_metadata["decoders"] == list(BASELINES)
        for name, baseline in BASELINES.items():
            both = stat.custom_counts[f"both:{name}"]
            smaller = min(stat.custom_counts[f"errors:{n}"] for n in (name, baseline))
            assert both == smaller if name == baseline else both <= smaller
    rows = sinter.read_stats_from_csv_files(out / "stats.csv")
    assert {row.shots for row in rows} == {900}
    assert sorted(row.decoder for row in rows) == sorted(2 * list(BASELINES))
    for row in rows:
        assert row.json_metadata["baseline"] == BASELINES[row.decoder]

    before = (out / "collected.csv").read_text()
    assert evaluate(out, *small, "min_shots=300", "max_shots=900") == 0
    assert (out / "collected.csv").read_text() == before
    assert "0 new shots, 1800 resumed" in capsys.readouterr().out
    assert evaluate(out, *small, "min_shots=300", "max_shots=1000") == 0
    assert (out / "collected.csv").read_text().startswith(before)
    assert "200 new shots, 1800 resumed" in capsys.readouterr().out
    assert {stat.shots for stat in collected(out)} == {1000}


@pytest.mark.slow
def test_a_tight_point_stops_and_another_does_not(tmp_path, capsys):
    # At p = 0.03 matching fails in 0.38 of the shots, so 2000 shots hold 500 errors of each decoder
    # (chance of fewer: below 1e-30), many times what +- 50 % takes even for independent ones.  At
    # p = 1e-5 it fails in 2e-7 of them (0.0016 at 1e-3, as p^2), 0.002 of 8000 shots; +- 50 % takes
    # three failures at the least (chance: below 1e-8).
    limits = (f"predecoder={quiet()}", "min_shots=2000", "max_shots=8000")
    assert evaluate(tmp_path, "p=0.03,1e-5", "precision=0.5", *limits) == 0
    shots = {stat.json_metadata["p"]: stat.shots for stat in collected(tmp_path)}
    assert shots == {0.03: 2000, 1e-5: 8000}
    assert "precision of 0.5 reached at 1 of 2 points" in capsys.readouterr().out
    # A tighter wish goes on where the looser one stopped: no 8000 shots reach +- 1e-4.
    assert evaluate(tmp_path, "p=0.03", "precision=1e-4", *limits) == 0
    assert "6000 new shots, 2000 resumed" in capsys.readouterr().out
    assert {stat.shots for stat in collected(tmp_path)} == {8000}


@pytest.mark.slow
def test_evaluate_with_noise_from_a_file(tmp_path, capsys, own):
    path = tmp_path / "mine.yaml"
    path.write_text("meas_x: 0.02\nidle_spam: [2e-3, 0, 2e-3]\n")
    assert evaluate(tmp_path / "out", own, f"noise={path}", "p=null", "max_shots=200") == 0
    assert "\nfile  3  3 " in capsys.readouterr().out
    (stat,) = collected(tmp_path / "out")
    assert "p" not in stat.json_metadata


# The stopping rule -------------------------------------------------------------------------------

TIGHT, WIDE = (4000, 4000, 3900), (40, 40, 10)


def test_targets_of_the_stopping_rule():
    options = settings("precision=0.05", "min_shots=1000", "max_shots=50000", "batch=100")
    assert next_target(None, options) == 1000
    assert next_target(made_up(10, TIGHT, TIGHT), options) == 1000
    assert next_target(made_up(20000, TIGHT, TIGHT), options) == 20000
    for f, c in (
        (TIGHT, WIDE),
        (WIDE, TIGHT),
        (WIDE, WIDE),
        ((0, 0, 0), TIGHT),
        ((9, 0, 0), TIGHT),
    ):
        assert next_target(made_up(1000, f, c), options) == 4000  # four-fold at most
        assert next_target(made_up(20000, f, c), options) == 50000
        for shots in (50000, 60000):  # the latter from a run with another max_shots
            assert next_target(made_up(shots, f, c), options) == shots


def test_the_target_follows_the_square_root_law():
    stat = made_up(10000, (1000, 1000, 500), TIGHT)
    width = Accuracy.from_stats(stat).width
    options = settings(f"precision={width / 1.5}", "max_shots=1000000")
    assert next_target(stat, options) == pytest.approx(10000 * 1.5**2 * 1.05, rel=1e-3)
    # As many errors as that makes in the same proportions are tight: the rule ends.
    grown = made_up(23625, (2362, 2362, 1181), TIGHT)
    assert next_target(grown, options) == 23625
    # Nearly tight: one more batch at least.
    options = settings(f"precision={width / 1.0001}", "max_shots=1000000", "batch=9000")
    assert next_target(stat, options) == 19000


def test_relative_half_width():
    assert Estimate(2, 1, 4).relative_half_width == 0.75
    for value in (0, math.inf, math.nan):
        assert Estimate(value, 0, 1).relative_half_width == math.inf


# Counts and tables -------------------------------------------------------------------------------


def test_joint_errors_are_those_with_the_own_baseline(stim_circuit):
    circuit = stim_circuit(3, 3, "X", 0.02)
    dem = detector_error_model(circuit)
    task = sinter.Task(circuit=circuit, detector_error_model=dem, decoder=SAMPLER)
    names = ("pymatching", "pymatching-css", "pymatching-correlated-css")
    baselines = ("pymatching-correlated-css", "pymatching", "pymatching-correlated-css")
    compiled = PairedSampler(names, "", 512, baselines).compiled_sampler_for_task(task)
    dets, flips = circuit.compile_detector_sampler(seed=3).sample(512, separate_observables=True)
    compiled.stim_sampler = types.SimpleNamespace(sample=lambda *_, **__: (dets, flips))
    stats = compiled.sample(512)
    wrong = {name: compiled.decoders[name].decode_batch(dets) != flips for name in names}
    for name, baseline in zip(names, baselines, strict=True):
        assert stats.custom_counts[f"errors:{name}"] == wrong[name].sum()
        assert stats.custom_counts[f"both:{name}"] == (wrong[name] & wrong[baseline]).sum()
    assert stats.errors == wrong["pymatching"].sum() > 0


def test_decoders_that_share_a_checkpoint_run_its_network_once(stim_circuit):
    circuit = stim_circuit(3, 3, "X", 0.01)
    dem = detector_error_model(circuit)
    task = sinter.Task(circuit=circuit, detector_error_model=dem, decoder=SAMPLER)
    names, baselines = tuple(BASELINES), tuple(BASELINES.values())
    compiled = PairedSampler(names, trained(), 512, baselines).compiled_sampler_for_task(task)
    both = [compiled.decoders[name] for name in GAINS]
    assert both[0].predecoder is both[1].predecoder is not None
    runs = []
    forward = both[0].predecoder.forward
    both[0].predecoder.forward = lambda *what: runs.append(1) or forward(*what)
    counts = compiled.sample(512).custom_counts
    assert len(runs) == 2  # passes of 256 shots
    first, second = (counts[f"predecode_ns:{name}"] for name in GAINS)
    assert first == second > 0
    handed_on = [counts[f"fallbacks:{name}"] for name in GAINS]
    assert handed_on[0] == 0 < handed_on[1]


def test_the_report_flags_harm_and_nothing_else():
    harmful = Accuracy.from_stats(made_up(10000, (200, 200, 190), (100, 200, 90), d=9))
    helpful = Accuracy.from_stats(made_up(10000, (300, 200, 190), (100, 100, 90), b="Z"))
    silent = Accuracy.from_stats(made_up(10000, (0, 0, 0), (0, 0, 0), p=0.001))
    text = report([harmful, helpful, silent], 0.1)
    (flagged,) = (line for line in text.splitlines() if ")!" in line)
    assert flagged.split()[:4] == ["0.006", "9", "5", "10000"]
    assert flagged.split()[6] == "0.500"
    assert text.count("  vs correlated 0.500 (") == 1
    assert "at d=9 R=5 p=0.006 basis X, stim noise, ZV" in text
    assert (
        "vs PyMatching: interval above 1 at 1 of 3 points, around 1 at 1, below 1 at 0; "
        "no errors at 1" in text
    )
    assert (
        "vs correlated: interval above 1 at 0 of 3 points, around 1 at 1, below 1 at 1; "
        "no errors at 1" in text
    )
    assert flagged.split()[-5:] == ["8.0,", "8.0", "3.0%", "5.0,", "5.0"]
    (no_errors,) = (line for line in text.splitlines() if line.startswith("0.001 "))
    assert no_errors.split()[4:6] == ["-", "-"]
    assert "harm: none" in report([helpful, silent], 0.1)
    assert text.isascii()


def test_the_widest_table_is_not_cut():
    points = [
        Accuracy.from_stats(made_up(10**7, (98765, 98765, 98765), (1, 1, 1), p=p / 1000))
        for p in range(1, 11)
    ]
    text = report(points, 0.1)
    assert text.count("  10000000  ") == text.count("  1.000 (") / 2 == 10
    assert max(map(len, text.splitlines())) <= 100


# Reliability -------------------------------------------------------------------------------------


def test_reliability_counts_every_edge_once(our_circuit):
    lattice = SpaceTimeLattice.from_circuit(our_circuit(5, 3, "Z", 0.01))
    grid = CellGrid(lattice)

    def constant(events):
        return torch.full((len(events), *grid.valid.shape), 1.2)

    bound = types.SimpleNamespace(grid=grid, forward=constant, cells=lambda events: events)
    stub = types.SimpleNamespace(compile_for=lambda _: bound, threshold=0.9)
    found = reliability(lattice, stub, 100)
    assert found.shots == 100
    assert found.threshold == 0.9
    (bin_,) = np.flatnonzero(found.edges)
    assert found.edges[bin_] == 100 * int(grid.valid.sum()) == 100 * len(grid.predicted)
    fired = int(LabelledSampler(lattice).sample(100, _SEED)[1].sum())
    assert found.observed.sum() == found.observed[bin_] == fired > 0
    rate = 1 / (1 + math.exp(-1.2))
    assert found.predicted[bin_] / found.edges[bin_] == pytest.approx(rate)
    assert found.calibration_error == pytest.approx(rate - fired / found.edges.sum())


def test_what_is_told_of_an_edge_is_compared_with_that_edge(our_circuit):
    """One who knows the shots is always right where he is sure."""
    lattice = SpaceTimeLattice.from_circuit(our_circuit(5, 3, "X", 0.006))
    sampler = LabelledSampler(lattice)
    shots = sampler.sample(128, _SEED)

    def knows(events):
        assert torch.equal(events, shots[0])
        return 6 * shots[1].float() - 3

    bound = types.SimpleNamespace(grid=sampler.grid, forward=knows, cells=lambda events: events)
    found = reliability(
        lattice, types.SimpleNamespace(compile_for=lambda _: bound, threshold=0.9), 128
    )
    low, high = np.flatnonzero(found.edges)
    assert found.observed[low] == 0 < found.observed[high] == found.edges[high]
    assert found.edges.sum() == 128 * len(sampler.grid.predicted)


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("precison=0.1", "did you mean precision?"),
        ("precision=0", "precision=0 is not supported"),
        ("precision=1", "precision=1 is not supported"),
        ("precision=true", "precision=True is not supported"),
        ("precision=tight", "precision='tight' is not supported"),
        ("rounds=3,5", "rounds=[3, 5] is not supported"),
        ("rounds=0", "use an integer >= 1"),
        ("rounds_per_distance=1.5", "rounds_per_distance=1.5 is not supported"),
        ("rounds_per_distance=0", "rounds_per_distance=0 is not supported"),
        ("distance=4", "use an odd integer >= 3"),
        ("distance=[]", "distance is empty"),
        ("p=0", "above 0"),
        ("p=1.5", "outside [0, 1]"),
        ("basis=Y", "use X or Z"),
        ("noise=foo", "use one of uniform"),
        ("noise=nowhere.yaml", "there is no file nowhere.yaml"),
        ("predecoder=nowhere", "no pre-decoder checkpoint 'nowhere'"),
        ("predecoder=null", "no pre-decoder checkpoint 'None'"),
        ("max_shots=0", "max_shots=0"),
        ("min_shots=null", "min_shots=None"),
        ("batch=true", "batch=True"),
        ("num_workers=0", "num_workers=0"),
        ("reliability_shots=0", "reliability_shots=0"),
        ("out=null", "out is empty: give out=PATH"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, override, message):
    monkeypatch.chdir(tmp_path)
    assert evaluate("out", override) == 2
    error = capsys.readouterr().err
    assert error.startswith("qec: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_two_ways_to_say_the_rounds_are_refused(tmp_path, capsys):
    assert evaluate(tmp_path / "out", "rounds=5", "rounds_per_distance=3") == 2
    assert "exclude each other" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_csv_is_refused(tmp_path, capsys):
    (tmp_path / "collected.csv").write_text("my notes\n")
    assert evaluate(tmp_path) == 2
    assert "cannot be resumed" in capsys.readouterr().err
    assert (tmp_path / "collected.csv").read_text() == "my notes\n"
    assert [path.name for path in tmp_path.iterdir()] == ["collected.csv"]


def test_help_and_examples(capsys):
    assert main(["evaluate", "--help"]) == 0
    text = capsys.readouterr().out
    for key in load_config("evaluate"):
        assert f"\n{key}:" in text
    for example in COMMANDS["evaluate"].examples:
        assert (
            EvaluateSettings.from_config(load_config("evaluate", example.split()[2:])).precision
            == 0.1
        )
