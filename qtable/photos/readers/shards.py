"""WebDataset shards: tar files in which the files of a sample stand together under one key."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import BinaryIO, Final

from qtable.photos.files import DataError, File, Listing, Part
from qtable.photos.labels import ClassList, numbered
from qtable.photos.opening import is_photo
from qtable.photos.readers.base import Reader
from qtable.photos.readers.places import Aside, Place, counted, is_hidden, others, splits_among
from qtable.photos.where import RemotePath, Where, open_file

BLOCK: Final = tarfile.BLOCKSIZE
LABELS: Final = (".cls", ".json")
"""Kinds of members that say labels."""
MAX_LABEL_BYTES: Final = 1 << 20
"""A sample's .cls or .json is no larger."""
AT_ONCE: Final = 8
"""Shards that are looked through side by side."""


@dataclass(frozen=True, slots=True)
class Member:
    """A plain file in a tar file. archive: the number of the archive that it is in: joined archives are several.

    text: its bytes if they may say a label, no more than `MAX_LABEL_BYTES`; they are read on the way, not one by one.
    """

    archive: int
    part: Part
    text: bytes = b""


@dataclass
class Sample:
    """What stands under one key: its photo and the members that may say its label."""

    key: str
    photo: Part | None = None
    label: dict[str, Member] = field(default_factory=dict)


Labelled = tuple[str, Part, str | None]
"""A sample's key, photo and label."""


def list_shards(shards: Sequence[Where], source: Where, classes: ClassList | None = None) -> Listing:
    """Tar files whose members are KEY.jpg (or another photo) and KEY.cls or KEY.json with a `label`.

    The key ends at the first dot of the base name, as in WebDataset: `a.seg.png` is of kind `.seg.png` and no photo.
    Files that were made by joining tar files are read to the end. DataError for files that end too early, for two
    photos under a key, and for a sample without a label among others that have one.
    """
    aside = Aside()
    samples: list[Labelled] = []
    alone: list[str] = []
    with ThreadPoolExecutor(AT_ONCE if isinstance(source, RemotePath) else 1) as pool:
        for more, bereft, left in pool.map(_looked_through, shards):
            samples += more
            alone += bereft
            aside.kinds.update(left.kinds)
            aside.hidden.update(left.hidden)
    if not samples:
        found = f"; it holds {others(aside.kinds)}" if aside.kinds else ""
        raise DataError(f"{source}: no photos in {counted(len(shards), 'tar file')}{found}")
    words = [word for *_, word in samples]
    bare = next((key for key, _, word in samples if word is None), None)
    labels: Sequence[int | None] = [None] * len(samples)
    names: tuple[str, ...] = ()
    if bare is not None:
        if any(word is not None for word in words):
            raise DataError(f"{source}: {bare} has no label (.cls, or .json with label), and others have one")
        if classes is not None:
            raise DataError(f"{source}: photos without labels; there is nothing for {classes.path} to number")
        how = "no labels (no .cls, no .json with label)"
    else:
        told = [word for word in words if word is not None]
        order = numbered(source, told, lambda i: f"{samples[i][0]} has label {told[i]!r:.40}", classes)
        labels, names, how = order.indices, order.classes, order.said
    said = f"{source}: {counted(len(samples), 'photo')} in {counted(len(shards), 'tar shard')}; {how}"
    without = [f"{source}: {counted(len(alone), 'label')} without a photo left aside (one: {key})" for key in alone[:1]]
    photos = _files(photo for _, photo, _ in samples)
    return Listing(tuple(zip(photos, labels, strict=True)), names, (said, *without, *aside.said(source)))


def _files(photos: Iterable[Part]) -> Iterator[File]:
    """The photos, each with a name of its own: joined tar files repeat them."""
    seen: Counter[str] = Counter()
    for one in photos:
        seen[one.name] += 1
        again = seen[one.name]
        yield one if again == 1 else Part(one.path, f"{one.inner} ({again})", one.offset, one.size)


def _looked_through(shard: Where) -> tuple[list[Labelled], list[str], Aside]:
    """The samples of a tar file that have a photo, the keys of labels without one, and what else is in it."""
    aside = Aside()
    found: list[Labelled] = []
    alone = []
    for one in _samples(shard, aside):
        if one.photo is not None:
            found.append((one.key, one.photo, _label(one)))
        elif one.label:
            alone.append(one.key)
    return found, alone, aside


def _samples(shard: Where, aside: Aside) -> Iterator[Sample]:
    """The samples of a tar file, those of joined archives apart."""
    for _, archive in groupby(members(shard), key=lambda member: member.archive):
        samples: dict[str, Sample] = {}
        for member in archive:
            folder, _, base = member.part.inner.rpartition("/")
            stem, _, kind = base.partition(".")
            odd = next((part for part in (*folder.split("/"), base) if part != "." and is_hidden(part)), None)
            if odd is not None:
                aside.hidden[odd] += 1
                continue
            key = f"{shard}/{folder}/{stem}" if folder else f"{shard}/{stem}"
            _add(samples.setdefault(key, Sample(key)), f".{kind.lower()}", member, aside)
        yield from samples.values()


