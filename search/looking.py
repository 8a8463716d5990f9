"""A front of coders that look through networks: tables, levels and price of a bit of one trade-off each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qtable.codecs.looking import Look
from qtable.codecs.task_aware import Effort, Network, TaskAware
from qtable.jpeg.codec import Codec
from qtable.measure.estimates import together, usual_of
from qtable.measure.sensitivity import Sensitivity, measure
from qtable.photos.sets import Photos
from qtable.progress import Progress
from qtable.tasks.base import DifferentiableTask
from qtable.tasks.opening import TaskSpec
from search.base import Box
from search.closed_form import Lagrangian, shrinkage_for
from search.refine import RunAware, coefficients_of


@dataclass(frozen=True)
class Looking:
    """The space of task-aware coders along the closed form's path, from many bytes (0) to few.

    Tables of least weighted error at a price of a bit, and levels at the same price.
    """

    path: RunAware
    networks: tuple[Network, ...]
    effort: Effort = "photo"
    codec: Codec = field(default_factory=Codec)
    look: Look = field(default_factory=Look)

    @property
    def box(self) -> Box:
        return self.path.box

    def coder(self, point: npt.NDArray[np.int64]) -> TaskAware:
        """The coder of a point int64 [1] of the box."""
        price = float(f"{np.exp(self.path.path.parameter(point)):.9g}")
        return TaskAware(self.path.tables(point), price, self.networks, self.effort, self.codec, self.look)


def looking(
    through: Sequence[tuple[TaskSpec, DifferentiableTask]],
    photos: Photos,
    codec: Codec,
    count: int,
    effort: Effort,
    folder: Path,
    progress: Progress | None = None,
    look: Look | None = None,
) -> Looking:
    """Statistics of `photos` by each network, kept in `folder`, and the space that follows from them.

    count: 1..3 tables. Statistics are of answers drawn from the network, where standard tables of the look's quality
    leave the photos; those of several networks are averaged, each in units of its usual total.
    """
    look = look or Look()
    statistics, usual, networks = [], [], []
    for i, (spec, task) in enumerate(through):
        file = folder / ("statistics.npz" if i == 0 else f"statistics-{i + 1}.npz")
        if file.exists():
            found = Sensitivity.load(file)
        else:
            found = measure(photos, task, codec, "fisher", look.draws, look.tables, seed=look.seed, progress=progress)
            found.save(file)
        statistics.append(found)
        usual.append(usual_of(found, look.tables))
        networks.append(Network.of(spec, task, usual[-1]))
    every = together(statistics, usual)
    neighbourhoods = coefficients_of(photos, codec.subsampling)
    problem = Lagrangian.of(every, count)
    path = RunAware.of(problem, every.levels, neighbourhoods, shrinkage_for(every.photos))
    return Looking(path, tuple(networks), effort, codec, look)
