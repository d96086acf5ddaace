"""`qec calibrate`: one error model in; tables, calibration.json and two plots out."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import stim
from omegaconf import DictConfig

from qec import __version__
from qec.calibration.confidence_against_errors import Calibration
from qec.calibration.kept import Kept, kept_stages
from qec.calibration.plots import plot_post_selection, plot_reliability
from qec.calibration.report import print_confidence, print_stages
from qec.calibration.stages import Stage
from qec.circuits.error_model import at_most_half
from qec.circuits.experiment_grid import Grid
from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.circuits.model_agreement import warn_of_disagreement
from qec.circuits.stim_files import load_structure, read_shots_and_flips
from qec.decoding.decoder import named_decoders
from qec.decoding.decoder_names import check_decoder_name
from qec.evaluation.sweep_table import point_title
from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.labelled_shots import LabelledSampler
from qec.predecoder.model_fit import Fit, fit_of
from qec.support.compiled_loops import compiling_said
from qec.support.errors import QecError
from qec.support.files import atomic_path, print_files
from qec.support.folder_lock import writes_out_alone
from qec.support.progress import with_bar
from qec.support.settings import distinct_values, plain_values, positive_integer, required_path
from qec.support.statistics import Estimate

_REFERENCE = "pymatching-css"  # its gap is the exact one of uncorrelated matching


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrateSettings:
    """The values of conf/calibrate.yaml, whose comments say what each key means, validated."""

    shots: int
    seed: int
    decoders: tuple[str, ...]
    predecoder: str
    checked: int
    cached: bool
    out: Path

    @classmethod
    def from_config(cls, config: DictConfig) -> CalibrateSettings:
        """Checks the values; QecError where one makes no sense."""
        values = plain_values(config)
        decoders = distinct_values("decoders", values["decoders"])
        for name in decoders:
            check_decoder_name(name)
        if config.dets is None and (config.obs is not None or config.append_observables):
            raise QecError("obs and append_observables need dets=FILE, the events that they go to.")
        return cls(
            shots=positive_integer("shots", values["shots"]),
            seed=positive_integer("seed", values["seed"], least=0),
            decoders=decoders,
            predecoder=str(values["predecoder"]),
            checked=positive_integer("checked", values["checked"]),
            cached=values["cached"],
            out=required_path(config, "out"),
        )


@dataclasses.dataclass(frozen=True)
class Data:
    """An error model with shots of it.

    Attributes:
        title: what it is, in words.
        dem: the model.
        events: uint8 (B, ceil(num_detectors / 8)), bit-packed.
        flips: uint8 (B,), true flips of observable 0; None: not known.
    """

    title: str
    dem: stim.DetectorErrorModel
    events: np.ndarray
    flips: np.ndarray | None


@writes_out_alone
def calibrate(config: DictConfig, command: Sequence[str] = ("qec", "calibrate")) -> None:
    """Measures as configured by conf/calibrate.yaml; writes its files and prints its tables.

    Raises:
        QecError: a value that makes no sense, files that do not fit each other, a model that is no
            rotated surface code's, a folder that cannot be written to.
    """
    started = time.monotonic()
    settings = CalibrateSettings.from_config(config)
    data = _data(config, settings)
    with compiling_said():
        kept = kept_stages(
            data.dem,
            data.events,
            checked=settings.checked,
            seed=settings.seed,
            again=not settings.cached,
            over=lambda parts: with_bar(parts, "stages"),
        )
        print_stages(kept, f"{data.title}: {len(data.events)} shots")
        network = network_fit(data.dem, settings.predecoder)
        print(f"network {settings.predecoder}: {network.in_words}")
        found = [] if data.flips is None else calibrations(data, settings)
    content = _content(data, kept, network, found, command)
    files = [settings.out / "calibration.json"]
    with atomic_path(files[0]) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if found:
        print_confidence(found)
        files += plot_reliability(found, data.title, settings.out)
        files += plot_post_selection(found, data.title, settings.out)
    else:
        print("No true flips: give obs=FILE for reliability and post-selection.")
    print_files(files)
    print(f"{time.monotonic() - started:.1f} s in all; to repeat: {shlex.join(command)}")


def network_fit(dem: stim.DetectorErrorModel, name: str) -> Fit:
    """Whether a checkpoint fits the model; decoders do without a network that does not.

    Raises:
        QecError: there is no such checkpoint, or the model is no rotated surface code's.
    """
    sampler = LabelledSampler(SpaceTimeLattice.from_dem(at_most_half(dem).dem))
    return fit_of(load_predecoder(name).compile_for(sampler.grid), sampler)


def calibrations(data: Data, settings: CalibrateSettings) -> list[Calibration]:
    """Every decoder's confidence next to its errors, on the same shots.

    Raises:
        QecError: as ``qec.decoding.decoder.Decoder.from_dem`` and ``decode_batch``.
    """
    names = dict.fromkeys([_REFERENCE, *settings.decoders])
    decoders = named_decoders(list(names), data.dem, settings.predecoder)
    found: list[Calibration] = []
    likelier, exact = np.empty(0), np.empty(0)  # the first decoder is the reference
    for name, decoder in decoders.items():
        predictions, nats = decoder.decode_recorded(
            data.events,
            over=functools.partial(with_bar, what=name),
            return_confidence=True,
        )
        predictions = predictions[:, 0]
        if name == _REFERENCE:
            likelier, exact = predictions, nats
        if name in settings.decoders:
            reference = np.where(predictions == likelier, exact, 0.0)
            wrong = predictions != data.flips
            found.append(Calibration.of(name, wrong, nats, reference))
    return sorted(found, key=lambda one: settings.decoders.index(one.decoder))


def _data(config: DictConfig, settings: CalibrateSettings) -> Data:
    """The model, and shots that are recorded or sampled."""
    if config.circuit is not None:
        path = required_path(config, "circuit")
        source: stim.Circuit | stim.DetectorErrorModel = load_structure(path)
        title = str(path)
    else:
        source, title = _point(config)
    dem = detector_error_model(source) if isinstance(source, stim.Circuit) else source
    if config.dets is None:
        return Data(title, dem, *_sampled(source, settings))
    events, flips = read_shots_and_flips(config, dem.num_detectors)
    warn_of_disagreement(events, dem, title)
    return Data(title, dem, events, flips)


def _point(config: DictConfig) -> tuple[stim.Circuit, str]:
    """The circuit of the grid's only point, and its title."""
    points = Grid.from_values(plain_values(config)).points()
    first, *others = itertools.islice(points, 2)
    if others:
        raise QecError("one error model at a time: give distance, rounds, p, ... one value each.")
    circuit, _, metadata = first
    return circuit, point_title(metadata)