def _add(sample: Sample, kind: str, member: Member, aside: Aside) -> None:
    """One more member of a sample: its photo, its label or neither."""
    if is_photo(f"x{kind}") and kind.count(".") == 1:
        if sample.photo is not None:
            raise DataError(f"{sample.photo.name} and {member.part.inner} are two photos under one key")
        sample.photo = member.part
    elif kind in LABELS:
        if kind in sample.label:
            raise DataError(f"{member.part.name} stands twice")
        sample.label[kind] = member
    else:
        aside.kinds[kind if kind != "." else "no suffix"] += 1


def _label(sample: Sample) -> str | None:
    """What the sample says: .cls is a number or a name, .json has it as `label`. DataError if the two differ."""
    words = {}
    if ".cls" in sample.label:
        words[".cls"] = _text(sample.label[".cls"]).strip()
        if not words[".cls"]:
            raise DataError(f"{sample.key}.cls: empty; it has the label")
    if ".json" in sample.label:
        try:
            entry = json.loads(_text(sample.label[".json"]))
        except (ValueError, RecursionError):
            raise DataError(f"{sample.key}.json: not JSON") from None
        label = entry.get("label") if isinstance(entry, dict) else None
        if isinstance(label, bool) or not isinstance(label, str | int | float | None):
            raise DataError(f"{sample.key}.json has label {str(label)!r:.40}; a label is a whole number or a name")
        if label is not None:
            words[".json"] = str(label).strip()
    if len(set(words.values())) > 1:
        raise DataError(f"{sample.key}: .cls says {words['.cls']!r:.40} and .json {words['.json']!r:.40}")
    return next(iter(words.values()), None)


def _text(member: Member) -> str:
    name, size = member.part.name, member.part.size
    if size > MAX_LABEL_BYTES:
        raise DataError(f"{name}: {size:,} bytes; a label has at most {MAX_LABEL_BYTES:,}")
    if not size:
        raise DataError(f"{name}: empty file")
    try:
        return member.text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{name}: not text in UTF-8") from None


def members(shard: Where) -> Iterator[Member]:
    """The plain files in a tar file. DataError for what cannot be read to the last byte."""
    with open_file(shard) as file:
        size, number, begin = file.seek(0, 2), 0, 0
        while begin < size:
            file.seek(begin)
            try:
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    while (member := archive.next()) is not None:
                        if member.isreg() and not member.issparse():
                            if member.offset_data + member.size > size:
                                raise DataError(f"{shard}: {member.name} is cut off; the file ends too early")
                            part = Part(shard, member.name, member.offset_data, member.size)
                            yield Member(number, part, _text_of(file, part))
                        elif not member.isdir():
                            raise DataError(f"{shard}: {member.name} is no plain file (a link, or sparse)")
                        archive.members.clear()  # type: ignore[attr-defined]  # or all headers are kept
                    end = archive.offset
            except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
                if isinstance(error, DataError):
                    raise
                raise DataError(f"{shard}: not a whole tar file: {error}") from None
            begin = _behind_end(shard, file, end, size)
            number += 1


def _text_of(file: BinaryIO, part: Part) -> bytes:
    """The bytes of what may say a label."""
    if not part.inner.lower().endswith(LABELS) or part.size > MAX_LABEL_BYTES:
        return b""
    file.seek(part.offset)
    return file.read(part.size)


def _behind_end(shard: Where, file: BinaryIO, end: int, size: int) -> int:
    """Where the zeros behind an archive end. DataError if there are none: the file was cut off, or it is no tar."""
    file.seek(end)
    marks = 0
    while block := file.read(BLOCK):
        if block.strip(b"\0"):
            break
        marks += 1
        end += len(block)
    if not marks:
        what = "not a tar file from" if end < size else "cut off:"
        raise DataError(f"{shard}: {what} byte {end:,} (no end mark of two empty blocks)")
    return end


def _recognises(place: Place) -> bool:
    if place.is_folder:
        return bool(place.with_suffix(".tar")) and not place.holds_photos()
    return place.path.name.lower().endswith(".tar") or place.head[257:262] == b"ustar"


def _read(place: Place, classes: ClassList | None) -> Listing:
    names = place.with_suffix(".tar")
    splits = splits_among(sorted({name.split("-")[0].split("_")[0].split(".")[0] for name in names}))
    if splits:
        raise DataError(f"{place.path}: shards of the splits {', '.join(splits)}; give those of one in its own folder")
    shards: list[Where] = [place.path / name for name in names] if place.is_folder else [place.path]
    return list_shards(shards, place.path, classes)


READER: Final = Reader(_recognises, _read)
