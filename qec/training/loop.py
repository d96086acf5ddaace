"""The training loop, from configuration to checkpoint.

state.safetensors in the output folder holds everything needed to go on; a run that finds it there
resumes.  At the end the commit rules are chosen on validation shots and <out>/<name>.safetensors
is written for use, with its model card.
"""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from qec.errors import QecError, first_line
from qec.files import atomic_path, make_folder
from qec.predecoder.checkpoint import load_predecoder, save_predecoder
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.precision import autocast, network_dtype
from qec.predecoder.zoo import build_network
from qec.training.card import model_card
from qec.training.data import Batch, batches, check_mixture
from qec.training.grow import grow
from qec.training.loss import cross_entropy
from qec.training.optim import build_optimisers, set_learning_rate
from qec.training.settings import TrainSettings
from qec.training.validate import VALIDATION_SEED, choose_rules, validation_table


def train(settings: TrainSettings, command: Sequence[str] = ("qec", "train")) -> Path:
    """Trains a pre-decoder; returns the checkpoint's path.

    Ctrl-C saves the state, unless it strikes in the middle of an optimiser step: then the state
    saved last stands, at most ``save_every`` seconds old.  ``command`` is recorded in the
    checkpoint and its model card.

    Raises:
        QecError: settings that make no sense, a state in the folder that belongs to another run,
            or a loss or weights that are not finite (the last good state stays).
    """
    check_mixture(settings)
    torch.manual_seed(settings.seed)
    run = _Run(settings, settings.out / "state.safetensors")
    run.open_session(command)
    make_folder(settings.out)
    try:
        _optimise(run, settings)
        run.save()
    except KeyboardInterrupt:
        if not run.mid_step:
            run.save()
        raise
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise QecError(
            "a process that makes batches was killed, perhaps for memory: resume with fewer "
            "workers=, or train with smaller distances= and another out=."
        ) from error
    return _finish(run, settings)


def _optimise(run: _Run, settings: TrainSettings) -> None:
    total = settings.steps
    writer = SummaryWriter(settings.out / "tensorboard", purge_step=run.step)
    started = last_save = time.monotonic()
    seconds_before = run.seconds
    with _progress() as bar, contextlib.closing(writer):
        task = bar.add_task("training", total=total, completed=run.step, loss="")
        recent: list[torch.Tensor] = []
        for batch in batches(settings, run.step, total):
            factor = set_learning_rate(run.optimisers, run.step, total, settings.warmup)
            recent.append(run.train_step(batch))
            if run.step % settings.log_every == 0 or run.step == total:
                mean = torch.stack(recent).mean().item()  # batches differ much: average them
                recent.clear()
                if not math.isfinite(mean):
                    raise _diverged(f"the loss is {mean}", run.step)
                writer.add_scalar("loss", mean, run.step)
                writer.add_scalar("lr_factor", factor, run.step)
                bar.update(task, completed=run.step, loss=f"{mean:.5f}")
            now = time.monotonic()
            run.seconds = seconds_before + now - started
            if now - last_save > settings.save_every:
                run.save()
                last_save = now
                if not bar.console.is_terminal:  # a log file: lines in place of the bar
                    loss = bar.tasks[task].fields["loss"]
                    minutes = f"{run.seconds / 60:.1f} minutes"
                    print(f"step {run.step} of {total}, loss {loss}, {minutes}", flush=True)


def _diverged(what: str, step: int) -> QecError:
    return QecError(
        f"{what} at step {step}: train again with a lower muon_lr= or adamw_lr= and another out=."
    )


def _finish(run: _Run, settings: TrainSettings) -> Path:
    """Chooses the commit rules; writes the checkpoint with its history, and its card."""
    network = run.ema.module.eval()
    choice = choose_rules(network, settings)
    history = {
        **settings.deciding(),
        "shots": run.step * settings.batch,
        "minutes": round(run.seconds / 60, 1),
        "started_from": run.parent,
        "sessions": run.sessions,
        "validation_shots": settings.validation_shots,
        "validation_noises": settings.validation_noises,
        "validation_p": settings.validation_p,
        "validation_seed": VALIDATION_SEED,
        "validation": choice.records,
        "validation_density": settings.validation_density,
        "validation_c": settings.validation_c,
        "warnings": choice.warnings,
    }
    path = settings.out / f"{settings.out.resolve().name}.safetensors"
    save_predecoder(path, network.state_dict(), settings.model, choice.rules, history)
    with atomic_path(path.with_suffix(".md")) as temporary:
        temporary.write_text(model_card(load_predecoder(path)))
    Console().print(validation_table(choice.records, choice.rules))
    for warning in choice.warnings:
        print(f"warning: {warning}.")
    shots, minutes = history["shots"], history["minutes"]
    print(f"{path}: {shots} shots, {minutes} minutes, {choice.rules}")
    return path


