"""Decoders of other packages in sweeps; what needs a package is skipped where it is missing."""

import importlib.machinery
import pickle
import sys
import tomllib
import types
from pathlib import Path

import numpy as np
import pytest
import stim

from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.cli.commands import main
from qec.decoding.decoder import Decoder, named_decoder
from qec.decoding.decoder_names import DECODER_NAMES, DECODERS, PEERS
from qec.decoding.peers import FUSION_BLOSSOM_STEPS, fusion_blossom_solver, in_stabilizer_frame
from qec.evaluation.frontier import plot_frontier
from qec.evaluation.paired_sampler import PairedSampler
from qec.evaluation.sweep_table import rows_of
from qec.matching.complementary_gap import GapMatcher
from qec.matching.matcher import MemoryMatcher, basis_split, matching_graph
from qec.sinter_plugin import sinter_decoders
from qec.support.errors import QecError

ROOT = Path(__file__).parents[2]
SLOW = ("tesseract", "tesseract-short-beam")


def module_of(name):
    return PEERS[name].replace("-", "_")


@pytest.fixture
def sample(our_circuit):
    """(distance, shots) -> model, detectors, flips of a circuit."""

    def make(distance, shots, p=0.006, basis="X"):
        circuit = our_circuit(distance, distance, basis, p)
        sampler = circuit.compile_detector_sampler(seed=11)
        dets, flips = sampler.sample(shots, separate_observables=True)
        return detector_error_model(circuit), dets.view(np.uint8), flips[:, 0]

    return make


@pytest.fixture
def says_no_flip(monkeypatch):
    """A stand-in for a package that is not installed; returns the sizes of its batches."""
    sizes = []

    class BeliefMatching:
        def __init__(self, model):
            assert isinstance(model, stim.DetectorErrorModel)

        def decode_batch(self, shots):
            sizes.append(len(shots))
            return np.zeros((len(shots), 1), dtype=np.bool_)

    module = types.ModuleType("beliefmatching")
    module.__spec__ = importlib.machinery.ModuleSpec("beliefmatching", None)
    module.BeliefMatching = BeliefMatching
    monkeypatch.setitem(sys.modules, "beliefmatching", module)
    return sizes


def test_peers_are_in_the_table_and_in_the_extra():
    with_peer = {name for name, options in DECODERS.items() if options.get("peer") == name}
    assert with_peer == set(PEERS) == set(DECODERS) - set(DECODER_NAMES)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {line.split(">")[0] for line in project["optional-dependencies"]["peers"]}
    assert wanted == set(PEERS.values())
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert wanted <= pinned


def test_sinter_is_not_offered_them():
    assert not any(name in tagged for tagged in sinter_decoders() for name in PEERS)


