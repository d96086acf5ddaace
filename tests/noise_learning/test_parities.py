"""Parities of detection events, and the exact map from them to the rates of all mechanisms."""

import itertools

import numpy as np
import pytest
import stim
from hypothesis import given
from hypothesis import strategies as st

from qec.noise_learning.error_structure import ErrorStructure
from qec.noise_learning.parities import BLOCKS, ParityAccumulator, SubsetFamily
from qec.noise_learning.rates_from_parities import RatesFromParities
from qec.support.errors import QecError


def exact_logs(structure, family):
    """-ln E[prod_S (-1)^d]: the sum of x over mechanisms that flip an odd number of S."""
    overlap = (family.as_sparse() @ structure.sets.T.astype(float)).toarray()
    return (overlap % 2) @ structure.x


detector_sets = st.sets(st.integers(0, 5), min_size=1, max_size=5)


@given(
    st.lists(
        st.tuples(detector_sets, st.floats(1e-4, 0.3)),
        min_size=1,
        max_size=12,
        unique_by=lambda mechanism: tuple(sorted(mechanism[0])),
    )
)
@pytest.mark.slow
def test_rates_follow_exactly_from_exact_parities(mechanisms):
    dem = stim.DetectorErrorModel("logical_observable L0\ndetector D5")
    for detectors, p in mechanisms:
        dem.append("error", p, [stim.target_relative_detector_id(k) for k in sorted(detectors)])
    structure = ErrorStructure.of(dem)
    inversion = RatesFromParities(structure)
    found = inversion.from_moments @ exact_logs(structure, inversion.family)
    assert found == pytest.approx(structure.x, abs=1e-9)


def test_the_worked_example():
    """Detectors a, b and c: the parities of all sets, and the rates that follow."""
    rates = {"D0": 0.03, "D0 D1": 0.02, "D0 D1 D2": 0.01}
    lines = [f"error({float(1 - np.exp(-x)) / 2}) {detectors}" for detectors, x in rates.items()]
    lines.append("logical_observable L0")
    structure = ErrorStructure.of(stim.DetectorErrorModel("\n".join(lines)))
    inversion = RatesFromParities(structure)
    by_hand = {(0,): 6, (1,): 3, (2,): 1, (0, 1): 3, (0, 2): 5, (1, 2): 2, (0, 1, 2): 4}
    logs = np.zeros(len(inversion.family))
    for detectors, hundredths in by_hand.items():
        logs[inversion.family.find(np.array([detectors]))] = hundredths / 100
    assert logs == pytest.approx(exact_logs(structure, inversion.family))
    assert inversion.from_moments @ logs == pytest.approx([0.03, 0.02, 0.01])


def test_rates_follow_exactly_from_exact_parities_of_a_surface_code(our_circuit):
    structure = ErrorStructure.of(our_circuit(5, 5, "X"))
    inversion = RatesFromParities(structure)
    found = inversion.from_moments @ exact_logs(structure, inversion.family)
    assert found == pytest.approx(structure.x, abs=1e-12)
    assert inversion.learnable.all()


def test_mechanisms_of_too_many_detectors_are_left_alone():
    targets = " ".join(f"D{k}" for k in range(8))
    dem = stim.DetectorErrorModel(f"error(0.1) {targets}\nerror(0.2) D0 D1 L0")
    inversion = RatesFromParities(ErrorStructure.of(dem))
    assert inversion.learnable.tolist() == [True, False]
    assert len(inversion.family) == 8 + 1


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_parities_are_those_of_the_shots(shots, seed):
    rng = np.random.default_rng(seed)
    events = rng.random((shots, 11)) < 0.3
    groups = [np.array([[0, 3], [2, 10]]), np.array([[1, 4, 7, 9]])]
    family = SubsetFamily.closure(groups, 11)
    packed = np.packbits(events, axis=1, bitorder="little")
    accumulator = ParityAccumulator(family).update(packed)
    sets = [row for sets in family.sets for row in sets]
    naive = [np.prod(1 - 2 * events[:, row].astype(int), axis=1).mean() for row in sets]
    assert accumulator.parities() == pytest.approx(np.array(naive))
    assert accumulator.shots == accumulator.effective_shots == shots
    weights, odd = accumulator.blocks()
    assert weights.sum() == shots
    assert odd.sum(axis=0) == pytest.approx(accumulator.odd.sum(axis=0))

    cut = shots // 3
    if cut:
        parts = [ParityAccumulator(family).update(p) for p in (packed[:cut], packed[cut:])]
        merged = parts[0].merge(parts[1])
        assert merged.parities() == pytest.approx(accumulator.parities())
        again = ParityAccumulator(family).update(packed[:cut]).update(packed[cut:])
        assert again.parities() == pytest.approx(accumulator.parities())


def test_a_family_holds_every_subset_once():
    family = SubsetFamily.closure([np.array([[1, 4, 6]]), np.array([[4, 6]])], 8)
    found = {tuple(row) for sets in family.sets for row in sets.tolist()}
    want = {s for k in (1, 2, 3) for s in itertools.combinations((1, 4, 6), k)}
    assert found == want | {(k,) for k in range(8)}
    assert len(family) == len(found)
    assert family.find(np.array([[4, 6]])).tolist() == [8 + 2]


def test_forgotten_shots_weigh_less():
    family = SubsetFamily.closure([], 8)
    quiet, loud = np.zeros((640, 1), np.uint8), np.full((640, 1), 255, np.uint8)
    accumulator = ParityAccumulator(family).update(quiet).forget(0.25).update(loud)
    assert accumulator.parities() == pytest.approx(np.full(8, (0.25 - 1) / 1.25))
    assert accumulator.effective_shots == pytest.approx(640 * 1.25**2 / (1 + 0.25**2))


def test_the_variance_is_that_of_the_estimates(our_circuit):
    # 20 seeded repetitions; for a wrong formula the mean of chi^2 over 1679 mechanisms would leave
    # the band, whose chance by statistics alone is below 1e-6 (33,000 squared normal numbers).
    circuit = our_circuit(5, 5, "X", 0.006)
    structure = ErrorStructure.of(circuit)
    inversion = RatesFromParities(structure)
    sampler = circuit.compile_detector_sampler(seed=11)
    squares = []
    for _ in range(20):
        moments = inversion.accumulator().update(sampler.sample(20_000, bit_packed=True))
        rates, known = inversion.rates(moments)
        assert known.all()
        deviations = inversion.block_deviations(moments)
        variance = inversion.variance(structure.x, moments.effective_shots, deviations)
        squares.append((rates - structure.x) ** 2 / variance)
    for size in (1, 2, 3, 4):
        assert 0.8 < np.mean(squares, axis=0)[structure.size == size].mean() < 1.2


def test_shots_of_another_experiment_are_refused():
    accumulator = ParityAccumulator(SubsetFamily.closure([], 11))
    for wrong in (np.zeros((3, 11), np.uint8), np.zeros((0, 2), np.uint8), np.zeros((3, 2), bool)):
        with pytest.raises(QecError, match="bit-packed"):
            accumulator.update(wrong)
    with pytest.raises(QecError, match="no detection events"):
        accumulator.parities()
    with pytest.raises(QecError, match="different detector sets"):
        accumulator.merge(ParityAccumulator(SubsetFamily.closure([], 12)))
    assert len(accumulator.weight) == BLOCKS
