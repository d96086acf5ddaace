"""Detection events that belong to another circuit, and honest ones, which look different, too."""

import numpy as np
import pytest
import stim

from qec.circuits.error_model import Mechanisms
from qec.circuits.lattice import detector_error_model
from qec.circuits.model_agreement import agreement, warn_of_disagreement
from qec.cli.commands import main


def memory(distance, rounds, p, *, readout=1.0, basis="x"):
    return stim.Circuit.generated(
        f"surface_code:rotated_memory_{basis}",
        distance=distance,
        rounds=rounds,
        after_clifford_depolarization=p,
        before_measure_flip_probability=readout * p,
        after_reset_flip_probability=p,
        before_round_data_depolarization=p,
    )


def sampled(circuit, shots=2000):
    return circuit.compile_detector_sampler(seed=7).sample(shots, bit_packed=True)


def compared(circuit, shots):
    return agreement(shots, Mechanisms.from_dem(detector_error_model(circuit)))


def read_as(circuit, shots):
    """Bytes of shots, cut as if they were those of ``circuit``."""
    width = -(-circuit.num_detectors // 8)
    flat = shots.ravel()
    return flat[: len(flat) // width * width].reshape(-1, width)


def test_events_and_coincidences_against_a_model_worked_out_by_hand():
    """Two mechanisms: p flips D0 and D1, q flips D1 and D2.

    P(D0) = p, P(D1) = p + q - 2 p q, P(D2) = q; cov(D0, D1) = p (1 - p) (1 - 2 q).
    """
    p, q = 0.1, 0.3
    dem = stim.DetectorErrorModel(f"error({p}) D0 D1\nerror({q}) D1 D2 L0")
    found = agreement(np.array([[0], [3]], dtype=np.uint8), Mechanisms.from_dem(dem))
    assert found.expected_events == pytest.approx(p + (p + q - 2 * p * q) + q)
    want = p * (1 - p) * (1 - 2 * q) + q * (1 - q) * (1 - 2 * p)
    assert found.expected_pairs == pytest.approx(want)
    assert found.events == 1
    assert found.pairs == pytest.approx(0.5)  # of D0 and D1, unbiased


@pytest.mark.parametrize("experiment", [(3, 3, 0.006), (5, 5, 0.001), (3, 20, 0.004)])
def test_its_own_events_agree(experiment):
    """Each mean lies within 5.5 standard errors: false failures in all, below 1e-6."""
    circuit = memory(*experiment)
    found = compared(circuit, sampled(circuit))
    assert abs(found.events - found.expected_events) < 5.5 * found.events_error
    assert abs(found.pairs - found.expected_pairs) < 5.5 * found.pairs_error


def test_what_happens_more_often_than_not_agrees():
    """As above; every fifth mechanism has 1 - p for p, which turns its coincidences round."""
    likely = stim.DetectorErrorModel()
    for k, item in enumerate(detector_error_model(memory(3, 3, 0.006)).flattened()):
        args = item.args_copy()
        turned = item.type == "error" and k % 5 == 0
        likely.append(item.type, [1 - args[0]] if turned else args, item.targets_copy())
    dets, _, _ = likely.compile_sampler(seed=7).sample(2000, bit_packed=True)
    found = agreement(dets, Mechanisms.from_dem(likely))
    assert not found.events_differ
    assert not found.unrelated
    assert abs(found.pairs - found.expected_pairs) < 5.5 * found.pairs_error


@pytest.mark.parametrize(
    "changes",
    [{"p": 0.008}, {"p": 0.002}, {"readout": 5.0}, {"readout": 0.0}, {"basis": "z"}, {"p": 0.01}],
)
@pytest.mark.parametrize("shots", [1, 3, 50, 2000])
def test_honest_events_pass(changes, shots):
    """Devices have other rates than their models: by a factor of 2.5 here."""
    model = memory(3, 5, 0.004)
    found = compared(model, sampled(memory(3, 5, **{"p": 0.004} | changes), shots))
    assert not found.events_differ
    assert not found.unrelated


@pytest.mark.parametrize(
    ("own", "other"), [((3, 3), (5, 5)), ((5, 5), (3, 5)), ((5, 5), (7, 7)), ((3, 20), (5, 20))]
)
def test_events_of_another_distance_do_not(own, other):
    circuit = memory(*own, 0.006)
    found = compared(circuit, read_as(circuit, sampled(memory(*other, 0.006))))
    assert found.unrelated


def test_events_of_other_noise_do_not():
    circuit = memory(3, 5, 0.002)
    for p, ratio in ((0.01, 4), (0.0003, 0.2)):
        found = compared(circuit, sampled(memory(3, 5, p)))
        assert found.events / found.expected_events == pytest.approx(ratio, rel=0.25)
        assert found.events_differ
        assert not found.unrelated


def test_no_events_at_all():
    circuit = memory(3, 5, 0.01)
    nothing = np.zeros((200, -(-circuit.num_detectors // 8)), dtype=np.uint8)
    assert compared(circuit, nothing).events_differ
    assert not compared(circuit, nothing[:1]).events_differ


def test_a_model_without_mechanisms_expects_nothing(capsys):
    dem = stim.DetectorErrorModel("detector D9\nlogical_observable L0")
    warn_of_disagreement(np.zeros((5, 2), dtype=np.uint8), dem, "model.dem")
    assert capsys.readouterr().err == ""


def test_the_number_of_events_tells_nothing_against_a_guess(capsys):
    dem = detector_error_model(memory(3, 5, 0.0005))
    shots = sampled(memory(3, 5, 0.005))
    warn_of_disagreement(shots, dem, "guess.dem", guess=True)
    assert capsys.readouterr().err == ""
    warn_of_disagreement(shots, dem, "known.dem")
    assert "do not look like those of known.dem: " in capsys.readouterr().err


def test_decode_warns_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small, large = memory(3, 3, 0.006), memory(5, 5, 0.006)
    small.to_file("small.stim")
    for name, circuit in (("small", small), ("large", large)):
        circuit.compile_detector_sampler(seed=1).sample_write(
            3000, filepath=f"{name}.b8", format="b8"
        )
    command = ["decode", "circuit=small.stim", "decoder=pymatching"]
    assert main([*command, "dets=small.b8"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*command, "dets=large.b8"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("qec: warning: the detection events do not look like those of small.")
    assert "% of the coincidences that it expects" in error
    assert error.count("\n") == 1
