"""Google Quantum AI's surface-code experiments of 2022, as published (DOI 10.5281/zenodo.6804040).

A folder of that data set holds one experiment: a Stim circuit with their noise model, recorded
detection events and logical flips, detector error models that they inferred from pairwise
correlations (each from the even or odd shots, for decoding the other half), and the predictions of
their decoders.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import stim

from qec.circuits.stim_files import load_circuit, load_dem, read_shots
from qec.support.errors import QecError

_PREDICTED = "obs_flips_predicted_by_"


@dataclasses.dataclass(frozen=True, eq=False)
class GoogleExperiment:
    """One experiment.

    Attributes:
        name: the folder's name.
        circuit: with their noise model.
        model: their detector error model of that circuit.
        events: uint8 (shots, ceil(detectors / 8)), bit-packed.
        flips: uint8 (shots,), of the logical observable.
        inferred: the pij models, (for odd shots, for even shots); None where the folder has none.
        predictions: uint8 (shots,) by the name of their decoder.
    """

    name: str
    circuit: stim.Circuit
    model: stim.DetectorErrorModel
    events: np.ndarray
    flips: np.ndarray
    inferred: tuple[stim.DetectorErrorModel, stim.DetectorErrorModel] | None
    predictions: dict[str, np.ndarray]

    @classmethod
    def load(cls, folder: str | Path) -> GoogleExperiment:
        """Reads a folder.

        Raises:
            QecError: no folder, a file that is missing, truncated or of another experiment.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise QecError(f"there is no folder {folder}.")
        circuit = load_circuit(folder / "circuit_noisy.stim")
        model = load_dem(folder / "circuit_detector_error_model.dem")
        if model.num_detectors != circuit.num_detectors:
            raise QecError(
                f"{folder}: the circuit has {circuit.num_detectors} detectors, but its model "
                f"{model.num_detectors}."
            )
        events = read_shots(folder / "detection_events.b8", "b8", circuit.num_detectors)
        flips = _flips(folder / "obs_flips_actual.01", len(events))
        predictions = {
            path.stem.removeprefix(_PREDICTED): _flips(path, len(events))
            for path in sorted(folder.glob(f"{_PREDICTED}*.01"))
        }
        pair = [folder / f"pij_from_{a}_for_{b}.dem" for a, b in (("even", "odd"), ("odd", "even"))]
        inferred = None
        if all(path.is_file() for path in pair):
            inferred = (load_dem(pair[0]), load_dem(pair[1]))
        return cls(folder.name, circuit, model, events, flips, inferred, predictions)


def _flips(path: Path, shots: int) -> np.ndarray:
    flips = read_shots(path, "01", 0, 1)[:, 0]
    if len(flips) != shots:
        raise QecError(
            f"{path} holds {len(flips)} shots, but there are {shots} of detection events."
        )
    return flips
