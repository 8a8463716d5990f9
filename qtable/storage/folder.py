"""A folder of this machine."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from qtable.storage.base import PART, File, Store, inside


@dataclass(frozen=True)
class Folder(Store):
    """A folder of this machine. Versions are times of change in ns; links to files are followed, to folders not."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def _path(self, name: str) -> Path:
        return self.root / inside(name)

    def files(self) -> list[File]:
        if not self.root.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(self.root))
        found = []
        for folder, _, names in os.walk(self.root, onerror=_raise):
            for path in (Path(folder, name) for name in names if not name.startswith(PART)):
                with suppress(FileNotFoundError):  # a link to nothing
                    status = path.stat()
                    if stat.S_ISREG(status.st_mode):
                        name = path.relative_to(self.root).as_posix()
                        found.append(File(name, status.st_size, str(status.st_mtime_ns)))
        return sorted(found, key=lambda file: os.fsencode(file.name))

    def file(self, name: str) -> File:
        path = self._path(name)
        status = path.stat()
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "no plain file", str(path))
        return File(name, status.st_size, str(status.st_mtime_ns))

    def read(self, name: str) -> bytes:
        return self._path(name).read_bytes()

    def open(self, name: str) -> io.BufferedReader:
        return self._path(name).open("rb")

    def write(self, name: str, data: bytes) -> None:
        with self.create(name) as file:
            file.write(data)

    @contextmanager
    def create(self, name: str) -> Iterator[io.BufferedIOBase]:
        path, part = self._path(name), self.root / (PART + secrets.token_hex(8))
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "xb") as file:
                yield file
            try:
                part.replace(path)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def remove_unfinished(self, names: Collection[str]) -> None:
        for part in self.root.glob(PART + "*"):
            part.unlink(missing_ok=True)


def _raise(error: OSError) -> None:
    raise error
