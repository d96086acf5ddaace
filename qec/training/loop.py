"""The training loop, from configuration to checkpoint.

state.safetensors in the output folder holds everything needed to go on; a run that finds it there
resumes.  With each state that is saved on the way, and at the end, <out>/<name>.safetensors is
written for use.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from qec.predecoder.checkpoint import save_predecoder
from qec.support.errors import Preempted, QecError
from qec.support.folder_lock import sole_writer
from qec.support.stop_signals import stop_requests
from qec.training.data import batches, check_mixture
from qec.training.distributed import ProcessGroup
from qec.training.optim import set_learning_rate
from qec.training.settings import TrainSettings
from qec.training.training_log import TrainingLog
from qec.training.training_state import TrainingState


def train(settings: TrainSettings, command: Sequence[str] = ("qec", "train")) -> Path:
    """Trains a pre-decoder; returns the checkpoint's path.

    Ctrl-C saves the state, unless it strikes in the middle of an optimiser step: then the state
    saved last stands, at most ``save_every`` seconds old.  SIGUSR1 and SIGTERM let the step end and
    save.  ``command`` is recorded in the checkpoint.  Of several processes (see ``ProcessGroup``)
    the first writes the files; the others return before there is a checkpoint.

    Raises:
        QecError: settings that make no sense, a state in the folder that belongs to another run,
            or a loss or weights that are not finite (the last good state stays).
        Preempted: after SIGUSR1 or SIGTERM to any of the processes.
    """
    processes = ProcessGroup.discover()
    if settings.shards % processes.size:
        raise QecError(
            f"shards={settings.shards} cannot be dealt out to {processes.size} processes: use a "
            "multiple of that number."
        )
    with sole_writer(settings.out) if processes.first else contextlib.nullcontext():
        return _train_and_finish(settings, processes, command)


def _train_and_finish(
    settings: TrainSettings, processes: ProcessGroup, command: Sequence[str]
) -> Path:
    check_mixture(settings)
    torch.manual_seed(settings.seed)
    torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = settings.tf32
    with processes.joined(processes.device(settings.device)):
        run = TrainingState(settings, settings.out / "state.safetensors", processes)
        stopped_by = _train(run, settings, command)
    if stopped_by is not None:
        if processes.first:
            _finish(run, settings)
        raise Preempted(f"stopped by {stopped_by} at step {run.step} of {settings.steps}")
    return _finish(run, settings) if processes.first else settings.checkpoint


def _train(run: TrainingState, settings: TrainSettings, command: Sequence[str]) -> str | None:
    """To the last step, or until a stop signal, whose name it returns; saves the state."""
    if run.processes.first:
        run.open_session(command)
    try:
        stopped_by = _optimise(run, settings)
        run.save()
        run.processes.wait()  # once one has left, srun ends all, be the state half written
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
    return stopped_by


def _optimise(run: TrainingState, settings: TrainSettings) -> str | None:
    """Trains to the last step; returns the name of the signal that has stopped it, if any."""
    total, processes = settings.steps, run.processes
    started = last_save = time.monotonic()
    seconds_before = run.seconds
    log = TrainingLog(settings.out / "tensorboard", run.step, total, shown=processes.first)
    with stop_requests() as request, log:
        for batch in batches(settings, run.step, total, processes):
            factor = set_learning_rate(run.optimisers, run.step, total, settings.warmup)
            run.train_step(batch)
            if run.step % settings.log_every == 0 or run.step == total:
                mean = run.drain_losses()
                if not math.isfinite(mean):
                    raise run.diverged(f"the loss is {mean}")
                log.loss(run.step, mean, factor)
            now = time.monotonic()
            run.seconds = seconds_before + now - started
            # What one process has to stop or save for, all do, and after the same step.
            stop, save = processes.maximum(
                request.name is not None, now - last_save > settings.save_every
            )
            if stop:
                return request.name or "a signal to another process"
            if save:
                log.saving(run.step, run.seconds)
                run.save()
                if processes.first:
                    _finish(run, settings)
                last_save = now
    return None


def _finish(run: TrainingState, settings: TrainSettings) -> Path:
    """Writes the checkpoint with its history."""
    history = {
        **settings.deciding(),
        "shots": run.step * settings.batch,
        "minutes": round(run.seconds / 60, 1),
        "started_from": run.parent,
        "sessions": run.sessions,
    }
    weights = run.ema.module.state_dict()
    save_predecoder(settings.checkpoint, weights, settings.model, settings.threshold, history)
    return settings.checkpoint
