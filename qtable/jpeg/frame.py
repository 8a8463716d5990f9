"""`Frame`: the sizes that libjpeg derives from a photo's size and sampling; `Planes`: its coefficients by component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qtable.jpeg.codec import SUBSAMPLINGS, Subsampling


class Planes(NamedTuple):
    """DCT coefficients of Y, Cb, Cr, each float [n, block rows, block columns, 8, 8], natural order.

    Row = vertical frequency. Block counts are libjpeg's width_in_blocks and height_in_blocks, as
    `coefficients.read_coefficients` gives them: blocks that only fill up an MCU are not included. May be strided views.
    """

    y: Tensor
    cb: Tensor
    cr: Tensor


_FACTORS: Final[dict[Subsampling, tuple[int, int]]] = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}


@dataclass(frozen=True)
class Frame:
    """The sizes that libjpeg derives from an image's size and its sampling; jdmaster.c, jdinput.c `initial_setup`."""

    height: int
    width: int
    subsampling: Subsampling

    def __post_init__(self) -> None:
        if self.subsampling not in SUBSAMPLINGS:
            raise ValueError(f"subsampling {self.subsampling!r} is unknown; allowed: {', '.join(SUBSAMPLINGS)}")
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a photo of {self.width} x {self.height} pixels; at least 1 x 1 is needed")

    @property
    def factors(self) -> tuple[int, int]:
        """(vertical, horizontal): luma samples per chroma sample, 1 or 2."""
        return _FACTORS[self.subsampling]

    @property
    def chroma_size(self) -> tuple[int, int]:
        """(height, width) of a chroma component in samples, without padding (libjpeg's downsampled_*)."""
        vertical, horizontal = self.factors
        return -(-self.height // vertical), -(-self.width // horizontal)

    @property
    def padded_luma(self) -> tuple[int, int]:
        """(height, width) of Y in whole blocks, in samples."""
        return _whole_blocks(self.height), _whole_blocks(self.width)

    @property
    def padded_chroma(self) -> tuple[int, int]:
        """(height, width) of Cb and Cr in whole blocks, in samples."""
        height, width = self.chroma_size
        return _whole_blocks(height), _whole_blocks(width)

    @property
    def canvas_size(self) -> tuple[int, int]:
        """(rows, columns) of a canvas. Columns that Y does not fill (at most one block's) are there for Cr's sake."""
        rows, columns = self.padded_chroma
        return self.padded_luma[0] + (rows if self.factors[1] == 2 else 2 * rows), columns * self.factors[1]

    def luma(self, canvas: Tensor) -> Tensor:
        """Y of a canvas [n, *canvas_size]: a view [n, 1, *padded_luma]."""
        return canvas[:, None, : self.padded_luma[0], : self.padded_luma[1]]

    def chroma(self, canvas: Tensor) -> Tensor:
        """Cb and Cr of a canvas [n, *canvas_size]: a view [n, 2, *padded_chroma]."""
        below, (rows, columns) = canvas[:, self.padded_luma[0] :], self.padded_chroma
        if self.factors[1] == 2:
            return below.view(-1, rows, 2, columns).transpose(1, 2)
        return below.view(-1, 2, rows, columns)

    def planes(self, canvas: Tensor) -> Planes:
        """All of a canvas [n, *canvas_size] by component and block: views."""
        chroma = self.chroma(canvas)
        return Planes(_blocks(self.luma(canvas)[:, 0]), _blocks(chroma[:, 0]), _blocks(chroma[:, 1]))

    def tiled(self, tables: Tensor) -> Tensor:
        """One table for each of Y, Cb, Cr [3, 8, 8] -> repeated over each component's blocks: [*canvas_size]."""
        (rows, columns), (chroma_rows, chroma_columns) = self.padded_luma, self.padded_chroma
        luma = F.pad(tables[0].repeat(rows // 8, columns // 8), (0, self.canvas_size[1] - columns), value=1.0)
        chroma = [table.repeat(chroma_rows // 8, chroma_columns // 8) for table in tables[1:]]
        return torch.cat((luma, torch.cat(chroma, 1 if self.factors[1] == 2 else 0)))


def _blocks(component: Tensor) -> Tensor:
    """[n, 8r, 8c] seen as [n, r, c, 8, 8]."""
    count, height, width = component.shape
    return component.view(count, height // 8, 8, width // 8, 8).transpose(2, 3)


def _whole_blocks(samples: int) -> int:
    return -(-samples // 8) * 8
