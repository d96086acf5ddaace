"""The command line: ``qec COMMAND key=value ...``."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qec import __version__
from qec.errors import QecError, exit_status

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: what it is for, examples that run, and what to do after Ctrl-C.

    ``run(config, command)`` gets conf/<name>.yaml with the overrides and the whole command line,
    and imports what it needs, so that ``qec --help`` stays fast.
    """

    summary: str
    examples: tuple[str, ...]
    interrupted: str
    run: Callable[[DictConfig, Sequence[str]], None]


def _sweep(config: DictConfig, command: Sequence[str]) -> None:
    from qec.sweep import sweep

    sweep(config, command)


def _train(config: DictConfig, command: Sequence[str]) -> None:
    from qec.training.settings import TrainSettings

    settings = TrainSettings.from_config(config)
    from qec.training.loop import train  # torch, once the values are known to be sound

    train(settings, command)


def _evaluate(config: DictConfig, command: Sequence[str]) -> None:
    from qec.evaluate import evaluate

    evaluate(config, command)


def _decode(config: DictConfig, _: Sequence[str]) -> None:
    from qec.dataset import decode

    decode(config)


def _calibrate(config: DictConfig, command: Sequence[str]) -> None:
    from qec.calibrate.command import calibrate

    calibrate(config, command)


def _learn_noise(config: DictConfig, command: Sequence[str]) -> None:
    from qec.noise_learning.command import learn

    learn(config, command)


def _benchmark(config: DictConfig, command: Sequence[str]) -> None:
    from qec.benchmark.command import benchmark

    benchmark(config, command)


def _realtime(config: DictConfig, command: Sequence[str]) -> None:
    from qec.realtime.command import realtime

    realtime(config, command)


def _export(config: DictConfig, _: Sequence[str]) -> None:
    from qec.export.command import export

    export(config)


COMMANDS = {
    "sweep": Command(
        "logical error rates of several decoders, paired on the same shots",
        ("qec sweep distance=5,9 p=0.006 decoders=[pymatching,predecoder+matching-cascade]",),
        "the shots so far are in collected.csv: run the same command again to resume",
        _sweep,
    ),
    "train": Command(
        "train a pre-decoder",
        ("qec train",),
        "run the same command again to resume from its last checkpoint",
        _train,
    ),
    "evaluate": Command(
        "accuracy table of a checkpoint: factors over matching alone, with intervals",
        ("qec evaluate predecoder=standard distance=5,9 p=0.006 noise=uniform precision=0.1",),
        "the shots so far are in collected.csv: run the same command again to resume",
        _evaluate,
    ),
    "learn-noise": Command(
        "learn the weights of matching from detection events alone",
        (
            "stim gen --code surface_code --task rotated_memory_x --distance 5 --rounds 5 "
            "--after_clifford_depolarization 0.006 > memory.stim",
            "stim detect --shots 100000 --in memory.stim --out events.b8 --out_format b8",
            "qec learn-noise structure=memory.stim dets=events.b8 out=out/learned",
        ),
        "run the same command again",
        _learn_noise,
    ),
    "realtime": Command(
        "benchmark of decoding while detection events arrive, in parallel windows",
        ("qec realtime distance=5 p=0.003 period_us=0,200",),
        "nothing was written: run the same command again",
        _realtime,
    ),
    "benchmark": Command(
        "time per round of each step of the decoders, next to what the machine can do",
        ("qec benchmark distance=5,9 p=0.006",),
        "nothing was written: run the same command again",
        _benchmark,
    ),
    "decode": Command(
        "predict the logical flips of recorded detection events",
        (
            "stim gen --code surface_code --task rotated_memory_x --distance 5 --rounds 5 "
            "--after_clifford_depolarization 0.006 > memory.stim",
            "stim detect --shots 10000 --in memory.stim --out events.b8 --out_format b8 "
            "--obs_out flips.01",
            "qec decode circuit=memory.stim dets=events.b8 obs=flips.01 out=predictions.01",
        ),
        "nothing was written: run the same command again",
        _decode,
    ),
    "calibrate": Command(
        "which stages of the cascade pay, and how far decoders' confidence can be believed",
        ("qec calibrate distance=5 p=0.006",),
        "run the same command again",
        _calibrate,
    ),
    "export": Command(
        "the pre-decoder as one ONNX graph, checked against torch",
        ("qec export distance=9 p=0.006 basis=X precision=int8 out=out/export",),
        "run the same command again",
        _export,
    ),
}


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


def _one_line(message: Warning, *_: object, **__: object) -> None:
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
        raise QecError(f"there is no command {name!r}: use one of {', '.join(COMMANDS)}.")
    if {"-h", "--help"} & set(rest):
        print(_command_help(name))
        return
    from qec.config import load_config

    COMMANDS[name].run(load_config(name, rest), ("qec", name, *rest))


def _help() -> str:
    lines = ["usage: qec COMMAND [key=value ...]", "", "Surface-code decoding.  Commands:", ""]
    for name, command in COMMANDS.items():
        lines += [f"  {name:<13}{command.summary}", f"{'':15}{command.examples[-1]}", ""]
    return "\n".join(
        [
            *lines,
            "`qec COMMAND --help` explains the keys of a command, `qec --version` is the version.",
        ]
    )


def _command_help(name: str) -> str:
    from qec.files import config_file

    command, path = COMMANDS[name], config_file(name)
    lines = [f"usage: qec {name} [key=value ...]", "", f"qec {name}: {command.summary}.", ""]
    lines += ["Example:", "", *(f"  {line}" for line in command.examples), ""]
    lines += [f"Keys and defaults ({path}):", ""]
    lines += [f"  {line}".rstrip() for line in path.read_text().splitlines()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
