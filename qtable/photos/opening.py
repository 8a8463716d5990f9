"""A photo's file -> pixels and metadata: what may be opened, and how. All of qtable reads photos here."""

from __future__ import annotations

import io
import posixpath
import re
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from qtable.jpeg.codec import MAX_SIDE, RGB, decode
from qtable.jpeg.header import read_header
from qtable.jpeg.markers import FRAMES, JpegError
from qtable.photos import png
from qtable.photos.metadata import (
    APP2,
    Metadata,
    metadata_of,
    orientation,
    pillow,
    pillow_metadata,
    read_segments,
    upright,
)
from qtable.photos.samples import FORMATS, PhotoError, rgb, why_unknown

EXTENSIONS: Final = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"])
MAX_PIXELS: Final = 178_956_970
"""Photos with more are skipped unread: a small file can claim any number. Pillow itself stops here, too."""
EOI: Final = b"\xff\xd9"
NEAR_END: Final = 64
"""Bytes at the end of a JPEG file among which its end mark stands: a few zeros behind it do no harm."""
MAX_FILE_BYTES: Final = 1 << 30
"""Larger files are skipped unread: a photo of `MAX_PIXELS` takes this much uncompressed, with 16 bits per channel."""


@dataclass(frozen=True)
class Photo:
    """What a file holds.

    pixels: uint8 [h, w, 3], as stored. orientation: 1 to 8, how they are to be turned (EXIF 2.32, table 6): EXIF's, or
    XMP's where EXIF has none. is_jpeg: whether the file was one. reduced: what of its samples was. lost: what of its
    metadata could not be read, or has no place in a JPEG file.
    """

    pixels: RGB
    orientation: int
    metadata: Metadata
    is_jpeg: bool
    reduced: str | None = None
    lost: str | None = None

    @property
    def upright(self) -> RGB:
        return upright(self.pixels, self.orientation)


def is_photo(name: str) -> bool:
    """Whether a file's name ends in one of `EXTENSIONS`, in small letters or large."""
    return posixpath.splitext(name)[1].lower() in EXTENSIONS


def open_photo(data: bytes, resize: int | None = None) -> tuple[RGB, bool]:
    """(uint8 [h, w, 3] of any photo file, turned upright, whether it was a JPEG).

    resize: the shorter side's pixels. PhotoError for files that `read_photo` refuses and for a side that no JPEG has.
    """
    photo = read_photo(data)
    pixels = photo.upright
    height, width = pixels.shape[:2]
    if resize is None or min(height, width) == resize:
        check_size(width, height)
        return pixels, photo.is_jpeg
    factor = resize / min(height, width)
    width, height = (max(1, round(side * factor)) for side in (width, height))
    check_size(width, height)
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)), photo.is_jpeg


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """PhotoError for photos that are not read, or that no JPEG can hold."""
    _check_pixels(width, height, max_pixels)
    if max(width, height) > MAX_SIDE:
        raise PhotoError(f"too large: {width} x {height} pixels; a JPEG file has at most {MAX_SIDE} a side")


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PhotoError(f"too large: {width} x {height} pixels; at most {max_pixels:,} are read")


def read_photo(data: bytes, max_pixels: int = MAX_PIXELS) -> Photo:
    """The photo of a file's bytes. PhotoError, in one line, for what cannot be read faithfully as 8-bit RGB.

    The reasons: "empty file", "too large", "several pictures" (animations, pages, MPO), "transparency", "colour mode"
    (CMYK, LAB), "sample type" (`samples.rgb` says which are read and how), "bytes after the picture's end" (JPEG), and
    "unreadable" for what is none of `FORMATS`, truncated or damaged, a JPEG with a decoder's warning as well.
    """
    if not data:
        raise PhotoError("empty file")
    return _read_jpeg(data, max_pixels) if data.startswith(b"\xff\xd8") else _read_other(data, max_pixels)


def _read_jpeg(data: bytes, max_pixels: int) -> Photo:
    try:
        walked = list(read_segments(data))
        segments = [(marker, payload) for marker, _, payload in walked]
        _check_frames(segments, max_pixels)
        if any(m == APP2 and payload.startswith(b"MPF\0") for m, payload in segments) and _is_several(data):
            raise PhotoError("several pictures")
        pixels = decode(data)
        if data.count(EOI, walked[-1][1]) > 1 and read_header(data).trailing_bytes > NEAR_END:
            raise PhotoError("bytes after the picture's end")
    except (JpegError, struct.error) as error:
        if EOI not in data[-NEAR_END:] and _is_whole(data):
            raise PhotoError("bytes after the picture's end") from None
        raise PhotoError(f"unreadable: {error}") from None
    metadata, lost = metadata_of(segments)
    return Photo(pixels, orientation(metadata), metadata, True, lost=lost)


def _check_frames(segments: Sequence[tuple[int, bytes]], max_pixels: int) -> None:
    for marker, payload in segments:
        if marker in FRAMES:
            precision, height, width, components = struct.unpack_from(">BHHB", payload)
            _check_pixels(width, height, max_pixels)
            if precision != 8:
                raise PhotoError(f"sample type uint{precision} in a JPEG file is not read; allowed is uint8")
            if components == 4:
                raise PhotoError("colour mode CMYK")


def _is_whole(jpeg: bytes) -> bool:
    try:
        read_header(jpeg)
    except JpegError:
        return False
    return True


def _is_several(jpeg: bytes) -> bool:
    """Whether there are other pictures behind the first (MPO: stereo pairs, gain maps)."""
    try:
        with pillow(), Image.open(io.BytesIO(jpeg), formats=("JPEG", "MPO")) as image:
            return int(getattr(image, "n_frames", 1)) > 1
    except Exception:  # Pillow raises whatever it likes on damaged files
        return False


def _read_other(data: bytes, max_pixels: int) -> Photo:
    try:
        with pillow():  # its lock is held for the header alone: threads decode side by side
            image = Image.open(io.BytesIO(data), formats=(*FORMATS, "DIB"))
            several = getattr(image, "n_frames", 1) > 1
        with image:
            if several:
                raise PhotoError("several pictures")
            _check_pixels(*image.size, max_pixels)
            pixels, note = rgb(image)
            if image.format == "PNG" and png.lacks_rows(data, image):
                raise PhotoError("unreadable: the pixels of the PNG file end before its last row")
            with pillow():
                metadata = pillow_metadata(image)
            lost = png.lost(data) if image.format == "PNG" else None
    except UnidentifiedImageError:
        with pillow():
            raise why_unknown(data) from None
    except (PhotoError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise whatever they like on damaged files
        detail = re.sub(r" ?<[^>]* at 0x[0-9a-f]+>", "", str(error))  # the same words in each run
        raise PhotoError(f"unreadable: {type(error).__name__}: {detail}") from None
    return Photo(pixels, orientation(metadata), metadata, False, reduced=note, lost=lost)


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
