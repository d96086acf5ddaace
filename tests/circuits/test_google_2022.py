"""Google's folder layout: a tiny folder made with Stim, and the real data where present."""

import csv
import pathlib

import numpy as np
import pytest
import stim

from qec.circuits.google_2022 import GoogleExperiment
from qec.cli.commands import main
from qec.noise_learning.random_noise import vary
from qec.support.errors import QecError

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "google_qec3v5"


@pytest.fixture
def folder(tmp_path, stim_circuit):
    """An experiment of 2000 shots in the published layout."""
    path = tmp_path / "surface_code_bX_d3_r03_center_3_5"
    path.mkdir()
    guess = stim_circuit(3, 3, "X", 0.008)
    true = vary(guess, 0.5, np.random.default_rng(0))
    guess.to_file(path / "circuit_noisy.stim")
    model = guess.detector_error_model(decompose_errors=True)
    model.to_file(path / "circuit_detector_error_model.dem")
    for halves in ("even_for_odd", "odd_for_even"):
        true.detector_error_model(decompose_errors=True, approximate_disjoint_errors=True).to_file(
            path / f"pij_from_{halves}.dem"
        )
    events, flips = true.compile_detector_sampler(seed=1).sample(2000, separate_observables=True)
    stim.write_shot_data_file(
        data=events,
        path=path / "detection_events.b8",
        format="b8",
        num_detectors=guess.num_detectors,
    )
    for name in ("actual", "predicted_by_tensor_network_contraction"):
        stim.write_shot_data_file(
            data=flips, path=path / f"obs_flips_{name}.01", format="01", num_observables=1
        )
    return path


def test_the_folder_is_read_whole(folder):
    experiment = GoogleExperiment.load(folder)
    assert experiment.name == folder.name
    assert experiment.events.shape == (2000, 3)
    assert experiment.circuit.num_detectors == experiment.model.num_detectors == 24
    assert len(experiment.inferred) == 2
    assert list(experiment.predictions) == ["tensor_network_contraction"]
    assert (experiment.predictions["tensor_network_contraction"] == experiment.flips).all()


@pytest.mark.slow
def test_learn_noise_reports_every_model_and_published_prediction(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["learn-noise", f"google={folder}", f"out={out}"]) == 0
    table = capsys.readouterr().out
    for name in ("structure's own", "Google's pij", "learned", "tensor_network_contraction"):
        assert name in table
    rows = (out / "ler.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 3 + 1
    assert rows[-1].startswith(f"{folder.name},published,tensor_network_contraction,")
    assert (out / folder.name / "learned.dem").is_file()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "circuit_noisy.stim").unlink(), "no file .*circuit_noisy.stim"),
        (lambda f: (f / "detection_events.b8").write_bytes(b"\0" * 7), "24 bits per shot"),
        (lambda f: (f / "obs_flips_actual.01").write_text("0\n1\n"), "2 shots, but there are 2000"),
        (
            lambda f: (f / "circuit_detector_error_model.dem").write_text("error(0.1) D0 L0"),
            "24 detectors, but its model 1",
        ),
    ],
)
def test_damaged_folders_are_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(QecError, match=message):
        GoogleExperiment.load(folder)
    with pytest.raises(QecError, match="no folder"):
        GoogleExperiment.load(folder / "nowhere")


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="Google's data are not here")
def test_weights_learned_from_real_data_match_googles(tmp_path, capsys):
    # d = 3, 5 rounds, 50,000 shots: paired, correlated and uncorrelated.  A ratio of 1.02 to their
    # pij models is about five standard deviations above the ratio of 1 that we find.
    folder = REAL / "surface_code_bX_d3_r05_center_3_5"
    assert main(["learn-noise", f"google={folder}", f"out={tmp_path}"]) == 0
    capsys.readouterr()
    with (tmp_path / "ler.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "learned"]
    assert len(rows) == 2
    for row in rows:
        assert int(row["errors"]) < 1.02 * int(row["baseline_errors"])
