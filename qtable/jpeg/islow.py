"""The constants of libjpeg-turbo's arithmetic as matrices, made once: colour, chroma sampling, "islow" DCT.

Every integer of libjpeg is held in floating point here; see `qtable.jpeg.dct`, which works with them.
"""

from __future__ import annotations

import functools
import math
from typing import Final, NamedTuple

import torch
from torch import Tensor

from qtable.jpeg.frame import Frame

Matrix = tuple[tuple[int, ...], ...]
# jccolor.c, `rgb_ycc_start`: FIX(x) = x * 2^16 + 0.5; no partial sum for 8-bit samples reaches 2^24.
_RGB_TO_YCC: Final[Matrix] = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
# Y: ONE_HALF, and - 128 to centre. Cb and Cr: ONE_HALF - 1, for there + 128 and the - 128 to centre cancel.
_YCC_BIAS: Final = (32768 - (128 << 16), 32767, 32767)
# jdcolor.c, `build_ycc_rgb_table`: FIX(x) for Cb and Cr.
_YCC_TO_RGB: Final[Matrix] = ((65536, 0, 91881), (65536, -22554, -46802), (65536, 116130, 0))
# jfdctint.c, `jpeg_fdct_islow`: the left half of the 8-point transform times 2^13 (CONST_BITS), its butterflies
# multiplied out; even rows are symmetric, odd rows antisymmetric. jidctint.c's multiply out to the transpose.
_ISLOW_LEFT: Final[Matrix] = (
    (8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260),
    (10703, 4433, -4433, -10703),
    (9633, -2259, -11362, -6436),
    (8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633),
    (4433, -10704, 10704, -4433),
    (2260, -6436, 9633, -11363),
)


def _islow_matrix() -> Tensor:
    """int64 [8 frequencies, 8 samples]."""
    left = torch.tensor(_ISLOW_LEFT)
    sign = torch.tensor([1, -1] * 4)[:, None]
    return torch.cat((left, sign * left.flip(1)), 1)


class Pass(NamedTuple):
    """One 1-D pass of the DCT: an integer matrix product, then a division by 2^shift.

    Where a sum of products could reach 2^24, the matrix is split into high * 2^7 + low, so that neither part's can: as
    in long division, the low part is divided and floored first. The divisors are folded into the matrices.
    """

    high: Tensor
    low: Tensor | None
    scale: float

    @classmethod
    def build(cls, matrix: Tensor, shift: int, like: Tensor, *, split: bool = True) -> Pass:
        matrix = matrix.contiguous()
        low = ((matrix + 64) & 127) - 64 if split else torch.zeros_like(matrix)
        scale = 2.0**-shift
        return cls((matrix - low).to(like) * scale, low.to(like) / 128 if split else None, scale * 128)

    def doubled(self) -> Pass:
        """The same for two runs of 8 at a time (block diagonal), which BLAS does faster."""
        two = torch.eye(2).to(self.high)
        return Pass(torch.kron(two, self.high), None if self.low is None else torch.kron(two, self.low), self.scale)

    def along_rows(self, x: Tensor, out: Tensor) -> Tensor:
        """x @ matrix on each run of the last dimension, to be floored; written to `out`."""
        runs, product = x.view(-1, len(self.high)), out.view(-1, len(self.high))
        if self.low is None:
            torch.mm(runs, self.high, out=product)
        else:
            torch.mm(runs, self.low, out=product).floor_().addmm_(runs, self.high, beta=self.scale)
        return out

    def along_columns(self, x: Tensor, out: Tensor) -> Tensor:
        """matrix @ x on each run of 8 of the last dimension but one, to be floored; written to `out`."""
        runs, product = x.view(-1, 8, x.shape[-1]), out.view(-1, 8, x.shape[-1])
        high = self.high.expand(len(runs), 8, 8)
        if self.low is None:
            torch.bmm(high, runs, out=product)
        else:
            low = self.low.expand(len(runs), 8, 8)
            torch.bmm(low, runs, out=product).floor_().baddbmm_(high, runs, beta=self.scale)
        return out


class Constants(NamedTuple):
    """Constants of one dtype and device; made once."""

    rgb_to_ycc: Tensor
    ycc_bias: Tensor
    ycc_to_rgb: Tensor
    forward_rows: tuple[Pass, Pass]  # for one run of 8, for two at a time
    forward_columns: Pass
    inverse_columns: Pass
    inverse_rows: tuple[Pass, Pass]
    inverse_bias: Tensor
    pair_sums: Tensor


@functools.cache
def _constants(dtype: torch.dtype, device: torch.device) -> Constants:
    with torch.inference_mode(False), torch.no_grad():
        like = torch.empty(0, dtype=dtype, device=device)
        islow = _islow_matrix()
        forward_rows = Pass.build(islow.T, 11, like, split=False)  # CONST_BITS - PASS1_BITS; 8-bit samples: below 2^23
        inverse_rows = Pass.build(islow, 18, like)  # CONST_BITS + PASS1_BITS + 3
        # A constant in row 0 reaches each sample of its column alike. 1/8 there is the 1/2 that rounds the inverse's
        # column pass; 4 more in the corner come out of it as 16 in column 0, the 1/2 that rounds the row pass.
        inverse_bias = torch.zeros(8, 8)
        inverse_bias[0] = 1 / 8
        inverse_bias[0, 0] += 4
        return Constants(
            rgb_to_ycc=torch.tensor(_RGB_TO_YCC).to(like) / 65536,
            ycc_bias=torch.tensor(_YCC_BIAS).to(like)[:, None] / 65536,
            ycc_to_rgb=torch.tensor(_YCC_TO_RGB).to(like) / 65536,
            forward_rows=(forward_rows, forward_rows.doubled()),
            forward_columns=Pass.build(islow, 15, like),  # CONST_BITS + PASS1_BITS
            inverse_columns=Pass.build(islow.T, 11, like),  # CONST_BITS - PASS1_BITS
            inverse_rows=(inverse_rows, inverse_rows.doubled()),
            inverse_bias=inverse_bias.to(like),
            pair_sums=torch.eye(8).repeat_interleave(2, 0).to(like),
        )


def constants_for(x: Tensor) -> Constants:
    return _constants(x.dtype, x.device)


class FrameConstants(NamedTuple):
    """Constants of one frame, dtype and device."""

    inverse_bias: Tensor  # [*canvas_size]
    sampling_bias: Tensor  # [columns of chroma]
    sampling: Tensor  # [16, 8]


@functools.lru_cache(maxsize=32)
def frame_constants(frame: Frame, dtype: torch.dtype, device: torch.device) -> FrameConstants:
    with torch.inference_mode(False), torch.no_grad():
        constants, columns = _constants(dtype, device), frame.padded_chroma[1]
        scale = 1 / math.prod(frame.factors)
        bias = torch.tensor([1.0, 2.0] if frame.factors[0] == 2 else [0.0, 1.0]) * scale
        return FrameConstants(
            frame.tiled(constants.inverse_bias.expand(3, 8, 8)),
            bias.repeat(columns // 2).to(constants.pair_sums),
            constants.pair_sums * scale,
        )
