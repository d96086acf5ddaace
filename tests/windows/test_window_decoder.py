"""Windows of rounds: schedules, seams, and what they cost against decoding the whole history."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from printed import listed_files

from qec.benchmarks import window_errors as windows
from qec.benchmarks import window_speed
from qec.circuits.error_model import Mechanisms
from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.cli.config import load_config
from qec.decoding.cascade import NATS
from qec.decoding.decoder import Decoder
from qec.matching.complementary_gap import GapMatcher
from qec.matching.matcher import basis_split, matching_graph
from qec.predecoder.model_fit import Fit
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.predecoder import Predecoder
from qec.predecoder.unit_cells import EDGE_CHANNELS, STEPS
from qec.support.errors import QecError
from qec.windows.template import Window
from qec.windows.window_decoder import (
    WINDOW_DECODERS,
    WindowDecoder,
    check_window_decoder,
    parallel_windows,
    sliding_windows,
)
from qec.windows.window_state import SimilarWindows


@pytest.fixture(scope="module")
def pairing():
    """A pre-decoder that commits the edges both of whose ends have events."""
    network = PreDecoderNetwork(width=2, layers=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        stem, head = (conv.weight.view(conv.shape) for conv in (network.stem, network.head))
        stem[[0, 1], [1, 2], 1, 1, 1] = 1  # the memory checks of even and of odd rows
        for channel in range(EDGE_CHANNELS):
            row, kind = divmod(channel, len(STEPS) + 1)
            for layer, rows, cols in ((0, 0, 0), *STEPS[kind : kind + 1]):
                y, other = divmod(row + rows, 2)
                head[channel, other, 1 + layer, 1 + y, 1 + (1 - row + cols) // 2] = 20
        network.head.bias.fill_(-25)  # one event of two is not enough
    return Predecoder(network, 0.5, name="pairing")


@pytest.fixture
def fits_all(monkeypatch):
    """Decoders take networks that fit no error model, such as ``pairing``."""
    monkeypatch.setattr(Fit, "fits", True)


@given(st.integers(2, 200), st.integers(1, 30), st.integers(2, 30), st.booleans())
def test_every_layer_is_committed_once(layers, commit, buffer, parallel):
    schedule = parallel_windows if parallel else sliding_windows
    stages = schedule(layers, commit, buffer)
    committed = []
    for stage in stages:
        for w in stage:
            assert 0 <= w.start <= w.core_start < w.core_end <= w.end <= layers
            committed += range(w.core_start, w.core_end)
    assert sorted(committed) == list(range(layers))
    if parallel:
        assert len(stages) <= 2
        for one, two in itertools.pairwise(stages[0]):
            assert two.core_start - one.core_end == buffer
            assert one.end >= one.core_end + buffer
            assert two.start <= two.core_start - buffer
    else:
        for (one,), (two,) in itertools.pairwise(stages):
            assert one.end == one.core_end + buffer
            assert two.start == one.core_end


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9), st.integers(1, 4), st.data())
def test_windows_that_are_alike_go_together(kinds, experiments, data):
    layers, n = 20, len(kinds)
    windows = [Window(2 * k, 2 * k + 3, 2 * k, 2 * k + 2) for k in range(n)]
    alike = SimilarWindows(windows, kinds, layers, experiments)
    everyone = st.integers(0, n * experiments - 1)
    numbers = np.array(data.draw(st.lists(everyone, unique=True)), dtype=np.int64)
    groups = list(alike.groups(numbers))
    assert len(groups) == len({kinds[k % n] for k in numbers})
    assert sorted(np.concatenate([some for _, some, _ in groups] or [[]])) == sorted(numbers)
    for one, some, first in groups:
        assert {kinds[k % n] for k in some} == {kinds[one]}
        np.testing.assert_array_equal(first, some // n * layers + 2 * (some % n))


@pytest.mark.parametrize("correlated", [False, True])
def test_a_window_over_everything_is_plain_matching(our_circuit, correlated):
    circuit = our_circuit(5, 5, "X", 0.008)
    dem = detector_error_model(circuit)
    shots = circuit.compile_detector_sampler(seed=1).sample(3000)
    whole = Decoder.from_dem(dem, correlated=correlated).decode_batch(shots)
    windows = WindowDecoder(dem, 9, 9, correlated=correlated)
    assert len(windows.stages) == 1
    assert np.mean(windows.decode_batch(shots) != whole) < 0.002  # but for ties


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize(("orientation", "basis"), [("ZV", "X"), ("XH", "Z")])
def test_single_mechanisms_are_decoded_as_in_the_whole_history(
    our_circuit, orientation, basis, parallel, correlated
):
    dem = detector_error_model(our_circuit(3, 14, basis, 0.003, orientation))
    table = Mechanisms.from_dem(dem)
    shots = np.zeros((len(table.probability), table.num_detectors), dtype=np.uint8)
    shots[table.mechanism, table.detector] = 1
    decoder = WindowDecoder(dem, 3, 3, parallel=parallel, correlated=correlated)
    assert len(decoder.stages) == (2 if parallel else 4)
    found = decoder.decode_batch(shots)
    # Correlated matching gets some single mechanisms at d = 3 wrong, whole or in windows.
    assert (found == Decoder.from_dem(dem, correlated=correlated).decode_batch(shots)).all()
    if not correlated:
        assert (found[:, 0] == table.flips_observable).all()
    packed = np.packbits(shots, axis=1, bitorder="little")
    assert (decoder.decode_batch(packed, bit_packed_shots=True) == found).all()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [False, True])
def test_windows_with_a_full_buffer_cost_next_to_nothing(our_circuit, parallel):
    # d = 3, 30 rounds, paired on 20,000 shots, seeded: about 4400 errors, of which windows with a
    # buffer of d change some 1 %.  5 % more would be ten standard deviations.
    circuit = our_circuit(3, 30, "Z", 0.004)
    dem = detector_error_model(circuit)
    shots, flips = circuit.compile_detector_sampler(seed=7).sample(
        20_000, separate_observables=True
    )
    whole = np.count_nonzero(Decoder.from_dem(dem).decode_batch(shots) != flips)
    windows = WindowDecoder(dem, 3, 3, parallel=parallel)
    errors = np.count_nonzero(windows.decode_batch(shots) != flips)
    assert whole > 1000
    assert errors < 1.05 * whole


def test_windows_of_the_bulk_share_their_graph(our_circuit):
    decoder = WindowDecoder(detector_error_model(our_circuit(3, 60, "X")), 3, 3)
    assert len(decoder._windows) > 15
    assert len({id(scheduled.matcher) for scheduled in decoder._windows}) < 8


class Always:
    """Doubts every window, or those that a coin says."""

    def __init__(self, doubt, chance):
        self.doubt, self.chance = doubt, chance
        self.whole, self.columns = doubt.whole, doubt.columns
        self.rng = np.random.default_rng(1)

    def about(self, closed):
        self.doubt.about(closed)
        return self.rng.random(len(closed)) < self.chance


def with_doubts(decoder, chance):
    decoder._windows = [
        dataclasses.replace(
            scheduled,
            matcher=dataclasses.replace(
                scheduled.matcher, doubt=Always(scheduled.matcher.doubt, chance)
            ),
        )
        for scheduled in decoder._windows
    ]
    return decoder


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("predecoder", [False, True])
@pytest.mark.usefixtures("fits_all")
def test_doubt_everywhere_is_correlated_matching(pairing, our_circuit, predecoder, parallel):
    """But for the checks that do not decide, which have no seams in a cascade."""
    circuit = our_circuit(3, 24, "X", 0.006)
    dem = detector_error_model(circuit)
    shots = circuit.compile_detector_sampler(seed=5).sample(300)
    plain = with_doubts(WindowDecoder(dem, 4, 3, parallel=parallel, cascade=True), 1)
    want = plain.decode_batch(shots)
    if predecoder:
        options = {"parallel": parallel, "predecoder": pairing}
        decoder = with_doubts(WindowDecoder(dem, 4, 3, **options), 1)
        np.testing.assert_array_equal(decoder.decode_batch(shots), want)
    else:
        correlated = WindowDecoder(dem, 4, 3, parallel=parallel, correlated=True)
        assert np.mean(correlated.decode_batch(shots) != want) < 0.02


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("basis", ["X", "Z"])
def test_belief_matching_corrects_single_mechanisms_in_windows(our_circuit, basis, parallel):
    dem = detector_error_model(our_circuit(5, 24, basis, 0.003))
    table = Mechanisms.from_dem(dem)
    shots = np.zeros((len(table.probability), table.num_detectors), dtype=np.uint8)
    shots[table.mechanism, table.detector] = 1
    decoder = WindowDecoder(dem, 4, 4, parallel=parallel, beliefs=True)
    assert (decoder.decode_batch(shots)[:, 0] == table.flips_observable).all()


def test_a_window_over_everything_is_belief_matching(our_circuit):
    circuit = our_circuit(5, 5, "Z", 0.008)
    dem = detector_error_model(circuit)
    shots = circuit.compile_detector_sampler(seed=1).sample(500)
    whole = Decoder.from_dem(dem, beliefs=True).decode_batch(shots)
    np.testing.assert_array_equal(WindowDecoder(dem, 9, 9, beliefs=True).decode_batch(shots), whole)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [False, True])
def test_belief_matching_loses_little_in_windows(our_circuit, parallel):
    # d = 3, 30 rounds, paired on 10,000 shots, seeded: about 1600 errors; windows change some 80
    # answers, either way.  6 % more errors would be ten standard deviations.
    circuit = our_circuit(3, 30, "X", 0.004)
    dem = detector_error_model(circuit)
    sampler = circuit.compile_detector_sampler(seed=8)
    shots, flips = sampler.sample(10_000, separate_observables=True)
    whole = np.count_nonzero(Decoder.from_dem(dem, beliefs=True).decode_batch(shots) != flips)
    windows = WindowDecoder(dem, 3, 3, parallel=parallel, beliefs=True)
    assert whole > 1000
    assert np.count_nonzero(windows.decode_batch(shots) != flips) < 1.06 * whole


@pytest.mark.parametrize("parallel", [False, True])
def test_a_network_that_commits_nothing_changes_nothing(our_circuit, parallel):
    circuit = our_circuit(3, 20, "X", 0.006)
    dem = detector_error_model(circuit)
    shots = circuit.compile_detector_sampler(seed=6).sample(300)
    for cascade in (False, True):
        plain, decoder = (
            WindowDecoder(dem, 4, 3, parallel=parallel, cascade=cascade, predecoder=network)
            for network in (None, Predecoder.null())
        )
        np.testing.assert_array_equal(decoder.decode_batch(shots), plain.decode_batch(shots))


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.usefixtures("fits_all")
def test_without_a_cascade_residuals_are_matched_in_windows(pairing, our_circuit, parallel):
    """All that a pre-decoder commits stands, seams included."""
    circuit = our_circuit(3, 20, "X", 0.004)
    dem = detector_error_model(circuit)
    shots = circuit.compile_detector_sampler(seed=6).sample(300).view(np.uint8)
    decoder = WindowDecoder(dem, 4, 3, parallel=parallel, predecoder=pairing, cascade=False)
    left = pairing.compile_for(SpaceTimeLattice.from_dem(dem)).apply(shots)
    assert left.residual.sum() < 0.7 * shots.sum()
    plain = WindowDecoder(dem, 4, 3, parallel=parallel)
    want = plain.decode_batch(left.residual)[:, 0] ^ left.committed
    np.testing.assert_array_equal(decoder.decode_batch(shots)[:, 0], want)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("basis", ["X", "Z"])
@pytest.mark.usefixtures("fits_all")
def test_seams_between_windows_that_fall_back_and_windows_that_do_not(
    pairing, our_circuit, basis, parallel
):
    # Mechanisms of the model, each by itself, in windows that fall back at random: a seam that its
    # two sides take differently leaves a lone event, which is matched to a boundary.
    dem = detector_error_model(our_circuit(5, 24, basis, 0.003))
    table = Mechanisms.from_dem(dem)
    shots = np.zeros((len(table.probability), table.num_detectors), dtype=np.uint8)
    shots[table.mechanism, table.detector] = 1
    decoder = with_doubts(WindowDecoder(dem, 4, 3, parallel=parallel, predecoder=pairing), 0.5)
    assert len(decoder._windows) == (7 if parallel else 6)
    found = decoder.decode_batch(shots[::30])[:, 0]
    assert (found == table.flips_observable[::30]).all()


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("basis", ["X", "Z"])
@pytest.mark.parametrize("chance", [None, 0.0, 0.5, 1.0])
def test_seams_between_the_stages_of_a_cascade(our_circuit, basis, parallel, chance):
    # Mechanisms of the model, each by itself.  The first stage hands on no seam of the checks that
    # do not decide; a lone event of these must not turn the second stage of the next window.
    dem = detector_error_model(our_circuit(5, 24, basis, 0.003))
    table = Mechanisms.from_dem(dem)
    shots = np.zeros((len(table.probability), table.num_detectors), dtype=np.uint8)
    shots[table.mechanism, table.detector] = 1
    decoder = WindowDecoder(dem, 4, 3, parallel=parallel, cascade=True)
    if chance is not None:
        decoder = with_doubts(decoder, chance)
    found = decoder.decode_batch(shots[::15])[:, 0]
    np.testing.assert_array_equal(found, table.flips_observable[::15])


@pytest.mark.parametrize("distance", [3, 5])
def test_one_window_is_the_cascade_and_has_the_gap_of_the_whole_history(our_circuit, distance):
    # SI1000 noise: hardly any two corrections weigh the same.
    dem = detector_error_model(circuit := our_circuit(distance, 6, "X", 0.006, noise="si1000"))
    shots = circuit.compile_detector_sampler(seed=1).sample(2000)
    decoder = WindowDecoder(dem, 9, 9, cascade=True)
    found, confidence = decoder.decode_batch(shots, return_confidence=True)
    assert confidence.shape == (2000, 1)
    lattice = SpaceTimeLattice.from_dem(dem)
    graph = matching_graph(basis_split(lattice))
    _, gaps = GapMatcher(graph, lattice, searched=False).decode_batch(shots.view(np.uint8))
    np.testing.assert_allclose(confidence[:, 0], gaps, atol=0.02)  # nats: PyMatching rounds
    assert np.count_nonzero(gaps < NATS) > 100
    whole = Decoder.from_dem(dem, cascade=True).decode_batch(shots)
    np.testing.assert_array_equal(found, whole)
    plain = Decoder.from_dem(dem).decode_batch(shots)
    assert (whole != plain).any()


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        *({}, {"correlated": True}, {"cascade": True}),
        *({"predecoder": True}, {"predecoder": True, "cascade": False}),
    ],
)
@pytest.mark.usefixtures("fits_all")
def test_asking_for_confidence_changes_no_prediction(pairing, our_circuit, parallel, options):
    if options.get("predecoder"):
        options = options | {"predecoder": pairing}
    circuit = our_circuit(3, 20, "Z", 0.006)
    dem = detector_error_model(circuit)
    shots = circuit.compile_detector_sampler(seed=2).sample(300)
    decoder = WindowDecoder(dem, 3, 3, parallel=parallel, **options)
    want = decoder.decode_batch(shots)
    found, confidence = decoder.decode_batch(shots, return_confidence=True)
    np.testing.assert_array_equal(found, want)
    assert confidence.shape == (300, len(decoder._windows))
    assert confidence.dtype == np.float64
    assert (confidence >= 0).all()
    quiet, sure = decoder.decode_batch(np.zeros_like(shots), return_confidence=True)
    assert not quiet.any()
    # Without events, the gap is the lightest logical operator: nothing has a larger one.
    assert (confidence <= sure + 0.02).all()


@pytest.mark.parametrize("parallel", [False, True])
def test_confident_windows_err_less(our_circuit, parallel):
    # d = 3, 20 rounds, 4000 shots, seeded.  About 80 are wrong of the 41 % with the largest least
    # gaps, about 510 of the others; half as many would be ten standard deviations off.
    circuit = our_circuit(3, 20, "Z", 0.004)
    shots, flips = circuit.compile_detector_sampler(seed=8).sample(4000, separate_observables=True)
    decoder = WindowDecoder(detector_error_model(circuit), 3, 3, parallel=parallel)
    found, confidence = decoder.decode_batch(shots, return_confidence=True)
    least = confidence.min(axis=1)
    wrong = (found != flips)[:, 0]
    sure = least > np.median(least)
    assert wrong[sure].sum() < 0.5 * wrong[~sure].sum()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [False, True])
def test_a_cascade_in_windows_is_as_good_as_correlated_matching(our_circuit, parallel):
    circuit = our_circuit(5, 15, "X", 0.006)
    dem = detector_error_model(circuit)
    shots, flips = circuit.compile_detector_sampler(seed=5).sample(6000, separate_observables=True)
    wrong = []
    for name in ("pymatching-css", "pymatching-correlated-css", "matching-cascade"):
        decoder = WindowDecoder(dem, 5, 5, parallel=parallel, **WINDOW_DECODERS[name])
        wrong.append(np.count_nonzero(decoder.decode_batch(shots) != flips))
    # Of the shots that correlated matching mends, the cascade mends three quarters at least: seven
    # standard deviations below what it does mend.
    plain, correlated, cascade = wrong
    assert plain > 1.2 * correlated
    assert plain - cascade > 0.75 * (plain - correlated)


@pytest.mark.slow
@pytest.mark.usefixtures("fits_all")
def test_windows_that_fall_back_are_those_in_doubt(pairing, our_circuit):
    # d = 5, 15 rounds, paired on 2500 shots, seeded.  About 590 errors where all commits stand, of
    # which the cascade mends more than half; 0.65 is six standard deviations above what is left.
    circuit = our_circuit(5, 15, "X", 0.006)
    dem = detector_error_model(circuit)
    shots, flips = circuit.compile_detector_sampler(seed=5).sample(2500, separate_observables=True)
    wrong = {}
    for cascade in (False, True):
        options = {"parallel": True, "predecoder": pairing, "cascade": cascade}
        decoder = WindowDecoder(dem, 5, 5, **options)
        wrong[cascade] = np.count_nonzero(decoder.decode_batch(shots) != flips)
    assert wrong[True] < 0.65 * wrong[False]


def test_bad_windows_and_shots_are_refused(our_circuit):
    dem = detector_error_model(our_circuit(3, 6, "X"))
    for commit, buffer, parallel in ((0, 3, False), (3, 0, False), (3, 1, True), (2.5, 3, False)):
        with pytest.raises(QecError, match="use an integer"):
            WindowDecoder(dem, commit, buffer, parallel=parallel)
    for options in ({"cascade": True}, {"beliefs": True}, {"predecoder": Predecoder.null()}):
        with pytest.raises(QecError, match="correlated goes with neither a cascade"):
            WindowDecoder(dem, 3, 3, correlated=True, **options)
    with pytest.raises(QecError, match="does not run in windows: an ensemble's proposals have no"):
        check_window_decoder("matching-cascade-ensemble")
    with pytest.raises(QecError, match="shots have shape"):
        WindowDecoder(dem, 3, 3).decode_batch(np.zeros((2, 7), np.uint8))
    with pytest.raises(QecError, match="beliefs go with a pre-decoder in a cascade only"):
        WindowDecoder(dem, 3, 3, predecoder=Predecoder.null(), beliefs=True, cascade=False)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "shots"), [(windows, 60), (window_speed, 30)])
def test_benchmarks_of_windows_decode_the_same_shots_in_both_ways(tmp_path, capsys, module, shots):
    names = ["pymatching-css", "belief-matching"]
    overrides = ["distance=3", "rounds=24", "p=0.02", "shots=60", "batch=30", f"out={tmp_path}"]
    config = load_config("benchmark-windows", [*overrides, f"decoders=[{','.join(names)}]"])
    rows = module.benchmark(config)
    text = capsys.readouterr().out
    assert listed_files(text, tmp_path) == [path.name for path in tmp_path.iterdir()]
    assert [row.decoder for row in rows] == names
    assert json.loads(next(tmp_path.glob("window*.json")).read_text())
    for row in rows:
        assert row.shots == shots
        if module is window_speed:
            assert min(row.us_per_round.values()) > 0
            errors, whole = row.errors["windows"], row.errors["whole"]
        else:
            errors, whole = row.errors, row.whole
        assert 0 < errors < shots
        assert abs(errors - whole) < 0.2 * shots
