"""Corrections, what they weigh jointly, and their synthesis, against exhaustive search."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import stim
from hypothesis import given, settings
from hypothesis import strategies as st

from qec.circuits.error_model import Mechanisms
from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.decoding.cascade import Cascade
from qec.matching.ensemble import Ensemble
from qec.matching.joint_weight import EdgeModel, Weights
from qec.matching.matcher import Matcher, basis_split
from qec.matching.matching_synthesis import combine


def test_the_worked_example() -> None:
    """A row of three detectors, edges of 2 nats, and events at the first two."""
    none = np.zeros(0, dtype=np.int64)
    model = SimpleNamespace(
        ends=np.array([[0, 3], [0, 1], [1, 2], [2, 3]]),
        flips=np.array([0, 0, 0, 1], dtype=np.uint8),
        weights=Weights(np.full(4, 2.0), np.zeros(5, dtype=np.int64), none, none.astype(float)),
    )
    proposals = np.array([[[False, True, False, False]], [[True, False, True, True]]])
    found = combine(model, proposals)
    assert found.weight[:, 0].tolist() == [2, 6]
    assert found.flips.tolist() == [0]
    assert found.confidence == pytest.approx([4])


def _sampled(circuit: stim.Circuit, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    sampler = circuit.compile_detector_sampler(seed=seed)
    dets, obs = sampler.sample(shots, separate_observables=True)
    return dets.view(np.uint8), obs[:, 0].view(np.uint8)


def _events(model: EdgeModel, corrections: np.ndarray) -> np.ndarray:
    """bool (B, E) -> uint8 (B, num_detectors), the detection events of corrections."""
    events = np.zeros((len(corrections), model.num_detectors + 1), dtype=np.uint8)
    shot, edge = np.nonzero(corrections)
    for side in (0, 1):
        np.bitwise_xor.at(events, (shot, model.ends[edge, side]), 1)
    return events[:, :-1]


def _weights(model: EdgeModel, corrections: np.ndarray) -> np.ndarray:
    """float64 (B,), the joint weights of corrections, each of one shot."""
    return combine(model, corrections[None]).weight.min(axis=0)


def _perturbed(model: EdgeModel, seed: int, members: int, dets: np.ndarray) -> np.ndarray:
    """bool (members, B, E)."""
    rng = np.random.default_rng(seed)
    factors = np.exp(rng.standard_normal((members, model.num_mechanisms)))
    return np.stack([model.matcher(f).decode_all(dets) for f in factors]).view(np.bool_)


@pytest.fixture(scope="module")
def small(our_circuit):
    """d = 3, R = 2: few enough detectors to search all errors."""
    circuit = our_circuit(3, 2, "Z", 0.02)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    return circuit, lattice, EdgeModel(lattice)


@pytest.fixture(scope="module")
def lightest(small) -> np.ndarray:
    """float64 (2^(n+1),): weight of the likeliest error with each syndrome and logical flip.

    Index: sum of 2^detector, and 2^n for the observable.
    """
    table = small[1].mechanisms
    n = table.num_detectors
    symptom = table.flips_observable.astype(np.int64) << n
    np.bitwise_xor.at(symptom, table.mechanism, 1 << table.detector.astype(np.int64))
    found = np.full(2 << n, np.inf)
    found[0] = 0
    everything = np.arange(2 << n)
    for flip, p in zip(*_combined(symptom, table.probability), strict=True):
        found = np.minimum(found, found[everything ^ flip] + np.log((1 - p) / p))
    return found


def _combined(what: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mechanisms that do the same, as one each (a decomposed model has several lines for some)."""
    what, which = np.unique(what, axis=0, return_inverse=True)
    parity = np.zeros(len(what))
    np.add.at(parity, which.ravel(), np.log1p(-2 * probability))
    return what, -np.expm1(parity) / 2


def _index(dets: np.ndarray, logical: np.ndarray | int) -> np.ndarray:
    n = dets.shape[1]
    return dets.astype(np.int64) @ (1 << np.arange(n)) + (np.int64(logical) << n)


@pytest.mark.parametrize("basis", ["X", "Z"])
def test_members_tell_their_corrections(our_circuit, basis) -> None:
    circuit = our_circuit(5, 4, basis, 0.01)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    dets, _ = _sampled(circuit, 500, seed=1)
    model = EdgeModel(lattice)
    corrections = model.matcher().decode_all(dets).view(np.bool_)
    np.testing.assert_array_equal(_events(model, corrections), dets)
    plain = Matcher(basis_split(lattice), correlated=True)
    np.testing.assert_array_equal((corrections @ model.flips) & 1, plain.decode_batch(dets))
    graph = {
        tuple(sorted((a, model.num_detectors if b is None else b)))
        for a, b, _ in plain.graph.edges()
    }
    assert {tuple(ends) for ends in model.ends.tolist()} == graph


