"""What looks at photos and how it is scored: the protocols that every task follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qtable.jpeg.codec import RGB
from qtable.photos.readers import Labels

Outcomes = npt.NDArray[np.float64]
"""One row per photo: everything that a resampled score needs."""
Targets = npt.NDArray[np.int64]
"""One row per photo: what the task compares a model's answer with."""


class ModelError(ValueError):
    """The user's model cannot be loaded or does not answer as a model must; the message says how."""


@runtime_checkable
class Task(Protocol):
    """What turns decoded photos into a score."""

    metric: str
    """The score's name in the field, e.g. "top-1 accuracy"."""

    def targets(self, originals: Sequence[RGB], labels: Labels) -> Targets:
        """[n, ...] what `outcomes` compares with, from the uncompressed photos; called once per split and batch."""
        ...

    def outcomes(self, decoded: Sequence[RGB], targets: Targets) -> Outcomes:
        """float64 [n, k], one row per photo; `decoded` are photos of one size."""
        ...

    def score(self, outcomes: Outcomes) -> float:
        """The metric of these rows, 0..1, higher is better."""
        ...

    def right(self, outcomes: Outcomes) -> Outcomes | None:
        """float64 [n], 0 or 1, whose mean is the score; None for metrics that are no share of right answers."""
        ...


class DifferentiableTask(Task, Protocol):
    """A task whose loss has gradients to the pixels."""

    device: torch.device
    """Where the model is."""
    labelled: bool
    """Whether the score is about labels, not about the answer on the uncompressed photo."""

    def loss(self, rgb: Tensor, targets: Tensor) -> Tensor:
        """Loss per photo, [n]; rgb float [n, 3, h, w], 0..255."""
        ...

    def logits(self, rgb: Tensor) -> Tensor:
        """[n, classes] for rgb float [n, 3, h, w], 0..255, with gradients."""
        ...
