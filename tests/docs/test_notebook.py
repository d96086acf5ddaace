"""The notebooks run from top to bottom, and their stored outputs are whole and tell no machine."""

import ast
import pathlib
import re
import socket

import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
SMALL = {
    "device_training": {
        "DISTANCE": 3,
        "TRAINING_SHOTS": (0, 64, 128),
        "HELD_OUT": 256,
        "DECODED": 500,
    },
    "noise_learning": {"DISTANCE": 3, "LEARNED_FROM": 5000, "DECODED": 500, "LOOKS": 4},
    "pipeline": {"DISTANCE": 3, "ROUNDS": 3, "SHOTS": 300},
    "soft_output": {"DISTANCE": 3, "SHOTS": 2000},
    "thresholds": {
        "DISTANCES": (3, 5),
        "STRENGTHS": (0.006, 0.009, 0.012),
        "MAX_SHOTS": 200,
        "TIMED_DISTANCE": 3,
        "TIMED_SHOTS": 100,
    },
}
"""Sizes in place of those in the cell with the tag ``parameters``."""


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def parameters(notebook):
    (cell,) = (c for c in code_cells(notebook) if "parameters" in c.metadata.get("tags", ()))
    return cell


def made_small(notebook, sizes):
    """The notebook with other values; they must be ones that it assigns."""
    cell = parameters(notebook)
    assigned = {t.id for node in ast.parse(cell.source).body for t in node.targets}
    assert set(sizes) <= assigned
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in sizes.items())
    return notebook


def test_every_notebook_has_a_small_version():
    assert {path.stem for path in PATHS} == set(SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    notebook = made_small(read(path), SMALL[path.stem])
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_is_stored_was_run_in_order_without_errors(path):
    notebook = read(path)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    kinds = [output.output_type for output in outputs(notebook)]
    assert "error" not in kinds
    assert [o for o in outputs(notebook) if "image/png" in o.get("data", {})]
    assert not [o for o in outputs(notebook) if o.get("name") == "stderr"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_is_stored_is_small_and_names_no_machine(path):
    assert path.stat().st_size <= 400_000
    notebook = read(path)
    for output in outputs(notebook):
        output.get("data", {}).pop("image/png", None)
    for text in (str(outputs(notebook)), str(notebook.metadata)):
        assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)
        assert not re.search(r"/(home|root|tmp|usr|opt|var|work|Users|mnt)/", text)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_says_at_the_top_what_it_shows_and_how_long_it_takes(path):
    first = read(path).cells[0].source
    assert first.startswith("# ")
    assert re.search(r"It takes about .*(minute|second)", first)
