"""What every store is: a folder with all files below it, by names."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

PART: Final = ".qtable-part-"
"""How the names of unfinished files begin, where they have a name."""


class StorageError(OSError):
    """A place that cannot be read or written; one line with the place and the reason."""


class NoBucket(StorageError, FileNotFoundError):
    """A bucket that is not there, so that nothing in it is."""


class Changed(StorageError):
    """A file that is another now than when it was opened."""


@dataclass(frozen=True, slots=True)
class File:
    """A file below a store's root: path with /, size in bytes, and what changes when its bytes do ("": not known)."""

    name: str
    size: int
    version: str


class Store(ABC):
    """A folder with everything below it. Values: equal if of the same place, and may be sent to other processes.

    Names are relative paths with /. ValueError for one that leads outside; FileNotFoundError where there is nothing;
    StorageError, or OSError of a local folder, for whatever else stops reading or writing.
    """

    @abstractmethod
    def files(self) -> list[File]:
        """All files by name, in the order of the names' bytes, but unfinished ones. FileNotFoundError if no folder."""

    @abstractmethod
    def file(self, name: str) -> File:
        """Its size and version. FileNotFoundError if there is none."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """All bytes."""

    @abstractmethod
    def open(self, name: str) -> io.BufferedReader:
        """The file for reading and seeking."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Make or replace a file in one step. OSError with ENAMETOOLONG or EILSEQ for names that cannot be."""

    @abstractmethod
    def create(self, name: str) -> AbstractContextManager[io.BufferedIOBase]:
        """A new file to write into, front to back; it is there when the body ends, and not if the body raises.

        Errors as `write`.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""

    @abstractmethod
    def remove_unfinished(self, names: Collection[str]) -> None:
        """Remove what killed writers of these names left; none may be writing."""

    def read_many(self, names: Sequence[str]) -> list[bytes | OSError]:
        """All bytes of each, or what `read` would raise; from remote storage at the same time."""
        found: list[bytes | OSError] = []
        for name in names:
            try:
                found.append(self.read(name))
            except OSError as error:
                found.append(error)
        return found

    def write_many(self, files: Mapping[str, bytes]) -> None:
        """Make or replace files, into remote storage at the same time. Errors as `write`, of one of them."""
        for name, data in files.items():
            self.write(name, data)

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """`size` bytes from `start`, fewer at the end of the file."""
        with self.open(name) as file:
            file.seek(start)
            return file.read(size)

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name (a folder is none)."""
        try:
            self.file(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        """Bytes."""
        return self.file(name).size


def inside(name: str) -> str:
    """A name that stays below the root. ValueError if not."""
    if not name or name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{name!r} is no path below a folder")
    return name
