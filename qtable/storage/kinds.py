"""Remote storage: S3, web servers, this process's memory, each where it differs from the others."""

from __future__ import annotations

import errno
import io
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote, unquote

from qtable.storage.base import File, StorageError, Store, inside
from qtable.storage.remote import Reading, Remote, check_address, file_of, protocol_of, said


class S3(Remote):
    """S3 and what speaks like it. A killed writer leaves an upload that nobody sees and somebody pays."""

    def remove_unfinished(self, names: Collection[str]) -> None:
        wanted = set(names)
        with said(self.root):
            system, top = self.top()
            bucket, _, prefix = (top + "/").partition("/")
            more: dict[str, str] = {}
            while True:
                page = system.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **more)
                for upload in page.get("Uploads", ()):
                    if upload["Key"].startswith(prefix) and upload["Key"].removeprefix(prefix) in wanted:
                        system.abort_mpu(bucket, upload["Key"], upload["UploadId"])
                if not page.get("IsTruncated"):
                    return
                more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


class Web(Remote):
    """A folder of a web server, for reading; its files are those that its pages link to."""

    def path(self, name: str) -> tuple[Any, str]:
        system, top = self.top()
        return system, f"{top}/{quote(inside(name))}"

    def files(self) -> list[File]:
        found = {}
        with said(self.root):
            system, top = self.top()
            for url in system.find(top):
                name = unquote(url.removeprefix(top + "/").partition("?")[0])  # ?: a folder in another order
                if url.startswith(top + "/") and name and not name.endswith("/"):
                    found[name] = file_of(name, system.info(url))
        if not found:
            raise FileNotFoundError(errno.ENOENT, "no such folder, or no links in it", self.root)
        return [found[name] for name in sorted(found, key=str.encode)]

    def read_range(self, name: str, start: int, size: int) -> bytes:
        return Store.read_range(self, name, start, size)  # some servers send everything instead: open files notice

    def write(self, name: str, data: bytes) -> None:
        self._refuse()

    def write_many(self, files: Mapping[str, bytes]) -> None:
        self._refuse()

    def write_new(self, name: str, data: bytes) -> bool:
        self._refuse()
        return False

    @contextmanager
    def create(self, name: str) -> Iterator[io.BufferedIOBase]:
        self._refuse()
        yield io.BytesIO()

    def remove(self, name: str) -> None:
        self._refuse()

    def _refuse(self) -> None:
        raise StorageError(f"{self.root}: {protocol_of(self.root)}:// is for reading; write to s3://, gs:// or az://")


class Memory(Remote):
    """Memory of this process. Its open files are the stored ones: one position for all, and seen half-written."""

    def open(self, name: str) -> io.BufferedReader:
        return io.BufferedReader(Reading(io.BytesIO(self.read(name)), self.place(name)))

    @contextmanager
    def create(self, name: str) -> Iterator[io.BufferedIOBase]:
        file = io.BytesIO()
        yield file
        self.write(name, file.getvalue())


_KINDS: Final[dict[str, type[Remote]]] = {"s3": S3, "http": Web, "https": Web, "memory": Memory}


def remote_store(place: str) -> Remote:
    """The store at an address. StorageError as `check_address`."""
    check_address(place)
    return _KINDS.get(protocol_of(place), Remote)(place.rstrip("/"))
