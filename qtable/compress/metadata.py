"""What a photo carries beside its pixels: EXIF, ICC profile, XMP packet; and Pillow, kept quiet."""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import ExifTags, Image

from qtable.jpeg.codec import RGB
from qtable.jpeg.markers import JpegError

EXIF: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_ICC: Final = b"ICC_PROFILE\0"
_APP0, _APP1, APP2, _SOS = 0xE0, 0xE1, 0xE2, 0xDA
_SEGMENT_BYTES: Final = 65533
_ICC_CHUNK: Final = 65519
"""ICC.1:2010, annex B.4: profile bytes in one APP2 segment, after the name, a sequence number and the count."""


@dataclass(frozen=True)
class Metadata:
    """What is carried over from a photo: EXIF (a TIFF header and what follows), ICC profile, XMP packet; b"" = none."""

    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""


def with_metadata(jpeg: bytes, metadata: Metadata) -> bytes:
    """The JPEG file with APP1 (EXIF, XMP) and APP2 (ICC) segments after its JFIF header. ValueError if too long."""
    payloads = []
    for name, header, body in (("EXIF", EXIF, metadata.exif), ("XMP", _XMP, metadata.xmp)):
        if len(header) + len(body) > _SEGMENT_BYTES:
            raise ValueError(f"{name} of {len(body)} bytes; a segment holds {_SEGMENT_BYTES - len(header)}")
        if body:
            payloads.append((_APP1, header + body))
    chunks = [metadata.icc[i : i + _ICC_CHUNK] for i in range(0, len(metadata.icc), _ICC_CHUNK)]
    if len(chunks) > 255:
        raise ValueError(f"an ICC profile of {len(metadata.icc)} bytes; a JPEG holds {255 * _ICC_CHUNK}")
    payloads += [(APP2, _ICC + bytes([i, len(chunks)]) + chunk) for i, chunk in enumerate(chunks, start=1)]
    if not payloads:
        return jpeg
    marker, end, _ = next(read_segments(jpeg))
    at = end if marker == _APP0 else 2
    inserted = [struct.pack(">BBH", 0xFF, marker, 2 + len(payload)) + payload for marker, payload in payloads]
    return b"".join([jpeg[:at], *inserted, jpeg[at:]])


def read_metadata(jpeg: bytes) -> Metadata:
    """The inverse of `with_metadata`; a profile of which a chunk is missing counts as none. JpegError if malformed."""
    return metadata_of([(marker, payload) for marker, _, payload in read_segments(jpeg)])


def metadata_of(segments: Sequence[tuple[int, bytes]]) -> Metadata:
    """Of a file's segments, (marker, payload) each."""

    def first(header: bytes) -> bytes:
        bodies = (p.removeprefix(header) for marker, p in segments if marker == _APP1 and p.startswith(header))
        return next(bodies, b"")

    chunks = sorted(p[len(_ICC) :] for marker, p in segments if marker == APP2 and p.startswith(_ICC))
    whole = [chunk[:2] for chunk in chunks] == [bytes([i, len(chunks)]) for i in range(1, min(len(chunks), 255) + 1)]
    return Metadata(first(EXIF), b"".join(chunk[2:] for chunk in chunks) if whole else b"", first(_XMP))


def read_segments(jpeg: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(marker, where it ends, payload) of the segments up to the first scan's header (ITU-T T.81, B.1.1.4)."""
    at, marker = 2, 0
    try:
        while marker != _SOS:
            if jpeg[at] != 0xFF:
                raise JpegError(f"byte {at} is {jpeg[at]:#04x} where a marker must be")
            while jpeg[at] == 0xFF:
                at += 1
            marker = jpeg[at]
            if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # TEM, RSTn: no payload
                at += 1
                continue
            (length,) = struct.unpack_from(">H", jpeg, at + 1)
            payload = jpeg[at + 3 : at + 1 + length]
            if length < 2 or len(payload) != length - 2:
                raise JpegError(f"segment {marker:#04x} at byte {at} has length {length}, past the end of the file")
            at += 1 + length
            yield marker, at, payload
    except (IndexError, struct.error):
        raise JpegError(f"a truncated JPEG file ({len(jpeg)} bytes)") from None


def fitted(metadata: Metadata) -> tuple[Metadata, str | None]:
    """What a colour JPEG can carry, and what was left out."""
    icc = metadata.icc if metadata.icc[16:20] == b"RGB " and len(metadata.icc) <= 255 * _ICC_CHUNK else b""
    exif = metadata.exif if len(EXIF + metadata.exif) <= _SEGMENT_BYTES else b""
    xmp = metadata.xmp if len(_XMP + metadata.xmp) <= _SEGMENT_BYTES else b""
    fitting = Metadata(exif, icc, xmp)
    lost = [name.upper() for name, value in vars(metadata).items() if value and not getattr(fitting, name)]
    return fitting, f"without its {', '.join(lost)}: not for a colour JPEG, or too long" if lost else None


def orientation(exif: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none that can be read."""
    tags = Image.Exif()
    try:
        with pillow():
            tags.load(exif)
            value = tags.get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises whatever it likes on malformed EXIF
        return 1
    return value if value in range(1, 9) else 1


def upright(image: RGB, orientation: int) -> RGB:
    """The pixels as they are to be seen (EXIF 2.32, table 6: which side of the picture row 0 and column 0 are)."""
    flipped = image[:, ::-1] if orientation in (2, 4, 5, 7) else image
    turned: RGB = np.rot90(flipped, {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0))
    return np.ascontiguousarray(turned)


_pillow_lock = threading.Lock()


@contextmanager
def pillow() -> Iterator[None]:
    """Pillow without its own limit of pixels and without its warnings about odd files; both are global."""
    with _pillow_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL|qtable\.compress")  # the decoder's stay errors in other threads
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
