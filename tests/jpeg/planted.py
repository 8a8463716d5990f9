"""Networks and photos in which chosen DCT frequencies alone carry the answer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qtable.jpeg.dct import decode
from qtable.jpeg.frame import Planes
from qtable.jpeg.tables import QTables

COMPONENTS = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""RGB -> Y, Cb, Cr (JFIF), without offsets."""


def basis(u: int, v: int) -> Tensor:
    """float [8, 8]: the orthonormal DCT basis function of vertical frequency u and horizontal frequency v."""
    n = torch.arange(8)
    rows, columns = (torch.cos((2 * n + 1) * k * torch.pi / 16) * (0.5 if k else 0.5**1.5) for k in (u, v))
    return torch.outer(rows, columns)


class Planted(nn.Module):
    """Two logits, +z and -z, where z is made of the coefficients (component, u, v) of all blocks and nothing else.

    squares: z is the coefficients' mean square / `scale`; else their mean / `scale`.
    """

    kernel: Tensor

    def __init__(self, u: int, v: int, component: int = 0, *, scale: float, squares: bool) -> None:
        super().__init__()
        self.scale, self.squares = scale, squares
        self.register_buffer("kernel", COMPONENTS[component][None, :, None, None] * basis(u, v))

    def forward(self, rgb: Tensor) -> Tensor:
        coefficients = F.conv2d(rgb, self.kernel.to(rgb), stride=8)
        z = (coefficients.square() if self.squares else coefficients).mean(dim=(1, 2, 3)) / self.scale
        return torch.stack([z, -z], dim=1)


def planted_photos(
    u: int, v: int, component: int, amplitude: float, noise: float, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """RGB float [count, 3, 16, 32] of 4:4:4 files and labels int64 [count].

    Every AC coefficient is Laplacian noise, but (component, u, v), which is +amplitude in photos of class 0 and
    -amplitude in those of class 1.
    """
    labels = rng.integers(0, 2, count)
    planes = np.rint(rng.laplace(0, noise, (3, count, 2, 4, 8, 8)))
    planes[..., 0, 0] = 0
    planes[component, ..., u, v] = amplitude * (1 - 2 * labels)[:, None, None]
    quantized = Planes(*(torch.from_numpy(plane).float() for plane in planes))
    return decode(quantized, QTables.flat(1), 16, 32, "4:4:4"), torch.from_numpy(labels)
