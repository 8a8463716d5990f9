"""JPEG without roundings, in real numbers, and its transpose: what gradients pass through."""

from __future__ import annotations

import functools
import math
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qtable.jpeg import dct
from qtable.jpeg.codec import Subsampling
from qtable.jpeg.frame import Frame, Planes
from qtable.jpeg.rounding import Rounding

# JFIF 1.02 (ITU-R BT.601).
_RGB_TO_YCC: Final = (
    (0.299, 0.587, 0.114),
    (-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772),
    (0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402),
)
_YCC_TO_RGB: Final = (
    (1.0, 0.0, 1.402),
    (1.0, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587),
    (1.0, 1.772, 0.0),
)


class _Ideal(NamedTuple):
    """The real-valued matrices that libjpeg's integers approximate."""

    rgb_to_ycc: Tensor  # [3, 3]
    ycc_to_rgb: Tensor  # [3, 3]
    dct: Tensor  # [8 frequencies, 8 samples], orthonormal
    repeat: Tensor  # [8, 16]: each of 8 samples twice
    triangle: Tensor  # [8, 16]: 3/4 of the nearer and 1/4 of the farther of 8 samples; 0 for those beyond the 8


@functools.cache
def _ideal(dtype: torch.dtype, device: torch.device) -> _Ideal:
    with torch.inference_mode(False), torch.no_grad():
        frequency, sample = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
        basis = torch.cos((2 * sample + 1) * frequency * math.pi / 16) / 2
        basis[0] /= math.sqrt(2)
        repeat = torch.eye(8).repeat_interleave(2, 1)
        triangle = 0.75 * repeat
        triangle[:, 2::2] += 0.25 * torch.eye(8)[:, :-1]
        triangle[:, 1:-1:2] += 0.25 * torch.eye(8)[:, 1:]
        colour = (torch.tensor(matrix, dtype=torch.float64) for matrix in (_RGB_TO_YCC, _YCC_TO_RGB))
        return _Ideal(*(matrix.to(device=device, dtype=dtype) for matrix in (*colour, basis, repeat, triangle)))


def _transform(planes: Tensor, matrix: Tensor) -> Tensor:
    """matrix @ block @ matrix.T for each 8 x 8 block of planes [..., 8r, 8c]."""
    rows = torch.mm(planes.reshape(-1, 8), matrix.T).view(-1, 8, planes.shape[-1])
    return torch.bmm(matrix.expand(len(rows), 8, 8), rows).view(planes.shape)


def relaxed(rgb: Tensor, steps: Tensor, frame: Frame, rounding: Rounding) -> tuple[Tensor, Planes]:
    """JPEG in real numbers: no rounding anywhere but `rounding` in the quantizer; differentiable by autograd.

    rgb: float [n, 3, h, w], 0..255. steps: float [3, 8, 8], need not be integers. Returns pixels [n, 3, h, w], 0..255,
    and what `rounding` makes of the coefficients in steps.
    """
    ideal = _ideal(rgb.dtype, rgb.device)
    offset = rgb.new_tensor([128.0, 0.0, 0.0])[:, None, None]
    ycc = torch.einsum("dc,nchw->ndhw", ideal.rgb_to_ycc, rgb) - offset
    canvas = dct.assemble(dct.extend(ycc[:, :1], frame.padded_luma), _mean_pool(ycc[:, 1:], frame), frame)
    tiled = frame.tiled(steps)
    quantized = rounding(_transform(canvas, ideal.dct) / tiled)
    samples = _transform(quantized * tiled, ideal.dct.T).clamp(-128, 127)
    luma = frame.luma(samples)[..., : frame.height, : frame.width]
    chroma = _interpolate(frame.chroma(samples)[..., : frame.chroma_size[0], : frame.chroma_size[1]], frame)
    pixels = torch.einsum("dc,nchw->ndhw", ideal.ycc_to_rgb, torch.cat((luma, chroma), 1) + offset)
    return pixels.clamp(0, 255), frame.planes(quantized)


