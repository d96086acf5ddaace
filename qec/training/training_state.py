"""The state of a training: weights, their average, optimisers, step; saved, and resumed from."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from qec.predecoder.architectures import build_network
from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.device import resolve_precision
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.unit_cells import EDGE_CHANNELS, STATIC_CHANNELS
from qec.support.errors import QecError, first_line
from qec.support.files import atomic_path
from qec.training.data import Batch
from qec.training.distributed import SINGLE_PROCESS, ProcessGroup
from qec.training.grow_network import grow
from qec.training.loss import cross_entropy
from qec.training.muon import Muon
from qec.training.optim import build_optimisers
from qec.training.settings import TrainSettings


class TrainingState:
    """Everything that a resumed run needs: weights, their average, optimisers, the step.

    Goes on from ``state``, the path of the resumable state, where that exists.  Among several
    processes each has the same; the first writes it.

    Attributes:
        network: the weights; ``model`` computes with them.
        step: whole optimiser steps done.
        losses: of the steps since ``drain_losses``.
        mid_step: whether weights, optimisers and average are of different steps just now.
        seconds: spent training, in all sessions.
        sessions: command and hardware from each step at which either changed.
        parent: the checkpoint whose weights it started from, or None.

    Raises:
        QecError: an unsuitable model or ``init_from``, a state that cannot be resumed, or processes
            that see different states.
    """

    def __init__(
        self, settings: TrainSettings, state: Path, processes: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.state = state
        self.settings = settings
        self.processes = processes
        self.device = processes.device(settings.device)
        self.dtype = resolve_precision(settings.precision, self.device)
        network = build_network(settings.model)
        self.parent: str | None = None
        if settings.init_from and not state.exists():
            self.parent = _load_weights(network, settings.init_from)
        self.network = network.to(self.device)
        average = get_ema_multi_avg_fn(settings.ema)
        self.ema = AveragedModel(self.network, multi_avg_fn=average)
        self.optimisers = build_optimisers(self.network, settings)
        self.step, self.seconds, self.mid_step = 0, 0.0, False
        self.sessions: list[dict] = []
        self.losses: list[torch.Tensor] = []
        if state.exists():
            self._resume()
        minus_least, most = processes.maximum(-self.step, self.step)
        if minus_least != -most:
            raise QecError(
                f"the processes find different states in {state.parent}: put out= on a file system "
                "that all nodes share."
            )
        self.model: Any = processes.parallel(self.network)
        if processes.size > 1:
            self._settle_order_of_sums()
        if settings.compile:
            self.model = torch.compile(self.model)

    def open_session(self, command: Sequence[str]) -> None:
        """Notes who trains from this step on, if anything is left to train."""
        if self.step >= self.settings.steps:
            return
        hardware = f"{self.device.type}, {torch.get_num_threads()} threads, {self.dtype}"
        if self.processes.size > 1:
            hardware = f"{self.processes.size} processes: {hardware}"
        session = {"command": shlex.join(command), "hardware": hardware}
        if not self.sessions or self.sessions[-1] != {**session, "step": self.sessions[-1]["step"]}:
            self.sessions.append({**session, "step": self.step})

    def train_step(self, batch: Batch) -> torch.Tensor:
        """One optimiser step; returns the loss, a float32 scalar, the mean over the processes."""
        loss = self.backward(batch)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.mid_step = True
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.ema.update_parameters(self.network)
        self.step += 1
        self.losses.append(loss)
        self.mid_step = False
        return loss

    def backward(self, batch: Batch) -> torch.Tensor:
        """Adds to the gradients, and returns the loss, a float32 scalar: means over the processes.

        Shares of a batch have the same circuit and size, so that these are those of all of it.
        """
        events, static, labels, valid = (t.to(self.device, non_blocking=True) for t in batch)
        mixed = self.dtype == torch.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            logits = self.model(events.to(self.dtype), static)
        loss = cross_entropy(logits, labels, valid, static[0, :EDGE_CHANNELS])
        loss.backward()
        return self.processes.mean(loss.detach())

    def _settle_order_of_sums(self) -> None:
        """A backward pass for nothing, after which DistributedDataParallel regroups gradients.

        Left to the first step, the step after a resume would round in another way than without.
        """
        shape = (2, 2, 2)
        events = torch.zeros(1, self.network.inputs, *shape, device=self.device)
        static = torch.zeros(1, STATIC_CHANNELS, *shape, device=self.device)
        self.model(events, static).sum().backward()
        self.network.zero_grad(set_to_none=True)

    def drain_losses(self) -> float:
        """The mean of ``losses``, which it empties: batches differ too much to show each."""
        mean = torch.stack(self.losses).mean().item()
        self.losses.clear()
        return mean

    def _parts(self) -> dict[str, dict]:
        losses = torch.stack(self.losses) if self.losses else torch.empty(0)
        parts = {
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "losses": {"recent": losses},
        }
        for k, optimiser in enumerate(self.optimisers):
            state = optimiser.state_dict()["state"]
            parts[f"optimiser{k}"] = {
                f"{index}.{key}": torch.as_tensor(value)
                for index, entries in state.items()
                for key, value in entries.items()
            }
        return parts

    def save(self) -> None:
        """Writes the state; QecError, and the old state stays, if a tensor is not finite."""
        tensors = {
            f"{part}/{name}": tensor.detach()
            for part, entries in self._parts().items()
            for name, tensor in entries.items()
        }
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise self.diverged("weights are not finite")
        if not self.processes.first:
            return
        record = {
            "settings": self.settings.deciding(),
            "parent": self.parent,
            "sessions": self.sessions,
        }
        meta = {
            "step": str(self.step),
            "seconds": str(self.seconds),
            "record": json.dumps(record),
        }
        with atomic_path(self.state) as temporary:
            copies = {name: tensor.cpu().clone() for name, tensor in tensors.items()}
            save_file(copies, temporary, metadata=meta)

    def diverged(self, what: str) -> QecError:
        """The error that says so, and what to do."""
        return QecError(
            f"{what} at step {self.step}: train again with a lower muon_lr= or adamw_lr= and "
            "another out=."
        )

    def _resume(self) -> None:
        try:
            with safe_open(self.state, framework="pt") as file:
                meta = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self._read_record(meta)
            parts: dict[str, dict] = {}
            for name, tensor in tensors.items():
                part, _, key = name.partition("/")
                parts.setdefault(part, {})[key] = tensor
            self._check(parts)
        except QecError:
            raise
        except _DAMAGE as error:
            raise QecError(
                f"cannot resume from {self.state} ({first_line(error)}): it belongs to "
                "another model or is corrupt. Remove it or choose another out=."
            ) from error
        self.network.load_state_dict(parts["network"])
        self.ema.load_state_dict(parts["ema"])
        for k, optimiser in enumerate(self.optimisers):
            full = optimiser.state_dict()
            for key, tensor in parts.get(f"optimiser{k}", {}).items():
                index, _, name = key.partition(".")
                full["state"].setdefault(int(index), {})[name] = tensor
            optimiser.load_state_dict(full)
        self.losses = list(_recent(parts).to(self.device))
        if self.processes.first:
            print(f"resumed from {self.state} at step {self.step}")

    def _read_record(self, meta: dict[str, str]) -> None:
        """Takes over what the state says about its run; QecError if the settings differ.

        Raises:
            ValueError, KeyError, TypeError: it says nothing of the kind.
        """
        self.step, self.seconds = int(meta["step"]), float(meta["seconds"])
        if not 0 <= self.step < 2**53 or not 0 <= self.seconds < math.inf:
            raise ValueError(f"step {self.step} after {self.seconds} seconds")
        record = json.loads(meta["record"])
        recorded = dict(**record["settings"])
        for key, now in self.settings.deciding().items():
            if (before := recorded.get(key, now)) != now:
                raise QecError(
                    f"cannot resume from {self.state}: its run has {key}={before}, this command "
                    f"{key}={now}. Use the same value or choose another out=."
                )
        self.parent, self.sessions = record["parent"], record["sessions"]
        types = {"command": str, "hardware": str, "step": int}
        fit = isinstance(self.parent, str | None) and all(
            {key: type(value) for key, value in session.items()} == types
            and 0 <= session["step"] <= self.step
            for session in self.sessions
        )
        if not fit or not self.sessions:
            raise ValueError("its record of sessions makes no sense")

    def _check(self, parts: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """ValueError or KeyError unless the parts of a state are those of this run."""
        known = {
            "network",
            "ema",
            "losses",
            *(f"optimiser{k}" for k in range(len(self.optimisers))),
        }
        if not parts.keys() <= known or not parts.get("losses", {}).keys() <= {"recent"}:
            raise ValueError("it holds more than a state")
        for part in ("network", "ema"):
            _check_like(parts[part], getattr(self, part).state_dict())
        if _recent(parts).ndim != 1:
            raise ValueError("its losses are no list")
        for k, optimiser in enumerate(self.optimisers):
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            names: tuple[str, ...] = ("step", "exp_avg", "exp_avg_sq")
            if isinstance(optimiser, Muon):
                names = ("momentum_buffer",)
            found = parts.get(f"optimiser{k}", {})
            wanted = {
                f"{number}.{name}": torch.tensor(0.0) if name == "step" else parameter
                for number, parameter in enumerate(parameters)
                for name in names
            }
            _check_like(found, wanted if self.step else {})
            if not all(0 <= float(found[key]) <= self.step for key in found if "step" in key):
                raise ValueError("an optimiser is of another step")
        if not all(tensor.isfinite().all() for part in parts.values() for tensor in part.values()):
            raise ValueError("not all numbers are finite")


def _recent(parts: Mapping[str, Mapping[str, torch.Tensor]]) -> torch.Tensor:
    return parts.get("losses", {}).get("recent", torch.empty(0))


_DAMAGE = (
    *(SafetensorError, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError),
    *(RuntimeError, OverflowError),
)


def _check_like(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    """ValueError unless names, shapes and dtypes are the same."""
    if odd := sorted(found.keys() ^ wanted.keys()):
        raise ValueError(f"{odd[0]} is missing or not of this model")
    for name, tensor in found.items():
        like = wanted[name]
        if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}")


def _load_weights(network: PreDecoderNetwork, name: str) -> str:
    """Fills ``network`` with a checkpoint's weights, grown if need be; returns what to call it."""
    parent = load_predecoder(name)
    try:
        grow(parent.network, network)
    except QecError as error:
        raise QecError(f"init_from={name} does not fit model=: {error}") from error
    return f"{parent.name}@{parent.digest} ({parent.metadata.get('shots')} shots)"