def test_a_joint_weight_is_that_of_single_errors_and_of_their_sums(small) -> None:
    """Of every mechanism by itself, and of two that have nothing to do with each other."""
    _, lattice, model = small
    table = Mechanisms.from_dem(basis_split(lattice))
    sets = np.zeros((len(table.probability), len(model.flips)), dtype=bool)
    sets[model._mechanism, model._edge] = True
    sets, probability = _combined(sets, table.probability)
    weight = np.log((1 - probability) / probability)
    alone = np.full(sets.shape[1], np.inf)
    single = sets.sum(axis=1) == 1
    alone[sets[single].argmax(axis=1)] = weight[single]
    assert np.isfinite(alone).all()
    assert not single.all()
    weight = np.minimum(weight, sets @ alone)  # two errors may be likelier than one for both
    np.testing.assert_allclose(_weights(model, sets), weight, atol=1e-5)
    assert _weights(model, np.zeros_like(sets)).max() == 0

    near = {}  # edges that share a pair with an edge
    for mechanism in range(len(sets)):
        for edge in np.flatnonzero(sets[mechanism]):
            near.setdefault(edge, set()).update(np.flatnonzero(sets[mechanism]).tolist())
    rng = np.random.default_rng(2)
    compared = 0
    for a, b in rng.integers(len(sets), size=(3000, 2)):
        around = set().union(*(near[e] for e in np.flatnonzero(sets[a])))
        if not around & set(np.flatnonzero(sets[b]).tolist()):
            total = _weights(model, (sets[a] | sets[b])[None])[0]
            np.testing.assert_allclose(total, weight[a] + weight[b], atol=1e-5)
            compared += 1
    assert compared > 100


def test_no_correction_weighs_less_than_the_likeliest_error(small, lightest) -> None:
    circuit, _, model = small
    dets, _ = _sampled(circuit, 4000, seed=3)
    found = combine(model, _perturbed(model, 4, 15, dets))
    exact = np.stack([lightest[_index(dets, logical)] for logical in (0, 1)])
    there = np.isfinite(found.weight)
    assert (found.weight[there] >= exact[there] - 1e-4).all()
    best, optimum = found.weight.min(axis=0), exact.min(axis=0)
    assert (best < optimum + 1e-4).mean() > 0.97  # found exactly
    for logical in (0, 1):
        held = found.best[logical, there[logical]]
        np.testing.assert_array_equal(_events(model, held), dets[there[logical]])
        assert ((held @ model.flips & 1) == logical).all()
        np.testing.assert_allclose(_weights(model, held), found.weight[logical, there[logical]])
        assert not found.best[logical, ~there[logical]].any()


def test_counting_chances_decides_better_than_the_likeliest_error(small) -> None:
    """d = 3, R = 2: by the exact probability of both classes, summed over all errors."""
    circuit, lattice, model = small
    dets = np.unique(_sampled(circuit, 4000, seed=8)[0], axis=0)
    table = lattice.mechanisms
    n = table.num_detectors
    symptom = table.flips_observable.astype(np.int64) << n
    np.bitwise_xor.at(symptom, table.mechanism, 1 << table.detector.astype(np.int64))
    probability = np.zeros(2 << n)
    probability[0] = 1
    everything = np.arange(2 << n)
    for flip, p in zip(*_combined(symptom, table.probability), strict=True):
        probability = (1 - p) * probability + p * probability[everything ^ flip]
    zero, one = (probability[_index(dets, logical)] for logical in (0, 1))
    found = combine(model, _perturbed(model, 9, 31, dets))
    likeliest_error = found.weight[1] < found.weight[0]

    def lost(flips: np.ndarray) -> float:
        """By how much more often they are wrong than the likelier class."""
        return float(np.where(flips == (one > zero), 0, np.abs(one - zero)).sum())

    assert lost(found.flips) < 0.5 * lost(likeliest_error)
    assert lost(Ensemble(lattice).decode_batch(dets)) < 0.5 * lost(likeliest_error)
    plain = Matcher(basis_split(lattice), correlated=True)
    assert lost(likeliest_error) < 0.6 * lost(plain.decode_batch(dets))
    exact = np.abs(np.log(one) - np.log(zero))
    classes = model.matcher_of_classes()
    forced = np.stack([classes.decode_all(dets, c) for c in (0, 1)]).view(np.bool_)
    odds = combine(model, forced).confidence
    assert np.corrcoef(odds, exact)[0, 1] > 0.8
    assert np.abs(odds - exact).mean() < 1.5  # nats: chances of the other class go uncounted


