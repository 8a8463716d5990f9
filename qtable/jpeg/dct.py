"""libjpeg-turbo's JPEG arithmetic in torch, exact to the last bit: colour, chroma sampling, "islow" DCT, quantization.

Every intermediate of libjpeg is an integer, and so is every value here, held in floating point: sums of products stay
below 2^24 (or are split in two that do), so float32 matrix products are exact in whatever order they are summed, on any
device. Beside each function stands the C function it equals. Samples are centred (libjpeg's value - 128) throughout,
as libjpeg's DCT has them.

A photo's three components lie in one image, its canvas: float [n, rows, columns], Y on top, and below it Cb and Cr,
side by side where they are narrower than Y, else one below the other. Block (r, s)'s coefficient (u, v) is at row
8r + u, column 8s + v. So each 1-D transform of a whole batch is one matrix product without a copy. `Planes`, what
other modules see, are views of a canvas by component and block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qtable.jpeg.codec import Subsampling
from qtable.jpeg.frame import Frame, Planes
from qtable.jpeg.islow import constants_for, frame_constants
from qtable.jpeg.tables import QTables


def to_ycc(rgb: Tensor) -> Tensor:
    """RGB -> centred Y, Cb, Cr, integers [n, 3, h, w]; jccolor.c `rgb_ycc_convert`.

    rgb: float [n, 3, h, w], 0..255; fractions are rounded first.
    """
    constants = constants_for(rgb)
    ycc = torch.matmul(constants.rgb_to_ycc, rgb.round().flatten(2))
    return ycc.add_(constants.ycc_bias).floor_().view(rgb.shape)


def extend(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """[n, c, h, w] grown to `size` = (height, width) by repeating its last row and column.

    jcsample.c `expand_right_edge`, jcprepct.c `expand_bottom_edge`.
    """
    height, width = planes.shape[-2:]
    if (height, width) == size:
        return planes
    return F.pad(planes, (0, size[1] - width, 0, size[0] - height), mode="replicate")


def downsample(chroma: Tensor, frame: Frame) -> Tensor:
    """Full-size chroma [n, 2, h, w] -> [n, 2, *frame.padded_chroma], integers.

    jcsample.c `h2v1_downsample` (biases 0, 1, 0, 1...), `h2v2_downsample` (1, 2, 1, 2...), `fullsize_downsample`.
    Columns are extended before sampling, rows after, but for an odd last row's pair: jcprepct.c `pre_process_data`.
    """
    vertical, horizontal = frame.factors
    rows, columns = frame.chroma_size[0], frame.padded_chroma[1]
    if horizontal == 2:
        x = extend(chroma, (vertical * rows, 2 * columns))
        if vertical == 2:
            x = x[..., 0::2, :] + x[..., 1::2, :]
        constants = frame_constants(frame, x.dtype, x.device)
        means = torch.mm(x.reshape(-1, 16), constants.sampling).view(*x.shape[:-1], columns)
        chroma = means.add_(constants.sampling_bias).floor_()
    return extend(chroma, frame.padded_chroma)


def assemble(luma: Tensor, chroma: Tensor, frame: Frame) -> Tensor:
    """Y [n, 1, *padded_luma] and chroma [n, 2, *padded_chroma] -> a canvas, zero where neither is."""
    filled = frame.padded_luma[1] == frame.canvas_size[1]
    canvas = (luma.new_empty if filled else luma.new_zeros)((len(luma), *frame.canvas_size))
    frame.luma(canvas).copy_(luma)
    frame.chroma(canvas).copy_(chroma)
    return canvas


def forward_dct(canvas: Tensor, out: Tensor | None = None) -> Tensor:
    """Centred samples -> integers, 8 x the orthonormal coefficients; jfdctint.c `jpeg_fdct_islow`."""
    constants = constants_for(canvas)
    rows = constants.forward_rows[canvas.shape[-1] % 16 == 0].along_rows(canvas, torch.empty_like(canvas))
    out = torch.empty_like(canvas) if out is None else out
    return constants.forward_columns.along_columns(rows.add_(0.5).floor_(), out).add_(0.5).floor_()


def encode(rgb: Tensor, frame: Frame, out: Tensor | None = None) -> Tensor:
    """RGB -> a canvas of libjpeg's unquantized coefficients (8 x orthonormal). rgb: as for `to_ycc`."""
    ycc = to_ycc(rgb)
    return forward_dct(assemble(extend(ycc[:, :1], frame.padded_luma), downsample(ycc[:, 1:], frame), frame), out)


