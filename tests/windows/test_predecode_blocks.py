"""The pre-decoder in blocks of space-time: bit by bit what it does to the whole volume."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qec.circuits.lattice import detector_error_model
from qec.decoding.decoder import Decoder
from qec.predecoder.model_fit import Fit
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.predecoder import Predecoder
from qec.support.errors import QecError
from qec.windows.predecode_blocks import BlockCompiler
from qec.windows.streaming_decoder import StreamingDecoder
from qec.windows.template import EDGE, ExperimentTemplate, Window, rounds_needed
from qec.windows.window_decoder import WindowDecoder, block_windows, sliding_windows
from qec.windows.window_state import WindowState


@pytest.fixture(scope="module")
def eager():
    """An untrained pre-decoder that commits arbitrary edges; it reaches five layers."""
    torch.manual_seed(0)
    network = PreDecoderNetwork(width=8, layers=5)
    torch.nn.init.constant_(network.head.bias, 3.0)
    with torch.no_grad():
        network.head.weight *= 40
    return Predecoder(network, 0.7, name="eager")


@pytest.fixture
def fits_all(monkeypatch):
    """Decoders take networks that fit no error model, such as ``eager``."""
    monkeypatch.setattr(Fit, "fits", True)


@pytest.mark.parametrize("basis", ["X", "Z"])
@pytest.mark.parametrize(("commit", "buffer"), [(1, 1), (3, 4), (8, 5), (17, 9)])
@pytest.mark.slow
@pytest.mark.usefixtures("fits_all")
def test_blocks_leave_what_the_whole_history_leaves(eager, our_circuit, basis, commit, buffer):
    rounds, batch = 41, 10
    circuit = our_circuit(3, rounds, basis, 0.008)
    dem = detector_error_model(circuit)
    shots = circuit.compile_detector_sampler(seed=5).sample(batch).view(np.uint8)
    want = Decoder.from_dem(dem, predecoder=eager, cascade=False).predecode(shots)
    assert (want.residual != shots).any(axis=1).mean() > 0.9
    short = our_circuit(3, rounds_needed(commit + buffer + 2 * eager.network.reach), basis, 0.008)
    reference = ExperimentTemplate(detector_error_model(short))
    cutter = BlockCompiler(eager, reference)
    layers = rounds + 1
    windows = block_windows(sliding_windows(layers, commit, buffer), layers, eager.network.reach)
    state = WindowState.of(reference.split(shots, rounds), len(windows), predecoder=True)
    first, origins = len(windows) * np.arange(batch), layers * np.arange(batch)
    for k, window in enumerate(windows):
        state.predecode(window, cutter.block(window, layers), first + k, origins + window.start)
    left = state.left.reshape(batch, layers, -1)
    carry = state.carry.reshape(batch, len(windows), -1)
    for k, window in enumerate(windows[1:]):
        left[:, window.core_start] ^= carry[:, k]
    np.testing.assert_array_equal(left, reference.split(want.residual, rounds))
    flips = np.bitwise_xor.reduce(state.block_flip.reshape(batch, -1), axis=1)
    np.testing.assert_array_equal(flips, want.committed)


@pytest.mark.parametrize(
    ("cascade", "commit", "buffer"),
    [(False, 4, 3), (False, 3, 9), (True, 4, 3), (True, 3, 9)],
)
@pytest.mark.slow
@pytest.mark.usefixtures("fits_all")
def test_streams_and_windows_agree_with_a_pre_decoder_ahead(
    eager, our_circuit, cascade, commit, buffer
):
    circuit = our_circuit(3, 40, "X", 0.004)
    dem = detector_error_model(circuit)
    shots = circuit.compile_detector_sampler(seed=9).sample(200).view(np.uint8)
    options = {"predecoder": eager, "cascade": cascade}
    windows = WindowDecoder(dem, commit, buffer, **options)
    reference = detector_error_model(our_circuit(3, 30, "X", 0.004))
    stream = StreamingDecoder(reference, commit, buffer, **options, batch=200)
    layers = ExperimentTemplate(dem).split(shots, 40)
    stream.push(layers[:, 0, :4])
    for k in range(1, 40):
        stream.push(layers[:, k])
        assert k + 1 - stream.rounds_committed < 2 * commit + buffer + eager.network.reach
    found = stream.flush(layers[:, 40, :4])
    np.testing.assert_array_equal(found, windows.decode_batch(shots)[:, 0])
    without = WindowDecoder(dem, commit, buffer, cascade=cascade).decode_batch(shots)[:, 0]
    if not cascade:  # with one, windows of d = 3 are all in doubt
        assert (found != without).any()  # the pre-decoder does take part


@pytest.mark.parametrize("cascade", [None, True, False])
def test_a_network_that_does_not_fit_stays_out_of_windows(eager, our_circuit, cascade):
    dem = detector_error_model(our_circuit(3, 20, "X", 0.004))
    if cascade is False:
        with pytest.raises(QecError, match="the network eager does not fit this error model"):
            WindowDecoder(dem, 4, 3, predecoder=eager, cascade=cascade)
        return
    shots, _, _ = dem.compile_sampler(seed=3).sample(200)
    with pytest.warns(UserWarning, match="the network eager does not fit .* goes on without it"):
        decoder = WindowDecoder(dem, 4, 3, predecoder=eager, cascade=cascade)
    want = WindowDecoder(dem, 4, 3, cascade=True).decode_batch(shots)
    np.testing.assert_array_equal(decoder.decode_batch(shots), want)


@given(st.integers(20, 60), st.integers(1, 12), st.data())
def test_windows_find_their_like(layers, length, data):
    reference = ExperimentTemplate.__new__(ExperimentTemplate)
    reference.layers = rounds_needed(12) + 1
    start = data.draw(st.integers(0, layers - length))
    window = Window(start, start + length, start, start + length)
    place = reference.place(window, layers)
    assert place.end - place.start == length
    assert 0 <= place.start <= place.end <= reference.layers
    before, after = start, layers - window.end
    assert min(place.start, EDGE) == min(before, EDGE)
    assert min(reference.layers - place.end, EDGE) == min(after, EDGE)


@pytest.mark.usefixtures("fits_all")
def test_bad_blocks_are_refused(eager, our_circuit):
    dem = detector_error_model(our_circuit(3, 15, "X"))
    with pytest.raises(QecError, match="16 rounds or more"):
        StreamingDecoder(dem, 3, 3, predecoder=eager)
    with pytest.raises(QecError, match="no pre-decoder checkpoint"):
        StreamingDecoder(dem, 3, 3, predecoder="slow")
    with pytest.raises(QecError, match="has 8 detectors, but 15 rounds 120"):
        ExperimentTemplate(dem).split(np.zeros((1, 8), np.uint8), 15)
