"""`qec sweep` through the command line, on real worker processes."""

import collections
import csv
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import sinter
import stim
import torch
from printed import listed_files

from qec.cli.commands import main
from qec.cli.config import load_config
from qec.evaluation.collect import collect
from qec.evaluation.collected_rows import read_collected
from qec.evaluation.job_array import read_seeds
from qec.evaluation.paired_sampler import SAMPLER, PairedSampler
from qec.evaluation.sweep import SweepSettings, tasks
from qec.evaluation.sweep_table import SweepRow, print_tables
from qec.predecoder.architectures import build_network
from qec.predecoder.checkpoint import load_predecoder, save_predecoder

SMALL = ["distance=3", "rounds=2", "basis=X", "decoders=[pymatching,pymatching-css]"]


def sweep(out, *overrides):
    return main(["sweep", f"out={out}", *SMALL, *overrides])


def shots_by_row(path):
    return [stat.shots for stat in sinter.read_stats_from_csv_files(path)]


def test_sweep_writes_rows_figures_and_a_table(tmp_path, capsys):
    out = tmp_path / "a" / "b"
    assert sweep(out, "p=0.01,0.02", "basis=X,Z", "max_shots=3000", "batch=500") == 0
    text = capsys.readouterr().out
    assert "d=3 R=2 p=0.02 basis Z, uniform noise, ZV: 3000 shots" in text
    assert "same settings, fresh shots" in text
    assert f": qec sweep out={out} " in text
    assert (
        listed_files(text, out)
        == sorted(p.name for p in out.iterdir())
        == [
            "collected.csv",
            "collected.seeds",
            "frontier.png",
            "frontier.svg",
            "ler.png",
            "ler.svg",
            "stats.csv",
        ]
    )

    collected = sinter.read_stats_from_csv_files(out / "collected.csv")
    stats = sinter.read_stats_from_csv_files(out / "stats.csv")
    assert len(collected) == 4
    assert len(stats) == 8
    assert {s.shots for s in collected + stats} == {3000}
    assert {s.decoder for s in collected} == {SAMPLER}
    by_id = {s.strong_id: s for s in stats}
    for paired in collected:
        counts = paired.custom_counts
        assert paired.json_metadata["decoders"] == ["pymatching", "pymatching-css"]
        assert paired.errors == counts["errors:pymatching"] == counts["both:pymatching"] > 0
        assert counts["both:pymatching-css"] <= counts["errors:pymatching-css"]
        assert counts["events"] == counts["events_left:pymatching"] > 0
        for name in ("pymatching", "pymatching-css"):
            row = by_id[f"{paired.strong_id}:{name}"]
            assert row.decoder == name
            assert row.errors == counts[f"errors:{name}"]
            assert row.custom_counts["both_errors"] == counts[f"both:{name}"]
            assert row.custom_counts["match_ns"] > 0
            assert row.json_metadata["noise"] == "uniform"


@pytest.mark.slow
def test_sweep_resumes_and_extends(tmp_path, capsys):
    sweep(tmp_path, "max_shots=1500")
    before = (tmp_path / "collected.csv").read_text()
    assert sweep(tmp_path, "max_shots=1500") == 0
    assert (tmp_path / "collected.csv").read_text() == before
    assert "0 new shots, 1500 resumed" in capsys.readouterr().out

    assert sweep(tmp_path, "max_shots=2500") == 0
    assert (tmp_path / "collected.csv").read_text().startswith(before)
    assert shots_by_row(tmp_path / "stats.csv") == [2500, 2500]
    assert "1000 new shots, 1500 resumed" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "shots"),
    [
        ("", 0),
        (sinter.CSV_HEADER[:30], 0),
        (sinter.CSV_HEADER, 0),
        (sinter.CSV_HEADER + "\n", 0),
        (None, 1500),  # what the job has written, and the beginning of another row
    ],
)
def test_a_sweep_killed_while_writing_resumes(tmp_path, capsys, text, shots):
    collected = tmp_path / "collected.csv"
    if text is None:
        sweep(tmp_path, "max_shots=1500")
        text = collected.read_text() + "  123,     4,"
    collected.write_text(text)
    assert sweep(tmp_path, "max_shots=2000") == 0
    assert f"{2000 - shots} new shots, {shots} resumed" in capsys.readouterr().out
    assert sum(shots_by_row(collected)) == 2000


