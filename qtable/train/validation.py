"""What real files say of a training on the way: `Validation`, made as `qtable evaluate` measures."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from qtable.codecs.plain import TableCoder
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.evaluate import Evaluator, Score
from qtable.photos.sets import Photos
from qtable.tasks.base import DifferentiableTask
from qtable.train.recipe import TrainingError


@dataclass(frozen=True)
class Validation:
    """What real files of the `search` photos gave after `step` steps, per operating point.

    tables: their values, [k, t, 8, 8]. bytes: mean file sizes. score: the task's metric. objective: mean over the
    points of loss in nats + multiplier * bits per pixel. loss, estimated_bytes: of the batches since the validation
    before, as training estimated them.
    """

    step: int
    tables: list[list[list[list[int]]]]
    bytes: list[float]
    score: list[float]
    objective: float
    loss: float = math.nan
    estimated_bytes: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """A network with a set of tables for each operating point, as validated best; every validation, first to last."""

    network: nn.Module
    tables: list[QTables]
    history: list[Validation]
    interrupted: bool = False

    @property
    def best(self) -> Validation:
        """The validation with the smallest objective."""
        return min(self.history, key=lambda v: v.objective)


def validate(
    task: DifferentiableTask, network: nn.Module, tables: Sequence[QTables], photos: Photos, codec: Codec
) -> list[Score]:
    """What `qtable evaluate` measures: the network on real files of the photos, one score for each tables."""
    frozen = copy.deepcopy(network).eval().requires_grad_(False).to(task.device)
    with Evaluator(photos, task.with_model(frozen)) as evaluator:
        return evaluator.many([TableCoder(each, codec) for each in tables])


def validation_of(
    step: int, scores: Sequence[Score], multipliers: Sequence[float], photos: Photos, estimated: Mapping[str, Any]
) -> Validation:
    """Of the scores of each point. TrainingError for outcomes without losses."""
    pixels = np.prod(photos.sizes, axis=1)
    objectives = []
    for score, multiplier in zip(scores, multipliers, strict=True):
        losses = score.outcomes.losses()
        if losses is None:
            raise TrainingError("outcomes of this task have no losses in nats, which training is validated by")
        objectives.append(float(losses.mean()) + multiplier * float((8 * score.photo_bytes / pixels).mean()))
    sizes, right = [s.bytes for s in scores], [s.score for s in scores]
    tables = [s.tables.values.tolist() for s in scores]
    return Validation(step, tables, sizes, right, float(np.mean(objectives)), **estimated)
