"""`qec learn-noise` on files, and what is done with the learned model."""

import csv

import numpy as np
import pytest
import sinter
import stim
from printed import listed_files

from qec.cli.commands import main
from qec.decoding.decoder import Decoder
from qec.noise_learning import NoiseLearner


@pytest.fixture
def files(tmp_path, stim_circuit):
    """A guess, the true circuit, and 20,000 shots of it with their flips."""
    guess, true = stim_circuit(3, 3, "Z", 0.003), stim_circuit(3, 3, "Z", 0.01)
    guess.to_file(tmp_path / "guess.stim")
    true.to_file(tmp_path / "true.stim")
    events, flips = true.compile_detector_sampler(seed=4).sample(20_000, separate_observables=True)
    stim.write_shot_data_file(
        data=events, path=tmp_path / "events.b8", format="b8", num_detectors=true.num_detectors
    )
    stim.write_shot_data_file(
        data=flips, path=tmp_path / "flips.01", format="01", num_observables=1
    )
    return tmp_path


def learn(files, *overrides):
    return main(
        [
            "learn-noise",
            f"structure={files}/guess.stim",
            f"dets={files}/events.b8",
            f"out={files}/out",
            *overrides,
        ]
    )


def test_it_writes_the_model_tables_and_plots(files, capsys):
    reference = f"reference={files}/true.stim"
    assert learn(files, f"obs={files}/flips.01", reference) == 0
    text = capsys.readouterr().out
    assert "noise learned by 'channels'" in text
    assert "reference" in text
    assert "to repeat: qec learn-noise structure=" in text
    out = files / "out"
    assert (
        listed_files(text, out)
        == sorted(path.name for path in out.iterdir())
        == [
            "learned.dem",
            "parameters.csv",
            "rates.csv",
            "rates.png",
            "rates.svg",
        ]
    )
    with (out / "rates.csv").open() as file:
        rows = list(csv.DictReader(file))
    learned, true, error = (
        np.array([float(row[name]) for row in rows])
        for name in ("learned", "reference", "standard_error")
    )
    # A fit of 25 parameters to 20,000 shots, fixed seed: see test_learn_noise for the chances.
    assert np.mean(((learned - true) / error) ** 2) < 4
    with (out / "parameters.csv").open() as file:
        assert {row["parameter"] for row in csv.DictReader(file)} >= {"2q after CX.ZZ"}

    model = stim.DetectorErrorModel.from_file(out / "learned.dem")
    guess = stim.Circuit.from_file(files / "guess.stim")
    packed = np.fromfile(files / "events.b8", np.uint8).reshape(20_000, -1)
    assert model.approx_equals(NoiseLearner(guess).update(packed).estimate().dem, atol=1e-9)


@pytest.mark.slow
def test_a_sweep_and_decode_take_the_learned_model(files, capsys):
    assert learn(files) == 0
    weights = f"weights={files}/out/learned.dem"
    arguments = [
        *("sweep", f"circuit={files}/true.stim", f"out={files}/sweep", "max_shots=2000"),
        "decoders=[pymatching-css,predecoder+pymatching]",
    ]
    assert main([*arguments, weights]) == 0
    assert "weights of learned.dem@" in capsys.readouterr().out
    (stat,) = sinter.read_stats_from_csv_files(files / "sweep" / "collected.csv")
    assert stat.json_metadata["weights"].startswith("learned.dem@")
    # Without it, other rows.
    assert main(arguments) == 0
    assert len(sinter.read_stats_from_csv_files(files / "sweep" / "collected.csv")) == 2

    decode = ["decode", f"circuit={files}/out/learned.dem", f"dets={files}/events.b8"]
    assert main([*decode, f"obs={files}/flips.01", f"out={files}/predictions.01"]) == 0
    assert "logical errors" in capsys.readouterr().out


def test_weights_of_another_experiment_are_refused(files, capsys):
    assert learn(files) == 0
    weights = f"weights={files}/out/learned.dem"
    assert main(["sweep", "distance=3", "rounds=2", "basis=X", weights, f"out={files}/s"]) == 2
    assert "another experiment" in capsys.readouterr().err


