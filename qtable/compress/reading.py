"""Files of the source, whose errors are theirs alone or end the run, and bytes that are hashed as they pass."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from qtable.compress.photo import Skip
from qtable.storage import Changed, File, StorageError, Store

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


@contextmanager
def _reading() -> Iterator[None]:
    """What is wrong with one file of the source raises Skip; what is wrong with its storage goes on."""
    try:
        yield
    except Changed:
        raise Skip("changed while it was read") from None
    except StorageError:
        raise
    except FileNotFoundError:
        raise Skip("vanished") from None
    except OSError as error:
        raise Skip(f"unreadable: {error.strerror}") from None


def read(folder: Store, name: str) -> bytes:
    """A whole file of the source. Skip if it cannot be read; StorageError if its storage cannot."""
    with _reading():
        return folder.read(name)


def checked(answer: bytes | OSError) -> bytes:
    """What a store's `read_many` says of one file. Errors as `read`."""
    with _reading():
        if isinstance(answer, OSError):
            raise answer
    return answer


def read_part(folder: Store, name: str, start: int, size: int) -> bytes:
    """`size` bytes of a file of the source from `start` on. Errors as `read`."""
    with _reading():
        return folder.read_range(name, start, size)


def seen(folder: Store, name: str) -> File:
    """What a file of the source is now, for `check_same`. Errors as `read`."""
    with _reading():
        return folder.file(name)


def check_same(folder: Store, file: File) -> None:
    """Skip if it is another now: not all that was read of it need be of one file. Errors as `read`."""
    if seen(folder, file.name) != file:
        raise Skip("changed while it was read")


class Source(io.RawIOBase):
    """A file of the source, opened for reading. Errors as `read`."""

    def __init__(self, folder: Store, name: str) -> None:
        with _reading():
            self._file = folder.open(name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        with _reading():
            return self._file.seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        with _reading():
            return self._file.read(size)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with _reading():
            return self._file.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class Readable(Protocol):
    """What has bytes to be hashed."""

    def read(self, size: int = -1, /) -> bytes: ...


class Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: Readable) -> None:
        self._file, self._sum = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._sum.update(data)
        return data

    def digest(self) -> str:
        return self._sum.hexdigest()


class HashedOutput(io.RawIOBase):
    """A file whose bytes are hashed as they are written, front to back."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file, self._sum = file, hashlib.sha256()

    def write(self, data: ReadableBuffer, /) -> int:
        self._sum.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def digest(self) -> str:
        return self._sum.hexdigest()


def digest_of(file: Readable) -> str:
    """SHA-256 of what is left of a file."""
    hashed = Hashed(file)
    while hashed.read(1 << 20):
        pass
    return hashed.digest()
