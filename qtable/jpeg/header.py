"""What a JPEG file holds beside its coefficients: `read_header` puts its marker segments together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from qtable.jpeg.markers import (
    FRAMES,
    Component,
    Frame,
    Huffman,
    JpegError,
    Quantization,
    Scan,
    Segment,
    read_dht,
    read_dqt,
    read_frame,
    read_scan,
    unpack,
    walk,
)
from qtable.jpeg.tables import QTables


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


def read_header(data: bytes) -> Header:
    """Parse the marker segments of a JPEG file (ITU-T T.81, annex B). JpegError, with the place, if malformed.

    All of T.81's processes are read, and files of tables alone.
    """
    segments = tuple(walk(data))
    quantizations: list[Quantization] = []
    huffman_tables: list[Huffman] = []
    frames: list[Frame] = []
    scans: list[Scan] = []
    held: dict[int, int] = {}  # by slot, an index into quantizations
    latched: dict[int, dict[int, int]] = {}  # by component, what was held as its first scan began
    restart_interval = lines = 0
    for segment in segments:
        if segment.marker == 0xDB:
            for quantization in read_dqt(segment, len(scans)):
                held[quantization.slot] = len(quantizations)
                quantizations.append(quantization)
        elif segment.marker == 0xC4:
            huffman_tables += read_dht(segment)
        elif segment.marker == 0xDD:
            (restart_interval,) = unpack(">H", segment)
        elif segment.marker == 0xDC:
            (lines,) = unpack(">H", segment)
        elif segment.marker == 0xDE or segment.marker in FRAMES:
            if frames and frames[0].marker != 0xDE:
                raise JpegError(f"a second frame at byte {segment.at}")
            frames.append(read_frame(segment))
        elif segment.marker == 0xDA:
            if not frames or frames[-1].marker == 0xDE:
                raise JpegError(f"a scan at byte {segment.at} before the frame header")
            scans.append(read_scan(segment, frames[-1], restart_interval))
            for component in scans[-1].components:
                latched.setdefault(component, dict(held))
    if not scans and (frames or not (quantizations or huffman_tables)):
        raise JpegError("a JPEG file without a scan")
    whole = frames[0] if frames else Frame(0xDE, 0, 0, 0, ())  # DHP, in a hierarchical file, gives the final size
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