def test_the_residual_is_matched_with_the_learned_weights(files):
    """Network and matching both take the noise from the model: a wrong one gives other results."""
    guess, true = (
        stim.Circuit.from_file(files / f"{name}.stim").detector_error_model(decompose_errors=True)
        for name in ("guess", "true")
    )
    packed = np.fromfile(files / "events.b8", np.uint8).reshape(20_000, -1)[:2000]
    learned = NoiseLearner(guess).update(packed).estimate().dem
    predictions = {
        name: Decoder.from_dem(dem, predecoder="standard").decode_batch(
            packed, bit_packed_shots=True
        )
        for name, dem in {"learned": learned, "true": true}.items()
    }
    assert np.mean(predictions["learned"] != predictions["true"]) < 0.02


def test_the_map_shows_where_rates_are_learned(files, monkeypatch, capsys):
    """The reference is 0.01 / 0.003 times the guess everywhere, and so is what is learned."""
    figures = []
    monkeypatch.setattr(
        "qec.noise_learning.plots.save_figure", lambda figure, *_: figures.append(figure) or []
    )
    assert learn(files, f"reference={files}/true.stim") == 0
    (figure,) = figures
    maps = figure.axes[1:-1]
    assert "d = 3, R = 3" in figure.get_suptitle()
    assert [axes.get_title().partition(":")[0] for axes in maps] == [
        "reference\nover structure's own",
        "learned\nover structure's own",
        "learned\nover reference",
    ]
    shown = [axes.collections[0].get_array() for axes in maps]
    assert [len(values) for values in shown] == [8, 8, 8]  # checks of distance 3
    # 20,000 shots, tens of thousands of events a place: 5 % are more than six deviations.
    np.testing.assert_allclose(shown[2], 1, atol=0.05)
    np.testing.assert_allclose(shown[0] * shown[2], shown[1])
    assert shown[0].min() > 3
    assert len(figure.legends) == 1


@pytest.mark.slow
def test_the_alarm_is_drawn(files, stim_circuit, monkeypatch, capsys):
    """Detectors that fire twice as often: dozens of standard deviations."""
    figures = []
    monkeypatch.setattr(
        "qec.noise_learning.plots.save_figure", lambda figure, *_: figures.append(figure) or []
    )
    worse = stim_circuit(3, 3, "Z", 0.02).compile_detector_sampler(seed=5).sample(5000)
    with (files / "events.b8").open("ab") as file:
        file.write(np.packbits(worse, axis=1, bitorder="little").tobytes())
    assert learn(files, "half_life=8000", "look=5000") == 0
    assert "ALARM at 25000 shots" in capsys.readouterr().out
    drift = figures[0]
    labels = [text.get_text() for text in drift.legends[0].get_texts()]
    assert "alarm" in labels
    assert "alarm threshold, 5.5" in labels
    for axes in drift.axes:
        (alarm,) = (line for line in axes.lines if line.get_label() == "alarm")
        assert list(alarm.get_xdata()) == [25_000, 25_000]


@pytest.mark.slow
def test_drift_is_written_and_plotted(files, capsys):
    assert learn(files, "half_life=8000", "look=5000") == 0
    listed = listed_files(capsys.readouterr().out, files / "out")
    assert listed == sorted(path.name for path in (files / "out").iterdir())
    with (files / "out" / "drift.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["shots"]) for row in rows] == [5000, 10000, 15000, 20000]
    assert all(row["alarm"] == "" for row in rows)
    assert (files / "out" / "drift.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=guess"], "method='guess' is unknown"),
        (["dets=nowhere.b8"], "no file nowhere.b8"),
        (["structure=nowhere.stim"], "no file nowhere.stim"),
        (["structure=???"], "structure is empty"),
        (["shots=0"], "shots=0"),
        (["half_life=fast"], "half_life='fast'"),
        (["half_life=1000", "look=0"], "look=0"),
        (["decoders=[magic]"], "decoder 'magic' is unknown"),
        (["google=nowhere"], "no folder nowhere"),
    ],
)
def test_bad_settings_end_in_one_line(files, capsys, overrides, message):
    assert learn(files, *overrides) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_reference_of_another_experiment_is_refused(files, capsys, stim_circuit):
    stim_circuit(3, 4, "Z", 0.003).to_file(files / "other.stim")
    assert learn(files, f"reference={files}/other.stim") == 2
    assert "other error mechanisms" in capsys.readouterr().err


