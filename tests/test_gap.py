"""The logical gap against brute force, and the fallback that it decides."""

from __future__ import annotations

import numpy as np
import pymatching
import pytest
import sinter
import stim
from scipy.sparse import csc_matrix

from qec.decoder import Decoder
from qec.errors import QecError
from qec.gap import GapMatcher
from qec.lattice import SpaceTimeLattice, detector_error_model
from qec.matching import Matcher, basis_split
from qec.paired import PairedSampler
from qec.patch import MEMORY
from qec.predecoder.checkpoint import load_predecoder, save_predecoder
from qec.predecoder.correction import Predecoder
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.rule import CommitRule, CommitRules, SecondLook
from qec.windows import WindowDecoder


def matcher_of(circuit, largest):
    lattice = SpaceTimeLattice.from_circuit(circuit)
    graph = Matcher(basis_split(lattice), correlated=False).graph
    return lattice, graph, GapMatcher(graph, lattice, largest)


def moved(circuit, by):
    """The circuit with its observable multiplied by the final outcomes of some detectors."""
    dem = detector_error_model(circuit)
    lines = []
    for line in dem.flattened():
        if line.type == "error":
            parts = []
            for group in line.target_groups():
                flip = sum(t.is_logical_observable_id() for t in group)
                flip += sum(t.is_relative_detector_id() and t.val in by for t in group)
                dets = [t for t in group if t.is_relative_detector_id()]
                parts.append(dets + [stim.target_logical_observable_id(0)] * (flip % 2))
            targets = []
            for part in parts:
                targets += [*part, stim.target_separator()]
            line = stim.DemInstruction("error", line.args_copy(), targets[:-1])
        lines.append(line)
    moved = stim.DetectorErrorModel()
    for line in lines:
        moved.append(line)
    return moved


def class_weights(graph, lattice, events):
    """Least weight of a matching of either logical class: the observable as one more detector."""
    n = lattice.num_detectors
    rows, cols, weights = [], [], []
    for k, (u, v, data) in enumerate(graph.edges()):
        ends = [u] + ([] if v is None else [v]) + ([n] if 0 in data["fault_ids"] else [])
        assert len(ends) <= 2  # Stim's observable lies on a boundary
        rows += ends
        cols += [k] * len(ends)
        weights.append(data["weight"])
    checks = csc_matrix((np.ones(len(rows), dtype=np.uint8), (rows, cols)))
    direct = pymatching.Matching.from_check_matrix(checks, weights=weights)
    both = []
    for side in (0, 1):
        syndrome = np.append(events, np.uint8(side))
        both.append(direct.decode(syndrome, return_weight=True)[1])
    return both


@pytest.mark.parametrize("basis", ["X", "Z"])
@pytest.mark.parametrize("largest", [0.3, 1.0])
def test_gap_is_the_difference_of_the_two_classes(stim_circuit, basis, largest):
    circuit = stim_circuit(5, 4, basis, 0.01)
    lattice, graph, matcher = matcher_of(circuit, largest)
    events = circuit.compile_detector_sampler(seed=3).sample(200).astype(np.uint8)
    flips, gaps = matcher.decode_batch(events)
    silent = (events[:, lattice.sector == MEMORY] == 0).all(axis=1)
    events[:, lattice.sector != MEMORY] = 0  # the other sector weighs the same in both classes
    for shot, flip, gap in zip(events, flips, gaps, strict=True):
        zero, one = class_weights(graph, lattice, shot)
        assert gap == pytest.approx(min(abs(one - zero), matcher.cap), abs=0.1)  # PyMatching rounds
        if abs(one - zero) > 0.1:
            assert flip == (one < zero)
    assert (gaps < matcher.cap).any()
    zero, one = class_weights(graph, lattice, np.zeros_like(events[0]))
    assert (zero, matcher.logical_weight) == (0, pytest.approx(one, abs=0.1))
    assert silent.sum() == 0 or (gaps[silent] == matcher.cap).all()


