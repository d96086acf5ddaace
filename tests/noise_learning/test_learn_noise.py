"""Learning the noise from detection events: graphs, rates, errors, odd input, drift."""

import warnings

import numpy as np
import pytest
import stim

import qec
from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.noise_learning import NoiseLearner, learn_noise
from qec.noise_learning.drift import DriftTracker
from qec.noise_learning.error_structure import ErrorStructure
from qec.noise_learning.learn import METHODS
from qec.noise_learning.random_noise import draw_channels, vary
from qec.support.errors import QecError

FITS = METHODS


def memory(noise, distance=5, rounds=5, basis="X"):
    return memory_circuit(RotatedSurfaceCode(distance), noise, rounds, basis)


def events_of(circuit, shots, seed=0):
    return circuit.compile_detector_sampler(seed=seed).sample(shots, bit_packed=True)


@pytest.fixture(scope="module")
def guess():
    return memory(CircuitNoise.uniform(0.004))


@pytest.fixture(scope="module")
def drawn():
    """Channels of unknown strength, and a circuit whose places differ on top of that."""
    rng = np.random.default_rng(3)
    circuit = memory(draw_channels(0.005, rng))
    return circuit, vary(circuit, 0.5, rng, by="location")


def log_error(estimate, truth):
    """Root mean square of ln(learned / true), mechanisms weighted by their true rate."""
    x = ErrorStructure.of(truth).x
    return np.sqrt(np.average(np.log(estimate.x / x) ** 2, weights=x))


def skeleton(dem):
    return [
        (line.type, line.targets_copy(), line.args_copy() if line.type != "error" else [])
        for line in dem.flattened()
    ]


@pytest.mark.parametrize("method", FITS)
@pytest.mark.slow
def test_the_graph_stays_and_the_rates_are_probabilities(guess, drawn, method):
    events = events_of(drawn[0], 2000)
    learned = learn_noise(guess, events, method=method)
    own = ErrorStructure.of(guess).model
    assert skeleton(learned) == skeleton(own)
    rates = [line.args_copy()[0] for line in learned if line.type == "error"]
    assert 0 < min(rates) <= max(rates) < 0.5
    unpacked = np.unpackbits(events, axis=1, count=own.num_detectors, bitorder="little")
    assert learn_noise(guess, unpacked, method=method) == learned
    assert learn_noise(guess, unpacked.astype(bool), method=method) == learned


@pytest.mark.parametrize("method", FITS)
@pytest.mark.parametrize("shots", [1, 100, 1000])
@pytest.mark.slow
def test_few_shots_give_usable_weights(guess, drawn, method, shots):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimate = NoiseLearner(guess).update(events_of(drawn[1], shots)).estimate(method)
    assert np.isfinite(estimate.x).all()
    assert (estimate.x > 0).all()
    assert np.isfinite(estimate.standard_error).all()
    assert (estimate.standard_error > 0).all()
    qec.Decoder.from_dem(estimate.dem, correlated=True)


def test_channels_are_learned_within_their_standard_errors(guess, drawn):
    # Fixed seed.  A 25-parameter fit: 30 % of the mechanisms beyond 2 standard errors, or a mean
    # square beyond 4, would need an error of the method, not of chance (below 1e-6).
    truth = ErrorStructure.of(drawn[0]).x
    estimate = NoiseLearner(guess).update(events_of(drawn[0], 100_000)).estimate("channels")
    z = (estimate.x - truth) / estimate.standard_error
    assert np.mean(z**2) < 4
    assert np.mean(np.abs(z) > 2) < 0.3
    assert log_error(estimate, drawn[0]) < 0.04


@pytest.mark.slow
def test_what_differs_from_place_to_place_is_learned_from_enough_shots(guess, drawn):
    errors = {}
    for shots in (1000, 100_000):
        learner = NoiseLearner(guess).update(events_of(drawn[1], shots))
        for method in ("channels", "local", "correlation"):
            errors[method, shots] = log_error(learner.estimate(method), drawn[1])
    assert errors["channels", 100_000] > 0.25  # stalls at the spread between places
    assert errors["local", 100_000] < 0.15
    assert errors["local", 100_000] < errors["correlation", 100_000]
    assert errors["local", 1000] < 0.6 * errors["correlation", 1000]


