"""Measured stages, kept on disk: the next run on the same model answers at once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import platformdirs
import stim

from qec import __version__
from qec.calibration.stages import CASCADES, Over, Stages, measure_stages, settings_of
from qec.support.errors import QecError
from qec.support.files import atomic_path, make_place


@dataclasses.dataclass(frozen=True)
class Kept:
    """Stages, and where from.

    Attributes:
        stages: measured.
        path: of the file that keeps them.
        known: whether an earlier run measured them.
    """

    stages: Stages
    path: Path
    known: bool


def kept_stages(
    dem: stim.DetectorErrorModel,
    events: np.ndarray,
    *,
    checked: int,
    seed: int,
    again: bool = False,
    over: Over = iter,
) -> Kept:
    """``measure_stages``, or what an earlier call with the same arguments found.

    A file that is damaged is as good as none.  Where none can be written, standard error says so.

    Args:
        dem, events, checked, seed, over: as of ``measure_stages``.
        again: whether to measure whatever is kept.

    Raises:
        QecError: as ``measure_stages``.
    """
    path = _folder() / f"{_key(dem, events, checked, seed)}.json"
    found = None if again else _read(path)
    if found is not None:
        return Kept(found, path, True)
    stages = measure_stages(dem, events, checked=checked, seed=seed, over=over)
    try:
        make_place(path)
        with atomic_path(path) as temporary:
            temporary.write_text(_sealed(stages), encoding="utf-8")
    except QecError as error:
        print(f"qec: warning: the measured stages are not kept: {error}", file=sys.stderr)
    return Kept(stages, path, False)


def _folder() -> Path:
    return platformdirs.user_cache_path("qec", appauthor=False) / "stages"


def _key(dem: stim.DetectorErrorModel, events: np.ndarray, checked: int, seed: int) -> str:
    """sha256 of all that decides what is measured, but for the machine's speed."""
    shots = hashlib.sha256(np.ascontiguousarray(events).data).hexdigest()
    cascades = {name: settings_of(decoder) for name, decoder in CASCADES.items()}
    settings = {"events": shots, "checked": checked, "seed": seed, "cascades": cascades}
    text = "\n".join([__version__, json.dumps(settings, sort_keys=True), str(dem)])
    return hashlib.sha256(text.encode()).hexdigest()


def _sealed(stages: Stages) -> str:
    body = json.dumps(stages.to_json())
    return json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "stages": body}) + "\n"


def _read(path: Path) -> Stages | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if hashlib.sha256(content["stages"].encode()).hexdigest() != content["sha256"]:
            return None
        return Stages.from_json(json.loads(content["stages"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
