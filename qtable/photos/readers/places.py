"""What lies at a place that a user names, and how its names and bytes are got: all file access of the readers."""

from __future__ import annotations

import io
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, TextIO

from qtable.photos.files import DataError
from qtable.photos.opening import EXTENSIONS

SYSTEM: Final = frozenset(
    ["__macosx", "lost+found", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini", "__pycache__"]
)
"""What operating systems put beside people's files, in small letters."""

HEAD: Final = 4096
"""Bytes of a file that are looked at before it is known what it is."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to a program, not to the photos: .x, @eaDir, #recycle and `SYSTEM`."""
    return name[:1] in (".", "@", "#") or name.lower() in SYSTEM


def suffix(name: str) -> str:
    """ ".jpg" of "A.JPG"; of a name without a dot nothing."""
    return posixpath.splitext(name)[1].lower()


def is_photo(name: str) -> bool:
    return suffix(name) in EXTENSIONS


@dataclass(frozen=True)
class Place:
    """A folder with the names in it, or a file with its first bytes. hidden: names that `is_hidden`, in none else."""

    path: Path
    is_folder: bool
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    head: bytes = b""

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Files of a folder whose names end so."""
        return [name for name in self.files if name.lower().endswith(suffixes)]

    @property
    def photos(self) -> list[str]:
        """Files of a folder that are named like photos."""
        return [name for name in self.files if is_photo(name)]

    def holds_photos(self) -> bool:
        """Whether something in the folder or below is named like a photo."""
        return bool(self.photos) or any(True for name in self.folders for _ in photos_below(self.path / name, Aside()))


def look(path: Path) -> Place:
    """DataError if there is nothing; OSError if it cannot be looked into."""
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


def open_file(path: Path) -> BinaryIO:
    return path.open("rb")


def version_of(path: Path) -> tuple[int, int]:
    """Another one when the file has changed."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def open_text(path: Path) -> TextIO:
    """As UTF-8, with or without a byte order mark; line ends as they are."""
    return io.TextIOWrapper(open_file(path), encoding="utf-8-sig", newline="")


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
    names = [name for name, _ in counted.most_common(5)]
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


SPLITS: Final = frozenset(["train", "training", "val", "valid", "validation", "dev", "test", "testing"])
NO_CLASSES: Final = frozenset(["val", "valid", "validation"])
"""Names of splits that no class has; "train" and "test" might."""


def splits_among(names: Sequence[str]) -> list[str]:
    """Those that name splits of a data set, the best to give first; none if they may be classes."""
    found = [name for name in names if name.lower() in SPLITS]
    sure = len(found) == len(names) or any(name.lower() in NO_CLASSES for name in found)
    order = ("val", "valid", "validation", "dev", "test", "testing", "train", "training")
    return sorted(found, key=lambda name: order.index(name.lower())) if len(found) > 1 and sure else []
