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
        """float [n, 3, `size`, `size`], normalized. ValueError for photos smaller than the crop."""
        h, w = rgb.shape[-2:]
        if self.resize is not None and min(h, w) != self.resize:
            h, w = (round(side * self.resize / min(h, w)) for side in (h, w))
            rgb = F.interpolate(rgb, (h, w), mode="bilinear", antialias=True, align_corners=False)
        if self.size is not None:
            if min(h, w) < self.size:
                raise ValueError(f"a photo of {w} x {h} is smaller than the {self.size} x {self.size} crop; set resize")
            top, left = (h - self.size) // 2, (w - self.size) // 2
            rgb = rgb[..., top : top + self.size, left : left + self.size]
        return (rgb / 255.0 - self.mean) / self.std
