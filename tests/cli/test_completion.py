"""Shell completion, in the shells."""

import shutil
import subprocess

import pytest

from qec.cli.commands import COMMANDS, main
from qec.cli.config import load_config

COMPLETE = """
source ./script
COMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
compopt() {{ :; }}  # it works in a completion alone
_qec
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
PROMPT = """
autoload -Uz compinit && compinit -u -d ./dump
source ./script
"""


@pytest.fixture
def script(tmp_path, capsys):
    """(shell) -> its folder, with the script that `qec completion` prints."""

    def make(shell):
        assert main(["completion", f"shell={shell}"]) == 0
        (tmp_path / "script").write_text(capsys.readouterr().out)
        return tmp_path

    return make


def bash(folder, program):
    command = ["bash", "--norc", "--noprofile", "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("qec sw", ["sweep"]),
        ("qec benchmark-w", ["benchmark-windows", "benchmark-window-speed", "benchmark-weights"]),
        ("qec sweep dist", ["distance="]),
        ("qec train distance = 5 hard", ["hardware="]),
        ("qec train hardware =", ["gb300", "h100"]),
        ("qec train hardware = h", ["h100"]),
        ("qec decode circuit = mem", []),
        ("qec nonsense dist", []),
    ],
)
def test_bash_completes(script, words, found):
    """Words as bash splits them: at blanks and at =."""
    assert bash(script("bash"), COMPLETE.format(words=words)) == found


def test_bash_offers_every_key_of_every_command(script):
    folder = script("bash")
    for name, command in COMMANDS.items():
        found = bash(folder, COMPLETE.format(words=f"qec {name} ''"))
        assert {key.rstrip("=") for key in found} >= set(load_config(command.keys or name)), name


def test_bash_takes_the_script(script):
    assert bash(script("bash"), "source ./script; complete -p qec")[-2:] == ["_qec", "qec"]


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_takes_the_script(script):
    command = ["zsh", "-f", "-c", PROMPT + "print $_comps[qec]"]
    done = subprocess.run(command, cwd=script("zsh"), capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("_qec\n", "")


def test_other_shells_are_refused(capsys):
    assert main(["completion", "shell=fish"]) == 2
    assert capsys.readouterr().err == (
        "qec: error: shell=fish is not supported: use bash or zsh.\n"
    )
