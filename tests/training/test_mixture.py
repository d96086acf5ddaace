"""What pre-decoders are trained on: labelled shots, and the error models of which they are."""

from __future__ import annotations

import collections
import functools
import re

import numpy as np
import pytest
import scipy.stats
import stim
import torch

from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.patch import MEMORY
from qec.circuits.surface_code import ORDERS, ORIENTATIONS, RotatedSurfaceCode
from qec.cli.config import load_config
from qec.predecoder.labelled_shots import LabelledSampler
from qec.support.errors import QecError
from qec.training import mixture
from qec.training.mixture import Source, cz_compiled, source_of
from qec.training.settings import TrainSettings

SOURCES = {
    "uniform": Source(distance=5, rounds=4, basis="X", noise="uniform", p=0.01),
    "other order": Source(
        distance=5, rounds=3, orientation="XH", basis="Z", order="along", noise="si1000", p=0.004
    ),
    "all at once": Source(
        distance=3, rounds=5, basis="X", noise="random", p=0.01, with_cz=True, spread=0.5, seed=3
    ),
    "one round": Source(distance=5, rounds=1, basis="Z", noise="stim", p=0.02),
}
each_source = pytest.mark.parametrize("name", SOURCES)


@functools.cache
def sampler_of(name: str) -> LabelledSampler:
    return LabelledSampler(SOURCES[name].lattice())


def settings(*words: str) -> TrainSettings:
    return TrainSettings.from_config(load_config("train", ["out=out/none", *words]))


