"""Remote storage, spoken to by fsspec: what all kinds have in common."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from typing import Any, Final

from qtable.storage.base import Changed, File, NoBucket, StorageError, Store, inside

PACKAGES: Final[dict[str, tuple[str, str]]] = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
    "memory": ("fsspec", "fsspec"),
}
"""Protocol -> the package that speaks it, and qtable's extra that brings it."""
READ_AHEAD: Final = 1 << 22
"""Bytes that a file opened in remote storage asks for at once."""
UPLOAD: Final = 1 << 24
"""Bytes of a part of an upload: S3 takes 10,000 parts, so files may have 160 GB."""
LONGEST: Final = 1024
"""Bytes that a name may have, from the bucket on."""
_VERSIONS: Final = ("ETag", "etag", "generation", "Content-MD5", "Last-Modified", "created")
_OPTIONS: Final[dict[str, dict[str, Any]]] = {"s3": {"max_concurrency": 1}}
"""s3fs would ask for the size of what it reads whole, and read large files in pieces, which need not be of one."""
_PROTOCOL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_remote(place: str) -> bool:
    """Whether a place is an address (`s3://bucket/folder`) and no path."""
    return _PROTOCOL.match(place) is not None


def protocol_of(place: str) -> str:
    match = _PROTOCOL.match(place)
    assert match is not None
    return match[1].lower()


def check_address(place: str) -> None:
    """StorageError if an address names no bucket, its protocol is not known, or the package for it not installed."""
    protocol = protocol_of(place)
    if protocol not in PACKAGES:
        allowed = ", ".join(f"{name}://" for name in PACKAGES)
        raise StorageError(f"{place}: {protocol}:// is not known; allowed: {allowed} and paths")
    if not place.partition("://")[2].strip("/"):
        raise StorageError(f"{place}: no bucket or folder is named")
    package, extra = PACKAGES[protocol]
    if find_spec(package) is None:
        raise StorageError(f"{place}: {protocol}:// needs {package}: pip install 'qtable[{extra}]'")


@dataclass(frozen=True)
class Remote(Store):
    """A prefix in remote storage, address without / at its end. Versions are ETags where the storage has them."""

    root: str

    def __str__(self) -> str:
        return self.root

    def place(self, name: str) -> str:
        """A file's address."""
        return f"{self.root}/{inside(name)}"

    def check_name(self, name: str) -> None:
        """OSError with ENAMETOOLONG or EILSEQ for a name that cannot be written, whatever the storage."""
        try:
            long = len(self.place(name).partition("://")[2].partition("/")[2].encode()) > LONGEST
        except UnicodeEncodeError:
            raise OSError(errno.EILSEQ, "the name is no UTF-8", self.place(name)) from None
        if long:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), self.place(name))

    def _system(self) -> Any:
        """One for each process and thread, kept by fsspec: its event loop does not survive a fork.

        Listings are not kept, as other processes write, too.
        """
        check_address(self.root)
        import fsspec

        protocol = protocol_of(self.root)
        options = fsspec.get_filesystem_class(protocol)._get_kwargs_from_urls(self.root)
        return fsspec.filesystem(protocol, use_listings_cache=False, **_OPTIONS.get(protocol, {}), **options)

    def top(self) -> tuple[Any, str]:
        """fsspec's file system in this thread of this process, and the root as its paths begin."""
        system = self._system()
        return system, str(system._strip_protocol(self.root))

    def path(self, name: str) -> tuple[Any, str]:
        """The file system, and a name as its path."""
        system, top = self.top()
        return system, f"{top}/{inside(name)}"

    def files(self) -> list[File]:
        with said(self.root):
            system, top = self.top()
            # A name that ends in / marks a folder.
            found = {path.removeprefix(top + "/"): info for path, info in system.find(top, detail=True).items()}
        files = [file_of(name, info) for name, info in found.items() if name and not name.endswith("/")]
        if not files:
            raise FileNotFoundError(errno.ENOENT, "no such folder, or nothing in it", self.root)
        return sorted(files, key=lambda file: os.fsencode(file.name))

    def file(self, name: str) -> File:
        place = self.place(name)
        with said(place):
            system, path = self.path(name)
            info = system.info(path)
            if info["type"] != "file":
                raise FileNotFoundError(place)
            return file_of(name, info)

    def read(self, name: str) -> bytes:
        with said(self.place(name)):
            system, path = self.path(name)
            return bytes(system.cat_file(path))

    def read_range(self, name: str, start: int, size: int) -> bytes:
        if size < 1:
            return super().read_range(name, start, size)
        with said(self.place(name)):
            system, path = self.path(name)
            return bytes(system.cat_file(path, start=start, end=start + size))

    def open(self, name: str) -> io.BufferedReader:
        place = self.place(name)
        with said(place):
            system, path = self.path(name)
            return io.BufferedReader(Reading(system.open(path, "rb", cache_type="none"), place), READ_AHEAD)

    def write(self, name: str, data: bytes) -> None:
        self.check_name(name)
        with said(self.place(name)):
            system, path = self.path(name)
            system.pipe_file(path, data)

    def write_new(self, name: str, data: bytes) -> bool:
        """Make a file if there is none: whether it did. Of several callers one does, where the storage can tell."""
        with said(self.place(name)):
            system, path = self.path(name)
            try:
                system.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            return True

    def read_many(self, names: Sequence[str]) -> list[bytes | OSError]:
        with said(self.root):
            system, _ = self.top()
        if not system.async_impl:
            return super().read_many(names)
        answers = _together(system, [system._cat_file(self.path(name)[1]) for name in names])
        return [_said_of(self.place(name), answer) for name, answer in zip(names, answers, strict=True)]

    def write_many(self, files: Mapping[str, bytes]) -> None:
        with said(self.root):
            system, _ = self.top()
        if not system.async_impl:
            return super().write_many(files)
        for name in files:
            self.check_name(name)
        answers = _together(system, [system._pipe_file(self.path(name)[1], data) for name, data in files.items()])
        for name, answer in zip(files, answers, strict=True):
            if isinstance(error := _said_of(self.place(name), answer), OSError):
                raise error
        return None

    @contextmanager
    def create(self, name: str) -> Iterator[io.BufferedIOBase]:
        self.check_name(name)
        place = self.place(name)
        out = _Writing(self, name)
        try:
            yield out
            if out.file is None:
                self.write(name, out.first.getvalue())
            else:
                with said(place):
                    out.file.close()
                    out.file.commit()
        except BaseException:
            if out.file is not None:
                with suppress(Exception):
                    out.file.discard()  # what cannot be taken back now, `remove_unfinished` will
                out.file.closed = True
            raise

    def upload(self, name: str) -> Any:
        """fsspec's file for writing in parts, which appears at its `commit`."""
        with said(self.place(name)):
            system, path = self.path(name)
            return system.open(path, "wb", block_size=UPLOAD, autocommit=False)

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError), said(self.place(name)):
            system, path = self.path(name)
            system.rm_file(path)

    def remove_unfinished(self, names: Collection[str]) -> None:
        """There is nothing: what is not finished is forgotten by the storage."""


