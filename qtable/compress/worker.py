"""One file, on a worker: a photo, a tar file of photos or anything else, written into the target."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import socket
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from PIL import _imaging

from qtable.codecs.plain import TableCoder
from qtable.compress.journal import EXCLUDED, Entry, Outcome, Row, output, write_error
from qtable.compress.label_maps import Evidence, judge
from qtable.compress.lists import Follower, Place
from qtable.compress.photo import Recipe, Skip
from qtable.compress.sources import EVERYTHING, JOURNAL, CompressError, Item, Selection, is_photo, target_names
from qtable.compress.tars import CODING, Content, header, read_tar, why_dropped
from qtable.jpeg.codec import library_versions
from qtable.tasks.base import ModelError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from qtable.tasks.opening import TaskSpec


@dataclass(frozen=True)
class Job:
    """What every worker must know. Absolute paths; `versions` of the driver's libraries; models to be lent; which
    members of tar files are photos to compress."""

    root: Path
    target: Path
    recipe: Recipe
    versions: dict[str, str]
    models: tuple[TaskSpec, ...] = ()
    selection: Selection = EVERYTHING


def work(job: Job, items: Sequence[tuple[Item, Entry | None]]) -> list[Entry]:
    """Write the outputs of these items; with each comes what an earlier run made of it. CompressError if that fails."""
    here = socket.gethostname()
    if (versions := library_versions()) != job.versions:
        ours, others = (", ".join(v.values()) for v in (versions, job.versions))
        raise CompressError(f"worker on {here}: its codec is {ours}; the driver's {others}")
    if not (job.target / JOURNAL).exists():
        raise CompressError(f"worker on {here}: its {job.target} is not the driver's; they need the same file system")
    with _lent(job), _reused_memory():
        return [_entry(job, item, partial(_rows, job, item, known)) for item, known in items]


def follow(job: Job, item: Item, place: Place) -> Entry:
    """Write a list whose names follow their files, which lie in their places. CompressError if that fails."""
    return _entry(job, item, partial(_list, job, item, place))


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


@cache
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


def _entry(job: Job, item: Item, make: Callable[[Source], tuple[Row, ...]]) -> Entry:
    """What becomes of one item. CompressError if its output cannot be written."""
    assert item.target is not None
    size, mtime_ns = item.size, item.mtime_ns
    try:
        with Source.opened(job.root / item.source) as file:
            status = os.fstat(file.fileno())
            size, mtime_ns = status.st_size, status.st_mtime_ns
            rows = make(file)
    except Skip as skip:
        rows = (Row(item.source, None, None, "skipped", size, reason=str(skip)),)
    except MemoryError:
        raise CompressError(f"{item.source}: out of memory; take fewer workers or a lower pixel limit") from None
    except OSError as error:
        raise write_error(job.target / item.target, error) from None
    for name in {item.target, item.source} - {rows[0].target}:
        discard(job.target / name)  # made of what the source was before
    return Entry(size, mtime_ns, rows)


def _rows(job: Job, item: Item, known: Entry | None, file: Source) -> tuple[Row, ...]:
    make = {"photo": _photo, "shard": _shard}.get(item.kind, _other)
    return make(job, item, known, file)


def discard(path: Path) -> None:
    """Remove a file, if there is one. CompressError if it cannot be removed."""
    try:
        path.unlink()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise write_error(path, error) from None


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

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            return super().readinto(buffer) or 0
        except OSError as error:
            raise Skip(f"unreadable: {error.strerror}") from None


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: _Readable) -> None:
        self._file, self._sum = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._sum.update(data)
        return data

    def digest(self) -> str:
        return self._sum.hexdigest()


def _digest(file: _Readable) -> str:
    hashed = _Hashed(file)
    while hashed.read(1 << 20):
        pass
    return hashed.digest()


def _unchanged(job: Job, known: Entry | None, target: str | None, digest: str) -> tuple[Row, ...]:
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


def _made(job: Job, row: Row, data: bytes, known: Evidence) -> tuple[bytes, Row]:
    """A picture's new file, b"" if it is skipped, and its row; `row` has its names. A label map stays as it is."""
    before = hashlib.sha256(data).hexdigest()
    row = replace(row, bytes_before=len(data), sha256_before=before)
    is_map, doubt = judge(data, known, job.recipe.max_pixels)
    if is_map:
        name = row.source if row.member is None else row.member
        return data, replace(
            row, target=name, action="label map", bytes_after=len(data), sha256_after=before, reason=is_map
        )
    try:
        made, action, note = job.recipe(data)
    except Skip as skip:
        return b"", replace(row, target=None, action="skipped", reason=str(skip))
    except ModelError as error:
        raise CompressError(f"{': '.join(filter(None, (row.source, row.member)))}: {error}") from None
    after, said = hashlib.sha256(made).hexdigest(), "; ".join(filter(None, (doubt, note)))
    return made, replace(row, action=action, bytes_after=len(made), sha256_after=after, reason=said or None)


