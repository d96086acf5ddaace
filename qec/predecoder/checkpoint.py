"""Pre-decoder checkpoints: a safetensors file of weights, architecture, commit rules, history."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from qec.errors import QecError
from qec.files import atomic_path, resource_dir
from qec.predecoder.correction import Predecoder
from qec.predecoder.rule import CommitRule, CommitRules
from qec.predecoder.runtime import torch_threads
from qec.predecoder.zoo import build_network

FORMAT = "qec-predecoder-2"


def shipped_checkpoints() -> list[str]:
    return sorted(path.stem for path in resource_dir("data").glob("*.safetensors"))


def save_predecoder(
    path: Path,
    weights: dict[str, torch.Tensor],
    architecture: dict[str, object],
    rules: CommitRules,
    history: dict[str, object],
) -> None:
    """Saves a checkpoint atomically; kernels in bfloat16, the precision that they are used in.

    Args:
        path: a ``.safetensors`` file; its stem is the pre-decoder's name.
        weights: state dict of the network.
        architecture: arguments of ``PreDecoderNetwork``.
        rules: the commit rules chosen on validation shots.
        history: how it was trained (JSON-serialisable).
    """
    description = {
        "format": FORMAT,
        "architecture": architecture,
        "rules": dataclasses.asdict(rules),
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
    """
    path = Path(name_or_path)
    if path.suffix != ".safetensors":
        path = resource_dir("data") / f"{name_or_path}.safetensors"
    if not path.is_file():
        raise QecError(
            f"no pre-decoder checkpoint {str(name_or_path)!r}: give the path of a .safetensors "
            f"file or one of the shipped names {shipped_checkpoints()}."
        )
    weights, description = _read(path)
    try:
        network = build_network(description["architecture"])
        found = description["rules"].items()
        rules = CommitRules(**{name: CommitRule(**values) for name, values in found})
    except (KeyError, TypeError, AttributeError, QecError) as error:
        raise QecError(
            f"checkpoint {path} says nothing usable about its architecture or commit rules: {error}"
        ) from error
    want = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    have = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if want != have:
        odd = sorted(set(want.items()) ^ set(have.items()))[0][0]
        raise QecError(
            f"checkpoint {path}: the weights do not fit its architecture (first at {odd!r}); the "
            "file was mixed up or made by another version."
        )
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise QecError(f"checkpoint {path} holds weights that are NaN or infinite: retrain it.")
    network.load_state_dict(weights)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    history = description.get("history", {})
    return Predecoder(network, rules, path.stem, digest, history)


def as_predecoder(predecoder: Predecoder | str | Path) -> Predecoder:
    """The pre-decoder itself, or the one that ``load_predecoder`` finds under a name or path."""
    return load_predecoder(predecoder) if isinstance(predecoder, str | Path) else predecoder


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get("qec", "{}"))
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise QecError(f"checkpoint {path} is truncated or corrupt: {error}") from error
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise QecError(
            f"checkpoint {path} is not a pre-decoder of this version (expected format {FORMAT!r}, "
            f"found {found!r})."
        )
    return weights, description
