"""The decoders by name, and what the names stand for."""

from __future__ import annotations

from qec.errors import QecError

DECODERS: dict[str, dict[str, object]] = {
    "pymatching": {"decomposition": "stim"},
    "pymatching-correlated": {"decomposition": "stim", "correlated": True},
    "pymatching-css": {},
    "pymatching-memory-css": {"memory_only": True},
    "pymatching-correlated-css": {"correlated": True},
    "matching-cascade": {"cascade": True},
    "matching-cascade-ensemble": {"cascade": True, "members": 31},
    "predecoder+pymatching": {},
    "predecoder+pymatching-correlated": {"correlated": True},
    "predecoder+pymatching-nofallback": {"fallback": False},
    "predecoder+pymatching-correlated-nofallback": {"correlated": True, "fallback": False},
}
"""The options of ``qec.decoder.Decoder.from_dem`` that a name stands for."""

DECODER_NAMES = tuple(DECODERS)


def has_predecoder(name: str) -> bool:
    """Whether a decoder of that name runs the network before matching."""
    return name.startswith(("predecoder+", "predecoder["))


def check_decoder_name(name: str) -> None:
    """QecError unless it is one of ``DECODER_NAMES``."""
    if name not in DECODER_NAMES:
        raise QecError(f"decoder {name!r} is unknown: use one of {', '.join(DECODER_NAMES)}.")


def needs_lattice(name: str) -> bool:
    """Whether a decoder of that name reads the model as a rotated surface code's."""
    return DECODERS[name].get("decomposition") != "stim"
