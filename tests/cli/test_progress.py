"""What a long `qec decode` says while it works."""

import io

import numba
import pytest
from rich.console import Console

from qec.support import progress
from qec.support.compiled_loops import compiling_said
from qec.support.progress import with_bar


@pytest.fixture
def terminal(monkeypatch):
    """Standard error as a terminal's; returns what it shows."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    return shown


def test_a_bar_is_shown_once_it_takes_long_and_wiped_out(terminal, monkeypatch):
    assert list(with_bar(range(5), "decoding")) == [0, 1, 2, 3, 4]
    assert "decoding" not in terminal.getvalue()
    monkeypatch.setattr(progress, "_PATIENCE", -1.0)
    assert list(with_bar(range(5), "decoding")) == [0, 1, 2, 3, 4]
    assert "decoding" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased


def test_a_file_gets_no_bar(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_PATIENCE", -1.0)
    assert list(with_bar("abc", "decoding")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_compiling_is_said_once(capsys):
    with compiling_said():
        for change in (1, 2):
            assert numba.njit(lambda x, change=change: x + change)(3) == 3 + change
    assert capsys.readouterr().err == "qec: compiling loops, once\n"
    with compiling_said():
        pass
    assert capsys.readouterr().err == ""
