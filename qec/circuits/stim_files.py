"""Files in and out: circuits, noise models, shots in Stim's formats."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import stim
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qec.circuits.error_model import MOST_DETECTORS
from qec.circuits.lattice import detector_error_model
from qec.circuits.noise_model import CircuitNoise
from qec.support.errors import QecError, first_line
from qec.support.files import STANDARD, atomic_path, is_file
from qec.support.settings import required_path

FORMATS = ("01", "b8", "r8", "ptb64", "hits", "dets")

_LOOPS = (stim.CircuitRepeatBlock, stim.DemRepeatBlock)
_DEEPEST = 20  # of loops within loops
_YAML_DEPTH = 2  # a mapping of lists
# Experiments that fit a large machine's memory stay below these.
_MOST_QUBITS = 10**5
_MOST_INSTRUCTIONS = 10**8

_KINDS = {stim.Circuit: "a Stim circuit", stim.DetectorErrorModel: "a detector error model"}


def load_circuit(path: str | Path) -> stim.Circuit:
    """Reads a circuit; "-" is standard input.

    Raises:
        QecError: the file is missing, is no circuit, or has no detectors or not one observable.
    """
    return _model(path, stim.Circuit)


def load_dem(path: str | Path) -> stim.DetectorErrorModel:
    """Reads a detector error model, or derives that of a circuit; "-" is standard input.

    What a file holds that ends in neither .stim nor .dem is found by trying.

    Raises:
        QecError: the file is missing or is neither, or has no detectors or not one observable.
    """
    model = load_structure(path)
    return detector_error_model(model) if isinstance(model, stim.Circuit) else model


def load_structure(path: str | Path) -> stim.Circuit | stim.DetectorErrorModel:
    """Reads a circuit or a detector error model, as what it is; raises as ``load_dem``."""
    kinds = {".stim": [stim.Circuit], ".dem": [stim.DetectorErrorModel]}
    return _model(path, *kinds.get(Path(path).suffix, _KINDS))


def load_noise(path: str | Path) -> CircuitNoise:
    """Reads a YAML file of ``CircuitNoise`` fields; QecError where it is not one or all zero."""
    text = _text(path)
    try:
        _check_yaml(text)
        rates = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        reason = getattr(error, "problem", None) or first_line(error)
        raise QecError(f"{path} is not a YAML file of rates: {reason}.") from error
    if not isinstance(rates, dict):
        raise QecError(f"{path} is not a mapping: write one `name: rate` a line.")
    try:
        noise = CircuitNoise.from_mapping({str(name): rate for name, rate in rates.items()})
    except QecError as error:
        raise QecError(f"{path}: {error}") from error
    if noise == CircuitNoise():
        raise QecError(f"{path}: all rates are 0, which leaves nothing to decode.")
    return noise


def _check_yaml(text: str) -> None:
    """ValueError for what YAML can hold but rates do not: aliases, and lists within lists.

    A few of them stand for documents that no memory holds.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"write the rates out, without the alias *{event.anchor}")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _YAML_DEPTH:
            raise ValueError("lists within lists")


def _model(path: str | Path, *kinds: type) -> stim.Circuit | stim.DetectorErrorModel:
    """The file as the first of ``kinds`` that can read it."""
    text, reasons = _text(path), []
    if _nesting(text) > _DEEPEST:
        raise QecError(f"{path} has blocks within blocks, more than {_DEEPEST} deep.")
    for kind in kinds:
        try:
            model = kind(text)
            break
        except (ValueError, IndexError, RuntimeError) as error:
            reasons.append(f"not {_KINDS[kind]}: {first_line(error)}")
    else:
        raise QecError(f"{path} is {'; '.join(reasons)}.")
    if model.num_detectors == 0 or model.num_observables != 1:
        raise QecError(
            f"{path} has {model.num_detectors} detectors and {model.num_observables} observables: "
            "use a memory experiment with one observable."
        )
    _check_size(path, model)
    return model


def _nesting(text: str) -> int:
    """How deep its blocks lie in each other."""
    depth = deepest = 0
    for brace in re.findall(r"\{\s*$|^\s*\}", text, flags=re.MULTILINE):
        depth += 1 if "{" in brace else -1
        deepest = max(deepest, depth)
    return deepest


def _check_size(path: str | Path, model: stim.Circuit | stim.DetectorErrorModel) -> None:
    """QecError where no memory would hold the model; found without unrolling its loops."""
    sizes = {"detectors": (model.num_detectors, MOST_DETECTORS)}
    if isinstance(model, stim.Circuit):
        sizes["qubits"] = (model.num_qubits, _MOST_QUBITS)
    sizes["instructions with its loops unrolled"] = (_unrolled(model), _MOST_INSTRUCTIONS)
    for what, (count, most) in sizes.items():
        if count > most:
            raise QecError(
                f"{path} has {count} {what}, more than the {most} that qec takes: is an index or a "
                "number of repetitions mistyped?"
            )


def _unrolled(block: stim.Circuit | stim.DetectorErrorModel) -> int:
    """Instructions of a circuit or model with its loops unrolled."""
    loops = [part for part in block if isinstance(part, _LOOPS)]
    inside = sum(part.repeat_count * _unrolled(part.body_copy()) for part in loops)
    return len(block) - len(loops) + inside


