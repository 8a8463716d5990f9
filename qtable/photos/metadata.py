"""What a photo carries beside its pixels: EXIF, ICC profile, XMP packet; and Pillow, kept quiet."""

from __future__ import annotations

import re
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from qtable.jpeg.codec import RGB
from qtable.jpeg.markers import JpegError

EXIF: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_ICC: Final = b"ICC_PROFILE\0"
_APP0, _APP1, APP2, _SOS = 0xE0, 0xE1, 0xE2, 0xDA
_SEGMENT_BYTES: Final = 65533
_ICC_CHUNK: Final = 65519
"""ICC.1:2010, annex B.4: profile bytes in one APP2 segment, after the name, a sequence number and the count."""
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
_RAW: Final = ("Raw profile type exif", "Raw profile type APP1")
"""A PNG's text in which ImageMagick and ExifTool have kept EXIF since before PNG had a place for it."""
_TIFF_NAMESPACE: Final = re.compile(rb"""xmlns:([\w.-]+)\s*=\s*["']http://ns\.adobe\.com/tiff/1\.0/["']""")


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
    """The inverse of `with_metadata`; a profile that is not whole counts as none. JpegError if malformed."""
    return metadata_of([(marker, payload) for marker, _, payload in read_segments(jpeg)])[0]


def metadata_of(segments: Sequence[tuple[int, bytes]]) -> tuple[Metadata, str | None]:
    """Of a file's segments, (marker, payload) each; and what of it could not be read."""

    def first(header: bytes) -> bytes:
        bodies = (p.removeprefix(header) for marker, p in segments if marker == _APP1 and p.startswith(header))
        return next(bodies, b"")

    icc, lost = _profile([p[len(_ICC) :] for marker, p in segments if marker == APP2 and p.startswith(_ICC)])
    return Metadata(first(EXIF), icc, first(_XMP)), lost


def _profile(chunks: Sequence[bytes]) -> tuple[bytes, str | None]:
    """A profile of its chunks, each after a sequence number and the count; b"" and why, if it is not whole.

    It is whole if there are as many chunks as each says, with numbers that follow each other, from whichever number
    on; or if it is as long as it says itself (ICC.1:2010, 7.2: its size, and "acsp" at byte 36). Chunks that come again
    are taken once.
    """
    if not chunks:
        return b"", None
    distinct = sorted({chunk for chunk in chunks if len(chunk) > 2})
    profile = b"".join(chunk[2:] for chunk in distinct)
    numbers, counts = [chunk[0] for chunk in distinct], {chunk[1] for chunk in distinct}
    follow = numbers == [numbers[0] + i for i in range(len(numbers))] if numbers else False
    if follow and counts == {len(distinct)}:
        return profile, None
    if len(profile) == int.from_bytes(profile[:4], "big") and profile[36:40] == b"acsp":
        return profile, None
    said = " and ".join(map(str, sorted(counts))) or "nothing"
    return b"", f"without its ICC profile: it is not whole (chunks numbered {numbers!s:.40}, of {said:.20})"


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
    """What a colour JPEG can carry, and what was left out and why."""
    lost = []
    if metadata.icc and metadata.icc[16:20] != b"RGB ":
        lost.append("ICC profile: it is not one of RGB")
    elif len(metadata.icc) > 255 * _ICC_CHUNK:
        lost.append(f"ICC profile: {len(metadata.icc)} bytes are too long for a JPEG")
    icc = b"" if lost else metadata.icc
    exif = metadata.exif if len(EXIF + metadata.exif) <= _SEGMENT_BYTES else b""
    xmp = metadata.xmp if len(_XMP + metadata.xmp) <= _SEGMENT_BYTES else b""
    for name, body, kept in (("EXIF", metadata.exif, exif), ("XMP", metadata.xmp, xmp)):
        if body and not kept:
            lost.append(f"{name}: {len(body)} bytes are too long for a JPEG's segment")
    return Metadata(exif, icc, xmp), "; ".join(f"without its {one}" for one in lost) or None


def orientation(metadata: Metadata) -> int:
    """1 to 8, from EXIF or, where that has none, from XMP; 1 where there is none that can be read."""
    value = _exif_orientation(metadata.exif) if metadata.exif else None
    if value is None:
        value = _xmp_orientation(metadata.xmp)
    return value if value is not None and 1 <= value <= 8 else 1


def _exif_orientation(exif: bytes) -> int | None:
    tags = Image.Exif()
    try:
        with pillow():
            tags.load(exif)
            value: int | None = tags.get(ExifTags.Base.Orientation)
            return value
    except Exception:  # Pillow raises whatever it likes on malformed EXIF
        return None


def _xmp_orientation(xmp: bytes) -> int | None:
    """tiff:Orientation, as attribute or element, under whatever prefix the packet gives TIFF's namespace.

    Found as text: no entity of a stranger's XML is expanded.
    """
    for prefix in dict.fromkeys(_TIFF_NAMESPACE.findall(xmp)):
        name = re.escape(prefix) + rb":Orientation"
        if found := re.search(rb"""\s%b\s*=\s*["']\s*(\d+)\s*["']|<%b[^<>]*>\s*(\d+)\s*<""" % (name, name), xmp):
            return int((found[1] or found[2])[:4])
    return None


def upright(image: RGB, orientation: int) -> RGB:
    """The pixels as they are to be seen (EXIF 2.32, table 6: which side of the picture row 0 and column 0 are)."""
    flipped = image[:, ::-1] if orientation in (2, 4, 5, 7) else image
    turned: RGB = np.rot90(flipped, {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0))
    return np.ascontiguousarray(turned)


def pillow_metadata(image: ImageFile.ImageFile) -> Metadata:
    """Of a loaded picture that was no JPEG."""
    exif, packet = bytes(image.info.get("exif", b"")), image.info.get("xmp", b"")
    xmp = packet.encode() if isinstance(packet, str) else bytes(packet)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        exif = _tiff_exif(image.getexif(), _xmp_orientation(xmp) is not None)
    elif not exif:
        exif = next(
            (body for name in _RAW if (body := _of_text(image.info.get(name))).startswith((EXIF, b"II*\0", b"MM\0*"))),
            b"",
        )
    return Metadata(exif.removeprefix(EXIF), bytes(image.info.get("icc_profile") or b""), xmp)


def _of_text(text: object) -> bytes:
    """The bytes of a raw profile: an empty line, its name, its length, then hexadecimal lines; b"" if it is none."""
    try:
        return bytes.fromhex("".join(str(text).split("\n")[3:]))
    except ValueError:
        return b""


def _tiff_exif(tags: Image.Exif, turned: bool) -> bytes:
    """What describes the picture and not the file; Pillow turns a TIFF upright when it loads it.

    turned: whether XMP names an orientation nevertheless, which is then overruled.
    """
    kept = Image.Exif()
    if turned:
        kept[ExifTags.Base.Orientation] = 1
    for tag in _TIFF_TAGS:
        if tag in tags:
            kept[tag] = tags[tag]
    for folder in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if found := tags.get_ifd(folder):
            kept[folder] = found
    return kept.tobytes() if len(kept) else b""


_pillow_lock = threading.RLock()


@contextmanager
def pillow() -> Iterator[None]:
    """Pillow without its own limit of pixels and without its warnings about odd files; both are global."""
    with _pillow_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL|qtable\.photos")  # the decoder's stay errors in other threads
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