def drawn(sampler: LabelledSampler, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Detection events (B, num_detectors), and fired edges (B, told)."""
    events, fired = sampler.sample(shots, seed)
    return events.numpy(), fired.movedim(1, -1).flatten(1).numpy()[:, sampler.grid.place]


# Labelled shots ----------------------------------------------------------------------------------


@each_source
def test_events_are_the_boundary_of_the_fired_edges(name) -> None:
    sampler = sampler_of(name)
    grid, lattice = sampler.grid, sampler.grid.lattice
    assert len(grid.predicted) == len(grid.edges.ends)
    events, fired = drawn(sampler, 500, seed=4)
    assert set(np.unique(fired)) == {0, 1}
    boundary = np.zeros((500, lattice.num_detectors + 1), dtype=np.uint8)
    for edge, (one, two) in enumerate(grid.edges.ends[grid.predicted]):
        boundary[:, one] ^= fired[:, edge]
        boundary[:, two] ^= fired[:, edge]  # the last column stands for boundaries
    memory = lattice.sector == MEMORY
    assert np.array_equal(boundary[:, :-1][:, memory], events[:, memory])
    assert events[:, ~memory].any() == (lattice.rounds > 1)


def test_nothing_is_put_where_nothing_is() -> None:
    sampler = sampler_of("uniform")
    grid = sampler.grid
    _, fired = sampler.sample(300, seed=1)
    assert not fired[:, ~grid.valid].any()
    assert torch.equal(grid.pack_edges(drawn(sampler, 300, seed=1)[1]), fired)


@each_source
def test_rates_are_those_of_the_error_model(name) -> None:
    """Exact binomial tails of fewer than 1000 rates in all, 1e-10 each: beyond six sigma."""
    sampler = sampler_of(name)
    edges, shots, parts = sampler.grid.edges, 20_000, 4
    counts = [np.zeros(sampler.grid.lattice.num_detectors), np.zeros(len(edges.ends))]
    for seed in range(parts):
        for total, found in zip(counts, drawn(sampler, shots, seed), strict=True):
            total += found.sum(axis=0)
    rates = sampler.grid.lattice.detection_rate, edges.probability
    for total, rate in zip(counts, rates, strict=True):
        binomial = scipy.stats.binom(parts * shots, rate)
        assert binomial.cdf(total).min() > 1e-10
        assert binomial.sf(total - 1).min() > 1e-10
        assert total.min() > 0


def test_shots_are_reproducible_by_seed() -> None:
    sampler = sampler_of("uniform")
    one, again, other = (sampler.sample(64, seed) for seed in (7, 7, 8))
    assert all(map(torch.equal, one, again))
    assert not any(map(torch.equal, one, other))
    twin = LabelledSampler(SOURCES["uniform"].lattice())
    assert all(map(torch.equal, one, twin.sample(64, 7)))


@pytest.mark.parametrize("name", ["uniform", "all at once"])
def test_shots_are_distributed_as_stims(name) -> None:
    """Parities of random detectors, and the observable: as often in all their combinations.

    A two-sample chi-squared test; false alarms have a probability of 1e-7.
    """
    sampler, shots = sampler_of(name), 40_000
    edges = sampler.grid.edges
    stims = detector_error_model(circuit_of(SOURCES[name])).compile_sampler(seed=2)
    dets, flips, _ = stims.sample(shots)
    events, fired = drawn(sampler, shots, seed=3)
    own_flips = (fired & edges.flips).sum(axis=1) % 2
    # Three detectors a parity: nearly every combination is there, and none prevails.
    rng = np.random.default_rng(1)
    chosen = [rng.choice(events.shape[1], 3, replace=False) for _ in range(6)]
    table = []
    for shown, observable in ((dets, flips[:, 0]), (events, own_flips)):
        bits = [observable, *(shown[:, one].sum(axis=1) % 2 for one in chosen)]
        number = np.sum([bit.astype(np.int64) << k for k, bit in enumerate(bits)], axis=0)
        table.append(np.bincount(number, minlength=1 << len(bits)))
    table = np.array(table)
    few = table.sum(axis=0) < 20
    table = np.column_stack([table[:, ~few], table[:, few].sum(axis=1)])
    assert table.shape[1] > 20
    assert scipy.stats.chi2_contingency(table[:, table.any(axis=0)]).pvalue > 1e-7


def test_mechanisms_of_any_probability_happen_as_often_as_they_say() -> None:
    """Also those that happen always, nearly always, and never."""
    dem = detector_error_model(circuit_of(SOURCES["one round"])).flattened()
    places = [k for k, item in enumerate(dem) if item.type == "error"][:4]
    odd = dict(zip(places, (1.0, 0.999, 0.6, 0.0), strict=True))
    changed = stim.DetectorErrorModel()
    for k, item in enumerate(dem):
        if k in odd:
            item = stim.DemInstruction("error", [odd[k]], item.targets_copy())
        changed.append(item)
    lattice = SpaceTimeLattice.from_dem(changed)
    events, _ = drawn(LabelledSampler(lattice), 50_000, seed=5)
    want = lattice.detection_rate
    z = (events.mean(axis=0) - want) / np.sqrt(want * (1 - want) / 50_000)
    assert abs(z).max() < 6  # 24 detectors with rates above 3 %: by chance in 5e-8 of seeds


# Error models ------------------------------------------------------------------------------------


def circuit_of(source: Source) -> stim.Circuit:
    """The circuit of a source without a file, by the same steps."""
    rng = np.random.default_rng(source.seed)
    if source.noise == "random":
        noise = mixture.draw_channels(source.p, rng)
    else:
        noise = CircuitNoise.named(source.noise, source.p)
    code = RotatedSurfaceCode(source.distance, source.orientation, source.order)
    circuit = memory_circuit(code, noise, source.rounds, source.basis)
    if source.with_cz:
        circuit = cz_compiled(circuit, source.p / 10)
    if source.spread:
        circuit = mixture.vary(circuit, source.spread, rng, by="site")
    return circuit


def same_model(one, two) -> bool:
    arrays = ("probability", "mechanism", "detector", "flips_observable")
    return all(
        np.array_equal(getattr(one.mechanisms, name), getattr(two.mechanisms, name))
        for name in arrays
    )


def test_a_source_is_one_model_and_its_seed_another() -> None:
    source = SOURCES["all at once"]
    assert same_model(source.lattice(), source.lattice())
    other = Source(**{**vars(source), "seed": 4})
    assert not same_model(source.lattice(), other.lattice())


def test_a_step_has_one_source_and_the_next_ones_others() -> None:
    wide = settings()
    sources = [source_of(wide, step) for step in range(200)]
    assert sources == [source_of(wide, step) for step in range(200)]
    assert 16 < len(set(sources)) <= 32  # a pool: by chance fewer are drawn in 1e-40 of seeds
    assert source_of(settings("seed=2"), 0) not in set(sources)
    later = {source_of(wide, step) for step in range(mixture._RENEWED, mixture._RENEWED + 200)}
    assert not later & set(sources)


def test_the_mixture_is_as_asked_for(monkeypatch) -> None:
    """Binomial counts of 4000 sources: each bound is off by chance in 1e-9 of seeds."""
    monkeypatch.setattr(mixture, "_RENEWED", 1)
    wide, many = settings("distances=[5,7,7]", "rounds=null", "with_cz=0.3", "spread=0.4"), 4000
    sources = [source_of(wide, step) for step in range(many)]

    def check(shown, share: float) -> None:
        count = sum(map(shown, sources))
        binomial = scipy.stats.binom(many, share)
        assert min(binomial.cdf(count), binomial.sf(count - 1)) > 1e-9

    check(lambda s: s.distance == 7, 2 / 3)
    check(lambda s: s.with_cz, 0.3)
    check(lambda s: s.spread == 0.4, 0.5)
    check(lambda s: s.basis == "X", 0.5)
    check(lambda s: s.order == "across", 3 / 5)
    check(lambda s: s.p < np.sqrt(0.001 * 0.01), 0.5)  # log-uniform
    for noise in ("uniform", "stim", "si1000", "random"):
        check(lambda s, noise=noise: s.noise == noise, 0.25)
    for orientation in ORIENTATIONS:
        check(lambda s, found=orientation: s.orientation == found, 0.25)
    assert all(s.rounds == s.distance and 0.001 <= s.p <= 0.01 for s in sources)
    assert {s.spread for s in sources} == {0, 0.4}
    assert {source_of(settings("rounds=2"), step).rounds for step in range(9)} == {2}


def test_every_kind_of_source_can_be_sampled(monkeypatch) -> None:
    monkeypatch.setattr(mixture, "_RENEWED", 1)
    small = settings("distances=[3,5]")
    for step in range(24):
        sampler = LabelledSampler(source_of(small, step).lattice())
        told, edges = sampler.grid.predicted, sampler.grid.edges
        assert edges.probability[told].sum() > 0.999 * edges.probability.sum()
        assert sampler.sample(64, step)[1].any()


def test_files_take_the_place_of_the_mixture(tmp_path, our_circuit) -> None:
    circuit = our_circuit(3, 2, "X", 0.02)
    circuit.to_file(tmp_path / "memory.stim")
    learned = detector_error_model(our_circuit(5, 2, "Z", 0.003))
    learned.to_file(tmp_path / "learned.dem")
    files = [str(tmp_path / name) for name in ("memory.stim", "learned.dem")]
    found = [source_of(settings(f"model_of=[{','.join(files)}]"), step) for step in range(40)]
    assert {source.file for source in found} == set(files)
    lattices = [Source(file=file).lattice() for file in files]
    assert [lattice.distance for lattice in lattices] == [3, 5]
    for lattice, made in zip(lattices, (circuit, our_circuit(5, 2, "Z", 0.003)), strict=True):
        events, _ = drawn(LabelledSampler(lattice), 50_000, seed=1)
        want = made.compile_detector_sampler(seed=1).sample(50_000).mean(axis=0)
        error = np.sqrt(2 * want * (1 - want) / 50_000)
        assert (abs(events.mean(axis=0) - want) < 6 * error).all()  # by chance in 2e-7 of seeds


def test_what_a_model_says_happens_mostly_is_taken_for_granted(tmp_path, our_circuit) -> None:
    """Decoders do so, too (``qec.circuits.error_model.at_most_half``): what is left is learned."""
    dem = detector_error_model(our_circuit(3, 2, "X", 0.01)).flattened()
    place = next(k for k, item in enumerate(dem) if item.type == "error")
    flipped = stim.DetectorErrorModel()
    for k, item in enumerate(dem):
        if k == place:
            item = stim.DemInstruction("error", [1 - item.args_copy()[0]], item.targets_copy())
        flipped.append(item)
    lattices = []
    for name, model in (("usual", dem), ("flipped", flipped)):
        model.to_file(tmp_path / f"{name}.dem")
        lattices.append(Source(file=str(tmp_path / f"{name}.dem")).lattice())
    np.testing.assert_allclose(lattices[0].detection_rate, lattices[1].detection_rate, rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("error(0.1) D0\n", "has 1 detectors and 0 observables"),
        ("error(0.1) D0 L0\n", "(x, y, t)"),
        ("not a model\n", "is not a"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message) -> None:
    (tmp_path / "own.dem").write_text(text)
    with pytest.raises(QecError, match=re.escape(message)):
        LabelledSampler(Source(file=str(tmp_path / "own.dem")).lattice())


# CZ gates ----------------------------------------------------------------------------------------


def made_of(circuit: stim.Circuit) -> collections.Counter:
    return collections.Counter(op.name for op in circuit.flattened())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("basis", ["X", "Z"])
def test_cz_circuits_are_the_same_experiment(order, basis) -> None:
    code = RotatedSurfaceCode(3, order=order)
    silent = memory_circuit(code, CircuitNoise(), 4, basis)
    compiled = cz_compiled(silent, 0.0)
    assert made_of(compiled)["CX"] == 0
    assert made_of(compiled)["CZ"] == made_of(silent)["CX"] > 0
    assert any(isinstance(op, stim.CircuitRepeatBlock) for op in compiled)
    assert compiled.get_detector_coordinates() == silent.get_detector_coordinates()
    assert detector_error_model(compiled).num_errors == 0  # Stim refuses what is not deterministic
    sampled = compiled.compile_detector_sampler(seed=1).sample(100, append_observables=True)
    assert not sampled.any()
    # A Hadamard gate turns a depolarising channel into itself.
    noise = CircuitNoise.uniform(0.01)
    with_cnots = memory_circuit(code, noise, 4, basis)
    assert symptoms(cz_compiled(with_cnots, 0.0)) == pytest.approx(symptoms(with_cnots), rel=1e-6)


def symptoms(circuit: stim.Circuit) -> dict[str, float]:
    """The probability of each of the model's mechanisms."""
    dem = circuit.detector_error_model().flattened()
    found: dict[str, float] = {}
    for item in dem:
        if item.type == "error":
            key = " ".join(sorted(map(str, item.targets_copy())))
            found[key] = found.get(key, 0.0) + item.args_copy()[0]
    return found


def test_noise_of_hadamard_gates_makes_errors_of_the_same_kinds_likelier() -> None:
    circuit = memory_circuit(RotatedSurfaceCode(3), CircuitNoise.uniform(0.01), 4, "Z")
    before, after = symptoms(circuit), symptoms(cz_compiled(circuit, 0.001))
    assert before.keys() == after.keys()
    # Stim's probabilities combine by parity, hence not above 1/2; here all are small.
    assert all(after[key] >= before[key] - 1e-12 for key in before)
    assert sum(after.values()) > 1.01 * sum(before.values())


# Orders of gates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("basis", ["X", "Z"])
def test_circuits_of_every_order_are_valid(order, orientation, basis) -> None:
    code = RotatedSurfaceCode(5, orientation, order)
    silent = memory_circuit(code, CircuitNoise(), 3, basis)
    assert detector_error_model(silent).num_errors == 0  # Stim refuses what is not deterministic
    noisy = memory_circuit(code, CircuitNoise.uniform(0.001), 3, basis)
    # Hooks along a logical halve the distance of its basis.
    halved = {"across": "", "as-x": "X", "as-z": "Z", "along": "XZ"}[order]
    assert len(noisy.shortest_graphlike_error()) == (3 if basis in halved else 5)
    assert noisy.num_detectors == silent.num_detectors == 24 * 3


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(QecError, match=r"order='up' is unknown: use across, as-x, as-z, along"):
        RotatedSurfaceCode(3, order="up")
