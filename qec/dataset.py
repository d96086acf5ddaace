"""Files in and out: circuits, detection events and predictions in Stim's formats; `qec decode`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import stim
from omegaconf import DictConfig, OmegaConf

from qec.errors import QecError
from qec.files import atomic_path, make_folder
from qec.lattice import detector_error_model
from qec.stats import error_rate

FORMATS = ("01", "b8", "r8", "ptb64", "hits", "dets")

_CHUNK = 4096  # shots that are decoded at a time


def load_circuit(path: str | Path) -> stim.Circuit:
    """Reads a .stim file; QecError where it is missing or not a circuit."""
    path = _existing(path)
    try:
        return stim.Circuit.from_file(path)
    except (ValueError, IndexError) as error:
        raise QecError(f"{path} is not a Stim circuit: {_first_line(error)}.") from error


def load_dem(path: str | Path) -> stim.DetectorErrorModel:
    """The detector error model of a .dem file, or of the circuit in a .stim file."""
    if Path(path).suffix == ".stim":
        return detector_error_model(load_circuit(path))
    if Path(path).suffix != ".dem":
        raise QecError(f"{path}: give a circuit (.stim) or a detector error model (.dem).")
    path = _existing(path)
    try:
        return stim.DetectorErrorModel.from_file(path)
    except (ValueError, IndexError) as error:
        raise QecError(f"{path} is not a detector error model: {_first_line(error)}.") from error


def shot_format(path: str | Path, given: str | None) -> str:
    """The shot data format ``given``, or the one that the file's ending names."""
    name = str(given) if given is not None else Path(path).suffix.lstrip(".")
    if name not in FORMATS:
        hint = "" if given is not None else f" (from the ending of {path}; or set it by hand)"
        raise QecError(f"format {name!r} is unknown{hint}: use one of {', '.join(FORMATS)}.")
    return name


def read_shots(path: str | Path, fmt: str, detectors: int, observables: int = 0) -> np.ndarray:
    """Reads shot data, bit-packed: uint8 (shots, ceil((detectors + observables) / 8)).

    Raises:
        QecError: the file is missing, truncated or has another number of bits per shot.
    """
    path = _existing(path)
    try:
        return stim.read_shot_data_file(
            path=path,
            format=fmt,
            bit_packed=True,
            num_detectors=detectors,
            num_observables=observables,
        )
    except ValueError as error:
        bits = " + ".join(
            f"{n} {what}{'s' * (n > 1)}"
            for n, what in ((detectors, "detector"), (observables, "observable"))
            if n
        )
        raise QecError(
            f"{path} does not hold {detectors + observables} bits per shot ({bits}) in format "
            f"{fmt}: {_first_line(error)}. Check the circuit, the format and append_observables."
        ) from error


def decode(config: DictConfig) -> None:
    """Decodes a file of detection events and writes the predictions; `qec decode`."""
    from qec.decoder import named_decoder

    dem = load_dem(_required(config, "circuit"))
    dets_path, out = _required(config, "dets"), Path(str(config.out))
    dets_format = shot_format(dets_path, config.dets_format)
    out_format = shot_format(out, config.out_format)
    appended = bool(config.append_observables)
    if appended and config.obs is not None:
        raise QecError("the observables are given twice: by obs and by append_observables.")

    shots = read_shots(dets_path, dets_format, dem.num_detectors, dem.num_observables * appended)
    if not len(shots):
        raise QecError(f"{dets_path} holds no shots.")
    truth = None
    if appended:
        bits = np.unpackbits(shots, axis=1, bitorder="little")
        truth = bits[:, dem.num_detectors :][:, : dem.num_observables]
        shots = np.packbits(bits[:, : dem.num_detectors], axis=1, bitorder="little")
    elif config.obs is not None:
        obs_format = shot_format(config.obs, config.obs_format)
        truth = read_shots(config.obs, obs_format, 0, dem.num_observables)
        if len(truth) != len(shots):
            raise QecError(
                f"{config.obs} holds {len(truth)} shots, but {dets_path} holds {len(shots)} at "
                f"{dem.num_detectors} bits per shot: do they belong to this circuit?"
            )
    if out_format == "ptb64" and len(shots) % 64:
        raise QecError(f"format ptb64 needs a multiple of 64 shots, {dets_path} has {len(shots)}.")
    make_folder(out.parent)

    decoder = named_decoder(str(config.decoder), dem, predecoder=str(config.predecoder))
    predictions = np.concatenate(
        [
            decoder.decode_batch(shots[k : k + _CHUNK], bit_packed_shots=True)
            for k in range(0, len(shots), _CHUNK)
        ]
    )
    with atomic_path(out) as temporary:
        stim.write_shot_data_file(
            data=predictions.astype(bool), path=temporary, format=out_format, num_observables=1
        )
    print(f"{out}: predictions of {config.decoder} for {len(shots)} shots")
    if truth is not None:
        errors = int(np.count_nonzero((predictions != truth).any(axis=1)))
        rate = error_rate(errors, len(shots))
        print(
            f"{errors} logical errors, {rate.value:.3e} per shot "
            f"(95 % interval {rate.low:.3e} to {rate.high:.3e})"
        )


def _required(config: DictConfig, key: str) -> str:
    if OmegaConf.is_missing(config, key):
        raise QecError(f"decode needs {key}=PATH; see `qec decode --help`.")
    return str(config[key])


def _existing(path: str | Path) -> str:
    if not Path(path).is_file():
        raise QecError(f"there is no file {path}.")
    return str(path)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
