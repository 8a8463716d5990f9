"""`JPEGLayer`: JPEG as a layer of a network, with the quantization tables as its parameter.

Forward it is libjpeg-turbo to the last bit (`qtable.dct`). Backward it is the transpose of what JPEG would be without
rounding: the JFIF colour matrices, mean down-sampling, triangle up-sampling and an orthonormal DCT (`_Ideal`, the
functions named `*_adjoint`), with the quantizer's gradient from a surrogate of round() (`qtable.rounding`) and
the usual clamp gradient at both range limits (samples after the inverse DCT, final RGB).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from qtable import dct
from qtable.codec import Codec, Subsampling
from qtable.dct import Frame, Planes
from qtable.rounding import STE, Rounding, named, pullback
from qtable.tables import QTables

LOWEST_STEP: Final = 1
HIGHEST_STEP: Final = 255


class JPEGLayer(nn.Module):
    """Encodes and decodes photos as libjpeg-turbo does; learns the quantization tables.

    init: where the tables start, and how many there are (1 to 3). codec: only its subsampling matters here.
    rounding: a name in `rounding.ROUNDINGS` or a `Rounding`; `layer.rounding` may be replaced at any time.
    frozen: bool, broadcast to [t, 8, 8]; True entries stay as in `init`. ValueError for other masks and names.

    Its one Parameter is `log_steps`, float32 [t, 8, 8]. The steps in use are round(exp(log_steps)) within 1..255, with
    the gradient of exp; at a bound or beyond, only a gradient whose descent leads back inside is passed on.

    Values are exact when the layer is in eval mode and always when `rounding.exact`. In training mode, a surrogate that
    changes the forward pass is run in JPEG without roundings (`relaxed`); eval then takes its gradients from STE.
    Second derivatives are not available.
    """

    frozen: Tensor
    initial: Tensor

    def __init__(
        self, init: QTables, codec: Codec, rounding: str | Rounding = "ste", frozen: npt.ArrayLike | Tensor = False
    ) -> None:
        super().__init__()
        self.codec = codec
        self.rounding: Rounding = named(rounding)
        initial = torch.tensor(init.values, dtype=torch.float32)
        self.log_steps = nn.Parameter(initial.log())
        self.register_buffer("initial", initial)
        self.register_buffer("frozen", _mask(frozen, initial.shape))

    def forward(self, rgb: Tensor) -> tuple[Tensor, Planes]:
        """Decoded pixels and quantized coefficients; both carry gradients to `rgb` and to the tables.

        rgb: float32 or float64 (or uint8, without gradient) [n, 3, h, w], any h and w, 0..255. libjpeg takes 8-bit
        pixels: fractions are rounded to the nearest integer (halves to even), with gradient 1.
        Returns float [n, 3, h, w], integers 0..255, and integer-valued `Planes`, of rgb's dtype (float32 for uint8).
        ValueError for another shape or dtype, for NaN and for values outside 0..255.
        """
        _check(rgb)
        rgb = rgb if rgb.is_floating_point() else rgb.float()
        frame = Frame(rgb.shape[-2], rgb.shape[-1], self.codec.subsampling)
        steps = self.steps().to(rgb.dtype)
        if self.training and not self.rounding.exact:
            return relaxed(rgb, steps, frame, self.rounding)
        keep = torch.is_grad_enabled() and (rgb.requires_grad or steps.requires_grad)
        rounding = self.rounding if self.rounding.exact else STE()
        pixels, *planes = _ExactJPEG.apply(rgb, steps, frame, rounding, keep)  # type: ignore[no-untyped-call]
        return pixels, Planes(*planes)

    def steps(self) -> Tensor:
        """float [3, 8, 8]: the integer step of each of Y, Cb, Cr that `forward` uses, with gradients to `log_steps`."""
        steps = self._integers()
        last = len(steps) - 1
        return steps[[0, min(1, last), last]]

    def tables(self) -> QTables:
        """Exactly the integers that `forward` uses. ValueError if training has made an entry NaN."""
        return QTables(self._integers().detach().cpu().numpy())

    def extra_repr(self) -> str:
        return f"tables={len(self.initial)}, subsampling={self.codec.subsampling!r}, rounding={self.rounding}"

    def _integers(self) -> Tensor:
        learned: Tensor = _IntegerSteps.apply(self.log_steps)  # type: ignore[no-untyped-call]
        return torch.where(self.frozen, self.initial.to(learned.dtype), learned)


def _mask(mask: npt.ArrayLike | Tensor, shape: torch.Size) -> Tensor:
    """bool tensor of `shape`. ValueError if the mask is not boolean or does not broadcast to it."""
    tensor = torch.as_tensor(mask if isinstance(mask, Tensor) else np.asarray(mask))
    if tensor.dtype != torch.bool:
        raise ValueError(f"the mask of frozen entries is {tensor.dtype}; it must be bool")
    try:
        return tensor.broadcast_to(shape).clone()
    except RuntimeError:
        raise ValueError(
            f"a mask of shape {list(tensor.shape)} does not broadcast to the tables' {list(shape)}"
        ) from None


def _check(rgb: Tensor) -> None:
    """ValueError unless `rgb` is float32, float64 or uint8 [n, 3, h, w], not empty, all values in 0..255."""
    if rgb.dtype not in (torch.float32, torch.float64, torch.uint8):
        raise ValueError(f"photos are {rgb.dtype}; allowed: float32, float64, uint8")
    if rgb.dim() != 4 or rgb.shape[1] != 3 or rgb.numel() == 0:
        raise ValueError(f"photos have shape {list(rgb.shape)}; allowed: [n, 3, h, w], not empty")
    if rgb.dtype != torch.uint8:
        low, high = (float(bound) for bound in torch.stack(torch.aminmax(rgb.detach())).tolist())
        if math.isnan(low) or math.isnan(high):
            raise ValueError("photos contain NaN")
        if low < 0 or high > 255:
            raise ValueError(f"photos have values from {low:g} to {high:g}; allowed: 0..255")


class _IntegerSteps(torch.autograd.Function):
    """log steps -> integer steps in 1..255; gradient of exp, except where a step of descent would lead (further) out.

    The bound's rule is that of CompressAI's LowerBound.
    """

    @staticmethod
    def forward(ctx: Any, log_steps: Tensor) -> Tensor:
        steps = log_steps.exp()
        ctx.save_for_backward(steps)
        return steps.clamp(LOWEST_STEP, HIGHEST_STEP).round()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        steps: Tensor = ctx.saved_tensors[0]
        inward = ((steps > LOWEST_STEP) | (gradient < 0)) & ((steps < HIGHEST_STEP) | (gradient > 0))
        return (gradient * steps * inward).to(gradient)


# ---- JPEG without roundings: the linear maps whose transposes are the gradients --------------------------------

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


# ---- their transposes -----------------------------------------------------------------------------------------


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


# ---- the exact layer ------------------------------------------------------------------------------------------


def _quantizer_adjoint(
    at_decoded: Tensor | None, at_levels: Tensor | None, f: Tensor, k: Tensor, per_8q: Tensor, rounding: Rounding
) -> tuple[Tensor, Tensor]:
    """Gradients at the decoded k q and at the levels k -> at F, a canvas, and at the tiled steps q [*canvas_size].

    f: libjpeg's integers, 8 F. per_8q: 1 / 8q. With z = F / q and r' the surrogate's slope at z:
    at_f = r' (at_decoded + at_levels / q), at_q = at_decoded k - at_f z, summed over the photos.
    """
    if at_decoded is not None and at_levels is None and isinstance(rounding, STE):
        return at_decoded, torch.addcmul(k, f, per_8q, value=-1).mul_(at_decoded).sum(0)
    z = f * per_8q
    at_f = torch.zeros_like(z) if at_decoded is None else at_decoded
    if at_levels is not None:
        at_f = torch.addcmul(at_f, at_levels, per_8q, value=8)
    if not isinstance(rounding, STE):
        at_f = pullback(rounding, z, at_f)
    minus_at_q = z.mul_(at_f)
    if at_decoded is not None:
        minus_at_q.addcmul_(at_decoded, k, value=-1)
    return at_f, -minus_at_q.sum(0)


class _ExactJPEG(torch.autograd.Function):
    """rgb, steps -> pixels and quantized Y, Cb, Cr, exact; a chunk of photos at a time."""

    @staticmethod
    def forward(
        ctx: Any, rgb: Tensor, steps: Tensor, frame: Frame, rounding: Rounding, keep: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype = dct.exact_dtype(rgb)
        q = frame.tiled(steps)
        per_8q = dct.TIES_OUTWARD / 8 / q
        pixels = torch.empty_like(rgb, memory_format=torch.contiguous_format)
        levels = rgb.new_empty(len(rgb), *frame.canvas_size)
        f, samples = (torch.empty_like(levels, dtype=dtype) for _ in range(2))
        limitless = torch.empty_like(pixels, dtype=dtype)
        with torch.autocast(rgb.device.type, enabled=False):
            for part in dct.chunks(len(rgb), frame, rgb.device):
                dct.encode(rgb[part].to(dtype), frame, f[part])
                torch.mul(f[part].to(rgb.dtype), per_8q, out=levels[part]).round_()
                decoded = dct.Decoded(samples[part], limitless[part])
                dct.decode_levels(levels[part].to(dtype), q.to(dtype), frame, decoded)
                torch.clamp(decoded.rgb.to(rgb.dtype), 0, 255, out=pixels[part])
        if keep:
            ctx.save_for_backward(steps, levels, f, samples, limitless)
            ctx.frame, ctx.rounding = frame, rounding
        ctx.set_materialize_grads(False)
        return pixels, *frame.planes(levels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, at_pixels: Tensor | None, *at_planes: Tensor | None) -> tuple[Tensor | None, ...]:
        frame: Frame = ctx.frame
        steps, levels, f, samples, limitless = ctx.saved_tensors
        dtype = steps.dtype
        per_8q = 0.125 / frame.tiled(steps)
        at_levels = _gradient_canvas(at_planes, levels, frame)
        at_rgb = steps.new_empty(limitless.shape) if ctx.needs_input_grad[0] else None
        at_q = torch.zeros_like(per_8q)
        with torch.autocast(steps.device.type, enabled=False):
            for part in dct.chunks(len(levels), frame, steps.device):
                at_k = None if at_levels is None else at_levels[part]
                at_decoded = None
                if at_pixels is not None:
                    decoded = dct.Decoded(samples[part].to(dtype), limitless[part].to(dtype))
                    at_decoded = _decode_adjoint(at_pixels[part], frame, decoded)
                at_f, at_q_here = _quantizer_adjoint(
                    at_decoded, at_k, f[part].to(dtype), levels[part], per_8q, ctx.rounding
                )
                at_q += at_q_here
                if at_rgb is not None:
                    _encode_adjoint(at_f, frame, at_rgb[part])
        at_steps = torch.stack([plane.sum((0, 1, 2)) for plane in frame.planes(at_q[None])])
        return at_rgb, at_steps, None, None, None


def _gradient_canvas(at_planes: Sequence[Tensor | None], like: Tensor, frame: Frame) -> Tensor | None:
    """Gradients at `Planes` as a canvas, zero where there is none; None if there are none at all."""
    if all(at is None for at in at_planes):
        return None
    canvas = torch.zeros_like(like)
    for plane, at in zip(frame.planes(canvas), at_planes, strict=True):
        if at is not None:
            plane.copy_(at)
    return canvas
