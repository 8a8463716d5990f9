"""Where the bytes of photos lie, and what a reader finds: files in the order in which they are listed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from qtable.photos.opening import MAX_FILE_BYTES, read_photo_file
from qtable.photos.where import RemotePath, Where, read_range


class DataError(ValueError):
    """The photos named by the user cannot be used; the message says which and why."""


class File(Protocol):
    """The bytes of one photo; a small value that other processes can be sent."""

    @property
    def name(self) -> str:
        """For people: unique in its data set."""

    def read(self) -> bytes:
        """All of it. ValueError or OSError if it cannot be read."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of its own."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        return read_photo_file(self.path)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of its own in remote storage. size: its bytes when it was listed, None if it was not."""

    path: RemotePath
    size: int | None = None

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        store, inner = self.path.store, self.path.inner
        size = store.size(inner) if self.size is None else self.size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
        data = store.read(inner)
        if not data:
            raise ValueError("empty file")
        return data


@dataclass(frozen=True, slots=True)
class Part:
    """`size` bytes of a larger file, a tar shard's member. inner: its name there."""

    path: Where
    inner: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.path}/{self.inner}"

    def read(self) -> bytes:
        if self.size > MAX_FILE_BYTES:
            raise ValueError(f"{self.size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
        data = read_range(self.path, self.offset, self.size)
        if len(data) < self.size:
            raise ValueError(f"{len(data):,} of {self.size:,} bytes are there")
        if not data:
            raise ValueError("empty file")
        return data


def file_at(path: Where) -> File:
    """The photo there."""
    return LocalFile(path) if isinstance(path, Path) else RemoteFile(path)


@dataclass(frozen=True)
class Listing:
    """What a reader finds: photos, and the class index of each (None where there are no labels).

    classes: names of the class indices where known. said: what was recognised and left aside, a line each. skipped:
    (name, reason) of what could not be looked into.
    """

    photos: tuple[tuple[File, int | None], ...]
    classes: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