@pytest.mark.slow
def test_auto_tells_from_the_data_whether_places_differ(guess, drawn):
    same = NoiseLearner(guess).update(events_of(drawn[0], 50_000)).estimate()
    assert same.method == "channels"
    differ = NoiseLearner(guess).update(events_of(drawn[1], 50_000)).estimate()
    assert differ.method == "local"
    assert differ.spread["location"] == pytest.approx(np.sqrt(np.expm1(0.25)), rel=0.3)
    by_site = vary(drawn[0], 0.5, np.random.default_rng(4), by="site")
    differ = NoiseLearner(guess).update(events_of(by_site, 50_000)).estimate()
    assert differ.spread["site"] > 3 * differ.spread["location"]


@pytest.mark.slow
def test_learned_weights_decode_better_than_a_bad_guess():
    # Paired on the same shots.  Measurement is 8 times as noisy as guessed, data qubits a quarter:
    # with 20,000 shots the difference is many standard deviations.
    noise = CircuitNoise.uniform(0.004)
    truth = CircuitNoise(
        prep_x=noise.prep_x,
        prep_z=noise.prep_z,
        meas_x=8 * noise.meas_x,
        meas_z=8 * noise.meas_z,
        idle_cnot=tuple(p / 4 for p in noise.idle_cnot),
        idle_spam=tuple(p / 4 for p in noise.idle_spam),
        cnot=noise.cnot,
    )
    circuit = memory(truth)
    learned = learn_noise(memory(noise), events_of(circuit, 20_000, seed=1))
    shots, flips = circuit.compile_detector_sampler(seed=2).sample(
        20_000, separate_observables=True
    )
    true_dem = circuit.detector_error_model(decompose_errors=True, approximate_disjoint_errors=True)
    errors = {
        name: np.count_nonzero(
            qec.Decoder.from_dem(dem, correlated=True).decode_batch(shots) != flips
        )
        for name, dem in {
            "guess": ErrorStructure.of(memory(noise)).model,
            "learned": learned,
            "true": true_dem,
        }.items()
    }
    assert errors["learned"] < 0.9 * errors["guess"]
    assert errors["learned"] < 1.05 * errors["true"] + 10


@pytest.mark.slow
def test_a_model_is_a_structure_too(guess, drawn):
    own = ErrorStructure.of(guess).model
    learner = NoiseLearner(own).update(events_of(drawn[0], 50_000))
    for method, bound in (("channels", 0.3), ("local", 0.15)):
        assert log_error(learner.estimate(method), drawn[0]) < bound
    bare = stim.DetectorErrorModel(
        "\n".join(line for line in str(own.flattened()).splitlines() if "detector" not in line)
    )
    learner = NoiseLearner(bare).update(events_of(drawn[0], 50_000))
    assert np.isfinite(learner.estimate().x).all()


@pytest.mark.slow
def test_an_estimate_or_a_model_serves_as_prior(guess, drawn):
    first = NoiseLearner(guess).update(events_of(drawn[0], 100_000)).estimate("channels")
    few = events_of(drawn[0], 200, seed=9)
    cold = NoiseLearner(guess).update(few).estimate("channels")
    for prior in (first, first.dem):
        warm = NoiseLearner(guess).update(few).estimate("channels", prior)
        assert log_error(warm, drawn[0]) < log_error(cold, drawn[0])
    other = memory(CircuitNoise.uniform(0.004), rounds=4).detector_error_model()
    with pytest.raises(QecError, match="other error mechanisms"):
        NoiseLearner(guess).update(few).estimate("channels", other)


