"""PNG files of which Pillow tells less than there is."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from qtable.codecs.plain import TableCoder
from qtable.compress.photo import Recipe
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.photos import png
from qtable.photos.opening import read_photo
from qtable.photos.samples import PhotoError

PIXELS = np.random.default_rng(0).integers(1, 256, (21, 27, 3), dtype=np.uint8)
PHOTO = b"".join(b"\0" + row.tobytes() for row in PIXELS)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def file_of(rows: bytes, bits: int = 8, colour: int = 2, before: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG file of 27 x 21 pixels; rows: with their filter bytes, as they stand there. before: other chunks."""
    header = struct.pack(">IIBBBBB", 27, 21, bits, colour, 0, 0, interlaced)
    body = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def interlaced(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Its rows in the seven passes of Adam7."""
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    passes = [pixels[row::down, column::across] for row, column, down, across in starts]
    return b"".join(b"\0" + row.tobytes() for each in passes for row in each)


def note(data: bytes) -> str | None:
    """The manifest's."""
    return Recipe(TableCoder(QTables.standard(), Codec()))(data)[2]


@pytest.mark.parametrize("rows", [1, 2, 20])
def test_pixels_that_end_before_the_last_row_are_refused(rows: int) -> None:
    data = file_of(PHOTO[: rows * (1 + 27 * 3)])
    with Image.open(io.BytesIO(data)) as image:
        assert not np.array(image)[rows:].any()  # no error, and black
    with pytest.raises(PhotoError, match="unreadable: the pixels of the PNG file end before its last row"):
        read_photo(data)


@pytest.mark.parametrize("missing", [1, 1 + 27 * 3, 2 * (1 + 27 * 3), 1000])
def test_pixels_that_end_early_are_refused_in_interlaced_files_too(missing: int) -> None:
    rows = interlaced(PIXELS)
    assert np.array_equal(read_photo(file_of(rows, interlaced=True)).pixels, PIXELS)
    for cut, whole in ((rows[:-missing], True), (PHOTO[:-missing], False)):
        with pytest.raises(PhotoError, match="unreadable: "):
            read_photo(file_of(cut, interlaced=whole))


def test_black_rows_and_data_behind_the_last_row_are_no_damage() -> None:
    black = b"".join(b"\0" + bytes(27 * 3) for _ in range(21))
    assert not read_photo(file_of(black)).pixels.any()
    assert np.array_equal(read_photo(file_of(PHOTO + bytes(99))).pixels, PIXELS)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8), (13, 2)])
def test_the_size_of_a_whole_picture_is_known(mode: str, size: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    data = file.getvalue()
    at = data.index(b"IDAT")
    body = data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at])]
    assert png.header_of(data).size == len(zlib.decompress(body))


@pytest.mark.parametrize(
    ("bits", "packed", "value", "seen"),
    [(1, 0xFF, 1, 255), (2, 0x55, 1, 85), (4, 0x11, 1, 17), (8, 0x01, 1, 1), (16, 0xFF, 65535, 255)],
)
def test_a_transparent_grey_is_seen_whatever_the_bits(bits: int, packed: int, value: int, seen: int) -> None:
    rows = (b"\0" + bytes([packed]) * -(-27 * bits // 8)) * 21
    assert (read_photo(file_of(rows, bits, 0)).pixels == seen).all()
    with pytest.raises(PhotoError, match="transparency"):
        read_photo(file_of(rows, bits, 0, chunk(b"tRNS", struct.pack(">H", value))))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_is_seen_where_it_is_used(bits: int) -> None:
    rows = PHOTO if bits == 8 else b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in PIXELS)
    scale = 1 if bits == 8 else 257
    one = chunk(b"tRNS", struct.pack(">HHH", *(int(value) * scale for value in PIXELS[3, 4])))
    none = chunk(b"tRNS", struct.pack(">HHH", 0, 0, 0))
    assert np.array_equal(read_photo(file_of(rows, bits, before=none)).pixels, PIXELS)
    with pytest.raises(PhotoError, match="transparency"):
        read_photo(file_of(rows, bits, before=one))


SRGB = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
WIDE = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([(b"gAMA", struct.pack(">I", 100000))], "without its gamma 1 (gAMA)"),
        ([(b"cHRM", WIDE)], "without its primary colours (cHRM)"),
        ([(b"cICP", bytes([9, 16, 0, 1]))], "without its colour space (cICP)"),
        ([(b"gAMA", struct.pack(">I", 45455)), (b"cHRM", SRGB)], None),
        ([(b"gAMA", struct.pack(">I", 100000)), (b"sRGB", b"\0")], None),
    ],
)
def test_a_colour_space_that_a_jpeg_does_not_name_is_said_to_be_lost(
    chunks: list[tuple[bytes, bytes]], expected: str | None
) -> None:
    data = file_of(PHOTO, before=b"".join(chunk(*each) for each in chunks))
    assert np.array_equal(read_photo(data).pixels, PIXELS)
    assert note(data) == expected


def test_what_stands_behind_the_end_is_said_to_be_lost() -> None:
    data = file_of(PHOTO)
    assert note(data + data) == f"without its {len(data):,} bytes behind the picture's end"
    assert note(data[:-12]) is None  # without its end mark


def oriented(value: int) -> bytes:
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x112, 3, 1, value, 0) + bytes(4)


def raw_profile(name: str, body: bytes) -> bytes:
    """As ImageMagick writes it."""
    text = f"\n{name}\n{len(body):8}\n" + "\n".join(body.hex()[i : i + 72] for i in range(0, 2 * len(body), 72)) + "\n"
    return chunk(b"zTXt", f"Raw profile type {name}".encode() + b"\0\0" + zlib.compress(text.encode()))


@pytest.mark.parametrize("value", [3, 6, 8])
@pytest.mark.parametrize("name", ["exif", "APP1", "eXIf"])
def test_exif_is_found_wherever_it_stands(name: str, value: int) -> None:
    body = oriented(value)
    photo = read_photo(file_of(PHOTO, before=chunk(b"eXIf", body[6:]) if name == "eXIf" else raw_profile(name, body)))
    assert (photo.orientation, photo.metadata.exif) == (value, body[6:])
    bare = file_of(PHOTO, before=raw_profile("exif", body[6:]))
    assert read_photo(bare).orientation == value


@pytest.mark.parametrize("text", [b"", b"\nexif\n 3\nxyz\n", b"\nAPP1\n 4\n00112233\n"])
def test_raw_profiles_that_are_no_exif_are_none(text: bytes) -> None:
    data = file_of(PHOTO, before=chunk(b"tEXt", b"Raw profile type APP1\0" + text))
    assert read_photo(data).metadata.exif == b""
