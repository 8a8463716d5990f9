"""What a model is asked to do with a photo: `Task`, and its first kind, `Classifier`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import convert_conv2d_weight_memory_format

from qtable.jpeg.codec import RGB
from qtable.photos.readers import Labels
from qtable.tasks.base import ModelError, Outcomes, Targets

METRICS: Final[dict[str, str]] = {
    "top-1": "top-1 accuracy",
    "top-5": "top-5 accuracy",
    "agreement": "agreement with the uncompressed answer",
}
"""What a classifier can be scored by: names on the command line, and names for people."""
COLUMNS: Final[tuple[str, ...]] = ("top-1", "top-5", "agreement", "cross-entropy")
"""What the columns of a classifier's outcomes are: 0/1, 0/1, 0/1, nats."""


class Classifier:
    """Image classification by any `nn.Module` from RGB float [n, 3, h, w], 0..255, to logits [n, classes].

    metric: a key of `METRICS`, ValueError for others. Top-5 means top-k with k = min(5, classes). ModelError if the
    device cannot be used.
    """

    def __init__(self, model: nn.Module, metric: str = "top-1", device: str | torch.device = "cpu") -> None:
        if metric not in METRICS:
            raise ValueError(f"metric {metric!r} is unknown; allowed: {', '.join(METRICS)}")
        try:
            self.device = torch.device(device)
            model = model.eval().requires_grad_(False).to(self.device)
            self.model: nn.Module = convert_conv2d_weight_memory_format(model, torch.channels_last)  # faster on a CPU
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from None
        self.metric = METRICS[metric]
        self.labelled = metric != "agreement"
        self._column = COLUMNS.index(metric)

    def logits(self, rgb: Tensor) -> Tensor:
        """[n, classes], with gradients to rgb. ModelError for NaN, infinite or misshapen answers."""
        try:
            out = self.model(rgb)
        except Exception as error:  # a model's own code may raise anything
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"the model fails on RGB {list(rgb.shape)}: {first}") from error
        if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(rgb) or out.shape[1] < 2:
            shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(f"the model answers {shape} to RGB {list(rgb.shape)}; a classifier gives [n, classes]")
        if not torch.isfinite(out).all():
            raise ModelError(f"the model answers NaN or infinity to RGB {list(rgb.shape)}")
        return out

    def _batch(self, images: Sequence[RGB]) -> Tensor:
        stacked = torch.from_numpy(np.stack(images)).to(self.device)
        return stacked.permute(0, 3, 1, 2).float()

    def targets(self, originals: Sequence[RGB], labels: Labels) -> Targets:
        """int64 [n, 2]: label, and the model's answer on the uncompressed photo. ModelError if a label has no logit."""
        with torch.no_grad():
            logits = self.logits(self._batch(originals))
        if labels.max() >= logits.shape[1] or labels.min() < 0:
            worst = int(labels.max() if labels.max() >= logits.shape[1] else labels.min())
            raise ModelError(
                f"label {worst} is outside the model's {logits.shape[1]} classes (0..{logits.shape[1] - 1})"
            )
        return np.stack([labels, logits.argmax(1).cpu().numpy()], axis=1)

    def outcomes(self, decoded: Sequence[RGB], targets: Targets) -> Outcomes:
        """float64 [n, 4], columns as `COLUMNS` says."""
        with torch.no_grad():
            logits = self.logits(self._batch(decoded)).double().cpu()
        labels = torch.from_numpy(targets[:, 0])
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices
        answer = logits.argmax(1)
        columns = {
            "top-1": answer == labels,
            "top-5": (top == labels[:, None]).any(1),
            "agreement": answer == torch.from_numpy(targets[:, 1]),
            "cross-entropy": F.cross_entropy(logits, labels, reduction="none"),
        }
        return np.stack([columns[name].double().numpy() for name in COLUMNS], axis=1)

    def right(self, outcomes: Outcomes) -> Outcomes:
        """float64 [n]: 1 where the answer counts as right, else 0."""
        return outcomes[:, self._column]

    def score(self, outcomes: Outcomes) -> float:
        """The share of right answers, 0..1."""
        return float(self.right(outcomes).mean())

    def loss(self, rgb: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy in nats per photo, [n]; targets int64 [n] class indices."""
        return F.cross_entropy(self.logits(rgb), targets, reduction="none")
