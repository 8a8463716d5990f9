"""`Preprocess`: how networks want their photos, differentiably."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


class Preprocess(nn.Module):
    """Decoded RGB (float [n, 3, h, w], 0..255, any size) -> what a network was trained on; differentiable.

    Scales the shorter side to `resize` (bilinear with antialiasing; None: leaves it), cuts the central
    `size` x `size` (None: keeps all), divides by 255, subtracts `mean` and divides by `std` (per channel, in 0..1).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        size: int | None = 224,
        resize: int | None = 256,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if size is not None and resize is not None and size > resize:
            raise ValueError(f"size {size} is larger than resize {resize}: the crop would leave the photo")
        self.size, self.resize = size, resize
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def extra_repr(self) -> str:
        return f"size={self.size}, resize={self.resize}"

    def forward(self, rgb: Tensor) -> Tensor:
        """float [n, 3, `size`, `size`], normalized. ValueError for photos smaller than the crop.

        Of strips only the part that the crop shows is scaled, to the same values: all of a 1 x 12000 strip would take
        gigabytes.
        """
        before = rgb.shape[-2:]
        h, w = before
        if self.resize is not None and min(h, w) != self.resize:
            h, w = (round(side * self.resize / min(before)) for side in before)
        if self.size is None:
            return self._normalized(rgb if (h, w) == before else _scaled(rgb, h, w))
        if min(h, w) < self.size:
            raise ValueError(f"a photo of {w} x {h} is smaller than the {self.size} x {self.size} crop; set resize")
        top, left = (h - self.size) // 2, (w - self.size) // 2
        if (h, w) != before and h * w > _STRIP * self.size**2:
            rows, columns = _Axis(before[0], h, top, self.size), _Axis(before[1], w, left, self.size)
            part = rgb[..., rows.first : rows.last, columns.first : columns.last]
            return self._normalized(rows.weights.to(rgb) @ part @ columns.weights.to(rgb).mT)
        scaled = rgb if (h, w) == before else _scaled(rgb, h, w)
        return self._normalized(scaled[..., top : top + self.size, left : left + self.size])

    def _normalized(self, rgb: Tensor) -> Tensor:
        return (rgb / 255.0 - self.mean) / self.std


_STRIP: Final = 16
"""A scaled photo with this many times the pixels of its crop is cropped first."""


def _scaled(rgb: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(rgb, (height, width), mode="bilinear", antialias=True, align_corners=False)


class _Axis:
    """`count` samples from `at` on, of `scaled` into which `_scaled` makes `length` along one axis.

    They are `weights` [count, last - first] times the samples from `first` to `last`: ATen's UpSampleKernel.cpp,
    `_compute_indices_min_size_weights_aa` with the triangle of `aa_filter`.
    """

    def __init__(self, length: int, scaled: int, at: int, count: int) -> None:
        scale = length / scaled
        support = max(scale, 1.0)
        centre = (torch.arange(at, at + count, dtype=torch.float64) + 0.5) * scale
        begin = (centre - support + 0.5).long().clamp(min=0)
        end = (centre + support + 0.5).long().clamp(max=length)
        self.first, self.last = int(begin[0]), int(end[-1])
        source = torch.arange(self.first, self.last)
        inside = (source >= begin[:, None]) & (source < end[:, None])
        weights = (1 - ((source + 0.5 - centre[:, None]) / support).abs()).clamp(min=0) * inside
        self.weights = weights / weights.sum(dim=1, keepdim=True)
