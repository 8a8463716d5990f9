"""What a user says of photos: enough to open the same ones again, here or on another machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from qtable.photos.pixels import MEMORY
from qtable.photos.sets import ImageSet
from qtable.progress import Progress
from qtable.storage import is_remote


@dataclass(frozen=True)
class PhotosSpec:
    """As for `ImageSet.open`. source: None = the embedded photos."""

    source: str | None = None
    resize: int | None = None
    limit: int | None = None
    memory: int = MEMORY
    classes: str | None = None

    def absolute(self) -> PhotosSpec:
        """The same for a process that runs elsewhere."""
        return replace(self, source=_absolute(self.source), classes=_absolute(self.classes))

    def open(self, progress: Progress | None = None) -> ImageSet:
        """DataError if the photos cannot be used."""
        return ImageSet.open(self.source, self.resize, self.limit, progress, self.memory, self.classes)


def _absolute(place: str | None) -> str | None:
    return place if place is None or is_remote(place) else str(Path(place).absolute())
