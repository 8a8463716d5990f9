"""One file, on a worker: a photo, a tar file of photos or anything else, written into the target."""

from __future__ import annotations

import copy
import errno
import functools
import hashlib
import io
import os
import socket
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

from PIL import _imaging

from qtable.codecs.plain import TableCoder
from qtable.compress.journal import Entry, Row, output, write_error
from qtable.compress.photo import Recipe, Skip
from qtable.compress.sources import JOURNAL, CompressError, Item, is_photo, target_names
from qtable.jpeg.codec import library_versions
from qtable.tasks.base import ModelError

if TYPE_CHECKING:
    from qtable.tasks.opening import TaskSpec


@dataclass(frozen=True)
class Job:
    """What every worker must know. Absolute paths; `versions` of the driver's libraries; models to be lent."""

    root: Path
    target: Path
    recipe: Recipe
    versions: dict[str, str]
    models: tuple[TaskSpec, ...] = ()


def work(job: Job, items: Sequence[tuple[Item, Entry | None]]) -> list[Entry]:
    """Write the outputs of these items; with each comes what an earlier run made of it. CompressError if that fails."""
    here = socket.gethostname()
    if (versions := library_versions()) != job.versions:
        ours, others = (", ".join(v.values()) for v in (versions, job.versions))
        raise CompressError(f"worker on {here}: its codec is {ours}; the driver's {others}")
    if not (job.target / JOURNAL).exists():
        raise CompressError(f"worker on {here}: its {job.target} is not the driver's; they need the same file system")
    entries = []
    with _lent(job), _reused_memory():
        for item, known in items:
            try:
                entries.append(_entry(job, item, known))
            except MemoryError:
                raise CompressError(
                    f"{item.source}: out of memory; take fewer workers or a lower pixel limit"
                ) from None
            except OSError as error:
                raise write_error(job.target, error) from None
    return entries


@contextmanager
def _lent(job: Job) -> Iterator[None]:
    """Networks for coders that ask some, which compute with one thread: there are as many workers as cores.

    And sums, of which files are made, depend on how many threads there are.
    """
    if isinstance(job.recipe.coder, TableCoder):
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for spec in job.models:
            _lend(spec)
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def _lend(spec: TaskSpec) -> None:
    """Once in a process."""
    from qtable.codecs.task_aware import lend

    lend(spec.open())


@contextmanager
def _reused_memory() -> Iterator[None]:
    """Pillow keeps some memory from photo to photo: page faults would take a fifth of the time."""
    before = _imaging.get_blocks_max()
    _imaging.set_blocks_max(max(before, 4))
    try:
        yield
    finally:
        _imaging.set_blocks_max(before)


def _entry(job: Job, item: Item, known: Entry | None) -> Entry:
    """What becomes of one item. OSError if its output cannot be written."""
    assert item.target is not None
    size, mtime_ns = item.size, item.mtime_ns
    try:
        with Source.opened(job.root / item.source) as file:
            status = os.fstat(file.fileno())
            size, mtime_ns = status.st_size, status.st_mtime_ns
            make = {"photo": _photo, "shard": _shard, "other": _other}[item.kind]
            rows = make(job, item.source, item.target, file, known)
    except Skip as skip:
        rows = (Row(item.source, None, None, "skipped", size, reason=str(skip)),)
    if rows[0].target is None:
        discard(job.target / item.target)  # made of what the source was before
    return Entry(size, mtime_ns, rows)


def discard(path: Path) -> None:
    """Remove a file, if there is one. OSError if it cannot be removed."""
    try:
        path.unlink()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise


class Source(io.FileIO):
    """A file of the source, opened for reading; its errors are those of this file alone and raise Skip."""

    @classmethod
    def opened(cls, path: Path) -> Self:
        try:
            return cls(path)
        except FileNotFoundError:
            raise Skip("vanished") from None
        except OSError as error:
            raise Skip(f"unreadable: {error.strerror}") from None

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return super().read(-1 if size is None else size) or b""
        except OSError as error:
            raise Skip(f"unreadable: {error.strerror}") from None


class _Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sum = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._sum.update(data)
        return data

    def digest(self) -> str:
        return self._sum.hexdigest()


def _digest(file: IO[bytes]) -> str:
    hashed = _Hashed(file)
    while hashed.read(1 << 20):
        pass
    return hashed.digest()


def _unchanged(job: Job, known: Entry | None, target: str, digest: str) -> tuple[Row, ...]:
    """The rows of an earlier run, if they are of the same bytes and their output is there as it was written; or ()."""
    if known is None or known.rows[0].sha256_before != digest:
        return ()
    row = known.rows[0]
    if row.target is not None:
        try:
            with open(job.target / row.target, "rb") as file:
                if row.target != target or _digest(file) != row.sha256_after:
                    return ()
        except FileNotFoundError:
            return ()
    return known.rows


