"""The package is built in layers: a folder is a stage, and imports run downwards only."""

import ast
import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "qec"
LAYERS = (
    *("support", "circuits", "matching", "predecoder", "decoding", "windows", "evaluation"),
    *("calibration", "noise_learning", "training", "export", "realtime", "benchmarks", "cli"),
    "sinter_plugin",
)
"""Folders from the lowest to the highest, as docs/architecture.md draws them."""


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


NAMES = {name for name, _ in modules()}


def imported(path):
    """What a module imports of the package, also within functions; not for type checkers alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "qec":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in NAMES else node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "qec")


def test_no_import_runs_up():
    for name, path in modules():
        for other in imported(path):
            if name != "qec" != other:
                mine, theirs = (LAYERS.index(x.split(".")[1]) for x in (name, other))
                assert theirs <= mine, f"{name} imports {other}"


def test_no_module_imports_itself_by_way_of_others():
    needs = {name: set(imported(path)) & NAMES - {name, "qec"} for name, path in modules()}
    while free := [name for name, others in needs.items() if not others]:
        for name in free:
            del needs[name]
        for others in needs.values():
            others.difference_update(free)
    assert not needs


def test_few_entries_at_the_top():
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 16
    assert {path.stem for path in entries} == {*LAYERS, "__init__"}


@pytest.mark.parametrize("folder", LAYERS[:-1])
def test_every_folder_says_what_goes_in_and_out_and_where_to_start(folder):
    text = importlib.import_module(f"qec.{folder}").__doc__
    assert re.search(r"\bIn(?: and out)?: ", text)
    assert re.search(r"\bOut: |In and out: ", text)
    assert re.search(r"\bStart at\s``|``commands`` is the table", text)
