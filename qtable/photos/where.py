"""Where photos, lists and shards lie: paths of this machine and addresses in remote storage, asked in the same way."""

from __future__ import annotations

import io
import os
import posixpath
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from qtable.storage import StorageError, Store, holding, is_remote, store


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A file or folder in remote storage, as far as readers need `Path`; nothing is opened. inner: "" is the root.

    A user's address may be a folder's or a file's; `as_file` and `as_folder` say which is meant.
    """

    store: Store
    inner: str = ""

    def __str__(self) -> str:
        return f"{self.store}/{self.inner}" if self.inner else str(self.store)

    def __truediv__(self, name: str) -> RemotePath:
        """StorageError if `..` in a name leads out of a bucket."""
        inner, above = posixpath.join(self.inner, name), self.store
        if {".", ".."} & set(inner.split("/")):  # only then: names in remote storage may have // in them
            inner = posixpath.normpath(inner)
        while inner.startswith("../"):
            if "/" not in str(above).partition("://")[2]:
                raise StorageError(f"{name!r:.100} leads out of {above}")
            above, inner = holding(str(above))[0], inner[3:]
        return RemotePath(above, inner)

    @property
    def name(self) -> str:
        return posixpath.basename(str(self))

    @property
    def parent(self) -> RemotePath:
        """Of a file."""
        return RemotePath(self.store, posixpath.dirname(self.inner))

    def as_file(self) -> RemotePath:
        """Of an address. StorageError if it names no more than a bucket."""
        return self if self.inner else RemotePath(*holding(str(self)))

    def as_folder(self) -> Store:
        return store(str(self))


Where = Path | RemotePath


def where(place: str | os.PathLike[str]) -> Where:
    """A path or address as a user names it. StorageError for addresses that can be none (`qtable.storage.store`)."""
    return RemotePath(store(place)) if isinstance(place, str) and is_remote(place) else Path(place)


def beside(folder: Where, name: str) -> Where:
    """What a list in a folder names: relative to it, or anywhere by an address. StorageError as `where` and `/`."""
    if not is_remote(name):
        return folder / name
    found = where(name)
    return found.as_file() if isinstance(found, RemotePath) else found


def open_file(file: Where) -> io.BufferedReader:
    """For reading and seeking."""
    return file.open("rb") if isinstance(file, Path) else file.store.open(file.inner)


def read_file(file: Where) -> bytes:
    """All bytes."""
    return file.read_bytes() if isinstance(file, Path) else file.store.read(file.inner)


def read_range(file: Where, start: int, size: int) -> bytes:
    """`size` bytes from `start`, fewer at the end of the file."""
    if isinstance(file, RemotePath):
        return file.store.read_range(file.inner, start, size)
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(size)


def version_of(file: Where) -> Hashable:
    """Another one when the file has changed."""
    if isinstance(file, RemotePath):
        return file.store.file(file.inner)
    status = file.stat()
    return status.st_size, status.st_mtime_ns
