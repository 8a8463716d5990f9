"""Pixels of photos that need not fit into memory: opened when they are looked at, as many kept as may be."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from qtable.jpeg.codec import RGB
from qtable.photos.files import DataError, File
from qtable.photos.opening import open_photo
from qtable.storage import StorageError

MEMORY: Final = 1 << 30
"""Bytes of decoded pixels that are kept unless the user says otherwise."""


class Cache:
    """Decoded photos by the digests of their files, in groups; at most `bound` bytes of pixels. For all threads.

    The photos of a group are looked at in turn, again and again. So none makes way for another of its own group: all
    would be gone when their turn comes. Those of the group that was asked longest ago make way.
    """

    def __init__(self, bound: int = MEMORY) -> None:
        self.bound = bound
        self._kept: dict[Hashable, dict[bytes, RGB]] = {}  # the group asked last stands last
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self.bound,)  # for another process: empty

    def get(self, group: Hashable, digest: bytes) -> RGB | None:
        """The pixels, if they are kept."""
        with self._lock:
            self._kept[group] = kept = self._kept.pop(group, {})
            return kept.get(digest)

    def put(self, group: Hashable, digest: bytes, image: RGB, makes_way: bool = True) -> None:
        """Keep an image if there is room. makes_way: other groups' may be dropped for it."""
        with self._lock:
            kept = self._kept.setdefault(group, {})
            if digest in kept:
                return
            while self._bytes + image.nbytes > self.bound:
                victims = next((each for other, each in self._kept.items() if other != group and each), None)
                if victims is None or not makes_way:
                    return
                self._bytes -= victims.pop(next(reversed(victims))).nbytes
            kept[digest] = image
            self._bytes += image.nbytes


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of a photo that was opened once: its file, the file's SHA-256, height and width in pixels."""

    file: File
    digest: bytes
    size: tuple[int, int]


@dataclass(frozen=True)
class Pixels(Sequence[RGB]):
    """Photos in files, uint8 [h, w, 3] each, opened anew whenever they are asked for and are not in the cache.

    resize: as for `open_photo`. group: of the cache. Asking for one raises DataError if its file is no longer there or
    another than it was.
    """

    known: tuple[Known, ...]
    resize: int | None
    cache: Cache
    group: str

    def __len__(self) -> int:
        return len(self.known)

    @overload
    def __getitem__(self, i: int) -> RGB: ...
    @overload
    def __getitem__(self, i: slice) -> Pixels: ...
    def __getitem__(self, i: int | slice) -> RGB | Pixels:
        if isinstance(i, slice):
            return self.subset(range(len(self))[i])
        one = self.known[i]
        image = self.cache.get(self.group, one.digest)
        if image is None:
            image = self._opened(one)
            self.cache.put(self.group, one.digest, image)
        return image

    def subset(self, indices: Sequence[int] | npt.NDArray[np.intp]) -> Pixels:
        """The photos at `indices`; kept ones are shared."""
        return Pixels(tuple(self.known[i] for i in indices), self.resize, self.cache, self.group)

    def _opened(self, one: Known) -> RGB:
        try:
            data = one.file.read()
            if hashlib.sha256(data).digest() != one.digest:
                raise DataError("another file than it was when this run began")
            return open_photo(data, self.resize)[0]
        except StorageError as error:
            raise DataError(str(error)) from None
        except (OSError, ValueError) as error:
            raise DataError(f"{one.file.name}: {error}") from None


def sizes_of(images: Sequence[RGB]) -> list[tuple[int, int]]:
    """Height and width of each, in pixels; nothing is opened for it."""
    if isinstance(images, Pixels):
        return [one.size for one in images.known]
    return [(image.shape[0], image.shape[1]) for image in images]


def digests_of(images: Sequence[RGB]) -> list[bytes]:
    """Equal digests, equal pixels: of the file and the way it is opened, or of the pixels that were given."""
    if isinstance(images, Pixels):
        way = repr(images.resize).encode()
        return [hashlib.sha256(one.digest + way).digest() for one in images.known]
    return [hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest() for image in images]
