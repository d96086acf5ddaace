"""The command line: ``qec COMMAND key=value ...``."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import os
import sys
import textwrap
import warnings
from collections.abc import Sequence

from qec import __version__
from qec.support.errors import QecError, exit_status


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of `qec`.

    Attributes:
        function: "module:name" of what it runs, imported when it is needed, so that `qec --help`
            stays fast.  It gets the configuration and the words of the command line.
        summary: what it is for.
        examples: lines that run.
        interrupted: what to do after Ctrl-C.
        keys: the file of conf/ with its keys and their defaults; "": named as the command.
    """

    function: str
    summary: str
    examples: tuple[str, ...]
    interrupted: str = "run the same command again"
    keys: str = ""


_COLLECTED = "the shots so far are in collected.csv: run the same command again to resume"
_NOTHING = "nothing was written: run the same command again"
_MEMORY = (
    "stim gen --code surface_code --task rotated_memory_x --distance 5 --rounds 5 "
    "--after_clifford_depolarization 0.006 > memory.stim"
)

COMMANDS = {
    "sweep": Command(
        "qec.evaluation.sweep:sweep",
        "logical error rates of several decoders, paired on the same shots",
        ("qec sweep distance=5,9 p=0.006 decoders=[pymatching,predecoder+matching-cascade]",),
        _COLLECTED,
    ),
    "decode": Command(
        "qec.decoding.decode_files:decode",
        "predict the logical flips of recorded detection events",
        (
            _MEMORY,
            "stim detect --shots 10000 --in memory.stim --out events.b8 --out_format b8 "
            "--obs_out flips.01",
            "qec decode circuit=memory.stim dets=events.b8 obs=flips.01 out=predictions.01",
        ),
        _NOTHING,
    ),
    "draw": Command(
        "qec.decoding.draw_shot:draw",
        "a shot in space-time: events, committed edges, residual, matching",
        ("qec draw distance=5 p=0.008 events=24",),
        _NOTHING,
    ),
    "calibrate": Command(
        "qec.calibration.command:calibrate",
        "which stages of the cascade pay, and how far confidence can be believed",
        ("qec calibrate distance=5 p=0.006",),
    ),
    "learn-noise": Command(
        "qec.noise_learning.command:learn",
        "learn the weights of matching from detection events alone",
        (
            _MEMORY,
            "stim detect --shots 100000 --in memory.stim --out events.b8 --out_format b8",
            "qec learn-noise structure=memory.stim dets=events.b8 out=out/learned",
        ),
    ),
    "train": Command(
        "qec.training.command:train_command",
        "train a pre-decoder",
        ("qec train",),
        "run the same command again to resume from its last checkpoint",
    ),
    "evaluate": Command(
        "qec.evaluation.evaluate:evaluate",
        "accuracy table of a checkpoint: gains over matching alone, with intervals",
        ("qec evaluate predecoder=standard distance=5,9 p=0.006 noise=uniform precision=0.1",),
        _COLLECTED,
    ),
    "realtime": Command(
        "qec.realtime.command:realtime",
        "benchmark of decoding while detection events arrive, in parallel windows",
        ("qec realtime distance=5 p=0.003 period_us=0,200",),
        _NOTHING,
    ),
    "benchmark": Command(
        "qec.benchmarks.decoding_time:benchmark",
        "time per round of each decoding step, next to what the machine can do",
        ("qec benchmark distance=5,9 p=0.006",),
        _NOTHING,
    ),
    "completion": Command(
        "qec.cli.completion:completion",
        "a script by which bash or zsh completes commands and keys",
        ("qec completion > ~/.local/share/bash-completion/completions/qec",),
        _NOTHING,
    ),
    "export": Command(
        "qec.export.command:export",
        "the pre-decoder as one ONNX graph, checked against torch",
        ("qec export distance=9 p=0.006 basis=X precision=int8 out=out/export",),
    ),
    "export-tensorrt": Command(
        "qec.export.tensorrt:build",
        "a TensorRT engine from an exported graph, for the GPU at hand",
        ("qec export-tensorrt graph=out/export/predecoder.onnx",),
    ),
    "benchmark-backends": Command(
        "qec.benchmarks.backends:benchmark",
        "time of the pre-decoder on torch, ONNX Runtime, OpenVINO",
        ("qec benchmark-backends distance=9",),
    ),
    "benchmark-windows": Command(
        "qec.benchmarks.window_errors:benchmark",
        "logical errors in windows over those of the whole history",
        ("qec benchmark-windows distance=5 p=0.006 shots=4096",),
    ),
    "benchmark-window-speed": Command(
        "qec.benchmarks.window_speed:benchmark",
        "time of decoding in windows, next to the whole history and a peer",
        ("qec benchmark-window-speed distance=5 p=0.003",),
        keys="benchmark-windows",
    ),
    "benchmark-weights": Command(
        "qec.benchmarks.learned_weights:benchmark",
        "logical errors with learned weights over those with the true ones",
        ("qec benchmark-weights distance=5 methods=auto",),
    ),
    "benchmark-drift": Command(
        "qec.benchmarks.noise_drift:benchmark",
        "logical errors with tracked weights while the noise drifts",
        ("qec benchmark-drift",),
    ),
    "paper-factors": Command(
        "qec.benchmarks.paper_tables:compare",
        "an evaluation next to the factors of arXiv:2604.12841",
        ("qec paper-factors evaluation=out/paper/m1/accuracy",),
    ),
}
"""The commands by name; those after `export` are for developers of decoders."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status.

    0; 2 for bad input; 75 when a signal has stopped a job (``Preempted``);
    130 after Ctrl-C, 143 after SIGTERM.
    """
    warnings.showwarning = _one_line
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        try:
            print(flush=True)
        except BrokenPipeError:  # the reader, say `head`, has had enough: no traceback for that
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        raise  # another pipe, such as a worker's


