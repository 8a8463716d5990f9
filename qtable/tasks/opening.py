"""What builds tasks from options: `TaskSpec`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import nn

from qtable.tasks.base import DifferentiableTask
from qtable.tasks.classification import METRICS, Classifier
from qtable.tasks.models import ModelSpec, load_model

__all__ = ["METRICS", "TaskSpec", "weights_digest"]


@dataclass(frozen=True)
class TaskSpec:
    """A task as a user names it. model: see `load_model`; metric: a key of the task's `METRICS`; device: of torch."""

    model: str | None = None
    metric: str = "top-1"
    device: str = "cpu"

    def open(self) -> DifferentiableTask:
        """ModelError or ValueError, in one line, for what cannot be."""
        return Classifier(load_model(self.model), self.metric, self.device)

    def absolute(self) -> TaskSpec:
        """The same with absolute paths."""
        return self if self.model is None else replace(self, model=str(ModelSpec.parse(self.model).absolute()))

    def files_digest(self) -> bytes:
        """SHA-256 of the files that the model is read from."""
        total = hashlib.sha256()
        for file in () if self.model is None else ModelSpec.parse(self.model).files:
            total.update(file.read_bytes())
        return total.digest()


def weights_digest(model: nn.Module) -> str:
    """Hex digest of a model's structure, parameters and buffers."""
    total = hashlib.sha256(repr(model).encode())
    for name, value in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