# Circuits of other generators ---------------------------------------------------------------------


def recorded(folder, circuit, shots=3000, name="guess"):
    """The circuit, and shots of it, where ``learn`` looks for them."""
    circuit.to_file(folder / f"{name}.stim")
    circuit.compile_detector_sampler(seed=4).sample_write(
        shots,
        filepath=str(folder / "events.b8"),
        format="b8",
        obs_out_filepath=str(folder / "flips.01"),
        obs_out_format="01",
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "DEPOLARIZE1(0.002) 1 3 5"),
        ("X_ERROR(0.01) 40", "X_ERROR(0.1) 3\nDEPOLARIZE2(0.01) 1 3"),
        ("M(0.02) 40", "M(0.03) 41"),
    ],
)
def test_parameters_that_no_detector_sees_are_left_out(stim_circuit, before, after):
    """Idle noise after the last measurement, say; first or last of the parameters."""
    plain = stim_circuit(3, 3, "Z", 0.004)
    events = plain.compile_detector_sampler(seed=4).sample(3000, bit_packed=True)
    want = NoiseLearner(plain).update(events).estimate("channels")
    more = stim.Circuit(f"{before}\n{plain}\n{after}")
    found = NoiseLearner(more).update(events).estimate("channels")
    assert found.parameters == pytest.approx(want.parameters, rel=1e-6)
    assert len(found.faults.parameter_names) > len(want.faults.parameter_names)


def test_trailing_noise_goes_through_the_command(tmp_path, stim_circuit, capsys):
    circuit = stim_circuit(3, 3, "Z", 0.004)
    circuit.append("DEPOLARIZE1", [1, 3, 5], 0.002)
    recorded(tmp_path, circuit)
    assert learn(tmp_path) == 0
    capsys.readouterr()
    assert "2q after CX.ZZ" in (tmp_path / "out" / "parameters.csv").read_text()
    assert (tmp_path / "out" / "rates.png").exists()


def unrotated(p=0.004):
    return stim.Circuit.generated(
        "surface_code:unrotated_memory_x", distance=3, rounds=2, after_clifford_depolarization=p
    )


def test_other_codes_are_decoded_by_what_takes_them(tmp_path, capsys):
    recorded(tmp_path, unrotated())
    assert learn(tmp_path, f"obs={tmp_path}/flips.01") == 0
    text = capsys.readouterr().out
    assert "pymatching-correlated" in text
    assert "css" not in text
    assert text.count("learned") > 1


def test_what_cannot_be_decoded_is_refused_before_the_work(tmp_path, capsys, monkeypatch):
    recorded(tmp_path, unrotated())
    monkeypatch.setattr("qec.noise_learning.command.NoiseLearner", None)  # never called
    decoders = "decoders=[pymatching-css]"
    assert learn(tmp_path, f"obs={tmp_path}/flips.01", decoders) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "noise",
    [
        {"rounds": 1, "before_round_data_depolarization": 0.05},  # code capacity
        {"rounds": 3, "before_round_data_depolarization": 0.02},
    ],
)
def test_sparse_noise_is_learned(noise):
    """Although some detectors have no mechanism, and in the end events all the same.

    Each strength has 800 events or more, so 0.8 and 1.25 lie beyond 5.6 standard deviations.
    """
    circuit = stim.Circuit.generated("surface_code:rotated_memory_z", distance=3, **noise)
    events = circuit.compile_detector_sampler(seed=4).sample(4000)
    estimate = NoiseLearner(circuit).update(np.packbits(events, axis=1, bitorder="little"))
    found = estimate.estimate("channels")
    assert 0.8 < min(found.parameters.values()) <= max(found.parameters.values()) < 1.25
    stray = np.random.default_rng(1).random(events.shape) < 0.02
    learner = NoiseLearner(circuit)
    learner.update(np.packbits(events ^ stray, axis=1, bitorder="little"))
    with pytest.warns(UserWarning, match="the structure cannot explain"):
        assert np.isfinite(learner.estimate("channels").probability).all()
