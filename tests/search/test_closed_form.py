from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.estimates import Floats, distortion, entropy_bits
from qtable.measure.sensitivity import BINS, RESOLUTION, Sensitivity, measure
from qtable.photos.sets import Photos
from qtable.tasks.classification import Classifier
from search.base import Box
from search.closed_form import Lagrangian, Sweep, shrinkage_for, shrunk
from tests.jpeg.planted import Planted


def histogram(values: Floats, weights: float = 1.0) -> Floats:
    bins = np.rint(np.abs(values) * RESOLUTION).astype(int)
    counted: Floats = weights * np.bincount(bins, minlength=BINS).astype(np.float64)
    return counted


def test_distortion_and_entropy_equal_their_definitions() -> None:
    rng = np.random.default_rng(0)
    values = np.rint(rng.laplace(0, 20, 500) * RESOLUTION) / RESOLUTION
    levels = np.zeros((3, 64, BINS))
    levels[0, 5] = histogram(values)
    d, r = distortion(levels)[0, 5], entropy_bits(replace(Sensitivity.zero(), levels=levels))[0, 5]
    for q in (1, 2, 7, 40, 255):
        k = np.sign(values) * np.floor(np.abs(values) / q + 0.5)
        assert d[q - 1] == pytest.approx(np.square(values - q * k).sum())
        _, n = np.unique(np.abs(k), return_counts=True)
        signs = (k != 0).sum()
        assert r[q - 1] == pytest.approx(-(n * np.log2(n / 500)).sum() + signs)


def test_brute_force_on_two_frequencies_finds_the_same_tables() -> None:
    rng = np.random.default_rng(1)
    levels, costs = np.zeros((3, 64, BINS)), np.zeros((3, 64, BINS))
    for k, scale, weight in ((1, 30.0, 2.0), (9, 12.0, 0.3)):
        values = np.rint(rng.laplace(0, scale, 400) * RESOLUTION) / RESOLUTION
        levels[0, k], costs[0, k] = histogram(values), histogram(values, weight)
    statistics = replace(Sensitivity.zero(), levels=levels, costs=costs, photos=1)
    problem = Lagrangian.of(statistics, count=1)
    d, r = distortion(costs)[0], entropy_bits(statistics)[0]
    for multiplier in (1.0, 20.0, 300.0):
        best = min(
            itertools.product(range(255), repeat=2),
            key=lambda q: d[1, q[0]] + d[9, q[1]] + multiplier * (r[1, q[0]] + r[9, q[1]]),
        )
        found = problem.solve(multiplier).values[0].reshape(64)
        assert (found[1] - 1, found[9] - 1) == best


def test_the_planted_frequency_stays_fine_and_the_rest_goes(crops: Photos) -> None:
    problem = Lagrangian.of(measure(crops, Classifier(Planted(2, 3, scale=190, squares=True)), Codec("4:4:4")))
    path = problem.path()
    bits = np.array([problem.bits_of(path.tables(np.array([i]))) for i in range(path.steps + 1)])
    luma = path.tables(np.array([(bits > 0.15 * problem.bits_of(QTables.standard(50))).sum()])).values[0]
    assert luma[2, 3] < 20
    assert np.delete(luma.ravel(), 8 * 2 + 3).min() > 3 * int(luma[2, 3])


def test_bits_fall_as_the_multiplier_rises(crops: Photos) -> None:
    problem = Lagrangian.of(measure(crops, Classifier(Planted(0, 1, scale=190, squares=True)), Codec()), count=3)
    space = problem.path(steps=10)
    bits = [problem.bits_of(space.tables(np.array([i]))) for i in range(11)]
    assert all(a >= b for a, b in itertools.pairwise(bits))
    assert bits[0] > 3 * bits[-1]
    assert space.tables(np.array([0])).count == 3


def test_tables_shared_by_chroma_weigh_both_components() -> None:
    rng = np.random.default_rng(2)
    problem = Lagrangian(rng.random((3, 64, 255)), rng.random((3, 64, 255)), count=2)
    assert np.array_equal(problem.shared(problem.costs)[1], problem.costs[1] + problem.costs[2])
    one = Lagrangian(problem.costs, problem.bits, count=1)
    assert np.allclose(one.shared(one.bits)[0], one.bits.sum(axis=0))


@pytest.mark.parametrize("high", [0, 1, 2, 7, 128])
def test_sweep_visits_every_point_once_and_spreads(high: int) -> None:
    sweep = Sweep(Box(np.array([0]), np.array([high])))
    points = [int(sweep.ask()[0, 0]) for _ in range(high + 1)]
    assert sorted(points) == list(range(high + 1))
    if high == 128:
        assert points[:5] == [0, 128, 64, 32, 96]


def test_shrinkage_leads_to_a_smooth_surface_and_ends_with_many_photos() -> None:
    rng = np.random.default_rng(0)
    smooth = 8 + 3 * np.add.outer(np.arange(8), np.arange(8))
    rough = QTables(np.rint(smooth * np.exp(rng.normal(0, 0.4, (8, 8)))))
    assert shrunk(rough, 0.0) == rough
    half, whole = shrunk(rough, 0.5), shrunk(rough, 1.0)
    log = [np.log(t.values[0].astype(float)) for t in (rough, half, whole)]
    assert np.abs(log[1] - (log[0] + log[2]) / 2).max() < 0.07  # rounding to integers
    second = np.diff(log[2], n=2, axis=0)
    assert np.abs(second).mean() < 0.4 * np.abs(np.diff(log[0], n=2, axis=0)).mean()
    assert shrunk(whole, 1.0).values == pytest.approx(whole.values, abs=1)
    assert [round(shrinkage_for(n), 2) for n in (8, 150, 10000)] == [0.5, 0.05, 0.0]
