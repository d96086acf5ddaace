"""`qec decode`: recorded detection events in, predictions out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import stim
from omegaconf import DictConfig

from qec.circuits.model_agreement import warn_of_disagreement
from qec.circuits.stim_files import load_dem, read_shots_and_flips, shot_format, write_predictions
from qec.decoding.confidence_file import (
    check_confidence,
    confidence_file,
    confidence_path,
    print_summary,
)
from qec.support.errors import QecError
from qec.support.files import STANDARD, make_place
from qec.support.progress import with_bar
from qec.support.settings import positive_integer, required_path
from qec.support.statistics import error_rate
from qec.support.tables import rate_text


def decode(config: DictConfig, _: Sequence[str] = ()) -> None:
    """Decodes a file of detection events and writes the predictions; `qec decode`.

    Where ``confidence`` names a file, how sure each prediction is goes there
    (``qec.decoding.confidence``).

    Raises:
        QecError: a value that makes no sense, data that do not fit the circuit, an unwritable file.
    """
    path, out = required_path(config, "circuit"), required_path(config, "out")
    sure = confidence_path(config)
    dem = load_dem(path)
    out_format = shot_format(out, config.out_format)
    shots, truth = read_shots_and_flips(config, dem.num_detectors)
    if out_format == "ptb64" and len(shots) % 64:
        raise QecError(f"format ptb64 needs a multiple of 64 shots, but there are {len(shots)}.")
    places = [out] if sure is None else [out, sure]
    predictions, confidence = _predictions(config, dem, shots, places)
    warn_of_disagreement(shots, dem, path)
    with _writing(sure, confidence):
        write_predictions(predictions, out, out_format)
    report = sys.stderr if str(out) == STANDARD else sys.stdout
    also = "" if sure is None else f"; {sure}: their confidence"
    print(f"{out}: predictions of {config.decoder} for {len(shots)} shots{also}", file=report)
    wrong = None if truth is None else predictions[:, 0] != truth
    if wrong is not None:
        errors = int(np.count_nonzero(wrong))
        rate = rate_text(error_rate(errors, len(shots)))
        print(f"{errors} logical errors, {rate} per shot (95 % interval)", file=report)
    if confidence is not None:
        print_summary(confidence, wrong, report)


def _writing(place: Path | None, confidence: np.ndarray | None) -> AbstractContextManager:
    """A context in which the confidence is written, if asked for."""
    if place is None or confidence is None:
        return contextlib.nullcontext()
    return confidence_file(place, confidence)


def _predictions(
    config: DictConfig, dem: stim.DetectorErrorModel, shots: np.ndarray, places: list[Path]
) -> tuple[np.ndarray, np.ndarray | None]:
    """uint8 (B, 1), and their confidence, float64 (B,), if asked for.

    A bar shows how far it is where that takes long.
    """
    from qec.decoding.decoder import named_decoder
    from qec.support.compiled_loops import compiling_said

    name, predecoder = str(config.decoder), str(config.predecoder)
    threads = positive_integer("threads", config.threads)
    asked = config.confidence is not None

    def over(parts: Sequence[int]) -> Iterator[int]:
        return with_bar(parts, "decoding")

    with compiling_said():
        decoder = named_decoder(name, dem, predecoder=predecoder, threads=threads)
        if asked:
            check_confidence(decoder, name, shots)
        for place in places:
            make_place(place)  # after all that can be refused, before the work
        found = decoder.decode_recorded(shots, over, return_confidence=asked)
        return found if isinstance(found, tuple) else (found, None)
