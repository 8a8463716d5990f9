"""`Codec`: RGB -> real JPEG bytes -> RGB through libjpeg-turbo, and what can be read back out of a file.

Every size and every accuracy of qtable comes from here. Pillow encodes (its wheel carries libjpeg-turbo);
PyTurboJPEG decodes where the system has libturbojpeg, simplejpeg where it has not; Pillow where the sampling factors
are some that neither has a name for. All routes give equal pixels, and damage is an error on each.
"""

from __future__ import annotations

import functools
import io
import os
import re
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import IO, Final, NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, __version__, features

from qtable.jpeg.header import Header, read_header
from qtable.jpeg.markers import JpegError
from qtable.jpeg.modes import ENTROPIES as ENTROPIES
from qtable.jpeg.modes import SUBSAMPLINGS as SUBSAMPLINGS
from qtable.jpeg.modes import Entropy as Entropy
from qtable.jpeg.modes import Subsampling as Subsampling
from qtable.jpeg.tables import QTables, as_flat_list

RGB = npt.NDArray[np.uint8]
"""uint8 [h, w, 3], 0..255."""
MAX_SIDE: Final = 65500
"""libjpeg's JPEG_MAX_DIMENSION."""
MAX_PIXELS_PER_BYTE: Final = 1024
"""A Huffman-coded file holds no more: each block takes a bit, and no sampling gives fewer than one in 128 pixels."""
MAX_ARITHMETIC_PIXELS: Final = 1 << 24
"""Arithmetic coding knows no such bound: beyond this many pixels it must keep the one above."""
MAX_SCANS: Final = 500
"""As libjpeg-turbo's TJFLAG_LIMITSCANS has it: each scan, however short, costs a pass over all coefficients."""


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
            raise ValueError(f"subsampling {self.subsampling!r:.40} is unknown; allowed: {', '.join(SUBSAMPLINGS)}")
        if self.entropy not in ENTROPIES:
            raise ValueError(f"entropy coding {self.entropy!r:.40} is unknown; allowed: {', '.join(ENTROPIES)}")

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


def _turbojpeg_decoder() -> Callable[[bytes], RGB]:
    """PyTurboJPEG on the system's libturbojpeg; OSError or RuntimeError where there is none that fits."""
    import turbojpeg

    jpeg = turbojpeg.TurboJPEG()
    describe = jpeg._TurboJPEG__get_error_string

    def refuse(handle: int) -> NoReturn:
        raise OSError(describe(handle))

    # It reports damage as Python's warnings, which pass unseen under some filters; for qtable it is an error.
    if not callable(jpeg._TurboJPEG__report_error):
        raise RuntimeError("PyTurboJPEG reports errors in a way of its own")
    jpeg._TurboJPEG__report_error = refuse
    return lambda data: jpeg.decode(data, pixel_format=turbojpeg.TJPF_RGB)


def _simplejpeg_decoder() -> Callable[[bytes], RGB]:
    import simplejpeg

    return lambda data: simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)


def _pillow_decoder() -> Callable[[bytes], RGB]:
    """libjpeg-turbo as Pillow carries it, which passes none of its warnings on."""
    from qtable.jpeg.damage import check_entropy

    def decode(data: bytes) -> RGB:
        header = read_header(data)
        check_entropy(data, header)
        with Image.open(io.BytesIO(_without_metadata(data, header)), formats=("JPEG",)) as image:
            return np.array(image.convert("RGB"))

    return decode


def _without_metadata(data: bytes, header: Header) -> bytes:
    """The file without what Pillow reads, and may warn of, beside the pixels: its APPn but JFIF's and Adobe's."""
    kept, at = [], 0
    for segment in header.segments:
        if 0xE1 <= segment.marker <= 0xEF and segment.marker != 0xEE:
            kept.append(data[at : segment.at])
            at = segment.at + segment.size
    return b"".join([*kept, data[at:]])


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
    """uint8 [h, w, 3] of a JPEG file. JpegError if it is not a whole one, or asks for more work than its bytes hold.

    Any sampling factors: with those that TurboJPEG has no name for, Huffman-coded files of 8 bits.
    """
    if len(data) < 4 or not data.startswith(b"\xff\xd8"):
        raise JpegError(f"not a JPEG file ({len(data)} bytes, no SOI marker)")
    if b"\xff\xd9" not in data[-64:]:
        raise JpegError(f"a truncated JPEG file ({len(data)} bytes, no EOI marker at its end)")
    check_work(data)
    try:
        return decoder()[1](data)
    except (OSError, ValueError) as error:
        if read_header(data).subsampling in _NAMED:
            raise JpegError(f"a JPEG file that does not decode: {error}") from None
    try:
        return decoder("pillow")[1](data)
    except (OSError, ValueError, SyntaxError) as error:
        raise JpegError(f"a JPEG file that does not decode: {error}") from None


_NAMED: Final = frozenset([*SUBSAMPLINGS, "grey"])
"""Samplings that each version of TurboJPEG decodes; of others some know more than others."""


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
