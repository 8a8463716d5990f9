"""What a JPEG file holds beside its coefficients: `read_header` parses its marker segments (ITU-T T.81, annex B)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from qtable.jpeg.tables import ZIGZAG, QTables


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


@dataclass(frozen=True)
class Header:
    """What a JPEG file holds beside its coefficients.

    width, height: pixels; 0 in a file of tables alone (T.81, B.5). precision: bits of a sample. frame: the n of SOFn.
    components: of the frame. hierarchical: there are several frames; frame and components are the first one's.
    uses: for each component, which of `quantizations` it has: what its slot held as its first scan began (libjpeg's
    `latch_quant_tables`), None if nothing.
    header_bytes counts everything that is not entropy-coded data; scan_bytes the entropy-coded segments with stuffing;
    trailing_bytes what follows EOI (header_bytes has it too).
    """

    width: int
    height: int
    precision: int
    frame: int
    components: tuple[Component, ...]
    hierarchical: bool
    quantizations: tuple[Quantization, ...] = field(repr=False)
    uses: tuple[int | None, ...]
    huffman_tables: tuple[Huffman, ...] = field(repr=False)
    scans: tuple[Scan, ...] = field(repr=False)
    segments: tuple[Segment, ...] = field(repr=False)
    header_bytes: int
    scan_bytes: int
    trailing_bytes: int

    @property
    def progressive(self) -> bool:
        """SOF2, 6, 10 and 14 (T.81, table B.1)."""
        return self.frame & 3 == 2

    @property
    def lossless(self) -> bool:
        """SOF3, 7, 11 and 15 (T.81, table B.1)."""
        return self.frame & 3 == 3

    @property
    def huffman(self) -> bool:
        """Huffman coding, not arithmetic."""
        return self.frame < 8

    @property
    def mode(self) -> str:
        """The coding process (T.81, table B.1), e.g. "progressive Huffman"."""
        if not self.components:
            return "tables alone"
        sequential = "baseline sequential" if self.frame == 0 else "extended sequential"
        process = "lossless" if self.lossless else "progressive" if self.progressive else sequential
        return f"{'hierarchical ' * self.hierarchical}{process} {'Huffman' if self.huffman else 'arithmetic'}"

    @property
    def slots(self) -> dict[int, npt.NDArray[np.int64]]:
        """Quantization tables by slot, int64 [8, 8], natural order, as defined when the first scan begins."""
        return {q.slot: q.values for q in self.quantizations if q.scan == 0}

    @property
    def tables(self) -> QTables:
        """The tables of the components. JpegError if qtable has no use for them.

        That is so for entries above 255, a missing table, more than three, and samples that are not of 8 bits.
        """
        if not self.components:
            raise JpegError("a file of tables alone: no frame says which component uses which")
        if self.lossless or self.precision != 8:
            raise JpegError(f"a {self.mode} file of {self.precision} bits a sample; allowed: DCT, 8 bits")
        for component, use in zip(self.components, self.uses, strict=True):
            if use is None:
                raise JpegError(f"quantization table {component.slot} is used but not defined")
        used = [self.quantizations[use] for use in self.uses if use is not None]
        same = [(q.slot, q.values.tobytes()) for q in used]
        if len(set(same)) == 1:
            used = used[:1]
        elif len(used) == 3 and same[1] == same[2]:
            used = used[:2]
        try:
            return QTables(np.stack([q.values for q in used]))
        except ValueError as error:
            raise JpegError(str(error)) from None

    @property
    def subsampling(self) -> str:
        """ "4:2:0" and so on; "grey" for one component; the factors, e.g. "1x2,1x1,1x1", for anything else."""
        factors = [(c.horizontal, c.vertical) for c in self.components]
        if len(factors) == 1:
            return "grey"
        if len(factors) == 3 and factors[1] == factors[2] == (1, 1):
            known: dict[tuple[int, int], str] = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0"}
            if factors[0] in known:
                return known[factors[0]]
        return ",".join(f"{h}x{v}" for h, v in factors)


_STANDALONE = {0x01, *range(0xD0, 0xD8)}  # TEM, RSTn
FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers SOFn; DHT, JPG and DAC lie between them."""
_MARKER = re.compile(rb"\xff+([^\x00\xd8\xff])", re.DOTALL)
_END_OF_SCAN = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)  # no stuffing, TEM, RSTn or fill byte


