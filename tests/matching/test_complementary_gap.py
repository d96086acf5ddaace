"""The logical gap against brute force, and the cascade that it decides."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pymatching
import pytest
import sinter
import stim
import torch
from scipy.sparse import csc_matrix

from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.circuits.patch import MEMORY
from qec.decoding.cascade import Cascade
from qec.decoding.decoder import Decoder, named_decoder
from qec.evaluation.paired_sampler import PairedSampler
from qec.matching.complementary_gap import GapMatcher, boundaries
from qec.matching.matcher import Matcher, MemoryMatcher, basis_split, graph_of, matching_graph
from qec.predecoder.checkpoint import save_predecoder
from qec.predecoder.model_fit import Fit
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.predecoder import Predecoder
from qec.support.errors import QecError


def test_the_worked_example():
    """A row of three detectors, whose observable is flipped by an edge inside."""
    u, v = np.array([0, 0, 1, 2]), np.array([-1, 1, 2, -1])
    flip = np.array([False, True, False, False])
    side, far = boundaries(3, u, v, flip)
    assert side.tolist() == [False, True, True]
    assert far.tolist() == [False, False, False, True]
    layers = np.zeros(3, dtype=np.int64)
    lattice = SimpleNamespace(
        num_detectors=3, memory_detectors=np.arange(3), layer=layers, rounds=0
    )
    matcher = GapMatcher(graph_of(u, v, np.full(4, 2.0), flip), lattice)
    flips, gaps = matcher.decode_batch(np.array([[1, 0, 0]], dtype=np.uint8))
    assert flips.tolist() == [0]
    assert gaps == pytest.approx([4], abs=0.01)
    assert matcher.logical_weight == pytest.approx(8, abs=0.01)


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


def eager():
    """An untrained pre-decoder that commits arbitrary edges, some 14 a shot at d = R = 5."""
    torch.manual_seed(0)
    network = PreDecoderNetwork(width=8, layers=3)
    torch.nn.init.constant_(network.head.bias, 3.0)
    with torch.no_grad():
        network.head.weight *= 20
    return Predecoder(network, 0.7, name="eager")


@pytest.fixture
def fits_all(monkeypatch):
    """Decoders take networks that fit no error model, such as ``eager``."""
    monkeypatch.setattr(Fit, "fits", True)


@pytest.fixture(params=[Predecoder.null, eager])
def predecoded(request, our_circuit):
    """A circuit, its lattice, shots of it and what a pre-decoder makes of them."""
    circuit = our_circuit(5, 5, "X", 0.01)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    dets = circuit.compile_detector_sampler(seed=7).sample(2000).view(np.uint8)
    return circuit, lattice, dets, request.param().compile_for(lattice).apply(dets)


def test_in_all_doubt_a_cascade_is_correlated_matching(predecoded):
    """Whatever was committed: nothing of it stands."""
    circuit, lattice, dets, found = predecoded
    flips, handed_on = Cascade(lattice, nats=1e6).match(dets, found)
    assert handed_on.all()
    full = Decoder.from_circuit(circuit, correlated=True)
    np.testing.assert_array_equal(flips, full.decode_batch(dets)[:, 0])


def test_without_doubt_a_cascade_is_matching_of_the_residual(predecoded):
    _, lattice, dets, found = predecoded
    flips, handed_on = Cascade(lattice, nats=0.0).match(dets, found)
    assert not handed_on.any()
    plain = MemoryMatcher(lattice).decode_batch(found.residual) ^ found.committed
    np.testing.assert_array_equal(flips, plain)


def test_only_shots_whose_residual_leaves_doubt_are_handed_on(predecoded):
    circuit, lattice, dets, found = predecoded
    cascade = Cascade(lattice, nats=3.0)
    flips, handed_on = cascade.match(dets, found)
    assert 0.02 < handed_on.mean() < 0.98
    plain = MemoryMatcher(lattice).decode_batch(found.residual) ^ found.committed
    np.testing.assert_array_equal(flips[~handed_on], plain[~handed_on])
    full = Decoder.from_circuit(circuit, correlated=True).decode_batch(dets)[:, 0]
    np.testing.assert_array_equal(flips[handed_on], full[handed_on])
    graph = matching_graph(basis_split(lattice))
    _, gaps = GapMatcher(graph, lattice, searched=False).decode_batch(found.residual)
    assert handed_on[gaps < 2.9].all()  # nats: PyMatching rounds
    assert handed_on[gaps > 3.1].mean() < 0.1  # of which it cannot be certain so quickly


@pytest.mark.usefixtures("fits_all")
def test_handing_on_can_be_switched_off(our_circuit):
    circuit = our_circuit(5, 5, "X", 0.01)
    dets = circuit.compile_detector_sampler(seed=8).sample(1000).view(np.uint8)
    shares = {}
    for cascade in (None, True, False):
        decoder = Decoder.from_circuit(circuit, predecoder=eager(), cascade=cascade)
        shares[cascade] = decoder.match(dets, decoder.predecode(dets)).handed_on.mean()
    assert shares[None] == shares[True] > 0
    assert shares[False] == 0


@pytest.mark.usefixtures("fits_all")
@pytest.mark.parametrize("predecoder", [None, Predecoder.null, eager])
@pytest.mark.parametrize("members", [0, 3])
def test_asking_a_cascade_for_confidence_changes_no_prediction(our_circuit, predecoder, members):
    circuit = our_circuit(5, 3, "Z", 0.01)
    options = {"predecoder": predecoder and predecoder(), "cascade": True, "members": members}
    decoder = Decoder.from_circuit(circuit, **options)
    dets = circuit.compile_detector_sampler(seed=9).sample(300).view(np.uint8)
    found = decoder.predecode(dets)
    matched, asked = (decoder.match(dets, found, confidence=asked) for asked in (False, True))
    np.testing.assert_array_equal(asked.flips, matched.flips)
    np.testing.assert_array_equal(asked.handed_on, matched.handed_on)
    assert matched.confidence is None
    assert (asked.confidence >= 0).all()
    assert np.isfinite(asked.confidence).all()


@pytest.mark.usefixtures("fits_all")
def test_events_that_matching_gets_are_counted(our_circuit, tmp_path):
    """Those of residuals, and for shots that are handed on those of the whole syndrome, too."""
    circuit = our_circuit(5, 5, "X", 0.01)
    path, predecoder = tmp_path / "eager.safetensors", eager()
    architecture = {"width": 8, "layers": 3}
    save_predecoder(path, predecoder.network.state_dict(), architecture, predecoder.threshold, {})
    dem = circuit.detector_error_model(decompose_errors=True)
    names = ("predecoder+pymatching", "predecoder+matching-cascade")
    task = sinter.Task(circuit=circuit, detector_error_model=dem, decoder=names[0])
    sampler = PairedSampler(names, str(path), 512).compiled_sampler_for_task(task)
    sampler.stim_sampler = circuit.compile_detector_sampler(seed=13)
    counts = sampler.sample(512).custom_counts
    dets = circuit.compile_detector_sampler(seed=13).sample(512).view(np.uint8)
    decides = SpaceTimeLattice.from_circuit(circuit).memory_detectors
    for name in names:
        decoder = named_decoder(name, dem, path)
        found = decoder.predecode(dets)
        handed_on = decoder.match(dets, found).handed_on
        assert handed_on.any() == ("cascade" in name)
        left = found.residual[:, decides].sum(dtype=int)
        left += dets[handed_on][:, decides].sum(dtype=int)
        assert counts[f"events_left:{name}"] == left
        assert counts[f"fallbacks:{name}"] == handed_on.sum()
    assert counts["events"] == dets[:, decides].sum(dtype=int)


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
