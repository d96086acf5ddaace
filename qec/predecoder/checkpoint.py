"""Pre-decoder checkpoints: a safetensors file of weights, architecture, threshold, history."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import math
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from qec.predecoder.architectures import build_network, check_architecture
from qec.predecoder.backends import torch_threads
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.predecoder import Predecoder
from qec.predecoder.shipped import checkpoint_path
from qec.predecoder.threshold import check_threshold
from qec.predecoder.unit_cells import EVENT_CHANNELS
from qec.support.errors import QecError, first_line
from qec.support.files import atomic_path

FORMAT = "qec-predecoder-3"
_BEFORE = ("qec-predecoder-1", "qec-predecoder-2")  # networks that told bits of error chains


def save_predecoder(
    path: Path,
    weights: dict[str, torch.Tensor],
    architecture: dict[str, Any],
    threshold: float,
    history: dict[str, Any],
) -> None:
    """Saves a checkpoint atomically; kernels in bfloat16, the precision that they are used in.

    Args:
        path: a ``.safetensors`` file; its stem is the pre-decoder's name.
        weights: state dict of the network, of any floating dtype.
        architecture: arguments of ``PreDecoderNetwork``.
        threshold: probability in [0.5, 1] above which an edge is committed.
        history: how it was trained (JSON-serialisable).
    """
    description = {
        "format": FORMAT,
        "architecture": architecture,
        "threshold": threshold,
        "history": history,
    }
    tensors = {
        name: tensor.detach()
        .cpu()
        .contiguous()
        .to(torch.bfloat16 if tensor.ndim > 1 else tensor.dtype)
        for name, tensor in weights.items()
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"qec": json.dumps(description)})


@torch_threads(1)  # so that it works in processes that were forked, too
def load_predecoder(name_or_path: str | Path) -> Predecoder:
    """Loads a shipped checkpoint by name, or any checkpoint by path.

    Raises:
        QecError: not found, truncated or corrupt, not a pre-decoder, weights that do not fit the
            architecture, or weights that are not finite.

    Examples:
        >>> import qec
        >>> qec.load_predecoder("small").name
        'small'
    """
    path = checkpoint_path(name_or_path)
    with _opened(path) as file:
        arguments, threshold, history = _described(path, file.metadata() or {})
        network = _fitting_network(path, arguments, file)
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if not all(tensor.is_floating_point() for tensor in stored.values()):
        raise QecError(f"checkpoint {path} is corrupt: its weights are integers.")
    weights = {name: tensor.float() for name, tensor in stored.items()}
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise QecError(f"checkpoint {path} holds weights that are NaN or infinite: retrain it.")
    network.load_state_dict(weights)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return Predecoder(network, threshold, path.stem, digest, history)


def as_predecoder(predecoder: Predecoder | str | Path) -> Predecoder:
    """The pre-decoder itself, or the one that ``load_predecoder`` finds under a name or path."""
    return load_predecoder(predecoder) if isinstance(predecoder, str | Path) else predecoder


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise QecError(
            f"checkpoint {path} is truncated or corrupt: {first_line(error)}."
        ) from error


def _described(
    path: Path, metadata: Mapping[str, str]
) -> tuple[dict[str, Any], float, dict[str, Any]]:
    """Architecture, threshold and history, each of its type and size; nothing is built."""
    try:
        description = json.loads(metadata.get("qec", "{}"))
    except (ValueError, RecursionError) as error:  # no JSON, nested very deeply, very long numbers
        raise QecError(f"checkpoint {path} is corrupt: {first_line(error)}.") from error
    found = description.get("format") if isinstance(description, dict) else None
    if found in _BEFORE:
        raise QecError(
            f"checkpoint {path} is of an earlier version, whose networks told bits of error "
            "chains: use standard or small, or train again (qec train out=FOLDER shots=NUMBER)."
        )
    if found != FORMAT:
        raise QecError(
            f"checkpoint {path} is not a pre-decoder of this version (expected format {FORMAT!r}, "
            f"found {reprlib.repr(found)})."
        )
    try:
        arguments = description["architecture"]
        check_architecture(arguments)
        threshold = description["threshold"]
        check_threshold(threshold)
    except (KeyError, TypeError, AttributeError, QecError) as error:
        raise QecError(
            f"checkpoint {path} says nothing usable about its architecture or threshold: "
            f"{first_line(error)}."
        ) from error
    history = description.get("history", {})
    if not isinstance(history, dict):
        raise QecError(f"checkpoint {path} is corrupt: its history is no mapping.")
    return arguments, threshold, history


def _fitting_network(
    path: Path, arguments: Mapping[str, Any], file: safe_open
) -> PreDecoderNetwork:
    """The network; built only where the file holds as many weights as it has, or more."""
    have = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    odd, least = "their number", _least_weights(arguments)
    if least <= sum(math.prod(shape) for shape in have.values()):
        network = build_network(arguments)
        want = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        if want == have:
            return network
        odd = reprlib.repr(min(set(want.items()) ^ set(have.items()))[0])
    raise QecError(
        f"checkpoint {path}: the weights do not fit its architecture (first at {odd}); the file "
        "was mixed up or made by another version."
    )


def _least_weights(arguments: Mapping[str, Any]) -> int:
    """How many weights such a network has at least: those of its first and hidden layers."""
    known = inspect.signature(PreDecoderNetwork).parameters.items()
    given = {name: parameter.default for name, parameter in known} | dict(arguments)
    width, taps = given["width"], given["kernel"] ** 3
    mixing = 2 if given["separable"] else taps
    first = EVENT_CHANNELS * taps * width
    return first + (given["layers"] - 2) * mixing * width**2
