"""The console, and progress bars on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from qtable.progress import Watch

console = Console(stderr=True)
"""For what people read while they wait; results go to standard output."""


@contextmanager
def progress_watch(visible: bool = True) -> Iterator[Watch]:
    """A live bar per stage of long work, with an estimate of the time left."""
    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not visible) as progress:
        stages: dict[str, TaskID] = {}

        def watch(stage: str, done: int, total: int, note: str) -> None:
            if stage not in stages:
                stages[stage] = progress.add_task(stage, total=total, note="")
            progress.update(stages[stage], completed=done, note=note)

        yield watch