@pytest.mark.parametrize("name", PEERS)
def test_a_missing_package_is_named_before_anything_runs(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module_of(name), None)
    assert main(["sweep", f"decoders=[pymatching,{name}]", f"out={tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err == (
        f"qec: error: decoder {name!r} needs the package {PEERS[name]}: "
        "pip install 'qec-predecoder[peers]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_options_of_matching_are_refused(sample):
    dem, *_ = sample(3, 1)
    for options in ({"correlated": True}, {"memory_only": True}, {"predecoder": "standard"}):
        with pytest.raises(QecError, match="peer='tesseract' decodes by itself"):
            Decoder.from_dem(dem, peer="tesseract", **options)


def test_a_peer_of_lattices_needs_one(sample, says_no_flip):
    dem, *_ = sample(3, 1)
    with pytest.raises(QecError, match="needs decomposition='css'"):
        Decoder.from_dem(dem, peer="beliefmatching", decomposition="stim")


def test_peers_get_the_shots_of_a_sweep_and_one_to_warm_up(our_circuit, says_no_flip):
    circuit = our_circuit(3, 3, "X", 0.006)
    names = ("pymatching-css", "beliefmatching")
    sampler = PairedSampler(names, "standard", batch=40, seed=3)
    point = (circuit, detector_error_model(circuit), {"d": 3, "r": 3})
    (task,) = sampler.tasks([point], max_shots=100)
    compiled = sampler.compiled_sampler_for_task(task)
    assert says_no_flip == [1]
    done = compiled.sample(100)
    assert done.shots == 40
    assert says_no_flip == [1, 40]
    counts = done.custom_counts
    assert counts["match_ns:beliefmatching"] > 0
    assert counts["events_left:beliefmatching"] == counts["events"]


def test_shots_that_a_peer_refuses_are_one_line(sample, says_no_flip, monkeypatch):
    dem, dets, _ = sample(3, 5)
    decoder = named_decoder("beliefmatching", dem)

    def refuse(self, shots):
        raise ValueError("no correction.\nof any kind")

    monkeypatch.setattr(sys.modules["beliefmatching"].BeliefMatching, "decode_batch", refuse)
    with pytest.raises(QecError, match=r"^beliefmatching refuses the shots: no correction\.$"):
        decoder.decode_batch(dets)


def test_peers_are_hollow_in_the_figure(our_circuit, says_no_flip, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "qec.evaluation.frontier.save_figure", lambda figure, *_: drawn.append(figure)
    )
    circuit = our_circuit(3, 3, "X", 0.006)
    metadata = {"d": 3, "r": 3, "p": 0.006, "b": "X", "noise": "uniform", "o": "ZV"}
    sampler = PairedSampler(("pymatching-css", "beliefmatching"), "standard", batch=400, seed=3)
    point = (circuit, detector_error_model(circuit), metadata)
    (task,) = sampler.tasks([point], max_shots=400)
    done = sampler.compiled_sampler_for_task(task).sample(400)
    stat = types.SimpleNamespace(
        strong_id="a",
        json_metadata=task.json_metadata,
        shots=done.shots,
        custom_counts=done.custom_counts,
    )
    plot_frontier(list(rows_of(stat)), tmp_path, "1 process on 2 cores")
    (legend,) = drawn[0].legends
    assert "Hollow: decoders of other packages." in legend.get_title().get_text().replace("\n", " ")
    handles, names = drawn[0].axes[0].get_legend_handles_labels()
    faces = {
        name: handle.lines[0].get_markerfacecolor()
        for name, handle in zip(names, handles, strict=True)
    }
    assert faces["beliefmatching"] == "white" != faces["pymatching-css"]


# With the packages -------------------------------------------------------------------------------


def discordant(wrong, reference):
    """Shots that only the first, and that only the second decodes wrongly."""
    return int((wrong & ~reference).sum()), int((reference & ~wrong).sum())


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_no_worse_than_uncorrelated_matching(name, sample):
    """All are meant to be as good or better.

    Of n shots that one of two equal decoders gets wrong, 5 sqrt(n) more than half go to one of
    them in 3e-7 of the runs.
    """
    pytest.importorskip(module_of(name))
    dem, dets, flips = sample(3, 1000 if name in SLOW else 4000)
    matching = (named_decoder("pymatching-css", dem).decode_batch(dets)[:, 0] != flips).copy()
    peer = named_decoder(name, dem)
    only_peer, only_matching = discordant(peer.decode_batch(dets)[:, 0] != flips, matching)
    assert matching.sum() > 10
    assert only_peer - only_matching <= 5 * np.sqrt(only_peer + only_matching)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(peer)).decode_batch(dets[:20]), peer.decode_batch(dets[:20])
    )


@pytest.mark.slow
def test_tesseract_beats_uncorrelated_matching(sample):
    """On 2000 such shots 48 were wrong by matching alone and 12 by Tesseract alone.

    Of 4000 shots a lead of 72 is expected, 6.6 of its standard deviations.
    """
    pytest.importorskip("tesseract_decoder")
    dem, dets, flips = sample(5, 4000)
    names = ("pymatching-css", "tesseract-short-beam-sparsify")
    matching, tesseract = (named_decoder(n, dem).decode_batch(dets)[:, 0] != flips for n in names)
    only_tesseract, only_matching = discordant(tesseract, matching)
    assert only_matching > only_tesseract


