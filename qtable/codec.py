"""`Codec`: RGB -> real JPEG bytes -> RGB through libjpeg-turbo, and what can be read back out of a file.

Every size and every accuracy of qtable comes from here. Pillow encodes (its wheel carries libjpeg-turbo);
PyTurboJPEG decodes where the system has libturbojpeg, simplejpeg where it has not. All routes give equal pixels.
"""

from __future__ import annotations

import functools
import os
import re
import struct
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from typing import IO, Final, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, __version__, features

from qtable.tables import ZIGZAG, QTables, as_flat_list

RGB = npt.NDArray[np.uint8]
"""uint8 [h, w, 3], 0..255."""
Coefficients = tuple[npt.NDArray[np.int16], npt.NDArray[np.int16], npt.NDArray[np.int16]]
"""Quantized DCT coefficients of Y, Cb, Cr: int16 [block rows, block columns, 8, 8], natural order."""
Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]
Entropy = Literal["standard", "optimized", "progressive"]
SUBSAMPLINGS: Final[tuple[Subsampling, ...]] = get_args(Subsampling)
ENTROPIES: Final[tuple[Entropy, ...]] = get_args(Entropy)
MAX_SIDE: Final = 65500
"""libjpeg's JPEG_MAX_DIMENSION."""
MAX_PIXELS_PER_BYTE: Final = 1024
"""A Huffman-coded file holds no more: each block takes a bit, and no sampling gives fewer than one in 128 pixels."""
MAX_ARITHMETIC_PIXELS: Final = 1 << 24
"""Arithmetic coding knows no such bound: beyond this many pixels it must keep the one above."""
MAX_SCANS: Final = 500
"""As libjpeg-turbo's TJFLAG_LIMITSCANS has it: each scan, however short, costs a pass over all coefficients."""


class JpegError(ValueError):
    """These bytes are not a JPEG file that can be read, or these pixels cannot be written as one."""


@dataclass(frozen=True)
class Codec:
    """How photos become files: chroma subsampling and entropy coding; the tables are an argument of `encode`.

    subsampling: "4:4:4", "4:2:2" or "4:2:0". entropy: "standard" (Annex K's Huffman tables, one pass),
    "optimized" (Huffman tables of the photo) or "progressive" (libjpeg's default scans). ValueError for others.
    """

    subsampling: Subsampling = "4:2:0"
    entropy: Entropy = "optimized"

    def __post_init__(self) -> None:
        if self.subsampling not in SUBSAMPLINGS:
            raise ValueError(f"subsampling {self.subsampling!r} is unknown; allowed: {', '.join(SUBSAMPLINGS)}")
        if self.entropy not in ENTROPIES:
            raise ValueError(f"entropy coding {self.entropy!r} is unknown; allowed: {', '.join(ENTROPIES)}")

    def encode(self, image: RGB, tables: QTables) -> bytes:
        """A whole baseline (or progressive) JFIF file. image: uint8 [h, w, 3]. JpegError for other arrays.

        Pillow is given the tables and never a quality, which would scale them. It writes to a real file
        descriptor: that releases the GIL.
        """
        _check_rgb(image)
        height, width = image.shape[:2]
        # Pillow gives libjpeg one output buffer, sized from a quality that is not given here; with optimized or
        # progressive coding libjpeg cannot suspend when it is full. 8 bytes a pixel exceed any real photo.
        with _buffer_lock:
            ImageFile.MAXBLOCK = max(ImageFile.MAXBLOCK, 8 * height * width + (1 << 16))
        with _memory_file() as file:
            Image.fromarray(image).save(
                file,
                "JPEG",
                qtables=as_flat_list(tables),
                subsampling=self.subsampling,
                optimize=self.entropy == "optimized",
                progressive=self.entropy == "progressive",
            )
            return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)

    def decode(self, data: bytes) -> RGB:
        """uint8 [h, w, 3]: libjpeg-turbo with its defaults (islow DCT, fancy up-sampling). JpegError if it cannot."""
        return decode(data)

    def to_dict(self) -> dict[str, str]:
        """What a result must record to be remade: sampling, entropy coding and library versions."""
        return {"subsampling": self.subsampling, "entropy": self.entropy, **library_versions()}


def _check_rgb(image: RGB) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise JpegError(f"a photo is uint8 [h, w, 3]; got {image.dtype} {list(image.shape)}")
    if not (0 < image.shape[0] <= MAX_SIDE and 0 < image.shape[1] <= MAX_SIDE):
        raise JpegError(f"a photo of {image.shape[1]} x {image.shape[0]} pixels; JPEG allows 1..{MAX_SIDE} a side")


_buffer_lock = threading.Lock()


