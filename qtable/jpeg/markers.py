"""The marker segments of a JPEG file (ITU-T T.81, annex B): where they are, and what those of the coding say."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from qtable.jpeg.tables import ZIGZAG


class JpegError(ValueError):
    """These bytes are not a JPEG file that can be read, or these pixels cannot be written as one."""


@dataclass(frozen=True)
class Component:
    """One colour component of a frame: its id, sampling factors and quantization table slot."""

    id: int
    horizontal: int
    vertical: int
    slot: int


class Segment(NamedTuple):
    """A marker with its parameters.

    marker: the byte after 0xFF. at: where its first 0xFF is. size: bytes from there to its last parameter. body: the
    parameters without their length. entropy_bytes: of the entropy-coded segments that follow a scan header, with
    stuffing and restart markers.
    """

    marker: int
    at: int
    size: int
    body: bytes
    entropy_bytes: int


class Quantization(NamedTuple):
    """One definition of a quantization table.

    slot: 0..3. bits: 8 or 16 an entry. values: int64 [8, 8], natural order. scan: how many scans come before it.
    """

    slot: int
    bits: int
    values: npt.NDArray[np.int64]
    scan: int


class Huffman(NamedTuple):
    """One definition of a Huffman table.

    kind: 0 for DC (and lossless), 1 for AC. slot: 0..3. counts: 16 bytes, the number of codes of 1..16 bits. symbols:
    in order of increasing code.
    """

    kind: int
    slot: int
    counts: bytes
    symbols: bytes


class Scan(NamedTuple):
    """One scan.

    components: their ids. spectrum: first and last coefficient along the zigzag. approximation: the bits that the scan
    before left out (0 if there was none) and that this one leaves out. restart_interval: in MCUs; 0 is none. bytes: of
    its entropy-coded segments.
    """

    components: tuple[int, ...]
    spectrum: tuple[int, int]
    approximation: tuple[int, int]
    restart_interval: int
    bytes: int


class Frame(NamedTuple):
    marker: int
    precision: int
    height: int
    width: int
    components: tuple[Component, ...]


_STANDALONE = {0x01, *range(0xD0, 0xD8)}  # TEM, RSTn
FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers SOFn; DHT, JPG and DAC lie between them."""
_MARKER = re.compile(rb"\xff+([^\x00\xd8\xff])", re.DOTALL)
_END_OF_SCAN = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)  # no stuffing, TEM, RSTn or fill byte


def walk(data: bytes) -> Iterator[Segment]:
    """The segments from SOI to EOI, without TEM and RSTn; JpegError where there is none."""
    if data[:2] != b"\xff\xd8":
        raise JpegError(f"not a JPEG file ({len(data)} bytes, no SOI marker)")
    yield Segment(0xD8, 0, 2, b"", 0)
    at = 2
    while True:
        found = _MARKER.match(data, at)
        if found is None:
            if not data[at:].strip(b"\xff"):
                raise JpegError(f"a truncated JPEG file ({len(data)} bytes)")
            raise JpegError(f"byte {at} begins {data[at : at + 2].hex(' ')} where a marker must be")
        marker, begin, at = found[1][0], at, found.end()
        body, entropy_bytes = b"", 0
        if marker in _STANDALONE:
            continue
        if marker != 0xD9:
            length = int.from_bytes(data[at : at + 2], "big")
            if len(data) < at + max(length, 2):
                raise JpegError(f"a truncated JPEG file ({len(data)} bytes, segment {marker:#04x} at byte {begin})")
            if length < 2:
                raise JpegError(f"segment {marker:#04x} at byte {begin} has length {length}; allowed: 2..65535")
            body = data[at + 2 : at + length]
            at += length
        if marker == 0xDA:
            end = _END_OF_SCAN.search(data, at)
            if end is None:
                raise JpegError(f"a truncated JPEG file ({len(data)} bytes, a scan without end)")
            entropy_bytes = end.start() - at
        yield Segment(marker, begin, at - begin, body, entropy_bytes)
        if marker == 0xD9:
            return
        at += entropy_bytes


def _malformed(segment: Segment) -> JpegError:
    return JpegError(f"segment {segment.marker:#04x} at byte {segment.at} is malformed")


def unpack(layout: str, segment: Segment) -> tuple[int, ...]:
    try:
        return struct.unpack(layout, segment.body)
    except struct.error:
        raise _malformed(segment) from None


def read_frame(segment: Segment) -> Frame:
    """T.81, B.2.2 and B.3.2."""
    body = segment.body
    if len(body) < 9 or len(body) != 6 + 3 * body[5]:
        raise _malformed(segment)
    precision, height, width = struct.unpack_from(">BHH", body)
    components = tuple(
        Component(body[i], body[i + 1] >> 4, body[i + 1] & 15, body[i + 2]) for i in range(6, len(body), 3)
    )
    for component in components:
        if not (1 <= component.horizontal <= 4 and 1 <= component.vertical <= 4 and component.slot <= 3):
            raise _malformed(segment)
    return Frame(segment.marker, precision, height, width, components)


def read_scan(segment: Segment, frame: Frame, restart_interval: int) -> Scan:
    """T.81, B.2.3."""
    body = segment.body
    if not body or not 1 <= body[0] <= 4 or len(body) != 4 + 2 * body[0]:
        raise _malformed(segment)
    components = tuple(body[1:-3:2])
    strangers = set(components) - {component.id for component in frame.components}
    if strangers:
        raise JpegError(f"a scan at byte {segment.at} of component {min(strangers)}, which the frame has not")
    first, last, high_low = body[-3:]
    return Scan(components, (first, last), (high_low >> 4, high_low & 15), restart_interval, segment.entropy_bytes)


def read_dqt(segment: Segment, scan: int) -> list[Quantization]:
    """T.81, B.2.4.1."""
    body, at = segment.body, 0
    quantizations = []
    while at < len(body):
        size, slot = 1 + (body[at] >> 4), body[at] & 15
        entries = body[at + 1 : at + 1 + 64 * size]
        if size > 2 or slot > 3 or len(entries) != 64 * size:
            raise _malformed(segment)
        natural = np.empty(64, np.int64)
        natural[ZIGZAG] = np.frombuffer(entries, ">u2" if size == 2 else "u1")
        quantizations.append(Quantization(slot, 8 * size, natural.reshape(8, 8), scan))
        at += 1 + 64 * size
    return quantizations


def read_dht(segment: Segment) -> list[Huffman]:
    """T.81, B.2.4.2."""
    body, at = segment.body, 0
    tables = []
    while at < len(body):
        kind, slot, counts = body[at] >> 4, body[at] & 15, body[at + 1 : at + 17]
        symbols = body[at + 17 : at + 17 + sum(counts)]
        if kind > 1 or slot > 3 or len(counts) != 16 or len(symbols) != sum(counts) or len(symbols) > 256:
            raise _malformed(segment)
        tables.append(Huffman(kind, slot, counts, symbols))
        at += 17 + len(symbols)
    return tables
