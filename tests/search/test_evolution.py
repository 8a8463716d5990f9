from __future__ import annotations

import numpy as np
import pytest

from search.base import Box, Losses, Points
from search.dominance import crowding, first_generation, no_worse, survivors
from search.evolution import CMAES, DifferentialEvolution, gde3
from search.swarm import Firefly, ParticleSwarm, from_cube, to_cube
from tests.search.conformance import rounds, spend

BOX = Box(np.full(10, -50), np.full(10, 150))
MINIMUM = np.array([-50, -40, -7, 0, 3, 50, 71, 100, 149, 150])


def bowl(points: Points) -> Losses:
    """One bowl in both columns: its front is its minimum."""
    return np.repeat(np.square((points - MINIMUM) / 200).mean(axis=1)[:, None], 2, axis=1)


def flat(points: Points) -> Losses:
    return np.ones((len(points), 2))


def test_cma_es_reaches_the_minimum_of_a_bowl() -> None:
    searcher = CMAES(BOX, np.random.default_rng(0), multipliers=(1.0,))
    points, losses = spend(searcher, bowl, 2000)
    np.testing.assert_array_equal(points[losses[:, 0].argmin()], MINIMUM)


def test_cma_es_minimizes_each_weighting() -> None:
    """Two parabolas along every side, at 0 and 100: multiplier m has its minimum at 100 / (1 + m)."""

    def parabolas(points: Points) -> Losses:
        return np.column_stack([np.square(points).mean(axis=1), np.square(points - 100).mean(axis=1)]) / 1e4

    for multiplier, minimum in ((0.25, 80), (1.0, 50), (4.0, 20)):
        searcher = CMAES(BOX, np.random.default_rng(0), multipliers=(multiplier,))
        points, _ = spend(searcher, parabolas, 1500)
        assert abs(points[-100:].mean() - minimum) < 2


def test_cma_es_begins_at_the_start() -> None:
    start = np.stack([MINIMUM, BOX.high]).clip(-45, 145)
    asked = rounds(CMAES(BOX, np.random.default_rng(0), start=start), bowl, 4)
    cold = rounds(CMAES(BOX, np.random.default_rng(0)), bowl, 3)
    np.testing.assert_array_equal(asked[0][0], start)
    warm_losses, cold_losses = (np.concatenate([losses for _, losses in told]) for told in (asked[1:], cold))
    assert warm_losses.mean() < 0.5 * cold_losses.mean()


def test_cma_es_restarts_where_nothing_is_to_learn() -> None:
    """A flat landscape: without restarts the distribution stays around where it began."""
    points, _ = spend(CMAES(BOX, np.random.default_rng(0), multipliers=(1.0,)), flat, 3000)
    generations = points[:2990].reshape(-1, 10, 10).mean(axis=1)
    assert np.abs(np.diff(generations, axis=0)).mean(axis=1).max() > 40


def test_cma_es_refuses_a_box_of_one_side() -> None:
    with pytest.raises(ValueError, match="1 sides of more than one value; allowed: 2 or more"):
        CMAES(Box(np.array([0, 3]), np.array([9, 3])), np.random.default_rng(0))


def test_gde3_replaces_by_dominance_and_keeps_the_undecided() -> None:
    parents = np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 5.0], [3.0, 0.5]])
    children = np.array([[0.5, 1.0], [2.5, 2.0], [5.0, 0.0], [3.0, 0.5]])
    #                     dominates   dominated   undecided   equal: the child replaces
    assert sorted(gde3(parents, children, 8)) == [1, 2, 4, 6, 7]
    assert sorted(gde3(parents, children, 4)) == [2, 4, 6, 7], "the dominated one goes first"
    assert sorted(gde3(parents, children, 2)) == [2, 6], "then the crowded ones: the ends of the front stay"


def test_differential_evolution_reaches_the_minimum_of_a_bowl() -> None:
    _, losses = spend(DifferentialEvolution(BOX, np.random.default_rng(0)), bowl, 3000)
    assert losses[:, 0].min() < 1e-4


def test_differential_evolution_refuses_too_few() -> None:
    with pytest.raises(ValueError, match="population of 3; allowed: 4 or more"):
        DifferentialEvolution(BOX, np.random.default_rng(0), population=3)


@pytest.mark.parametrize("make", [ParticleSwarm, Firefly])
def test_swarms_gather_at_the_minimum_of_a_bowl(make: type[ParticleSwarm | Firefly]) -> None:
    _, losses = spend(make(BOX, np.random.default_rng(0)), bowl, 3000)
    assert losses[:, 0].min() < 0.001
    assert losses[-100:, 0].mean() < 0.02 * losses[:100, 0].mean()


def test_points_survive_the_unit_cube() -> None:
    box = Box(np.array([-3, 7]), np.array([2, 7]))
    points = np.array([[i, 7] for i in range(-3, 3)])
    np.testing.assert_array_equal(from_cube(box, to_cube(box, points)), points)
    drawn = from_cube(box, np.random.default_rng(0).random((6000, 2)))
    assert np.bincount(drawn[:, 0] + 3).min() > 850, "all values are equally likely, the ends too"
    np.testing.assert_array_equal(from_cube(box, np.array([[0.0, np.nextafter(1, 0)]])), [[-3, 7]])


def test_survivors_go_by_rank_then_crowding() -> None:
    losses = np.array([[0.0, 10.0], [4.0, 4.0], [5.0, 3.5], [10.0, 0.0], [11.0, 11.0], [4.0, 5.0]])
    np.testing.assert_allclose(crowding(losses[:4]), [np.inf, 0.5 + 0.65, 0.6 + 0.4, np.inf])
    assert survivors(losses, 6).tolist() == [0, 3, 1, 2, 5, 4]
    assert no_worse(losses[[0, 1, 1]], losses[[1, 1, 5]]).tolist() == [False, True, True]


def test_a_first_generation_surrounds_its_start() -> None:
    start = np.stack([MINIMUM, BOX.low])
    first = first_generation(BOX, np.random.default_rng(0), start, 200)
    np.testing.assert_array_equal(first[:2], start)
    nearest = np.abs(first[2:, None] - start).mean(axis=2).min(axis=1)
    assert nearest.max() < 35
    assert BOX.contains(first).all()
    assert len(first_generation(BOX, np.random.default_rng(0), first, 20)) == 200