def test_other_decoders_start_new_rows():
    ids = set()
    for names in ("[pymatching]", "[pymatching,pymatching-css]", "[pymatching-css,pymatching]"):
        settings = SweepSettings.from_config(load_config("sweep", [*SMALL, f"decoders={names}"]))
        ids |= {task.strong_id() for task in tasks(settings)}
    assert len(ids) == 3


@pytest.mark.slow
def test_max_errors_stops_early(tmp_path):
    overrides = ("p=0.05", "max_shots=1000000", "max_errors=50", "batch=200")
    assert sweep(tmp_path, *overrides) == 0
    stats = sinter.read_stats_from_csv_files(tmp_path / "stats.csv")
    assert stats[0].errors >= 50
    assert stats[0].shots < 100_000


@pytest.mark.slow
def test_sweep_of_circuit_files(tmp_path, capsys):
    paths = []
    for basis, rounds in (("x", 4), ("z", 1)):
        circuit = stim.Circuit.generated(
            f"surface_code:rotated_memory_{basis}",
            distance=3,
            rounds=rounds,
            after_clifford_depolarization=0.01,
            before_round_data_depolarization=0.01,
        )
        paths.append(tmp_path / f"{basis}.stim")
        circuit.to_file(paths[-1])
    out = tmp_path / "out"
    files = ",".join(str(p) for p in paths)
    assert sweep(out, f"circuit={files}", "max_shots=1000") == 0
    stats = sinter.read_stats_from_csv_files(out / "stats.csv")
    rounds = {(s.json_metadata["circuit"], s.json_metadata["r"]) for s in stats}
    assert rounds == {(str(paths[0]), 4), (str(paths[1]), 1)}
    assert {s.json_metadata["d"] for s in stats} == {3}
    assert "x.stim (d=3 R=4): 1000 shots" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("path", ["-", "/dev/stdin"])
def test_sweep_of_a_circuit_from_standard_input(tmp_path, stim_circuit, path):
    command = [sys.executable, "-m", "qec.cli", "sweep", f"circuit={path}", "out=out"]
    command += ["decoders=[pymatching]", "max_shots=100"]
    done = subprocess.run(
        command, input=str(stim_circuit(3, 4, "X", 0.01)), cwd=tmp_path, text=True, timeout=600
    )
    assert done.returncode == 0
    (row,) = sinter.read_stats_from_csv_files(tmp_path / "out" / "stats.csv")
    assert row.json_metadata["r"] == 4


