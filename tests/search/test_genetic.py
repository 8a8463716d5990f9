"""The genetic searchers' parts, and how the notebook's two collapse where NSGA-II does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest

from search.base import Box, Losses
from search.genetic import Genetic, NotebookGenetic, RateCurve, crossed, mutated, nsga2_order, spea2_order
from tests.search.conformance import Bowls, rounds, spend, volume

BOX = Box(np.full(16, -40), np.full(16, 40))
STAIRS = np.array([[0.0, 4.0], [1.0, 3.0], [1.1, 2.9], [4.0, 0.0], [1.5, 3.5], [4.0, 4.0]])
"""Four nondominated losses, two of them close; one dominated by two, one by all."""


def test_nsga2_orders_by_rank_then_crowding() -> None:
    order = nsga2_order(STAIRS)
    assert set(order[:2]) == {0, 3}  # the ends of the front: infinite distance
    assert order[2:].tolist() == [2, 1, 4, 5]


def test_spea2_orders_by_truncation_then_strength() -> None:
    """Truncation to k drops one of the two close ones first and keeps the ends."""
    order = spea2_order(STAIRS)
    assert set(order[:2]) == {0, 3}
    assert set(order[2:4]) == {1, 2}
    assert order[4:].tolist() == [4, 5]


@pytest.mark.parametrize("order", [nsga2_order, spea2_order])
def test_less_violation_dominates(order: Callable[[Losses, tuple[float, float]], npt.NDArray[np.intp]]) -> None:
    """Inside the window 1..2 stand 1, 2 and 4; of the others 0 violates it by 1, 3 and 5 by 2."""
    ordered = order(STAIRS, (1.0, 2.0)).tolist()
    assert set(ordered[:2]) == {1, 2}
    assert ordered[2:4] == [4, 0]
    assert ordered[4:] == [3, 5]


def test_crossover_exchanges_whole_groups_or_blends() -> None:
    rng, group = np.random.default_rng(0), np.repeat(np.arange(4), 4)
    a, b = np.zeros(16, np.int64), np.full(16, 10)
    children = np.stack([crossed(rng, a, b, group) for _ in range(4000)])
    blended = (children == children[:, :1]).all(axis=1) & ~np.isin(children[:, 0], (0, 10))
    exchanged = children[~blended].reshape(-1, 4, 4)
    assert 0.45 < blended.mean() < 0.55
    assert np.isin(exchanged, (0, 10)).all()
    assert (exchanged == exchanged[:, :, :1]).all()
    assert len(np.unique(exchanged[:, :, 0], axis=0)) == 16
    assert children.mean() == pytest.approx(5, abs=0.2)
    assert children[blended, 0].var() == pytest.approx(25, rel=0.1)  # the parents' own


def test_mutation_moves_between_one_and_all_groups_and_some_as_one() -> None:
    rng, group, point = np.random.default_rng(0), np.repeat(np.arange(4), 4), np.zeros(16, np.int64)
    moves = np.stack([mutated(rng, point, BOX, group) for _ in range(2000)]).reshape(-1, 4, 4)
    moved_groups = (moves != 0).any(axis=2).sum(axis=1)
    assert set(moved_groups) == {1, 2, 3, 4}
    assert ((moves != 0).any(axis=2) == (moves != 0).all(axis=2)).all()
    assert 0.45 < (moves == moves[:, :, :1]).all(axis=(1, 2)).mean() < 0.6
    assert np.abs(moves.mean()) < 0.3
    assert 1 < np.abs(moves[moves != 0]).mean() < 10


def test_a_rate_window_is_kept() -> None:
    """Like "constrain the compression rate to be around 20": column 0 in 0.1..0.25, where no random point is."""
    box = Box(np.full(32, -40), np.full(32, 40))
    searcher = Genetic(box, np.random.default_rng(0), window=(0.1, 0.25))
    _, losses = spend(searcher, Bowls(box), 400)
    inside = (losses[:, 0] >= 0.1) & (losses[:, 0] <= 0.25)
    assert not inside[:24].any()
    assert inside[-100:].mean() > 0.5
    kept = Bowls(box)(searcher.points)[:, 0]
    assert ((kept >= 0.1) & (kept <= 0.25)).all()


def test_no_point_is_asked_twice() -> None:
    small = Box(np.zeros(3, np.int64), np.full(3, 9))
    asked, _ = spend(Genetic(small, np.random.default_rng(0)), Bowls(small), 200)
    assert len(np.unique(asked, axis=0)) >= 198  # of 1000; the first population is uniform and may repeat itself
    tiny = Box(np.array([0, 0]), np.array([2, 2]))
    rounds(Genetic(tiny, np.random.default_rng(0)), Bowls(tiny), 5)  # nine points only: asks again


@pytest.mark.parametrize("fitness", ["product", "curve"])
def test_the_notebooks_population_becomes_one_point_and_nsga2s_does_not(fitness: Literal["product", "curve"]) -> None:
    """ "Gradually becomes the same Qtable", "GA always gradually converges one point" (August 28th)."""
    notebook, cured = (
        NotebookGenetic(BOX, np.random.default_rng(0), fitness=fitness),
        Genetic(BOX, np.random.default_rng(0)),
    )
    losses = {}
    for searcher in (notebook, cured):
        rounds(searcher, Bowls(BOX), 1)
        assert 0.2 < searcher.spread < 0.35
        losses[searcher] = spend(searcher, Bowls(BOX), 400)[1]
    assert notebook.spread < 0.01
    assert cured.spread > 0.05
    assert volume(losses[cured]) > 2 * volume(losses[notebook])
    assert np.ptp(Bowls(BOX)(notebook.points)[:, 0]) < 0.02 < 0.3 < np.ptp(Bowls(BOX)(cured.points)[:, 0])


def test_rate_curves_are_fitted_exactly_where_they_can() -> None:
    scores = np.linspace(0.3, 0.9, 15)
    rates = 40 - 30 * scores**2
    losses = np.column_stack([-np.log2(rates), 1 - scores])
    for degree in (2, 3):
        assert RateCurve.fit(losses, degree).heights(losses) == pytest.approx(np.zeros(15), abs=1e-9)
    above = losses - [1.0, 0.0]  # half the bytes
    curve = RateCurve.fit(losses, 2)
    assert curve.heights(above) == pytest.approx(curve.rates(losses))


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="population 1; allowed: 2"):
        Genetic(BOX, np.random.default_rng(0), population=1)
    with pytest.raises(ValueError, match=r"groups of shape \(3,\); expected \(16,\)"):
        Genetic(BOX, np.random.default_rng(0), groups=np.arange(3))
