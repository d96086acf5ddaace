"""Sound input, changed in places: text, files of safetensors, several files in one."""

from __future__ import annotations

import json
import re
import struct

import numpy as np

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


def _other_number(data: bytes, rng: np.random.Generator) -> bytes:
    """A number in place of another, which often leaves a sound input."""
    found = list(re.finditer(rb"\d+(\.\d+)?", data))
    if not found:
        return data
    a, b = (found[int(rng.integers(len(found)))] for _ in range(2))
    return data[: a.start()] + b.group() + data[a.end() :]


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
    *(_other_number, _other_number, _other_number),
)


def mutated_mildly(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes that often leave it sound: of numbers, words, and whole lines."""
    for _ in range(rng.integers(1, 4)):
        change = _MILD[rng.integers(len(_MILD))]
        data = change(data, rng)
    return data


_MILD = (_number, _other_number, _other_number, _other_number, _word, _lines)

# Files of safetensors ----------------------------------------------------------------------------


def mutated_tensors(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes of a file of safetensors, the text of its header, or what the header says."""
    kind = rng.integers(4)
    if kind == 0:
        return mutated(data, rng)
    (size,) = struct.unpack("<Q", data[:8])
    text, tensors = data[8 : 8 + size], data[8 + size :]
    if kind == 1:
        text = mutated(text, rng)
    else:
        header = json.loads(text)
        (_odd_metadata if "__metadata__" in header and kind == 2 else _odd_tensor)(header, rng)
        text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def _odd_metadata(header: dict, rng: np.random.Generator) -> None:
    """Changes a text of the metadata; in one that is JSON, a value."""
    said = header["__metadata__"]
    key = str(rng.choice(sorted(said)))
    described = json.loads(said[key])
    if isinstance(described, dict):
        _odd_value(described, rng)
        said[key] = json.dumps(described)
    else:
        said[key] = str(rng.choice(_NUMBERS))


def _odd_tensor(header: dict, rng: np.random.Generator) -> None:
    """Another type of as many bytes, shape, name, or place for one of its tensors."""
    names = sorted(header.keys() - {"__metadata__"})
    name, other = (names[int(rng.integers(len(names)))] for _ in range(2))
    tensor = header[name]
    change = rng.integers(4)
    if change == 0:
        types = [kind for kind in _TYPES if tensor["dtype"] in kind]
        tensor["dtype"] = str(rng.choice(types[0])) if types else "BOOL"
    elif change == 1:
        flat = [int(np.prod(tensor["shape"]))]
        tensor["shape"] = [tensor["shape"][::-1], flat, [*tensor["shape"], 1]][rng.integers(3)]
    elif change == 2:
        header[name], header[other] = header[other], tensor
    else:
        header[f"{name}{rng.choice(['x', '/0', '.step', ''])}"] = header.pop(name)


_TYPES = (("F64", "I64", "U64"), ("F32", "I32", "U32"), ("F16", "BF16", "I16"), ("I8", "U8"))

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


# Several files in one ----------------------------------------------------------------------------


def packed(files: dict[str, bytes]) -> list[bytes]:
    """Each of several files, with its name: the others stay as they are."""
    return [name.encode() + b"\0" + content for name, content in files.items()]


def mutated_packed(data: bytes, rng: np.random.Generator) -> bytes:
    """The content of a file of ``packed``, changed."""
    name, _, content = data.partition(b"\0")
    return name + b"\0" + mutated(content, rng)