def shot_format(path: str | Path, given: str | None) -> str:
    """The shot data format ``given``, or the one that the file's ending names.

    Raises:
        QecError: an unknown format, or an ending that names none.
    """
    name = str(given) if given is not None else Path(path).suffix.lstrip(".")
    if name not in FORMATS:
        hint = "" if given is not None else f" (from the ending of {path}; or set it by hand)"
        raise QecError(f"format {name!r} is unknown{hint}: use one of {', '.join(FORMATS)}.")
    return name


def read_shots(path: str | Path, fmt: str, detectors: int, observables: int = 0) -> np.ndarray:
    """Reads shot data, bit-packed: uint8 (shots, ceil((detectors + observables) / 8)).

    "-" is standard input.

    Raises:
        QecError: the file is missing, truncated or has another number of bits per shot.
    """
    with _shot_file(path) as name:
        try:
            if fmt == "b8":
                return _read_b8(name, detectors + observables)
            return stim.read_shot_data_file(
                path=name,
                format=fmt,
                bit_packed=True,
                num_detectors=detectors,
                num_observables=observables,
            )
        except (ValueError, RuntimeError) as error:
            bits = " + ".join(
                f"{n} {what}{'s' * (n > 1)}"
                for n, what in ((detectors, "detector"), (observables, "observable"))
                if n
            )
            raise QecError(
                f"{path} does not hold {detectors + observables} bits per shot ({bits}) in format "
                f"{fmt}: {first_line(error)}. Check the circuit, the format and append_observables."
            ) from error


def _read_b8(path: str, bits: int) -> np.ndarray:
    """uint8 (shots, ceil(bits / 8)); ValueError if the file cannot have ``bits`` bits per shot.

    Stim clears the unused bits of a row's last byte; set ones betray rows of another length.
    """
    data, width = np.fromfile(path, dtype=np.uint8), -(-bits // 8)
    if len(data) % width:
        raise ValueError(f"{len(data)} bytes are not a multiple of {width}")
    rows = data.reshape(-1, width)
    if bits % 8 and (rows[:, -1] >> bits % 8).any():
        raise ValueError("bits beyond the last one are set")
    return rows


def write_predictions(predictions: np.ndarray, out: Path, fmt: str) -> None:
    """Writes uint8 (B, 1) as shot data of one observable.

    Raises:
        QecError: it cannot be written, or not all of it.
    """
    data = predictions.astype(bool)
    with atomic_path(out) as temporary:
        stim.write_shot_data_file(data=data, path=temporary, format=fmt, num_observables=1)
        # Stim says nothing of what it could not write.
        if not _holds(temporary, fmt, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _holds(path: Path, fmt: str, data: np.ndarray) -> bool:
    try:
        written = stim.read_shot_data_file(path=path, format=fmt, num_observables=1)
    except (ValueError, RuntimeError):  # it ends early
        return False
    return np.array_equal(written, data)


def read_shots_and_flips(
    config: DictConfig, detectors: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Detection events, uint8 (B, ceil(detectors / 8)), and true flips if given, uint8 (B,).

    Args:
        config: has the keys dets, dets_format, append_observables, obs and obs_format.
        detectors: number of detectors.

    Raises:
        QecError: files that are missing, empty, truncated or that do not fit each other.
    """
    path, appended = required_path(config, "dets"), config.append_observables
    if not isinstance(appended, bool):
        raise QecError(f"append_observables={appended!r} is not supported: use true or false.")
    if appended and config.obs is not None:
        raise QecError("the observables are given twice: by obs and by append_observables.")
    shots = read_shots(path, shot_format(path, config.dets_format), detectors, int(appended))
    if not len(shots):
        raise QecError(f"{path} holds no shots.")
    if appended:
        bits = np.unpackbits(shots, axis=1, count=detectors + 1, bitorder="little")
        return np.packbits(bits[:, :-1], axis=1, bitorder="little"), bits[:, -1]
    if config.obs is None:
        return shots, None
    obs = required_path(config, "obs")
    truth = read_shots(obs, shot_format(obs, config.obs_format), 0, 1)[:, 0]
    if len(truth) != len(shots):
        raise QecError(
            f"{obs} holds {len(truth)} shots, but {path} holds {len(shots)} at "
            f"{detectors} bits per shot: do they belong to this circuit?"
        )
    return shots, truth


def _text(path: str | Path) -> str:
    try:
        data = sys.stdin.buffer.read() if str(path) == STANDARD else _open(path).read()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise QecError(f"{path} is not a text file (UTF-8).") from error


@contextlib.contextmanager
def _shot_file(path: str | Path) -> Iterator[str]:
    """The name of an ordinary file; what comes on standard input or a pipe is put into one."""
    if str(path) != STANDARD and is_file(path):
        _open(path).close()
        yield str(path)
        return
    with tempfile.NamedTemporaryFile() as file:
        try:
            source = sys.stdin.buffer if str(path) == STANDARD else _open(path)
            shutil.copyfileobj(source, file)
            file.flush()
        except OSError as error:
            reason = error.strerror or error
            raise QecError(f"cannot copy {path} to {file.name}: {reason}.") from error
        yield file.name


def _open(path: str | Path) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except FileNotFoundError as error:
        raise QecError(f"there is no file {path}.") from error
    except OSError as error:
        raise QecError(f"cannot read {path}: {error.strerror or error}.") from error
