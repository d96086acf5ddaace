"""The decoders by name, and what the names stand for."""

from __future__ import annotations

import importlib.util
from typing import Any

from qec.support.errors import QecError

DECODERS: dict[str, dict[str, Any]] = {
    "pymatching": {"decomposition": "stim"},
    "pymatching-correlated": {"decomposition": "stim", "correlated": True},
    "pymatching-css": {},
    "pymatching-memory-css": {"memory_only": True},
    "pymatching-correlated-css": {"correlated": True},
    "matching-cascade": {"cascade": True},
    "matching-cascade-ensemble": {"cascade": True, "members": 15},
    "matching-cascade-beliefs": {"cascade": True, "beliefs": True},
    "belief-matching": {"beliefs": True},
    "predecoder+pymatching": {"cascade": False},
    "predecoder+matching-cascade": {"cascade": True},
    "predecoder+matching-cascade-ensemble": {"cascade": True, "members": 15},
    "predecoder+matching-cascade-beliefs": {"cascade": True, "beliefs": True},
    "beliefmatching": {"peer": "beliefmatching"},
    "fusion-blossom": {"peer": "fusion-blossom"},
    "stabilizer-qec": {"peer": "stabilizer-qec"},
    "stabilizer-qec-beliefmatching": {"peer": "stabilizer-qec-beliefmatching"},
    "stabilizer-qec-predecoder": {"peer": "stabilizer-qec-predecoder"},
    "tesseract": {"peer": "tesseract", "decomposition": "stim"},
    "tesseract-short-beam": {"peer": "tesseract-short-beam", "decomposition": "stim"},
    "tesseract-short-beam-sparsify": {
        "peer": "tesseract-short-beam-sparsify",
        "decomposition": "stim",
    },
}
"""The options of ``qec.decoding.decoder.Decoder.from_dem`` that a name stands for."""

DECODER_NAMES = tuple(name for name, options in DECODERS.items() if "peer" not in options)
"""Those of this package."""

PEERS = {
    "beliefmatching": "beliefmatching",
    "fusion-blossom": "fusion-blossom",
    "stabilizer-qec": "stabilizer-qec",
    "stabilizer-qec-beliefmatching": "stabilizer-qec",
    "stabilizer-qec-predecoder": "stabilizer-qec",
    "tesseract": "tesseract-decoder",
    "tesseract-short-beam": "tesseract-decoder",
    "tesseract-short-beam-sparsify": "tesseract-decoder",
}
"""Those of other packages (``qec.decoding.peers``), with the name of the package on PyPI."""


_RENAMED = {
    "predecoder+pymatching-correlated": "predecoder+matching-cascade",
    "predecoder+pymatching-nofallback": "predecoder+pymatching",
    "predecoder+pymatching-correlated-nofallback": "belief-matching",
    "predecoder+weighted-matching": "belief-matching",
}


def has_predecoder(name: str) -> bool:
    """Whether a decoder of that name runs the network before matching."""
    return name.startswith(("predecoder+", "predecoder["))


def needs_network(name: str) -> bool:
    """Whether it cannot do without: a cascade leaves a network out that does not fit the model."""
    return has_predecoder(name) and not DECODERS[name].get("cascade")


def check_decoder_name(name: str) -> None:
    """QecError unless it is one of ``DECODERS``, and its package is installed."""
    if name in _RENAMED:
        raise QecError(f"decoder {name!r} is gone: {_RENAMED[name]} takes its place.")
    if name not in tuple(DECODERS):
        raise QecError(f"decoder {name!r} is unknown: use one of {', '.join(DECODERS)}.")
    package = PEERS.get(name)
    if package is not None and importlib.util.find_spec(package.replace("-", "_")) is None:
        raise QecError(
            f"decoder {name!r} needs the package {package}: pip install 'qec-predecoder[peers]'"
        )


def needs_lattice(name: str) -> bool:
    """Whether a decoder of that name reads the model as a rotated surface code's."""
    return DECODERS[name].get("decomposition") != "stim"