@pytest.mark.slow
def test_sweep_with_noise_from_a_file(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    axes = (f"noise=uniform,{path}", "p=0.01,0.02", "distance=3,5", "max_shots=200")
    names = []
    for rate in ("1e-3", "2e-3"):
        path.write_text(
            f"meas_x: 0.02\ncnot: [{rate}{', 1e-3' * 14}]\nidle_spam: [2e-3, 0, 2e-3]\n"
        )
        assert sweep(tmp_path, *axes) == 0
        stats = sinter.read_stats_from_csv_files(tmp_path / "stats.csv")
        labels = {s.json_metadata["noise"] for s in stats} - {"uniform"}
        names += labels
        assert len(stats) == 2 * (2 * 2 + 2)
        for stat in stats:
            assert ("p" in stat.json_metadata) == (stat.json_metadata["noise"] == "uniform")
        said = capsys.readouterr()
        assert f"d=3 R=2 basis X, {names[-1]} noise, ZV: 200 shots" in said.out
        # Plot and table leave out the rows of the file as it was before.
        others = "also holds 2 other grid points; table and plot show those asked for now"
        assert (others in said.err) == (rate == "2e-3")
    assert len(set(names)) == len(names) == 2  # an edited file starts new rows
    assert all(name.startswith("mine.yaml@") for name in names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "mine.yaml is not a YAML file"),
        ("- 1", "mine.yaml is not a mapping"),
        ("meas: 0.1", "mine.yaml: unknown noise rates ['meas']"),
        ("meas_x: 2", "mine.yaml: meas_x=2 is outside [0, 1]"),
        ("cnot: 0.1", "must be a list of 15 rates"),
        ("", "leaves nothing to decode"),
    ],
)
def test_bad_noise_files_are_refused(tmp_path, capsys, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert sweep(tmp_path / "out", f"noise={path}") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def table_rows():
    """One point of long names and large numbers."""
    metadata = {"d": 21, "r": 1000, "p": 0.001, "b": "X", "noise": "uniform", "o": "ZV"}
    counts = {"baseline_errors": 98765, "events": 12345 * 10**7, "events_left": 1234 * 10**7}
    counts |= {"predecode_ns": 10**14, "match_ns": 10**14, "shots": 10**7, "fallbacks": 10**7}
    longest = "predecoder[standard]+matching-cascade-ensemble"
    names = ("pymatching", longest, "pymatching-correlated-css")
    errors = ((98765, 98765), (1, 1), (9, 2))
    return [
        SweepRow(
            *("1", metadata, name, "pymatching"),
            **counts,
            errors=wrong,
            both_errors=both,
        )
        for name, (wrong, both) in zip(names, errors, strict=True)
    ]


def test_the_table_takes_100_characters_whatever_the_names_are(capsys):
    print_tables(table_rows())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    first = next(k for k, line in enumerate(lines) if line.startswith("predecoder[standard]+"))
    assert lines[first].startswith("predecoder[standard]+  ")
    folded = "".join(line.strip() for line in lines[first + 1 : first + 3])
    assert folded.startswith("matching-cascade-ensemble")
    (line,) = (line for line in lines if line.startswith("pymatching-correlated-css "))
    assert line.split()[1:4] == ["9", "9.00e-10", "(4.12-17.08)"]
    assert line.split()[-1] == "1234"  # no network, nothing is handed on


def test_all_columns_take_the_room_that_they_need(capsys):
    print_tables(table_rows(), "all")
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("pymatching-correlated-css "))
    assert "9.00e-7 (4.12-17.08)  9.00e-10 (4.12-17.08)" in line  # per shot, per round
    assert line.split()[-2:] == ["12345", "1234"]
    (line,) = (line for line in lines if line.startswith(table_rows()[1].decoder))
    assert line.split()[-5:] == ["10.00", "10.00", "12345", "1234", "100.0%"]


@pytest.mark.slow
def test_sweep_with_the_shipped_predecoder(tmp_path, capsys):
    decoders = "decoders=[pymatching,predecoder+pymatching,predecoder+matching-cascade]"
    assert sweep(tmp_path, "distance=5", "rounds=5", "max_shots=2000", decoders) == 0
    with open(tmp_path / "stats.csv") as file:
        rows = {row["decoder"]: row for row in csv.DictReader(file, skipinitialspace=True)}
    counts = {name: json.loads(row["custom_counts"]) for name, row in rows.items()}
    one, two = counts["predecoder+pymatching"], counts["predecoder+matching-cascade"]
    assert one["events_left"] < one["events"] == counts["pymatching"]["events"]
    # The network ran once for both.
    assert one["predecode_ns"] == two["predecode_ns"]
    assert one["fallbacks"] == 0 < two["fallbacks"] < 1000
    assert one["events_left"] < two["events_left"]  # and the events of the shots handed on
    assert counts["pymatching"]["fallbacks"] == 0
    metadata = json.loads(rows["predecoder+pymatching"]["json_metadata"])
    assert metadata["predecoder"].startswith("standard@")
    assert "predecoder" not in json.loads(rows["pymatching"]["json_metadata"])


