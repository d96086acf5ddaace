"""Mutated input for everything that reads files or words: a result or one line, nothing else.

``python tests/fuzz_readers.py READER COUNT [SEED]``, READER being one of ``READERS`` or ``all``.
Inputs are the same for the same seed.  Each batch is read in a forked process with little memory
and a time limit: a traceback other than a QecError's, a signal or a time-out is a bug.  Its input
is kept, and the exit status is 1.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import os
import re
import resource
import signal
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import stim

from qec.errors import QecError

SECONDS = 10  # for one input
MEMORY = 2 * 2**30  # bytes that reading may take, beyond what the process has
_BATCH = 100  # inputs to a process

# Mutations ---------------------------------------------------------------------------------------

_NUMBERS = (
    *("0", "-1", "1", "2", "0.5", "1.5", "-0.1", "nan", "inf", "-inf", "1e400", "1e-400", "0x10"),
    *("16777215", "2147483648", "4294967295", "1000000000000", "9223372036854775807"),
    *("18446744073709551616", "9" * 400, "9" * 5000, "true", "null", "''", "1_000", "01"),
)
_TEXTS = (*"{}[](),:=^'\"#\n", "*a", "&a ", "${x}")


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes."""
    for _ in range(rng.integers(1, 4)):
        change = _CHANGES[rng.integers(len(_CHANGES))]
        data = change(data, rng)
    return data


def _place(data: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(len(data) + 1))


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    k = _place(data, rng)
    return data[:k] + bytes([int(rng.integers(256))]) + data[k + 1 :]


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: _place(data, rng)]


def _drop(data: bytes, rng: np.random.Generator) -> bytes:
    a, b = sorted((_place(data, rng), _place(data, rng)))
    return data[:a] + data[b:]


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    k = _place(data, rng)
    return data[:k] + rng.choice(_TEXTS).encode() * int(rng.choice([1, 1, 3, 2000])) + data[k:]


def _insert_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    k = _place(data, rng)
    return data[:k] + rng.bytes(int(rng.choice([1, 8, 300]))) + data[k:]


def _lines(data: bytes, rng: np.random.Generator) -> bytes:
    """A line twice, gone, elsewhere, or very often."""
    lines = data.split(b"\n")
    k, j = (int(rng.integers(len(lines))) for _ in range(2))
    times = int(rng.choice([0, 2, 2, 500]))
    line = lines.pop(k)
    return b"\n".join(lines[:j] + [line] * times + lines[j:])


def _number(data: bytes, rng: np.random.Generator) -> bytes:
    found = list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", data))
    if not found:
        return data
    match = found[int(rng.integers(len(found)))]
    return data[: match.start()] + str(rng.choice(_NUMBERS)).encode() + data[match.end() :]


def _word(data: bytes, rng: np.random.Generator) -> bytes:
    """A word in place of another."""
    found = list(re.finditer(rb"\w+", data))
    if not found:
        return data
    a, b = (found[int(rng.integers(len(found)))] for _ in range(2))
    return data[: a.start()] + b.group() + data[a.end() :]


def _nest(data: bytes, rng: np.random.Generator) -> bytes:
    """Part of it within many brackets or loops."""
    a, b = sorted((_place(data, rng), _place(data, rng)))
    times = int(rng.choice([1, 2, 30, 3000]))
    count = str(rng.choice(["2", "1000000", "1000000000000"]))
    pairs = [("[", "]"), ("{", "}"), (f"\nrepeat {count} {{\n", "\n}\n"), ("{a: ", "}"), ("(", ")")]
    opening, closing = pairs[int(rng.integers(len(pairs)))]
    return data[:a] + opening.encode() * times + data[a:b] + closing.encode() * times + data[b:]


_CHANGES = (
    *(_flip, _cut, _drop, _insert, _insert_bytes, _lines),
    *(_number, _number, _number, _word, _nest),
)

# Readers -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Reader:
    """What is read, and by what.

    Attributes:
        valid: sound inputs.
        read: takes the path of an input; what it returns is right.
        mutate: makes an input from a sound one.
        name: of the file.
    """

    valid: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    mutate: Callable[[bytes, np.random.Generator], bytes] = mutated
    name: str = "input"


@functools.cache
def _circuit() -> stim.Circuit:
    return stim.Circuit.generated(
        "surface_code:rotated_memory_x",
        distance=3,
        rounds=4,
        after_clifford_depolarization=0.02,
        before_measure_flip_probability=0.02,
    )


def _circuits() -> list[bytes]:
    return [str(_circuit()).encode(), str(_circuit().flattened()).encode()]


def _models() -> list[bytes]:
    model = _circuit().detector_error_model(decompose_errors=True)
    loops = _circuit().detector_error_model(decompose_errors=True, flatten_loops=False)
    return [str(model).encode(), str(loops).encode()]