def test_lines_of_one_symptom_share_their_rate():
    dem = stim.DetectorErrorModel("""
        error(0.01) D0 ^ D1 L0
        error(0.03) D0 D1 L0
        error(0.02) D0
        error(0.02) D1
        error(0.1) L0
        error(0.03) D0 D1
    """)
    structure = ErrorStructure.of(dem)
    assert structure.num_mechanisms == 3
    doubled = structure.to_dem(2 * structure.x)
    x = [-np.log1p(-2 * line.args_copy()[0]) for line in doubled if line.type == "error"]
    # Also those that differ in the observable, which detection events do not tell apart.
    assert x[0] + x[1] + x[5] == pytest.approx(2 * structure.x[2])
    assert x[1] / x[0] == pytest.approx(np.log1p(-0.06) / np.log1p(-0.02))
    assert x[5] == pytest.approx(x[1])
    assert doubled[4] == dem[4]  # no detector sees it
    learned = learn_noise(dem, np.packbits(np.eye(3, 2, dtype=bool), axis=1, bitorder="little"))
    assert learned.num_errors == 6
    with pytest.raises(QecError, match="finite"):
        structure.to_dem(np.full(3, np.nan))


def test_detectors_that_tell_nothing_are_named(guess, drawn):
    events = events_of(drawn[0], 20_000)
    dead = np.array(events)
    dead[:, 0] &= 0xF7
    with pytest.warns(UserWarning, match=r"D3 .* never fire"):
        estimate = NoiseLearner(guess).update(dead).estimate()
    assert np.isfinite(estimate.x).all()
    always = np.array(events)
    always[:, 1] |= 4
    with pytest.warns(UserWarning, match=r"D10 .*half of the time"):
        estimate = NoiseLearner(guess).update(always).estimate()
    assert (estimate.x > 0).all()
    assert np.isfinite(estimate.x).all()


def test_events_that_the_structure_cannot_explain_are_reported(guess, drawn):
    events = np.unpackbits(events_of(drawn[0], 20_000), axis=1, bitorder="little")[:, :120]
    swapped = np.packbits(np.roll(events, 37, axis=1), axis=1, bitorder="little")
    with pytest.warns(UserWarning, match="structure cannot explain"):
        NoiseLearner(guess).update(swapped).estimate()


def test_bad_input_is_refused(guess):
    events = events_of(guess, 100)
    with pytest.raises(QecError, match="120 detectors"):
        learn_noise(guess, events[:, :14])
    with pytest.raises(QecError, match="method='magic' is unknown"):
        learn_noise(guess, events, method="magic")
    with pytest.raises(QecError, match="no detection events"):
        NoiseLearner(guess).estimate()
    with pytest.raises(QecError, match="0 or 1"):
        learn_noise(guess, np.full((5, 120), 2, dtype=np.uint8))
    with pytest.raises(QecError, match="give a stim circuit or model"):
        learn_noise("memory.stim", events)
    with pytest.raises(QecError, match="1/2 or more"):
        learn_noise(stim.DetectorErrorModel("error(0.5) D0 L0"), np.zeros((3, 1), np.uint8))
    with pytest.raises(QecError, match="no mechanism"):
        learn_noise(stim.DetectorErrorModel("error(0.1) L0"), np.zeros((3, 1), np.uint8))
    with pytest.raises(QecError, match="by='qubit'"):
        vary(guess, 0.5, np.random.default_rng(0), by="qubit")


@pytest.mark.slow
def test_drift_is_followed_and_a_jump_raises_the_alarm():
    tracker = DriftTracker(memory(CircuitNoise.uniform(0.005), 3, 3), half_life=20_000)
    looks = []
    for k, p in enumerate([0.004] * 4 + [0.008] * 4):
        looks.append(tracker.push(events_of(memory(CircuitNoise.uniform(p), 3, 3), 10_000, k)))
    # The alarm's false-failure probability is 1e-6 per look by construction.
    assert [bool(len(look.changed)) for look in looks] == [False] * 4 + [True] + [False] * 3
    total = [look.estimate.x.sum() / look.estimate.structure.x.sum() for look in looks]
    assert total[3] == pytest.approx(0.8, rel=0.05)
    assert total[7] == pytest.approx(1.6, rel=0.05)
    assert looks[-1].shots == 80_000
    with pytest.raises(QecError, match="half_life"):
        DriftTracker(memory(CircuitNoise.uniform(0.005), 3, 3), half_life=0)
