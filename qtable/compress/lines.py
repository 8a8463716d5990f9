"""The lines of a journal, which are added one by one: in a file here, or in a bucket, which has no appending."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
from contextlib import suppress
from typing import Final, Protocol

from qtable.compress.lock import Lock
from qtable.compress.sources import JOURNAL, PARTS, CompressError
from qtable.storage import Folder, Remote, Store, store

SAVE_SECONDS: Final = 10
"""What a journal in a bucket is behind at most while entries come: each of its parts is a request and an object."""
_COPY: Final = 1 << 20


class Lines(Protocol):
    """Lines behind a file descriptor of this machine, to be read at their offsets. One writer has them at any time.

    OSError where they cannot be written.
    """

    descriptor: int

    def append(self, line: bytes, end: int) -> None:
        """Add a line at `end`, where the last one ends: all of it or nothing."""

    def cut(self, end: int) -> None:
        """Forget what lies behind `end`."""

    def save(self) -> None:
        """Keep all lines, whatever happens next."""

    def close(self) -> None:
        """Without `save`."""


def open_lines(folder: Store) -> Lines:
    """The lines of the journal in a folder. CompressError if another run has them."""
    return _There(folder) if isinstance(folder, Remote) else _Here(folder)


def copied(folder: Store, name: str) -> int | None:
    """A descriptor to read a file of any folder at any offset; None if there is no such file."""
    try:
        if isinstance(folder, Folder):
            return os.open(folder.root / name, os.O_RDONLY)
        with folder.open(name) as file, tempfile.TemporaryFile() as here:
            while data := file.read(_COPY):
                here.write(data)
            here.seek(0)
            return os.dup(here.fileno())
    except FileNotFoundError:
        return None


class _Here:
    """A file of this machine, locked while it is open."""

    def __init__(self, folder: Store) -> None:
        assert isinstance(folder, Folder)
        self.descriptor = os.open(folder.root / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # forked workers do not inherit it
        except BlockingIOError:
            os.close(self.descriptor)
            raise CompressError(f"another run is writing {folder}; wait for it or choose another target") from None

    def append(self, line: bytes, end: int) -> None:
        if os.write(self.descriptor, line) < len(line):
            os.ftruncate(self.descriptor, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def cut(self, end: int) -> None:
        os.ftruncate(self.descriptor, end)

    def save(self) -> None:
        """They are."""

    def close(self) -> None:
        os.close(self.descriptor)


class _There:
    """The first line in an object, others in parts behind it, each with the lines of some seconds.

    Read and collected in a file of this machine without a name. Parts go from the oldest on: what a killed run leaves
    of them are the latest entries, which agree with the manifest that they went into.
    """

    def __init__(self, folder: Store) -> None:
        assert isinstance(folder, Remote)
        self._folder, self._parts = folder, store(f"{folder}/{PARTS}")
        self._lock = Lock(folder)
        try:
            self.descriptor = self._collected()
        except BaseException:
            self._lock.release()
            raise
        self._saved = os.fstat(self.descriptor).st_size
        self._next = int(self._names[-1].partition(".")[0]) + 1 if self._names else 0
        self._when = time.monotonic()

    def _collected(self) -> int:
        """A descriptor of all lines that are there."""
        self._names = list[str]()
        with suppress(FileNotFoundError):
            self._names = [part.name for part in self._parts.files()]
        with tempfile.TemporaryFile() as here:
            with suppress(FileNotFoundError):
                here.write(self._folder.read(JOURNAL))
            for name in self._names:
                here.write(self._parts.read(name))
            here.seek(0)
            return os.dup(here.fileno())

    def append(self, line: bytes, end: int) -> None:
        self._lock.check()
        if not end:
            self._folder.write(JOURNAL, line)
            self._saved = len(line)
        os.pwrite(self.descriptor, line, end)
        if end and time.monotonic() > self._when + SAVE_SECONDS:
            self.save()

    def cut(self, end: int) -> None:
        self._lock.check()
        if end < os.fstat(self.descriptor).st_size:
            os.ftruncate(self.descriptor, end)
            for name in self._names:
                self._parts.remove(name)
            self._names, self._saved = [], end

    def save(self) -> None:
        self._lock.check()
        data = os.pread(self.descriptor, os.fstat(self.descriptor).st_size - self._saved, self._saved)
        if data:
            name = f"{self._next:08}.jsonl"
            self._parts.write(name, data)
            self._names.append(name)
            self._saved, self._next = self._saved + len(data), self._next + 1
        self._when = time.monotonic()

    def close(self) -> None:
        os.close(self.descriptor)
        self._lock.release()
