"""Quantized DCT coefficients out of files and into files: baseline JFIF, byte for byte what libjpeg-turbo writes.

Without a decoder and an encoder between: what `read_coefficients` has read `write_coefficients` writes unchanged.
"""

from __future__ import annotations

import functools
import os
import struct
import tempfile
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from qtable.jpeg.codec import MAX_SIDE, SUBSAMPLINGS, Entropy, Subsampling, decode
from qtable.jpeg.header import read_header
from qtable.jpeg.huffman import STANDARD_HUFFMAN
from qtable.jpeg.kernels import huffman, scan
from qtable.jpeg.markers import JpegError
from qtable.jpeg.tables import QTables

Coefficients = tuple[npt.NDArray[np.int16], npt.NDArray[np.int16], npt.NDArray[np.int16]]
"""Quantized DCT coefficients of Y, Cb, Cr: int16 [block rows, block columns, 8, 8], natural order."""
_FACTORS: Final[dict[Subsampling, tuple[int, int]]] = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}
"""Rows and columns of luma blocks in an MCU; chroma has one block of each component."""
MAX_AC: Final = 1023
MAX_DC_DIFFERENCE: Final = 2047
"""Largest magnitudes that baseline JPEG codes (jchuff.c, MAX_COEF_BITS)."""
_TABLE_CLASSES: Final = (0x00, 0x10, 0x01, 0x11)
"""Class and slot of the Huffman tables: DC luma, AC luma, DC chroma, AC chroma."""
_FIXED_BYTES: Final = 2 + 18 + 19 + 14 + 2 + 4 * (2 + 2 + 1 + 16)
"""SOI, APP0 (JFIF), SOF0, SOS, EOI; and of each DHT its marker, length, class and counts."""
_DQT_BYTES: Final = 69

# ITU-T T.81, tables K.3, K.5, K.4, K.6: how many symbols the standard tables have.
_STANDARD_SYMBOLS: Final = 12 + 162 + 12 + 162


# ---- the shape of a photo -------------------------------------------------------------------------------------


