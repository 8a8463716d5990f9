"""Surrogates of round(): values, gradients, limits and distributions against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from qtable.jpeg.rounding import (
    ROUNDINGS,
    STE,
    Cubic,
    RelaxedQuantization,
    Rounding,
    Soft,
    SoftQuantizer,
    UniformNoise,
    named,
    pullback,
    round_half_away,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


RANDOM: dict[str, Callable[[], Rounding]] = {
    "noise": lambda: UniformNoise(seeded()),
    "relaxed": lambda: RelaxedQuantization(seeded()),
}
ALL: dict[str, Callable[[], Rounding]] = {**{name: partial(named, name) for name in ROUNDINGS}, **RANDOM}


def values() -> Tensor:
    """float64: a range that holds integers, halves and the rest, of both signs."""
    return torch.cat((torch.arange(-12, 13) / 4.0, torch.randn(200, generator=seeded()) * 5)).double()


def slope(rounding: Rounding, z: Tensor) -> Tensor:
    return pullback(rounding, z, torch.ones_like(z))


def test_halves_are_rounded_away_from_zero() -> None:
    z = torch.tensor([-2.5, -1.5, -0.5, -0.4, 0.4, 0.5, 1.5, 2.5])
    assert round_half_away(z).tolist() == [-3, -2, -1, 0, 0, 1, 2, 3]


@pytest.mark.parametrize("name", ALL)
def test_exact_says_whether_the_value_is_round(name: str) -> None:
    rounding, z = ALL[name](), values()
    out = rounding(z)
    assert out.shape == z.shape
    assert out.dtype == z.dtype
    assert rounding.exact == torch.equal(out, round_half_away(z))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_stay_near_round_and_gradients_are_finite(name: str, dtype: torch.dtype) -> None:
    rounding = ALL[name]()
    z = torch.cat((values().to(dtype), torch.tensor([-1024.0, 1000.3], dtype=dtype)))
    assert (rounding(z) - z).abs().max() <= 2.5
    assert slope(rounding, z).isfinite().all()


def test_the_straight_through_gradient_is_one() -> None:
    assert torch.equal(slope(STE(), values()), torch.ones_like(values()))


@pytest.mark.parametrize("exact", [False, True])
def test_the_cubics_value_and_gradient(exact: bool) -> None:
    z = values()
    r = round_half_away(z)
    torch.testing.assert_close(Cubic(exact=exact)(z), r if exact else r + (z - r) ** 3)
    torch.testing.assert_close(slope(Cubic(exact=exact), z), 3 * (z - r) ** 2)


def test_noise_is_uniform_repeatable_and_has_gradient_one() -> None:
    z = torch.full((100_000,), 0.3, dtype=torch.float64)
    noise = UniformNoise(seeded(5))(z) - z
    assert torch.equal(noise, UniformNoise(seeded(5))(z) - z)
    assert noise.min() >= -0.5
    assert noise.max() < 0.5
    assert abs(float(noise.mean())) < 0.005
    assert float(noise.var()) == pytest.approx(1 / 12, rel=0.02)
    assert torch.equal(slope(UniformNoise(seeded()), z), torch.ones_like(z))


def test_the_soft_staircase_runs_from_identity_to_round() -> None:
    z = values()
    away = (z - z.floor() - 0.5).abs() > 0.05  # from the halves
    torch.testing.assert_close(Soft(0.005)(z[away]), round_half_away(z[away]), atol=1e-6, rtol=0)
    torch.testing.assert_close(Soft(1000.0)(z), z, atol=1e-6, rtol=0)
    integers = torch.arange(-4.0, 5.0)
    torch.testing.assert_close(Soft(0.3)(integers), integers)


def test_the_soft_quantizer_is_a_softmax_weighted_mean_of_levels() -> None:
    z = torch.tensor([1.7], dtype=torch.float64)
    levels = torch.arange(0.0, 5.0, dtype=torch.float64)
    weights = torch.exp(-3.0 * (z - levels) ** 2)
    torch.testing.assert_close(SoftQuantizer(sharpness=3.0)(z), (weights * levels).sum(0, keepdim=True) / weights.sum())
    torch.testing.assert_close(SoftQuantizer(sharpness=1e4)(z), torch.tensor([2.0], dtype=torch.float64))


@pytest.mark.parametrize("rounding", [Soft(0.4), SoftQuantizer(), Cubic()], ids=repr)
def test_gradcheck_of_the_smooth_ones(rounding: Rounding) -> None:
    z = (torch.rand(50, dtype=torch.float64, generator=seeded(2)) * 0.4 + torch.arange(-25, 25)).requires_grad_()
    assert torch.autograd.gradcheck(rounding, (z,))


def test_gradcheck_of_relaxed_quantization_with_its_draws_held() -> None:
    z = (torch.rand(50, dtype=torch.float64, generator=seeded(2)) * 0.4 + torch.arange(-25, 25)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: RelaxedQuantization(seeded(7))(z), (z,))


def test_relaxed_quantizations_hard_draws_follow_the_logistic_distribution() -> None:
    scale, place = 0.4, 0.3
    z = torch.full((50_000,), place, dtype=torch.float64)
    draws = RelaxedQuantization(seeded(1), scale=scale, temperature=1e-3, reach=4)(z)
    assert (draws - draws.round()).abs().mean() < 0.01

    def cdf(x: float) -> float:
        return float(torch.sigmoid(torch.tensor((x - place) / scale)))

    for level in (-1, 0, 1):
        expected = cdf(level + 0.5) - cdf(level - 0.5)
        assert float((draws.round() == level).double().mean()) == pytest.approx(expected, abs=0.01)


def test_names_and_settings_are_checked() -> None:
    assert named("ste") == STE()
    soft = Soft(0.1)
    assert named(soft) is soft
    with pytest.raises(ValueError, match=r"rounding 'floor' is unknown; allowed: ste, cubic"):
        named("floor")
    with pytest.raises(ValueError, match=r"temperature = 0 must be above 0"):
        Soft(0)
    with pytest.raises(ValueError, match=r"sharpness = -1 must be above 0"):
        SoftQuantizer(sharpness=-1)
    with pytest.raises(ValueError, match=r"scale = nan must be above 0"):
        RelaxedQuantization(seeded(), scale=float("nan"))