def _memory_file() -> IO[bytes]:
    """An unbuffered in-memory file with a descriptor (a temporary file where the system has no memfd)."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("qtable"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


# ---- decoding -------------------------------------------------------------------------------------------------


def _turbojpeg_decoder() -> Callable[[bytes], RGB]:
    """PyTurboJPEG on the system's libturbojpeg; OSError or RuntimeError where there is none that fits."""
    import turbojpeg

    # It reports damaged files as warnings; for qtable they are errors.
    warnings.filterwarnings("error", category=UserWarning, module="turbojpeg")
    jpeg = turbojpeg.TurboJPEG()
    return lambda data: jpeg.decode(data, pixel_format=turbojpeg.TJPF_RGB)


def _simplejpeg_decoder() -> Callable[[bytes], RGB]:
    import simplejpeg

    return lambda data: simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)


def _pillow_decoder() -> Callable[[bytes], RGB]:
    import io

    return lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


DECODERS: Final[dict[str, Callable[[], Callable[[bytes], RGB]]]] = {
    "turbojpeg": _turbojpeg_decoder,
    "simplejpeg": _simplejpeg_decoder,
    "pillow": _pillow_decoder,
}
"""Decoding routes by name, in the order in which they are tried."""


@functools.cache
def decoder(name: str | None = None) -> tuple[str, Callable[[bytes], RGB]]:
    """A decoding route by name, or the first of `DECODERS` that works here. ImportError if none does."""
    reasons = []
    for route in DECODERS if name is None else (name,):
        try:
            return route, DECODERS[route]()
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            reasons.append(f"{route}: {error}")
    raise ImportError("no JPEG decoder: " + "; ".join(reasons))


def decode(data: bytes) -> RGB:
    """uint8 [h, w, 3] of a JPEG file. JpegError if it is not a whole one, or asks for more work than its bytes hold."""
    if len(data) < 4 or not data.startswith(b"\xff\xd8"):
        raise JpegError(f"not a JPEG file ({len(data)} bytes, no SOI marker)")
    if b"\xff\xd9" not in data[-64:]:
        raise JpegError(f"a truncated JPEG file ({len(data)} bytes, no EOI marker at its end)")
    check_work(data)
    try:
        return decoder()[1](data)
    except (OSError, ValueError, UserWarning) as error:
        raise JpegError(f"a JPEG file that does not decode: {error}") from None


# SOS, or SOFn followed by its height and width.
_CLAIMS = re.compile(rb"\xff(?:\xda|[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf](?=...(.{4})))", re.DOTALL)


def check_work(data: bytes) -> None:
    """JpegError for decompression bombs, before any memory is taken: impossible dimensions, endless scans."""
    claims = _CLAIMS.findall(data)
    most = MAX_PIXELS_PER_BYTE * len(data)
    if len(claims) <= MAX_SCANS and all(
        int.from_bytes(size[:2], "big") * int.from_bytes(size[2:], "big") <= most for size in claims
    ):
        return
    header = read_header(data)  # thumbnails and chance made claims too
    if header.width * header.height > (most if header.huffman else max(most, MAX_ARITHMETIC_PIXELS)):
        raise JpegError(f"a JPEG file of {header.width} x {header.height} pixels in {len(data)} bytes: not possible")
    if len(header.scans) > MAX_SCANS:
        raise JpegError(f"a JPEG file of {len(header.scans)} scans; allowed: {MAX_SCANS}")


@functools.cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that encode and decode."""
    name = decoder()[0]
    package = {"turbojpeg": "PyTurboJPEG"}.get(name, name)
    return {
        "encoder": f"libjpeg-turbo {features.version('libjpeg_turbo')} (Pillow {__version__})",
        "decoder": f"{name} ({package} {metadata.version(package)})",
    }


# ---- reading a file's structure -------------------------------------------------------------------------------


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


def read_coefficients(data: bytes) -> Coefficients:
    """Quantized coefficients as stored in a YCbCr file, without the dummy blocks that fill up MCUs. JpegError else.

    Files that `decode` refuses are refused: jpeglib prints what is wrong with a file and answers with what it has.
    """
    import jpeglib

    header = read_header(data)
    if len(header.components) != 3:
        raise JpegError("coefficients are read from three-component (YCbCr) files only")
    decode(data)
    with tempfile.NamedTemporaryFile(suffix=".jpg", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as file:
        for segment in header.segments:
            if not (0xE0 <= segment.marker <= 0xEF or segment.marker == 0xFE):  # jpeglib fails on more than 50 of them
                file.write(data[segment.at : segment.at + segment.size + segment.entropy_bytes])
        file.flush()
        try:
            jpeg = jpeglib.read_dct(file.name)
            return jpeg.Y, jpeg.Cb, jpeg.Cr
        except OSError:
            raise JpegError("a JPEG file that jpeglib does not read") from None
