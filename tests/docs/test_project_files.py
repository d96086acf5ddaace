"""The files for contributors: what they name exists, and what they promise is so."""

import pathlib
import re
import subprocess
import sys

import yaml

import qec
from qec.cli.commands import COMMANDS

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff")


def test_the_guide_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:qec|conf|tests)/[\w./-]*)`", text)
    assert len(paths) > 20
    for path in paths:
        assert (ROOT / path).exists(), path


def test_the_changelog_names_commands_and_folders_that_exist():
    text = (ROOT / "CHANGELOG.md").read_text()
    named = set(re.findall(r"`qec ([a-z][a-z-]*[a-z])`", text))
    assert len(named) > 10
    assert named <= set(COMMANDS)
    for folder in re.findall(r"\| `(\w+)/` \|$", text, re.M):
        assert (ROOT / "qec" / folder).is_dir(), folder
    assert f"## {qec.__version__}" in text


def test_the_citation_has_the_version_and_the_license_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == qec.__version__
    assert citation["license"] == "MIT"


def test_spelling():
    prose = [*PAGES, "qec", "tests", "conf", "data", "docs", "notebooks", "slurm"]
    command = [sys.executable, "-m", "codespell_lib", *prose]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
