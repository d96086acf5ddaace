"""`qec realtime` on experiments that are short, or of which the model does not explain all."""

import functools
import pickle
from itertools import chain

import numpy as np
import pytest
import stim
from hypothesis import given
from hypothesis import strategies as st
from training_files import trained

from qec.circuits.lattice import detector_error_model
from qec.cli.commands import main
from qec.decoding.decoder import named_decoder
from qec.matching.matcher import matching_graph, unexplained
from qec.predecoder.checkpoint import load_predecoder
from qec.realtime.commit import in_one_process
from qec.realtime.plan import Plan, model_rounds
from qec.support.errors import QecError
from qec.windows.template import EDGE, ExperimentTemplate, Window
from qec.windows.window_decoder import (
    WINDOW_DECODERS,
    WindowDecoder,
    block_windows,
    parallel_windows,
)
from qec.windows.window_matcher import WindowCompiler


@functools.cache
def network():
    return load_predecoder(trained())


def decided(plan, shots):
    """What the processes of a run make of shots, uint8 (B,)."""
    layers = plan.reference.split(shots, plan.rounds)
    state, predecode, match = in_one_process(plan, layers.reshape(-1, layers.shape[-1]))
    predecode()
    match()
    return np.bitwise_xor.reduce(state.flip.reshape(len(shots), -1), axis=1)


def check(circuit, distance, rounds, name, shots=40):
    """A plan decodes as windows of the experiment itself, and one window as the whole history."""
    dem = detector_error_model(circuit)
    options = dict(WINDOW_DECODERS[name])
    if name.startswith("predecoder"):
        options["predecoder"] = trained()
    plan = Plan(str(dem), rounds, distance, distance, **options)
    plan = pickle.loads(pickle.dumps(plan))  # as the processes get it
    events = circuit.compile_detector_sampler(seed=rounds).sample(shots).view(np.uint8)
    found = decided(plan, events)
    if len(plan.windows) == 1:
        want = named_decoder(name, dem, network()).decode_batch(events)
    else:
        if options.get("predecoder"):
            options["predecoder"] = network()
        windows = WindowDecoder(dem, distance, distance, parallel=True, **options)
        want = windows.decode_batch(events)
    np.testing.assert_array_equal(found, want[:, 0])


@pytest.mark.parametrize("rounds", range(1, 21))
@pytest.mark.slow
def test_every_short_experiment_is_decoded(our_circuit, rounds):
    check(our_circuit(3, rounds, "X", 0.008), 3, rounds, "predecoder+pymatching")


@pytest.mark.parametrize(
    "name", ["pymatching-correlated-css", "matching-cascade", "predecoder+matching-cascade"]
)
@pytest.mark.parametrize("rounds", [1, 6, 9, 16])
@pytest.mark.slow
def test_short_experiments_are_decoded_by_other_decoders(our_circuit, rounds, name):
    check(our_circuit(3, rounds, "X", 0.008), 3, rounds, name)


@pytest.mark.parametrize(("distance", "rounds"), [*((5, r) for r in range(9, 14)), (7, 16)])
@pytest.mark.slow
def test_short_experiments_of_larger_codes_are_decoded(our_circuit, distance, rounds):
    name = "predecoder+pymatching"
    check(our_circuit(distance, rounds, "Z", 0.006), distance, rounds, name, shots=20)


@given(st.integers(2, 90), st.integers(1, 9), st.integers(2, 9), st.integers(0, 8))
def test_every_window_and_block_has_a_place(layers, commit, buffer, reach):
    """In the reference that is made for it: as far from the ends as in the experiment."""
    reference = ExperimentTemplate.__new__(ExperimentTemplate)
    reference.layers = min(layers, model_rounds(commit, buffer, reach) + 1)
    stages = parallel_windows(layers, commit, buffer)
    for window in chain(*stages, block_windows(stages, layers, reach)):
        place = reference.place(window, layers)
        assert place == window.shifted(place.start - window.start)
        assert min(place.start, EDGE) == min(window.start, EDGE)
        after = reference.layers - place.end
        assert min(after, EDGE) == min(layers - window.end, EDGE)


def test_one_window_needs_the_very_model(our_circuit):
    reference = ExperimentTemplate(detector_error_model(our_circuit(3, 9, "X")))
    with pytest.raises(QecError, match="3 rounds are one window"):
        reference.place(Window(0, 4, 0, 4), 4)


def test_a_model_too_short_for_the_blocks_is_refused_before_any_process_starts(our_circuit):
    """Long enough for the windows, but not for the network's reach."""
    dem = detector_error_model(our_circuit(3, model_rounds(3, 3, 0), "X"))
    plan = Plan(str(dem), 60, 3, 3, False, trained(), cascade=False)
    assert plan.windows
    with pytest.raises(QecError, match="are needed to cut windows"):
        plan.check()


def test_what_the_pre_decoder_refuses_is_one_line(monkeypatch, tmp_path, capsys):
    """Of the second decoder, too, before the first one runs."""

    def refuse(*_, **__):
        raise QecError("no such experiment")

    monkeypatch.setattr("qec.predecoder.predecoder.Predecoder.compile_for", refuse)
    decoders = "decoders=[pymatching-css,predecoder+pymatching]"
    assert (
        main(["realtime", "distance=3", "rounds=2", "shots=2", decoders, f"out={tmp_path}/a"]) == 2
    )
    assert capsys.readouterr().err == "qec: error: no such experiment\n"
    assert not (tmp_path / "a").exists()


@pytest.fixture
def sparse_noise():
    """A model with noise before rounds alone: the last layer's detectors have no mechanism."""
    options = {"distance": 3, "rounds": 3, "before_round_data_depolarization": 0.02}
    return stim.Circuit.generated("surface_code:rotated_memory_z", **options)


def test_windows_warm_up_with_events_that_have_a_matching(sparse_noise):
    reference = ExperimentTemplate(detector_error_model(sparse_noise))
    stages = parallel_windows(4, 1, 2)
    for correlated in (False, True):
        cutter = WindowCompiler(reference, correlated, itself=True)
        for window in chain(*stages):
            matcher = cutter.window(window, 4)
            assert matcher.typical.any()
            matcher.warm_up()


def test_events_that_are_only_made_in_pairs():
    """D0-D1 and D2-D3 are flipped in pairs, D4 also alone, D5 never: its events mean nothing."""
    lines = ["error(0.1) D0 D1", "error(0.1) D2 D3", "error(0.1) D4 L0", "detector D5"]
    graph = matching_graph(stim.DetectorErrorModel("\n".join(lines)))
    events = np.zeros((6, 6), dtype=np.uint8)
    events[[0, 1], [4, 5]] = 1
    events[1, :4] = 1
    assert unexplained(graph, events) is None
    events[[2, 5, 5], [3, 0, 2]] = 1
    assert unexplained(graph, events) == (2, [2, 3])
