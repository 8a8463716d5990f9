"""`JPEGLayer`: JPEG as a layer of a network, with the quantization tables as its parameter.

Forward it is libjpeg-turbo to the last bit (`qtable.jpeg.dct`). Backward it is the transpose of what JPEG would be
without rounding: the JFIF colour matrices, mean down-sampling, triangle up-sampling and an orthonormal DCT (`_Ideal`,
the functions named `*_adjoint`), with the quantizer's gradient from a surrogate of round() (`qtable.jpeg.rounding`) and
the usual clamp gradient at both range limits (samples after the inverse DCT, final RGB).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from qtable.jpeg import dct
from qtable.jpeg.codec import Codec
from qtable.jpeg.frame import Frame, Planes
from qtable.jpeg.linear import _decode_adjoint, _encode_adjoint, relaxed
from qtable.jpeg.rounding import STE, Rounding, named, pullback
from qtable.jpeg.tables import QTables

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