def test_a_retrained_checkpoint_starts_new_rows(tmp_path):
    ids = []
    path, architecture = tmp_path / "own.safetensors", {"width": 4, "layers": 2}
    overrides = ["distance=3", "basis=X", "decoders=[pymatching,predecoder+pymatching]"]
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        weights = build_network(architecture).state_dict()
        save_predecoder(path, weights, architecture, threshold=1.0, history={})
        asked = load_config("sweep", [*overrides, f"predecoder={path}"])
        (task,) = tasks(SweepSettings.from_config(asked))
        assert task.json_metadata["predecoder"] == f"own@{load_predecoder(path).digest}"
        ids.append(task.strong_id())
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.slow
def test_a_network_that_does_not_fit_is_left_out_or_refused(tmp_path, capsys):
    """Said once for each point; what needs the network is refused before any shot."""
    path, architecture = tmp_path / "own.safetensors", {"width": 4, "layers": 2}
    network = build_network(architecture)
    torch.nn.init.constant_(network.head.bias, 9.0)  # commits edges whatever the events
    save_predecoder(path, network.state_dict(), architecture, threshold=0.5, history={})
    words = (f"predecoder={path}", "basis=X,Z", "max_shots=200", "num_workers=1")
    out, cascade = tmp_path / "out", "predecoder+matching-cascade"
    assert sweep(out, *words, f"decoders=[pymatching,{cascade},predecoder+pymatching]") == 2
    error = capsys.readouterr().err
    assert "basis X" in error
    assert "the network own does not fit this error model" in error
    assert error.count("\n") == 1
    assert not out.exists()
    assert sweep(out, *words, f"decoders=[matching-cascade,{cascade}]") == 0
    error = capsys.readouterr().err
    assert error.count("decoding goes on without it") == 2
    stats = sinter.read_stats_from_csv_files(out / "stats.csv")
    errors = collections.defaultdict(set)
    for row in stats:
        errors[row.json_metadata["b"]].add(row.errors)
    assert [len(found) for found in errors.values()] == [1, 1]  # the same predictions


def test_every_decoder_sees_the_same_shots():
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_x", distance=3, rounds=3, after_clifford_depolarization=0.02
    )
    dem = circuit.detector_error_model(decompose_errors=True)
    task = sinter.Task(circuit=circuit, detector_error_model=dem, decoder=SAMPLER)
    names = ("pymatching", "pymatching-correlated")
    compiled = PairedSampler(names, "", batch=256).compiled_sampler_for_task(task)
    sampled = []
    stim_sampler = compiled.stim_sampler

    class Recorder:
        def sample(self, shots, **options):
            sampled.append(stim_sampler.sample(shots, **options))
            return sampled[-1]

    compiled.stim_sampler = Recorder()
    stats = compiled.sample(1000)
    assert stats.shots == 256
    ((dets, truth),) = sampled
    predictions = {
        name: compiled.decoders[name].decode_batch(dets.view(np.uint8)) != truth for name in names
    }
    for name in names:
        wrong = predictions[name]
        assert stats.custom_counts[f"errors:{name}"] == wrong.sum()
        assert stats.custom_counts[f"both:{name}"] == (wrong & predictions["pymatching"]).sum()
    assert stats.errors == predictions["pymatching"].sum()
    assert stats.custom_counts["events"] == dets.sum()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distnce=5", "did you mean distance"),
        ("+distance=5", "cannot be added"),
        ("p=[0.1", "cannot read 'p=[0.1'"),
        ("p=glob(*)", "as a list"),
        ("distance=4", "use an odd integer >= 3"),
        ("rounds=0", "use an integer >= 1"),
        ("distance=[[3]]", "is nested"),
        ("p=1.5", "outside [0, 1]"),
        ("p=0", "above 0"),
        ("basis=Y", "use X or Z"),
        ("noise=foo", "use one of uniform"),
        ("decoders=[foo]", "decoder 'foo' is unknown"),
        (
            "decoders=[predecoder+pymatching-correlated]",
            "is gone: predecoder+matching-cascade takes its place",
        ),
        ("decoders=[]", "decoders is empty"),
        ("max_shots=0", "max_shots=0"),
        ("max_shots=1,2", "max_shots=[1, 2]"),
        ("num_workers=0", "num_workers=0"),
        ("noise=nowhere.yaml", "there is no file nowhere.yaml"),
        ("circuit=nowhere.stim", "there is no file nowhere.stim"),
        ("predecoder=nowhere.safetensors", "nowhere.safetensors"),
        ("predecoder=[]", "predecoder is empty"),
        ("array_task=0", "give array_task= and array_tasks= together"),
        ("merge=maybe", "use true or false"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys, override, message):
    out = tmp_path / "out"
    extra = ["decoders=[predecoder+pymatching]"] if override.startswith("predecoder=") else []
    assert sweep(out, *extra, override) == 2
    error = capsys.readouterr().err
    assert error.startswith("qec: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FOO 0\n", "is not a Stim circuit: Gate not found: 'FOO'"),
        (
            "R 0\nH 0\nM 0\nDETECTOR(1, 1, 0) rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]\n",
            "Stim cannot derive",
        ),
        ("", "has 0 detectors and 0 observables"),
        (
            f"{stim.Circuit.generated('repetition_code:memory', distance=3, rounds=3)}\n"
            "OBSERVABLE_INCLUDE(1) rec[-1]",
            "and 2 observables: use a memory experiment with one",
        ),
        (
            str(stim.Circuit.generated("repetition_code:memory", distance=3, rounds=3)),
            "repetition.stim",
        ),
    ],
)
def test_bad_circuits_are_refused(tmp_path, capsys, text, message):
    path = tmp_path / "repetition.stim"
    path.write_text(text)
    out = tmp_path / "out"
    assert sweep(out, f"circuit={path}") == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


