"""Confidence in `qec decode`: its file, and how far it holds."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.special import expit

from qec.support.errors import QecError
from qec.support.files import atomic_path
from qec.support.settings import required_path
from qec.support.statistics import error_rate

if TYPE_CHECKING:
    from qec.decoding.decoder import Decoder

_EDGES = (1, 3, 5)  # nats, between the bins of a summary
_WIDTH = 100  # of its table: at less, rich would cut numbers short


def check_confidence(decoder: Decoder, name: str, shots: np.ndarray) -> None:
    """QecError where the decoder has none to tell: said before the work, by decoding no shots.

    Args:
        decoder: the decoder.
        name: its name.
        shots: uint8 (B, ceil(num_detectors / 8)), bit-packed.
    """
    try:
        decoder.decode_batch(shots[:0], bit_packed_shots=True, return_confidence=True)
    except QecError as error:
        raise QecError(f"leave confidence out, {name} has none here: {error}") from error


def confidence_path(config: DictConfig) -> Path | None:
    """Where confidences go; None: nowhere.

    Raises:
        QecError: its ending is of neither format, or it is another file of the command.
    """
    if config.confidence is None:
        return None
    path = required_path(config, "confidence")
    if path.suffix not in (".npy", ".txt"):
        raise QecError(f"confidence={path} is not supported: use a file ending in .npy or .txt.")
    for key in ("out", "circuit", "dets", "obs"):
        if config[key] is not None and os.path.realpath(str(config[key])) == os.path.realpath(path):
            raise QecError(f"confidence and {key} are the same file {path}: give another one.")
    return path


@contextlib.contextmanager
def confidence_file(path: Path, confidence: np.ndarray) -> Iterator[None]:
    """Writes float64 (B,), in place once the block has succeeded: both files are, or neither."""
    with atomic_path(path) as temporary:
        if path.suffix == ".npy":
            with temporary.open("wb") as file:  # by its name, np.save might add an ending
                np.save(file, confidence)
        else:
            temporary.write_text("".join(f"{nats!r}\n" for nats in confidence.tolist()))
        yield


def print_summary(confidence: np.ndarray, wrong: np.ndarray | None, file: TextIO) -> None:
    """Prints how many shots are in doubt and, in bins, how far their confidence holds.

    Args:
        confidence: float64 (B,), nats, at least one.
        wrong: bool (B,), predictions that are; None: unknown.
        file: where to.
    """
    below = (f"{np.mean(confidence < edge):.2%}" for edge in _EDGES)
    edges = ", ".join(map(str, _EDGES))
    print(f"confidence below {edges} nats: {', '.join(below)} of the shots", file=file)
    if wrong is None:
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0))
    for head in ("nats", "shots", "errors", "LER per shot (95 %)", "predicted LER"):
        table.add_column(head, justify="left" if head == "nats" else "right", no_wrap=True)
    names = [f"{low} to {high}" for low, high in itertools.pairwise((0, *_EDGES))]
    names.append(f"{_EDGES[-1]} or more")
    place = np.searchsorted(_EDGES, confidence, side="right")
    for k, name in enumerate(names):
        table.add_row(name, *_cells(confidence[place == k], wrong[place == k]))
    console = Console(file=file, markup=False, highlight=False, soft_wrap=True)
    console.width = max(console.width, _WIDTH)
    console.print(table)


def _cells(confidence: np.ndarray, wrong: np.ndarray) -> tuple[str, ...]:
    """Of one bin; the rate that confidences g predict is the mean of 1 / (1 + exp(g))."""
    shots, errors = len(confidence), int(np.count_nonzero(wrong))
    if not shots:
        return "0", "0", "", ""
    rate, predicted = error_rate(errors, shots), expit(-confidence).mean()
    interval = f"{rate.value:.2e} ({rate.low:.2e} to {rate.high:.2e})"
    return str(shots), str(errors), interval, f"{predicted:.2e}"
