"""State that a disk, a person or another program has damaged: never a wrong number."""

from __future__ import annotations

import dataclasses
import json

import pytest
import sinter
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from training_files import TINY

from qec.benchmarks import learned_weights as benchmark
from qec.cli.commands import main
from qec.cli.config import load_config
from qec.evaluation.collected_rows import check_metadata, read_collected
from qec.evaluation.job_array import read_seeds
from qec.support.errors import QecError
from qec.training.data import BatchStream
from qec.training.settings import TrainSettings
from qec.training.training_state import TrainingState

# collected.csv -----------------------------------------------------------------------------------

COUNTS = {
    "errors:a": 30,
    "errors:b": 20,
    "both:a": 30,
    "both:b": 10,
    "events": 5000,
    **{f"{name}:{decoder}": 7 for name in ("match_ns", "predecode_ns") for decoder in "ab"},
}
ROW = {
    "shots": 1000,
    "errors": 30,
    "discards": 0,
    "seconds": 0.5,
    "decoder": "paired",
    "strong_id": "0" * 64,
    "json_metadata": {"d": 3, "decoders": ["a", "b"]},
    "custom_counts": COUNTS,
}


def csv_line(**changes) -> str:
    cells = {**ROW, **changes}
    quoted = {k: json.dumps(v) if isinstance(v, dict) else str(v) for k, v in cells.items()}
    return ",".join('"' + cell.replace('"', '""') + '"' for cell in quoted.values())


def write(path, *lines: str) -> None:
    path.write_text("\n".join([sinter.CSV_HEADER, *lines]) + "\n")


def counts(**changes) -> dict:
    """``COUNTS`` with those of names such as errors_b changed; None: without it."""
    changed = COUNTS | {key[:-2] + ":" + key[-1]: value for key, value in changes.items()}
    return {key: value for key, value in changed.items() if value is not None}


