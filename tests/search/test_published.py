from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.sensitivity import BINS, RESOLUTION, Sensitivity, measure
from qtable.photos.sets import Photos
from qtable.tasks.classification import Classifier
from qtable.tasks.embedded import network
from search.published import PUBLISHED, _laplacian_distortion, deepn_jpeg, grace, opt_d, preset


@pytest.fixture(scope="module")
def statistics(crops: Photos) -> Sensitivity:
    return measure(crops, Classifier(network()), Codec())


def constant(f: float, g: float = 1.0) -> Sensitivity:
    """Every coefficient is +-f, every gradient +-g."""
    histograms = np.zeros((3, 64, BINS))
    histograms[..., int(f * RESOLUTION)] = 10
    return replace(Sensitivity.zero(), levels=histograms, costs=histograms * g * g, photos=1)


@pytest.mark.parametrize(
    ("name", "count"), [*((name, 2) for name in PUBLISHED if name[:4] != "mozj"), ("mozjpeg-3", 1), ("grace", 3)]
)
def test_paths_go_from_many_bits_to_few(statistics: Sensitivity, name: str, count: int) -> None:
    path = PUBLISHED[name](statistics, count)
    tables = [path.tables(np.array([point])) for point in (0, 32, 64, 96, 128)]
    assert all(t.count == count for t in tables)
    bits = [path.bits_of(t) for t in tables]
    assert all(a >= b for a, b in itertools.pairwise(bits))
    assert bits[1] > 1.5 * bits[3]


def test_deepn_maps_standard_deviations_as_published() -> None:
    for deviation, step in ((10, 158), (20, 60), (40, 40), (70, 30), (200, 5)):
        assert (deepn_jpeg(constant(deviation), 1).family(0.0).values == step).all(), deviation


def test_laplacian_distortion_is_the_integral() -> None:
    scale = 12.0
    formula = _laplacian_distortion(np.array([scale]))[0]
    x = np.linspace(0, 60 * scale, 400_001)
    density = np.exp(-x / scale) / scale
    for q in (3, 12, 40, 90):
        threshold = q - scale + q / np.expm1(q / scale)
        level = np.where(x < threshold, 0, np.floor((x - threshold) / q) + 1)
        assert formula[q - 1] == pytest.approx(np.trapezoid(np.square(x - q * level) * density, x), rel=1e-3)
    assert formula[0] == pytest.approx(1 / 12, rel=0.02)


def test_water_filling_zeroes_what_is_below_the_level_and_fills_the_rest() -> None:
    rng = np.random.default_rng(0)
    levels = np.zeros((3, 64, BINS))
    scales = np.linspace(40, 2, 64)
    for k, scale in enumerate(scales):
        bins = np.minimum(np.rint(np.abs(rng.laplace(0, scale, 4000)) * RESOLUTION), BINS - 1).astype(int)
        levels[:, k] = np.bincount(bins, minlength=BINS)
    level = 50.0
    steps = opt_d(replace(Sensitivity.zero(), levels=levels, photos=1), 1).family(np.log(level)).values.ravel()
    assert steps[0] == round(np.sqrt(12 * level))
    assert (steps[2 * scales**2 < 0.9 * level] == 255).all()
    kept = np.flatnonzero((2 * scales**2 > 1.1 * level) & (steps < 255))[1:]
    assert len(kept) > 40
    errors = _laplacian_distortion(scales)
    assert np.allclose(errors[kept, steps[kept] - 1], level, rtol=0.15)


def test_grace_shares_the_budget_and_passes_on_what_weak_frequencies_leave() -> None:
    statistics = constant(16.0)
    statistics.costs[:, 1:8] *= 1e-6  # g is a thousandth
    gradient = np.sqrt(statistics.costs.sum(axis=(0, 2)))
    most = gradient * np.sqrt(30 * 16.0**2)
    budget = 0.5 * most.sum()
    steps = grace(statistics, 1).family(np.log(budget)).values.ravel()
    assert (steps[1:8] == 255).all()
    share = (budget - most[1:8].sum()) / 57
    assert set(steps[8:].tolist()) == {round(2 * share / gradient[20])}


def test_presets_are_themselves_at_factor_one() -> None:
    assert preset("mozjpeg-2")(constant(10), 2).family(0.0) == QTables.preset("mozjpeg-2")