def _photo(job: Job, item: Item, known: Entry | None, file: Source) -> tuple[Row, ...]:
    job.recipe.check_bytes(os.fstat(file.fileno()).st_size)
    data = file.read()
    if known is not None:
        is_map, _ = judge(data, item.evidence, job.recipe.max_pixels)  # what lies beside it may be new
        target = item.source if is_map else item.target
        rows = _unchanged(job, known, target, hashlib.sha256(data).hexdigest())
        if rows and (rows[0].reason if rows[0].action == "label map" else None) == is_map:
            return rows
    made, row = _made(job, Row(item.source, None, item.target, "compressed"), data, item.evidence)
    if made and row.target is not None:
        with output(job.target, row.target) as out:
            out.write(made)
    return (row,)


def _other(job: Job, item: Item, known: Entry | None, file: Source) -> tuple[Row, ...]:
    assert item.target is not None
    if known is not None:
        if rows := _unchanged(job, known, item.target, _digest(file)):
            return rows
        file.seek(0)
    hashed = _Hashed(file)
    with output(job.target, item.target) as out:
        while data := hashed.read(1 << 20):
            out.write(data)
        size = out.tell()
    reason = EXCLUDED if item.kind == "excluded" else None
    return (Row(item.source, None, item.target, "copied", size, size, hashed.digest(), hashed.digest(), reason),)


def _list(job: Job, item: Item, place: Place, file: Source) -> tuple[Row, ...]:
    """A list is written in each run: what it says depends on what became of others."""
    assert item.target is not None
    follower, before, after, size = Follower(item.source, place), _digest(file), hashlib.sha256(), file.tell()
    file.seek(0)
    with io.BufferedReader(file) as lines, output(job.target, item.target) as out:
        for record in follower(lines):
            after.update(record)
            out.write(record)
        written = out.tell()
    action: Outcome = "list" if follower.counts["named"] else "copied"
    return (Row(item.source, None, item.target, action, size, written, before, after.hexdigest(), follower.note()),)


def _shard(job: Job, item: Item, known: Entry | None, file: Source) -> tuple[Row, ...]:
    """A tar file anew: each photo in its place under its new name, other members as they are; nothing is unpacked."""
    assert item.target is not None
    before, size = _digest(file), file.tell()
    if rows := _unchanged(job, known, item.target, before):
        return rows
    try:
        members, note = read_tar(file)
        below = [
            Row(item.source, member.name, None, "skipped", member.size, reason=reason)
            for member in members
            if (reason := why_dropped(member)) is not None
        ]
        with output(job.target, item.target) as out:
            with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, **CODING) as new:
                for member, target, evidence in members_to_write(item.source, members, job.selection):
                    if member.isdir():
                        new.addfile(header(member, member.name, 0))
                    else:
                        row, content = Row(item.source, member.name, target, "compressed"), Content(file, member)
                        below.append(_member(job, row, member, content, evidence, new))
            written = out.seek(0, os.SEEK_END)
            out.seek(0)
            after = _digest(out)
    except (tarfile.TarError, ValueError) as error:  # ValueError: numbers and text that no header can hold
        raise Skip(f"damaged tar: {error}") from None
    return (Row(item.source, None, item.target, "shard", size, written, before, after, note), *below)


def members_to_write(
    shard: str, members: Sequence[tarfile.TarInfo], selection: Selection
) -> list[tuple[tarfile.TarInfo, str, Evidence | None]]:
    """Each member that is not dropped with its new name and, if it is a photo to compress, what is known of it."""

    def photo(name: str) -> bool:
        return is_photo(name) and selection.takes(name, f"{shard}/{name}")

    kept = [member for member in members if why_dropped(member) is None]
    photos = {member.name for member in kept if member.isreg() and photo(member.name)}
    names = target_names((member.name + "/" * member.isdir() for member in kept), photo)
    known = selection.evidence(photos)
    return [
        (member, member.name, None)
        if member.isdir() or member.name not in photos
        else (member, names[member.name], known.get(member.name, "photo"))
        for member in kept
    ]


def _member(
    job: Job, row: Row, member: tarfile.TarInfo, content: Content, evidence: Evidence | None, new: tarfile.TarFile
) -> Row:
    """Put one file of a tar into another; `row` has its names. evidence: None if it is not for compressing."""
    assert row.target is not None
    if evidence is None:
        hashed = _Hashed(content)
        new.addfile(header(member, row.target, member.size), hashed)
        digest, reason = hashed.digest(), EXCLUDED if is_photo(member.name) else None
        return Row(row.source, row.member, row.target, "copied", member.size, member.size, digest, digest, reason)
    try:
        job.recipe.check_bytes(member.size)
    except Skip as skip:
        return replace(row, target=None, action="skipped", bytes_before=member.size, reason=str(skip))
    made, row = _made(job, row, content.read(), evidence)
    if made and row.target is not None:
        new.addfile(header(member, row.target, len(made)), io.BytesIO(made))
    return row
