"""`qec learn-noise`: files in; a weighted model, tables and plots out."""

from __future__ import annotations

import csv
import dataclasses
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from qec.circuits.google_2022 import GoogleExperiment
from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.model_agreement import warn_of_disagreement
from qec.circuits.stim_files import load_dem, load_structure, read_shots_and_flips
from qec.decoding.decoder_names import check_decoder_name
from qec.noise_learning.cross_fit import Score, Scored, cross_fit, score
from qec.noise_learning.drift import DriftTracker, DriftUpdate
from qec.noise_learning.error_structure import ErrorStructure
from qec.noise_learning.estimator import NoiseEstimate
from qec.noise_learning.learn import METHODS, NoiseLearner
from qec.noise_learning.plots import plot_drift, plot_rates
from qec.support.errors import QecError
from qec.support.files import atomic_path, print_files
from qec.support.folder_lock import sole_writer, writes_out_alone
from qec.support.settings import distinct_values, positive_integer, required_path
from qec.support.tables import Column, print_table, rate_text, ratio_text, scientific

CSS = ("pymatching-css", "pymatching-correlated-css")
"""The decoders of the logical error rates, where none are given."""

OF_ANY_CODE = ("pymatching", "pymatching-correlated")
"""The same for what is no rotated surface code."""

GUESS, LEARNED, PIJ, TRUE = "structure's own", "learned", "Google's pij", "reference"


@writes_out_alone
def learn(config: DictConfig, command: Sequence[str] = ("qec", "learn-noise")) -> None:
    """Learns as configured by conf/learn-noise.yaml.

    Raises:
        QecError: a value that makes no sense, files that do not fit each other, a folder that
            cannot be written to.
    """
    started = time.monotonic()
    if config.method not in METHODS:
        raise QecError(f"method={config.method!r} is unknown: use one of {', '.join(METHODS)}.")
    decoders = None
    if config.decoders is not None:
        for name in (decoders := distinct_values("decoders", list(config.decoders))):
            check_decoder_name(name)
    out = required_path(config, "out")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        if config.google is not None:
            folders = config.google if isinstance(config.google, str) else list(config.google)
            _google(distinct_values("google", folders), config.method, decoders or CSS, out)
        else:
            _files(config, decoders, out)
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"qec: warning: {message}", file=sys.stderr)
    print(f"{time.monotonic() - started:.1f} s in all; to repeat: {shlex.join(command)}")


def _files(config: DictConfig, decoders: Sequence[str] | None, out: Path) -> None:
    path = required_path(config, "structure")
    structure = ErrorStructure.of(load_structure(path))
    events, flips = read_shots_and_flips(config, structure.num_detectors)
    if config.shots is not None:
        kept = positive_integer("shots", config.shots)
        events, flips = events[:kept], flips if flips is None else flips[:kept]
    warn_of_disagreement(events, structure.model, path, guess=True)
    title = _title(structure, Path(path).name)
    reference = None
    if config.reference is not None:
        reference = ErrorStructure.of(load_dem(str(config.reference)))
        if not reference.has_mechanisms_of(structure):
            raise QecError(f"{config.reference} has other error mechanisms than the structure.")
    scored = None
    if flips is not None:  # before learning: what cannot be decoded is refused before the work
        decoders = decoders or (OF_ANY_CODE if _lattice(structure) is None else CSS)
        scored = Scored(events, flips, decoders, GUESS, (structure.model,) * 2)
    files: list[Path] = []
    if config.half_life is None:
        estimate = NoiseLearner(structure).update(events).estimate(config.method)
    else:
        looks = _track(structure, events, config)
        memory = f"half-life {config.half_life:g} shots, {config.look} shots a look"
        files += write_drift(looks, out, f"{title}; {memory}")
        estimate = looks[-1].estimate
    files += write_estimate(estimate, out, title, reference)
    print_estimate(estimate)
    if scored is not None:
        models = {LEARNED: cross_fit(structure, events, config.method)}
        if reference is not None:
            models[TRUE] = (structure.to_dem(reference.x),) * 2
        print_scores({"": scored.scores(models)})
    print_files(files)


def _lattice(structure: ErrorStructure) -> SpaceTimeLattice | None:
    """None where the structure is no rotated surface code's."""
    try:
        return SpaceTimeLattice.from_dem(structure.model)
    except QecError:
        return None


def _title(structure: ErrorStructure, name: str) -> str:
    """The name with distance and rounds, if it has them."""
    lattice = _lattice(structure)
    return name if lattice is None else f"{name}: d = {lattice.distance}, R = {lattice.rounds}"


def _track(structure: ErrorStructure, events: np.ndarray, config: DictConfig) -> list[DriftUpdate]:
    if isinstance(config.half_life, bool) or not isinstance(config.half_life, int | float):
        raise QecError(f"half_life={config.half_life!r} is not supported: use a number of shots.")
    tracker = DriftTracker(structure, config.half_life, config.method)
    step = positive_integer("look", config.look)
    starts = range(0, len(events), step)
    bar = track(starts, "tracking", console=Console(stderr=True), transient=True)
    return [tracker.push(events[k : k + step]) for k in bar]


def _google(folders: Sequence[str], method: str, decoders: Sequence[str], out: Path) -> None:
    by_experiment: dict[str, list[Score]] = {}
    files = [out / "ler.csv"]
    experiments = [GoogleExperiment.load(folder) for folder in folders]
    console = Console(stderr=True)
    for experiment in track(experiments, "experiments", console=console, transient=True):
        structure = ErrorStructure.of(experiment.circuit)
        estimate = NoiseLearner(structure).update(experiment.events).estimate(method)
        with sole_writer(out / experiment.name):
            title = _title(structure, experiment.name)
            files += write_estimate(estimate, out / experiment.name, title)
        by_experiment[experiment.name] = google_scores(experiment, structure, method, decoders)
        with atomic_path(files[0]) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["experiment", *(f.name for f in dataclasses.fields(Score))])
            for name, rows in by_experiment.items():
                writer.writerows([name, *dataclasses.astuple(row)] for row in rows)
    print_scores(by_experiment)
    print_files(files)


