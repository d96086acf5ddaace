"""A bar for work that takes long."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

Part = TypeVar("Part")

_PATIENCE = 2.0  # seconds without a bar


def with_bar(parts: Sequence[Part], what: str) -> Iterator[Part]:
    """The parts, one after the other; a terminal's standard error shows how far they are.

    The bar appears once they have taken seconds, and is wiped out at the end.
    """
    console = Console(stderr=True)
    begun = time.monotonic()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.stop()
        task = None
        for k, part in enumerate(parts):
            if task is None and time.monotonic() - begun > _PATIENCE:
                bar.start()
                task = bar.add_task(what, total=len(parts))
            if task is not None:
                bar.update(task, completed=k)
            yield part
