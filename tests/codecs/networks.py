"""Small networks whose gradients are known, and the coders that look through them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from qtable.codecs.looking import Look, Usual
from qtable.codecs.task_aware import Effort, Network, TaskAware
from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.tables import QTables
from qtable.tasks.classification import Classifier
from qtable.tasks.opening import TaskSpec

SIZES = ((1, 1), (7, 9), (16, 16), (33, 50), (131, 93))
"""Heights and widths."""


class Small(nn.Module):
    """Two convolutions and a mean over all places: it takes photos of any size."""

    def __init__(self, seed: int = 0, classes: int = 5) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, 2, 1), nn.Tanh())
        self.head = nn.Linear(8, classes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.4)

    def forward(self, rgb: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(rgb / 64 - 2).mean((2, 3)) * 4)
        return logits


class Corner(nn.Module):
    """Looks at one square of the photo alone: its mean colour, as two logits."""

    def __init__(self, top: int, left: int, side: int) -> None:
        super().__init__()
        self.at = slice(top, top + side), slice(left, left + side)

    def extra_repr(self) -> str:
        return str(self.at)

    def forward(self, rgb: Tensor) -> Tensor:
        rows, columns = self.at
        seen = (rgb[:, :, rows, columns] * rgb.new_tensor([1.0, 1.3, 0.6])[:, None, None]).mean((1, 2, 3)) / 128
        return torch.stack([seen, -seen], 1)


class Cut(nn.Module):
    """Its answers have no gradients."""

    def forward(self, rgb: Tensor) -> Tensor:
        return rgb.detach().mean((2, 3))


class Broken(nn.Module):
    """Answers that are no numbers on dark photos."""

    def forward(self, rgb: Tensor) -> Tensor:
        return (rgb.mean((2, 3)) - 20).sqrt()


def usual(seed: int = 0) -> Usual:
    """Falling with frequency, less for chroma."""
    rng, frequency = np.random.default_rng(seed), np.add.outer(np.arange(8), np.arange(8)).reshape(64)
    parts = np.array([[1.0], [0.4], [0.3]])
    feeling = parts * np.exp(-frequency / 6) * rng.uniform(0.8, 1.2, (3, 64)) * 1e-7
    return Usual(feeling, parts * 200 / (1 + frequency))


@functools.cache
def small(seed: int = 0) -> Classifier:
    return Classifier(Small(seed), "agreement")


def coder(
    *tasks: Classifier,
    multiplier: float = 0.02,
    effort: Effort = "photo",
    codec: Codec | None = None,
    tables: QTables | None = None,
    look: Look | None = None,
    model: str = "mine.py:net",
) -> TaskAware:
    """Of tasks that it lends."""
    networks = tuple(Network.of(TaskSpec(model), task, usual()) for task in tasks or (small(),))
    return TaskAware(tables or QTables.standard(50), multiplier, networks, effort, codec or Codec(), look or Look())


def photos(height: int, width: int, count: int) -> Sequence[RGB]:
    """Pieces of a photograph; the last one is grey."""
    from skimage import data

    rng, image, found = np.random.default_rng([height, width]), data.astronaut(), []
    for i in range(count):
        top, left = rng.integers(0, 512 - height), rng.integers(0, 512 - width)
        piece = np.ascontiguousarray(image[top : top + height, left : left + width])
        found.append(piece if i + 1 < count else piece.mean(2, keepdims=True).repeat(3, 2).astype(np.uint8))
    return found
