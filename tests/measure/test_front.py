from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qtable.measure.front import Curve, bd_rate, hypervolume, interval, pareto, resamples, size_change

points = hnp.arrays(np.int64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(1, 6))


@given(points)
def test_pareto_equals_brute_force(p: Any) -> None:
    sizes, scores = p.T
    kept = {(sizes[i], scores[i]) for i in pareto(sizes, scores)}
    expected = {
        (a, s)
        for a, s in zip(sizes, scores, strict=True)
        if not ((sizes <= a) & (scores >= s) & ((sizes < a) | (scores > s))).any()
    }
    assert kept == expected
    assert len(kept) == len(pareto(sizes, scores))


def test_hypervolume_of_two_rectangles() -> None:
    # (log2 size, score) = (1, .5) and (2, .75) against (4, 0): 3 x .5 + 2 x .25
    assert hypervolume([2, 4], [0.5, 0.75], worst_size=16) == pytest.approx(2.0)
    assert hypervolume([2, 4, 8], [0.5, 0.75, 0.6], worst_size=16) == pytest.approx(2.0)


def test_bd_rate_of_a_scaled_curve_is_the_scale() -> None:
    sizes, scores = np.array([1e3, 2e3, 5e3, 9e3]), np.array([0.3, 0.5, 0.6, 0.62])
    anchor = Curve.fit(sizes, scores)
    assert bd_rate(anchor, Curve.fit(0.8 * sizes, scores)) == pytest.approx(-0.2)
    assert bd_rate(anchor, anchor) == 0
    assert size_change(anchor, Curve.fit(0.8 * sizes, scores), 0.55) == pytest.approx(-0.2)


def test_bd_rate_is_the_mean_log_gap() -> None:
    # the gap in log(bytes) rises linearly from 0 to log 2 over the shared scores: the mean is log 2 / 2
    anchor = Curve.fit([100, 1000], [0.1, 0.9])
    assert bd_rate(anchor, Curve.fit([100, 2000], [0.1, 0.9])) == pytest.approx(np.sqrt(2) - 1)


def test_curves_that_share_no_score_have_no_bd_rate() -> None:
    low, high = Curve.fit([1, 2], [0.1, 0.2]), Curve.fit([3, 4], [0.3, 0.4])
    assert np.isnan(bd_rate(low, high))
    assert np.isnan(size_change(low, high, 0.15))


def test_noise_is_averaged_and_not_picked() -> None:
    curve = Curve.fit([1, 2, 8], [0.5, 0.7, 0.6])
    assert curve.scores.tolist() == pytest.approx([0.5, 0.65])
    assert np.exp(curve.log_sizes).tolist() == pytest.approx([1, 4])


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        sample = rng.random(100) < 0.3
        low, high = interval(sample[np.array(list(resamples(100, 400, rng)))].mean(axis=1))
        covered += low <= 0.3 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_interval_of_nothing_is_nan() -> None:
    assert np.isnan(interval([np.nan, np.nan, 1.0])).all()


@pytest.mark.parametrize("photos", [1, 7, 840])
def test_resamples_are_those_that_numpy_draws_at_once(photos: int) -> None:
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    drawn = resamples(photos, 21, rng)
    at_once = other.integers(0, photos, size=(21, photos))
    assert np.array_equal(np.array(list(drawn)), at_once)
    assert np.array_equal(np.array(list(drawn)), at_once)  # as often as one likes
    assert rng.random() == other.random()
