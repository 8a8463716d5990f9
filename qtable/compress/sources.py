"""What there is to do: the files of a folder or tar file, and the names of their outputs."""

from __future__ import annotations

import os
import posixpath
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal

from qtable.compress.label_maps import Evidence, evidence
from qtable.compress.lists import SUFFIXES
from qtable.photos.opening import EXTENSIONS

PART: Final = ".qtable-part-"
"""How the names of unfinished outputs begin."""
JOURNAL: Final = ".qtable-journal.jsonl"
MANIFEST: Final = "manifest.jsonl"


class CompressError(ValueError):
    """Photos cannot be compressed as asked, or not to the end; the message says why and what to do."""


Kind = Literal["photo", "shard", "list", "excluded", "other"]


@dataclass(frozen=True)
class Selection:
    """Which photos are to be compressed: those that match a pattern of `include` (none: all) and none of `exclude`.

    Patterns are those of `fnmatch`, with `*` for slashes, too, and differ in large and small letters; a member of a tar
    file is asked for by its own path and by that of the file with its own behind it.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def excludes(self, *paths: str) -> bool:
        """Whether a file of whatever kind is to be copied as it is."""
        return _matches(self.exclude, paths)

    def takes(self, *paths: str) -> bool:
        """Whether a photo is to be compressed."""
        return not self.excludes(*paths) and (not self.include or _matches(self.include, paths))

    def evidence(self, names: Iterable[str]) -> dict[str, Evidence]:
        """What is known of pictures by their paths; of all that are not listed, that they are photos."""
        return evidence(names, given=bool(self.include))

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be continued; nothing without patterns."""
        return {key: list(patterns) for key, patterns in vars(self).items() if patterns}


EVERYTHING: Final = Selection()


def _matches(patterns: Iterable[str], paths: Iterable[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns for path in paths)


@dataclass(frozen=True, slots=True)
class Item:
    """One file of the source: path relative to `root`, path of the output, what it is, size and time of change.

    The output of a photo that turns out to be a label map keeps the source's path. evidence: whether it may be one.
    reason: why it is left out, where that is known from its name or kind; then it has no target.
    """

    source: str
    target: str | None
    kind: Kind
    size: int
    mtime_ns: int
    reason: str | None = None
    evidence: Evidence = "photo"


def is_photo(name: str) -> bool:
    """Whether a file's name ends in one of `EXTENSIONS`, in small letters or large."""
    return posixpath.splitext(name)[1].lower() in EXTENSIONS


def target_names(names: Iterable[str], photo: Callable[[str], bool] = is_photo) -> dict[str, str]:
    """The output's path of each path: a photo gets the suffix .jpg; JPEG files and all else keep their names.

    Where a photo's new name is another's, or a folder's, the photo later in `names` gets its whole old name and .jpg.
    """
    names = list(dict.fromkeys(names))
    keeps = [not photo(name) or posixpath.splitext(name)[1].lower() in (".jpg", ".jpeg") for name in names]
    taken = {posixpath.normpath(name) for name, keep in zip(names, keeps, strict=True) if keep}
    for name in names:
        folder = posixpath.dirname(posixpath.normpath(name))
        while folder and folder not in taken:
            taken.add(folder)
            folder = posixpath.dirname(folder)
    targets = {}
    for name, keep in zip(names, keeps, strict=True):
        target = name
        if not keep:
            target = posixpath.splitext(name)[0] + ".jpg"
            if posixpath.normpath(target) in taken:
                target = name + ".jpg"
            while posixpath.normpath(target) in taken:
                target += ".jpg"
            taken.add(posixpath.normpath(target))
        targets[name] = target
    return targets


def listing(source: Path, selection: Selection) -> tuple[Path, list[Item]]:
    """(root, items in the order of the bytes of their paths) of a folder, or of a tar file by itself.

    Links are not followed. CompressError if there are no photos and no tar files that `selection` takes.
    """
    if source.is_dir():
        root, found = source, list(_walk(source))
    elif source.is_file() and source.suffix.lower() == ".tar":
        root, found = source.parent, [(source.name, source.stat(), None)]
    else:
        raise CompressError(f"{source}: no such folder or .tar file")
    found.sort(key=lambda one: os.fsencode(one[0]))

    def photo(name: str) -> bool:
        return _kind(name, selection) == "photo"

    kept = [name for name, _, reason in found if reason is None]
    targets, known = target_names(kept, photo), selection.evidence(filter(photo, kept))
    items = []
    for name, status, reason in found:
        size, mtime_ns = (status.st_size, status.st_mtime_ns) if status is not None else (0, 0)
        kind = _kind(name, selection) if reason is None else "other"
        items.append(Item(name, targets.get(name), kind, size, mtime_ns, reason, known.get(name, "photo")))
    if not any(item.kind in ("photo", "shard") for item in items):
        chosen = " that --include and --exclude leave" if selection.identity() else ""
        raise CompressError(f"{source}: no photos ({' '.join(sorted(EXTENSIONS))}) and no .tar files{chosen}")
    return root, items


def _kind(name: str, selection: Selection) -> Kind:
    """What a plain file is, by its name."""
    if is_photo(name):
        return "photo" if selection.takes(name) else "excluded"
    if selection.excludes(name):
        return "excluded"
    suffix = posixpath.splitext(name)[1].lower()
    return "shard" if suffix == ".tar" else "list" if suffix in SUFFIXES else "other"


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


def check_case(folder: Path, targets: Iterable[str | None]) -> None:
    """CompressError if two outputs' names are one to the target's file system: one would replace the other."""
    if tells_case(folder):
        return
    known: dict[str, str] = {}
    for target in filter(None, targets):
        other = known.setdefault(unicodedata.normalize("NFC", target).casefold(), target)
        if other != target:
            raise CompressError(
                f"{folder} does not tell {other!r} from {target!r}; choose another file system, or rename one"
            )


def tells_case(folder: Path) -> bool:
    """Whether a file system keeps apart names that differ in large and small letters alone."""
    place = folder / (PART + "case")
    place.touch()
    try:
        return not (folder / (PART + "CASE")).exists()
    finally:
        place.unlink()


def check_apart(source: Path, target: Path) -> None:
    """CompressError if one is the other or lies inside it, also through links and mounts."""

    def inside(one: Path, other: Path) -> bool:
        return other.exists() and any(place.exists() and place.samefile(other) for place in (one, *one.parents))

    source, target = source.resolve(), target.resolve()
    if inside(target, source) or inside(source, target):
        raise CompressError(f"{target} and {source} must lie apart: the originals are never overwritten")
