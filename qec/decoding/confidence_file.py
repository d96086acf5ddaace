"""Confidence in `qec decode`: its file, and how far it holds."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

import numpy as np
from omegaconf import DictConfig
from scipy.special import expit

from qec.support.errors import QecError
from qec.support.files import atomic_path
from qec.support.settings import required_path
from qec.support.statistics import error_rate
from qec.support.tables import Column, print_table, rate_text, scientific

if TYPE_CHECKING:
    from qec.decoding.decoder import Decoder

_EDGES = (1, 3, 5)  # nats, between the bins of a summary


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
    print(
        f"confidence below {', '.join(map(str, _EDGES))} nats: {', '.join(below)} of the shots",
        file=file,
    )
    if wrong is None:
        return
    edges = (0, *_EDGES, math.inf)
    place = np.searchsorted(_EDGES, confidence, side="right")
    bins = [
        _Bin(low, high, confidence[place == k], wrong[place == k])
        for k, (low, high) in enumerate(itertools.pairwise(edges))
    ]
    print_table(_COLUMNS, bins, file=file)


class _Bin(NamedTuple):
    low: float
    high: float
    confidence: np.ndarray
    wrong: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.low} or more" if math.isinf(self.high) else f"{self.low} to {self.high}"

    @property
    def predicted(self) -> float:
        """The rate that confidences g predict is the mean of 1 / (1 + exp(g))."""
        return float(expit(-self.confidence).mean())


_COLUMNS: tuple[Column[_Bin], ...] = (
    Column[_Bin]("nats", lambda b: b.name, name=True),
    Column("shots", lambda b: str(len(b.wrong))),
    Column("errors", lambda b: str(np.count_nonzero(b.wrong))),
    Column(
        "logical error rate\nper shot (95 %)",
        lambda b: rate_text(error_rate(int(np.count_nonzero(b.wrong)), len(b.wrong))),
    ),
    Column("predicted", lambda b: scientific(b.predicted) if len(b.wrong) else "-"),
)
