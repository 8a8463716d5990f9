"""Photos that a Python program has: arrays, Pillow images, data sets of torch."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from PIL import Image

from qtable.jpeg.codec import RGB
from qtable.photos.files import DataError

MODES: Final = ("RGB", "L", "P", "CMYK", "1", "YCbCr")
"""Of Pillow images: those that `convert("RGB")` makes photos of without a guess."""


class Indexed(Protocol):
    """What gives items by number, as `torch.utils.data.Dataset` does."""

    def __getitem__(self, index: Any, /) -> Any: ...


class Items:
    """What a program gives as photos: item i is an image or a pair (image, annotation). One thread asks at a time."""

    def __init__(self, photos: Any) -> None:
        if isinstance(photos, np.ndarray) and photos.ndim == 3 and photos.shape[2] in (3, 4):
            raise DataError(f"an array {list(photos.shape)} is one photo; give a list of photos, or [n, h, w, 3]")
        if isinstance(photos, str | bytes | dict):
            raise DataError(f"photos are given as {type(photos).__name__}; give a sequence (ImageSet.open reads files)")
        indexed = hasattr(photos, "__getitem__") and hasattr(photos, "__len__")
        self._photos = photos if indexed else list(photos)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        """Image and annotation, which may be None."""
        with self._lock:
            item = self._photos[i]
        if isinstance(item, tuple | list):
            if len(item) != 2:
                raise DataError(f"photo {i} comes with {len(item)} items; a pair is (image, annotation)")
            return item[0], item[1]
        return item, None


@dataclass(frozen=True, slots=True)
class GivenFile:
    """Photo i as the bytes of a PPM file, which have its pixels and no others."""

    items: Items
    i: int

    @property
    def name(self) -> str:
        return f"photo {self.i}"

    def read(self) -> bytes:
        return _ppm(self.name, self.items[self.i][0])


def given(photos: Iterable[Any] | Indexed, annotations: Iterable[Any] | None) -> Iterator[tuple[GivenFile, bytes, Any]]:
    """Each photo, its bytes and its annotation.

    DataError if both the pairs and `annotations` have one, if their numbers differ, and for images that are no photos.
    """
    items = Items(photos)
    own: Sequence[Any] | None = None if annotations is None else list(annotations)
    if own is not None and len(own) != len(items):
        raise DataError(f"{len(items)} photos and {len(own)} annotations; each photo needs one")
    for i in range(len(items)):
        file = GivenFile(items, i)
        image, annotation = items[i]
        if own is not None:
            if annotation is not None:
                raise DataError(f"photo {i} has an annotation already; give pairs, or images and annotations")
            annotation = own[i]
        yield file, _ppm(file.name, image), _plain(annotation)


def _plain(annotation: Any) -> Any:
    """Whole numbers in arrays and tensors of no dimension as int; anything else as it is."""
    if getattr(annotation, "ndim", None) == 0 and hasattr(annotation, "item"):
        value = annotation.item()
        return value if type(value) is int else annotation
    return annotation


def _pixels(name: str, image: Any) -> RGB:
    """uint8 [h, w, 3]. DataError for what would have to be guessed."""
    if isinstance(image, Image.Image):
        if image.mode not in MODES:
            raise DataError(f"{name} is a Pillow image of mode {image.mode}; allowed: {', '.join(MODES)}")
        return np.asarray(image.convert("RGB"))
    is_tensor = type(image).__module__.partition(".")[0] in ("torch", "torchvision") and hasattr(image, "permute")
    if not is_tensor and not isinstance(image, np.ndarray):
        raise DataError(f"{name} is {type(image).__name__}; a photo is a uint8 array [h, w, 3] or a Pillow image")
    shape, kind = list(image.shape), str(image.dtype).removeprefix("torch.")
    if kind != "uint8":
        raise DataError(
            f"{name} is {kind} {shape}; photos are uint8 0..255 as decoded: leave ToTensor and Normalize to the model"
        )
    if is_tensor and len(shape) == 3:
        image, shape = image.permute(1, 2, 0), [shape[1], shape[2], shape[0]]
    if len(shape) == 2:
        image = np.repeat(np.asarray(image)[:, :, None], 3, axis=2)
    elif len(shape) != 3 or shape[2] != 3:
        raise DataError(f"{name} has shape {list(image.shape)}; a photo is [h, w, 3], a grey one [h, w]")
    if 0 in shape:
        raise DataError(f"{name} has no pixels: {shape}")
    return np.ascontiguousarray(image)


def _ppm(name: str, image: Any) -> bytes:
    pixels = _pixels(name, image)
    return b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()
