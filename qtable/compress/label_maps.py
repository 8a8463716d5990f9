"""Which pictures are label maps (a class or an object for each pixel) and no photos: a lossy file would ruin them.

Neither a name nor pixels alone say it: there are photos in a folder `masks`, and photos are grey, too. So a file is
looked at where its name says something, or where it holds one value a pixel.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterable
from typing import Final, Literal

import numpy as np
from PIL import Image

from qtable.photos.metadata import pillow

Evidence = Literal["name", "partner", "none", "photo"]
"""What is known of a file before it is read: its path has a label map's word; a lossy photo has its name but for the
suffix; nothing; it was given as a photo."""
_WORDS: Final = re.compile(
    r"(?:^|[^a-z])(?:seg|segs|segm|gt|gts|truth|(?:mask|segment|label|annotation|groundtruth|instanceid|panoptic|trimap"
    r"|gtfine|gtcoarse)[a-z]*)(?![a-z])",
    re.IGNORECASE,
)
_LOSSLESS: Final = frozenset([".png", ".tif", ".tiff", ".bmp", ".pgm", ".ppm"])
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "PPM")
_ONE_VALUE: Final = frozenset(["1", "L", "P", "I", "I;16", "I;16L", "I;16B"])
FEW_VALUES: Final = 64
"""A map of this many values at most may have any form; photos have more."""
HALF_FLAT: Final = 0.5
"""A map of more values (objects, anti-aliased borders) has at least this share of neighbours that are equal."""
ALONE: Final = "by its pixels alone"
DOUBT: Final = "named like a label map, but its pixels are those of a photo"
FLAT: Final = 0.9
"""What only its pixels call a map, and maps in colours: at least this share of neighbours is equal. Of photos: 0.2."""


def evidence(names: Iterable[str], given: bool) -> dict[str, Evidence]:
    """Of pictures' paths, all but "photo". given: they were chosen as photos, so only a name says otherwise."""
    names = list(names)
    known: dict[str, Evidence] = {}
    if not given:
        stems = {_stem(name) for name in names if _is_lossless(name)}
        partners = {stem for name in names if not _is_lossless(name) and (stem := _stem(name)) in stems}
        known = {name: "partner" if _stem(name) in partners else "none" for name in names if _is_lossless(name)}
    return known | {name: "name" for name in names if _WORDS.search(name)}


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]


def _is_lossless(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in _LOSSLESS


def judge(data: bytes, known: Evidence, max_pixels: int) -> tuple[str | None, str | None]:
    """(why a picture file is a label map, why one might take it for one); None where it is not, or one might not.

    What is damaged, has several pictures or more than `max_pixels` pixels is none.
    """
    if known == "photo" or (pixels := _pixels(data, max_pixels, known == "name")) is None:
        return None, None
    one_value, equal, values = pixels
    looks = one_value and (values <= FEW_VALUES or equal >= HALF_FLAT)
    if known == "name":
        return ("by its name", None) if looks or equal >= FLAT else (None, DOUBT)
    if known == "partner":
        return ("by its pixels, beside a photo of the same name" if looks else None), None
    return (ALONE if one_value and equal >= FLAT and 2 <= values <= FEW_VALUES else None), None


def _pixels(data: bytes, max_pixels: int, colours: bool) -> tuple[bool, float, int] | None:
    """(whether it holds one exact value a pixel, the share of equal neighbours, how many values); None if unread.

    colours: whether pictures of several channels or lossy formats are read, too.
    """
    try:
        with pillow(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            one_value = image.mode in _ONE_VALUE and image.format not in ("JPEG", "WEBP")
            if not (one_value or colours) or image.width * image.height > max_pixels:
                return None
            if getattr(image, "n_frames", 1) > 1:
                return None
            pixels = np.asarray(image)
    except MemoryError:
        raise
    except Exception:  # Pillow's plugins raise whatever they like; who converts the photo says what it is
        return None
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pairs = [(pixels[:, 1:] == pixels[:, :-1]).all(axis=2), (pixels[1:] == pixels[:-1]).all(axis=2)]
    count = sum(pair.size for pair in pairs)
    equal = sum(int(pair.sum()) for pair in pairs) / count if count else 0.0
    return one_value, equal, np.unique(pixels).size if one_value else 0