def _shots(fmt: str, observables: bool) -> list[bytes]:
    events, flips = (
        _circuit().compile_detector_sampler(seed=1).sample(64, separate_observables=True)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shots"
        data, numbers = events, {"num_detectors": events.shape[1]}
        if observables:
            data, numbers = flips, {"num_observables": 1}
        stim.write_shot_data_file(data=data, path=path, format=fmt, **numbers)
        return [path.read_bytes()]


def _read_circuit(path: Path) -> object:
    from qec.dataset import load_circuit

    return load_circuit(path)


def _read_model(path: Path) -> object:
    from qec.dataset import load_dem

    return load_dem(path)


def _read_shots(fmt: str, detectors: int, observables: int, path: Path) -> object:
    from qec.dataset import read_shots

    shots = read_shots(path, fmt, detectors, observables)
    assert shots.ndim == 2, shots.shape
    assert shots.shape[1] == -(-(detectors + observables) // 8), shots.shape
    return shots


def _noises() -> list[bytes]:
    pairs = ", ".join(f"{k / 1e4:g}" for k in range(15))
    return [
        f"meas_x: 0.01\nprep_z: 1e-3\nidle_cnot: [0.001, 2e-4, 0]\ncnot: [{pairs}]\n".encode(),
        b"{meas_x: 0.1, meas_z: '${meas_x}'}\n",
    ]


def _read_noise(path: Path) -> object:
    from qec.dataset import load_noise

    return load_noise(path)


@functools.cache
def _checkpoints() -> list[bytes]:
    from qec.predecoder.checkpoint import save_predecoder
    from qec.predecoder.network import PreDecoderNetwork
    from qec.predecoder.rule import CommitRule, CommitRules, SecondLook

    arguments = {"width": 4, "layers": 3, "active_only": True}
    steps = ((5, 0.01, 0.2), (5, 0.1, 0.3), (9, 0.01, 0.1))
    rules = CommitRules(
        CommitRule(0.8, steps, second=SecondLook(0.9, 0.3, 0.1)),
        CommitRule(0.7, 0.2, members=3, agree=(0.6, 0.9)),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.safetensors"
        weights = PreDecoderNetwork(**arguments).state_dict()
        save_predecoder(path, weights, arguments, rules, {"shots": 1})
        return [path.read_bytes()]


def _mutated_checkpoint(data: bytes, rng: np.random.Generator) -> bytes:
    """Its bytes, the text of its header, or a value of the description in the header."""
    kind = rng.integers(3)
    if kind == 0:
        return mutated(data, rng)
    (size,) = struct.unpack("<Q", data[:8])
    text, weights = data[8 : 8 + size], data[8 + size :]
    if kind == 1:
        text = mutated(text, rng)
    else:
        header = json.loads(text)
        described = json.loads(header["__metadata__"]["qec"])
        _odd_value(described, rng)
        header["__metadata__"]["qec"] = json.dumps(described)
        text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + weights


_ODD = (
    *(None, True, False, "", "x", 0, 1, -1, 2, 0.5, 1.5, 10**6, 10**12, 10**300, float("inf")),
    *(float("nan"), [], {}, [[]], [[5, 0.1, 0.1]], [[10**300, 0.1, 0.1]], [0.5] * 1000, {"a": 1}),
)


def _odd_value(described: dict, rng: np.random.Generator) -> None:
    """Puts something in place of one of its values, at any depth."""
    node: object = described
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.8:
            node = node[key]
            continue
        node[key] = _ODD[int(rng.integers(len(_ODD)))]
        return


def _read_checkpoint(path: Path) -> object:
    from qec.predecoder.checkpoint import load_predecoder

    return load_predecoder(path)


def _command_lines() -> list[bytes]:
    return [
        b"sweep\0distance=5,9\0p=1e-3,0.002\0decoders=[pymatching,predecoder+pymatching]\0out=a/b",
        b"sweep\0circuit=a.stim,b.stim\0rounds=null,10\0max_errors=100\0merge=true",
        b"decode\0circuit=d=3,p=0.006.stim\0dets=1e5\0dets_format=b8\0out='x y.01'",
        b"train\0model={width: 8, layers: 3}\0ps=[0.1,0.2]\0hardware=h100\0agree=[]\0seed=3",
        b"realtime\0period_us=0,100,max\0decoders=pymatching-css\0timeout=3.5",
    ]


def _read_words(path: Path) -> object:
    from qec.config import load_config

    command, *words = (os.fsdecode(word) for word in path.read_bytes().split(b"\0"))
    known = ("sweep", "decode", "train", "realtime")
    return load_config(command if command in known else "sweep", words[:40])


def _collected() -> list[bytes]:
    import sinter

    decoders = ["pymatching", "pymatching-css"]
    counts = {"events": 50, "errors:pymatching": 4, "errors:pymatching-css": 3}
    counts |= {f"{kind}:{name}": 3 for kind in ("both", "match_ns") for name in decoders}
    rows = [
        sinter.TaskStats(
            strong_id=f"{k:064x}",
            decoder="paired",
            json_metadata={"d": 3, "r": 3, "p": 0.01, "b": "X", "decoders": decoders},
            shots=100,
            errors=4,
            seconds=1.5,
            custom_counts=collections.Counter(counts),
        )
        for k in (1, 1, 2)
    ]
    lines = [sinter.CSV_HEADER, *(row.to_csv_line() for row in rows)]
    return ["\n".join([*lines, ""]).encode()]


def _read_collected(path: Path) -> object:
    from qec.paired import read_collected
    from qec.results import rows_of

    return [row for stat in read_collected(path).values() for row in rows_of(stat)]


_DETECTORS = 32  # of _circuit()
READERS = {
    "circuit": Reader(_circuits, _read_circuit, name="input.stim"),
    "dem": Reader(_models, _read_model, name="input.dem"),
    "model": Reader(lambda: _circuits() + _models(), _read_model),
    **{
        f"dets-{fmt}": Reader(
            functools.partial(_shots, fmt, False), functools.partial(_read_shots, fmt, 32, 0)
        )
        for fmt in ("01", "b8", "r8", "ptb64", "hits", "dets")
    },
    **{
        f"obs-{fmt}": Reader(
            functools.partial(_shots, fmt, True), functools.partial(_read_shots, fmt, 0, 1)
        )
        for fmt in ("01", "b8", "r8", "ptb64", "hits", "dets")
    },
    "noise": Reader(_noises, _read_noise, name="input.yaml"),
    "checkpoint": Reader(
        _checkpoints, _read_checkpoint, _mutated_checkpoint, name="input.safetensors"
    ),
    "words": Reader(_command_lines, _read_words),
    "collected": Reader(_collected, _read_collected, name="collected.csv"),
}

# The harness -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Outcome:
    """What came of the inputs: how many were read and refused, and the bugs, (number, what)."""

    read: int = 0
    refused: int = 0
    bugs: list[tuple[int, str]] = dataclasses.field(default_factory=list)


def inputs(reader: Reader, seed: int, numbers: range) -> list[bytes]:
    """The inputs of these numbers."""
    valid = reader.valid()
    found = []
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        found.append(reader.mutate(valid[int(rng.integers(len(valid)))], rng))
    return found


def fuzz(name: str, count: int, seed: int = 0) -> Outcome:
    """Reads ``count`` mutated inputs."""
    reader, outcome, start = READERS[name], Outcome(), 0
    reader.valid()  # imports what is needed, before the first fork
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / reader.name
        for valid in reader.valid():
            path.write_bytes(valid)
            reader.read(path)
        while start < count:
            numbers = range(start, min(count, start + _BATCH))
            start = _batch(reader, inputs(reader, seed, numbers), numbers, path, outcome)
    return outcome


def _batch(reader: Reader, batch: list[bytes], numbers: range, path: Path, outcome: Outcome) -> int:
    """Reads a batch in a process of its own, until one kills it; returns the next number."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _limit()
        with os.fdopen(writing, "w", buffering=1) as out:
            for data in batch:
                path.write_bytes(data)
                print(json.dumps(_verdict(reader, path)), file=out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as lines:
        verdicts = [json.loads(line) for line in lines]
    _, status = os.waitpid(child, 0)
    for number, verdict in zip(numbers, verdicts, strict=False):
        if verdict in ("read", "refused"):
            setattr(outcome, verdict, getattr(outcome, verdict) + 1)
        else:
            outcome.bugs.append((number, verdict))
    if len(verdicts) == len(batch):
        return numbers.stop
    died = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"{status=}"
    number = numbers[len(verdicts)]
    outcome.bugs.append((number, f"{died}{' (hangs)' if died == 'SIGALRM' else ''}"))
    return number + 1


def _limit() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _verdict(reader: Reader, path: Path) -> str:
    signal.alarm(SECONDS)
    try:
        reader.read(path)
        return "read"
    except QecError as error:
        line = " ".join(str(error).split())
        return "refused" if len(line) < 2000 else f"a line of {len(line)} characters: {line[:80]}"
    except BaseException:
        return traceback.format_exc(limit=-3)
    finally:
        signal.alarm(0)


def main(arguments: list[str]) -> int:
    names = list(READERS) if arguments[0] == "all" else [arguments[0]]
    count, seed = int(arguments[1]), int(arguments[2]) if len(arguments) > 2 else 0
    failed = False
    for name in names:
        outcome = fuzz(name, count, seed)
        print(f"{name}: {outcome.read} read, {outcome.refused} refused, {len(outcome.bugs)} bugs")
        for number, what in outcome.bugs[:20]:
            kept = Path(tempfile.gettempdir()) / f"fuzz-{name}-{seed}-{number}"
            kept.write_bytes(inputs(READERS[name], seed, range(number, number + 1))[0])
            print(f"{kept}: {what}")
        failed |= bool(outcome.bugs)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