# Job arrays --------------------------------------------------------------------------------------

ARRAY = ("distance=3,5", "basis=X,Z", "p=0.01", "max_shots=1500", "num_workers=1")


def run_task(out, task, tasks, *overrides):
    return sweep(out, *ARRAY, f"array_task={task}", f"array_tasks={tasks}", *overrides)


def lines_of(path):
    return [line for file in sorted(path.glob("*.csv")) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_array_tasks_share_a_grid_and_merge_to_the_same_table(tmp_path, capsys):
    alone, out = tmp_path / "alone", tmp_path / "array"
    assert sweep(alone, *ARRAY) == 0
    for task in range(3):
        assert run_task(out, task, 3) == 0
    files = sorted((out / "array").glob("*.csv"))
    assert [path.name.partition("-")[0] for path in files] == ["0", "1", "2"]
    ids = [{s.strong_id for s in sinter.read_stats_from_csv_files(path)} for path in files]
    assert sorted(map(len, ids)) == [1, 1, 2]
    assert len(set.union(*ids)) == 4  # no grid point in two tasks
    assert not (out / "stats.csv").exists()

    capsys.readouterr()
    for _ in range(2):  # a merge changes nothing that a second one would count
        assert sweep(out, *ARRAY, "merge=true") == 0
        assert "grid points: 4, 0 of them incomplete" in capsys.readouterr().out
        kinds = [
            [(s.strong_id, s.shots) for s in sinter.read_stats_from_csv_files(path / "stats.csv")]
            for path in (alone, out)
        ]
        assert kinds[0] == kinds[1]
        assert len(kinds[0]) == 8
        assert (out / "ler.png").exists()

    seeds = [line for path in files for line in path.with_suffix(".seeds").read_text().split("\n")]
    numbers = [line.split()[1] for line in seeds if line]
    assert len(numbers) == len(set(numbers)) >= 4


@pytest.mark.slow
def test_resubmitted_array_tasks_do_what_is_missing(tmp_path, capsys):
    """After a task was killed while it wrote, in an array of another size, and for more shots."""
    for task in range(2):
        run_task(tmp_path, task, 2)
    (killed,) = (tmp_path / "array").glob("1-*.csv")
    whole = killed.read_text()
    header, first, *_ = whole.splitlines()
    cut = f"{header}\n{first}\n  123,"
    killed.write_text(cut)
    before = lines_of(tmp_path / "array")
    lost = 6000 - sum(shots_by_row_of_all(tmp_path))
    assert 0 < lost < 3000

    capsys.readouterr()
    assert sweep(tmp_path, *ARRAY, "merge=true") == 0
    assert re.search("grid points: 4, [12] of them incomplete", capsys.readouterr().out)
    for task in range(3):
        assert run_task(tmp_path, task, 3) == 0
    assert killed.read_text() == cut  # another process may be writing to it
    assert sum(shots_by_row_of_all(tmp_path)) == 6000
    new = [int(x.split()[0]) for x in capsys.readouterr().out.splitlines() if "new shots" in x]
    assert sum(new) == lost
    assert run_task(tmp_path, 0, 2) == 0
    assert "0 new shots, 3000 resumed" in capsys.readouterr().out
    assert set(before) <= set(lines_of(tmp_path / "array"))

    assert sweep(tmp_path, *ARRAY, "max_shots=2000") == 0  # in one process: the same folder goes on
    assert "2000 new shots, 6000 resumed" in capsys.readouterr().out
    assert shots_by_row(tmp_path / "stats.csv") == [2000] * 8


def shots_by_row_of_all(out):
    """Shots of all whole lines in the folder of an array."""
    files = (io.StringIO(x[: x.rfind("\n") + 1]) for x in map(read, (out / "array").glob("*.csv")))
    return [stat.shots for stat in sinter.read_stats_from_csv_files(*files)]


def read(path):
    return path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("copy", "names", "message"),
    [
        ("array/7-copy", (".csv", ".seeds"), "have shots of the same seed"),
        ("array/7-copy", (".csv",), "does not say how the rows of 7-copy.csv were seeded"),
        ("collected", (".csv",), "does not say how the rows of collected.csv were seeded"),
    ],
)
def test_copied_files_are_not_counted_twice(tmp_path, capsys, copy, names, message):
    run_task(tmp_path, 0, 2)
    (file,) = (tmp_path / "array").glob("0-*.csv")
    for suffix in names:
        shutil.copy(file.with_suffix(suffix), (tmp_path / copy).with_suffix(suffix))
    assert sweep(tmp_path, *ARRAY, "merge=true") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "stats.csv").exists()