def _mean_pool(chroma: Tensor, frame: Frame) -> Tensor:
    """`dct.downsample` without its roundings."""
    vertical, horizontal = frame.factors
    if horizontal == 2:
        chroma = dct.extend(chroma, (vertical * frame.chroma_size[0], 2 * frame.padded_chroma[1]))
        chroma = F.avg_pool2d(chroma, (vertical, horizontal))
    return dct.extend(chroma, frame.padded_chroma)


def _interpolate(chroma: Tensor, frame: Frame) -> Tensor:
    """`dct.upsample` without its roundings."""
    repeat = chroma.shape[-1] <= 2
    for dim, factor in ((2, frame.factors[0]), (3, frame.factors[1])):
        if factor == 2:
            chroma = chroma.repeat_interleave(2, dim) if repeat else _triangle(chroma, dim)
    return chroma[..., : frame.height, : frame.width]


def _triangle(x: Tensor, dim: int) -> Tensor:
    """Twice the samples along `dim`: 3/4 of the nearer, 1/4 of the farther; edges repeated."""
    here = torch.arange(x.shape[dim], device=x.device)
    before = x.index_select(dim, (here - 1).clamp(min=0))
    after = x.index_select(dim, (here + 1).clamp(max=len(here) - 1))
    return torch.stack((0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after), dim + 1).flatten(dim, dim + 1)


def _interpolate_adjoint(gradient: Tensor, frame: Frame) -> Tensor:
    """Gradient at [n, 2, h, w] -> at [n, 2, *frame.chroma_size]; the transpose of `_interpolate`."""
    vertical, horizontal = frame.factors
    height, width = frame.chroma_size
    if vertical == 2:
        gradient = _grow(gradient, (2 * height, gradient.shape[-1]))
        even, odd = gradient[..., 0::2, :], gradient[..., 1::2, :]
        gradient = even + odd if width <= 2 else _triangle_rows_adjoint(even, odd)
    if horizontal == 2:
        gradient = _grow(gradient, (height, 2 * frame.padded_chroma[1]))
        gradient = _repeat_adjoint(gradient) if width <= 2 else _triangle_columns_adjoint(gradient, width)
    return gradient[..., :width]


def _triangle_rows_adjoint(even: Tensor, odd: Tensor) -> Tensor:
    """The transpose of `_triangle` along rows, from the gradients at even and odd rows."""
    out = (even + odd).mul_(0.75)
    out[..., :-1, :].add_(even[..., 1:, :], alpha=0.25)
    out[..., 1:, :].add_(odd[..., :-1, :], alpha=0.25)
    out[..., 0, :].add_(even[..., 0, :], alpha=0.25)
    out[..., -1, :].add_(odd[..., -1, :], alpha=0.25)
    return out


def _triangle_columns_adjoint(gradient: Tensor, width: int) -> Tensor:
    """The transpose of `_triangle` from `width` columns; gradient: [..., 16k], zero from column 2 * width on.

    As one matrix product on each run of 16, and what crosses the runs' borders.
    """
    runs = gradient.view(*gradient.shape[:-1], -1, 16)
    out = torch.matmul(runs, _ideal(gradient.dtype, gradient.device).triangle.T)
    out[..., :-1, 7].add_(runs[..., 1:, 0], alpha=0.25)
    out[..., 1:, 0].add_(runs[..., :-1, 15], alpha=0.25)
    out = out.view(*gradient.shape[:-1], -1)
    out[..., 0].add_(gradient[..., 0], alpha=0.25)
    out[..., width - 1].add_(gradient[..., 2 * width - 1], alpha=0.25)
    return out


def _repeat_adjoint(gradient: Tensor) -> Tensor:
    """The transpose of repeating each column; gradient: [..., 16k]."""
    runs = gradient.view(*gradient.shape[:-1], -1, 16)
    return torch.matmul(runs, _ideal(gradient.dtype, gradient.device).repeat.T).view(*gradient.shape[:-1], -1)