def read_header(data: bytes) -> Header:
    """Parse the marker segments of a JPEG file (ITU-T T.81, annex B). JpegError, with the place, if malformed.

    All of T.81's processes are read, and files of tables alone.
    """
    segments = tuple(_walk(data))
    quantizations: list[Quantization] = []
    huffman_tables: list[Huffman] = []
    frames: list[_Frame] = []
    scans: list[Scan] = []
    held: dict[int, int] = {}  # by slot, an index into quantizations
    latched: dict[int, dict[int, int]] = {}  # by component, what was held as its first scan began
    restart_interval = lines = 0
    for segment in segments:
        if segment.marker == 0xDB:
            for quantization in _read_dqt(segment, len(scans)):
                held[quantization.slot] = len(quantizations)
                quantizations.append(quantization)
        elif segment.marker == 0xC4:
            huffman_tables += _read_dht(segment)
        elif segment.marker == 0xDD:
            (restart_interval,) = _unpack(">H", segment)
        elif segment.marker == 0xDC:
            (lines,) = _unpack(">H", segment)
        elif segment.marker == 0xDE or segment.marker in FRAMES:
            if frames and frames[0].marker != 0xDE:
                raise JpegError(f"a second frame at byte {segment.at}")
            frames.append(_read_frame(segment))
        elif segment.marker == 0xDA:
            if not frames or frames[-1].marker == 0xDE:
                raise JpegError(f"a scan at byte {segment.at} before the frame header")
            scans.append(_read_scan(segment, frames[-1], restart_interval))
            for component in scans[-1].components:
                latched.setdefault(component, dict(held))
    if not scans and (frames or not (quantizations or huffman_tables)):
        raise JpegError("a JPEG file without a scan")
    whole = frames[0] if frames else _Frame(0xDE, 0, 0, 0, ())  # DHP, in a hierarchical file, gives the final size
    first = next((frame for frame in frames if frame.marker != 0xDE), whole)
    height = whole.height or lines
    if frames and not (height and whole.width):
        raise JpegError(f"a frame of {whole.width} x {height} pixels; allowed: 1..65535 a side")
    scan_bytes = sum(scan.bytes for scan in scans)
    return Header(
        width=whole.width,
        height=height,
        precision=first.precision,
        frame=first.marker & 15,
        components=first.components,
        hierarchical=first is not whole,
        quantizations=tuple(quantizations),
        uses=tuple(latched.get(component.id, held).get(component.slot) for component in first.components),
        huffman_tables=tuple(huffman_tables),
        scans=tuple(scans),
        segments=segments,
        header_bytes=len(data) - scan_bytes,
        scan_bytes=scan_bytes,
        trailing_bytes=len(data) - segments[-1].at - segments[-1].size,
    )


def _walk(data: bytes) -> Iterator[Segment]:
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


class _Frame(NamedTuple):
    marker: int
    precision: int
    height: int
    width: int
    components: tuple[Component, ...]


def _malformed(segment: Segment) -> JpegError:
    return JpegError(f"segment {segment.marker:#04x} at byte {segment.at} is malformed")


def _unpack(layout: str, segment: Segment) -> tuple[int, ...]:
    try:
        return struct.unpack(layout, segment.body)
    except struct.error:
        raise _malformed(segment) from None


def _read_frame(segment: Segment) -> _Frame:
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
    return _Frame(segment.marker, precision, height, width, components)


def _read_scan(segment: Segment, frame: _Frame, restart_interval: int) -> Scan:
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


def _read_dqt(segment: Segment, scan: int) -> list[Quantization]:
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


def _read_dht(segment: Segment) -> list[Huffman]:
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
