"""Files of coefficients against libjpeg-turbo's own files, to the byte."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qtable.jpeg.codec import SUBSAMPLINGS, Codec, Entropy, Subsampling, decode
from qtable.jpeg.coefficients import (
    Coefficients,
    block_counts,
    exact_size,
    luma_order,
    read_coefficients,
    write_coefficients,
)
from qtable.jpeg.markers import JpegError
from qtable.jpeg.tables import QTables
from tests.jpeg.photos import SIZES, noise, photo, random_levels, tables_of_every_kind

every_subsampling = pytest.mark.parametrize("subsampling", SUBSAMPLINGS)


def equal(these: Coefficients, those: Coefficients) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(these, those, strict=True))


@every_subsampling
def test_files_and_sizes_are_libjpeg_turbos(subsampling: Subsampling) -> None:
    stuffed = 0
    for (height, width), tables, piece in itertools.product(SIZES, tables_of_every_kind(), (photo, noise)):
        image = piece(height, width)
        expected = Codec(subsampling, "optimized").encode(image, tables)
        levels = read_coefficients(expected)
        assert write_coefficients(levels, tables, height, width, subsampling) == expected
        assert exact_size(levels, tables.count, subsampling) == len(expected)
        standard = Codec(subsampling, "standard").encode(image, tables)
        assert exact_size(levels, tables.count, subsampling, "standard") == len(standard)
        stuffed += expected.count(b"\xff\x00")
    assert stuffed > 100


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from(SUBSAMPLINGS),
    st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
)
def test_any_levels_are_read_back(seed: int, height: int, width: int, subsampling: Subsampling, density: float) -> None:
    rng = np.random.default_rng(seed)
    levels = random_levels(rng, height, width, subsampling, density)
    tables = QTables(rng.integers(1, 256, (rng.integers(1, 4), 8, 8)))
    data = write_coefficients(levels, tables, height, width, subsampling)
    assert len(data) == exact_size(levels, tables.count, subsampling)
    assert equal(read_coefficients(data), levels)
    assert decode(data).shape == (height, width, 3)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (width, height)
        image.load()


@every_subsampling
def test_levels_may_be_views(subsampling: Subsampling) -> None:
    tables = QTables.standard(50)
    levels = read_coefficients(Codec(subsampling).encode(photo(50, 70), tables))
    y, cb, cr = (np.asfortranarray(plane) for plane in levels)
    assert write_coefficients((y, cb, cr), tables, 50, 70, subsampling) == write_coefficients(
        levels, tables, 50, 70, subsampling
    )


def test_luma_comes_in_the_order_of_mcus_with_dummies() -> None:
    assert luma_order((3, 3), (2, 2), "4:2:0").tolist() == [0, 1, 3, 4, 2, -1, 5, -1, 6, 7, -1, -1, 8, -1, -1, -1]
    assert luma_order((2, 3), (2, 2), "4:2:2").tolist() == [0, 1, 2, -1, 3, 4, 5, -1]
    assert luma_order((2, 3), (2, 3), "4:4:4").tolist() == [0, 1, 2, 3, 4, 5]


def single(y: list[int], blocks: int = 1) -> Coefficients:
    """Levels of 8 x 8 blocks side by side, 4:4:4; y[i] is at place i of every block of Y, chroma is 0."""
    plane = np.zeros((1, blocks, 64), np.int16)
    plane[..., : len(y)] = y
    zero = np.zeros((1, blocks, 8, 8), np.int16)
    return plane.reshape(1, blocks, 8, 8), zero, zero


def test_the_largest_levels_are_coded_and_larger_ones_refused() -> None:
    tables = QTables.flat(1)
    levels = single([2047, -1023, 1023])
    assert equal(read_coefficients(write_coefficients(levels, tables, 8, 8, "4:4:4")), levels)
    for bad in ([0, 1024], [0, -1024], [0, 0, -32768], [2048], [-32768], [32767]):
        for make in (
            lambda levels: write_coefficients(levels, tables, 8, 8, "4:4:4"),
            lambda levels: exact_size(levels, 1, "4:4:4"),
        ):
            with pytest.raises(JpegError, match="JPEG codes AC up to 1023 and DC differences up to 2047"):
                make(single(bad))
    jump = single([1024], 2)
    jump[0][0, 1, 0, 0] = -1024
    with pytest.raises(JpegError, match="DC difference above 2047"):
        exact_size(jump, 1, "4:4:4")


def test_planes_that_are_no_photo_are_refused() -> None:
    tables, levels = QTables.standard(50), read_coefficients(Codec("4:2:0").encode(photo(33, 17), QTables.standard(50)))
    y, cb, cr = levels
    with pytest.raises(ValueError, match=r"17 x 50 pixels in 4:2:0 has 7 x 3 luma and 4 x 2 chroma"):
        write_coefficients(levels, tables, 50, 17, "4:2:0")
    with pytest.raises(ValueError, match="in 4:4:4 has 5 x 3 luma and 5 x 3 chroma"):
        write_coefficients(levels, tables, 33, 17, "4:4:4")
    with pytest.raises(ValueError, match="5 x 3 luma and 3 x 2 chroma blocks are not a photo in 4:2:2"):
        exact_size(levels, 2, "4:2:2")
    with pytest.raises(ValueError, match="Cb has 3 x 2 blocks and Cr 2 x 2"):
        exact_size((y, cb, cr[:2]), 2, "4:2:0")
    with pytest.raises(ValueError, match="levels are int16; got int64, int16, int16"):
        exact_size((y.astype(np.int64), cb, cr), 2, "4:2:0")
    with pytest.raises(ValueError, match=r"got \[\[5, 3, 64\]"):
        exact_size((y.reshape(5, 3, 64), cb, cr), 2, "4:2:0")
    with pytest.raises(ValueError, match="are not a photo"):
        exact_size((y[:0], cb[:0], cr[:0]), 2, "4:2:0")
    with pytest.raises(JpegError, match=r"1\.\.65500 a side"):
        block_counts(0, 8, "4:2:0")


def test_what_is_not_baseline_is_refused() -> None:
    levels = single([1])
    with pytest.raises(ValueError, match="allowed: standard, optimized"):
        exact_size(levels, 1, "4:4:4", "progressive")
    with pytest.raises(ValueError, match="allowed: standard, optimized"):
        exact_size(levels, 1, "4:4:4", "other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="4 quantization tables"):
        exact_size(levels, 4, "4:4:4")
    with pytest.raises(ValueError, match="'4:1:1' is unknown"):
        exact_size(levels, 1, "4:1:1")  # type: ignore[arg-type]


@pytest.mark.parametrize("entropy", ["standard", "optimized"])
def test_an_empty_photo(entropy: Entropy) -> None:
    grey = np.full((16, 16, 3), 128, np.uint8)
    data = Codec("4:2:0", entropy).encode(grey, QTables.flat(9))
    assert exact_size(read_coefficients(data), 1, "4:2:0", entropy) == len(data)