@pytest.mark.slow
def test_recorded_seeds_are_those_of_the_shots(tmp_path):
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_x", distance=3, rounds=3, after_clifford_depolarization=0.02
    )
    dem = circuit.detector_error_model(decompose_errors=True)
    task = sinter.Task(circuit=circuit, detector_error_model=dem, decoder=SAMPLER)
    rows, record = tmp_path / "1-run.csv", tmp_path / "1-run.seeds"
    sampler = PairedSampler(("pymatching",), "", batch=256)
    for shots in (256, 512):  # a run, and another that goes on
        known = read_collected(rows)
        task.collection_options = sinter.CollectionOptions(max_shots=shots)
        collect([task], sampler, rows, known, num_workers=1, seeds=record)
    seeds = read_seeds(record)
    assert [strong_id for strong_id, _ in seeds] == [task.strong_id()] * 2
    counts = [json.loads(row["custom_counts"]) for row in csv.DictReader(rows.open())]
    for (_, seed), found in zip(seeds, counts, strict=True):
        again = circuit.compile_detector_sampler(seed=seed)
        again.sample(64)  # warm-up
        assert again.sample(256).sum() == found["events"]


def test_a_merge_of_nothing_is_refused(tmp_path, capsys):
    assert sweep(tmp_path, *ARRAY, "merge=true") == 2
    assert "run the array tasks first" in capsys.readouterr().err


def test_a_task_without_grid_points_does_nothing(tmp_path, capsys):
    assert run_task(tmp_path, 9, 10) == 0
    assert "0 new shots" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["null", "''"])
def test_an_output_folder_without_a_name_is_refused(tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    assert sweep(out) == 2
    assert "out is empty: give out=PATH." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_unwritable_output_is_refused(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "sub"):
        assert sweep(out) == 2
        assert f"cannot write to the folder {out}" in capsys.readouterr().err
    assert file.read_text() == "mine"


_SINTER = sinter.CSV_HEADER + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "shots,errors\n1,2\n",
        "not a table\n",
        "shots,errors\n1,2",
        "my notes, without a final newline",
        _SINTER + "1,2\n",
        _SINTER + "damaged\nunfinished",
        _SINTER.replace(",custom_counts", ""),  # sinter would append rows of another length
    ],
)
def test_a_damaged_csv_is_refused(tmp_path, capsys, text):
    (tmp_path / "collected.csv").write_text(text)
    assert sweep(tmp_path) == 2
    assert "cannot be resumed" in capsys.readouterr().err
    assert (tmp_path / "collected.csv").read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["collected.csv"]
