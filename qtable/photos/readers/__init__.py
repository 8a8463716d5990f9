"""What lies in a folder, list or file: photos and their class indices. One module for each layout.

`READERS` is asked in its order; what none recognises may still be a list under another name. Layouts that are known and
not read are refused by name.
"""

from __future__ import annotations

from typing import Final

from qtable.photos.files import DataError, Listing
from qtable.photos.labels import ClassList
from qtable.photos.readers import folders, foreign, lists, parquet, shards
from qtable.photos.readers.base import Reader
from qtable.photos.readers.places import Place, look
from qtable.photos.where import Where

READERS: Final[tuple[Reader, ...]] = (lists.READER, parquet.READER, shards.READER, folders.READER)


def read_listing(path: Where, classes: ClassList | None = None) -> Listing:
    """The photos at a place and their class indices, by the class list if one is given.

    DataError in one line if there are none, or if it is another layout; OSError if it cannot be looked into.
    """
    place = look(path)
    what = None if _listed(place) else foreign.name_of(place)
    if what is not None:
        raise DataError(f"{path}: this is {what}")
    reader = next((each for each in READERS if each.recognises(place)), lists.READER)
    return reader.read(place, classes)


def _listed(place: Place) -> bool:
    """Whether a folder says itself, by a list, what its photos are."""
    return place.is_folder and lists.READER.recognises(place)
