"""Compiled loops are kept on disk, and an earlier version's do no harm."""

import subprocess
import sys

LOOPS = """
from typing import NamedTuple
import numpy as np
from qec.support.compiled_loops import compiled

class NAME(NamedTuple):
    x: np.ndarray

@compiled
def total(values):
    return values.x.sum()

print(total(NAME(np.arange(3))), sum(total.stats.cache_hits.values()))
"""


def test_types_that_have_changed_their_names_are_forgotten(tmp_path):
    """The same file with a class by another name, as after an update of the package."""
    found = []
    for name in ("Old", "Old", "New", "New"):
        (tmp_path / "loops.py").write_text(LOOPS.replace("NAME", name))
        command = [sys.executable, "-c", "import loops"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())
    assert found == [["3", "0"], ["3", "1"], ["3", "0"], ["3", "1"]]