def block_counts(height: int, width: int, subsampling: Subsampling) -> tuple[tuple[int, int], tuple[int, int]]:
    """(rows, columns) of blocks of Y, and of Cb and of Cr: libjpeg's height_in_blocks and width_in_blocks.

    height, width: pixels, 1..65500. JpegError for others, ValueError for an unknown sampling.
    """
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise JpegError(f"a photo of {width} x {height} pixels; JPEG allows 1..{MAX_SIDE} a side")
    vertical, horizontal = _factors(subsampling)
    chroma = -(-height // (8 * vertical)), -(-width // (8 * horizontal))
    return (-(-height // 8), -(-width // 8)), chroma


def _factors(subsampling: Subsampling) -> tuple[int, int]:
    if subsampling not in SUBSAMPLINGS:
        raise ValueError(f"subsampling {subsampling!r} is unknown; allowed: {', '.join(SUBSAMPLINGS)}")
    return _FACTORS[subsampling]


@functools.lru_cache(maxsize=64)
def luma_order(y: tuple[int, int], chroma: tuple[int, int], subsampling: Subsampling) -> npt.NDArray[np.int32]:
    """Which block of Y comes when in the interleaved scan, int32 [MCUs * blocks of Y in an MCU]; -1: a dummy block.

    y, chroma: rows and columns of blocks. ValueError if no photo has these.
    """
    high, wide = _factors(subsampling)
    (y_rows, y_columns), (rows, columns) = y, chroma
    if not (0 <= rows * high - y_rows < high and 0 <= columns * wide - y_columns < wide and rows and columns):
        raise ValueError(
            f"{y_rows} x {y_columns} luma and {rows} x {columns} chroma blocks are not a photo in {subsampling}"
        )
    grid = np.full((rows * high, columns * wide), -1, np.int32)
    grid[:y_rows, :y_columns] = np.arange(y_rows * y_columns).reshape(y)
    order = grid.reshape(rows, high, columns, wide).transpose(0, 2, 1, 3).reshape(-1)
    order.setflags(write=False)
    return order


def order_of(planes: Sequence[npt.NDArray[np.generic]], subsampling: Subsampling) -> npt.NDArray[np.int32]:
    """`luma_order` of three planes [block rows, block columns, 8, 8]. ValueError if they do not belong together."""
    shapes = [plane.shape for plane in planes]
    if len(shapes) != 3 or any(len(shape) != 4 or shape[2:] != (8, 8) for shape in shapes):
        raise ValueError(f"planes are three of [block rows, block columns, 8, 8]; got {[list(s) for s in shapes]}")
    y, cb, cr = (shape[:2] for shape in shapes)
    if cb != cr:
        raise ValueError(f"Cb has {cb[0]} x {cb[1]} blocks and Cr {cr[0]} x {cr[1]}")
    return luma_order((y[0], y[1]), (cb[0], cb[1]), subsampling)


# ---- symbols --------------------------------------------------------------------------------------------------


class _Scan:
    """What the levels of a photo become in a file: `scan.symbols`, codes [1024] by key, symbols in all DHTs."""

    def __init__(self, levels: Coefficients, subsampling: Subsampling, entropy: Entropy) -> None:
        self.entries, self.bounds, self.counts = _symbols(levels, subsampling)
        if entropy == "standard":
            self.codes, self.listed = _standard_codes(), _STANDARD_SYMBOLS
        elif entropy == "optimized":
            self.codes, self.listed = huffman.photo_tables(self.counts)
        else:
            raise ValueError(f"entropy coding {entropy!r} is not known here; allowed: standard, optimized")
        if self.listed < 0:
            raise JpegError("a Huffman code of more than 32 bits; libjpeg allows 32 before it shortens them to 16")


def _symbols(
    levels: Coefficients, subsampling: Subsampling
) -> tuple[scan.Entries, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Entries, bounds and counts of `scan.symbols`; errors as `exact_size` has them."""
    order = order_of(levels, subsampling)
    if any(plane.dtype != np.int16 for plane in levels):
        raise ValueError(f"levels are int16; got {', '.join(str(plane.dtype) for plane in levels)}")
    y, cb, cr = (np.ascontiguousarray(plane).reshape(-1) for plane in levels)
    entries, bounds, counts, differences, seen = scan.symbols(y, cb, cr, order)
    if differences > MAX_DC_DIFFERENCE or seen > MAX_AC:
        largest = max(int(np.abs(plane.reshape(-1, 64)[:, 1:].astype(int)).max()) for plane in levels)
        what = f"an AC level of {largest}" if seen > MAX_AC else f"a DC difference above {MAX_DC_DIFFERENCE}"
        raise JpegError(f"{what}; JPEG codes AC up to {MAX_AC} and DC differences up to {MAX_DC_DIFFERENCE}")
    return entries, bounds, counts


def symbol_counts(levels: Coefficients, subsampling: Subsampling) -> npt.NDArray[np.int64]:
    """int64 [4, 256]: how often a photo's baseline scan has each symbol. Tables: DC, AC luma, then DC, AC chroma.

    levels: as `exact_size` takes them, with its errors.
    """
    return _symbols(levels, subsampling)[2].reshape(4, 256)


@functools.cache
def _standard_codes() -> npt.NDArray[np.int32]:
    """int32 [1024]: code << 5 | length of each symbol of Annex K's tables."""
    tables = [huffman.codes(np.array(t.counts), np.array(t.symbols, np.uint8)) for t in STANDARD_HUFFMAN]
    return np.concatenate(tables)


# ---- sizes and files ------------------------------------------------------------------------------------------


def exact_size(
    levels: Coefficients, tables_count: int, subsampling: Subsampling, entropy: Entropy = "optimized"
) -> int:
    """Bytes of the file that libjpeg-turbo makes of these levels, without writing it.

    levels: of Y, Cb, Cr, int16 [block rows, block columns, 8, 8], natural order, without dummy blocks. tables_count:
    1..3, `QTables.count`. entropy: "standard" or "optimized". ValueError for planes that do not belong together;
    JpegError for levels that JPEG cannot code: AC beyond 1023, DC differences beyond 2047.
    """
    if tables_count not in (1, 2, 3):
        raise ValueError(f"{tables_count} quantization tables; allowed: 1, 2, 3")
    coded = _Scan(levels, subsampling, entropy)
    words, size = scan.pack(coded.entries, coded.bounds, coded.codes)
    return int(size + scan.stuffing(words)) + _FIXED_BYTES + _DQT_BYTES * tables_count + int(coded.listed)


def write_coefficients(
    levels: Coefficients, tables: QTables, height: int, width: int, subsampling: Subsampling
) -> bytes:
    """A baseline JFIF file with these levels and Huffman tables of its own: `read_coefficients` inverted.

    Equal in every byte to what `Codec(subsampling, "optimized")` writes if these are the levels it comes to.
    height, width: pixels, with which the blocks must agree (ValueError). Else as `exact_size`.
    """
    y, chroma = block_counts(height, width, subsampling)
    if [plane.shape[:2] for plane in levels] != [y, chroma, chroma]:
        got = ", ".join(" x ".join(map(str, plane.shape[:2])) for plane in levels)
        raise ValueError(
            f"a photo of {width} x {height} pixels in {subsampling} has {y[0]} x {y[1]} luma and"
            f" {chroma[0]} x {chroma[1]} chroma blocks; got {got}"
        )
    coded = _Scan(levels, subsampling, "optimized")
    words, size = scan.pack(coded.entries, coded.bounds, coded.codes)
    stream = words.astype(">u8").tobytes()[:size].replace(b"\xff", b"\xff\x00")
    tables_of_photo = [huffman.optimal(counts) for counts in coded.counts.reshape(4, 256)]
    return b"".join([*_header(tables, height, width, subsampling, tables_of_photo), stream, b"\xff\xd9"])


def _header(
    tables: QTables,
    height: int,
    width: int,
    subsampling: Subsampling,
    huffman_tables: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]],
) -> list[bytes]:
    """Everything before the scan, in libjpeg's order; jcmarker.c `write_file_header`, ..., `write_scan_header`."""
    vertical, horizontal = _factors(subsampling)
    slots = [0, min(1, tables.count - 1), tables.count - 1]
    sampling = [horizontal << 4 | vertical, 0x11, 0x11]
    frame = [bytes([c + 1, sampling[c], slots[c]]) for c in range(3)]
    return [
        b"\xff\xd8",
        _segment(0xE0, b"JFIF\0" + struct.pack(">HBHHBB", 0x0101, 0, 1, 1, 0, 0)),
        *(_segment(0xDB, bytes([slot]) + table.tobytes()) for slot, table in enumerate(tables.zigzag())),
        _segment(0xC0, struct.pack(">BHHB", 8, height, width, 3) + b"".join(frame)),
        *(
            _segment(0xC4, bytes([kind, *counts.tolist()]) + symbols.tobytes())
            for kind, (counts, symbols) in zip(_TABLE_CLASSES, huffman_tables, strict=True)
        ),
        _segment(0xDA, bytes([3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0])),
    ]


def _segment(marker: int, body: bytes) -> bytes:
    """A marker with its parameters (T.81, B.1.1.4)."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


# ---- out of files ---------------------------------------------------------------------------------------------


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