class _Run:
    """Everything that a resumed run needs: weights, their average, optimisers, the step.

    Goes on from ``state``, the path of the resumable state, where that exists.

    Attributes:
        step: whole optimiser steps done.
        mid_step: whether weights, optimisers and average are of different steps just now.
        seconds: spent training, in all sessions.
        sessions: command and hardware from each step at which either changed.
        parent: the checkpoint whose weights it started from, or None.

    Raises:
        QecError: an unsuitable model or ``init_from``, or a state that cannot be resumed.
    """

    def __init__(self, settings: TrainSettings, state: Path) -> None:
        self.state = state
        self.settings = settings
        self.device = torch.device(settings.device)
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
        if state.exists():
            self._resume()

    def open_session(self, command: Sequence[str]) -> None:
        """Notes who trains from this step on, if anything is left to train."""
        if self.step >= self.settings.steps:
            return
        hardware = f"{self.device}, {torch.get_num_threads()} threads, {network_dtype(self.device)}"
        session = {"command": shlex.join(command), "hardware": hardware}
        if not self.sessions or self.sessions[-1] != {**session, "step": self.sessions[-1]["step"]}:
            self.sessions.append({**session, "step": self.step})

    def train_step(self, batch: Batch) -> torch.Tensor:
        """One optimiser step."""
        events, static, labels, valid = (tensor.to(self.device) for tensor in batch)
        with autocast(self.device):
            logits = self.network(events.to(network_dtype(self.device)), static)
        loss = cross_entropy(logits, labels, valid)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.mid_step = True
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.ema.update_parameters(self.network)
        self.step += 1
        self.mid_step = False
        return loss.detach()

    def _parts(self) -> dict[str, dict]:
        parts = {"network": self.network.state_dict(), "ema": self.ema.state_dict()}
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
            f"{part}/{name}": tensor.detach().cpu().clone()
            for part, entries in self._parts().items()
            for name, tensor in entries.items()
        }
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise _diverged("weights are not finite", self.step)
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
            save_file(tensors, temporary, metadata=meta)

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
            self.network.load_state_dict(parts["network"])
            self.ema.load_state_dict(parts["ema"])
        except (SafetensorError, OSError, KeyError, RuntimeError, json.JSONDecodeError) as error:
            raise QecError(
                f"cannot resume from {self.state} ({first_line(error)}): it belongs to "
                "another model or is corrupt. Remove it or choose another out=."
            ) from error
        for k, optimiser in enumerate(self.optimisers):
            full = optimiser.state_dict()
            for key, tensor in parts.get(f"optimiser{k}", {}).items():
                index, _, name = key.partition(".")
                full["state"].setdefault(int(index), {})[name] = tensor
            optimiser.load_state_dict(full)
        print(f"resumed from {self.state} at step {self.step}")

    def _read_record(self, meta: dict[str, str]) -> None:
        """Takes over what the state says about its run; QecError if the settings differ."""
        self.step, self.seconds = int(meta["step"]), float(meta["seconds"])
        if "record" not in meta:  # written by the first version, which kept no record
            self.parent = self.settings.init_from
            self.sessions = [{"command": "not recorded", "hardware": "not recorded", "step": 0}]
            return
        record = json.loads(meta["record"])
        for key, now in self.settings.deciding().items():
            if (before := record["settings"].get(key, now)) != now:
                raise QecError(
                    f"cannot resume from {self.state}: its run has {key}={before}, this command "
                    f"{key}={now}. Use the same value or choose another out=."
                )
        self.parent, self.sessions = record["parent"], record["sessions"]


def _load_weights(network: PreDecoderNetwork, name: str) -> str:
    """Fills ``network`` with a checkpoint's weights, grown if need be; returns what to call it."""
    parent = load_predecoder(name)
    try:
        grow(parent.network, network)
    except QecError as error:
        raise QecError(f"init_from={name} does not fit model=: {error}") from error
    return f"{parent.name}@{parent.digest} ({parent.metadata.get('shots')} shots)"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