def test_matching_of_a_class_keeps_events_and_class(our_circuit) -> None:
    circuit = our_circuit(5, 4, "X", 0.01)
    model = EdgeModel(SpaceTimeLattice.from_circuit(circuit))
    dets, _ = _sampled(circuit, 300, seed=2)
    classes = model.matcher_of_classes()
    for logical in (0, 1):
        found = classes.decode_all(dets, logical).view(np.bool_)
        np.testing.assert_array_equal(_events(model, found), dets)
        assert ((found @ model.flips & 1) == logical).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), p=st.sampled_from([0.005, 0.01, 0.02]))
@pytest.mark.slow
def test_what_is_put_together_keeps_events_and_class_and_is_lightest(our_circuit, seed, p) -> None:
    circuit = our_circuit(5, 5, "X", p)
    model = EdgeModel(SpaceTimeLattice.from_circuit(circuit))
    dets, _ = _sampled(circuit, 64, seed)
    proposals = _perturbed(model, seed, 3, dets)
    found = combine(model, proposals)
    proposed = np.array([_weights(model, proposal) for proposal in proposals])
    of_class = (proposals @ model.flips) & 1
    for logical in (0, 1):
        there = np.isfinite(found.weight[logical])
        held = found.best[logical]
        np.testing.assert_array_equal(_events(model, held[there]), dets[there])
        assert ((held[there] @ model.flips & 1) == logical).all()
        least = np.where(of_class == logical, proposed, np.inf).min(axis=0)
        assert (found.weight[logical] <= least + 1e-6).all()
    # The order of proposals, and proposals that are there twice, hardly matter.
    twice = combine(model, np.concatenate([proposals, proposals[::-1]]))
    assert (twice.weight <= found.weight + 1e-6).all()
    same = np.isclose(twice.confidence, found.confidence) | np.isinf(found.confidence)
    assert same.mean() > 0.8


def test_parts_far_apart_are_exchanged_one_by_one(our_circuit) -> None:
    """Of two heavy detours, one in each correction, neither survives; both count as chances."""
    lattice = SpaceTimeLattice.from_circuit(our_circuit(7, 7, "Z", 0.004))
    model = EdgeModel(lattice)
    silent = np.zeros((1, model.num_detectors), dtype=np.uint8)
    around = model.matcher().decode_all(silent).view(np.bool_)
    assert not around.any()
    loops = [around.copy(), around.copy()]
    for loop, start in zip(loops, (0, model.num_detectors - 1), strict=True):
        loop[0, _triangle(model, start)] = True
        assert not _events(model, loop).any()
    found = combine(model, np.stack(loops))
    assert not found.best.any()
    assert found.weight[0] == 0
    chances = sum(np.log1p(np.exp(-_weights(model, loop)[0])) for loop in loops)
    np.testing.assert_allclose(found.log_likelihood[0], chances)
    assert np.isinf(found.confidence).all()  # no proposal flips the observable


def _triangle(model: EdgeModel, start: int) -> list[int]:
    """Three edges that form a cycle through a detector."""
    n = model.num_detectors
    number = {tuple(ends): k for k, ends in enumerate(model.ends.tolist())}
    near = [b if a == start else a for a, b in number if start in (a, b) and n not in (a, b)]
    for u in near:
        for v in near:
            if (u, v) in number:
                pairs = [(start, u), (start, v), (u, v)]
                return [number[min(p), max(p)] for p in pairs]
    raise AssertionError("no triangle")


def test_ensemble_of_none_is_correlated_matching(our_circuit) -> None:
    circuit = our_circuit(3, 3, "Z", 0.02)
    dets, _ = _sampled(circuit, 2000, seed=10)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    full = Matcher(basis_split(lattice), correlated=True)
    np.testing.assert_array_equal(Ensemble(lattice, 0).decode_batch(dets), full.decode_batch(dets))


def test_ensemble_is_reproducible_and_the_same_in_any_batch(our_circuit, monkeypatch) -> None:
    circuit = our_circuit(5, 3, "Z", 0.015)
    dets, _ = _sampled(circuit, 1000, seed=11)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    whole, nats = Ensemble(lattice, 9).decode_with_confidence(dets)
    assert (nats >= 0).all()
    assert np.isfinite(nats).all()
    monkeypatch.setattr("qec.matching.ensemble._EDGES_PER_PASS", 20_000)
    again = Ensemble(lattice, 9)
    np.testing.assert_array_equal(again.decode_batch(dets), whole)
    np.testing.assert_array_equal(again.decode_with_confidence(dets)[1], nats)
    assert again.decode_batch(dets[:0]).shape == (0,)


