"""What reads files and words: sound input for it, and whether what it reads is right.

Where an input is taken, what came of it is held against another parser of the format.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import functools
import io
import os
import re
import tempfile
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import sinter
import stim
import yaml
from fuzz_mutations import mutated, mutated_mildly, mutated_packed, mutated_tensors, packed
from safetensors.torch import load as load_tensors
from training_files import TINY, quiet

from qec.benchmarks import learned_weights as benchmark
from qec.circuits.google_2022 import GoogleExperiment
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.stim_files import load_circuit, load_dem, load_noise, load_structure, read_shots
from qec.cli.config import load_config
from qec.decoding.decoder import named_decoder
from qec.decoding.decoder_names import DECODER_NAMES
from qec.evaluation.collected_rows import read_collected
from qec.evaluation.job_array import read_seeds
from qec.evaluation.sweep import SweepSettings, tasks
from qec.evaluation.sweep_table import rows_of
from qec.noise_learning.error_structure import ErrorStructure
from qec.noise_learning.learn import NoiseLearner
from qec.predecoder.checkpoint import load_predecoder, save_predecoder
from qec.predecoder.network import PreDecoderNetwork
from qec.support.errors import QecError
from qec.training.data import BatchStream
from qec.training.settings import TrainSettings
from qec.training.training_state import TrainingState
from qec.windows.template import ExperimentTemplate


@dataclasses.dataclass(frozen=True)
class Reader:
    """What is read, and by what.

    Attributes:
        valid: sound inputs.
        read: takes the path of an input; AssertionError where what it reads is not right.
        mutate: makes an input from a sound one.
        name: of the file.
    """

    valid: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    mutate: Callable[[bytes, np.random.Generator], bytes] = mutated
    name: str = "input"


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8-sig")


def _whole_lines(path: Path) -> list[str]:
    """Without the last one, unless it ends."""
    text = path.read_bytes().decode(errors="replace")
    return text[: text.rfind("\n") + 1].splitlines()


# Circuits and models -----------------------------------------------------------------------------


@functools.cache
def _circuit() -> stim.Circuit:
    return stim.Circuit.generated(
        "surface_code:rotated_memory_x",
        distance=3,
        rounds=4,
        after_clifford_depolarization=0.02,
        before_measure_flip_probability=0.02,
    )


def _circuits() -> list[bytes]:
    return [str(_circuit()).encode(), str(_circuit().flattened()).encode()]


def _models() -> list[bytes]:
    model = _circuit().detector_error_model(decompose_errors=True)
    loops = _circuit().detector_error_model(decompose_errors=True, flatten_loops=False)
    return [str(model).encode(), str(loops).encode()]


@functools.cache
def _sampled() -> tuple[np.ndarray, np.ndarray]:
    """bool, (64, 32) and (64, 1)."""
    sampler = _circuit().compile_detector_sampler(seed=1)
    return sampler.sample(64, separate_observables=True)


def _read_circuit(path: Path) -> None:
    assert load_circuit(path) == stim.Circuit(_text(path))


def _read_model(path: Path) -> None:
    model = load_dem(path)
    with contextlib.suppress(ValueError, IndexError):  # a circuit
        assert model == stim.DetectorErrorModel(_text(path))


@functools.cache
def _for_decoders() -> list[bytes]:
    """Circuits and models.  Loops are compiled before any alarm is set."""
    valid = _circuits() + _models()
    model = stim.DetectorErrorModel(valid[-1].decode())
    events = np.zeros((1, model.num_detectors), dtype=np.uint8)
    named_decoder("matching-cascade-ensemble", model)._matcher.last.decode_batch(events)
    named_decoder("matching-cascade", model).decode_batch(np.ones_like(events))
    named_decoder("predecoder+pymatching", model, predecoder=quiet()).decode_batch(events)
    return valid


def _decode(path: Path) -> None:
    """Decodes a few shots with one of the decoders."""
    name = DECODER_NAMES[zlib.crc32(path.read_bytes()) % len(DECODER_NAMES)]
    model = load_dem(path)
    events = np.zeros((4, model.num_detectors), dtype=np.uint8)
    own = _sampled()[0][:4, : model.num_detectors]
    events[:, : own.shape[1]] = own
    shots = np.packbits(events, axis=1, bitorder="little")
    flips = named_decoder(name, model, predecoder=quiet()).decode_recorded(shots)
    assert flips.shape == (4, 1), flips.shape
    assert (flips <= 1).all()


def _learn(path: Path) -> None:
    structure = ErrorStructure.of(load_structure(path))
    if structure.num_detectors != 32:
        raise QecError("these events are of another circuit.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimate = NoiseLearner(structure).update(_sampled()[0]).estimate("auto")
    found = [instruction.args_copy() for instruction in estimate.dem if instruction.type == "error"]
    assert all(0 <= p <= 1 for (p,) in found)


def _stream(path: Path) -> None:
    ExperimentTemplate(load_dem(path))


@functools.cache
def _sweep_settings() -> SweepSettings:
    words = ["distance=3", "rounds=4", "basis=X", "decoders=[pymatching,pymatching-css]"]
    return SweepSettings.from_config(load_config("sweep", words))


def _weights() -> list[bytes]:
    (task,) = tasks(_sweep_settings())
    return [str(task.detector_error_model).encode()]


def _read_weights(path: Path) -> None:
    (task,) = tasks(dataclasses.replace(_sweep_settings(), weights=str(path)))
    sampler = _sweep_settings().sampler().compiled_sampler_for_task(task)
    assert sampler.sample(16).shots >= 16
    assert task.detector_error_model == stim.DetectorErrorModel(_text(path))


# Shots -------------------------------------------------------------------------------------------


def _written(fmt: str, observables: bool) -> bytes:
    data = _sampled()[observables]
    numbers = {"num_observables" if observables else "num_detectors": data.shape[1]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shots"
        stim.write_shot_data_file(data=data, path=path, format=fmt, **numbers)
        return path.read_bytes()


def _shots(fmt: str, observables: bool) -> list[bytes]:
    return [_written(fmt, observables)]


def _read_shots(fmt: str, detectors: int, observables: int, path: Path) -> None:
    bits = detectors + observables
    shots = read_shots(path, fmt, detectors, observables)
    assert shots.shape[1:] == (-(-bits // 8),), shots.shape
    found = np.unpackbits(shots, axis=1, bitorder="little")
    assert not found[:, bits:].any()
    right = _PARSERS[fmt](path.read_bytes(), detectors, bits)
    assert np.array_equal(found[:, :bits], right), f"{found[:, :bits]} for {right}"


def _parsed_01(data: bytes, _: int, bits: int) -> np.ndarray:
    rows = [list(map(int, line)) for line in data.decode().split()]
    return np.array(rows, dtype=np.uint8).reshape(-1, bits)


def _parsed_b8(data: bytes, _: int, bits: int) -> np.ndarray:
    rows = np.frombuffer(data, np.uint8).reshape(-1, -(-bits // 8))
    return np.unpackbits(rows, axis=1, bitorder="little")[:, :bits]


def _parsed_ptb64(data: bytes, _: int, bits: int) -> np.ndarray:
    groups = np.frombuffer(data, np.uint8).reshape(-1, bits, 8)
    by_bit = np.unpackbits(groups, axis=2, bitorder="little")
    return by_bit.transpose(0, 2, 1).reshape(-1, bits)


def _parsed_r8(data: bytes, _: int, bits: int) -> np.ndarray:
    """Numbers of zeros before each one; a one behind the last bit ends a shot."""
    rows, row = [], []
    for zeros in data:
        row += [0] * zeros + [1] * (zeros < 255)
        if len(row) == bits + 1 and zeros < 255:
            rows.append(row[:-1])
            row = []
    assert not row
    return np.array(rows, dtype=np.uint8).reshape(-1, bits)


def _parsed_hits(data: bytes, _: int, bits: int) -> np.ndarray:
    lines = data.decode().split("\n")
    places = [list(map(int, filter(None, line.split(",")))) for line in lines[:-1]]
    # Stim takes two hits at a place for none.
    return _of_places([[k for k in set(p) if p.count(k) % 2] for p in places], bits)


def _parsed_dets(data: bytes, detectors: int, bits: int) -> np.ndarray:
    first = {"D": 0, "L": detectors}
    shots = [line.split()[1:] for line in data.decode().split("\n") if line.strip()]
    return _of_places([[first[w[0]] + int(w[1:]) for w in words] for words in shots], bits)


def _of_places(places: list[list[int]], bits: int) -> np.ndarray:
    rows = np.zeros((len(places), bits), dtype=np.uint8)
    for row, ones in zip(rows, places, strict=True):
        row[ones] = 1
    return rows


_PARSERS = {
    "01": _parsed_01,
    "b8": _parsed_b8,
    "r8": _parsed_r8,
    "ptb64": _parsed_ptb64,
    "hits": _parsed_hits,
    "dets": _parsed_dets,
}


def _google() -> list[bytes]:
    return packed(_google_files())


@functools.cache
def _google_files() -> dict[str, bytes]:
    circuit, model = _circuits()[0], _models()[0]
    files = {"circuit_noisy.stim": circuit, "circuit_detector_error_model.dem": model}
    files |= {"detection_events.b8": _written("b8", False)}
    for name in ("actual", "predicted_by_pymatching"):
        files[f"obs_flips_{name}.01"] = _written("01", True)
    return files | {f"pij_from_{a}.dem": model for a in ("even_for_odd", "odd_for_even")}


def _read_google(path: Path) -> None:
    changed, _, content = path.read_bytes().partition(b"\0")
    with tempfile.TemporaryDirectory() as folder:
        for name, own in _google_files().items():
            (Path(folder) / name).write_bytes(content if name == changed.decode() else own)
        found = GoogleExperiment.load(folder)
    assert found.events.shape == (len(found.flips), 4)
    assert found.inferred is not None
    assert found.predictions["pymatching"].shape == found.flips.shape


# Noise -------------------------------------------------------------------------------------------


def _noises() -> list[bytes]:
    pairs = ", ".join(f"{k / 1e4:g}" for k in range(15))
    return [
        f"meas_x: 0.01\nprep_z: 1e-3\nidle_cnot: [0.001, 2e-4, 0]\ncnot: [{pairs}]\n".encode(),
        b"{meas_x: 0.1, meas_z: '${meas_x}'}\n",
    ]


def _read_noise(path: Path) -> None:
    noise = load_noise(path)
    text = _text(path)
    if "${" in text:
        return
    rates = yaml.safe_load(text)
    assert noise == CircuitNoise(**{name: _as_numbers(rate) for name, rate in rates.items()})


def _as_numbers(rate: object) -> object:
    """YAML 1.1 takes 1e-3 for a text."""
    return tuple(map(float, rate)) if isinstance(rate, list) else float(rate)


# Networks ----------------------------------------------------------------------------------------


@functools.cache
def _checkpoints() -> list[bytes]:
    arguments = {"width": 4, "layers": 3, "active_only": True}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.safetensors"
        weights = PreDecoderNetwork(**arguments).state_dict()
        save_predecoder(path, weights, arguments, 0.8, {"shots": 1})
        return [path.read_bytes()]


def _read_checkpoint(path: Path) -> None:
    found = load_predecoder(path)
    assert 0.5 <= found.threshold <= 1
    _same_tensors(found.network.state_dict(), load_tensors(path.read_bytes()))


def _same_tensors(found: Mapping, right: Mapping) -> None:
    assert found.keys() == right.keys()
    for name, tensor in found.items():
        like = right[name]
        assert like.is_floating_point() or like.dtype == tensor.dtype, f"{name} is {like.dtype}"
        assert tensor.shape == like.shape, name
        assert (tensor.double() == like.double()).all(), name


@functools.cache
def _train_settings() -> TrainSettings:
    return TrainSettings.from_config(load_config("train", [*TINY, "model={width: 4, layers: 3}"]))


@functools.cache
def _states() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingState(_train_settings(), Path(folder) / "state.safetensors")
        run.train_step(BatchStream(_train_settings(), 0, 1).batch(0))
        run.open_session(["qec", "train"])
        run.save()
        return [run.state.read_bytes()]


def _read_state(path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        run = TrainingState(_train_settings(), path)
    right = load_tensors(path.read_bytes())
    found = {f"{a}/{b}": tensor for a, part in run._parts().items() for b, tensor in part.items()}
    _same_tensors(found, {"losses/recent": found["losses/recent"], **right})
    assert 0 <= run.step < 2**53


def _collected() -> list[bytes]:
    decoders = ["pymatching", "pymatching-css"]
    counts = {"events": 50, "errors:pymatching": 4, "errors:pymatching-css": 3}
    kinds = ("both", "match_ns", "predecode_ns")
    counts |= {f"{kind}:{name}": 3 for kind in kinds for name in decoders}
    rows = [
        sinter.TaskStats(
            strong_id=f"{k:064x}",
            decoder="paired",
            json_metadata={"d": 3, "r": 3, "p": 0.01, "b": "X", "decoders": decoders},
            shots=100,
            errors=4,
            seconds=1.5,
            custom_counts=collections.Counter(counts),
        )
        for k in (1, 1, 2)
    ]
    lines = [sinter.CSV_HEADER, *(row.to_csv_line() for row in rows)]
    return ["\n".join([*lines, ""]).encode()]


def _read_collected(path: Path) -> None:
    text = "\n".join([*_whole_lines(path), ""])
    found = read_collected(path)
    assert all(rows_of(stat) for stat in found.values())
    rows = list(csv.DictReader(io.StringIO(text), skipinitialspace=True)) if found else []
    for column in ("shots", "errors"):
        sums = collections.Counter()
        for row in rows:
            sums[row["strong_id"]] += int(row[column])
        assert sums == {key: getattr(stat, column) for key, stat in found.items()}, column


def _seeds() -> list[bytes]:
    return ["".join(f"{k % 2:064x} {k**9 + 1}\n" for k in range(9)).encode()]


def _read_seeds(path: Path) -> None:
    found = read_seeds(path, repair=False)
    pairs = [line.split() for line in _whole_lines(path)]
    assert found == [(strong_id, int(seed)) for strong_id, seed in pairs]


def _draws() -> list[bytes]:
    records = [
        benchmark.WeightsRecord(
            "channels", 3, k // 2, "channels", 1000, 0.5, bool(k % 2), 900, 30, 20, 10
        )
        for k in range(6)
    ]
    with tempfile.TemporaryDirectory() as folder:
        benchmark._write(Path(folder) / "draws.csv", records)
        return [(Path(folder) / "draws.csv").read_bytes()]


def _read_draws(path: Path) -> None:
    found = benchmark.read_records(path)
    with contextlib.redirect_stdout(io.StringIO()):
        benchmark.print_tables(found)
    rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode())))
    # Those without a partner are left out, for they are sampled again.
    records = [dataclasses.asdict(record) for record in found]
    told = [tuple(_as_read(record, row) for row in rows) for record in records]
    assert all(sum(same) == 1 for same in told)


def _as_read(record: dict[str, object], row: dict[str, str]) -> bool:
    return all(
        row[name] == str(value) if isinstance(value, str | bool) else float(row[name]) == value
        for name, value in record.items()
    )


# Command lines -----------------------------------------------------------------------------------


def _command_lines() -> list[bytes]:
    return [
        b"sweep\0distance=5,9\0p=1e-3,0.002\0decoders=[pymatching,predecoder+pymatching]\0out=a/b",
        b"sweep\0circuit=a.stim,b.stim\0rounds=null,10\0max_errors=100\0merge=true",
        b"decode\0circuit=d=3,p=0.006.stim\0dets=1e5\0dets_format=b8\0out='x y.01'",
        b"train\0model={width: 8, layers: 3}\0ps=[0.1,0.2]\0model_of=[]\0hardware=h100\0device=cpu",
        b"train\0noises=random,uniform\0orders=[along]\0model_of=a.stim,b.dem\0threshold=0.9",
        b"realtime\0period_us=0,100,max\0decoders=pymatching-css\0timeout=3.5",
        b"evaluate\0predecoder=small\0distance=5\0p=0.006\0noise=uniform\0precision=0.1",
        b"learn-noise\0structure=a.stim\0dets=e.b8\0method=channels\0shots=100\0half_life=1e4",
        b"export\0distance=9\0p=0.006\0basis=X\0predecoder=small\0precision=int8\0out=out/e",
        b"benchmark\0distance=5,9\0p=0.006\0predecoder=small,a.safetensors",
    ]


_COMMANDS = tuple(line.split(b"\0")[0].decode() for line in _command_lines())


def _read_words(path: Path) -> None:
    command, *words = (os.fsdecode(word) for word in path.read_bytes().split(b"\0"))
    words = words[:40]
    config = load_config(command if command in _COMMANDS else "sweep", words)
    last = dict(word.partition("=")[::2] for word in words)
    for key, text in last.items():
        if re.fullmatch(r"-?[1-9][0-9]{0,17}", text):
            assert config[key] in (int(text), text), (key, text, config[key])
    if command == "train":
        TrainSettings.from_config(config)


_FORMATS = ("01", "b8", "r8", "ptb64", "hits", "dets")
_DETECTORS = 32  # of _circuit()
READERS = {
    "circuit": Reader(_circuits, _read_circuit, name="input.stim"),
    "dem": Reader(_models, _read_model, name="input.dem"),
    "model": Reader(lambda: _circuits() + _models(), _read_model),
    "decode": Reader(_for_decoders, _decode, mutated_mildly),
    "learn": Reader(lambda: _circuits() + _models(), _learn, mutated_mildly),
    "stream": Reader(lambda: _circuits() + _models(), _stream, mutated_mildly),
    "weights": Reader(_weights, _read_weights, mutated_mildly, "learned.dem"),
    **{
        f"dets-{fmt}": Reader(
            functools.partial(_shots, fmt, False),
            functools.partial(_read_shots, fmt, _DETECTORS, 0),
        )
        for fmt in _FORMATS
    },
    **{
        f"obs-{fmt}": Reader(
            functools.partial(_shots, fmt, True), functools.partial(_read_shots, fmt, 0, 1)
        )
        for fmt in _FORMATS
    },
    "google": Reader(_google, _read_google, mutated_packed),
    "noise": Reader(_noises, _read_noise, name="input.yaml"),
    "checkpoint": Reader(_checkpoints, _read_checkpoint, mutated_tensors, "input.safetensors"),
    "state": Reader(_states, _read_state, mutated_tensors, "state.safetensors"),
    "collected": Reader(_collected, _read_collected, name="collected.csv"),
    "seeds": Reader(_seeds, _read_seeds, name="collected.seeds"),
    "draws": Reader(_draws, _read_draws, name="draws.csv"),
    "words": Reader(_command_lines, _read_words),
}
