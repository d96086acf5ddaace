"""`qec export`: writes the graph, the model whose detectors it takes, and what they are."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import stim
import torch
from omegaconf import DictConfig

from qec import __version__
from qec.circuits.error_model import at_most_half
from qec.circuits.experiment_grid import Grid
from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.stim_files import load_dem
from qec.decoding.decoder import Decoder
from qec.export.check import Check, compare
from qec.export.cudaq import cudaq_files
from qec.export.graph import DTYPES, INPUT, LOG_ODDS, OUTPUT, PredecoderModule, predecoder_graph
from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.predecoder import CompiledPredecoder
from qec.predecoder.quantise import quantise
from qec.support.errors import QecError
from qec.support.files import atomic_path
from qec.support.folder_lock import writes_out_alone
from qec.support.settings import plain_values, positive_integer, required_path

if TYPE_CHECKING:
    import onnx

EIGHT_BIT = ("int8", "float8")
PRECISIONS = (*DTYPES, *EIGHT_BIT)
LAYOUTS = ("cudaq",)
FORMAT = "qec-export-1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """The values of conf/export.yaml, checked; ``grid`` has one point, or is None."""

    grid: Grid | None
    circuit: str | None
    predecoder: str
    precision: str
    opset: int
    calibration_shots: int
    check: int
    seed: int
    layout: str | None
    log_odds: bool
    out: Path

    @classmethod
    def from_config(cls, config: DictConfig) -> ExportSettings:
        """Raises QecError where a value makes no sense."""
        values = plain_values(config)
        if values["precision"] not in PRECISIONS:
            raise QecError(
                f"precision={values['precision']!r} is not supported: use {', '.join(PRECISIONS)}."
            )
        if values["layout"] not in (None, *LAYOUTS):
            raise QecError(f"layout={values['layout']!r} is unknown: use null or cudaq.")
        if not isinstance(values["log_odds"], bool):
            raise QecError("log_odds must be true or false.")
        if values["log_odds"] and values["layout"] is not None:
            raise QecError(f"layout={values['layout']} takes one output: leave log_odds out.")
        circuit = values["circuit"]
        return cls(
            grid=Grid.from_values(values) if circuit is None else None,
            circuit=None if circuit is None else str(circuit),
            predecoder=str(values["predecoder"]),
            out=required_path(config, "out"),
            precision=values["precision"],
            layout=values["layout"],
            log_odds=values["log_odds"],
            opset=positive_integer("opset", values["opset"]),
            calibration_shots=positive_integer("calibration_shots", values["calibration_shots"]),
            check=positive_integer("check", values["check"], least=0),
            seed=positive_integer("seed", values["seed"], least=0),
        )

    def model(self) -> tuple[stim.DetectorErrorModel, dict[str, Any]]:
        """The detector error model, and what describes it; QecError where there is none."""
        if self.circuit is not None:
            return load_dem(self.circuit), {"circuit": self.circuit}
        assert self.grid is not None
        points = list(self.grid.points())
        if len(points) != 1:
            raise QecError(f"that is {len(points)} experiments: a graph is made for one of them.")
        _, dem, metadata = points[0]
        return dem, metadata


@writes_out_alone
def export(config: DictConfig, _: Sequence[str] = ()) -> Check | None:
    """Exports as configured by conf/export.yaml; prints what it checked and wrote.

    Raises:
        QecError: a value that makes no sense, a missing package, an unwritable folder; a float32
            graph that differs from torch by more than rounding.
    """
    settings = ExportSettings.from_config(config)
    dem, experiment = settings.model()
    if at_most_half(dem).dem is not dem:
        raise QecError("a graph takes no mechanism that happens in half of the shots or more.")
    lattice = SpaceTimeLattice.from_dem(dem)
    predecoder = load_predecoder(settings.predecoder)
    bound = predecoder.compile_for(lattice, dtype=torch.float32)
    model, float32 = _graphs(settings, dem, bound)
    shots = _sample(dem, settings.check, settings.seed + 1)
    check = None
    if settings.check:
        decoder = Decoder.from_dem(dem, predecoder=predecoder)
        check = compare(model, float32, bound, decoder, *shots)
        print("\n".join(check.lines()))
        if settings.precision == "float32" and check.not_rounding:
            raise QecError(
                f"the graph differs from torch on {check.not_rounding} shots by more than "
                "rounding; nothing was written. Use the versions of constraints.txt."
            )
    description = {
        "format": FORMAT,
        "experiment": {"d": lattice.distance, "r": lattice.rounds, **experiment},
        "predecoder": {"name": predecoder.name, "digest": predecoder.digest},
        "threshold": predecoder.threshold,
        "edges": _edges(bound) if settings.log_odds else None,
        **_signature(settings, dem.num_detectors),
        "check": None if check is None else check.as_json(),
    }
    files = {"predecoder.onnx": _labelled(model, description), "model.dem": f"{dem}\n".encode()}
    if settings.layout == "cudaq":
        files |= cudaq_files(lattice, *shots, description["experiment"])
    _write(settings.out, files, description)
    return check


def _graphs(
    settings: ExportSettings, dem: stim.DetectorErrorModel, bound: CompiledPredecoder
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The graph at the wanted precision, and at float32."""
    float32 = predecoder_graph(PredecoderModule(bound, log_odds=settings.log_odds), settings.opset)
    if settings.precision in EIGHT_BIT:
        shots, _ = _sample(dem, settings.calibration_shots, settings.seed)
        return quantise(float32, shots, settings.precision), float32
    if settings.precision == "float16":
        half = PredecoderModule(bound, DTYPES[settings.precision], settings.log_odds)
        return predecoder_graph(half, settings.opset), float32
    return float32, float32


