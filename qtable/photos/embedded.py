"""The embedded default: a small real task that needs no download, for trying the tool (claims are made on real data).

64 x 64 crops of five textures, taken at three magnifications and, where the photograph is in colour, also with red
and blue swapped; all brought to the same mean colour and the same contrast. The class of a crop is all three: which
texture, which magnification, which channel order. So only detail tells the 21 classes apart, in luma and in chroma,
and detail is what quantization takes away.

The photographs ship inside the scikit-image wheel (`skimage.data`) and are read from there:

- brick: `brick`, from CC0Textures (Bricks25); CC0.
- grass: `grass`, from linolafett on DeviantArt (Grass-01); CC0.
- gravel: `gravel`, from CC0Textures (Gravel04); CC0.
- galaxies: `hubble_deep_field`, NASA, Hubble eXtreme Deep Field; public domain. Once a JPEG at its finest steps (1, 2).
- tissue: `immunohistochemistry`, Center for Microscopy And Molecular Imaging; no known copyright restrictions.

No crop is at the scale of its photograph: an 8 x 8 grid that an original may have had from an earlier JPEG would be
one of 11, 15 or 21 pixels here, never the crop's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

RGB = npt.NDArray[np.uint8]
"""uint8 [h, w, 3], 0..255."""
Split = Literal["fit", "search", "test"]
SIZE: Final = 64
"""Side of a crop in pixels."""
MEAN: Final = 128
"""Mean of every channel of every crop (before clipping)."""
CONTRAST: Final = 40
"""Standard deviation of every crop's luma (before clipping)."""
TEXTURES: Final = ("brick", "grass", "gravel", "galaxies", "tissue")
IN_COLOUR: Final = frozenset({"galaxies", "tissue"})
SIDES: Final = (48, 34, 24)
"""Sides of the squares of the photograph that are enlarged to `SIZE`: 1.3, 1.9 and 2.7 times."""
CELL: Final = 48
"""One crop of search and of test is taken from the middle of each 48 x 48 cell of the photograph."""
TILE: Final = 96
TILES: Final = ("ftsft", "sftft", "tfsft", "ftfts", "tsftf")
"""The split of each 96 x 96 tile of a photograph's first 480 x 480 pixels: f(it), s(earch), t(est)."""
FIT_STRIDE: Final = 16
"""Crops of the fit split overlap: one at every 16 pixels that stays inside a tile."""


@dataclass(frozen=True)
class Crops:
    """One split of the task. images: uint8 [64, 64, 3] each; labels: index into classes; names: stable and unique."""

    images: list[RGB]
    labels: list[int]
    names: list[str]
    classes: list[str]


class View(NamedTuple):
    """What a class is: a texture, the side of the square it is seen through, and whether red and blue are swapped."""

    texture: str
    side: int
    swapped: bool

    @property
    def name(self) -> str:
        """For example "tissue 34 px swapped"."""
        return f"{self.texture} {self.side} px" + (" swapped" if self.swapped else "")


class Place(NamedTuple):
    """A square of a photograph: the rows top..top + side and the columns left..left + side."""

    top: int
    left: int
    side: int


def photographs() -> dict[str, RGB]:
    """The five photographs by texture, uint8 [h, w, 3], at least 512 x 512; grey ones have three equal channels."""
    import skimage.data

    files = {
        "brick": "brick",
        "grass": "grass",
        "gravel": "gravel",
        "galaxies": "hubble_deep_field",
        "tissue": "immunohistochemistry",
    }
    images = {texture: np.asarray(getattr(skimage.data, name)()) for texture, name in files.items()}
    return {name: np.stack([x] * 3, axis=-1) if x.ndim == 2 else x for name, x in images.items()}


def views() -> list[View]:
    """The 21 classes in label order."""
    return [
        View(texture, side, swapped)
        for texture in TEXTURES
        for side in SIDES
        for swapped in ([False, True] if texture in IN_COLOUR else [False])
    ]


def places(split: Split, side: int) -> Iterator[Place]:
    """Where in a photograph a split's squares of this side lie; never outside the split's own tiles.

    search, test: one in the middle of each `CELL`, so that no two share a pixel. fit: one at every `FIT_STRIDE`.
    """
    stride = FIT_STRIDE if split == "fit" else CELL
    offsets = [offset + (CELL - side) // 2 for offset in range(0, TILE - CELL + 1, stride)]
    for row, line in enumerate(TILES):
        for column, letter in enumerate(line):
            if letter == split[0]:
                for y, x in itertools.product(offsets, offsets):
                    yield Place(row * TILE + y, column * TILE + x, side)


def prepare(square: RGB) -> RGB:
    """A square of a photograph as a crop: enlarged (bicubic) to `SIZE`, brought to `MEAN` and `CONTRAST`, clipped."""
    image = Image.fromarray(np.ascontiguousarray(square)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, dtype=np.float64)
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    pixels = (pixels - pixels.mean(axis=(0, 1))) * (CONTRAST / max(float(luma.std()), 1e-6)) + MEAN
    crop: RGB = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return crop


def crops(split: Split) -> Crops:
    """The crops of a split, always the same. No pixel of a photograph is in two splits (the split is by place).

    Crops of fit overlap. Within search and within test no two crops of one class share a pixel; the classes of one
    texture show the same places, each in its own way, so their outcomes are not wholly independent.
    ValueError for another split.
    """
    if split not in ("fit", "search", "test"):
        raise ValueError(f"split {split!r} is unknown; allowed: fit, search, test")
    photos = photographs()
    classes = views()
    images, labels, names = [], [], []
    for label, view in enumerate(classes):
        photo = photos[view.texture][..., ::-1] if view.swapped else photos[view.texture]
        for number, (top, left, side) in enumerate(places(split, view.side)):
            images.append(prepare(photo[top : top + side, left : left + side]))
            labels.append(label)
            names.append(f"{view.name}/{split}-{number:04d}")
    return Crops(images, labels, names, [view.name for view in classes])
