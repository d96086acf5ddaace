"""Input that no experiment makes: refused on reading, in one line and at once."""

import json
import struct
import time

import fuzz_readers
import pytest
import stim

from qec.circuits.stim_files import load_circuit, load_dem, load_noise, read_shots
from qec.predecoder.checkpoint import load_predecoder, save_predecoder
from qec.predecoder.network import PreDecoderNetwork
from qec.support.errors import QecError


@pytest.fixture
def refuses(tmp_path):
    """Asserts that a reader refuses a text, with a message that holds some words."""

    def check(read, text, message, name="input"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        begun = time.process_time()
        with pytest.raises(QecError) as error:
            read(path)
        assert time.process_time() - begun < 5  # what it stands for would take hours
        assert message in str(error.value), str(error.value)
        assert len(str(error.value)) < 1500

    return check


# Circuits and models -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("error(0.1) D4000000000\n", "has 4000000001 detectors, more than the 10000000"),
        ("detector D1000000000000\n", "has 1000000000001 detectors"),
        ("shift_detectors 1000000000000\ndetector D0\n", "has 1000000000001 detectors"),
        ("repeat 1000000 {\nrepeat 1000000 {\nerror(0.1) D0\n}\n}\n", "loops unrolled"),
        ("repeat 2 {\n" * 40 + "error(0.1) D0\n" + "}\n" * 40, "more than 20 deep"),
        ("repeat 2 {\n" * 100_000, "more than 20 deep"),
        ("repeat 2 {\n" * 15 + "repeat 100000 {\nerror(0.1) D0\n}\n" + "}\n" * 15, "unrolled"),
    ],
)
def test_models_of_any_size_are_refused_by_it(refuses, extra, message):
    refuses(load_dem, f"error(0.1) D0 L0\n{extra}", message, "model.dem")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("REPEAT 1000000000000 {\nH 0\n}\n", "loops unrolled"),
        ("REPEAT 1000000 {\nREPEAT 1000000 {\nH 0\n}\n}\n", "loops unrolled"),
        ("H 16777215\n", "has 16777216 qubits, more than the 100000"),
        ("REPEAT 20000000 {\nDETECTOR rec[-1]\n}\n", "has 20000001 detectors"),
        ("REPEAT 2 {\n" * 100_000, "more than 20 deep"),
    ],
)
def test_circuits_of_any_size_are_refused_by_it(refuses, extra, message):
    circuit = f"M 0\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]\n{extra}"
    refuses(load_circuit, circuit, message, "memory.stim")
    refuses(load_dem, circuit, message, "memory.stim")


def test_experiments_of_many_rounds_are_read(tmp_path):
    circuit = stim.Circuit.generated("surface_code:rotated_memory_x", distance=3, rounds=100_000)
    circuit.to_file(tmp_path / "long.stim")
    assert load_circuit(tmp_path / "long.stim") == circuit


@pytest.mark.parametrize("read", [load_circuit, load_dem, load_noise])
def test_files_that_are_not_text(refuses, read):
    refuses(read, b"M 0\n\xff\xfe\x00", "is not a text file (UTF-8).")


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    (tmp_path / "noise.yaml").write_bytes(b"\xef\xbb\xbfmeas_x: 0.01\r\nprep_x: 1e-3\r\n")
    assert load_noise(tmp_path / "noise.yaml").prep_x == 1e-3
    circuit = stim.Circuit.generated("surface_code:rotated_memory_x", distance=3, rounds=2)
    (tmp_path / "m.stim").write_bytes(b"\xef\xbb\xbf" + str(circuit).replace("\n", "\r\n").encode())
    assert load_circuit(tmp_path / "m.stim") == circuit


# Shots -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fmt", "text"),
    [
        ("hits", "18446744073709551616,9,10\n"),
        ("hits", "1000000000000\n"),
        ("hits", "16\n"),
        ("hits", "-1\n"),
        ("dets", "shot D18446744073709551617\n"),
        ("dets", "shot D16\n"),
        ("dets", "shot L0\n"),
        ("01", "0000000000000002\n"),
        ("r8", b"\xff" * 3),
    ],
)
def test_shots_with_indices_that_are_too_big(refuses, fmt, text):
    message = f"does not hold 16 bits per shot (16 detectors) in format {fmt}: "
    refuses(lambda path: read_shots(path, fmt, 16), text, message)


