"""What a training shows: TensorBoard curves, and a progress bar or lines in a log file."""

from __future__ import annotations

from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter


class TrainingLog:
    """A context that shows a training from ``step`` to ``total``; nothing unless ``shown``."""

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
        # A step that a killed session logged after its last state comes again: hide the first.
        self._writer = SummaryWriter(folder, purge_step=step + 1) if shown else None

    def __enter__(self) -> TrainingLog:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def loss(self, step: int, loss: float, lr_factor: float) -> None:
        """A point of the loss curve."""
        if self._writer is not None:
            self._writer.add_scalar("loss", loss, step)
            self._writer.add_scalar("lr_factor", lr_factor, step)
        self._bar.update(self._task, completed=step, loss=f"{loss:.5f}")

    def saving(self, step: int, seconds: float) -> None:
        """Call before a state is saved, so that no curve lags behind; a line if there is no bar."""
        if self._writer is not None:
            self._writer.flush()
        if self.shown and not self._bar.console.is_terminal:
            loss = self._bar.tasks[0].fields["loss"]
            minutes = f"{seconds / 60:.1f} minutes"
            print(f"step {step} of {self.total}, loss {loss}, {minutes}", flush=True)