@pytest.mark.parametrize("rounds", [1, 2, 7])
@pytest.mark.parametrize("orientation", ["ZV", "XH"])
def test_predictions_are_those_of_matching(our_circuit, rounds, orientation):
    circuit = our_circuit(5, rounds, "Z", 0.02, orientation)
    _, graph, matcher = matcher_of(circuit, 0.4)
    events = circuit.compile_detector_sampler(seed=4).sample(2000).astype(np.uint8)
    flips, gaps = matcher.decode_batch(events)
    plain = graph.decode_batch(events)[:, 0]
    assert (flips != plain)[gaps > 0.2].sum() == 0
    assert 0 <= gaps.min() < gaps.max() <= matcher.cap


def test_an_observable_inside_the_patch_has_the_same_gaps(stim_circuit):
    circuit = stim_circuit(5, 5, "X", 0.01)
    lattice, _, matcher = matcher_of(circuit, 0.9)
    last = np.flatnonzero((lattice.sector == MEMORY) & (lattice.row == 2))
    by = {int(k) for k in last}  # all layers: their parity is the final value of these checks
    other = SpaceTimeLattice.from_dem(moved(circuit, by))
    assert (other.logical_support != lattice.logical_support).any()
    again = GapMatcher(Matcher(basis_split(other), correlated=False).graph, other, 0.9)
    events = circuit.compile_detector_sampler(seed=5).sample(500).astype(np.uint8)
    flips, gaps = matcher.decode_batch(events)
    others, same = again.decode_batch(events)
    np.testing.assert_allclose(gaps, same, atol=0.1)
    sure = gaps > 0.2
    parity = events[:, last].sum(axis=1) & 1
    np.testing.assert_array_equal((flips ^ parity)[sure], others[sure])


def test_an_observable_that_no_boundary_carries_is_refused(our_circuit):
    lattice, graph, _ = matcher_of(our_circuit(3, 3, "X", 0.01), 0.5)
    for u, v, data in graph.edges():
        if v is not None and lattice.sector[u] == MEMORY:
            graph.add_edge(u, v, {0}, data["weight"], merge_strategy="replace")
            break
    with pytest.raises(QecError, match=r"logical gap, .* is not defined"):
        GapMatcher(graph, lattice, 0.5)


def committing_nothing(rule):
    network = PreDecoderNetwork(width=8, layers=2)
    return Predecoder(network, CommitRules(rule, rule))


def test_fallback_on_all_doubt_is_correlated_matching(our_circuit):
    circuit = our_circuit(3, 3, "X", 0.02)
    dets = circuit.compile_detector_sampler(seed=6).sample(3000)
    everything = Decoder.from_circuit(circuit, predecoder=committing_nothing(CommitRule(1, 1.0)))
    full = Decoder.from_circuit(circuit, correlated=True)
    np.testing.assert_array_equal(everything.decode_batch(dets), full.decode_batch(dets))
    dets = dets.view(np.uint8)
    fell_back = everything.match(dets, everything.predecode(dets)).fell_back
    assert fell_back.mean() > 0.8  # all but those without events in the memory sector


def test_only_doubtful_shots_fall_back(our_circuit):
    circuit = our_circuit(5, 5, "X", 0.01)
    dets = circuit.compile_detector_sampler(seed=7).sample(3000).view(np.uint8)
    some = Decoder.from_circuit(circuit, predecoder=committing_nothing(CommitRule(1, 0.1)))
    matched = some.match(dets, some.predecode(dets))
    assert 0.02 < matched.fell_back.mean() < 0.5
    for correlated, chosen in ((True, matched.fell_back), (False, ~matched.fell_back)):
        expected = Decoder.from_circuit(circuit, correlated=correlated).decode_batch(dets)[:, 0]
        np.testing.assert_array_equal(matched.flips[chosen], expected[chosen])


