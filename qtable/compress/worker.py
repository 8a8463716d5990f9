"""One file, on a worker: a photo, a tar file of photos or anything else, written into the target."""

from __future__ import annotations

import errno
import hashlib
import io
import socket
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING

from PIL import _imaging

from qtable.codecs.plain import TableCoder
from qtable.compress.journal import EXCLUDED, Entry, Outcome, Row, naming, output, write_error
from qtable.compress.label_maps import Evidence, judge
from qtable.compress.lists import Follower, TargetOf
from qtable.compress.photo import Recipe, Skip
from qtable.compress.reading import Hashed, HashedOutput, Source, check_same, checked, digest_of, seen
from qtable.compress.sources import EVERYTHING, JOURNAL, CompressError, Item, Selection, target_names
from qtable.compress.tars import CODING, Content, header, read_tar, why_dropped
from qtable.jpeg.codec import library_versions
from qtable.photos.opening import is_photo
from qtable.storage import Remote, Store
from qtable.tasks.base import ModelError

if TYPE_CHECKING:
    from qtable.tasks.opening import TaskSpec


@dataclass(frozen=True)
class Job:
    """What every worker must know. Folders are addresses or absolute paths; `versions` of the driver's libraries;
    models to be lent; which members of tar files are photos to compress."""

    root: Store
    target: Store
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
    try:
        same = job.target.exists(JOURNAL)
    except OSError as error:  # no credentials, no package, ...
        raise CompressError(f"worker on {here}: {error}") from None
    if not same:
        raise CompressError(f"worker on {here}: its {job.target} is not the driver's; they need the same file system")
    with _lent(job), _reused_memory():
        photos = _Photos(job, [item for item, _ in items if item.kind == "photo"])
        entries = [_entry(job, item, partial(_rows, job, item, known, photos)) for item, known in items]
        photos.finish()
        return entries


def follow(job: Job, item: Item, place: TargetOf) -> Entry:
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


def _entry(job: Job, item: Item, make: Callable[[], tuple[Row, ...]]) -> Entry:
    """What becomes of one item. CompressError if its output cannot be written, or a storage not be reached."""
    assert item.target is not None
    try:
        rows = make()
    except Skip as skip:
        rows = (Row(item.source, None, None, "skipped", item.size, reason=str(skip)),)
    except MemoryError:
        raise CompressError(f"{item.source}: out of memory; take fewer workers or a lower pixel limit") from None
    except OSError as error:
        raise write_error(job.target, item.target, error) from None
    return Entry(item.size, item.version, rows)


class _Photos:
    """The photos of a chunk, read together, and to remote storage written together: there it is waiting that takes
    the time."""

    def __init__(self, job: Job, items: Sequence[Item]) -> None:
        """OSError if their storage is not reached."""
        names = [item.source for item in items if item.size <= job.recipe.most_bytes]
        self._job, self._made = job, dict[str, bytes]()
        self._read = dict(zip(names, job.root.read_many(names), strict=True))

    def read(self, item: Item) -> bytes:
        """Once. Skip if it cannot be read."""
        self._job.recipe.check_bytes(item.size)
        return checked(self._read.pop(item.source))

    def write(self, name: str, data: bytes) -> None:
        """Now, or at `finish`. Skip if no file can have its name."""
        target = self._job.target
        if isinstance(target, Remote):
            with naming():
                target.check_name(name)
            self._made[name] = data
        else:
            with output(target, name) as out:
                out.write(data)

    def finish(self) -> None:
        """CompressError if they cannot be written."""
        try:
            self._job.target.write_many(self._made)
        except OSError as error:
            raise write_error(self._job.target, next(iter(self._made)), error) from None


def _rows(job: Job, item: Item, known: Entry | None, photos: _Photos) -> tuple[Row, ...]:
    if item.kind == "photo":
        return _photo(job, item, known, photos)
    return (_shard if item.kind == "shard" else _other)(job, item, known)


def discard(folder: Store, name: str) -> None:
    """Remove a file, if there is one. CompressError if it cannot be removed."""
    try:
        folder.remove(name)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise write_error(folder, name, error) from None


def _unchanged(job: Job, known: Entry | None, target: str | None, digest: str) -> tuple[Row, ...]:
    """The rows of an earlier run, if they are of the same bytes and their output is there as it was written; or ()."""
    if known is None or known.rows[0].sha256_before != digest:
        return ()
    row = known.rows[0]
    if row.target is not None:
        try:
            with job.target.open(row.target) as file:
                if row.target != target or digest_of(file) != row.sha256_after:
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


def _photo(job: Job, item: Item, known: Entry | None, photos: _Photos) -> tuple[Row, ...]:
    data = photos.read(item)
    if known is not None:
        is_map, _ = judge(data, item.evidence, job.recipe.max_pixels)  # what lies beside it may be new
        target = item.source if is_map else item.target
        rows = _unchanged(job, known, target, hashlib.sha256(data).hexdigest())
        if rows and (rows[0].reason if rows[0].action == "label map" else None) == is_map:
            return rows
    made, row = _made(job, Row(item.source, None, item.target, "compressed"), data, item.evidence)
    if made and row.target is not None:
        photos.write(row.target, made)
    return (row,)


def _other(job: Job, item: Item, known: Entry | None) -> tuple[Row, ...]:
    assert item.target is not None
    with Source(job.root, item.source) as file:
        if known is not None:
            if rows := _unchanged(job, known, item.target, digest_of(file)):
                return rows
            file.seek(0)
        hashed = Hashed(file)
        with output(job.target, item.target) as out:
            while data := hashed.read(1 << 20):
                out.write(data)
            size = out.tell()
    reason = EXCLUDED if item.kind == "excluded" else None
    return (Row(item.source, None, item.target, "copied", size, size, hashed.digest(), hashed.digest(), reason),)


def _list(job: Job, item: Item, place: TargetOf) -> tuple[Row, ...]:
    """A list is written in each run: what it says depends on what became of others."""
    assert item.target is not None
    with Source(job.root, item.source) as file:
        follower, before, after, size = Follower(item.source, place), digest_of(file), hashlib.sha256(), file.tell()
        file.seek(0)
        with io.BufferedReader(file) as lines, output(job.target, item.target) as out:
            for record in follower(lines):
                after.update(record)
                out.write(record)
            written = out.tell()
    action: Outcome = "list" if follower.counts["named"] else "copied"
    return (Row(item.source, None, item.target, action, size, written, before, after.hexdigest(), follower.note()),)


def _shard(job: Job, item: Item, known: Entry | None) -> tuple[Row, ...]:
    """A tar file anew: each photo in its place under its new name, other members as they are; nothing is unpacked."""
    assert item.target is not None
    first = seen(job.root, item.source)
    with Source(job.root, item.source) as file:
        before, size = digest_of(file), file.tell()
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
                hashed = HashedOutput(out)
                with tarfile.open(fileobj=hashed, mode="w", format=tarfile.PAX_FORMAT, **CODING) as new:
                    for member, target, evidence in members_to_write(item.source, members, job.selection):
                        if member.isdir():
                            new.addfile(header(member, member.name, 0))
                        else:
                            row, content = Row(item.source, member.name, target, "compressed"), Content(file, member)
                            below.append(_member(job, row, member, content, evidence, new))
                written, after = out.tell(), hashed.digest()
                check_same(job.root, first)
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
        hashed = Hashed(content)
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
