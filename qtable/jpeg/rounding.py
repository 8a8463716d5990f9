"""Surrogates of round() for training: what a quantizer does while gradients are wanted.

A surrogate maps z = F / q (coefficients in steps, any shape) to a stand-in of round(z) of the same shape and dtype.
Those with `exact = True` return round(z) itself and only choose its gradient; the others change the forward pass too,
during training and never in evaluation. Halves are rounded away from zero, as libjpeg's quantizer does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Rounding(Protocol):
    """One surrogate of round(), differentiable in z. Its settings are fixed: anneal by replacing it."""

    @property
    def exact(self) -> bool:
        """Whether the value is round(z), only the gradient being a choice."""
        ...

    def __call__(self, z: Tensor) -> Tensor:
        """The stand-in of round(z); same shape and dtype."""
        ...


def round_half_away(z: Tensor) -> Tensor:
    """round(z) with halves away from zero; jcdctmgr.c, `quantize`. Its gradient is zero."""
    return z.sign() * (z.abs() + 0.5).floor()


def with_gradient_of(smooth: Tensor, value: Tensor) -> Tensor:
    """`value`, differentiated as if it were `smooth`: the straight-through trick. Exact in value."""
    return value.detach() + (smooth - smooth.detach())


def _levels(z: Tensor, reach: int) -> Tensor:
    return torch.arange(-reach, reach + 1, dtype=z.dtype, device=z.device)


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} = {value} must be above 0")


@dataclass(frozen=True)
class STE:
    """Straight-through estimator: round(z), gradient 1 (Bengio, Leonard, Courville 2013). Forward is exact."""

    exact = True

    def __call__(self, z: Tensor) -> Tensor:
        return with_gradient_of(z, round_half_away(z))


@dataclass(frozen=True)
class Cubic:
    """r + (z - r)^3 with r = round(z) (Shin & Song, NIPS workshop 2017); its gradient is 3 (z - r)^2.

    exact = False, as published: changes the forward, by up to 1/8. True: the forward is round(z), only the gradient is
    the cubic's (Reich et al., WACV 2024: "STE"). The gradient vanishes at integers, a coefficient of 0 included.
    """

    exact: bool = False

    def __call__(self, z: Tensor) -> Tensor:
        r = round_half_away(z)
        cubic = r + (z - r) ** 3
        return with_gradient_of(cubic, r) if self.exact else cubic


@dataclass(frozen=True)
class UniformNoise:
    """z + u, u uniform in [-1/2, 1/2), gradient 1 (Balle, Laparra, Simoncelli 2017). Changes the forward, at random.

    generator: where u is drawn; on the device of z.
    """

    generator: torch.Generator
    exact = False

    def __call__(self, z: Tensor) -> Tensor:
        return z + torch.rand(z.shape, generator=self.generator, dtype=z.dtype, device=z.device) - 0.5


@dataclass(frozen=True)
class Soft:
    """A staircase of tanh steps that passes through the integers (Agustsson & Theis 2020, eq. 7). Changes the forward.

    temperature > 0: towards 0 it becomes round(z), towards infinity z; anneal it downwards. As tanh(x / 2) is
    2 sigmoid(x) - 1, this is the sigmoid staircase too, scaled to meet at the integers. ValueError if not positive.
    """

    temperature: float = 0.2
    exact = False

    def __post_init__(self) -> None:
        _positive("temperature", self.temperature)

    def __call__(self, z: Tensor) -> Tensor:
        floor = z.detach().floor()
        height = 2 * torch.tanh(torch.tensor(0.5 / self.temperature, dtype=z.dtype, device=z.device))
        return floor + 0.5 + torch.tanh((z - floor - 0.5) / self.temperature) / height


@dataclass(frozen=True)
class SoftQuantizer:
    """JPEG-DL's: the mean of the integers near z, weighted by softmax(-sharpness (z - i)^2). Changes the forward.

    Salamah et al., ICLR 2025. sharpness: alpha q^2, for their alpha multiplies (F - i q)^2; the larger, the nearer to
    round(z). reach: integers on either side of round(z) that are summed over. ValueError if a setting is not positive.
    """

    sharpness: float = 5.0
    reach: int = 2
    exact = False

    def __post_init__(self) -> None:
        _positive("sharpness", self.sharpness)
        _positive("reach", self.reach)

    def __call__(self, z: Tensor) -> Tensor:
        r = round_half_away(z.detach())
        levels = _levels(z, self.reach)
        weights = torch.softmax(-self.sharpness * (z - r)[..., None].sub(levels).square(), -1)
        return r + weights @ levels


@dataclass(frozen=True)
class RelaxedQuantization:
    """A random integer near z, relaxed (Louizos et al., ICLR 2019). Changes the forward, at random.

    z gets logistic noise of the given scale; an integer's probability is that of the noisy z being rounded to it; one
    is drawn by Gumbel softmax at the given temperature (towards 0: a hard draw). reach: integers on either side of
    round(z) that can be drawn. generator: where draws come from; on the device of z. ValueError if not positive.
    """

    generator: torch.Generator
    scale: float = 0.15
    temperature: float = 0.5
    reach: int = 2
    exact = False

    def __post_init__(self) -> None:
        for name in ("scale", "temperature", "reach"):
            _positive(name, getattr(self, name))

    def __call__(self, z: Tensor) -> Tensor:
        r = round_half_away(z.detach())
        levels = _levels(z, self.reach)
        distance = (levels - (z - r)[..., None]) / self.scale
        half = 0.5 / self.scale
        # log(sigmoid(distance + half) - sigmoid(distance - half)) but for a constant; does not underflow far from z.
        log_probability = F.logsigmoid(distance + half) + F.logsigmoid(half - distance)
        gumbel = -torch.empty_like(distance).exponential_(generator=self.generator).log()
        return r + torch.softmax((log_probability + gumbel) / self.temperature, -1) @ levels


ROUNDINGS: Final[Mapping[str, Rounding]] = MappingProxyType(
    {
        "ste": STE(),
        "cubic": Cubic(),
        "cubic-gradient": Cubic(exact=True),
        "soft": Soft(),
        "jpeg-dl": SoftQuantizer(),
    }
)
"""Surrogates by name, with their default settings; the random ones have none, for their generator is an argument."""


def named(rounding: str | Rounding) -> Rounding:
    """A surrogate by its name in `ROUNDINGS`, or itself. ValueError for other names."""
    if not isinstance(rounding, str):
        return rounding
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding {rounding!r} is unknown; allowed: {', '.join(ROUNDINGS)}, or a Rounding object")
    return ROUNDINGS[rounding]


def pullback(rounding: Rounding, z: Tensor, gradient: Tensor) -> Tensor:
    """`gradient` of a loss with respect to rounding(z) -> its gradient with respect to z."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (pulled,) = torch.autograd.grad(rounding(z), z, gradient)
    return pulled
