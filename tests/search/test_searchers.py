"""One suite over every searcher: what the loop and the archive rely on, and that it learns."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from search.base import Points
from tests.search.conformance import (
    ENERGIES,
    FACTORIES,
    LINE,
    NOT_BETTER,
    NOT_BETTER_FROM_A_START,
    Bowls,
    bowls_box,
    box_of,
    draw_from_global_generators,
    energy_after,
    global_states,
    rounds,
    spend,
    volume_after,
)

ROUNDS = 12
every = pytest.mark.parametrize("name", FACTORIES)
every_with_start = pytest.mark.parametrize("name", [name for name in FACTORIES if name not in LINE])
every_learner = pytest.mark.parametrize("name", [name for name in FACTORIES if name not in NOT_BETTER])


@every
def test_points_are_integers_in_the_box(name: str) -> None:
    box = box_of(name)
    asked, _ = zip(*rounds(FACTORIES[name](box, np.random.default_rng(0), None), Bowls(box), 40), strict=True)
    for points in asked:
        assert points.dtype == np.int64
        assert points.ndim == 2
        assert len(points) >= 1
        assert points.shape[1] == box.dimension
        assert box.contains(points).all()
    assert len(np.unique(np.concatenate(asked), axis=0)) > 10


@every
def test_the_same_seed_gives_the_same_run_whatever_else_draws(name: str) -> None:
    box = box_of(name)

    def run(seed: int, disturb: int) -> list[Points]:
        random.seed(disturb)
        np.random.seed(disturb)  # noqa: NPY002
        torch.manual_seed(disturb)
        searcher, asked = FACTORIES[name](box, np.random.default_rng(seed), None), []
        for _ in range(ROUNDS):
            before = global_states()
            points = searcher.ask()
            losses = Bowls(box)(points)
            searcher.tell(points, losses)
            assert global_states() == before, "it draws from a global generator"
            asked.append(points.copy())
            for _ in range(disturb):
                draw_from_global_generators()
        return asked

    first, second, third = (np.concatenate(run(*how)) for how in ((5, 0), (5, 3), (6, 0)))
    np.testing.assert_array_equal(first, second)
    assert name in LINE or not np.array_equal(first, third)


@every
def test_replaying_restores_a_searcher(name: str) -> None:
    box = box_of(name)
    searcher = FACTORIES[name](box, np.random.default_rng(3), None)
    told = rounds(searcher, Bowls(box), ROUNDS)
    fresh = FACTORIES[name](box, np.random.default_rng(3), None)
    for points, losses in told:
        np.testing.assert_array_equal(fresh.ask(), points)
        fresh.tell(points, losses)
    for _ in range(3):
        np.testing.assert_array_equal(points := fresh.ask(), searcher.ask())
        for one in (fresh, searcher):
            one.tell(points, Bowls(box)(points))


@every_learner
def test_better_than_random_on_two_bowls(name: str) -> None:
    """After 160 evaluations by its own objective, hypervolume or energy; median of three seeds."""
    if name in ENERGIES:
        assert energy_after(name, 160, ENERGIES[name]) < 0.5 * energy_after("random", 160, ENERGIES[name])
    else:
        assert volume_after(name, 160) > 1.1 * volume_after("random", 160)


@every_with_start
def test_start_points_are_asked_first(name: str) -> None:
    box = box_of(name)
    start = np.random.default_rng(9).integers(box.low, box.high, size=(5, box.dimension), endpoint=True)
    given = start.copy()
    asked, _ = spend(FACTORIES[name](box, np.random.default_rng(0), start), Bowls(box), 60)
    np.testing.assert_array_equal(asked[:5], given)
    np.testing.assert_array_equal(start, given)
    assert box.contains(asked).all()


@pytest.mark.parametrize("name", [name for name in FACTORIES if name not in NOT_BETTER | NOT_BETTER_FROM_A_START])
def test_start_points_are_built_upon(name: str) -> None:
    """Started from five points of the front, the next 60 points lie lower than those of a cold start."""
    box = bowls_box()
    means = []
    for start in (Bowls(box).front(5), None):
        searchers = (FACTORIES[name](box, np.random.default_rng(seed), start) for seed in range(3))
        losses = np.stack([spend(searcher, Bowls(box), 65)[1][5:] for searcher in searchers])
        means.append((losses / [4.0, 0.6]).mean())
    assert means[0] < 0.95 * means[1]


@every_with_start
def test_a_start_outside_the_box_is_refused(name: str) -> None:
    box = box_of(name)
    outside = np.stack([box.low, box.high])
    outside[1, 2] += 1
    with pytest.raises(ValueError, match=r"start \[1, 2\] = 6 is outside the box; allowed: 5..5"):
        FACTORIES[name](box, np.random.default_rng(0), outside)
    with pytest.raises(ValueError, match=r"start of shape \(2, 3\); expected \[m, \d+\]"):
        FACTORIES[name](box, np.random.default_rng(0), outside[:, :3])


@every_with_start
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_losses_that_are_no_numbers_are_refused(name: str, bad: float) -> None:
    box = box_of(name)
    searcher = FACTORIES[name](box, np.random.default_rng(0), None)
    points = searcher.ask()
    losses = Bowls(box)(points)
    losses[-1, 1] = bad
    with pytest.raises(ValueError, match=rf"loss \[{len(points) - 1}, 1\] is .*finite"):
        searcher.tell(points, losses)
    with pytest.raises(ValueError, match=r"losses of shape .* expected"):
        searcher.tell(points, losses[:, :1])
