"""`qec draw`: one shot on its way through the decoder, as figures and as a page that turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import stim
from omegaconf import DictConfig

from qec.circuits.error_model import at_most_half
from qec.circuits.experiment_grid import Grid
from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.stim_files import load_dem, read_shots_and_flips
from qec.decoding.decoder import named_decoder
from qec.decoding.decoder_names import DECODER_NAMES, DECODERS
from qec.decoding.drawn_shot import DrawnShot, edge_count, odd_edges
from qec.decoding.shot_figures import draw_pipeline, draw_space_time
from qec.decoding.shot_page import write_page
from qec.matching.matcher import basis_split
from qec.matching.matching_edges import MatchingEdges
from qec.support.compiled_loops import compiling_said
from qec.support.errors import QecError
from qec.support.files import print_files
from qec.support.folder_lock import writes_out_alone
from qec.support.optional_import import optional
from qec.support.settings import plain_values, positive_integer, required_path

DRAWN = tuple(name for name in DECODER_NAMES if {"cascade", "memory_only"} & set(DECODERS[name]))
"""Decoders that start by matching the memory checks, or what a network leaves of them."""

_MOST_DETECTORS = 5000  # as many as d = 17, R = 17 has; of more nothing could be told apart
_MOST_SHOTS, _BATCH = 2**16, 256  # of shots that are sampled in search of one with enough events


@dataclasses.dataclass(frozen=True)
class Shot:
    """Detection events of a shot, and what else is known; attributes as of ``DrawnShot``."""

    name: str
    events: np.ndarray
    errors: np.ndarray | None
    truth: int | None


@writes_out_alone
def draw(config: DictConfig, _: Sequence[str] = ()) -> None:
    """Draws a shot as configured by conf/draw.yaml.

    Raises:
        QecError: a value that makes no sense, files that do not fit each other, no such shot, a
            model that is no rotated surface code's, a folder that cannot be written to.
    """
    out = required_path(config, "out")
    name = str(config.decoder)
    if name not in DRAWN:
        raise QecError(f"decoder={name} has no steps to draw: use one of {', '.join(DRAWN)}.")
    number = positive_integer("shot", config.shot, least=0)
    least = positive_integer("events", config.events, least=0)
    seed = positive_integer("seed", config.seed, least=0)
    dem, what = _model(config)
    lattice = _lattice(dem)
    if config.dets is None:
        shot = sampled_shot(lattice, seed, number, least)
    else:
        shot = _recorded(config, lattice.num_detectors, number, least)
    with compiling_said():
        decoder = named_decoder(name, dem, predecoder=str(config.predecoder))
        title = f"{what}; {shot.name}"
        network = str(config.predecoder)
        drawn = DrawnShot.of(
            decoder, name, network, lattice, shot.events, shot.errors, shot.truth, title
        )
    _write(drawn, out)


def _write(drawn: DrawnShot, out: Path) -> None:
    paths = [*draw_space_time(drawn, out), *draw_pipeline(drawn, out)]
    try:
        optional("plotly", "'qec-predecoder[draw]'")
    except QecError as missing:
        print(f"shot.html is left out: {missing}")
    else:
        paths.append(write_page(drawn, out))
    memory, other = drawn.memory, drawn.other
    print(f"{drawn.title}; {drawn.steps}")
    print(
        f"{drawn.events[memory].sum()} events of memory checks, {drawn.events[other].sum()} of the "
        f"others; {edge_count(drawn.committed)} committed, {drawn.residual[memory].sum()} events "
        f"left, {edge_count(drawn.matched)} matched"
    )
    print(f"observable {', '.join(filter(None, drawn.verdict))}")
    print_files(paths)


def _model(config: DictConfig) -> tuple[stim.DetectorErrorModel, str]:
    """The detector error model, and what it is in words."""
    if config.circuit is not None:
        return load_dem(required_path(config, "circuit")), Path(str(config.circuit)).name
    if config.dets is not None:
        raise QecError("dets needs circuit=FILE, the experiment that the events belong to.")
    points = list(Grid.from_values(plain_values(config)).points())
    if len(points) != 1:
        raise QecError(f"that is {len(points)} experiments: a shot is drawn of one of them.")
    _, dem, values = points[0]
    strength = f"p = {values['p']:g}, " if "p" in values else ""
    return dem, f"{strength}{values['noise']} noise, basis {values['b']}"


def _lattice(dem: stim.DetectorErrorModel) -> SpaceTimeLattice:
    if dem.num_detectors > _MOST_DETECTORS:
        raise QecError(
            f"a picture of {dem.num_detectors} detectors shows nothing: draw an experiment of "
            f"{_MOST_DETECTORS} at most, of fewer rounds or a smaller distance."
        )
    if at_most_half(dem).dem is not dem:
        raise QecError("a mechanism of the model happens in half of the shots or more: not drawn.")
    return SpaceTimeLattice.from_dem(dem)


def _recorded(config: DictConfig, detectors: int, number: int, least: int) -> Shot:
    """Shot ``number`` of a file, of those with at least ``least`` events."""
    packed, flips = read_shots_and_flips(config, detectors)
    shots = np.unpackbits(packed, axis=1, count=detectors, bitorder="little")
    enough = np.flatnonzero(shots.sum(axis=1) >= least)
    if number >= len(enough):
        raise _no_shot(number, least, len(enough), f"{config.dets} holds", len(shots))
    k = int(enough[number])
    truth = None if flips is None else int(flips[k])
    return Shot(f"{Path(str(config.dets)).name}, shot {k}", shots[k], None, truth)


def sampled_shot(lattice: SpaceTimeLattice, seed: int, number: int, least: int) -> Shot:
    """The same of shots of the error model, whose mechanisms are known."""
    sampler = basis_split(lattice).compile_sampler(seed=seed)
    found = 0
    for start in range(0, _MOST_SHOTS, _BATCH):
        events, flips, happened = sampler.sample(_BATCH, return_errors=True)
        enough = np.flatnonzero(events.sum(axis=1) >= least)
        if number < found + len(enough):
            k = int(enough[number - found])
            pieces = MatchingEdges.of(lattice)
            errors = odd_edges(pieces.ends[happened[k][pieces.mechanism]])
            name = f"seed {seed}, shot {start + k}"
            return Shot(name, events[k].astype(np.uint8), errors, int(flips[k, 0]))
        found += len(enough)
    raise _no_shot(number, least, found, f"seed={seed} gives", _MOST_SHOTS)


def _no_shot(number: int, least: int, found: int, where: str, shots: int) -> QecError:
    having = f", {found} of them with {least} events or more" if least else ""
    fewer = " or fewer events=" if least else ""
    return QecError(
        f"shot={number}: {where} {shots} shots{having}, counted from 0: "
        f"give a smaller shot={fewer}."
    )