@pytest.mark.slow
def test_a_second_look_decides_doubtful_shots(our_circuit):
    """By what more cautious commits leave, and by the whole where that leaves doubt, too."""
    circuit = our_circuit(5, 5, "X", 0.01)
    dets = circuit.compile_detector_sampler(seed=11).sample(4000).view(np.uint8)
    network = load_predecoder("fast").network

    def matched(rule):
        predecoder = Predecoder(network, CommitRules(rule, rule))
        decoder = Decoder.from_circuit(circuit, predecoder=predecoder)
        return decoder.match(dets, decoder.predecode(dets))

    both = matched(CommitRule(0.5, 0.02, second=SecondLook(0.9, 0.4, 0.2)))
    first, again = matched(CommitRule(0.5, 0.4)), matched(CommitRule(0.9, 0.2))
    assert not first.looked_again.any()
    np.testing.assert_array_equal(both.looked_again, first.fell_back)
    np.testing.assert_array_equal(both.fell_back, first.fell_back & again.fell_back)
    assert 0 < both.fell_back.sum() < both.looked_again.sum() < len(dets)
    expected = np.where(first.fell_back, again.flips, first.flips)
    np.testing.assert_array_equal(both.flips, expected)
    assert (first.flips != again.flips).any()


@pytest.mark.slow
def test_looks_that_differ_fall_back(our_circuit):
    circuit = our_circuit(5, 5, "X", 0.01)
    dets = circuit.compile_detector_sampler(seed=14).sample(4000).view(np.uint8)
    network = load_predecoder("fast").network

    def matched(rule, **options):
        predecoder = Predecoder(network, CommitRules(rule, rule))
        decoder = Decoder.from_circuit(circuit, predecoder=predecoder, **options)
        return decoder.match(dets, decoder.predecode(dets))

    bold, careful = matched(CommitRule(0.5)), matched(CommitRule(0.97))
    whole = matched(CommitRule(1.0))
    found, gap = matched(CommitRule(0.5, agree=(0.97, 1))), matched(CommitRule(0.5, 0.2))
    differ = (bold.flips != careful.flips) | (bold.flips != whole.flips)
    assert 0 < differ.mean() < 0.2
    np.testing.assert_array_equal(found.fell_back, differ)
    assert found.looked_again.all()
    np.testing.assert_array_equal(found.flips[~differ], bold.flips[~differ])
    correlated = Decoder.from_circuit(circuit, correlated=True).decode_batch(dets)[:, 0]
    np.testing.assert_array_equal(found.flips[differ], correlated[differ])
    both = matched(CommitRule(0.5, 0.2, agree=(0.97, 1)))
    np.testing.assert_array_equal(both.fell_back, differ | gap.fell_back)
    assert not matched(CommitRule(0.5, agree=(0.97,)), fallback=False).looked_again.any()
    lattice = SpaceTimeLattice.from_circuit(circuit)
    with pytest.raises(QecError, match="windows look once"):
        CommitRule(0.5, agree=(0.97,)).in_windows(lattice)
    assert CommitRule(0.5, agree=(0.97,)).in_windows(lattice, fallback=False) == CommitRule(0.5)


def test_a_rule_looks_at_all_shots_again_or_at_some():
    with pytest.raises(QecError, match="not both"):
        CommitRule(0.5, 0.1, second=SecondLook(0.9, 0.4, 0.2), agree=[0.9])
    with pytest.raises(QecError, match=r"threshold=0\.3"):
        CommitRule(0.5, agree=[0.3])


def test_second_looks_begin_at_their_first_distance(our_circuit):
    steps = [((7, 0.05, gap), (9, 0.05, gap)) for gap in (0.4, 0.2)]
    rule = CommitRule(0.5, 0.1, second=SecondLook(0.9, *steps))
    lattices = {d: SpaceTimeLattice.from_circuit(our_circuit(d, 2, "X", 0.01)) for d in (5, 7)}
    assert rule.on(lattices[5]) == CommitRule(0.5, 0.1)
    assert rule.on(lattices[7]) == CommitRule(0.5, 0.1, second=SecondLook(0.9, 0.4, 0.2))
    for options in ({"once": True}, {"fallback": False}):
        assert rule.on(lattices[7], **options).second is None


