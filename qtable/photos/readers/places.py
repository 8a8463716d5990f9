"""What lies at a place that a user names, on this machine or in remote storage: names, and first bytes of files."""

from __future__ import annotations

import io
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, TextIO

from qtable.photos.files import DataError, File, LocalFile, RemoteFile
from qtable.photos.opening import is_photo
from qtable.photos.where import RemotePath, Where, open_file, read_file, read_range
from qtable.storage import File as Stored

SYSTEM: Final = frozenset(
    ["__macosx", "lost+found", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini", "__pycache__"]
)
"""What operating systems put beside people's files, in small letters."""

HEAD: Final = 4096
"""Bytes of a file that are looked at before it is known what it is."""
SMALL: Final = 1 << 16
"""Remote files of no more bytes are read whole for their first: not every web server gives parts, none of nothing."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to a program, not to the photos: .x, @eaDir, #recycle and `SYSTEM`."""
    return name[:1] in (".", "@", "#") or name.lower() in SYSTEM


def suffix(name: str) -> str:
    """ ".jpg" of "A.JPG"; of a name without a dot nothing."""
    return posixpath.splitext(name)[1].lower()


@dataclass(frozen=True)
class Place:
    """A folder with the names in it, or a file with its first bytes. hidden: names that `is_hidden`, in none else.

    listed: of a remote folder, the files in it ("") and below each of its folders, as one listing found them.
    """

    path: Where
    is_folder: bool
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    head: bytes = b""
    listed: Mapping[str, Sequence[Stored]] = field(default_factory=dict)

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Files of a folder whose names end so."""
        return [name for name in self.files if name.lower().endswith(suffixes)]

    @property
    def photos(self) -> list[str]:
        """Files of a folder that are named like photos."""
        return [name for name in self.files if is_photo(name)]

    def holds_photos(self) -> bool:
        """Whether something in the folder or below is named like a photo."""
        return bool(self.photos) or any(True for name in self.folders for _ in self._below(name, Aside()))

    def loose(self) -> list[File]:
        """The photos in a folder itself."""
        if isinstance(self.path, RemotePath):
            return sorted(_photos_among(self.path, self.listed.get("", ())), key=_order)
        return [LocalFile(self.path / name) for name in self.photos]

    def photos_in(self, name: str, aside: Aside) -> list[File]:
        """The photos in one of the folders and below it; no folder's are another's, links or not."""
        return sorted(self._below(name, aside), key=_order)

    def all_photos(self) -> list[File]:
        """Those in a folder and in all below it."""
        return [*self.loose(), *(file for name in self.folders for file in self._below(name, Aside()))]

    def _below(self, name: str, aside: Aside) -> Iterator[File]:
        if isinstance(self.path, RemotePath):
            return _remote_below(self.path, self.listed[name], aside)
        return map(LocalFile, photos_below(self.path / name, aside, self._known))

    @cached_property
    def _known(self) -> frozenset[tuple[int, int]]:
        assert isinstance(self.path, Path)
        return frozenset(identity(self.path / name) for name in ("", *self.folders))


def _order(file: File) -> tuple[str, ...]:
    """As paths are sorted: name by name."""
    return tuple(file.name.split("/"))


def look(path: Where) -> Place:
    """DataError if there is nothing; OSError if it cannot be looked into."""
    return _look_remote(path) if isinstance(path, RemotePath) else _look_here(path)


def _look_here(path: Path) -> Place:
    if path.is_dir():
        folders: list[str] = []
        files: list[str] = []
        hidden: list[str] = []
        for entry in path.iterdir():
            (hidden if is_hidden(entry.name) else folders if entry.is_dir() else files).append(entry.name)
        return Place(path, True, tuple(sorted(folders)), tuple(sorted(files)), tuple(sorted(hidden)))
    if path.is_file():
        with open_file(path) as file:
            return Place(path, False, head=file.read(HEAD))
    raise DataError(f"{path}: no such folder or file")


def _look_remote(path: RemotePath) -> Place:
    """With one listing of a folder."""
    file = _file_there(path)
    if file is not None:
        return file
    try:
        found = path.as_folder().files()
    except FileNotFoundError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    listed: dict[str, list[Stored]] = {"": []}
    hidden = set()
    for one in found:
        top, slash, _ = one.name.partition("/")
        if not top or ".." in one.name.split("/"):
            raise DataError(f"{path}: it holds {one.name!r:.100}, which is no path below a folder")
        if is_hidden(top):
            hidden.add(top)
        else:
            listed.setdefault(top if slash else "", []).append(one)
    folders = tuple(sorted(name for name in listed if name))
    files = tuple(sorted(one.name for one in listed[""]))
    return Place(path, True, folders, files, tuple(sorted(hidden)), listed=listed)


def _file_there(path: RemotePath) -> Place | None:
    """None if there is none of this name. On a web server a file is what has a suffix: folders are pages, too."""
    below = str(path).partition("://")[2].rstrip("/")
    ending = suffix(below)
    is_page = str(path).startswith("http") and (not ending or ending[1:].isdigit())
    if "/" not in below or is_page:
        return None
    file = path.as_file()
    try:
        size = file.store.size(file.inner)
    except FileNotFoundError:
        return None
    return Place(file, False, head=read_file(file)[:HEAD] if size <= SMALL else read_range(file, 0, HEAD))


def open_text(path: Where) -> TextIO:
    """As UTF-8, with or without a byte order mark; line ends as they are."""
    file = io.BytesIO(read_file(path)) if isinstance(path, RemotePath) else open_file(path)
    return io.TextIOWrapper(file, encoding="utf-8-sig", newline="")


@dataclass
class Aside:
    """What was left aside on a walk: suffixes and numbers of files of other kinds, names of hidden things, and
    (name, reason) of folders that cannot be listed.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    hidden: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def said(self, source: object) -> list[str]:
        """A line for each of the first two, if there is something to say."""
        lines = []
        if self.kinds:
            lines.append(f"{source}: {others(self.kinds)} left aside")
        if self.hidden:
            lines.append(f"{source}: hidden or system files and folders left aside: {', '.join(_few(self.hidden))}")
        return lines


def counted(number: int, noun: str) -> str:
    """ "1 photo", "24 photos"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def others(kinds: Counter[str]) -> str:
    """ "12 files of other kinds (.heic, .txt)"."""
    return f"{counted(kinds.total(), 'file')} of other kinds ({', '.join(_few(kinds))})"


def _few(counted: Counter[str]) -> list[str]:
    """The most frequent; of equals the first by name, whatever order a folder has."""
    names = sorted(counted, key=lambda name: (-counted[name], name))[:5]
    return names + ["..."] * (len(counted) > 5)


def identity(folder: Path) -> tuple[int, int]:
    """Equal for equal folders, also behind links."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def photos_below(folder: Path, aside: Aside, known: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """What is named like a photo in `folder` and below it, but not behind links to `known` folders or round a loop."""

    def unlisted(error: OSError) -> None:
        aside.unreadable.append((str(error.filename), f"{type(error).__name__}: {error.strerror}"))

    seen = set(known)
    for place, below, names in os.walk(folder, onerror=unlisted, followlinks=True):
        aside.hidden.update(name for name in (*below, *names) if is_hidden(name))
        inside = [name for name in below if not is_hidden(name)]
        identities = {identity(Path(place, name)): name for name in sorted(inside, reverse=True)}
        below[:] = [name for one, name in identities.items() if one not in seen]
        seen.update(identities)
        for name in names:
            if is_photo(name) and not is_hidden(name):
                yield Path(place, name)
            elif not is_hidden(name):
                aside.kinds[suffix(name) or "no suffix"] += 1


def _photos_among(root: RemotePath, files: Sequence[Stored]) -> Iterator[File]:
    """Those of a listing that are named like photos."""
    folder = root.as_folder()
    return (RemoteFile(RemotePath(folder, one.name), one.size) for one in files if is_photo(one.name))


def _remote_below(root: RemotePath, files: Sequence[Stored], aside: Aside) -> Iterator[File]:
    """As `photos_below` finds them in a folder of this machine."""
    found, hidden = [], set()
    for one in files:
        parts = one.name.split("/")
        odd = next((i for i, part in enumerate(parts) if is_hidden(part)), None)
        if odd is not None:
            hidden.add(tuple(parts[: odd + 1]))
        elif is_photo(one.name):
            found.append(one)
        else:
            aside.kinds[suffix(parts[-1]) or "no suffix"] += 1
    aside.hidden.update(parts[-1] for parts in hidden)
    return _photos_among(root, found)


SPLITS: Final = frozenset(["train", "training", "val", "valid", "validation", "dev", "test", "testing"])
NO_CLASSES: Final = frozenset(["val", "valid", "validation"])
"""Names of splits that no class has; "train" and "test" might."""


def splits_among(names: Sequence[str]) -> list[str]:
    """Those that name splits of a data set, the best to give first; none if they may be classes."""
    found = [name for name in names if name.lower() in SPLITS]
    sure = len(found) == len(names) or any(name.lower() in NO_CLASSES for name in found)
    order = ("val", "valid", "validation", "dev", "test", "testing", "train", "training")
    return sorted(found, key=lambda name: order.index(name.lower())) if len(found) > 1 and sure else []