@pytest.mark.slow
def test_ensemble_beats_correlated_matching(our_circuit) -> None:
    """Same shots; the seeds are fixed, so this is a check of the code, not of the statistics."""
    circuit = our_circuit(7, 7, "X", 0.008)
    dets, truth = _sampled(circuit, 4000, seed=12)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    plain = Matcher(basis_split(lattice), correlated=True)
    correlated = (plain.decode_batch(dets) != truth).sum()
    assert (Cascade(lattice, 15).decode_batch(dets) != truth).sum() < 0.9 * correlated


@pytest.mark.slow
def test_further_stages_are_asked_of_close_shots_only(our_circuit, monkeypatch) -> None:
    """Fixed seed: a check of the code, not of statistics."""
    circuit = our_circuit(5, 5, "X", 0.004)
    dets, _ = _sampled(circuit, 6000, seed=13)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    cascade, asked = Cascade(lattice, 9), []
    ensemble = Ensemble(lattice, 9)
    monkeypatch.setattr(
        cascade.last, "decode_batch", lambda d: asked.append(len(d)) or ensemble.decode_batch(d)
    )
    found, of_all = cascade.decode_batch(dets), ensemble.decode_batch(dets)
    assert 0 < sum(asked) < 0.25 * len(dets)
    assert (found != of_all).sum() <= 2
    uncorrelated = Matcher(basis_split(lattice), correlated=False).decode_batch(dets)
    assert (uncorrelated != of_all).sum() > 20


def test_a_cascade_decides_as_its_stages_do(our_circuit) -> None:
    circuit = our_circuit(5, 5, "Z", 0.008)
    dets, _ = _sampled(circuit, 3000, seed=14)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    cascade = Cascade(lattice)
    found, handed_on, nats = cascade.match_with_confidence(dets)
    np.testing.assert_array_equal(cascade.decode_batch(dets), found)
    memory = Matcher(basis_split(lattice), correlated=False).decode_batch(dets)
    correlated = Matcher(basis_split(lattice), correlated=True).decode_batch(dets)
    _, sure = cascade.memory.decide(dets, cascade.nats)
    np.testing.assert_array_equal(handed_on, ~sure)
    np.testing.assert_array_equal(found, np.where(sure, memory, correlated))
    assert 0.2 < sure.mean() < 0.9
    assert (nats >= 0).all()
    assert np.isfinite(nats).all()


def test_mechanisms_of_three_pieces_count_as_single_edges(our_circuit) -> None:
    dem = our_circuit(5, 4, "Z", 0.01).detector_error_model(decompose_errors=True)
    plain = EdgeModel(SpaceTimeLattice.from_dem(dem))
    inner = plain.ends[plain.ends[:, 1] < plain.num_detectors]
    chosen = inner[[0, len(inner) // 2, -1]].tolist()
    pieces = " ^ ".join(f"D{a} D{b}" for a, b in chosen)
    model = EdgeModel(
        SpaceTimeLattice.from_dem(dem + stim.DetectorErrorModel(f"error(0.2) {pieces}"))
    )
    np.testing.assert_array_equal(model.ends, plain.ends)
    edges = [model.ends.tolist().index(ends) for ends in chosen]
    one = np.eye(len(model.ends), dtype=bool)[edges]
    before, after = _weights(plain, one), _weights(model, one)
    x = -np.log1p(-2 / (1 + np.exp(before)))  # twice that of the edge alone, p = 1 / (1 + e^w)
    np.testing.assert_allclose(after, -np.log(np.tanh((x - np.log1p(-0.4)) / 2)), atol=1e-6)


def test_without_errors_in_both_bases_the_weight_is_the_sum() -> None:
    noise = CircuitNoise(idle_spam=(0.01, 0, 0.01), meas_x=0.01, meas_z=0.01)
    circuit = memory_circuit(RotatedSurfaceCode(3), noise, 3, "X")
    lattice = SpaceTimeLattice.from_circuit(circuit)
    model = EdgeModel(lattice)
    dets, _ = _sampled(circuit, 500, seed=15)
    assert not len(model.weights.partner)
    matcher = Matcher(basis_split(lattice), correlated=False)
    _, weights = matcher.graph.decode_batch(dets, return_weights=True)
    corrections = model.matcher().decode_all(dets).view(np.bool_)
    np.testing.assert_allclose(_weights(model, corrections), weights, atol=0.1)
