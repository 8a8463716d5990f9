"""Lists that name photos: CSV files and JSON lines, by themselves or in the folder of the photos."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from qtable.photos.files import DataError, File, Listing, LocalFile, file_at
from qtable.photos.labels import ClassList, numbered
from qtable.photos.readers.base import Reader
from qtable.photos.readers.places import Place, counted, open_text, suffix
from qtable.photos.where import Where, beside
from qtable.storage import StorageError

PATHS: Final = ("path", "file_name", "filename", "image")
"""The column that names a photo: the first of these that is there."""
LABEL: Final = "label"
NAMES: Final = ("labels.csv", "metadata.csv", "metadata.jsonl")
"""What a list in the folder of its photos is called."""
SUFFIXES: Final = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson")
MAX_LINE: Final = 1 << 24
"""Characters of a JSON line."""


@dataclass(frozen=True)
class Rows:
    """Lines of a list: the number of each in its file, its photo and its label; and the names of all columns."""

    columns: tuple[str, ...]
    lines: Sequence[tuple[int, str, str | None]]


def list_csv(path: Where, classes: ClassList | None = None) -> Listing:
    """A CSV file in UTF-8 (commas, semicolons or tabs) whose first line names a column of `PATHS` and perhaps `label`.

    Paths are relative to the file. Labels are indices or names, as `numbered` reads them. A photo that is named again
    counts once; DataError if its labels differ.
    """
    return _listing(path, "CSV list", _csv_rows(path), classes)


def list_jsonl(path: Where, classes: ClassList | None = None) -> Listing:
    """A file of JSON objects, one a line, with the same keys as `list_csv` has columns."""
    return _listing(path, "list of JSON lines", _jsonl_rows(path), classes)


def _csv_rows(path: Where) -> Rows:
    try:
        with open_text(path) as file:
            before, header = _first_line(file)
            delimiter, columns = _columns(path, header)
            photo = next(columns.index(name) for name in PATHS if name in columns)
            label = columns.index(LABEL) if LABEL in columns else None
            reader = csv.reader(chain([header], file), delimiter=delimiter)
            next(reader)
            lines, end = [], reader.line_num
            for row in reader:
                number, end = before + end + 1, reader.line_num
                if row:
                    lines.append((number, *_cells(path, number, row, columns, photo, label)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8: {error}") from None
    return Rows(columns, lines)


def _first_line(file: Iterator[str]) -> tuple[int, str]:
    """The number of empty lines at the beginning, and the line behind them."""
    for number, line in enumerate(file):
        if line.strip():
            return number, line
    return 0, ""


def _columns(path: Where, header: str) -> tuple[str, tuple[str, ...]]:
    """The delimiter and the names of the columns, in small letters."""
    for delimiter in ",;\t":
        columns = tuple(cell.strip().lower() for cell in next(csv.reader([header], delimiter=delimiter), []))
        if set(PATHS) & set(columns):
            return delimiter, columns
    raise DataError(f"{path}: its first line must name the columns path,label; it is {header.strip()!r:.200}")


def _cells(
    path: Where, number: int, row: Sequence[str], columns: Sequence[str], photo: int, label: int | None
) -> tuple[str, str | None]:
    """Photo and label of a row."""
    if any(cell.strip() for cell in row[len(columns) :]):
        raise DataError(
            f"{path}: line {number} has {len(row)} cells, the first line names {len(columns)}; quote commas"
        )
    if label is None:
        if photo >= len(row) or not row[photo].strip():
            raise DataError(f"{path}: line {number} has no path")
        return row[photo], None
    if max(photo, label) >= len(row) or not row[photo].strip() or not row[label].strip():
        raise DataError(f"{path}: line {number} has no path or no label")
    if row[label].strip().lower() == LABEL and row[photo].strip().lower() == columns[photo]:
        raise DataError(f"{path}: line {number} has the names of the columns again, as joined files do; remove it")
    return row[photo], row[label].strip()


def _jsonl_rows(path: Where) -> Rows:
    lines: list[tuple[int, str, str | None]] = []
    columns: dict[str, None] = {}
    try:
        with open_text(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), ""), start=1):
                if line.strip():
                    entry = _object(path, number, line)
                    columns |= dict.fromkeys(entry)
                    lines.append((number, *_values(path, number, entry)))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not JSON lines in UTF-8: {error}") from None
    unlabelled = next((number for number, _, label in lines if label is None), None)
    if unlabelled is not None and any(label is not None for *_, label in lines):
        raise DataError(f"{path}: line {unlabelled} has no path or no label")
    return Rows(tuple(columns), lines)


def _object(path: Where, number: int, line: str) -> dict[str, object]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise DataError(f"{path}: line {number} is no JSON object such as {{'file_name': 'a.jpg', 'label': 0}}")
    return entry


def _values(path: Where, number: int, entry: dict[str, object]) -> tuple[str, str | None]:
    """Photo and label of a line."""
    photo = next((entry[name] for name in PATHS if name in entry), None)
    if not isinstance(photo, str) or not photo.strip():
        raise DataError(f"{path}: line {number} names no photo; its keys must be file_name and label")
    label = entry.get(LABEL)
    if label is None:
        return photo, None
    if isinstance(label, bool) or not isinstance(label, str | int | float) or not str(label).strip():
        raise DataError(f"{path}: line {number} has label {str(label)!r:.40}; a label is a whole number or a name")
    return photo, str(label).strip()


def _listing(path: Where, kind: str, rows: Rows, classes: ClassList | None) -> Listing:
    lines = rows.lines
    words = [label for *_, label in lines if label is not None]
    known: Sequence[int | None] = [None] * len(lines)
    names: tuple[str, ...] = ()
    if words:
        order = numbered(path, words, lambda i: f"line {lines[i][0]} has label {words[i]!r:.40}", classes)
        known, names, how = order.indices, order.classes, order.said
    elif classes is not None:
        raise DataError(f"{path}: photos without labels; there is nothing for {classes.path} to number")
    else:
        how = f"no labels (its columns: {', '.join(rows.columns)[:200]})"
    files = [_file(path, number, photo) for number, photo, _ in lines]
    first: dict[str, int] = {}
    again = []
    for i, (number, photo, label) in enumerate(lines):
        earlier = first.setdefault(_identity(files[i]), i)
        if known[earlier] != known[i]:
            raise DataError(
                f"{path}: lines {lines[earlier][0]} and {number} give {photo!r:.100} two labels,"
                f" {lines[earlier][2]!r:.40} and {label!r:.40}; keep the right one"
            )
        if earlier != i:
            again.append(number)
    photos = tuple((files[i], known[i]) for i in first.values())
    said = [f"{path}: a {kind} of {counted(len(photos), 'photo')}; {how}"]
    if again:
        rows_again = counted(len(again), "repeated row")
        said.append(f"{path}: {rows_again} (the first: line {again[0]}); each photo counts once")
    return Listing(photos, names, tuple(said))


def _file(path: Where, number: int, photo: str) -> File:
    """What a line names."""
    try:
        return file_at(beside(path.parent, photo))
    except StorageError as error:
        raise DataError(f"{path}: line {number}: {error}") from None


def _identity(file: File) -> str:
    """Equal for equal paths. // in remote storage is no /."""
    return os.path.normpath(file.name) if isinstance(file, LocalFile) else file.name


