"""Folders: of class folders, or of photos without labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from qtable.photos.files import DataError, File, Listing
from qtable.photos.labels import ClassList, numbered
from qtable.photos.opening import EXTENSIONS
from qtable.photos.readers.base import Reader
from qtable.photos.readers.places import Aside, Place, counted, look, others, splits_among, suffix
from qtable.photos.where import Where

KINDS: Final = " ".join(sorted(EXTENSIONS))


def _recognises(place: Place) -> bool:
    return place.is_folder


def list_folder(root: Where, classes: ClassList | None = None) -> Listing:
    """A folder of class folders, or one of photos alone.

    Folder names are labels as `numbered` reads them, those of empty folders, too. Links are followed, but not to class
    folders: those are read under their own names. Hidden and system folders are no classes.
    """
    return read_folder(look(root), classes)


def read_folder(place: Place, classes: ClassList | None = None) -> Listing:
    """As `list_folder`."""
    root, loose = place.path, place.photos
    splits = splits_among(place.folders)
    if splits:
        raise DataError(f"{root}: {', '.join(splits)} are splits, not classes; give one of them: {root / splits[0]}")
    among = set(loose)
    aside = Aside(Counter(suffix(name) or "no suffix" for name in place.files if name not in among))
    aside.hidden.update(place.hidden)
    files = {name: place.photos_in(name, aside) for name in place.folders}
    full = [name for name in place.folders if files[name]]
    if loose and not full:
        return _flat(root, place.loose(), aside, classes)
    if not full:
        nested = [kind for kind in (".parquet", ".tar") if kind in aside.kinds]
        raise DataError(
            f"{root}: no class folders with photos ({KINDS}) and no labels.csv; expected {root}/CLASS/PHOTO"
            + (f"; it holds {others(aside.kinds)}" if aside.kinds else "")
            + (f"; {' and '.join(nested)} are read where the folder that holds them is given" if nested else "")
        )
    if len(full) == 1:
        beside = f", and {counted(len(loose), 'photo')} beside it" if loose else ""
        raise DataError(
            f"{root}: only one class folder with photos ({full[0]}){beside}; accuracy needs at least two"
            f" ({root / full[0]} can be given by itself)"
        )
    order = numbered(root, place.folders, lambda i: f"the folder {place.folders[i]!r} stands", classes)
    index = dict(zip(place.folders, order.indices, strict=True))
    photos = tuple((file, index[name]) for name in full for file in files[name])
    said = [f"{root}: {counted(len(photos), 'photo')} in {len(full)} class folders; {order.said}"]
    empty = [name for name in place.folders if not files[name]]
    if empty:
        said.append(f"{root}: class folders without photos: {', '.join(empty):.200}; the others keep their numbers")
    if loose:
        said.append(f"{root}: {counted(len(loose), 'photo')} beside the class folders left aside")
    return Listing(photos, order.classes, tuple(said + aside.said(root)), tuple(aside.unreadable))


def _flat(root: Where, files: Sequence[File], aside: Aside, classes: ClassList | None) -> Listing:
    if classes is not None:
        raise DataError(f"{root}: photos without labels; there is nothing for {classes.path} to number")
    said = f"{root}: a folder of {counted(len(files), 'photo')} without labels"
    photos = tuple((file, None) for file in files)
    return Listing(photos, (), (said, *aside.said(root)), tuple(aside.unreadable))


READER: Final = Reader(_recognises, read_folder)
