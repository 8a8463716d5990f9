"""What Pillow does not say of a PNG file: rows that are missing, transparency that it passes over, what is lost."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7 (PNG 1.2, 2.6): first column and row, steps."""
_STEP: Final = 1 << 20
_SRGB_GAMMA: Final = 45455
_SRGB_PRIMARIES: Final = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
_TOLERANCE: Final = 50
"""Of gAMA and cHRM, in their units of 1/100000."""


class Header(NamedTuple):
    """IHDR (PNG 1.2, 4.1.1). interlaced: by Adam7."""

    width: int
    height: int
    bits: int
    colour: int
    interlaced: bool

    @property
    def size(self) -> int:
        """Bytes that the rows of the picture take, with a filter's byte each, before compression."""
        passes = _PASSES if self.interlaced else ((0, 0, 1, 1),)
        total = 0
        for column, row, across, down in passes:
            columns, rows = -(-(self.width - column) // across), -(-(self.height - row) // down)
            if columns > 0 and rows > 0:
                total += rows * (1 + -(-columns * self.bits * _CHANNELS[self.colour] // 8))
        return total


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """Name, body and end of each chunk that is there, up to IEND."""
    at, name = 8, b""
    while name != b"IEND" and at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, end = data[at + 4 : at + 8], at + 12 + length
        yield name, memoryview(data)[at + 8 : at + 8 + length], end
        at = end


def header_of(data: bytes) -> Header:
    """Of a file that Pillow opened."""
    width, height, bits, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    return Header(width, height, bits, colour, interlace == 1)


def lacks_rows(data: bytes, image: Image.Image) -> bool:
    """Whether the pixels of a loaded picture end before its last row, which Pillow leaves black without a word.

    The data are only looked at where one of the last two rows is black.
    """
    header = header_of(data)
    end = np.asarray(image.crop((0, max(0, image.height - 2), image.width, image.height)))
    if not header.interlaced and end.reshape(len(end), -1).any(axis=1).all():
        return False
    size, inflate = header.size, zlib.decompressobj()
    for name, body, _ in _chunks(data):
        rest: bytes | memoryview = body if name == b"IDAT" else b""
        while size > 0 and len(rest) and not inflate.eof:
            size -= len(inflate.decompress(rest, _STEP))
            rest = inflate.unconsumed_tail
    return size - len(inflate.flush()) > 0


def lost(data: bytes) -> str | None:
    """What a JPEG made of the pixels has no room for: a colour space that no ICC profile says, bytes behind the end."""
    bodies: dict[bytes, memoryview] = {}
    end = len(data)
    for name, body, end in _chunks(data):  # noqa: B007
        bodies.setdefault(name, body)
    words = _colours(bodies)
    if len(data) > end:
        words.append(f"{len(data) - end:,} bytes behind the picture's end")
    return "; ".join(f"without its {word}" for word in words) or None


def _colours(bodies: Mapping[bytes, memoryview]) -> list[str]:
    """PNG 3, 4.3: cICP comes before iCCP and sRGB, those before gAMA and cHRM."""
    if b"cICP" in bodies:
        return ["colour space (cICP)"]
    if b"iCCP" in bodies or b"sRGB" in bodies:
        return []
    words = []
    if len(gamma := bodies.get(b"gAMA", b"")) == 4:
        (value,) = struct.unpack(">I", gamma)
        if abs(value - _SRGB_GAMMA) > _TOLERANCE:
            words.append(f"gamma {value / 100000:g} (gAMA)")
    if len(primaries := bodies.get(b"cHRM", b"")) == 32:
        values = struct.unpack(">8I", primaries)
        if any(abs(value - usual) > _TOLERANCE for value, usual in zip(values, _SRGB_PRIMARIES, strict=True)):
            words.append("primary colours (cHRM)")
    return words
