"""What a training shows: TensorBoard curves, and a progress bar or lines in a log file."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from qec.support.errors import QecError


class _Curves:
    """An event file of TensorBoard.  Its own writer has a thread, whose errors are tracebacks."""

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / (
            f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        )
        self._write(Event(file_version="brain.Event:2"))
        # A step that a killed session logged after its last state comes again: hide the first.
        self._write(Event(session_log=SessionLog(status=SessionLog.START), step=step + 1))

    def add(self, step: int, **values: float) -> None:
        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=points)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                RecordWriter(file).write(event.SerializeToString())
        except OSError as error:
            raise QecError(f"cannot write {self._path}: {error.strerror or error}.") from error


class TrainingLog:
    """A context that shows a training from ``step`` to ``total``; nothing unless ``shown``.

    Raises:
        QecError: the curves cannot be written to ``folder``.
    """

    def __init__(self, folder: Path, step: int, total: int, *, shown: bool = True) -> None:
        self.total, self.shown = total, shown
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            disable=not shown,
        )
        self._task = self._bar.add_task("training", total=total, completed=step, loss="")
        self._curves = _Curves(folder, step) if shown else None

    def __enter__(self) -> TrainingLog:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def loss(self, step: int, loss: float, lr_factor: float) -> None:
        """A point of the loss curve."""
        if self._curves is not None:
            self._curves.add(step, loss=loss, lr_factor=lr_factor)
        self._bar.update(self._task, completed=step, loss=f"{loss:.5f}")

    def saving(self, step: int, seconds: float) -> None:
        """Call before a state is saved: a line if there is no bar."""
        if self.shown and not self._bar.console.is_terminal:
            loss = self._bar.tasks[0].fields["loss"]
            minutes = f"{seconds / 60:.1f} minutes"
            print(f"step {step} of {self.total}, loss {loss}, {minutes}", flush=True)
