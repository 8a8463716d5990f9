"""What `qtable optimize --method NAME` means: a space and a searcher in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from qtable.codec import Codec
from qtable.data import Photos, Progress
from qtable.sensitivity import Sensitivity, measure
from qtable.task import DifferentiableTask
from search.base import Searcher
from search.closed_form import Lagrangian, Multiplier, Sweep
from search.random_search import RandomSearch
from search.space import Full, Sorted, Space


@dataclass(frozen=True)
class Setting:
    """What a method may use: number of tables, a seeded generator, the `fit` photos, the task and the codec.

    statistics: file in which sensitivity statistics of these photos are kept, so that a run that continues has them.
    """

    count: int
    rng: np.random.Generator
    fit: Photos
    task: DifferentiableTask
    codec: Codec
    statistics: Path
    progress: Progress | None = None

    def sensitivity(self) -> Sensitivity:
        """Statistics of the `fit` photos, measured once."""
        if self.statistics.exists():
            return Sensitivity.load(self.statistics)
        measured = measure(self.fit, self.task, self.codec, progress=self.progress)
        measured.save(self.statistics)
        return measured


def _closed_form(setting: Setting) -> tuple[Space, Searcher]:
    space = Multiplier(Lagrangian.of(setting.sensitivity(), setting.count))
    return space, Sweep(space.box)


def _random(setting: Setting) -> tuple[Space, Searcher]:
    space = Full(setting.count)
    return space, RandomSearch(space.box, setting.rng)


def _sorted_random(setting: Setting) -> tuple[Space, Searcher]:
    space = Sorted(setting.count)
    return space, RandomSearch(space.box, setting.rng)


METHODS: Final[dict[str, Callable[[Setting], tuple[Space, Searcher]]]] = {
    "closed-form": _closed_form,
    "sorted-random": _sorted_random,
    "random": _random,
}
