"""The model that is trained: a network behind one `JPEGLayer` for each operating point."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from qtable.jpeg import dct
from qtable.jpeg.calibration import Calibrated, calibrated
from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.layer import HIGHEST_STEP, LOWEST_STEP, JPEGLayer
from qtable.jpeg.proxies import PROXIES, RunLength
from qtable.jpeg.tables import QTables
from qtable.photos.sets import Photos, chosen
from qtable.tasks.base import Answers, DifferentiableTask, mapped
from qtable.tasks.gradients import stacked
from qtable.train.recipe import Loss, Recipe

CALIBRATION_QUALITIES: Final = (5, 15, 40, 80)
WITHOUT_UNIT: Final = ("1/L1", "L1")
"""Rate proxies whose map to bytes is a power, not a line."""


class Joint(nn.Module):
    """A network behind one `JPEGLayer` for each operating point; gives each point's task loss and bytes.

    rate: estimates bytes per photo; replaced when it is calibrated anew.
    """

    def __init__(self, task: DifferentiableTask, starts: Sequence[QTables], codec: Codec, recipe: Recipe) -> None:
        super().__init__()
        self.network = copy.deepcopy(task.model).requires_grad_(recipe.learn != "tables")
        self.task, self.loss = task, recipe.loss
        self.layers = nn.ModuleList(JPEGLayer(tables, codec, recipe.rounding) for tables in starts)
        for layer in self.layers:
            layer.requires_grad_(recipe.learn != "network")
        self.codec = codec
        self.rate = Calibrated(proxy_of(recipe, codec), 0.0, 1.0)

    def __deepcopy__(self, memo: dict[int, Any]) -> Joint:
        """Everything but the task, whose own network stays."""
        memo[id(self.task)] = self.task
        other = self.__class__.__new__(self.__class__)
        memo[id(self)] = other
        other.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return other

    def forward(self, rgb: Tensor, target: Any) -> tuple[Tensor, Tensor]:
        """Mean task loss in nats and mean estimated bytes of each point, [k] each.

        rgb: uint8 [n, 3, h, w]; photo i goes to point i modulo k. target: of the n photos, as `task_loss` takes it.
        """
        count = len(self.layers)
        order = torch.cat([torch.arange(i, len(rgb), count) for i in range(count)])
        pixels = torch.cat([layer(rgb[i::count])[0] for i, layer in enumerate(self.layers)])
        answers = self.task.with_model(self.network).answers(pixels.contiguous(memory_format=torch.channels_last))
        losses = task_loss(self.task, self.loss, answers, self._ordered(target, order))
        sizes = [
            self.rate(dct.coefficients(rgb[i::count].float(), self.codec.subsampling), layer.steps()).mean()
            for i, layer in enumerate(self.each_layer())
        ]
        parts = torch.split(losses, [len(range(i, len(rgb), count)) for i in range(count)])
        return torch.stack([part.mean() for part in parts]), torch.stack(sizes)

    def _ordered(self, target: Any, order: Tensor) -> Any:
        if self.loss == "annotations":
            return chosen(target, order.tolist())
        return mapped(target, lambda leaf: leaf[order.to(leaf.device)])

    def train(self, mode: bool = True) -> Joint:
        """A network that does not learn stays in evaluation mode: its batch norm statistics stay as well."""
        super().train(mode)
        learns = any(parameter.requires_grad for parameter in self.network.parameters())
        self.network.train(mode and learns)
        return self

    def tables(self) -> list[QTables]:
        """The integer tables of each operating point."""
        return [layer.tables() for layer in self.each_layer()]

    def clamp(self) -> None:
        """Steps back into 1..255, so that none is so far outside that its gradient must lead it back for long."""
        with torch.no_grad():
            for layer in self.each_layer():
                layer.log_steps.clamp_(math.log(LOWEST_STEP), math.log(HIGHEST_STEP))

    def settle(self, tables: Sequence[QTables]) -> None:
        """The layers' steps become exactly `tables`."""
        with torch.no_grad():
            for layer, values in zip(self.each_layer(), tables, strict=True):
                layer.log_steps.copy_(torch.tensor(values.values, dtype=torch.float32).log())

    def each_layer(self) -> Iterator[JPEGLayer]:
        """The layers, typed."""
        for layer in self.layers:
            assert isinstance(layer, JPEGLayer)
            yield layer


def task_loss(task: DifferentiableTask, loss: Loss, answers: Answers, target: Any) -> Tensor:
    """Nats per photo, [n]. target: for "annotations" these, for "distillation" answers to diverge from."""
    return -task.log_likelihood(answers, target) if loss == "annotations" else task.divergence(answers, target)


def proxy_of(recipe: Recipe, codec: Codec) -> Any:
    """The rate proxy that a recipe names."""
    return RunLength(codec) if recipe.rate == "run-length" else PROXIES[recipe.rate]


def calibrate(joint: Joint, photos: Sequence[RGB], recipe: Recipe) -> Calibrated:
    """The rate proxy fitted to mean sizes of real files: of the operating points' tables and some standard ones."""
    every = [*joint.tables(), *map(QTables.standard, CALIBRATION_QUALITIES)]
    proxy = proxy_of(recipe, joint.codec)
    rgb = stacked(photos)
    planes = dct.coefficients(rgb, joint.codec.subsampling)
    estimates, sizes = [], []
    for tables in every:
        steps = torch.tensor(tables.components(), dtype=torch.float32)
        estimates.append(float(proxy(planes, steps).mean()))
        sizes.append(float(np.mean([len(joint.codec.encode(photo, tables)) for photo in photos])))
    return calibrated(proxy, estimates, sizes, log=recipe.rate in WITHOUT_UNIT)


def slopes(
    task: DifferentiableTask,
    photos: Photos,
    codec: Codec,
    path: Sequence[QTables],
    points: Sequence[int],
    recipe: Recipe,
    reach: int = 4,
) -> list[float]:
    """For each of `points` in `path` the multiplier (nats per bit per pixel) that holds it there.

    path: tables from many bytes to few. The multiplier is -d loss / d bits per pixel along the path, measured with
    real files of `photos` between the tables `reach` before and after the point; never below 1e-4.
    """
    found = []
    with torch.no_grad():
        batches, sizes = photos.batches(), photos.sizes
        targets = [
            photos.annotated(at) if recipe.loss == "annotations" else answers_to(task, [photos.images[i] for i in at])
            for at in batches
        ]

        def measured(tables: QTables) -> tuple[float, float]:
            losses, bits, pixels = [], 0, 0
            for at, target in zip(batches, targets, strict=True):
                files = [codec.encode(photos.images[i], tables) for i in at]
                answers = answers_to(task, [codec.decode(file) for file in files])
                losses.append(task_loss(task, recipe.loss, answers, target))
                bits += 8 * sum(map(len, files))
                pixels += sum(sizes[i][0] * sizes[i][1] for i in at)
            return float(torch.cat(losses).mean()), bits / pixels

        for point in points:
            more = measured(path[max(point - reach, 0)])
            less = measured(path[min(point + reach, len(path) - 1)])
            found.append(max(1e-4, (less[0] - more[0]) / max(more[1] - less[1], 1e-9)))
    return found


def answers_to(task: DifferentiableTask, images: Sequence[RGB]) -> Answers:
    """What the task's network says of photos of one size."""
    return task.answers(stacked(images).to(task.device))