@pytest.mark.slow
def test_what_looks_once_has_the_gap_for_that(our_circuit):
    circuit = our_circuit(5, 5, "X", 0.01)
    dem = circuit.detector_error_model(decompose_errors=True)
    dets = circuit.compile_detector_sampler(seed=12).sample(1000).view(np.uint8)
    network = load_predecoder("fast").network
    once, twice = CommitRule(0.5, 0.1), CommitRule(0.5, 0.1, second=SecondLook(0.9, 0.4, 0.2))
    found = []
    for rule in (once, twice):
        predecoder = Predecoder(network, CommitRules(rule, rule))
        windows = WindowDecoder(dem, commit=2, buffer=2, predecoder=predecoder)
        decoder = Decoder.from_dem(dem, predecoder=predecoder)
        alone = decoder.predecode(dets)._replace(others=())  # as an exported graph tells it
        found.append((windows.decode_batch(dets), decoder.match(dets, alone)))
        off = Decoder.from_dem(dem, predecoder=predecoder, fallback=False)
        assert not off.falls_back
        assert not off.predecode(dets).others
    np.testing.assert_array_equal(found[0][0], found[1][0])
    for one, two in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(one, two)


def test_events_of_every_look_are_counted(our_circuit, tmp_path):
    circuit = our_circuit(5, 5, "X", 0.01)
    network, model = load_predecoder("fast").network, {"active_only": True}
    name = "predecoder+pymatching"
    counts, parts = {}, {}
    for label, rule in {
        "both": CommitRule(0.5, 0.02, second=SecondLook(0.9, 0.4, 0.2)),
        "first": CommitRule(0.5, 0.4),
        "again": CommitRule(0.9, 0.2),
    }.items():
        path = tmp_path / f"{label}.safetensors"
        save_predecoder(path, network.state_dict(), model, CommitRules(rule, rule), {})
        dem = circuit.detector_error_model(decompose_errors=True)
        task = sinter.Task(circuit=circuit, detector_error_model=dem, decoder=name)
        sampler = PairedSampler((name,), str(path), 512)
        compiled = sampler.compiled_sampler_for_task(task)
        seed = circuit.compile_detector_sampler(seed=13)
        compiled.stim_sampler = seed
        counts[label] = compiled.sample(512).custom_counts
        dets = circuit.compile_detector_sampler(seed=13).sample(512).view(np.uint8)
        decoder = Decoder.from_dem(dem, predecoder=path)
        parts[label] = decoder.predecode(dets), decoder.match(dets, decoder.predecode(dets)), dets
    (_, both, _), (first, once, dets), (again, _, _) = parts.values()
    decides = SpaceTimeLattice.from_circuit(circuit).sector == MEMORY
    first, again, dets = (part[:, decides] for part in (first.residual, again.residual, dets))
    expected = first.sum(dtype=int) + again[once.fell_back].sum(dtype=int)
    expected += dets[both.fell_back].sum(dtype=int)
    assert counts["both"][f"events_left:{name}"] == expected
    assert counts["both"][f"fallbacks:{name}"] == both.fell_back.sum()


@pytest.mark.parametrize("correlated", [False, True])
def test_fallback_can_be_switched_off(our_circuit, correlated):
    circuit = our_circuit(5, 5, "X", 0.01)
    dets = circuit.compile_detector_sampler(seed=8).sample(1000)
    predecoder = committing_nothing(CommitRule(1, 0.25))
    off = Decoder.from_circuit(
        circuit, predecoder=predecoder, correlated=correlated, fallback=False
    )
    plain = Decoder.from_circuit(circuit, correlated=correlated)
    np.testing.assert_array_equal(off.decode_batch(dets), plain.decode_batch(dets))