def _converted(job: Job, source: str, member: str | None, target: str, data: bytes) -> tuple[bytes, Row]:
    """A photo's new file and its row; b"" if it is skipped."""
    before = hashlib.sha256(data).hexdigest()
    try:
        made, action, note = job.recipe(data)
    except Skip as skip:
        return b"", Row(source, member, None, "skipped", len(data), None, before, None, str(skip))
    except ModelError as error:
        raise CompressError(f"{source if member is None else f'{source}: {member}'}: {error}") from None
    after = hashlib.sha256(made).hexdigest()
    return made, Row(source, member, target, action, len(data), len(made), before, after, note)


def _photo(job: Job, source: str, target: str, file: Source, known: Entry | None) -> tuple[Row, ...]:
    job.recipe.check_bytes(os.fstat(file.fileno()).st_size)
    data = file.read()
    if known is not None and (rows := _unchanged(job, known, target, hashlib.sha256(data).hexdigest())):
        return rows
    made, row = _converted(job, source, None, target, data)
    if made:
        with output(job.target, target) as out:
            out.write(made)
    return (row,)


def _other(job: Job, source: str, target: str, file: Source, known: Entry | None) -> tuple[Row, ...]:
    if known is not None:
        if rows := _unchanged(job, known, target, _digest(file)):
            return rows
        file.seek(0)
    hashed = _Hashed(file)
    with output(job.target, target) as out:
        while data := hashed.read(1 << 20):
            out.write(data)
        size = out.tell()
    return (Row(source, None, target, "copied", size, size, hashed.digest(), hashed.digest()),)


def _shard(job: Job, source: str, target: str, file: Source, known: Entry | None) -> tuple[Row, ...]:
    """A tar file anew: each photo in its place under its new name, other members as they are; nothing is unpacked."""
    before = _digest(file)
    if rows := _unchanged(job, known, target, before):
        return rows
    try:
        old = read_tar(file)
        members = old.getmembers()
        unsafe = [why_dropped(member) for member in members]
        safe = [m.name + "/" * m.isdir() for m, reason in zip(members, unsafe, strict=True) if reason is None]
        names = iter(target_names(safe))
        below = []
        with output(job.target, target) as out:
            with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, **_CODING) as new:
                for member, reason in zip(members, unsafe, strict=True):
                    if reason is not None:
                        below.append(Row(source, member.name, None, "skipped", member.size, reason=reason))
                    elif member.isdir():
                        new.addfile(_header(member, next(names).rstrip("/"), 0))
                    else:
                        below.append(_member(job, source, next(names), member, old, new))
            size = out.seek(0, os.SEEK_END)
            out.seek(0)
            after = _digest(out)
    except (tarfile.TarError, ValueError) as error:  # ValueError: numbers and text that no header can hold
        raise Skip(f"damaged tar: {error}") from None
    return (Row(source, None, target, "shard", os.fstat(file.fileno()).st_size, size, before, after), *below)


_CODING: Final[dict[str, Any]] = {"encoding": "utf-8", "errors": "surrogateescape"}
_BLOCK: Final = tarfile.BLOCKSIZE


def read_tar(file: Source) -> tarfile.TarFile:
    """An uncompressed tar file that is whole: tarfile itself takes a damaged header for the end. TarError if not."""
    file.seek(0)
    tar = tarfile.open(fileobj=file, mode="r:", **_CODING)  # noqa: SIM115 - it needs no closing, the file does
    tar.getmembers()
    file.seek(tar.offset)
    if any(block := file.read(_BLOCK)):
        raise tarfile.ReadError(f"no member's header at byte {tar.offset}, and not the end ({len(block)} bytes)")
    return tar


def why_dropped(member: tarfile.TarInfo) -> str | None:
    """Why a member is dropped."""
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "unsafe name in a tar file"
    if member.issym() or member.islnk():
        return "link"
    if member.issparse() or not (member.isreg() or member.isdir()):
        return "not a plain file"
    return None


def _header(member: tarfile.TarInfo, name: str, size: int) -> tarfile.TarInfo:
    """The member's header with mode, owner and time as they were."""
    header = copy.copy(member)
    header.name, header.size = name, size
    header.pax_headers = {k: v for k, v in member.pax_headers.items() if k not in ("path", "size", "hdrcharset")}
    return header


def _member(
    job: Job, source: str, target: str, member: tarfile.TarInfo, old: tarfile.TarFile, new: tarfile.TarFile
) -> Row:
    """Put one file of a tar into another."""
    content = old.extractfile(member)
    assert content is not None
    if not is_photo(member.name):
        hashed = _Hashed(content)
        new.addfile(_header(member, target, member.size), hashed)
        return Row(source, member.name, target, "copied", member.size, member.size, hashed.digest(), hashed.digest())
    try:
        job.recipe.check_bytes(member.size)
    except Skip as skip:
        return Row(source, member.name, None, "skipped", member.size, reason=str(skip))
    made, row = _converted(job, source, member.name, target, content.read())
    if made:
        new.addfile(_header(member, target, len(made)), io.BytesIO(made))
    return row
