"""Networks that task-aware files are made for: opened and lent to coders, with a word to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder

if TYPE_CHECKING:
    from qtable.tasks.opening import TaskSpec


def models_to_lend(coder: Coder, models: Sequence[str] | None, device: str) -> tuple[TaskSpec, ...]:
    """The models that a user names for a coder that looks through networks, lent in this process.

    ModelError if they are not the ones that the coder was made with; ValueError for models that no coder asks for.
    """
    if isinstance(coder, TableCoder):
        if models:
            raise ValueError("these are plain tables, which ask no network; leave --model out")
        return ()
    from qtable.cli.opening import open_task
    from qtable.codecs.task_aware import TaskAware, lend
    from qtable.tasks.opening import TaskSpec

    specs = tuple(TaskSpec(model, "agreement", device) for model in models or ())
    for spec in specs:
        lend(open_task(spec))
    if isinstance(coder, TaskAware) and coder.effort != "frequency":
        for network in coder.networks:
            network.task()  # says what is missing before long work begins
    return specs
