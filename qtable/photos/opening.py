"""A photo's file -> pixels: what may be opened, and how."""

from __future__ import annotations

import io
import stat
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from qtable.jpeg.codec import MAX_SIDE, RGB, check_work

EXTENSIONS: Final = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"])
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
"""What a photo file may be, whatever its name says; for others Pillow would start programs (EPS: Ghostscript)."""
MAX_PIXELS: Final = 178_956_970
"""Photos with more are skipped unread: a small file can claim any number. Pillow itself stops here, too."""
_TOO_MANY_PIXELS: Final = f"more than {MAX_PIXELS:,} pixels"
MAX_FILE_BYTES: Final = 1 << 30
"""Larger files are skipped unread: a photo of `MAX_PIXELS` takes this much uncompressed, with 16 bits per channel."""


def open_photo(data: bytes, resize: int | None = None) -> tuple[RGB, bool]:
    """Decode any photo file to (uint8 [h, w, 3], whether it was a JPEG), turned upright as its EXIF says.

    Grey, palette, CMYK, 16-bit grey and transparent photos become RGB as Pillow's `convert` makes it. ValueError for
    files that are none of `FORMATS`, for more than `MAX_PIXELS` and for JPEG files that ask for more work than their
    bytes hold; else what Pillow raises for files that it cannot read in full.
    """
    with _opened(data) as opened:
        _check_pixels(opened.size)
        is_jpeg = opened.format in ("JPEG", "MPO")
        if is_jpeg:
            check_work(data)
        upright = ImageOps.exif_transpose(opened)
        if upright.mode.startswith("I;16") or upright.mode == "I":
            upright = Image.fromarray(
                (np.asarray(upright).astype(np.float64) / 257.0).round().clip(0, 255).astype(np.uint8)
            )
        rgb = upright.convert("RGB")
        size = rgb.size
        if resize is not None and min(size) != resize:
            factor = resize / min(size)
            size = (max(1, round(rgb.width * factor)), max(1, round(rgb.height * factor)))
        _check_pixels(size)
        if max(size) > MAX_SIDE:
            raise ValueError(f"{size[0]} x {size[1]} pixels; a JPEG file has at most {MAX_SIDE} a side")
        return np.array(rgb if size == rgb.size else rgb.resize(size, Image.Resampling.BILINEAR)), is_jpeg


def _opened(data: bytes) -> Image.Image:
    """A photo of which only the header was read. ValueError for other files and for sizes that Pillow refuses."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"not a photo ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise ValueError(_TOO_MANY_PIXELS) from None


def _check_pixels(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(_TOO_MANY_PIXELS)


def read_photo_file(file: Path) -> bytes:
    """The bytes of a regular file, through links. ValueError for anything else, for empty and for huge files."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end
        raise ValueError("not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise ValueError(f"{status.st_size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
    with file.open("rb") as opened:
        data = opened.read(MAX_FILE_BYTES)
    if not data:
        raise ValueError("empty file")
    return data