def test_whole_rows_are_added_up(tmp_path):
    path = tmp_path / "collected.csv"
    # sinter leaves out counts that are 0.
    none = counts(errors_a=None, errors_b=None, both_a=None, both_b=None)
    write(path, csv_line(), csv_line(errors=0, custom_counts=none))
    (found,) = read_collected(path).values()
    assert (found.shots, found.errors) == (2000, 30)
    assert found.custom_counts["errors:b"] == 20
    assert found.custom_counts["match_ns:a"] == 14


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"errors": 1001}, "errors=1001 of 1000 shots"),
        ({"errors": -1}, "errors=-1 is no count"),
        ({"shots": -5}, "shots=-5"),
        ({"shots": "many"}, "many"),
        ({"shots": 10**30}, "is no count"),
        ({"shots": "9" * 5000}, "line 3"),
        ({"discards": 2000}, "discards=2000"),
        ({"discards": 971}, "errors + discards=1001 of 1000 shots"),
        ({"seconds": "nan"}, "seconds"),
        ({"seconds": "-1"}, "seconds"),
        ({"json_metadata": "{"}, "line 3"),
        ({"json_metadata": "[" * 100_000}, "line 3"),
        ({"json_metadata": {"d": 3, "decoders": 5}}, "line 3"),
        ({"json_metadata": {"d": 5, "decoders": ["a", "b"]}}, "has other metadata"),
        ({"custom_counts": "7"}, "custom_counts"),
        ({"custom_counts": counts(errors_a=29, both_a=29)}, "errors=30, but errors:a=29"),
        ({"custom_counts": counts(errors_b=1001)}, "errors:b=1001 of 1000 shots"),
        ({"custom_counts": counts(errors_b=9)}, "both:b=10 is more than"),
        ({"custom_counts": counts(both_b=31)}, "both:b=31 is more than"),
        ({"custom_counts": counts(errors_b=-3)}, "errors:b=-3"),
        ({"custom_counts": counts(errors_b=2.5)}, "errors:b=2.5"),
        ({"custom_counts": counts(errors_b=None)}, "both:b=10 is more than"),
        ({"custom_counts": counts(match_ns_b=None)}, "no match_ns:b"),
        ({"custom_counts": {}}, "line 3"),
    ],
)
def test_a_row_that_cannot_be_right_is_refused_by_its_line(tmp_path, changes, message):
    path = tmp_path / "collected.csv"
    write(path, csv_line(), csv_line(**changes), csv_line())
    before = path.read_bytes()
    with pytest.raises(QecError, match="line 3") as refused:
        read_collected(path)
    assert message in str(refused.value)
    assert "another out=" in str(refused.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", [b"\xff\xfe", b'"open', b"\0", b",,,,,,,", b"1,2"])
def test_other_bytes_are_refused(tmp_path, line):
    path = tmp_path / "collected.csv"
    path.write_bytes(f"{sinter.CSV_HEADER}\n".encode() + line + b"\n")
    with pytest.raises(QecError, match="cannot be resumed"):
        read_collected(path)


def test_rows_of_a_task_say_what_the_task_says(stim_circuit):
    task = sinter.Task(
        circuit=stim_circuit(3, 3, "X", 0.01),
        detector_error_model=stim_circuit(3, 3, "X", 0.01).detector_error_model(),
        decoder="x",
        json_metadata={"d": 3},
    )
    row = sinter.TaskStats(
        strong_id=task.strong_id(), decoder="x", json_metadata={"d": 3}, shots=1, errors=0
    )
    check_metadata({row.strong_id: row}, [task])
    with pytest.raises(QecError, match="damaged metadata"):
        check_metadata({row.strong_id: dataclasses.replace(row, json_metadata={"d": 5})}, [task])


def test_a_damaged_table_is_one_line(tmp_path, capsys):
    write(tmp_path / "collected.csv", csv_line(errors=1001))
    assert main(["sweep", "distance=3", "basis=X", f"out={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert "collected.csv cannot be resumed (line 2: errors=1001 of 1000 shots)" in error
    assert error.count("\n") == 1


# Seeds -------------------------------------------------------------------------------------------


def test_an_unfinished_line_of_seeds_is_dropped(tmp_path):
    path = tmp_path / "collected.seeds"
    path.write_text("abc 12\nabc 34\nabc 5")
    assert read_seeds(path) == [("abc", 12), ("abc", 34)]
    assert path.read_text().endswith("abc 5")
    read_seeds(path, repair=True)
    assert path.read_text() == "abc 12\nabc 34\n"


@pytest.mark.parametrize(
    "line", [b"abc", b"abc 1 2", b"abc x", b"abc -1", b"abc 9223372036854775808", b"\xff 1", b""]
)
def test_damaged_seeds_are_refused(tmp_path, capsys, line):
    (tmp_path / "collected.seeds").write_bytes(b"abc 1\n" + line + b"\n")
    assert main(["sweep", "distance=3", "basis=X", f"out={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert "collected.seeds is damaged" in error
    assert error.count("\n") == 1


# state.safetensors -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Settings, and the tensors and metadata of a state after one step."""
    out = tmp_path_factory.mktemp("state")
    settings = TrainSettings.from_config(load_config("train", [*TINY, f"out={out}"]))
    run = TrainingState(settings, out / "state.safetensors")
    run.train_step(BatchStream(settings, 0, 1).batch(0))
    run.open_session(["qec", "train"])
    run.save()
    with safe_open(run.state, framework="pt") as file:
        return settings, load_file(run.state), file.metadata()


def resume(trained, tmp_path, tensors=None, meta=None) -> TrainingState:
    settings, own, said = trained
    changed = {k: v for k, v in {**own, **(tensors or {})}.items() if v is not None}
    meta = {k: v for k, v in {**said, **(meta or {})}.items() if v is not None}
    save_file(changed, tmp_path / "state.safetensors", metadata=meta)
    return TrainingState(settings, tmp_path / "state.safetensors")


def test_a_state_that_is_whole_is_resumed(trained, tmp_path):
    assert resume(trained, tmp_path).step == 1


def record(trained, **changes) -> dict[str, str]:
    return {"record": json.dumps({**json.loads(trained[2]["record"]), **changes})}


@pytest.mark.parametrize(
    "meta",
    [
        *({"step": text} for text in (None, "x", "-1", "1.5", str(2**60), "9" * 5000)),
        *({"seconds": text} for text in (None, "x", "nan", "-1", "inf")),
        *({"record": text} for text in ("", "{", "[]", "7", "{}", '{"settings": 5}', "[" * 10**5)),
    ],
)
@pytest.mark.slow
def test_a_state_that_says_nonsense_is_refused(trained, tmp_path, meta):
    with pytest.raises(QecError, match="cannot resume"):
        resume(trained, tmp_path, meta=meta)


@pytest.mark.parametrize(
    "changes",
    [
        {"sessions": []},
        {"sessions": 5},
        {"sessions": [5]},
        {"sessions": [{"command": "c", "hardware": "h"}]},
        {"sessions": [{"command": "c", "hardware": "h", "step": "1"}]},
        {"sessions": [{"command": "c", "hardware": "h", "step": 2}]},
        {"sessions": [{"command": 1, "hardware": "h", "step": 0}]},
        {"parent": 5},
        {"settings": []},
        {"settings": {"seed": 99}},
    ],
)
def test_a_record_that_makes_no_sense_is_refused(trained, tmp_path, changes):
    with pytest.raises(QecError, match="cannot resume"):
        resume(trained, tmp_path, meta=record(trained, **changes))


def _first(trained, start: str) -> str:
    return next(name for name in sorted(trained[1]) if name.startswith(start))


@pytest.mark.parametrize("part", ["network/", "ema/", "optimiser0/0.exp", "optimiser1/"])
@pytest.mark.parametrize("damage", ["missing", "shape", "dtype", "nan"])
def test_damaged_tensors_are_refused(trained, tmp_path, part, damage):
    name = _first(trained, part)
    tensor = trained[1][name]
    changed = {
        "missing": None,
        "shape": tensor.flatten()[:1].repeat(3),
        "dtype": tensor.to(torch.float16),
        "nan": torch.full_like(tensor, torch.nan, dtype=torch.float32),
    }[damage]
    with pytest.raises(QecError, match="cannot resume"):
        resume(trained, tmp_path, tensors={name: changed})


@pytest.mark.parametrize(
    "name",
    [
        *("network/more", "optimiser0/999.exp_avg", "optimiser0/x.exp_avg", "optimiser0/0.more"),
        *("optimiser9/0.exp_avg", "losses/more", "more"),
    ],
)
def test_unknown_tensors_are_refused(trained, tmp_path, name):
    with pytest.raises(QecError, match="cannot resume"):
        resume(trained, tmp_path, tensors={name: torch.zeros(2)})


def test_an_optimiser_of_another_step_is_refused(trained, tmp_path):
    steps = {n: torch.tensor(9.0) for n in trained[1] if n.endswith(".step")}
    assert steps
    with pytest.raises(QecError, match="another step"):
        resume(trained, tmp_path, tensors=steps)
    none = {n: None for n in trained[1] if n.startswith("optimiser0/")}
    with pytest.raises(QecError, match="is missing or not of this model"):
        resume(trained, tmp_path, tensors=none)


# Learning noise ----------------------------------------------------------------------------------

DRAW = benchmark.WeightsRecord("channels", 3, 0, "linear", 100, 0.5, True, 1000, 30, 20, 10)
DRAWS = [dataclasses.replace(DRAW, correlated=False), DRAW]


@pytest.mark.parametrize(
    "changes",
    [
        {"errors": 1001},
        {"both": 21},
        {"both": -1},
        {"shots": 5},
        {"seconds": float("nan")},
        {"kind": "other"},
        {"correlated": "maybe"},
        {"distance": "x"},
        {"learned_from": -1},
        {"shots": 2**53},
        {"correlated": False},  # it stands there twice
    ],
)
def test_damaged_draws_are_refused(tmp_path, changes):
    path = tmp_path / "draws.csv"
    benchmark._write(path, DRAWS)
    assert benchmark.read_records(path) == DRAWS
    benchmark._write(path, [DRAWS[0], dataclasses.replace(DRAW, **changes)])
    with pytest.raises(QecError, match=r"draws.csv is no file of this benchmark, or damaged"):
        benchmark.read_records(path)


def test_a_draw_without_its_row_of_the_other_matching_is_sampled_again(tmp_path):
    path = tmp_path / "draws.csv"
    benchmark._write(path, [*DRAWS, dataclasses.replace(DRAW, draw=1)])
    assert benchmark.read_records(path) == DRAWS


@pytest.mark.parametrize("content", [b"", b"\xff", b"kind,distance\n1,2\n", b'"'])
def test_other_files_are_no_draws(tmp_path, content):
    (tmp_path / "draws.csv").write_bytes(content)
    with pytest.raises(QecError, match="delete it"):
        benchmark.read_records(tmp_path / "draws.csv")
