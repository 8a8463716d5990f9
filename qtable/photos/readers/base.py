"""What a reader is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qtable.photos.files import Listing
from qtable.photos.labels import ClassList
from qtable.photos.readers.places import Place


@dataclass(frozen=True)
class Reader:
    """A layout of photos that can be read.

    recognises: whether a place is laid out so. read: the photos there and their class indices, by the
    class list if one is given; DataError in one line if they cannot be used.
    """

    recognises: Callable[[Place], bool]
    read: Callable[[Place, ClassList | None], Listing]
