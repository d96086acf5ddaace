"""The training loop, from configuration to checkpoint.

state.safetensors in the output folder holds everything needed to go on; a run that finds it there
resumes.  At the end the commit threshold is chosen on validation shots and <out>/<name>.safetensors
is written for use, with its model card.
"""

from __future__ import annotations

import contextlib
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

from qec.errors import QecError
from qec.files import atomic_path, make_folder
from qec.predecoder.checkpoint import load_predecoder, save_predecoder
from qec.predecoder.precision import autocast, network_dtype
from qec.predecoder.zoo import architecture, build_network
from qec.training.card import model_card
from qec.training.data import Batch, batches
from qec.training.optim import build_optimisers, set_learning_rate
from qec.training.validate import VALIDATION_SEED, choose_threshold, validation_table


def train(cfg, command: Sequence[str] = ("qec", "train")) -> Path:
    """Trains a pre-decoder as ``cfg`` says (conf/train.yaml); returns the checkpoint's path.

    ``command`` is recorded in the checkpoint and its model card.

    Raises:
        QecError: settings that make no sense, or a state in the folder that belongs to another run.
    """
    if cfg.batch < 64 or cfg.batch % 64:
        raise QecError(f"batch={cfg.batch} must be a positive multiple of 64.")
    out = Path(cfg.out)
    make_folder(out)
    torch.manual_seed(cfg.seed)
    run = _Run(cfg)
    run.resume(out / "state.safetensors")
    try:
        _optimise(run, cfg, out)
    finally:  # a stopped run goes on from here
        run.save(out / "state.safetensors")
    return _finish(run, cfg, out, command)


def _optimise(run: _Run, cfg, out: Path) -> None:
    total = int(cfg.shots) // cfg.batch
    writer = SummaryWriter(out / "tensorboard", purge_step=run.step)
    started = last_save = time.monotonic()
    seconds_before = run.seconds
    with _progress() as bar, contextlib.closing(writer):
        task = bar.add_task("training", total=total, completed=run.step, loss="")
        recent: list[torch.Tensor] = []
        for batch in batches(cfg, run.step, total):
            factor = set_learning_rate(run.optimisers, run.step, total, cfg.warmup)
            recent.append(run.train_step(batch))
            run.step += 1
            if run.step % cfg.log_every == 0 or run.step == total:
                mean = torch.stack(recent).mean().item()  # batches differ much: average them
                recent.clear()
                if not math.isfinite(mean):
                    raise QecError(f"the loss is {mean} at step {run.step}: lower muon_lr.")
                writer.add_scalar("loss", mean, run.step)
                writer.add_scalar("lr_factor", factor, run.step)
                bar.update(task, completed=run.step, loss=f"{mean:.5f}")
            now = time.monotonic()
            run.seconds = seconds_before + now - started
            if now - last_save > cfg.save_every:
                run.save(out / "state.safetensors")
                last_save = now
                if not bar.console.is_terminal:  # a log file: lines in place of the bar
                    loss = bar.tasks[task].fields["loss"]
                    minutes = f"{run.seconds / 60:.1f} minutes"
                    print(f"step {run.step} of {total}, loss {loss}, {minutes}", flush=True)


def _finish(run: _Run, cfg, out: Path, command: Sequence[str]) -> Path:
    """Chooses the commit threshold; writes the checkpoint with its history, and its card."""
    network = run.ema.module.eval()
    threshold, figures = choose_threshold(network, cfg)
    history = {
        "shots": run.step * cfg.batch,
        "minutes": round(run.seconds / 60, 1),
        "hardware": f"{cfg.device}, {torch.get_num_threads()} threads, {network_dtype(run.device)}",
        "labels": "correlated matching" if cfg.labels == "matching" else "sampled errors",
        "distances": list(cfg.distances),
        "rounds": "as many as the distance" if cfg.rounds is None else cfg.rounds,
        "orientations": sorted(set(cfg.orientations)),
        "noises": sorted(set(cfg.noises)),
        "p_range": [min(cfg.ps), max(cfg.ps)],
        **{key: cfg[key] for key in ("seed", "batch", "muon_lr", "adamw_lr", "ema")},
        "init_from": run.parent,
        "command": shlex.join(command),
        "validation_shots": cfg.validation_shots,
        "validation_p": cfg.validation_p,
        "validation_seed": VALIDATION_SEED,
        "validation": figures,
    }
    path = out / f"{out.name}.safetensors"
    save_predecoder(path, network.state_dict(), run.architecture, threshold, history)
    with atomic_path(path.with_suffix(".md")) as temporary:
        temporary.write_text(model_card(load_predecoder(path)))
    Console().print(validation_table(figures, threshold))
    print(f"{path}: {history['shots']} shots, {history['minutes']} minutes, threshold {threshold}")
    return path


class _Run:
    """Everything that a resumed run needs: weights, their average, optimisers, the step."""

    def __init__(self, cfg) -> None:
        self.architecture = architecture(cfg.model)
        network = build_network(self.architecture)
        self.device = torch.device(cfg.device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise QecError("device=cuda, but torch finds no CUDA device: use device=cpu.")
        self.parent = None
        if cfg.init_from:
            parent = load_predecoder(cfg.init_from)
            self.parent = f"{parent.name}@{parent.digest} ({parent.metadata.get('shots')} shots)"
            network.load_state_dict(parent.network.state_dict())
        self.network = network.to(self.device)
        self.ema = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(cfg.ema))
        self.optimisers = build_optimisers(self.network, cfg)
        self.step = 0
        self.seconds = 0.0

    def train_step(self, batch: Batch) -> torch.Tensor:
        """One optimiser step on the mean binary cross-entropy of the visible chain bits."""
        events, static, labels, valid = (tensor.to(self.device) for tensor in batch)
        with autocast(self.device):
            logits = self.network(events.to(network_dtype(self.device)), static)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits.float(), labels.float(), weight=valid.float(), reduction="sum"
        ) / (valid.sum() * len(events))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.ema.update_parameters(self.network)
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

    def save(self, path: Path) -> None:
        tensors = {
            f"{part}/{name}": tensor.detach().cpu().clone()
            for part, entries in self._parts().items()
            for name, tensor in entries.items()
        }
        meta = {"step": str(self.step), "seconds": str(self.seconds)}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata=meta)

    def resume(self, path: Path) -> None:
        """Goes on from ``path`` where it exists."""
        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as file:
                meta = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            parts: dict[str, dict] = {}
            for name, tensor in tensors.items():
                part, _, key = name.partition("/")
                parts.setdefault(part, {})[key] = tensor
            self.network.load_state_dict(parts["network"])
            self.ema.load_state_dict(parts["ema"])
        except (SafetensorError, OSError, KeyError, RuntimeError) as error:
            raise QecError(
                f"cannot resume from {path} ({str(error).splitlines()[0]}): it belongs to another "
                "model or is corrupt. Remove it or choose another out=."
            ) from error
        for k, optimiser in enumerate(self.optimisers):
            full = optimiser.state_dict()
            for key, tensor in parts.get(f"optimiser{k}", {}).items():
                index, _, name = key.partition(".")
                full["state"].setdefault(int(index), {})[name] = tensor
            optimiser.load_state_dict(full)
        self.step, self.seconds = int(meta["step"]), float(meta["seconds"])
        print(f"resumed from {path} at step {self.step}")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
