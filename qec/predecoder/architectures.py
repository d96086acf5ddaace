"""Named network architectures: the sizes of arXiv:2604.12841 and our own."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qec.support.errors import QecError

if TYPE_CHECKING:
    from qec.predecoder.network import PreDecoderNetwork

ARCHITECTURES: dict[str, dict[str, Any]] = {
    # Features in cells with events only, and layers that are cheap there: for CPUs.
    "small": {"width": 32, "layers": 5, "active_only": True, "separable": True},
    "standard": {"width": 32, "layers": 10, "belief_propagation": 8},
    "large": {"width": 96, "layers": 12, "belief_propagation": 8},
    # Kernel, depth, width and activation of the paper's models, on packed cells.
    "m1": {"width": 128, "layers": 4, "activation": "gelu", "residual": False},
    "m2": {"width": 256, "layers": 4, "activation": "gelu", "residual": False},
    "m3": {"width": 128, "layers": 4, "kernel": 5, "activation": "gelu", "residual": False},
    "m4": {"width": 128, "layers": 6, "activation": "gelu", "residual": False},
    "m5": {"width": 256, "layers": 6, "activation": "gelu", "residual": False},
    "m6": {"width": 512, "layers": 8, "activation": "gelu"},
}


_LARGEST = {"width": 4096, "layers": 256, "kernel": 15, "belief_propagation": 64}
_FLAGS = ("residual", "active_only", "separable")


def architecture(model: str | Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``PreDecoderNetwork`` that a name, or a mapping of them, stands for.

    Raises:
        QecError: unknown name, or arguments as of ``check_architecture``.
    """
    if not isinstance(model, str):
        check_architecture(model)
        return dict(model)
    if model not in ARCHITECTURES:
        raise QecError(f"model={model!r} is unknown: use one of {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[model]


def check_architecture(arguments: object) -> None:
    """QecError unless these are arguments of ``PreDecoderNetwork``, of types and sizes that it has.

    Nothing is built.
    """
    if not isinstance(arguments, Mapping):
        raise QecError(f"model arguments {reprlib.repr(arguments)} are no mapping.")
    for name, value in arguments.items():
        if name in _LARGEST:
            least = 0 if name == "belief_propagation" else 1
            whole = isinstance(value, int) and not isinstance(value, bool)
            fits, wanted = (
                whole and least <= value <= _LARGEST[name],
                f"{least} to {_LARGEST[name]}",
            )
        elif name in _FLAGS:
            fits, wanted = isinstance(value, bool), "true or false"
        elif name == "activation":
            fits, wanted = isinstance(value, str), "a name"
        else:
            known = ", ".join((*_LARGEST, *_FLAGS, "activation"))
            raise QecError(f"model argument {reprlib.repr(name)} is not valid: use {known}.")
        if not fits:
            raise QecError(
                f"model argument {reprlib.repr(name)}: {reprlib.repr(value)} is not supported: "
                f"use {wanted}."
            )


def build_network(arguments: Mapping[str, Any]) -> PreDecoderNetwork:
    """A fresh network; QecError where ``arguments`` are not those of ``PreDecoderNetwork``."""
    from qec.predecoder.network import PreDecoderNetwork  # torch only where needed

    check_architecture(arguments)
    try:
        return PreDecoderNetwork(**arguments)
    except (TypeError, KeyError, ValueError) as error:
        raise QecError(f"model arguments {arguments!r} are not valid: {error}") from error
