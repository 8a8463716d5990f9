"""`Codec`: RGB -> real JPEG bytes -> RGB through libjpeg-turbo, and what can be read back out of a file.

Every size and every accuracy of qtable comes from here. Pillow encodes (its wheel carries libjpeg-turbo);
PyTurboJPEG decodes where the system has libturbojpeg, simplejpeg where it has not. All routes give equal pixels.
"""

from __future__ import annotations

import functools
import os
import struct
import tempfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from typing import IO, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, __version__, features

from qtable.tables import QTables, as_flat_list

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
    """uint8 [h, w, 3] of a JPEG file. JpegError if it is not a whole JPEG file."""
    if len(data) < 4 or not data.startswith(b"\xff\xd8"):
        raise JpegError(f"not a JPEG file ({len(data)} bytes, no SOI marker)")
    if b"\xff\xd9" not in data[-64:]:
        raise JpegError(f"a truncated JPEG file ({len(data)} bytes, no EOI marker at its end)")
    try:
        return decoder()[1](data)
    except (OSError, ValueError, UserWarning) as error:
        raise JpegError(f"a JPEG file that does not decode: {error}") from None


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


@dataclass(frozen=True)
class Header:
    """A JPEG file's frame header and tables.

    slots: quantization tables by slot, int64 [8, 8], natural order, as defined when the first scan begins.
    header_bytes counts everything that is not entropy-coded data; scan_bytes the entropy-coded segments with stuffing.
    """

    width: int
    height: int
    progressive: bool
    huffman: bool
    components: tuple[Component, ...]
    slots: dict[int, npt.NDArray[np.int64]] = field(repr=False)
    header_bytes: int
    scan_bytes: int

    @property
    def tables(self) -> QTables:
        """The tables of the components. JpegError if an entry is above 255 or a table is missing."""
        used = [component.slot for component in self.components]
        if len(set(used)) == 1:
            used = used[:1]
        elif len(used) == 3 and used[1] == used[2]:
            used = used[:2]
        try:
            return QTables(np.stack([self.slots[slot] for slot in used]))
        except KeyError as error:
            raise JpegError(f"quantization table {error} is used but not defined") from None
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
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn without DHT, JPG, DAC


def read_header(data: bytes) -> Header:
    """Parse the marker segments of a JPEG file (ITU-T T.81, annex B). JpegError, with the place, if malformed."""
    if data[:2] != b"\xff\xd8":
        raise JpegError(f"not a JPEG file ({len(data)} bytes, no SOI marker)")
    slots: dict[int, npt.NDArray[np.int64]] = {}
    frame: tuple[int, bytes] | None = None
    first_slots: dict[int, npt.NDArray[np.int64]] = {}
    scan_bytes, at = 0, 2
    try:
        while True:
            if data[at] != 0xFF:
                raise JpegError(f"byte {at} is {data[at]:#04x} where a marker must be")
            while data[at] == 0xFF:
                at += 1
            marker, at = data[at], at + 1
            if marker == 0xD9:  # EOI
                break
            if marker in _STANDALONE:
                continue
            (length,) = struct.unpack_from(">H", data, at)
            body = data[at + 2 : at + length]
            if length < 2 or len(body) != length - 2:
                raise JpegError(f"segment {marker:#04x} at byte {at} has length {length}, past the end of the file")
            at += length
            if marker == 0xDB:
                slots |= _read_dqt(body)
            elif marker in _FRAMES:
                if frame is not None:
                    raise JpegError(f"a second frame at byte {at}")
                frame = marker, body
            elif marker == 0xDA:
                if frame is None:
                    raise JpegError(f"a scan at byte {at} before the frame header")
                first_slots = first_slots or dict(slots)
                end = _end_of_scan(data, at)
                scan_bytes += end - at
                at = end
    except (IndexError, struct.error):
        raise JpegError(f"a truncated JPEG file ({len(data)} bytes)") from None
    if frame is None or not first_slots:
        raise JpegError("a JPEG file without a frame, a scan or quantization tables")
    marker, body = frame
    try:
        precision, height, width, count = struct.unpack_from(">BHHB", body)
        components = tuple(
            Component(body[i], body[i + 1] >> 4, body[i + 1] & 15, body[i + 2]) for i in range(6, 6 + 3 * count, 3)
        )
    except (IndexError, struct.error):
        raise JpegError("a malformed frame header") from None
    if precision != 8 or not components or not height or not width:
        raise JpegError(
            f"a frame of {width} x {height}, {count} components, {precision} bits; allowed: 8 bits, not empty"
        )
    return Header(
        width=width,
        height=height,
        progressive=marker in (0xC2, 0xC6, 0xCA, 0xCE),
        huffman=marker < 0xC8,
        components=components,
        slots=first_slots,
        header_bytes=len(data) - scan_bytes,
        scan_bytes=scan_bytes,
    )


def _read_dqt(body: bytes) -> dict[int, npt.NDArray[np.int64]]:
    from qtable.tables import ZIGZAG

    slots = {}
    at = 0
    while at < len(body):
        size, slot = 1 + (body[at] >> 4), body[at] & 15
        entries = body[at + 1 : at + 1 + 64 * size]
        if size > 2 or slot > 3 or len(entries) != 64 * size:
            raise JpegError("a malformed quantization table segment")
        natural = np.empty(64, np.int64)
        natural[ZIGZAG] = np.frombuffer(entries, ">u2" if size == 2 else "u1")
        slots[slot] = natural.reshape(8, 8)
        at += 1 + 64 * size
    return slots


def _end_of_scan(data: bytes, at: int) -> int:
    """Where the entropy-coded data that begins at `at` ends: the next marker that is neither stuffing nor RSTn."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            raise JpegError(f"a truncated JPEG file ({len(data)} bytes, a scan without end)")
        following = data[at + 1]
        if following == 0xFF:
            at += 1
        elif following == 0 or following in _STANDALONE:
            at += 2
        else:
            return at


def read_coefficients(data: bytes) -> Coefficients:
    """Quantized coefficients as stored in a YCbCr file, without the dummy blocks that fill up MCUs. JpegError else."""
    import jpeglib

    if len(read_header(data).components) != 3:
        raise JpegError("coefficients are read from three-component (YCbCr) files only")
    with tempfile.NamedTemporaryFile(suffix=".jpg", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as file:
        file.write(data)
        file.flush()
        try:
            jpeg = jpeglib.read_dct(file.name)
        except OSError as error:
            raise JpegError(f"a JPEG file that does not decode: {error}") from None
        return jpeg.Y, jpeg.Cb, jpeg.Cr
