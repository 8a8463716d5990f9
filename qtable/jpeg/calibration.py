"""Rate estimates turned into bytes by fitting them to real files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qtable.jpeg.frame import Planes
from qtable.jpeg.proxies import Proxy


@dataclass(frozen=True)
class Calibrated:
    """A proxy turned into bytes: offset + slope * estimate, or exp(offset) * estimate^slope if `log`."""

    proxy: Proxy
    offset: float
    slope: float
    log: bool = False

    def __call__(self, planes: Planes, steps: Tensor) -> Tensor:
        """Estimated bytes of each photo's file (or scan: what it was fitted to), float [n]; differentiable."""
        return self.to_bytes(self.proxy(planes, steps))

    def to_bytes(self, estimate: Tensor) -> Tensor:
        """Bytes for what the proxy gave."""
        return torch.exp(self.offset + self.slope * estimate.log()) if self.log else self.offset + self.slope * estimate

    def refitted(self, estimates: npt.ArrayLike, real_bytes: npt.ArrayLike) -> Calibrated:
        """The same proxy fitted to other files: what training does every few hundred steps, as its tables move."""
        return calibrated(self.proxy, estimates, real_bytes, self.log)


def calibrated(proxy: Proxy, estimates: npt.ArrayLike, real_bytes: npt.ArrayLike, log: bool = False) -> Calibrated:
    """`proxy` with the map to bytes that fits best, by least squares (of the logarithms if `log`).

    estimates: [k], what the proxy gave for k photos, or its means over the photos for k table sets. real_bytes: [k], of
    the same photos' files as `Codec` made them. ValueError for fewer than two different estimates, and if `log` for
    any that are not above 0.
    """
    x, y = np.asarray(estimates, np.float64).ravel(), np.asarray(real_bytes, np.float64).ravel()
    if x.shape != y.shape or not len(x) or not np.isfinite([x, y]).all() or np.ptp(x) == 0:
        raise ValueError(
            f"{x.size} estimates and {y.size} sizes: a fit needs as many finite ones of each, and two that differ"
        )
    if log:
        if min(x.min(), y.min()) <= 0:
            raise ValueError(f"a logarithmic fit needs numbers above 0; the smallest is {min(x.min(), y.min())}")
        x, y = np.log(x), np.log(y)
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return Calibrated(proxy, float(y.mean() - slope * x.mean()), slope, log)
