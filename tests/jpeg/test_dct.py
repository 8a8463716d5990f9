"""qtable.jpeg.dct against libjpeg-turbo: every quantized coefficient and every decoded pixel, without exception."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from qtable.jpeg import dct
from qtable.jpeg.codec import RGB, SUBSAMPLINGS, Codec, Subsampling
from qtable.jpeg.coefficients import read_coefficients
from qtable.jpeg.frame import Frame, Planes
from qtable.jpeg.tables import QTables

SIZES = [(1, 1), (1, 9), (2, 2), (3, 5), (17, 2), (4, 3), (6, 4), (5, 6), (8, 8), (16, 16), (15, 17), (33, 31), (9, 50)]
"""(height, width) of small photos: one to a few blocks, and one, two, three columns of chroma."""

TABLES = [
    *(QTables.standard(quality) for quality in (10, 50, 95)),
    QTables(np.random.default_rng(4).integers(1, 256, (3, 8, 8))),  # asymmetric
]


def as_batch(image: RGB) -> Tensor:
    """uint8 [h, w, 3] -> uint8 [1, 3, h, w]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def photos() -> list[RGB]:
    """Fifty photos: noise of every small size, and pieces of photographs, most with odd sides."""
    from skimage import data

    rng = np.random.default_rng(1)
    small = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    extremes = [rng.choice(np.array([0, 255], np.uint8), (40, 56, 3)), np.full((20, 24, 3), 255, np.uint8)]
    names = "astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field"
    whole: list[RGB] = [getattr(data, name)() for name in names]
    pieces = []
    for index in range(50 - len(small) - len(extremes)):
        image = whole[index % len(whole)]
        height, width = rng.integers(20, 200, 2)
        top, left = rng.integers(0, image.shape[0] - height), rng.integers(0, image.shape[1] - width)
        pieces.append(np.ascontiguousarray(image[top : top + height, left : left + width]))
    return [*small, *extremes, *pieces]


def assert_equal_to_libjpeg(images: Sequence[RGB], tables: QTables, subsampling: Subsampling) -> None:
    codec = Codec(subsampling, "standard")
    for image in images:
        data = codec.encode(image, tables)
        quantized = dct.quantize(dct.coefficients(as_batch(image), subsampling), tables)
        for ours, theirs in zip(quantized, read_coefficients(data), strict=True):
            np.testing.assert_array_equal(ours[0].numpy(), theirs, err_msg=f"coefficients, photo of {image.shape}")
        decoded = dct.decode(quantized, tables, image.shape[0], image.shape[1], subsampling)[0].permute(1, 2, 0)
        np.testing.assert_array_equal(decoded.numpy(), codec.decode(data), err_msg=f"pixels, photo of {image.shape}")


@pytest.mark.parametrize("tables", TABLES, ids=lambda tables: tables.name)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_coefficients_and_pixels_equal_libjpeg_turbos(
    photos: list[RGB], tables: QTables, subsampling: Subsampling
) -> None:
    assert_equal_to_libjpeg(photos, tables, subsampling)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_imagenet_photos_equal_libjpeg_turbos(shared: Path, subsampling: Subsampling) -> None:
    paths = sorted((shared / "data" / "imagenet").glob("*.webp"))[::10]
    assert len(paths) == 50
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    for index, tables in enumerate(TABLES):
        assert_equal_to_libjpeg(images[index::2], tables, subsampling)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_the_coarsest_and_finest_tables_equal_libjpeg_turbos(photos: list[RGB], subsampling: Subsampling) -> None:
    for step in (1, 2, 255):
        assert_equal_to_libjpeg(photos[::3], QTables.flat(step), subsampling)


def test_quantization_is_libjpegs_division_for_every_coefficient_and_step() -> None:
    """(|c| + 4q) // (8q) with c's sign, for every integer that an 8-bit DCT can give; jcdctmgr.c."""
    c = np.arange(-(2**14), 2**14)
    coefficients = torch.from_numpy(c / 8).float().view(1, -1, 1, 1, 1).expand(1, len(c), 1, 8, 8)
    for first in range(1, 256, 64):
        q = np.minimum(np.arange(first, first + 64), 255)
        ours = dct.quantize(Planes(coefficients, coefficients, coefficients), QTables(q.reshape(8, 8))).cb
        expected = np.sign(c)[:, None] * ((np.abs(c)[:, None] + 4 * q) // (8 * q))
        np.testing.assert_array_equal(ours.reshape(-1, 64).numpy(), expected)


def test_coefficients_are_orthonormal_to_within_libjpegs_rounding(photo: RGB) -> None:
    import scipy.fft

    luma = dct.coefficients(as_batch(photo), "4:4:4").y[0]
    weights = np.array([0.299, 0.587, 0.114])
    block = np.round(photo[8:16, 16:24] @ weights) - 128
    np.testing.assert_allclose(luma[1, 2].numpy(), scipy.fft.dctn(block, norm="ortho"), atol=0.4)


def round_trip(batch: Tensor, tables: QTables, subsampling: Subsampling = "4:2:0") -> list[Tensor]:
    quantized = dct.quantize(dct.coefficients(batch, subsampling), tables)
    height, width = batch.shape[-2:]
    return [x.cpu() for x in (*quantized, dct.decode(quantized, tables, height, width, subsampling))]


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_batches_threads_chunks_dtypes_and_precision_settings_change_nothing(
    asymmetric: QTables, subsampling: Subsampling
) -> None:
    batch = torch.randint(0, 256, (5, 3, 93, 131), generator=torch.Generator().manual_seed(3)).float()
    expected = round_trip(batch, asymmetric, subsampling)

    def assert_same(found: list[Tensor]) -> None:
        for x, y in zip(found, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=0)

    singles = [round_trip(photo[None], asymmetric, subsampling) for photo in batch]
    assert_same([torch.cat(parts) for parts in zip(*singles, strict=True)])
    assert_same(round_trip(batch.byte(), asymmetric, subsampling))
    assert_same(round_trip(batch.double(), asymmetric, subsampling))
    assert_same(round_trip(batch.to(memory_format=torch.channels_last), asymmetric, subsampling))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(round_trip(batch, asymmetric, subsampling))
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        assert_same(round_trip(batch, asymmetric, subsampling))
    for chunk in (1, 30_000):
        dct.CHUNK_PIXELS = chunk  # type: ignore[misc]
        assert_same(round_trip(batch, asymmetric, subsampling))
    torch.set_float32_matmul_precision("medium")
    assert_same(round_trip(batch, asymmetric, subsampling))


def test_exact_products_are_made_in_float64_where_float32_ones_need_not_be_exact() -> None:
    assert dct.exact_dtype(torch.zeros(1)) == torch.float32
    torch.set_float32_matmul_precision("high")
    assert dct.exact_dtype(torch.zeros(1)) == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_cuda_changes_nothing(asymmetric: QTables, subsampling: Subsampling) -> None:
    batch = torch.randint(0, 256, (5, 3, 93, 131), generator=torch.Generator().manual_seed(3)).float()
    for found, expected in zip(
        round_trip(batch.cuda(), asymmetric, subsampling), round_trip(batch, asymmetric, subsampling), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_frame_refuses_what_is_no_photo() -> None:
    with pytest.raises(ValueError, match=r"'4:1:1' is unknown; allowed: 4:4:4, 4:2:2, 4:2:0"):
        Frame(8, 8, "4:1:1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a photo of 0 x 8 pixels"):
        Frame(8, 0, "4:4:4")