def test_correlated_decoders_fall_back_at_their_own_gap(our_circuit):
    circuit = our_circuit(5, 5, "X", 0.01)
    dets = circuit.compile_detector_sampler(seed=9).sample(2000).view(np.uint8)
    rules = CommitRules(CommitRule(1, 0.1), CommitRule(1, 0.4))
    predecoder = Predecoder(PreDecoderNetwork(width=8, layers=2), rules)
    counts = []
    for correlated in (False, True):
        decoder = Decoder.from_circuit(circuit, predecoder=predecoder, correlated=correlated)
        counts.append(decoder.match(dets, decoder.predecode(dets)).fell_back.sum())
    assert 0 < counts[0] < counts[1] < len(dets)


def test_gaps_follow_noise_and_distance(our_circuit):
    """Where it names one a rule has that gap; beyond, the nearest; between, a mixture."""
    lattices = [SpaceTimeLattice.from_circuit(our_circuit(5, 5, "X", p)) for p in (0.002, 0.008)]
    quiet, loud = (float(lattice.detection_rate.mean()) for lattice in lattices)
    assert quiet < loud
    rule = CommitRule(1, ((5, quiet, 0.4), (5, loud, 0.1), (9, quiet, 0.8)))
    assert [rule.on(lattice).gap for lattice in lattices] == pytest.approx([0.4, 0.1])
    middle = SpaceTimeLattice.from_circuit(our_circuit(5, 5, "X", 0.004))
    part = np.log(middle.detection_rate.mean() / quiet) / np.log(loud / quiet)
    assert rule.on(middle).gap == pytest.approx(0.4 - 0.3 * part)
    for distance, p, gap in ((5, 0.0005, 0.4), (5, 0.02, 0.1), (3, 0.02, 0.1), (11, 0.02, 0.8)):
        lattice = SpaceTimeLattice.from_circuit(our_circuit(distance, 2, "X", p))
        assert rule.on(lattice).gap == pytest.approx(gap)
    between = SpaceTimeLattice.from_circuit(our_circuit(7, 2, "X", 0.02))
    assert rule.on(between).gap == pytest.approx((0.1 + 0.8) / 2)

    circuit = our_circuit(5, 5, "X", 0.008)
    dets = circuit.compile_detector_sampler(seed=7).sample(1000).view(np.uint8)
    matched = []
    for gap in (rule.gap, 0.1):
        predecoder = committing_nothing(CommitRule(1, gap))
        decoder = Decoder.from_circuit(circuit, predecoder=predecoder)
        matched.append(decoder.match(dets, decoder.predecode(dets)))
    np.testing.assert_array_equal(matched[0].fell_back, matched[1].fell_back)
    assert matched[0].fell_back.any()


@pytest.mark.parametrize("spread", [0, 1])
def test_the_search_spares_second_matchings_and_changes_no_gap(our_circuit, spread):
    """On uniform weights, and on weights that vary by a factor of up to exp(spread)."""
    lattice = SpaceTimeLattice.from_circuit(our_circuit(7, 7, "X", 0.002))
    rng = np.random.default_rng(3)
    dem = stim.DetectorErrorModel()
    for line in basis_split(lattice).flattened():
        if line.type == "error":
            p = line.args_copy()[0] ** np.exp(spread * (rng.random() - 0.5))
            line = stim.DemInstruction("error", [p], line.targets_copy())
        dem.append(line)
    graph = pymatching.Matching.from_detector_error_model(dem)
    sampler = dem.compile_sampler(seed=4)
    events = sampler.sample(1000)[0].view(np.uint8) & (rng.random((1000, 1)) < 0.95)
    matcher = GapMatcher(graph, lattice, largest=0.4)
    plain = GapMatcher(graph, lattice, largest=0.4, searched=False)
    want_flips, want = plain.decode_batch(events)
    flips, gaps = matcher.decode_batch(events)
    np.testing.assert_array_equal(flips, want_flips)
    np.testing.assert_allclose(gaps, want, atol=1e-6)

    memory = np.ascontiguousarray(events[:, matcher._detectors])
    weights = matcher._either.decode_batch(memory, return_weights=True)[1]
    second = len(matcher._close(memory, weights, matcher.cap))
    needed = (want < plain.cap).sum()
    assert 50 < needed <= second
    assert second - needed < (0.03 if spread == 0 else 0.3) * (len(events) - needed)
