"""What each step of training sees: photos drawn, cropped and mirrored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from qtable.photos.sets import Annotations, Photos, collected
from qtable.tasks.base import DifferentiableTask
from qtable.train.recipe import Recipe, TrainingError


class Draw(NamedTuple):
    """One training example: a photo, where in it (0..1 of what the crop leaves), whether mirrored."""

    photo: int
    top: float
    left: float
    mirrored: bool


class Draws(Sampler[list[Draw]]):
    """What each step from `first` on sees: photos in a new order each epoch; the same for the same seed and step.

    rank, world, points: this process takes every `world`-th run of `points` examples of a batch, so that an example
    has the same operating point however many processes there are.
    """

    def __init__(
        self, photos: int, recipe: Recipe, first: int = 0, rank: int = 0, world: int = 1, points: int = 1
    ) -> None:
        self.photos, self.recipe, self.first = photos, recipe, first
        self.rank, self.world, self.points = rank, world, points

    def __len__(self) -> int:
        return self.recipe.steps - self.first

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.first, self.recipe.steps):
            yield [d for i, d in enumerate(self.step(step)) if i // self.points % self.world == self.rank]

    def step(self, step: int) -> list[Draw]:
        """The whole batch of a step."""
        batch, seed = self.recipe.batch, self.recipe.seed
        places = np.arange(step * batch, (step + 1) * batch)
        orders = {
            epoch: np.random.default_rng([seed, 0, epoch]).permutation(self.photos)
            for epoch in np.unique(places // self.photos).tolist()
        }
        rng = np.random.default_rng([seed, 1, step])
        where, mirrored = rng.random((batch, 2)), rng.random(batch) < 0.5 * self.recipe.flip
        return [
            Draw(int(orders[place // self.photos][place % self.photos]), float(y), float(x), bool(m))
            for place, (y, x), m in zip(places.tolist(), where, mirrored, strict=True)
        ]


class Crops(Dataset[tuple[Tensor, Any]]):
    """uint8 [3, side, side] and annotation of each `Draw`: cropped and mirrored before compression, as by a camera."""

    def __init__(self, photos: Photos, side: int, task: DifferentiableTask) -> None:
        self.photos, self.side, self.task = photos, side, task

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Any]:
        image = self.photos.images[draw.photo]
        top, left = (
            min(int(share * (size - self.side + 1)), size - self.side)
            for share, size in zip((draw.top, draw.left), image.shape[:2], strict=True)
        )
        crop = image[top : top + self.side, left : left + self.side]
        crop = crop[:, ::-1] if draw.mirrored else crop
        known = self.photos.annotations
        if known is not None:
            known = self.task.crop(known[draw.photo], top, left, self.side, draw.mirrored)
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))), known


def together(examples: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, Annotations]:
    """A batch: uint8 [n, 3, side, side], and the annotations."""
    return torch.stack([rgb for rgb, _ in examples]), collected([known for _, known in examples])


def crop_side(photos: Photos, recipe: Recipe) -> int:
    """The side of the training crops. TrainingError if a photo is smaller than the recipe's."""
    smallest = min(map(min, photos.sizes))
    if recipe.crop is not None and recipe.crop > smallest:
        raise TrainingError(f"crop {recipe.crop}: the smallest photo has a side of {smallest} pixels")
    return recipe.crop or smallest