TIES_OUTWARD: Final = 1 + 2.0**-16
"""c / (8q) times this, rounded to nearest, is libjpeg's (|c| + 4q) / 8q: halves go away from zero, and nothing else
moves, for what is not a half is at least 1 / (8q) away from one, more than 2^-16 of c / (8q) with c of 15 bits."""


class Decoded(NamedTuple):
    """Decoded samples before their range limits."""

    samples: Tensor  # a canvas, to be limited to -128..127
    rgb: Tensor  # [n, 3, h, w], to be limited to 0..255


def decode_levels(levels: Tensor, steps: Tensor, frame: Frame, out: Decoded | None = None) -> Decoded:
    """A canvas of quantized coefficients and tiled steps -> samples and pixels."""
    bias = frame_constants(frame, levels.dtype, levels.device).inverse_bias
    samples = inverse_dct(torch.addcmul(bias, levels, steps), out and out.samples)
    height, width = frame.chroma_size
    ycc = samples.new_empty(len(samples), 3, frame.height, frame.width)
    torch.clamp(frame.luma(samples)[..., : frame.height, : frame.width], -128, 127, out=ycc[:, :1]).add_(128.5)
    upsample(frame.chroma(samples)[..., :height, :width].clamp(-128, 127), frame, ycc[:, 1:])
    return Decoded(samples, to_rgb(ycc, out and out.rgb))


def inverse_dct(canvas: Tensor, out: Tensor | None = None) -> Tensor:
    """Dequantized integers + `inverse_bias` -> centred samples before the range limit; jidctint.c `jpeg_idct_islow`."""
    constants = constants_for(canvas)
    columns = constants.inverse_columns.along_columns(canvas, torch.empty_like(canvas)).floor_()
    out = canvas if out is None else out
    return constants.inverse_rows[canvas.shape[-1] % 16 == 0].along_rows(columns, out).floor_()


def upsample(chroma: Tensor, frame: Frame, out: Tensor) -> None:
    """Chroma samples [n, 2, *frame.chroma_size] -> integers, written to `out` [n, 2, h, w].

    jdsample.c `h2v1_fancy_upsample`, `h2v2_fancy_upsample`; `h2v1_upsample` and `h2v2_upsample` (plain repetition) when
    there are at most two columns, where libjpeg does not interpolate.
    """
    vertical, horizontal = frame.factors
    if horizontal == 2 and chroma.shape[-1] <= 2:
        for dim, factor in ((2, vertical), (3, horizontal)):
            chroma = chroma.repeat_interleave(factor, dim)
    elif horizontal == 2:
        # Sums of 3 x nearer + farther sample along each dimension, / 4^vertical. What rounds them is in even and odd
        # columns 1/4 and 2/4, or 8/16 and 7/16 when both dimensions are doubled.
        scale = 0.25**vertical
        even, odd = (8 / 16, 7 / 16) if vertical == 2 else (1 / 4, 2 / 4)
        scaled = chroma * scale
        chroma = _spread(scaled + even * scale, scaled + odd * scale, 3)
        if vertical == 2:
            chroma = _spread(chroma, chroma, 2)
    torch.floor(chroma[..., : frame.height, : frame.width], out=out)


def _spread(even: Tensor, odd: Tensor, dim: int) -> Tensor:
    """Twice the samples along `dim` (2 or 3), 3 x nearer + farther: those at even places of `even`, others of `odd`."""
    last = even.shape[dim] - 1
    out = even.new_empty(*even.shape[: dim + 1], 2, *even.shape[dim + 1 :])
    evens, odds = out.unbind(dim + 1)
    torch.add(even.narrow(dim, 0, last), even.narrow(dim, 1, last), alpha=3, out=evens.narrow(dim, 1, last))
    torch.add(odd.narrow(dim, 1, last), odd.narrow(dim, 0, last), alpha=3, out=odds.narrow(dim, 0, last))
    torch.mul(even.narrow(dim, 0, 1), 4, out=evens.narrow(dim, 0, 1))
    torch.mul(odd.narrow(dim, last, 1), 4, out=odds.narrow(dim, last, 1))
    return out.flatten(dim, dim + 1)