def _together(system: Any, calls: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """What fsspec's coroutines return or raise, which wait for the storage at the same time."""
    from fsspec.asyn import sync

    async def gathered() -> list[Any]:
        return await asyncio.gather(*calls, return_exceptions=True)

    return list(sync(system.loop, gathered))


def _said_of(place: str, answer: Any) -> Any:
    """An answer, or what `said` makes of an exception."""
    try:
        with said(place):
            if isinstance(answer, BaseException):
                raise answer
    except OSError as error:
        return error
    return answer


class Reading(io.RawIOBase):
    """A remote file whose errors are one line."""

    def __init__(self, file: Any, place: str) -> None:
        self._file, self._place = file, place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any, /) -> int:
        with said(self._place):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Writing(io.BufferedIOBase):
    """A remote file that is written, whose errors are one line. Files of one part never become an upload of parts."""

    def __init__(self, store: Remote, name: str) -> None:
        self._store, self._name, self._size = store, name, 0
        self.first = io.BytesIO()
        self.file: Any = None

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        if self.file is None and self._size + size > UPLOAD:
            self.file = self._store.upload(self._name)
            self._put(self.first.getvalue())
            self.first = io.BytesIO()
        if self.file is None:
            self.first.write(data)
        else:
            self._put(data)
        self._size += size
        return size

    def _put(self, data: Any) -> None:
        with said(self._store.place(self._name)):
            self.file.write(data)


def file_of(name: str, info: dict[str, Any]) -> File:
    """What fsspec knows of a file."""
    version = next((info[key] for key in _VERSIONS if info.get(key)), "")
    version = version.timestamp() if isinstance(version, datetime) else version  # fsspec has it in either form
    return File(name, int(info["size"]), str(version).strip('"'))


@contextmanager
def said(place: str) -> Iterator[None]:
    """Errors of fsspec, of the packages below it and of the network as one line with the place."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        if "bucket does not exist" in str(error):
            raise NoBucket(errno.ENOENT, "no such bucket", place) from error
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place) from error
    except Exception as error:
        if type(error).__name__ == "FileExpired":  # s3fs's
            raise Changed(f"{place}: another file since it was opened") from error
        raise StorageError(f"{place}: {_reason(error)}") from error


_KINDS: Final = {
    "NoCredentialsError": "no credentials",
    "PartialCredentialsError": "no credentials",
    "CredentialRetrievalError": "no credentials",
    "DefaultCredentialsError": "no credentials",
    "PermissionError": "not allowed",
    "EndpointConnectionError": "not reached",
    "HTTPClientError": "not reached",
    "ClientConnectionError": "not reached",
    "ConnectionError": "not reached",
    "TimeoutError": "not reached",
}
"""Names of exceptions, of packages that need not be installed -> what they mean."""


def _reason(error: Exception) -> str:
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    kind = next(
        (_KINDS[each.__name__] for each in type(error).__mro__ if each.__name__ in _KINDS), type(error).__name__
    )
    return " ".join(f"{kind}: {words}".split())
