"""ICC profiles in the chunks of strangers."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from qtable.codecs.plain import TableCoder
from qtable.compress.photo import Recipe
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.photos.opening import read_photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
HALF = len(SRGB) // 2
PARTS = SRGB[:HALF], SRGB[HALF:]


def with_chunks(before: list[tuple[int, int, bytes]], after: list[tuple[int, int, bytes]] | None = None) -> bytes:
    """A JPEG with these (number, count, body) in APP2 segments before and behind its frame header."""

    def segments(chunks: list[tuple[int, int, bytes]]) -> bytes:
        bodies = [b"ICC_PROFILE\0" + bytes([number, count]) + body for number, count, body in chunks]
        return b"".join(struct.pack(">BBH", 0xFF, 0xE2, 2 + len(body)) + body for body in bodies)

    jpeg = Codec().encode(np.zeros((8, 8, 3), np.uint8), QTables.standard())
    frame = jpeg.index(b"\xff\xc0")
    behind = frame + 2 + int.from_bytes(jpeg[frame + 2 : frame + 4], "big")
    return jpeg[:frame] + segments(before) + jpeg[frame:behind] + segments(after or []) + jpeg[behind:]


def compressed(data: bytes) -> tuple[bytes, str | None]:
    """The profile that a new file has, and the manifest's note."""
    made, _, note = Recipe(TableCoder(QTables.standard(), Codec()))(data)
    with Image.open(io.BytesIO(made)) as image:
        return image.info.get("icc_profile") or b"", note


@pytest.mark.parametrize(
    "data",
    [
        with_chunks([(1, 1, SRGB)]),
        with_chunks([(1, 2, PARTS[0]), (2, 2, PARTS[1])]),
        with_chunks([(2, 2, PARTS[1]), (1, 2, PARTS[0])]),
        with_chunks([(0, 2, PARTS[0]), (1, 2, PARTS[1])]),
        with_chunks([(1, 1, SRGB), (1, 1, SRGB)]),
        with_chunks([(1, 1, SRGB)], [(1, 1, SRGB)]),
        with_chunks([], [(1, 1, SRGB)]),
        with_chunks([(1, 0, SRGB)]),
        with_chunks([(1, 7, PARTS[0]), (3, 7, PARTS[1])]),
        with_chunks([(0, 1, SRGB)]),
    ],
    ids=["plain", "parts", "swapped", "from-0", "twice", "behind-too", "behind", "count-0", "wrong-count", "number-0"],
)
def test_a_profile_is_kept_where_it_is_whole_whatever_its_numbers(data: bytes) -> None:
    assert compressed(data) == (SRGB, None)
    with Image.open(io.BytesIO(data)) as image:
        assert image.info.get("icc_profile") in (None, SRGB)  # where Pillow reads one, it is this


@pytest.mark.parametrize(
    "chunks", [[(1, 2, PARTS[0])], [(2, 2, PARTS[1])], [(1, 0, PARTS[0])], [(1, 1, SRGB), (1, 1, SRGB[::-1])]]
)
def test_a_profile_that_is_not_whole_is_left_out_and_the_manifest_says_so(chunks: list[tuple[int, int, bytes]]) -> None:
    profile, note = compressed(with_chunks(chunks))
    assert profile == b""
    assert note is not None
    assert note.startswith("without its ICC profile: it is not whole (chunks numbered [")
    stripped = Recipe(TableCoder(QTables.standard(), Codec()), metadata="strip")(with_chunks(chunks))
    assert stripped[2] is None


def test_a_segment_of_a_name_alone_is_no_profile() -> None:
    empty = struct.pack(">BBH", 0xFF, 0xE2, 14) + b"ICC_PROFILE\0"
    jpeg = with_chunks([])
    photo = read_photo(jpeg[:2] + empty + jpeg[2:])
    assert photo.metadata.icc == b""
    assert photo.lost == "without its ICC profile: it is not whole (chunks numbered [], of nothing)"