def to_rgb(ycc: Tensor, out: Tensor | None = None) -> Tensor:
    """Y + 128.5, centred Cb and Cr [n, 3, h, w] -> RGB before the range limit; jdcolor.c `ycc_rgb_convert`.

    Exact integers within 0..255, else perhaps off by one: R and B are sums of two terms of 16 fractional bits, rounded
    once and only beyond 2^8; G's terms have 15 fractional bits, and no partial sum reaches 2^9.
    """
    out = torch.empty_like(ycc) if out is None else out
    torch.matmul(constants_for(ycc).ycc_to_rgb, ycc.flatten(2), out=out.flatten(2))
    return out.floor_()


CHUNK_PIXELS: Final = 1 << 17
"""Pixels that a CPU thread works on at a time: few enough for its cache, enough to outweigh the overhead of calls."""


def chunks(count: int, frame: Frame, device: torch.device) -> Iterator[slice]:
    """Slices of a batch of `count` photos to work on one after the other; all at once on a GPU."""
    room = CHUNK_PIXELS * torch.get_num_threads()
    wanted = -(-count * frame.height * frame.width // room) if device.type == "cpu" else 1
    step = -(-count // max(1, wanted))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def exact_dtype(x: Tensor) -> torch.dtype:
    """float32; float64 if x is, or if this process lets float32 matrix products be made with fewer bits (TF32)."""
    full = torch.get_float32_matmul_precision() == "highest"
    return torch.float32 if full and x.dtype != torch.float64 else torch.float64


@torch.no_grad()
def coefficients(rgb: Tensor, subsampling: Subsampling) -> Planes:
    """Unquantized DCT coefficients as libjpeg-turbo computes them, in orthonormal units (its integers / 8).

    rgb: float (fractions are rounded first) or uint8 [n, 3, h, w], 0..255; any h and w. Float32 multiples of 1/8; no
    gradient.
    """
    frame = Frame(rgb.shape[-2], rgb.shape[-1], subsampling)
    dtype = exact_dtype(rgb)
    canvas = torch.empty(len(rgb), *frame.canvas_size, device=rgb.device)
    with torch.autocast(rgb.device.type, enabled=False):
        for part in chunks(len(rgb), frame, rgb.device):
            torch.div(encode(rgb[part].to(dtype), frame).to(canvas.dtype), 8, out=canvas[part])
    return frame.planes(canvas)


def quantize(planes: Planes, tables: QTables) -> Planes:
    """Orthonormal coefficients -> quantized ones, integer-valued; jcdctmgr.c `quantize`: halves away from zero."""
    steps = torch.from_numpy(tables.components()).to(planes.y)
    return Planes(*((plane * (TIES_OUTWARD / step)).round_() for plane, step in zip(planes, steps, strict=True)))


@torch.no_grad()
def decode(quantized: Planes, tables: QTables, height: int, width: int, subsampling: Subsampling) -> Tensor:
    """What libjpeg-turbo decodes quantized coefficients to: float32 [n, 3, height, width], integers 0..255.

    Equal to libjpeg-turbo for coefficients that come from 8-bit photos; made-up ones can be so large that its own
    implementations (C, SIMD) disagree.
    """
    frame = Frame(height, width, subsampling)
    count, device, dtype = len(quantized.y), quantized.y.device, exact_dtype(quantized.y)
    steps = frame.tiled(torch.from_numpy(tables.components()).to(device, dtype))
    rgb = torch.empty(count, 3, height, width, device=device)
    with torch.autocast(device.type, enabled=False):
        for part in chunks(count, frame, device):
            levels = torch.zeros(len(rgb[part]), *frame.canvas_size, dtype=dtype, device=device)
            for plane, given in zip(frame.planes(levels), quantized, strict=True):
                plane.copy_(given[part])
            torch.clamp(decode_levels(levels, steps, frame).rgb.to(rgb.dtype), 0, 255, out=rgb[part])
    return rgb
