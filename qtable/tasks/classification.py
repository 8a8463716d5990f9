"""`Classifier`: any network that gives class scores, as a task."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import convert_conv2d_weight_memory_format

from qtable.jpeg.codec import RGB
from qtable.photos.sets import Annotations
from qtable.tasks.base import Floats, Indices, ModelError, Outcomes, check_finite, packed, unpacked
from qtable.tasks.chance import at_chance

METRICS: Final[dict[str, str]] = {
    "top-1": "top-1 accuracy",
    "top-5": "top-5 accuracy",
    "agreement": "agreement with the uncompressed answer",
}
"""What a classifier can be scored by: names on the command line, and names for people."""


MEANINGS: Final = {
    "top-1": "",
    "top-5": " (right: among the model's five first answers)",
    "agreement": " (right: the answer that the model gives on the uncompressed photo)",
}


@dataclass(frozen=True, eq=False)
class ClassOutcomes(Outcomes, kind="classes"):
    """Right or wrong, photo by photo.

    metric: a key of `METRICS`, the one that is scored. hits: by each key of `METRICS` bool [n]. cross_entropy: float32
    [n], nats of what counts as right: the label, or for agreement the answer on the uncompressed photo.
    """

    metric: str
    hits: Mapping[str, npt.NDArray[np.bool_]]
    cross_entropy: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.cross_entropy)

    def subset(self, indices: Sequence[int] | Indices) -> Self:
        at = np.asarray(indices, dtype=np.intp)
        hits = {name: bits[at] for name, bits in self.hits.items()}
        return type(self)(self.metric, hits, self.cross_entropy[at])

    def score(self) -> float:
        """The share of right answers."""
        return float(self.hits[self.metric].mean())

    def right(self) -> Floats:
        return self.hits[self.metric].astype(np.float64)

    def losses(self) -> Floats:
        """The cross-entropy."""
        return self.cross_entropy.astype(np.float64)

    @property
    def meaning(self) -> str:
        return MEANINGS[self.metric]

    def by(self, metric: str) -> Self:
        """The same outcomes scored by another key of `METRICS`."""
        return type(self)(metric, self.hits, self.cross_entropy)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        hits = {name: np.concatenate([part.hits[name] for part in parts]) for name in METRICS}
        return cls(parts[0].metric, hits, np.concatenate([part.cross_entropy for part in parts]))

    def to_dict(self) -> dict[str, Any]:
        hits = {name: packed(self.hits[name]) for name in METRICS}
        return {"metric": self.metric, "hits": hits, "cross_entropy": packed(self.cross_entropy)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], photos: int) -> Self:
        metric = _known(str(data["metric"]))
        hits = {name: unpacked(data["hits"][name], bool, (photos,)) for name in METRICS}
        return cls(metric, hits, unpacked(data["cross_entropy"], np.float32, (photos,)))


def _known(metric: str) -> str:
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r:.40} is unknown; allowed: {', '.join(METRICS)}")
    return metric


class ClassTargets(NamedTuple):
    """labels: int64 [n], -1 where a photo has none. clean: int64 [n], the answers on the uncompressed photos."""

    labels: npt.NDArray[np.int64]
    clean: npt.NDArray[np.int64]


class Classifier:
    """Image classification by any `nn.Module` from RGB float [n, 3, h, w], 0..255, to logits [n, classes].

    metric: a key of `METRICS`, ValueError for others. Top-5 means top-k with k = min(5, classes). ModelError if the
    device cannot be used. Annotations are labels, int64 [n]; agreement needs none.
    """

    def __init__(self, model: nn.Module, metric: str = "top-1", device: str | torch.device = "cpu") -> None:
        self._metric = _known(metric)
        try:
            self.device = torch.device(device)
            model = model.eval().requires_grad_(False).to(self.device)
            self.model: nn.Module = convert_conv2d_weight_memory_format(model, torch.channels_last)  # faster on a CPU
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from None
        self._reference = self.model
        self.metric = METRICS[metric]
        self.annotated = metric != "agreement"

    def with_model(self, model: nn.Module) -> Self:
        """The same task with another network, as it is; agreement is still with the answers of this one's."""
        other = copy.copy(self)
        other.model = model
        return other

    def answers(self, rgb: Tensor) -> Tensor:
        """Logits [n, classes], with gradients to rgb. ModelError for misshapen ones."""
        return _logits(self.model, rgb)

    def divergence(self, answers: Tensor, reference: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the class probabilities, nats, [n]."""
        share = torch.softmax(reference, dim=1)
        gap = torch.log_softmax(answers, dim=1) - torch.log_softmax(reference, dim=1)
        return -(share * gap).sum(1)

    def log_likelihood(self, answers: Tensor, annotations: Annotations) -> Tensor:
        """Of the labels, nats, [n]. ModelError where photos have none."""
        labels = torch.from_numpy(_labels(annotations, len(answers))).to(answers.device)
        if bool((labels < 0).any()):
            raise ModelError("photos without labels: their likelihood cannot be asked for")
        return torch.log_softmax(answers, dim=1).gather(1, labels[:, None])[:, 0]

    def sampled(self, answers: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """sum over classes of +-sqrt(p) log p with random signs, p fixed: all classes speak in every draw, [n].

        The mean of its squared gradient is sum of p (d log p)^2, as it is for classes drawn by p, with far less
        variance: a drawn class is nearly always the first one, whose gradient is small.
        """
        log_p = torch.log_softmax(answers, dim=1)
        signs = np.stack([2.0 * rng.integers(0, 2, log_p.shape[1]) - 1.0 for rng in rngs])
        roots = (0.5 * log_p.detach()).exp() * torch.from_numpy(signs).to(log_p)
        return (roots * log_p).sum(1)

    def crop(self, annotation: Any, top: int, left: int, side: int, mirrored: bool) -> Any:
        """A piece of a photo has its label."""
        return annotation

    def targets(self, originals: Sequence[RGB], annotations: Annotations) -> ClassTargets:
        """ModelError if a label has no logit, or if there are none and the metric needs them."""
        labels = _labels(annotations, len(originals))
        if self.annotated and annotations is None:
            raise ModelError("the photos have no labels; --metric agreement needs none")
        with torch.no_grad():
            logits = self._checked(self._reference, originals)
        if labels.max() >= logits.shape[1]:
            classes = logits.shape[1]
            raise ModelError(f"label {labels.max()} is outside the model's {classes} classes (0..{classes - 1})")
        return ClassTargets(labels, logits.argmax(1).cpu().numpy())

    def doubts(self, targets: Sequence[ClassTargets]) -> list[str]:
        """Of labels that are numbered otherwise than the answers, and of preprocessing (see `Chance`)."""
        if not self.annotated:
            return []
        labels, clean = (np.concatenate(column) for column in zip(*targets, strict=True))
        chance = at_chance(clean, labels)
        return [] if chance is None else chance.sentences()

    def outcomes(self, decoded: Sequence[RGB], targets: ClassTargets) -> ClassOutcomes:
        with torch.no_grad():
            logits = self._checked(self.model, decoded).double().cpu()
        labels, clean = torch.from_numpy(targets.labels), torch.from_numpy(targets.clean)
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices
        answer = logits.argmax(1)
        hits = {"top-1": answer == labels, "top-5": (top == labels[:, None]).any(1), "agreement": answer == clean}
        loss = F.cross_entropy(logits, labels if self.annotated else clean, reduction="none")
        return ClassOutcomes(
            self._metric, {name: bits.numpy() for name, bits in hits.items()}, loss.numpy().astype(np.float32)
        )

    def _checked(self, model: nn.Module, images: Sequence[RGB]) -> Tensor:
        rgb = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2).float()
        logits = _logits(model, rgb)
        check_finite(logits, rgb)
        return logits


def _labels(annotations: Annotations, photos: int) -> npt.NDArray[np.int64]:
    """int64 [photos], -1 for None. ModelError for annotations of another kind, and for negative labels."""
    if annotations is None:
        return np.full(photos, -1)
    labels = np.asarray(annotations)
    if labels.shape != (photos,) or labels.dtype.kind not in "iu":
        raise ModelError("a classifier's annotations are class indices, one whole number for each photo")
    if labels.min() < 0:
        raise ModelError(f"label {labels.min()} is below 0; class indices begin at 0")
    return labels.astype(np.int64)


def _logits(model: nn.Module, rgb: Tensor) -> Tensor:
    try:
        out = model(rgb)
    except Exception as error:  # a model's own code may raise anything
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"the model fails on RGB {list(rgb.shape)}: {first}") from error
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(rgb) or out.shape[1] < 2:
        shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ModelError(f"the model answers {shape} to RGB {list(rgb.shape)}; a classifier gives [n, classes]")
    return out
