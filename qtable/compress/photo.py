"""One photo: a file's bytes in, a JPEG file's bytes out."""

from __future__ import annotations

import io
import json
import re
import struct
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Literal, get_args

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder
from qtable.compress.metadata import (
    APP2,
    EXIF,
    Metadata,
    fitted,
    metadata_of,
    orientation,
    pillow,
    read_segments,
    upright,
    with_metadata,
)
from qtable.jpeg.codec import MAX_SIDE, RGB, decode, library_versions
from qtable.jpeg.header import read_header
from qtable.jpeg.markers import FRAMES, JpegError
from qtable.photos.opening import MAX_PIXELS

MetadataPolicy = Literal["keep", "strip"]
Action = Literal["compressed", "kept", "copied", "shard", "skipped"]
_FORMATS: Final = ("PNG", "WEBP", "BMP", "DIB", "TIFF", "PPM", "GIF")
_MODES: Final = frozenset(["1", "L", "P", "RGB", "RGBX", "YCbCr", "LA", "PA", "RGBA"])
_TIFF_TAGS: Final = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
"""Those of a TIFF's own tags that describe the picture and not the file."""


class Skip(Exception):
    """This file is left out; the message is "reason" or "reason: detail"."""


@dataclass(frozen=True)
class Recipe:
    """What happens to each photo: `recipe(file's bytes) -> (file's bytes, action, note)`.

    metadata: "keep" copies EXIF, ICC profile and XMP and leaves the pixels as they are stored; "strip" copies nothing
    and turns the pixels upright. skip_larger: a JPEG that would not become smaller stays as it is (action "kept").
    max_pixels: larger photos are skipped. ValueError for anything else.
    """

    coder: Coder
    metadata: MetadataPolicy = "keep"
    skip_larger: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.metadata not in get_args(MetadataPolicy):
            raise ValueError(f"metadata {self.metadata!r} is unknown; allowed: {', '.join(get_args(MetadataPolicy))}")
        if self.max_pixels < 1:
            raise ValueError(f"at most {self.max_pixels} pixels; allowed: 1 or more")
        if self.skip_larger and self.metadata == "strip":
            raise ValueError(
                "photos kept because they would grow keep their metadata, too: skip-larger or strip, not both"
            )

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be continued; each part by itself, so that a difference can be named."""
        return {
            **_parts(self.coder),
            **library_versions(),
            "metadata": self.metadata,
            "skip_larger": self.skip_larger,
            "max_pixels": self.max_pixels,
        }

    def __call__(self, data: bytes) -> tuple[bytes, Action, str | None]:
        """Raises Skip for what cannot be kept faithfully as an RGB JPEG with 8 bits a sample."""
        if not data:
            raise Skip("empty file")
        is_jpeg = data.startswith(b"\xff\xd8")
        image, metadata = self._decode_jpeg(data) if is_jpeg else self._decode_other(data)
        note = None
        if self.metadata == "strip":
            image, metadata = upright(image, orientation(metadata.exif)) if metadata.exif else image, Metadata()
        else:
            metadata, note = fitted(metadata)
        encoded = with_metadata(self.coder.encode(image), metadata)
        if self.skip_larger and is_jpeg and len(encoded) >= len(data):
            return data, "kept", None
        return encoded, "compressed", note

    def check_bytes(self, size: int) -> None:
        """Raises Skip for files that are too large to be read, whatever they hold."""
        if size > 8 * self.max_pixels + (1 << 28):
            raise Skip(f"too large: {size} bytes")

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels or max(width, height) > MAX_SIDE:
            raise Skip(f"too large: {width} x {height} pixels")

    def _decode_jpeg(self, data: bytes) -> tuple[RGB, Metadata]:
        try:
            segments = [(marker, payload) for marker, _, payload in read_segments(data)]
            for marker, payload in segments:
                if marker in FRAMES:
                    precision, height, width, components = struct.unpack_from(">BHHB", payload)
                    self._check_size(width, height)
                    if precision != 8:
                        raise Skip("more than 8 bits a sample")
                    if components == 4:
                        raise Skip("colour mode CMYK")
            if any(m == APP2 and payload.startswith(b"MPF\0") for m, payload in segments) and _is_several(data):
                raise Skip("several pictures")
            return decode(data), metadata_of(segments)
        except (JpegError, struct.error) as error:
            if b"\xff\xd9" not in data[-64:] and _is_whole(data):
                raise Skip("bytes after the picture's end") from None
            raise Skip(f"unreadable: {error}") from None

    def _decode_other(self, data: bytes) -> tuple[RGB, Metadata]:
        try:
            with pillow(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if getattr(image, "n_frames", 1) > 1:
                    raise Skip("several pictures")
                self._check_size(*image.size)
                if _is_deep(image):
                    raise Skip("more than 8 bits a sample")
                if image.mode not in _MODES:
                    raise Skip(f"colour mode {image.mode}")
                image.load()
                if image.has_transparency_data:
                    opaque = image.convert("RGBA")
                    if opaque.getchannel("A").getextrema()[0] != 255:
                        raise Skip("transparency")
                    return np.asarray(opaque.convert("RGB")), _pillow_metadata(image)
                return np.asarray(image.convert("RGB")), _pillow_metadata(image)
        except (Skip, MemoryError):
            raise
        except Exception as error:  # Pillow's plugins raise whatever they like on damaged files
            detail = re.sub(r" ?<[^>]* at 0x[0-9a-f]+>", "", str(error))  # the same words in each run
            raise Skip(f"unreadable: {type(error).__name__}: {detail}") from None


def _parts(coder: Coder) -> dict[str, Any]:
    """What a coder is, without long values: of these a digest."""
    parts = {} if isinstance(coder, TableCoder) else {"coder": coder.kind}  # plain tables' as journals always had them
    for key, value in coder.to_dict().items():
        short = isinstance(value, str | int | float)
        parts[key] = value if short else sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
    return parts | ({} if coder.tables is None else {"tables": coder.tables.digest()[:16]})


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


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether the file has more than 8 bits a sample; Pillow opens such colour files as 8-bit "RGB"."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return True
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return bool(max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))) > 8)
    if image.format == "PNG":
        return any(str(tile.args).endswith(";16B") for tile in image.tile)
    return image.format == "PPM" and any(
        isinstance(tile.args, tuple) and int(str(tile.args[1])) > 255  # (mode, maxval)
        for tile in image.tile
    )


def _pillow_metadata(image: ImageFile.ImageFile) -> Metadata:
    """Of a loaded picture that was no JPEG."""
    exif = bytes(image.info.get("exif", b""))
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        exif = _tiff_exif(image.getexif())
    elif not exif and "Raw profile type exif" in image.info:  # a PNG's text, as ImageMagick wrote it once
        exif = image.getexif().tobytes()
    xmp = image.info.get("xmp", b"")
    return Metadata(
        exif.removeprefix(EXIF),
        bytes(image.info.get("icc_profile") or b""),
        xmp.encode() if isinstance(xmp, str) else bytes(xmp),
    )


def _tiff_exif(tags: Image.Exif) -> bytes:
    """What describes the picture and not the file; no orientation, as Pillow turns a TIFF upright when it loads it."""
    kept = Image.Exif()
    for tag in _TIFF_TAGS:
        if tag in tags:
            kept[tag] = tags[tag]
    for folder in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if found := tags.get_ifd(folder):
            kept[folder] = found
    return kept.tobytes() if len(kept) else b""
