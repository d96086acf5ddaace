"""Confidence as users meet it: of every decoder, in sinter, and in `qec decode`."""

import collections
import os
import pathlib
import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import sinter
import stim
from scipy.special import expit
from training_files import trained

from qec.cli.commands import main
from qec.decoding.confidence_bins import counts_by_nat, post_selection
from qec.decoding.decoder import named_decoder
from qec.decoding.decoder_names import DECODER_NAMES
from qec.sinter_plugin import ConfidenceSampler, SinterDecoder, sinter_decoders
from qec.support.errors import QecError

BIN = pathlib.Path(sys.executable).parent


def task_of(circuit):
    dem = circuit.detector_error_model(decompose_errors=True)
    return sinter.Task(circuit=circuit, detector_error_model=dem)


# Decoders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DECODER_NAMES)
def test_every_decoder_tells_how_sure_it_is(stim_circuit, name):
    circuit = stim_circuit(3, 3, "X", 0.01)
    dem = circuit.detector_error_model(decompose_errors=True)
    decoder = named_decoder(name, dem, trained())
    packed = circuit.compile_detector_sampler(seed=1).sample(300, bit_packed=True)
    want = decoder.decode_recorded(packed)
    predictions, nats = decoder.decode_recorded(packed, return_confidence=True)
    np.testing.assert_array_equal(predictions, want)
    assert (nats.shape, nats.dtype) == ((300,), np.float64)
    # The other class is one logical operator away, so no confidence is infinite.
    assert np.isfinite(nats).all()
    assert (nats >= 0).all()
    assert np.ptp(nats) > 3
    shots = np.unpackbits(packed, axis=1, count=decoder.num_detectors, bitorder="little")
    prediction, alone = decoder.decode(shots[0], return_confidence=True)
    np.testing.assert_array_equal(prediction, want[0])
    assert alone == pytest.approx(nats[0], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["pymatching-css", "pymatching-correlated-css", "matching-cascade"]
)
def test_confidence_below_three_nats_is_honest_and_discarding_it_helps(stim_circuit, name):
    """Of 20,000 shots, about 860 errors are below 3 nats, 1.2 times as many as predicted.

    That ratio has a standard deviation of 0.04: it leaves 0.8 to 1.6 in 1e-15 of the runs.  What
    is kept errs in 1.4 to 1.7 % of the shots, +- 0.1 %; half of the rate of all is 2.9 to 3.1 %.
    """
    circuit = stim_circuit(3, 3, "X", 0.01)
    sampler = circuit.compile_detector_sampler(seed=2)
    packed, flips = sampler.sample(20_000, separate_observables=True, bit_packed=True)
    decoder = named_decoder(name, circuit.detector_error_model(decompose_errors=True))
    predictions, nats = decoder.decode_recorded(packed, return_confidence=True)
    wrong, doubtful = predictions[:, 0] != flips[:, 0], nats < 3
    predicted = expit(-nats[doubtful]).sum()
    assert 0.8 * predicted < np.count_nonzero(wrong[doubtful]) < 1.6 * predicted
    assert wrong[~doubtful].mean() < wrong.mean() / 2


# Counts ------------------------------------------------------------------------------------------


def test_bins_have_their_lower_end():
    nats = np.array([0.0, 0.99, 1.0, 3.5, 3.6, np.inf])
    counts = counts_by_nat(nats, np.array([1, 0, 1, 1, 1, 0], dtype=bool))
    assert counts == {
        **{"shots:nats=0-1": 2, "shots:nats=1-2": 1, "shots:nats=3-4": 2, "shots:nats=inf": 1},
        **{"errors:nats=0-1": 1, "errors:nats=1-2": 1, "errors:nats=3-4": 2},
    }
    assert counts_by_nat(nats[:0], np.zeros(0, dtype=bool)) == {}