def _edges(bound: CompiledPredecoder) -> dict[str, Any]:
    """What the columns of the second output are about."""
    ends = bound.residual.ends
    return {
        "output": LOG_ODDS,
        "detectors": np.where(ends == bound.lattice.num_detectors, -1, ends).tolist(),
        "flips_observable": bound.residual.flips.tolist(),
    }


def _sample(dem: stim.DetectorErrorModel, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Detection events, uint8 (shots, num_detectors), and flips of observable 0, uint8 (shots,)."""
    detectors, flips, _ = dem.compile_sampler(seed=seed).sample(shots)
    return detectors.view(np.uint8), flips[:, 0].view(np.uint8)


def _signature(settings: ExportSettings, detectors: int) -> dict[str, Any]:
    """Tensors, precision, seeds and versions, for metadata.json."""
    quantised = settings.precision in EIGHT_BIT
    packages = ("stim", "torch", "onnx", "onnxscript", "onnxruntime")
    return {
        "input": {"name": INPUT, "dtype": "uint8", "shape": ["shots", detectors]},
        "output": {"name": OUTPUT, "dtype": "uint8", "shape": ["shots", 1 + detectors]},
        "precision": settings.precision,
        "opset": settings.opset,
        "calibration": {"shots": settings.calibration_shots, "seed": settings.seed}
        if quantised
        else None,
        "check_seed": settings.seed + 1,
        "versions": {"qec": __version__, **{name: _version(name) for name in packages}},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _labelled(model: onnx.ModelProto, description: dict[str, Any]) -> bytes:
    """The serialised model, with its description in metadata_props."""
    entry = model.metadata_props.add()
    entry.key, entry.value = "qec", json.dumps(description)
    return model.SerializeToString()


def _write(folder: Path, files: dict[str, bytes], description: dict[str, Any]) -> None:
    """Writes the files, and last metadata.json with their hashes; says so."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    text = json.dumps({**description, "sha256": hashes}, indent=2)
    for name, content in {**files, "metadata.json": f"{text}\n".encode()}.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
        print(f"{folder / name}: {len(content)} bytes")
