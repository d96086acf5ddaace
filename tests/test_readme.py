"""What the README, and the pages of results behind it, tell a newcomer to run does run."""

import itertools
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from qec.cli import COMMANDS
from qec.config import load_config

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [README, *(path.read_text() for path in sorted((ROOT / "data/results").glob("*.md")))]
COMMAND = re.compile(
    r"^ {4}.*\bqec ([\w-]+)((?: \S+=\S+)*)\s*$|`qec ([\w-]+)((?: \S+=\S+)*)`", re.M
)


@pytest.mark.slow
@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.S))
def test_python_examples_run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_commands_have_the_keys_they_are_given():
    found = [
        [(a or b, x or y) for a, x, b, y in COMMAND.findall(page) if (a or b) in COMMANDS]
        for page in PAGES
    ]
    assert {name for name, _ in found[0]} == set(COMMANDS)
    assert len(PAGES) > 1
    found = itertools.chain.from_iterable(found)
    for name, overrides in found:
        load_config(name, shlex.split(overrides))


def test_batch_scripts_have_the_keys_they_are_given():
    text = (ROOT / "slurm/README.md").read_text()
    found = re.findall(r"slurm/(\w+)\.sbatch((?: [a-z_]+=[^ \n`)]+)*)", text)
    assert {name for name, _ in found} == {"train", "sweep", "merge"}
    for name, overrides in found:
        load_config("sweep" if name == "merge" else name, shlex.split(overrides))


def test_modules_exist():
    for path in re.findall(r"`((?:qec|conf|data|notebooks|slurm)/[\w./]*)`", "".join(PAGES)):
        assert (ROOT / path).exists(), path