def test_counts_add_up_to_a_curve_of_post_selection():
    rng = np.random.default_rng(3)
    nats = rng.exponential(5, 1000)
    wrong = rng.random(1000) < expit(-nats)
    parts = [counts_by_nat(nats[part], wrong[part]) for part in (slice(300), slice(300, None))]
    assert sum(parts, collections.Counter()) == counts_by_nat(nats, wrong)
    curve = post_selection({**(parts[0] + parts[1]), "detection_events": 5})
    np.testing.assert_array_equal(curve.nats, np.unique(np.floor(nats)))
    for k, shots, errors in zip(*curve, strict=True):
        kept = nats >= k
        assert (shots, errors) == (kept.sum(), wrong[kept].sum())


def test_no_counts_make_an_empty_curve():
    assert [len(part) for part in post_selection({"detection_events": 5})] == [0, 0, 0]


# sinter ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pymatching", "matching-cascade", "predecoder+pymatching"])
def test_the_discard_byte_is_confidence_below_the_limit(stim_circuit, name):
    circuit = stim_circuit(3, 3, "Z", 0.01)
    dem = circuit.detector_error_model(decompose_errors=True)
    packed = circuit.compile_detector_sampler(seed=4).sample(400, bit_packed=True)
    decoder = sinter_decoders(discard_below=2.5)[f"{name}:discard-below-2.5"]
    compiled = decoder.compile_decoder_for_dem(dem=dem)
    got = compiled.decode_shots_bit_packed(bit_packed_detection_event_data=packed)
    assert (got.shape, got.dtype) == ((400, 2), np.uint8)
    predictions, nats = named_decoder(name, dem).decode_recorded(packed, return_confidence=True)
    np.testing.assert_array_equal(got[:, :1], predictions)
    np.testing.assert_array_equal(got[:, 1] != 0, nats < 2.5)
    assert 0 < np.count_nonzero(got[:, 1]) < 400


def test_names_that_were_not_asked_for_are_not_there():
    usual = sinter_decoders()
    assert not [name for name in usual if ":" in name]
    more = sinter_decoders(discard_below=[0.5, 5.0], by_confidence=True)
    assert set(usual) < set(more)
    for name in ("pymatching", "matching-cascade"):
        assert isinstance(more[f"{name}:by-confidence"], ConfidenceSampler)
        for ending, nats in (("0.5", 0.5), ("5", 5)):
            decoder = more[f"{name}:discard-below-{ending}"]
            assert (decoder.name, decoder.discard_below) == (name, nats)
    # Safe in a shell, but for the brackets of checkpoints, and in a CSV file.
    assert all(re.fullmatch(r"[\w+.:@\[\]-]+", name) for name in more)


@pytest.mark.parametrize("nats", [-1, float("nan"), float("inf"), "5"])
def test_limits_that_discard_nothing_sensible_are_refused(nats):
    with pytest.raises(QecError, match=r"discard_below=.* use a number of nats >= 0"):
        sinter_decoders(discard_below=[nats])


def test_a_sampler_counts_what_its_decoder_is_sure_of(stim_circuit):
    task = task_of(stim_circuit(3, 3, "X", 0.01))
    stats = (
        ConfidenceSampler("matching-cascade", seed=5).compiled_sampler_for_task(task).sample(600)
    )
    packed, flips = task.circuit.compile_detector_sampler(seed=5).sample(
        600, separate_observables=True, bit_packed=True
    )
    decoder = named_decoder("matching-cascade", task.detector_error_model)
    predictions, nats = decoder.decode_recorded(packed, return_confidence=True)
    wrong = predictions[:, 0] != flips[:, 0]
    assert (stats.shots, stats.errors, stats.discards) == (600, wrong.sum(), 0)
    assert stats.custom_counts == counts_by_nat(nats, wrong)


