"""What looks at photos and how it is scored: `Task`, and `Outcomes`, the value that scores are made of.

A task is a few answers (`Task`, and with gradients `DifferentiableTask`). Statistics, training, clusters, searchers and
reports know no other: none of them knows what a class is.
"""

from __future__ import annotations

import base64
import hashlib
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from qtable.jpeg.codec import RGB
from qtable.kinds import Kinds
from qtable.photos.sets import Annotations

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Targets = Any
"""What `Task.outcomes` compares with: a tree (tuples, lists, dicts) of arrays and numbers, made by the task itself."""
Answers = Any
"""What a network says of n photos: a tensor, or a tree (tuples, lists, dicts) of tensors, whose first side is n."""


class ModelError(ValueError):
    """The user's model cannot be loaded or does not answer as a model must; the message says how."""


KINDS: Final[Kinds[Outcomes]] = Kinds(
    "outcomes", {"classes": "qtable.tasks.classification", "several": "qtable.tasks.several"}
)
"""Outcomes by the name that archives have for them."""


class Outcomes(ABC):
    """What a task found on some photos, photo by photo: all that the score of any resample of them needs.

    A value: nothing changes it, and no model is needed to score it. A kind of outcomes is a subclass
    `class Mine(Outcomes, kind="mine")`; archives find it by that name.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls, kind: str) -> None:
        cls.kind = kind
        KINDS.add(kind, cls)

    @abstractmethod
    def __len__(self) -> int:
        """How many photos."""

    @abstractmethod
    def subset(self, indices: Sequence[int] | Indices) -> Self:
        """Those of some photos, in that order; repeats count."""

    @abstractmethod
    def score(self) -> float:
        """The metric of these photos together, 0..1, higher is better (not always a mean over photos)."""

    def right(self) -> Floats | None:
        """float64 [n], 0 or 1, whose mean is the score; None for metrics that are no share of right answers."""
        return None

    def losses(self) -> Floats | None:
        """float64 [n]: nats per photo of what should have been said, for ranking photos; None if there are none."""
        return None

    @property
    def meaning(self) -> str:
        """What a right answer is, where it must be said; put behind a number of right answers."""
        return ""

    @classmethod
    @abstractmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Those of all photos of several parts, one after the other."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """A compact JSON form (see `packed`)."""

    @classmethod
    @abstractmethod
    def from_dict(cls, data: Mapping[str, Any], photos: int) -> Self:
        """The inverse of `to_dict` for so many photos. KeyError, TypeError or ValueError for anything else."""

    @staticmethod
    def read(data: Mapping[str, Any], photos: int) -> Outcomes:
        """From {"kind": ..., **to_dict()}. KeyError, TypeError or ValueError for anything else; see `Kinds.of`."""
        return KINDS.of(data).from_dict(data, photos)

    def written(self) -> dict[str, Any]:
        """What `read` reads."""
        return {"kind": self.kind, **self.to_dict()}


class Task(Protocol):
    """What turns decoded photos into outcomes."""

    metric: str
    """The score's name in the field, e.g. "top-1 accuracy"."""

    def targets(self, originals: Sequence[RGB], annotations: Annotations) -> Targets:
        """What `outcomes` compares with, from the uncompressed photos of one batch and what is known of them."""
        ...

    def outcomes(self, decoded: Sequence[RGB], targets: Targets) -> Outcomes:
        """Of decoded photos of one size."""
        ...


@runtime_checkable
class Doubting(Protocol):
    """A task that can tell from its targets that photos, annotations and network do not belong together."""

    def doubts(self, targets: Sequence[Targets]) -> list[str]:
        """Sentences for people, of the targets of all batches; none if nothing is to be said."""
        ...


class DifferentiableTask(Task, Protocol):
    """A task whose network lets gradients through to the pixels."""

    device: torch.device
    """Where the network is."""
    annotated: bool
    """Whether the score is about annotations, not about the answer on the uncompressed photo."""
    model: nn.Module
    """The network, from RGB float [n, 3, h, w], 0..255."""

    def answers(self, rgb: Tensor) -> Answers:
        """What the network says, with gradients to rgb, float [n, 3, h, w], 0..255. ModelError if it fails."""
        ...

    def divergence(self, answers: Answers, reference: Answers) -> Tensor:
        """Nats per photo, float [n]: from what `reference` says (of the clean photos) to what `answers` say."""
        ...

    def log_likelihood(self, answers: Answers, annotations: Annotations) -> Tensor:
        """Nats per photo, float [n]: of the annotations, by the answers."""
        ...

    def sampled(self, answers: Answers, rngs: Sequence[np.random.Generator]) -> Tensor:
        """A random number per photo, float [n], whose squared gradient is on average the Fisher information's diagonal.

        The log-likelihood of an answer drawn from the network itself is one such number; a generator a photo.
        """
        ...

    def crop(self, annotation: Any, top: int, left: int, side: int, mirrored: bool) -> Any:
        """One photo's annotation after a square was cut out of it and mirrored or not."""
        ...

    def with_model(self, model: nn.Module) -> Self:
        """The same task with another network; what it is compared with stays as it was."""
        ...


# ---- trees ----------------------------------------------------------------------------------------------------


def mapped(tree: Any, leaf: Callable[[Any], Any]) -> Any:
    """The same tree (of tuples, named tuples, lists, dicts) with `leaf` of every leaf."""
    if isinstance(tree, dict):
        return {key: mapped(value, leaf) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(mapped(value, leaf) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(mapped(value, leaf) for value in tree)
    return leaf(tree)


def leaves(tree: Any) -> list[Any]:
    """The leaves of a tree, in order."""
    found: list[Any] = []
    mapped(tree, found.append)
    return found


def check_finite(answers: Answers, rgb: Tensor) -> None:
    """ModelError if an answer is NaN or infinite."""
    for answer in leaves(answers):
        if not answer.isfinite().all():
            raise ModelError(f"the model answers NaN or infinity to RGB {list(rgb.shape)}")


def digest(tree: Any) -> str:
    """Hex digest of a tree of arrays, tensors, numbers and texts: of what they hold and of their types."""
    total = hashlib.sha256()
    for value in leaves(tree):
        array = np.ascontiguousarray(value)
        total.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return total.hexdigest()


# ---- arrays in JSON -------------------------------------------------------------------------------------------


def packed(array: npt.NDArray[Any]) -> str:
    """An array's bytes (little-endian, C order; bool as bits), deflated, in base 64."""
    little = array.dtype.newbyteorder("<")
    data = np.packbits(array).tobytes() if array.dtype.kind == "b" else array.astype(little).tobytes()
    return base64.b64encode(zlib.compress(data, 9)).decode()


def unpacked(text: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The inverse of `packed`. ValueError for anything that is not an array of this type and shape."""
    wanted, count = np.dtype(dtype), math.prod(shape)
    bits = wanted.kind == "b"
    size = -(-count // 8) if bits else count * wanted.itemsize
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(text, validate=True), size + 1)
    except (zlib.error, ValueError) as error:
        raise ValueError(f"not a packed array ({error})") from None
    if len(data) != size:
        raise ValueError(f"a packed array of {len(data)} bytes or more; expected {size} for {wanted} {list(shape)}")
    if not inflate.eof or inflate.unused_data:
        raise ValueError("not a packed array (its end is missing, or not its end)")
    if bits:
        return np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(bool).reshape(shape)
    return np.frombuffer(data, wanted.newbyteorder("<")).astype(wanted).reshape(shape)