def _one_line(message: Warning | str, *_: object, **__: object) -> None:
    print(f"qec: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"qec {__version__}")
        return 0
    name, *rest = arguments
    interrupted = COMMANDS[name].interrupted if name in COMMANDS else ""
    return exit_status("qec", interrupted, functools.partial(_command, name, rest))


def _command(name: str, rest: Sequence[str]) -> None:
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(COMMANDS)}."
        raise QecError(f"there is no command {name!r}: {hint}")
    if {"-h", "--help"} & set(rest):
        print(_command_help(name))
        return
    from qec.cli.config import check_paths, load_config

    command = COMMANDS[name]
    config = load_config(command.keys or name, rest)
    check_paths(command.keys or name, config)
    module, function = command.function.split(":")
    getattr(importlib.import_module(module), function)(config, ("qec", name, *rest))


def _help() -> str:
    lines = ["usage: qec COMMAND [key=value ...]", "", "Surface-code decoding.  Commands:", ""]
    width = max(map(len, COMMANDS)) + 2
    lines += [f"  {name:<{width}}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            *lines,
            "",
            "For example:",
            "",
            *(_shown(COMMANDS[name].examples[-1]) for name in _SHOWN),
            "",
            "`qec COMMAND --help` explains the keys of a command, `qec --version` is the version.",
        ]
    )


def _shown(example: str) -> str:
    """An indented command of the shell, over several lines where it is long."""
    parts = textwrap.wrap(example, 92, break_long_words=False, break_on_hyphens=False)
    return "  " + " \\\n      ".join(parts)


_SHOWN = ("sweep", "decode", "learn-noise", "realtime")  # examples in the overview


def _command_help(name: str) -> str:
    from qec.support.files import config_file

    command = COMMANDS[name]
    path = config_file(command.keys or name)
    lines = [f"usage: qec {name} [key=value ...]", "", f"qec {name}: {command.summary}.", ""]
    lines += ["Example:", "", *map(_shown, command.examples), ""]
    lines += [f"Keys and defaults ({path}):", "", ""]
    return "\n".join(lines) + path.read_text().rstrip()
