"""Networks that task-aware files are made for: opened and lent to coders, with a word to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder

if TYPE_CHECKING:
    from qtable.tasks.base import DifferentiableTask
    from qtable.tasks.opening import TaskSpec


def models_to_lend(
    coders: Sequence[Coder],
    models: Sequence[str] | None,
    device: str,
    option: str,
    scored: DifferentiableTask | None = None,
) -> tuple[TaskSpec, ...]:
    """The models that a user names by `option` for coders that look through networks, lent in this process.

    scored: a task that is open already; it is lent, too, if one of the coders looks through it. ModelError if networks
    are missing; ValueError for models that no coder asks for.
    """
    if all(isinstance(coder, TableCoder) for coder in coders):
        if models:
            raise ValueError(f"these are plain tables, which ask no network; leave {option} out")
        return ()
    from qtable.cli.opening import open_task
    from qtable.codecs.task_aware import TaskAware, lend
    from qtable.tasks.base import ModelError
    from qtable.tasks.opening import TaskSpec, weights_digest

    aware = [coder for coder in coders if isinstance(coder, TaskAware)]
    weights = {network.weights for coder in aware for network in coder.networks}
    if scored is not None and weights_digest(scored.model) in weights:
        lend(scored)
    specs = tuple(TaskSpec(model, "agreement", device) for model in models or ())
    for spec in specs:
        lend(open_task(spec))
    for coder in coders:  # says what is missing before long work begins
        try:
            coder.check()
        except ModelError as error:
            raise ModelError(f"{option}: {error}") from None
    return specs
