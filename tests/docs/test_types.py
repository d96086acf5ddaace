"""The types that functions announce fit together."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def mypy(*arguments, cache):
    command = [sys.executable, "-m", "mypy", "--cache-dir", cache, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_mypy_finds_nothing_in_the_package_and_something_in_a_slip(tmp_path):
    """Settings of pyproject.toml, as `mypy` by itself takes them."""
    done = mypy(cache=tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    slip = tmp_path / "slip.py"
    slip.write_text("import qec.support.files\n\nqec.support.files.config_file(3)\n")
    done = mypy(slip, cache=tmp_path / "cache")
    assert "[arg-type]" in done.stdout