def _add_pool_adjoint(gradient: Tensor, frame: Frame, out: Tensor) -> None:
    """Gradient at [n, c, *frame.padded_chroma] -> added to `out` [n, c, h, w]; the transpose of sums, not of means."""
    vertical, horizontal = frame.factors
    gradient = _fold(gradient, (frame.chroma_size[0], gradient.shape[-1]))
    if horizontal == 2:
        wide = torch.mm(gradient.reshape(-1, 8), _ideal(gradient.dtype, gradient.device).repeat)
        gradient = wide.view(*gradient.shape[:-1], -1)
    gradient = _fold(gradient, (gradient.shape[-2], frame.width))
    if vertical == 1:
        out.add_(gradient)
        return
    out[..., 0::2, :].add_(gradient)
    out[..., 1::2, :].add_(gradient[..., : frame.height // 2, :])
    if frame.height % 2:
        out[..., -1:, :].add_(gradient[..., -1:, :])


def _grow(gradient: Tensor, size: tuple[int, int]) -> Tensor:
    """Zeros added below and on the right up to `size` = (height, width); the transpose of cropping."""
    height, width = gradient.shape[-2:]
    return gradient if (height, width) == size else F.pad(gradient, (0, size[1] - width, 0, size[0] - height))


def _fold(gradient: Tensor, size: tuple[int, int]) -> Tensor:
    """Cropped to `size` = (height, width), the rest added to the last row and column; the transpose of `dct.extend`."""
    for dim, kept in ((2, size[0]), (3, size[1])):
        rest = gradient.shape[dim] - kept
        if rest:
            folded = gradient.narrow(dim, 0, kept).clone()
            folded.narrow(dim, kept - 1, 1).add_(gradient.narrow(dim, kept, rest).sum(dim, keepdim=True))
            gradient = folded
    return gradient


def _clamp_adjoint(gradient: Tensor, value: Tensor, low: float, high: float) -> Tensor:
    """`gradient` where the integer `value` is in low..high, else 0; one pass."""
    passed: Tensor = torch.ops.aten.hardtanh_backward(gradient, value, low - 0.5, high + 0.5)
    return passed


def _decode_adjoint(gradient: Tensor, frame: Frame, decoded: dct.Decoded | None) -> Tensor:
    """Gradient at the pixels [n, 3, h, w] -> at the canvas of dequantized coefficients.

    decoded: what the range limits were applied to; None: as if there were no limits.
    """
    ideal = _ideal(gradient.dtype, gradient.device)
    if decoded is not None:
        gradient = _clamp_adjoint(gradient, decoded.rgb, 0, 255)
    ycc = torch.matmul(ideal.ycc_to_rgb.T, gradient.flatten(2)).view(gradient.shape)
    luma, chroma = _grow(ycc[:, :1], frame.padded_luma), _interpolate_adjoint(ycc[:, 1:], frame)
    canvas = dct.assemble(luma, _grow(chroma, frame.padded_chroma), frame)
    if decoded is not None:
        canvas = _clamp_adjoint(canvas, decoded.samples, -128, 127)
    return _transform(canvas, ideal.dct)


def coefficient_gradient(gradient: Tensor, subsampling: Subsampling) -> Planes:
    """Gradient at decoded pixels, float [n, 3, h, w] -> at the dequantized coefficients, in orthonormal units.

    The transpose of the ideal linear decoder (no roundings, no range limits): what a loss feels at each coefficient.
    """
    frame = Frame(gradient.shape[-2], gradient.shape[-1], subsampling)
    return frame.planes(_decode_adjoint(gradient, frame, None))


def _encode_adjoint(canvas: Tensor, frame: Frame, out: Tensor) -> None:
    """Gradient at the canvas of coefficients -> at the pixels, written to `out` [n, 3, h, w]."""
    ideal = _ideal(canvas.dtype, canvas.device)
    canvas = _transform(canvas, ideal.dct.T)
    luma, chroma = _fold(frame.luma(canvas), (frame.height, frame.width)), frame.chroma(canvas)
    torch.mul(ideal.rgb_to_ycc[0][:, None, None], luma, out=out)
    share = ideal.rgb_to_ycc[1:].T / math.prod(frame.factors)  # of each pixel in the mean
    _add_pool_adjoint(torch.matmul(share, chroma.flatten(2)).view(-1, 3, *frame.padded_chroma), frame, out)
