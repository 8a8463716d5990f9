"""What lies in a folder or a list: photo files and their class indices."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qtable.photos.files import DataError, Listing, LocalFile
from qtable.photos.opening import EXTENSIONS

MAX_LABEL: Final = (1 << 31) - 1
"""No model has more classes."""


def list_folder(root: Path) -> Listing:
    """A folder of class folders.

    Numeric folder names are class indices themselves. Links are followed, but not to class folders: those are read
    under their own names.
    """
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    unreadable: list[tuple[str, str]] = []
    known = frozenset(_identity(folder) for folder in (root, *folders))
    files = {folder: sorted(_photo_files(folder, known, unreadable)) for folder in folders}
    folders = [folder for folder in folders if files[folder]]
    if not folders:
        kinds = " ".join(sorted(EXTENSIONS))
        raise DataError(
            f"{root}: no class folders with photos ({kinds}) and no labels.csv; expected {root}/CLASS/PHOTO"
        )
    if len(folders) == 1:
        raise DataError(f"{root}: only one class folder with photos ({folders[0].name}); accuracy needs at least two")
    numeric = all(folder.name.isdecimal() for folder in folders)
    index = {folder: int(folder.name) if numeric else i for i, folder in enumerate(folders)}
    classes = () if numeric else tuple(folder.name for folder in folders)
    photos = tuple((LocalFile(file), index[folder]) for folder in folders for file in files[folder])
    return Listing(photos, classes, skipped=tuple(unreadable))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _photo_files(folder: Path, known: frozenset[tuple[int, int]], unreadable: list[tuple[str, str]]) -> Iterator[Path]:
    """What is named like a photo in `folder` and below it, but not behind links to `known` folders or round a loop.

    unreadable: gets (folder, reason) of folders that cannot be listed.
    """

    def unlisted(error: OSError) -> None:
        unreadable.append((str(error.filename), f"{type(error).__name__}: {error.strerror}"))

    seen = set(known)
    for place, below, names in os.walk(folder, onerror=unlisted, followlinks=True):
        identities = {_identity(Path(place, name)): name for name in sorted(below, reverse=True)}
        below[:] = [name for identity, name in identities.items() if identity not in seen]
        seen.update(identities)
        yield from (Path(place, name) for name in names if Path(name).suffix.lower() in EXTENSIONS)


def list_csv(path: Path) -> Listing:
    """A CSV file with columns `path` (relative to the file) and `label` (index or name)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = next(reader, [])
            if not {"path", "label"} <= set(columns):
                raise DataError(f"{path}: its first line must name the columns path,label; it is {columns!r:.200}")
            at = columns.index("path"), columns.index("label")
            rows = [(row[at[0]], row[at[1]]) if max(at) < len(row) else ("", "") for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8: {error}") from None
    for number, (photo, label) in enumerate(rows, start=2):
        if not photo or not label.strip():
            raise DataError(f"{path}: row {number} has no path or no label")
    labels = sorted({label.strip() for _, label in rows})
    if len(labels) < 2:
        raise DataError(f"{path}: {len(labels)} different labels; accuracy needs at least two")
    try:
        values = {label: float(label) for label in labels}
    except ValueError:  # names
        index = {label: i for i, label in enumerate(labels)}
        photos = tuple((LocalFile(path.parent / photo), index[label.strip()]) for photo, label in rows)
        return Listing(photos, tuple(labels))
    for number, (_, label) in enumerate(rows, start=2):
        if not (values[label.strip()] >= 0 and values[label.strip()] % 1 == 0):
            raise DataError(f"{path}: row {number} has label {label!r:.40}; a class index is a whole number from 0 on")
    return Listing(tuple((LocalFile(path.parent / photo), int(values[label.strip()])) for photo, label in rows))
