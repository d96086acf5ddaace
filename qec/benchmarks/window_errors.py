"""Logical errors of decoding in windows: ``qec benchmark-windows``.

Next to the same decoder over the whole history, and to plain matching over it, on the same shots.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import stim
from omegaconf import DictConfig
from rich.progress import Progress

from qec.circuits.experiment_grid import Grid
from qec.decoding.decoder import Decoder, named_decoder
from qec.decoding.decoder_names import has_predecoder
from qec.evaluation.sweep_table import point_title
from qec.support.files import atomic_path, print_files
from qec.support.folder_lock import writes_out_alone
from qec.support.process_pool import Workers, available_cores
from qec.support.settings import distinct_values, plain_values, positive_integer, required_path
from qec.support.statistics import Estimate, paired_ratio
from qec.support.tables import Column, print_table, ratio_text, scientific
from qec.windows.window_decoder import WINDOW_DECODERS, WindowDecoder, check_window_decoder

MATCHING = ("pymatching-css", "pymatching-correlated-css")


@dataclasses.dataclass(frozen=True)
class WindowTask:
    """Some shots of a point, and how they are decoded; circuit and model as text.

    Attributes:
        decoder: its name.
        windows: arguments of ``WindowDecoder``; None decodes the whole history.
    """

    circuit: str
    model: str
    decoder: str
    predecoder: str
    windows: tuple[tuple[str, object], ...] | None
    shots: int
    seed: int


@dataclasses.dataclass(frozen=True)
class WindowErrors:
    """A decoder in windows.

    Attributes:
        errors, shots: logical errors in windows.
        whole: errors of the same decoder over the whole history, with the paired ratio.
        matching: the same for plain matching, uncorrelated or correlated as the decoder's name
            says and correlated for the cascade, its errors over those of the windows: above 1 the
            windows are better.
    """

    metadata: dict
    decoder: str
    shots: int
    errors: int
    whole: int
    over_whole: Estimate
    matching: int
    matching_over: Estimate


@writes_out_alone
def benchmark(config: DictConfig, _: Sequence[str] = ()) -> list[WindowErrors]:
    """Runs as configured by conf/benchmark-windows.yaml; prints and writes a table.

    Raises:
        QecError: a value that makes no sense, a checkpoint that cannot be loaded.
    """
    values = plain_values(config)
    decoders = checked_decoders(values)
    for key in ("shots", "batch"):
        positive_integer(key, values[key])
    out = required_path(config, "out") / "windows.json"
    rows = []
    with Workers(len(available_cores()), _decode) as pool, Progress(transient=True) as progress:
        for circuit, dem, metadata in Grid.from_values(values).points():
            wrong = functools.partial(
                _wrong, pool, progress, values, metadata["d"], str(circuit), str(dem)
            )
            plain = {name: wrong(name, whole=True) for name in MATCHING}
            for name in decoders:
                found = wrong(name, whole=False)
                whole = plain[name] if name in plain else wrong(name, whole=True)
                baseline = plain[MATCHING["correlated" in name or "cascade" in name]]
                rows.append(
                    WindowErrors(
                        metadata,
                        name,
                        len(found),
                        int(found.sum()),
                        int(whole.sum()),
                        _ratio(found, whole),
                        int(baseline.sum()),
                        _ratio(baseline, found),
                    )
                )
                _write(rows, out)
    print_tables(rows, values["parallel"])
    print_files([out])
    return rows


def checked_decoders(values: dict) -> tuple[str, ...]:
    """Those of conf/benchmark-windows.yaml; QecError unless all of them run in windows."""
    decoders = distinct_values("decoders", values["decoders"])
    for name in decoders:
        check_window_decoder(name)
    return decoders


def named_window_decoder(
    name: str, dem: stim.DetectorErrorModel, predecoder: str, **windows: Any
) -> WindowDecoder:
    """The decoder of that name in windows, of which ``WindowDecoder`` has the other arguments."""
    of_name: dict[str, Any] = WINDOW_DECODERS[name]
    network: dict[str, Any] = {"predecoder": predecoder} if has_predecoder(name) else {}
    return WindowDecoder(dem, **of_name, **network, **windows)


def _wrong(
    pool: Workers,
    progress: Progress,
    values: dict[str, Any],
    distance: int,
    circuit: str,
    model: str,
    decoder: str,
    *,
    whole: bool,
) -> np.ndarray:
    """bool (shots,): which ones a decoder predicts wrongly."""
    options = None
    if not whole:
        window = {key: values[key] or distance for key in ("commit", "buffer")}
        options = tuple({**window, "parallel": values["parallel"]}.items())
    batches = -(-values["shots"] // values["batch"])
    cases = [
        WindowTask(circuit, model, decoder, values["predecoder"], options, values["batch"], seed)
        for seed in range(values["seed"], values["seed"] + batches)
    ]
    label = f"{decoder}{', whole' if whole else ''}"
    found: Any = progress.track(pool.results(cases), total=batches, description=label)
    return np.concatenate([wrong for _, wrong in sorted(found, key=lambda pair: pair[0])])


@functools.lru_cache(maxsize=1)
def _compiled(
    circuit: str,
    model: str,
    decoder: str,
    predecoder: str,
    windows: tuple[tuple[str, object], ...] | None,
) -> tuple[stim.Circuit, Decoder | WindowDecoder]:
    dem = stim.DetectorErrorModel(model)
    if windows is None:
        return stim.Circuit(circuit), named_decoder(decoder, dem, predecoder)
    return stim.Circuit(circuit), named_window_decoder(decoder, dem, predecoder, **dict(windows))


def _decode(case: WindowTask) -> np.ndarray:
    circuit, decoder = _compiled(
        case.circuit, case.model, case.decoder, case.predecoder, case.windows
    )
    sampler = circuit.compile_detector_sampler(seed=case.seed)
    shots, flips = sampler.sample(case.shots, separate_observables=True, bit_packed=True)
    return np.asarray(decoder.decode_batch(shots, bit_packed_shots=True))[:, 0] != flips[:, 0]


def _ratio(one: np.ndarray, other: np.ndarray) -> Estimate:
    return paired_ratio(*(int(np.count_nonzero(w)) for w in (one, other, one & other)))


def _write(rows: list[WindowErrors], out: Path) -> None:
    with atomic_path(out) as temporary:
        temporary.write_text(json.dumps([dataclasses.asdict(r) for r in rows], indent=1) + "\n")


_COLUMNS: tuple[Column[WindowErrors], ...] = (
    Column[WindowErrors]("decoder", lambda row: row.decoder, name=True),
    Column("errors", lambda row: str(row.errors)),
    Column("logical\nerror rate", lambda row: scientific(row.errors / row.shots)),
    Column("whole\nhistory", lambda row: str(row.whole)),
    Column("windows over\nwhole history", lambda row: ratio_text(row.over_whole, 3)),
    Column("plain\nmatching", lambda row: str(row.matching)),
    Column("plain matching\nover windows", lambda row: ratio_text(row.matching_over, 3)),
)


def print_tables(rows: Sequence[WindowErrors], parallel: bool) -> None:
    """A table per point."""
    kind = "parallel" if parallel else "sliding"
    for title, members in itertools.groupby(rows, key=lambda row: point_title(row.metadata)):
        found = list(members)
        print_table(_COLUMNS, found, f"{title}, {kind} windows: {found[0].shots} shots\n")
    print("Logical errors per shot, on the same shots; plain matching has the whole history.")