def test_a_sampler_knows_no_masks(stim_circuit):
    circuit = stim_circuit(3, 3, "X", 0.01)
    dem = circuit.detector_error_model(decompose_errors=True)
    mask = np.zeros(-(-dem.num_detectors // 8), dtype=np.uint8)
    task = sinter.Task(circuit=circuit, detector_error_model=dem, postselection_mask=mask)
    with pytest.raises(QecError, match="leave its masks out"):
        ConfidenceSampler("pymatching-css").compiled_sampler_for_task(task)


@pytest.mark.slow
def test_collect_discards_and_counts_in_workers(stim_circuit, tmp_path):
    """Of 4000 shots, a quarter are below 3 nats, with 200 of the 250 errors.

    The two rows have different shots.  Their shares of doubtful ones differ by 1 % in the standard
    deviation, by 6 % in 1e-9 of the runs.  50 +- 7 errors are kept of 250 +- 15.
    """
    names = ["pymatching-css:discard-below-3", "pymatching-css:by-confidence"]
    table = tmp_path / "stats.csv"
    stats = sinter.collect(
        num_workers=2,
        tasks=[sinter.Task(circuit=stim_circuit(3, 3, "X", 0.01))],  # as of sinter's command line
        decoders=names,
        custom_decoders=sinter_decoders(discard_below=3, by_confidence=True),
        max_shots=4000,
        save_resume_filepath=table,
    )
    rows = {row.decoder: row for row in sinter.read_stats_from_csv_files(table)}
    for row in stats:
        assert row.custom_counts == rows[row.decoder].custom_counts
    discarding, counting = (rows[name] for name in names)
    curve = post_selection(counting.custom_counts)
    assert (curve.shots[0], curve.errors[0]) == (counting.shots, counting.errors)
    (three,) = np.flatnonzero(curve.nats == 3)
    discarded = 1 - curve.shots[three] / counting.shots
    assert discarding.discards / discarding.shots == pytest.approx(discarded, abs=0.06)
    assert discarding.errors < counting.errors


def test_a_decoder_that_discards_nothing_has_one_byte(stim_circuit):
    dem = stim_circuit(3, 3, "X", 0.01).detector_error_model(decompose_errors=True)
    compiled = SinterDecoder("pymatching-css").compile_decoder_for_dem(dem=dem)
    none = np.zeros((0, -(-dem.num_detectors // 8)), dtype=np.uint8)
    got = compiled.decode_shots_bit_packed(bit_packed_detection_event_data=none)
    assert got.shape == (0, 1)


# qec decode --------------------------------------------------------------------------------------

SHOTS = 500


@pytest.fixture
def experiment(tmp_path, monkeypatch, stim_circuit):
    """Files in the working folder; arguments of ``qec decode``, its confidences, its errors."""
    monkeypatch.chdir(tmp_path)
    circuit = stim_circuit(3, 3, "X", 0.01)
    circuit.to_file("m.stim")
    sampler = circuit.compile_detector_sampler(seed=6)
    packed, flips = sampler.sample(SHOTS, separate_observables=True, bit_packed=True)
    packed.tofile("e.b8")
    stim.write_shot_data_file(data=flips, path="f.01", format="01", num_observables=1)
    decoder = named_decoder("pymatching-css", circuit.detector_error_model(decompose_errors=True))
    predictions, nats = decoder.decode_recorded(packed, return_confidence=True)
    base = ["decode", "circuit=m.stim", "dets=e.b8", "decoder=pymatching-css"]
    return base, nats, predictions[:, 0] != flips[:, 0]


def test_decode_writes_confidence(experiment, tmp_path):
    base, nats, _ = experiment
    assert main([*base, "out=plain.01"]) == 0
    (tmp_path / "link.npy").symlink_to("linked.bin")
    for name in ("new/c.npy", "c.txt", "link.npy"):
        assert main([*base, "out=p.01", f"confidence={name}"]) == 0
        found = np.loadtxt(name) if name.endswith("txt") else np.load(name)
        assert (found.shape, found.dtype) == ((SHOTS,), np.float64)
        np.testing.assert_array_equal(found, nats)
        assert Path("p.01").read_bytes() == Path("plain.01").read_bytes()
    assert Path("link.npy").is_symlink()


def test_decode_tells_how_far_confidence_holds(experiment, capsys):
    base, nats, wrong = experiment
    assert main([*base, "out=p.01", "obs=f.01", "confidence=c.npy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shares = [f"{np.mean(nats < edge):.2%}" for edge in (1, 3, 5)]
    assert lines[2] == f"confidence below 1, 3, 5 nats: {', '.join(shares)} of the shots"
    ends = {"0 to 1": (0, 1), "1 to 3": (1, 3), "3 to 5": (3, 5), "5 or more": (5, np.inf)}
    for name, (low, high) in ends.items():
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        here = (nats >= low) & (nats < high)
        shots, errors, *_, predicted = line.removeprefix(f"{name} ").split()
        assert (int(shots), int(errors)) == (here.sum(), wrong[here].sum())
        assert float(predicted) == pytest.approx(expit(-nats[here]).mean(), rel=0.01)
    assert max(map(len, lines)) <= 100
    assert main([*base, "out=p.01", "confidence=c.npy"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [lines[2]]


def test_empty_bins_have_no_rates(experiment, capsys):
    base, *_ = experiment
    Path("quiet.b8").write_bytes(bytes(3 * 8))
    Path("f8.01").write_text("0\n" * 8)
    change = ["dets=quiet.b8", "obs=f8.01", "out=p.01", "confidence=c.npy"]
    assert main([*base, *change]) == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("0 to 1 "))
    assert line.split() == ["0", "to", "1", "0", "0", "-", "-"]


def test_predictions_on_standard_output_stay_alone_there(experiment, capfdbinary):
    base, nats, _ = experiment
    assert main([*base, "out=-", "out_format=01", "confidence=c.npy"]) == 0
    out, error = capfdbinary.readouterr()
    assert len(out) == 2 * SHOTS
    assert b"confidence below 1, 3, 5 nats: " in error
    np.testing.assert_array_equal(np.load("c.npy"), nats)


def test_confidence_goes_into_pipes(experiment):
    base, nats, _ = experiment
    os.mkfifo("pipe.txt")
    found = []
    reader = threading.Thread(
        target=lambda: found.append(Path("pipe.txt").read_text()), daemon=True
    )
    reader.start()
    assert main([*base, "out=p.01", "confidence=pipe.txt"]) == 0
    reader.join(timeout=30)
    assert [float(line) for line in found[0].splitlines()] == nats.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["confidence=c.csv"], "confidence=c.csv is not supported: use a file ending in .npy or"),
        (["confidence=-"], "confidence=- is not supported: use a file ending in .npy or .txt."),
        (["confidence="], "confidence is empty: give confidence=PATH."),
        (["out=p.txt", "out_format=01", "confidence=./p.txt"], "confidence and out are the same"),
        (["confidence=same.npy"], "confidence and dets are the same file same.npy: give another"),
        (["confidence=m.stim/c.npy"], "cannot write to the folder m.stim"),
        (
            ["circuit=color.stim", "decoder=pymatching", "confidence=new/c.npy"],
            "leave confidence out, pymatching has none here: the detectors do not lie on",
        ),
    ],
)
def test_confidence_that_cannot_be_told_is_refused(experiment, tmp_path, capsys, change, message):
    base, *_ = experiment
    (tmp_path / "same.npy").symlink_to("e.b8")
    color = stim.Circuit.generated(
        "color_code:memory_xyz", distance=3, rounds=8, after_clifford_depolarization=0.01
    )
    assert color.num_detectors == 24  # as many as e.b8 has
    color.to_file("color.stim")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main([*base, "out=p.01", *change]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"qec: error: {message}")
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("victim", ["numpy.save", "stim.write_shot_data_file"])
def test_both_files_are_written_or_neither(experiment, tmp_path, capsys, monkeypatch, victim):
    base, *_ = experiment

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(victim, full)
    assert main([*base, "out=p.01", "confidence=c.npy"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