def google_scores(
    experiment: GoogleExperiment, structure: ErrorStructure, method: str, decoders: Sequence[str]
) -> list[Score]:
    """Their models, ours and their published predictions, against their pij models where given."""
    models = {GUESS: (experiment.model,) * 2}
    if experiment.inferred is not None:
        models[PIJ] = experiment.inferred
    baseline = PIJ if PIJ in models else GUESS
    scored = Scored(experiment.events, experiment.flips, decoders, baseline, models.pop(baseline))
    models[LEARNED] = cross_fit(structure, experiment.events, method)
    rows = scored.scores(models)
    strongest = decoders[-1]
    wrong = scored.wrong[strongest]
    for name, predicted in experiment.predictions.items():
        published = predicted != experiment.flips
        rows.append(score("published", name, f"{baseline}, {strongest}", published, wrong))
    return rows


# Output ------------------------------------------------------------------------------------------


def write_estimate(
    estimate: NoiseEstimate, out: Path, title: str, reference: ErrorStructure | None = None
) -> list[Path]:
    """Writes learned.dem, rates.csv, parameters.csv and rates.png/.svg to the folder.

    Args:
        estimate: what was learned.
        out: the folder.
        title: of the figure: what the noise is of.
        reference: the true rates, if they are known.
    """
    files = [out / name for name in ("learned.dem", "rates.csv", "parameters.csv")]
    with atomic_path(files[0]) as temporary:
        temporary.write_text(f"{estimate.dem}\n")  # Stim's to_file says nothing of a full disk
    structure = estimate.structure
    guess = -np.expm1(-structure.x) / 2
    header = ["prior", "learned", "standard_error"]
    columns = [guess, estimate.probability, estimate.probability_error]
    if reference is not None:
        header, columns = [*header, "reference"], [*columns, -np.expm1(-reference.x) / 2]
    names = (" ".join(f"D{d}" for d in structure.members(k)) for k in range(len(guess)))
    with atomic_path(files[1]) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["detectors", *header])
        writer.writerows(
            [name, *(f"{v:.6g}" for v in row)]
            for name, row in zip(names, np.column_stack(columns).tolist(), strict=True)
        )
    with atomic_path(files[2]) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["parameter", "learned_over_prior"])
        writer.writerows([name, f"{v:.6g}"] for name, v in estimate.parameters.items())
    return files + plot_rates(estimate, reference, title, out)


def write_drift(looks: Sequence[DriftUpdate], out: Path, title: str) -> list[Path]:
    """Writes drift.csv and drift.png/.svg."""
    with atomic_path(out / "drift.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["shots", "event_rate", "score", "alarm", *looks[0].estimate.parameters])
        for look in looks:
            changed = " ".join(f"D{k}" for k in look.changed)
            strengths = (f"{v:.6g}" for v in look.estimate.parameters.values())
            writer.writerow(
                [look.shots, f"{look.event_rate:.6g}", f"{look.score:.3g}", changed, *strengths]
            )
    for look in looks:
        if len(look.changed):
            print(
                f"ALARM at {look.shots} shots: the rates of {len(look.changed)} detectors changed, "
                f"first D{look.changed[0]} ({look.score:.0f} standard deviations)"
            )
    return [out / "drift.csv", *plot_drift(looks, title, out)]


def print_estimate(estimate: NoiseEstimate) -> None:
    """A table of the noise parameters, or of the mechanisms' sizes where there are very many."""
    structure = estimate.structure
    columns = [
        Column[np.ndarray]("detectors\nper mechanism", lambda same: str(structure.size[same][0])),
        Column("mechanisms", lambda same: str(int(same.sum()))),
        Column("prior\nmean", lambda same: scientific(-np.expm1(-structure.x[same]).mean() / 2)),
        Column("learned\nmean", lambda same: scientific(estimate.probability[same].mean())),
        Column(
            "standard error\nmedian",
            lambda same: scientific(np.median(estimate.standard_error[same]) / 2),
        ),
    ]
    by_size = [structure.size == size for size in np.unique(structure.size)]
    print_table(columns, by_size, f"noise learned by {estimate.method!r}\n")
    print(f"{estimate.shots:.0f} effective shots")
    if estimate.spread is not None:
        parts = ", ".join(f"{kind} {value:.0%}" for kind, value in estimate.spread.items())
        print(f"rates vary around the channels' (standard deviations): {parts}")


_SCORES = (
    Column[Score]("decoder", lambda s: s.decoder, name=True),
    Column[Score]("model", lambda s: s.model, name=True),
    Column[Score]("errors", lambda s: str(s.errors)),
    Column[Score]("logical error rate\nper shot (95 %)", lambda s: rate_text(s.rate)),
    Column[Score](
        "errors over those\nof the baseline",
        lambda s: "baseline" if s.model == s.baseline else ratio_text(s.ratio, 3),
    ),
)


def print_scores(by_experiment: dict[str, list[Score]]) -> None:
    """Logical error rates, and errors over those of the baseline on the same shots."""
    for name, rows in by_experiment.items():
        shots = f"{rows[0].shots} shots, halves decoded with each other's weights\n"
        print_table(_SCORES, rows, f"{name}: {shots}" if name else shots)
        if rows[-1].model == "published":
            print(f"baseline of published predictions: {rows[-1].baseline}\n")