@pytest.mark.parametrize("name", [name for name in PEERS if PEERS[name] == "tesseract-decoder"])
def test_tesseract_reads_decomposed_hyperedges_whole(name, our_circuit):
    pytest.importorskip("tesseract_decoder")
    circuit = our_circuit(3, 3, "X", 0.01)
    dets = circuit.compile_detector_sampler(seed=5).sample(200).view(np.uint8)
    dem = detector_error_model(circuit)
    whole = stim.DetectorErrorModel(str(dem.flattened()).replace(" ^", ""))
    assert str(whole) != str(dem.flattened())
    wanted = named_decoder(name, whole).decode_batch(dets)
    np.testing.assert_array_equal(named_decoder(name, dem).decode_batch(dets), wanted)
    assert 0 < wanted.sum() < 200


def test_events_of_silent_detectors_mean_nothing(sample):
    pytest.importorskip("tesseract_decoder")
    dem, dets, _ = sample(3, 100)
    name = "tesseract-short-beam-sparsify"
    more = dem + stim.DetectorErrorModel(f"detector D{dem.num_detectors}")
    found = named_decoder(name, more).decode_batch(
        np.pad(dets, ((0, 0), (0, 1)), constant_values=1)
    )
    np.testing.assert_array_equal(found, named_decoder(name, dem).decode_batch(dets))


def test_fusion_blossom_finds_matchings_of_least_weight(sample):
    """As PyMatching's up to rounding, and the same flips but for ties."""
    module = pytest.importorskip("fusion_blossom")
    dem, dets, _ = sample(5, 1000)
    lattice = SpaceTimeLattice.from_dem(dem)
    solver, _ = fusion_blossom_solver(lattice)
    graph = MemoryMatcher(lattice).graph
    heaviest = max(data["weight"] for _, _, data in graph.edges())
    for events in dets[:100, lattice.memory_detectors]:
        solver.solve(module.SyndromePattern(np.flatnonzero(events).tolist()))
        found = solver.sum_dual_variables() / FUSION_BLOSSOM_STEPS * heaviest
        assert found == pytest.approx(graph.decode(events, return_weight=True)[1], abs=1e-3)
        solver.clear()

    gaps = GapMatcher(matching_graph(basis_split(lattice)), lattice)
    wanted, gap = gaps.decode_batch(dets)
    found = named_decoder("fusion-blossom", dem).decode_batch(dets)[:, 0]
    assert (gap[found != wanted] < 1e-3).all()
    assert 0 < found.sum() < len(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("stabilizer-qec", "pymatching-correlated-css"),
        ("stabilizer-qec-beliefmatching", "beliefmatching"),
    ],
)
def test_stabilizer_qec_predicts_what_the_originals_do(name, ours, sample):
    """But for ties: at most 5 of 1000 shots, none where measured."""
    pytest.importorskip("stabilizer_qec")
    if ours in PEERS:
        pytest.importorskip(module_of(ours))
    dem, dets, _ = sample(5, 1000)
    found, wanted = (named_decoder(n, dem).decode_batch(dets)[:, 0] for n in (name, ours))
    assert (found != wanted).sum() <= 5
    assert 0 < wanted.sum() < len(wanted)


@pytest.mark.parametrize("basis", ["X", "Z"])
@pytest.mark.parametrize("orientation", ["ZV", "ZH", "XV", "XH"])
def test_the_predecoder_of_stabilizer_qec_knows_all_edges(orientation, basis, our_circuit):
    """In another frame its network knows 8 to 11 of the 14 kinds of edges."""
    module = pytest.importorskip("stabilizer_qec")
    own = module.memory_circuit(distance=5, rounds=5, p=0.006)
    known = module.PreDecoder.pretrained(own.detector_error_model(decompose_errors=True)).kinds
    lattice = SpaceTimeLattice.from_circuit(our_circuit(5, 5, basis, 0.006, orientation))
    kinds = module.PreDecoder.pretrained(in_stabilizer_frame(lattice)).kinds
    assert sorted(map(tuple, kinds)) == sorted(map(tuple, known))