def _sampled(
    source: stim.Circuit | stim.DetectorErrorModel, settings: CalibrateSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Bit-packed events, and flips as of ``Data``."""
    if isinstance(source, stim.Circuit):
        sampler = source.compile_detector_sampler(seed=settings.seed)
        events, flips = sampler.sample(settings.shots, separate_observables=True, bit_packed=True)
    else:
        sampler = source.compile_sampler(seed=settings.seed)
        events, flips, _ = sampler.sample(settings.shots, bit_packed=True)
    return events, flips[:, 0]


# calibration.json --------------------------------------------------------------------------------


def _content(
    data: Data, kept: Kept, network: Fit, found: Sequence[Calibration], command: Sequence[str]
) -> dict[str, Any]:
    return {
        "command": list(command),
        "version": __version__,
        "model": data.title,
        "shots": len(data.events),
        "stages": [_stage(stage) for stage in kept.stages.stages],
        "stages_known": kept.known,
        "network": {**dataclasses.asdict(network), "fits": network.fits},
        "decoders": [_decoder(one) for one in found],
    }


def _stage(stage: Stage) -> dict[str, Any]:
    derived = ("cascade_us", "alone_us", "time_share", "most_changed")
    return {
        **dataclasses.asdict(stage),
        "share": _plain(stage.share),
        **{name: _plain(getattr(stage, name)) for name in derived},
        "asked": stage.asked,
    }


def _decoder(one: Calibration) -> dict[str, Any]:
    bins = {
        name: [
            {**dataclasses.asdict(b), "observed": _plain(b.observed), "ratio": _plain(b.ratio)}
            for b in getattr(one, name)
        ]
        for name in ("raw", "corrected")
    }
    curves = {
        name: [{**dataclasses.asdict(s), "rate": _plain(s.rate)} for s in getattr(one, name)]
        for name in ("selected", "reference")
    }
    counts = {"decoder": one.decoder, "shots": one.shots, "errors": one.errors}
    return {**counts, "slope": _plain(one.slope), **bins, **curves}


def _plain(value: float | Estimate) -> Any:
    """As JSON holds it, which knows neither nan nor infinity."""
    if isinstance(value, Estimate):
        return {name: _plain(x) for name, x in dataclasses.asdict(value).items()}
    return value if math.isfinite(value) else None