# Noise -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("meas_x: &a [*a]\n", "without the alias *a"),
        ("&a {meas_x: *a}\n", "without the alias *a"),
        ("a: &a [1, 1]\nb: [*a, *a, *a, *a]\n", "without the alias *a"),
        ("meas_x: " + "[" * 3000, "lists within lists"),
        ("meas_x: " + "{a: " * 100 + "}" * 100, "lists within lists"),
        ("meas_x: " + "9" * 4000, "meas_x=99999"),
        ("meas_x: " + "9" * 5000, "not a YAML file of rates"),
        ("meas_x: 0x" + "f" * 4000, "is outside [0, 1]"),
        ("true: 3\nfoo: 3\n", "unknown noise rates ['True', 'foo']"),
        ("1: 2\nfoo: 3\n", "unknown noise rates ['1', 'foo']"),
        ("meas_x: .nan\n", "is not a probability"),
        ("meas_x: -.inf\n", "is outside [0, 1]"),
        ("meas_x: 2020-01-01\n", "is not"),
        ("meas_x: 0.1\nmeas_x: 0.2\n", "found duplicate key meas_x"),
        ("meas_x: ${meas_x}\n", "not a YAML file of rates"),
        ("- 1\n", "is not a mapping"),
    ],
)
def test_noise_files(refuses, text, message):
    refuses(load_noise, text, message, "noise.yaml")


# Checkpoints -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The bytes of a small one."""
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    arguments = {"width": 8, "layers": 3}
    weights = PreDecoderNetwork(**arguments).state_dict()
    save_predecoder(path, weights, arguments, 0.7, {})
    return path.read_bytes()


def changed(checkpoint: bytes, text: str) -> bytes:
    """With ``text`` as its description, and the header's length set right."""
    (size,) = struct.unpack("<Q", checkpoint[:8])
    header = json.loads(checkpoint[8 : 8 + size])
    header["__metadata__"]["qec"] = text
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + checkpoint[8 + size :]


def description(checkpoint: bytes) -> dict:
    (size,) = struct.unpack("<Q", checkpoint[:8])
    return json.loads(json.loads(checkpoint[8 : 8 + size])["__metadata__"]["qec"])


def test_checkpoints_without_a_threshold(refuses, checkpoint):
    described = description(checkpoint)
    del described["threshold"]
    data = changed(checkpoint, json.dumps(described))
    refuses(load_predecoder, data, "says nothing usable", "small.safetensors")


HUGE = 10**300


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("architecture",), {"width": 10**9, "layers": 6}, "'width': 1000000000 is not supported"),
        (("architecture", "layers"), 10**6, "'layers': 1000000 is not supported: use 1 to 256"),
        (("architecture", "layers"), 250, "the weights do not fit its architecture"),
        (("architecture", "width"), 4096, "the weights do not fit its architecture"),
        (("architecture", "width"), 8.0, "'width': 8.0 is not supported"),
        (("architecture", "kernel"), 2, "kernel=2 odd"),
        (("architecture", "activation"), "tanh", "'tanh'"),
        (("architecture", "activation"), [], "'activation': [] is not supported"),
        (("architecture", "residual"), "yes", "'residual': 'yes' is not supported"),
        (("architecture", "colour"), 1, "'colour' is not valid: use width, layers"),
        (("architecture",), None, "are no mapping"),
        *(
            (("threshold",), value, "must be a probability in [0.5, 1]")
            for value in (0.4, 1.01, HUGE, float("nan"), float("inf"), True, "0.7", [[HUGE]], None)
        ),
        (("history",), 2**40, "its history is no mapping"),
        (("history",), [], "its history is no mapping"),
        (("format",), HUGE, "is not a pre-decoder of this version"),
        (("format",), "qec-predecoder-2", "is of an earlier version"),
    ],
)
def test_checkpoints_with_an_odd_value(refuses, checkpoint, where, value, message):
    described = description(checkpoint)
    node = described
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] = value
    data = changed(checkpoint, json.dumps(described))
    refuses(load_predecoder, data, message, "small.safetensors")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"format": ' + "9" * 5000 + "}", "{", "[]", "3"]
)
def test_checkpoints_with_an_odd_header(refuses, checkpoint, text):
    refuses(load_predecoder, changed(checkpoint, text), "checkpoint", "small.safetensors")


def test_the_sound_checkpoint_is_read(checkpoint, tmp_path):
    path = tmp_path / "small.safetensors"
    path.write_bytes(changed(checkpoint, json.dumps(description(checkpoint))))
    assert load_predecoder(path).name == "small"


# Mutated inputs ----------------------------------------------------------------------------------


_BUILD = ("noise-state", "state", "learn", "decode", "words", "stream", "weights")  # a second each


@pytest.mark.parametrize(
    "reader",
    [
        pytest.param(reader, marks=pytest.mark.slow) if reader in _BUILD else reader
        for reader in sorted(fuzz_readers.READERS)
    ],
)
def test_mutated_inputs(reader):
    """A few of those that ``python tests/fuzz_readers.py READER 3000`` reads."""
    count = 30
    outcome = fuzz_readers.fuzz(reader, count)
    assert not outcome.bugs
    assert outcome.read + outcome.refused == count
