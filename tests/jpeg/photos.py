"""Photos, tables and levels for the tests of `qtable.jpeg`."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from qtable.jpeg import dct
from qtable.jpeg.codec import RGB, Subsampling
from qtable.jpeg.coefficients import Coefficients, block_counts, exact_size, write_coefficients
from qtable.jpeg.tables import QTables
from qtable.jpeg.trellis import Planes, trellis

SIZES: Final = ((120, 168), (97, 131), (17, 33), (24, 8), (9, 1), (1, 17), (1, 1))
"""Heights and widths: whole MCUs, and dummy blocks at the right, at the bottom, and at both."""


def photo(height: int, width: int) -> RGB:
    """A piece of a photograph."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[90 : 90 + height, 170 : 170 + width])


def noise(height: int, width: int) -> RGB:
    """Uniform: the files with the most symbols and the most 0xFF."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tables_of_every_kind() -> list[QTables]:
    """Coarse to finest, asymmetric, jagged; one, two and three tables."""
    rng = np.random.default_rng(1)
    rising = np.arange(1, 65).reshape(8, 8)
    return [
        *(QTables.standard(quality) for quality in (5, 50, 95)),
        QTables.flat(1),
        QTables.flat(9),
        QTables(np.stack([rising, 65 - rising])),
        QTables(rng.integers(1, 256, (3, 8, 8))),
    ]


def planes_of(image: RGB, subsampling: Subsampling) -> Planes:
    """Unquantized coefficients."""
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    y, cb, cr = (np.ascontiguousarray(plane[0].numpy()) for plane in dct.coefficients(batch, subsampling))
    return y, cb, cr


def random_planes(rng: np.random.Generator, height: int, width: int, subsampling: Subsampling, scale: float) -> Planes:
    """Laplacian coefficients, smaller at higher frequencies, as `dct.coefficients` rounds them."""
    y, chroma = block_counts(height, width, subsampling)
    decay = 1 / (1 + np.add.outer(np.arange(8), np.arange(8)))
    y_, cb, cr = (
        (np.round(8 * rng.laplace(0, scale, (*shape, 8, 8)) * decay) / 8).clip(-1024, 1016).astype(np.float32)
        for shape in (y, chroma, chroma)
    )
    return y_, cb, cr


def weights_like(rng: np.random.Generator, planes: Planes) -> Planes:
    """Weights of very different sizes, a quarter of them 0, and a quarter of the blocks."""
    y, cb, cr = (
        (
            rng.exponential(1, p.shape) ** 2
            * (rng.random(p.shape) < 0.75)
            * (rng.random(p.shape[:2]) < 0.75)[..., None, None]
        ).astype(np.float32)
        for p in planes
    )
    return y, cb, cr


def random_levels(
    rng: np.random.Generator, height: int, width: int, subsampling: Subsampling, density: float
) -> Coefficients:
    """Any levels that JPEG codes, a share `density` of the AC not 0, of magnitudes of every size alike."""

    def plane(shape: tuple[int, int]) -> npt.NDArray[np.int16]:
        magnitudes = np.exp2(rng.uniform(0, 10, (*shape, 8, 8))).astype(np.int16)
        signs = rng.choice(np.array([-1, 1], np.int16), magnitudes.shape)
        levels: npt.NDArray[np.int16] = np.where(rng.random(magnitudes.shape) < density, signs * magnitudes, 0)
        levels[..., 0, 0] = rng.integers(-1024, 1024, shape)
        return levels

    y, chroma = block_counts(height, width, subsampling)
    return plane(y), plane(chroma), plane(chroma)


def file_and_size() -> tuple[bytes, int]:
    """What every kernel has a part in: a file of levels that a trellis chose, and the size that it must have."""
    rng = np.random.default_rng(4)
    planes = random_planes(rng, 33, 41, "4:2:0", 200)
    y, cb, cr = (rng.random(plane.shape).astype(np.float32) for plane in planes)
    tables = QTables.standard(60)
    levels = trellis(planes, (y, cb, cr), tables, 20.0, "4:2:0")
    return write_coefficients(levels, tables, 33, 41, "4:2:0"), exact_size(levels, 2, "4:2:0")