def _lists(place: Place) -> list[str]:
    """The lists in the folder that say what its photos are: `labels.csv` always, metadata if it names files."""
    return [name for name in NAMES if name in place.files and (name == NAMES[0] or _names_photos(place.path / name))]


def _names_photos(path: Where) -> bool:
    try:
        with open_text(path) as file:
            _, line = _first_line(iter(lambda: file.readline(MAX_LINE), ""))
        is_json = suffix(path.name) == ".jsonl"
        return bool(set(PATHS).intersection(_object(path, 1, line) if is_json else _columns(path, line)[1]))
    except (DataError, UnicodeDecodeError, csv.Error):
        return False


def _recognises(place: Place) -> bool:
    return bool(_lists(place)) if place.is_folder else suffix(place.path.name) in SUFFIXES


def _read(place: Place, classes: ClassList | None) -> Listing:
    path = place.path
    if not place.is_folder:
        return _list(path, classes)
    found = _lists(place)
    if len(found) > 1:
        raise DataError(f"{path}: {' and '.join(found)} both list photos; give the one that is meant")
    listing = _list(path / found[0], classes)
    return replace(listing, said=(*listing.said, *_unlisted(place, path / found[0], listing)))


def _list(path: Where, classes: ClassList | None) -> Listing:
    return (list_jsonl if suffix(path.name) in (".jsonl", ".ndjson") else list_csv)(path, classes)


def _unlisted(place: Place, path: Where, listing: Listing) -> list[str]:
    """A line on photos in the folder that its list does not name."""
    named = {_identity(file) for file, _ in listing.photos}
    others = [file.name for file in place.all_photos() if _identity(file) not in named]
    if not others:
        return []
    return [
        f"{path}: {counted(len(others), 'photo')} in {place.path} that it does not name left aside (one: {min(others)})"
    ]


READER: Final = Reader(_recognises, _read)
