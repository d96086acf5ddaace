"""Detection events round by round: the same answers as windows over the whole record."""

import numpy as np
import pytest

from qec.circuits.error_model import Mechanisms
from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.decoding.decoder import Decoder
from qec.support.errors import QecError
from qec.windows.streaming_decoder import StreamingDecoder
from qec.windows.window_decoder import WindowDecoder


def layers_of(dem, shots):
    layer = SpaceTimeLattice.from_dem(dem).layer
    return [shots[:, layer == k] for k in range(layer.max() + 1)]


def stream(decoder, dem, shots):
    decoder.reset(len(shots))
    *rounds, readout = layers_of(dem, shots)
    for events in rounds:
        decoder.push(events)
    return decoder.flush(readout)


@pytest.mark.parametrize("rounds", [14, 15, 16, 31])
@pytest.mark.parametrize("basis", ["X", "Z"])
def test_single_mechanisms_of_streams_of_any_length_are_corrected(our_circuit, basis, rounds):
    reference = detector_error_model(our_circuit(3, 14, basis, 0.003))
    decoder = StreamingDecoder(reference, 3, 3)
    dem = detector_error_model(our_circuit(3, rounds, basis, 0.003))
    table = Mechanisms.from_dem(dem)
    shots = np.zeros((len(table.probability), table.num_detectors), dtype=np.uint8)
    shots[table.mechanism, table.detector] = 1
    assert (stream(decoder, dem, shots) == table.flips_observable).all()


@pytest.mark.slow
@pytest.mark.parametrize("correlated", [False, True])
def test_a_stream_decodes_as_well_as_the_whole_history(our_circuit, correlated):
    # Paired on 10,000 shots, seeded: more than 5 % more errors would be ten standard deviations.
    circuit = our_circuit(3, 40, "X", 0.004)
    dem = detector_error_model(circuit)
    shots, flips = circuit.compile_detector_sampler(seed=3).sample(
        10_000, separate_observables=True
    )
    predicted = Decoder.from_dem(dem, correlated=correlated).decode_batch(shots)
    whole = np.count_nonzero(predicted != flips)
    reference = detector_error_model(our_circuit(3, 14, "X", 0.004))
    decoder = StreamingDecoder(reference, 3, 3, correlated=correlated)
    errors = np.count_nonzero(stream(decoder, dem, shots) != flips[:, 0])
    assert whole > 1000
    assert errors < 1.05 * whole


@pytest.mark.parametrize("rounds", [14, 31])
@pytest.mark.parametrize("options", [{}, {"cascade": True}])
def test_a_stream_decides_and_doubts_as_sliding_windows_do(our_circuit, options, rounds):
    # SI1000 noise: hardly any two corrections weigh the same.
    circuit = our_circuit(3, rounds, "X", 0.006, noise="si1000")
    dem = detector_error_model(circuit)
    shots = circuit.compile_detector_sampler(seed=rounds).sample(500)
    windows = WindowDecoder(dem, 3, 3, **options)
    want, nats = windows.decode_batch(shots, return_confidence=True)
    reference = detector_error_model(our_circuit(3, 14, "X", 0.006, noise="si1000"))
    decoder = StreamingDecoder(reference, 3, 3, confidence=True, batch=500, **options)
    silent = StreamingDecoder(reference, 3, 3, **options)
    assert silent.confidence is silent.core_confidence is None
    for _ in range(2):  # a stream begins anew
        *earlier, readout = layers_of(dem, shots)
        for events in earlier:
            decoder.push(events)
            cores = decoder.rounds_committed // 3
            least = nats[:, :cores].min(axis=1, initial=np.inf)
            np.testing.assert_allclose(decoder.confidence, least, atol=0.02)
            last = nats[:, cores - 1] if cores else np.full(500, np.inf)
            np.testing.assert_allclose(decoder.core_confidence, last, atol=0.02)
        found = decoder.flush(readout)
        np.testing.assert_allclose(decoder.confidence, nats.min(axis=1), atol=0.02)
        np.testing.assert_array_equal(found, want[:, 0])
        np.testing.assert_array_equal(stream(silent, dem, shots), found)
    decoder.push(earlier[0])
    assert np.isinf(decoder.confidence).all()


def test_memory_and_commits_over_a_long_stream(our_circuit):
    circuit = our_circuit(3, 300, "Z", 0.002)
    dem = detector_error_model(circuit)
    shots = circuit.compile_detector_sampler(seed=3).sample(4)
    decoder = StreamingDecoder(detector_error_model(our_circuit(3, 14, "Z", 0.002)), 2, 3, batch=4)
    *rounds, readout = layers_of(dem, shots)
    size = decoder._state.events.nbytes
    assert size < shots.nbytes / 5
    for k, events in enumerate(rounds, start=1):
        frame = decoder.push(events)
        assert frame.shape == (4,)
        assert decoder._state.events.nbytes == size
        assert decoder.rounds_seen == k
        assert k - decoder.rounds_committed <= 2 + 3
    assert decoder.flush(readout).shape == (4,)
    assert decoder.rounds_seen == 0


def test_bad_streams_are_refused(our_circuit):
    dem = detector_error_model(our_circuit(3, 14, "X", 0.003))
    with pytest.raises(QecError, match="too short for windows of 6"):
        StreamingDecoder(dem, 6, 6)
    with pytest.raises(QecError, match="buffer=0"):
        StreamingDecoder(dem, 3, 0)
    decoder = StreamingDecoder(dem, 3, 3)
    first, second, *_ = layers_of(dem, np.zeros((1, dem.num_detectors), np.uint8))
    decoder.push(first)
    with pytest.raises(QecError, match=r"shape \(1, 8\)"):
        decoder.push(first)
    decoder.push(second)
    with pytest.raises(QecError, match="within its first window"):
        decoder.flush(first)
