"""What there is to do: the files of a folder or tar file, and the names of their outputs."""

from __future__ import annotations

import os
import posixpath
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal

from qtable.compress.label_maps import Evidence, evidence
from qtable.compress.lists import SUFFIXES
from qtable.photos.opening import EXTENSIONS, is_photo
from qtable.storage import PART, Folder, NoBucket, Store, holding, is_remote, store

JOURNAL: Final = ".qtable-journal.jsonl"
PARTS: Final = ".qtable-journal"
"""A folder, in buckets."""
LOCK: Final = ".qtable-lock"
"""In buckets."""
MANIFEST: Final = "manifest.jsonl"
NEEDED: Final = "name needed by qtable"
Place = str | os.PathLike[str]
"""A path, or an address in remote storage; the latter as text."""
Version = int | str
"""Time of change in ns of a file here; what changes with the bytes of a remote one ("": not known)."""


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
    """One file of the source: path below its folder, path of the output, what it is, size and version.

    The output of a photo that turns out to be a label map keeps the source's path. evidence: whether it may be one.
    reason: why it is left out, where that is known from its name or kind; then it has no target.
    """

    source: str
    target: str | None
    kind: Kind
    size: int
    version: Version
    reason: str | None = None
    evidence: Evidence = "photo"


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


def listing(source: Place, selection: Selection) -> tuple[Store, list[Item]]:
    """(folder, items in the order of the bytes of their paths) of a folder, or of a tar file by itself.

    Links are not followed. CompressError if there are no photos and no tar files that `selection` takes; OSError where
    a folder cannot be listed.
    """
    root, found = _found(source)
    found.sort(key=lambda one: os.fsencode(one[0]))

    def photo(name: str) -> bool:
        return _kind(name, selection) == "photo"

    kept = [name for name, _, _, reason in found if reason is None]
    targets, known = target_names(kept, photo), selection.evidence(filter(photo, kept))
    items = []
    for name, size, version, reason in found:
        kind = _kind(name, selection) if reason is None else "other"
        items.append(Item(name, targets.get(name), kind, size, version, reason, known.get(name, "photo")))
    if not any(item.kind in ("photo", "shard") for item in items):
        chosen = " that --include and --exclude leave" if selection.identity() else ""
        raise CompressError(f"{source}: no photos ({' '.join(sorted(EXTENSIONS))}) and no .tar files{chosen}")
    return root, items


_Found = tuple[str, int, Version, str | None]
"""A file's path, size, version and why it is left out."""


def _found(source: Place) -> tuple[Store, list[_Found]]:
    """What there is, in any order. CompressError if there is nothing."""
    if isinstance(source, str) and is_remote(source):
        return _found_there(source)
    path = Path(source)
    if path.is_dir():
        return Folder(path.resolve()), list(_walk(path))
    if path.is_file() and path.suffix.lower() == ".tar":
        status = path.stat()
        return Folder(path.parent.resolve()), [(path.name, status.st_size, status.st_mtime_ns, None)]
    raise CompressError(f"{source}: no such folder or .tar file")


def _found_there(source: str) -> tuple[Store, list[_Found]]:
    if source.lower().endswith(".tar") and "/" in source.partition("://")[2]:  # buckets may be called so, too
        folder, name = holding(source)
        if folder.exists(name):
            file = folder.file(name)
            return folder, [(name, file.size, file.version, None)]
    folder = store(source)
    try:
        files = folder.files()
    except NoBucket:
        raise
    except FileNotFoundError:
        raise CompressError(f"{source}: no such folder or .tar file") from None
    folders = {above for file in files for above in _above(file.name)}
    return folder, [(file.name, file.size, file.version, _odd(file.name, folders)) for file in files]


def _odd(name: str, folders: Set[str]) -> str | None:
    """Why a file in a bucket is left out for its name, which need not be a path of a file."""
    if name in folders or not {"", ".", ".."}.isdisjoint(name.split("/")):
        return "name that no folder can hold"
    return NEEDED if is_ours(name) else None


def _above(name: str) -> Iterator[str]:
    """The folders in which a path lies."""
    at = name.rfind("/")
    while at > 0:
        yield name[:at]
        at = name.rfind("/", 0, at)


def _kind(name: str, selection: Selection) -> Kind:
    """What a plain file is, by its name."""
    if is_photo(name):
        return "photo" if selection.takes(name) else "excluded"
    if selection.excludes(name):
        return "excluded"
    suffix = posixpath.splitext(name)[1].lower()
    return "shard" if suffix == ".tar" else "list" if suffix in SUFFIXES else "other"


def is_ours(name: str) -> bool:
    """Whether a path in a target is none of an output."""
    return name in (MANIFEST, JOURNAL, LOCK) or name.startswith((PART, PARTS + "/"))


def _walk(root: Path) -> Iterator[_Found]:
    """Everything in the tree that is no folder. OSError if the root cannot be listed."""
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            if not folder:
                raise
            yield folder, 0, 0, f"unreadable folder: {error.strerror}"
            continue
        for entry in entries:
            name = posixpath.join(folder, entry.name)
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:  # who opens it will say why
                yield name, 0, "", None
                continue
            known = name, status.st_size, status.st_mtime_ns
            if stat.S_ISDIR(status.st_mode):
                folders.append(name)
            elif stat.S_ISLNK(status.st_mode):
                yield *known, "link"
            elif not stat.S_ISREG(status.st_mode):
                yield *known, "not a plain file"
            else:
                yield *known, NEEDED if is_ours(name) else None


def check_case(folder: Store, targets: Iterable[str | None]) -> None:
    """CompressError if two outputs' names are one to the target's file system: one would replace the other."""
    if not isinstance(folder, Folder) or tells_case(folder.root):
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


def check_apart(source: Place, target: Place) -> None:
    """CompressError if one is the other or lies inside it, also through links and mounts."""
    places = store(source), store(target)
    if isinstance(places[0], Folder) and isinstance(places[1], Folder):
        places = Folder(places[0].root.resolve()), Folder(places[1].root.resolve())
        apart = _apart(places[0].root, places[1].root)
    else:
        one, other = (f"{place}/" for place in places)
        apart = not (one.startswith(other) or other.startswith(one))
    if not apart:
        raise CompressError(f"{places[1]} and {places[0]} must lie apart: the originals are never overwritten")


def _apart(source: Path, target: Path) -> bool:

    def inside(one: Path, other: Path) -> bool:
        return other.exists() and any(place.exists() and place.samefile(other) for place in (one, *one.parents))

    return not (inside(target, source) or inside(source, target))
