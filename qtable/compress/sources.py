"""What there is to do: the files of a folder or tar file, and the names of their outputs."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from qtable.photos.opening import EXTENSIONS

PART: Final = ".qtable-part-"
"""How the names of unfinished outputs begin."""
JOURNAL: Final = ".qtable-journal.jsonl"
MANIFEST: Final = "manifest.jsonl"


class CompressError(ValueError):
    """Photos cannot be compressed as asked, or not to the end; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file of the source: path relative to `root`, path of the output, what it is, size and time of change.

    reason: why it is left out, where that is known from its name or kind; then it has no target.
    """

    source: str
    target: str | None
    kind: Literal["photo", "shard", "other"]
    size: int
    mtime_ns: int
    reason: str | None = None


def is_photo(name: str) -> bool:
    """Whether a file's name ends in one of `EXTENSIONS`, in small letters or large."""
    return posixpath.splitext(name)[1].lower() in EXTENSIONS


def target_names(names: Sequence[str]) -> list[str]:
    """The outputs' paths: a photo gets the suffix .jpg; JPEG files and all that are no photos keep their names.

    Where a photo's new name is another's, or a folder's, the photo later in `names` gets its whole old name and .jpg.
    """
    keeps = [not is_photo(name) or posixpath.splitext(name)[1].lower() in (".jpg", ".jpeg") for name in names]
    taken = {posixpath.normpath(name) for name, keep in zip(names, keeps, strict=True) if keep}
    for name in names:
        folder = posixpath.dirname(posixpath.normpath(name))
        while folder and folder not in taken:
            taken.add(folder)
            folder = posixpath.dirname(folder)
    targets = []
    for name, keep in zip(names, keeps, strict=True):
        target = name
        if not keep:
            target = posixpath.splitext(name)[0] + ".jpg"
            if posixpath.normpath(target) in taken:
                target = name + ".jpg"
            while posixpath.normpath(target) in taken:
                target += ".jpg"
            taken.add(posixpath.normpath(target))
        targets.append(target)
    return targets


def listing(source: Path) -> tuple[Path, list[Item]]:
    """(root, items in the order of the bytes of their paths) of a folder, or of a tar file by itself.

    Links are not followed. CompressError if there are no photos and no tar files.
    """
    if source.is_dir():
        root, found = source, list(_walk(source))
    elif source.is_file() and source.suffix.lower() == ".tar":
        root, found = source.parent, [(source.name, source.stat(), None)]
    else:
        raise CompressError(f"{source}: no such folder or .tar file")
    found.sort(key=lambda one: os.fsencode(one[0]))
    kept = [name for name, _, reason in found if reason is None]
    targets = dict(zip(kept, target_names(kept), strict=True))
    items = []
    for name, status, reason in found:
        kind: Literal["photo", "shard", "other"] = (
            "photo" if is_photo(name) else "shard" if name.lower().endswith(".tar") else "other"
        )
        size, mtime_ns = (status.st_size, status.st_mtime_ns) if status is not None else (0, 0)
        items.append(Item(name, targets.get(name), kind, size, mtime_ns, reason))
    if all(item.kind == "other" or item.reason is not None for item in items):
        raise CompressError(f"{source}: no photos ({' '.join(sorted(EXTENSIONS))}) and no .tar files")
    return root, items


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result | None, str | None]]:
    """(path relative to root, status, why it is left out) of everything in the tree that is no folder."""
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            if not folder:
                raise
            yield folder, None, f"unreadable folder: {error.strerror}"
            continue
        for entry in entries:
            name = posixpath.join(folder, entry.name)
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:  # who opens it will say why
                yield name, None, None
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(name)
            elif stat.S_ISLNK(status.st_mode):
                yield name, status, "link"
            elif not stat.S_ISREG(status.st_mode):
                yield name, status, "not a plain file"
            elif name in (MANIFEST, JOURNAL) or name.startswith(PART):
                yield name, status, "name needed by qtable"
            else:
                yield name, status, None


def check_apart(source: Path, target: Path) -> None:
    """CompressError if one is the other or lies inside it, also through links and mounts."""

    def inside(one: Path, other: Path) -> bool:
        return other.exists() and any(place.exists() and place.samefile(other) for place in (one, *one.parents))

    source, target = source.resolve(), target.resolve()
    if inside(target, source) or inside(source, target):
        raise CompressError(f"{target} and {source} must lie apart: the originals are never overwritten")
