"""Parquet files with a column of photos, as `datasets` of Hugging Face writes them. Needs `qtable[parquet]`."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from qtable.photos.files import DataError, File, Listing
from qtable.photos.labels import ClassList, Numbered, numbered
from qtable.photos.readers.base import Reader
from qtable.photos.readers.places import Place, counted, splits_among
from qtable.photos.where import Where, open_file, version_of
from qtable.storage import StorageError

IMAGES: Final = ("image", "img", "photo", "picture", "jpg", "jpeg", "png", "webp")
"""What a column of photos is called where the file does not say which it is."""
LABEL: Final = "label"
GROUPS: Final = 2
"""Row groups whose photos are kept: neighbouring rows are asked for together."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A photo in a Parquet file: column, row group, row of the group, and row of the file (for its name)."""

    path: Where
    version: Hashable
    column: str
    group: int
    at: int
    row: int

    @property
    def name(self) -> str:
        return f"{self.path}/row {self.row}"

    def read(self) -> bytes:
        value = _GROUPS.get(self.path, self.version, self.group, self.column)[self.at].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes) or not data:
            named = isinstance(value, dict) and value.get("path")
            raise ValueError(f"the cell names {named!r:.100} and has no bytes" if named else "empty cell")
        return data


class _Groups:
    """The columns of the row groups that were asked for last, in this process. A file that is listed again when it has
    changed has another version.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Where, version: Hashable, group: int, column: str) -> Any:
        key = path, version, group, column
        with self._lock:  # two threads that want one group read it once
            if key not in self._kept:
                with open_file(path) as file:
                    self._kept[key] = _column(path, _opened(path, file), group, column)
                while len(self._kept) > GROUPS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


_GROUPS: Final = _Groups()


def list_parquet(files: Sequence[Where], source: Where, classes: ClassList | None = None) -> Listing:
    """One column of photos, bytes or {bytes, path}, and perhaps one of labels: class indices or names.

    Which columns those are, and the classes' names, is what `datasets` noted in the file; else the only column with a
    name of `IMAGES`, and `label`. Labels of -1 are none. DataError if it is not clear which columns are meant.
    """
    photos: list[File] = []
    labels: list[Any] = []
    known: set[tuple[str, str | None, tuple[str, ...]]] = set()
    for path in files:
        with open_file(path) as file:
            opened = _opened(path, file)
            image, label, names = _columns(path, opened.schema_arrow)
            known.add((image, label, names))
            row, version = 0, version_of(path)
            for group in range(opened.num_row_groups):
                rows = opened.metadata.row_group(group).num_rows
                photos += (Cell(path, version, image, group, i, row + i) for i in range(rows))
                labels += _column(path, opened, group, label).to_pylist() if label else [None] * rows
                row += rows
    if len(known) != 1:
        raise DataError(f"{source}: its Parquet files have other columns or class names than each other")
    image, label, names = known.pop()
    what = f"{source}: {counted(len(photos), 'photo')} in column {image!r} of {counted(len(files), 'Parquet file')}"
    order = _order(source, photos, labels, names, classes)
    if order is None:
        return Listing(tuple((one, None) for one in photos), (), (f"{what}; no labels",))
    return Listing(tuple(zip(photos, order.indices, strict=True)), order.classes, (f"{what}; {order.said}",))


def _order(
    source: Where, photos: Sequence[File], labels: Sequence[Any], names: tuple[str, ...], classes: ClassList | None
) -> Numbered | None:
    """None if there are no labels."""
    bare = [label is None or label == -1 for label in labels]
    if all(bare):
        if classes is not None:
            raise DataError(f"{source}: photos without labels; there is nothing for {classes.path} to number")
        return None
    if any(bare):
        raise DataError(f"{photos[bare.index(True)].name} has no label, and others have one")
    words = [str(label) for label in labels]
    if names:
        beyond = next((i for i, label in enumerate(labels) if label not in range(len(names))), None)
        if beyond is not None:
            raise DataError(
                f"{photos[beyond].name} has label {words[beyond]!r:.40}, beyond the {len(names)} class names there"
            )
    if names and classes is not None:
        words = [names[int(word)] for word in words]
    order = numbered(source, words, lambda i: f"{photos[i].name} has label {words[i]!r:.40}", classes)
    return Numbered(order.indices, order.classes or names, order.said)


def _opened(path: Where, file: Any) -> Any:
    """A `pyarrow.parquet.ParquetFile`. DataError if it is none, or if pyarrow is not there."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(f"{path}: Parquet needs pyarrow: pip install 'qtable[parquet]'") from None
    with _whole(path):
        return ParquetFile(file)


def _column(path: Where, opened: Any, group: int, column: str) -> Any:
    """One column of one row group. DataError if it cannot be read."""
    with _whole(path):
        return opened.read_row_group(group, columns=[column]).column(0)


@contextmanager
def _whole(path: Where) -> Iterator[None]:
    """What Arrow raises on damaged files becomes a DataError."""
    from pyarrow import ArrowException

    try:
        yield
    except StorageError:
        raise
    except (ArrowException, OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a whole Parquet file: {first:.200}") from None


def _columns(path: Where, schema: Any) -> tuple[str, str | None, tuple[str, ...]]:
    """Columns of photos and of labels, and the names of the classes."""
    noted = _noted(schema.metadata)
    kinds = {name: feature.get("_type") for name, feature in noted.items()}
    holding = [field.name for field in schema if _holds_photos(field.type)]
    images = [name for name in holding if kinds.get(name) == "Image"] or [name for name in holding if name in IMAGES]
    if len(images) != 1:
        which = "no column" if not images else f"{len(images)} columns"
        raise DataError(
            f"{path}: {which} of photos among {', '.join(schema.names):.200}; rename the one meant to image"
        )
    named = [name for name, kind in kinds.items() if kind == "ClassLabel" and name in schema.names]
    label = LABEL if LABEL in schema.names else named[0] if len(named) == 1 else None
    if label is None and len(named) > 1:
        raise DataError(f"{path}: which of {', '.join(named):.200} is the label? rename the one meant to label")
    if label is not None and not _may_be_label(schema.field(label).type):
        raise DataError(f"{path}: column {label} holds {schema.field(label).type!s:.60}; a label is an index or a name")
    names = noted.get(label or "", {}).get("names") or ()
    return images[0], label, tuple(str(name) for name in names)


def _noted(metadata: Mapping[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """What `datasets` noted of each column."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _holds_photos(kind: Any) -> bool:
    """Whether a column of this Arrow type can hold files: binary, or {bytes, path}."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_photos(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _may_be_label(kind: Any) -> bool:
    from pyarrow import types

    text = types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind)
    return bool(text or types.is_integer(kind) or types.is_floating(kind))


def _recognises(place: Place) -> bool:
    if place.is_folder:
        return bool(place.with_suffix(".parquet")) and not place.holds_photos()
    return place.path.name.lower().endswith(".parquet") or place.head.startswith(b"PAR1")


def _read(place: Place, classes: ClassList | None) -> Listing:
    names = place.with_suffix(".parquet")
    splits = splits_among(sorted({name.split("-")[0].split(".")[0] for name in names}))
    if splits:
        raise DataError(
            f"{place.path}: Parquet files of the splits {', '.join(splits)}; give those of one in its own folder"
        )
    files: list[Where] = [place.path / name for name in names] if place.is_folder else [place.path]
    return list_parquet(files, place.path, classes)


READER: Final = Reader(_recognises, _read)
