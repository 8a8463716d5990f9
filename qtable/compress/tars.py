"""Tar files, read to the last byte."""

from __future__ import annotations

import copy
import io
import tarfile
from typing import Any, Final

CODING: Final[dict[str, Any]] = {"encoding": "utf-8", "errors": "surrogateescape"}
_CHUNK: Final = 1 << 20


def read_tar(file: io.RawIOBase) -> tuple[list[tarfile.TarInfo], str | None]:
    """(members in their order, a note) of an uncompressed tar file, or of several one behind the other.

    Behind an end marker come zeros, and then the file's end or a further archive (`cat a.tar b.tar`). TarError for all
    else: tarfile itself takes a damaged header for the end, and does not look behind an end marker.
    """
    members: list[tarfile.TarInfo] = []
    start: int | None = 0
    archives = 0
    while start is not None:
        file.seek(start)
        tar = tarfile.open(fileobj=file, mode="r:", **CODING)  # noqa: SIM115 - it needs no closing, the file does
        members += tar.getmembers()
        start = _first_not_zero(file, tar.offset)
        if start == tar.offset:
            raise tarfile.ReadError(f"no member's header at byte {start}, and not the end")
        archives += 1
    notes = [f"{archives} archives one behind the other, now one"] if archives > 1 else []
    if file.tell() == tar.offset:
        notes.append("no end marker: it may have been cut between two members")
    return members, "; ".join(notes) or None


def _first_not_zero(file: io.RawIOBase, at: int) -> int | None:
    """Where the first block begins, from the block at `at` on, that is not all zeros; None at the file's end."""
    file.seek(at)
    while chunk := file.read(_CHUNK):
        if zeros := chunk.lstrip(b"\0"):
            return at + (len(chunk) - len(zeros)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        at += len(chunk)
    return None


class Content:
    """What a member holds, to be read once from the first byte on. TarError where the file ends before it."""

    def __init__(self, file: io.RawIOBase, member: tarfile.TarInfo) -> None:
        self._file, self._left, self._name = file, member.size, member.name
        file.seek(member.offset_data)

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted) or b""
        if len(data) < wanted:
            raise tarfile.ReadError(f"the file ends within {self._name!r}")
        self._left -= wanted
        return data


def why_dropped(member: tarfile.TarInfo) -> str | None:
    """Why a member is dropped."""
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "unsafe name in a tar file"
    if member.issym() or member.islnk():
        return "link"
    if member.issparse() or not (member.isreg() or member.isdir()):
        return "not a plain file"
    return None


def header(member: tarfile.TarInfo, name: str, size: int) -> tarfile.TarInfo:
    """The member's header with mode, owner and time as they were."""
    anew = copy.copy(member)
    anew.name, anew.size = name, size
    anew.pax_headers = {k: v for k, v in member.pax_headers.items() if k not in ("path", "size", "hdrcharset")}
    return anew
