"""`Several`: networks that look at the same decoded photos, so that files are made and read once for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from qtable.jpeg.codec import RGB
from qtable.photos.sets import Annotations
from qtable.tasks.base import Doubting, Floats, Indices, Outcomes, Targets, Task


@dataclass(frozen=True, eq=False)
class SideBySide(Outcomes, kind="several"):
    """The outcomes of several tasks on the same photos; the first one's are scored."""

    parts: tuple[Outcomes, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    def subset(self, indices: Sequence[int] | Indices) -> Self:
        return type(self)(tuple(part.subset(indices) for part in self.parts))

    def score(self) -> float:
        return self.parts[0].score()

    def right(self) -> Floats | None:
        return self.parts[0].right()

    def losses(self) -> Floats | None:
        return self.parts[0].losses()

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        columns = zip(*(part.parts for part in parts), strict=True)
        return cls(tuple(type(column[0]).join(column) for column in columns))

    def to_dict(self) -> dict[str, Any]:
        return {"parts": [part.written() for part in self.parts]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], photos: int) -> Self:
        if not data["parts"]:
            raise ValueError("outcomes of no task")
        return cls(tuple(Outcomes.read(part, photos) for part in data["parts"]))


class Several:
    """A task made of tasks, at least one; scored by the first."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)
        self.metric = self.tasks[0].metric

    def targets(self, originals: Sequence[RGB], annotations: Annotations) -> Targets:
        """A tuple, one for each task."""
        return tuple(task.targets(originals, annotations) for task in self.tasks)

    def doubts(self, targets: Sequence[Targets]) -> list[str]:
        """Those of the task that is scored."""
        first = self.tasks[0]
        return first.doubts([own[0] for own in targets]) if isinstance(first, Doubting) else []

    def outcomes(self, decoded: Sequence[RGB], targets: Targets) -> SideBySide:
        """Of each task."""
        return SideBySide(tuple(task.outcomes(decoded, own) for task, own in zip(self.tasks, targets, strict=True)))


def part_of(outcomes: Outcomes, index: int) -> Outcomes:
    """Those of one of several tasks. ValueError for outcomes of one task alone."""
    if not isinstance(outcomes, SideBySide):
        raise ValueError(f"outcomes of kind {outcomes.kind!r} are those of one task; expected several")
    return outcomes.parts[index]
