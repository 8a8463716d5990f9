"""Chains against the distribution that they should have, and the notebook's walks against what the notebook says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from search.base import Box, Losses, Points
from search.mcmc import Annealing, Metropolis, NotebookWalk, Tempering, five_point_means, propose, reflected
from tests.search.conformance import Bowls, rounds

GRID = Box(np.array([-2, 1]), np.array([2, 4]))
LANDSCAPE = np.random.default_rng(8).uniform(0, [3.0, 1.0], size=(5, 4, 2))
"""Losses of the 5 x 4 grid: arbitrary, with several local minima."""
T = 0.5


def landscape(points: Points) -> Losses:
    return np.asarray(LANDSCAPE[tuple((points - GRID.low).T)])


def cells(points: Points) -> npt.NDArray[np.int64]:
    return np.asarray((points - GRID.low) @ [4, 1])


def boltzmann(multiplier: float) -> npt.NDArray[np.float64]:
    """exp(-E / T) / Z over the 20 cells."""
    weights = np.exp(-(LANDSCAPE[..., 1] + multiplier * LANDSCAPE[..., 0]).ravel() / T)
    return np.asarray(weights / weights.sum())


def test_chains_have_the_boltzmann_distribution() -> None:
    """The last points of 4,000 independent chains, by chi-square."""
    searcher = Metropolis(
        GRID, np.random.default_rng(0), multipliers=[0.4] * 4000, temperature=T, share=0.6, step=0.4, burn_in=0
    )
    rounds(searcher, landscape, 60)
    counts = np.bincount(cells(searcher.points), minlength=20)
    assert stats.chisquare(counts, 4000 * boltzmann(0.4)).pvalue > 0.01
    assert ((searcher.acceptance > 0.2) & (searcher.acceptance <= 1.0)).all()


def test_every_chain_of_tempering_has_its_own_boltzmann_distribution() -> None:
    """Total variation over 12,000 rounds; neighbours on the ladder differ by five times the tolerance."""
    ladder = [0.05, 0.4, 1.0, 2.5]
    searcher = Tempering(
        GRID, np.random.default_rng(0), multipliers=ladder, temperature=T, share=0.6, step=0.4, burn_in=0
    )
    rounds(searcher, landscape, 1)
    counts = np.zeros((4, 20))
    for _ in range(12_000):
        rounds(searcher, landscape, 1)
        counts[np.arange(4), cells(searcher.points)] += 1
    expected = np.stack([boltzmann(multiplier) for multiplier in ladder])
    assert (np.abs(counts / 12_000 - expected).sum(axis=1) / 2 < 0.025).all()
    assert (np.abs(np.diff(expected, axis=0)).sum(axis=1) / 2 > 0.125).all()
    assert ((searcher.swap_acceptance > 0.2) & (searcher.swap_acceptance < 1.0)).all()


def test_the_proposal_is_symmetric() -> None:
    """How often cell i leads to cell j and j to i: equal within four standard errors, also at the bounds."""
    n, rng = 4000, np.random.default_rng(0)
    matrix = np.zeros((20, 20))
    for i in range(20):
        here = np.tile(GRID.low + np.array(divmod(i, 4)), (n, 1))
        matrix[i] = np.bincount(cells(propose(rng, here, GRID, 0.6, np.full(n, 0.4))), minlength=20)
    assert (np.abs(matrix - matrix.T) <= 4 * np.sqrt(matrix + matrix.T)).all()
    assert (matrix.sum(axis=1) == n).all()


def test_reflection_has_its_mirrors_half_a_step_outside() -> None:
    box = Box(np.array([-1]), np.array([2]))
    folded = reflected(np.arange(-6, 8)[:, None], box).ravel()
    assert folded.tolist() == [2, 2, 1, 0, -1, -1, 0, 1, 2, 2, 1, 0, -1, -1]


def test_steps_adapt_during_the_burn_in_only() -> None:
    box = Box(np.zeros(16, np.int64), np.full(16, 200))
    searcher = Metropolis(box, np.random.default_rng(0), multipliers=[0.15] * 20, share=1.0, step=0.5, burn_in=300)
    rounds(searcher, Bowls(box), 301)
    steps, before = searcher._steps.copy(), searcher.acceptance * 300
    rounds(searcher, Bowls(box), 300)
    assert (searcher._steps == steps).all()
    assert abs((searcher.acceptance * 600 - before).mean() / 300 - 0.234) < 0.08


def test_each_chain_begins_at_the_start_of_its_lowest_energy() -> None:
    start = np.array([divmod(i, 4) for i in range(20)]) + GRID.low
    searcher = Tempering(GRID, np.random.default_rng(0), start=start, multipliers=[0.01, 5.0], temperature=1e-9)
    rounds(searcher, landscape, 1)
    assert cells(searcher.points).tolist() == [LANDSCAPE[..., 1].argmin(), (LANDSCAPE @ [5.0, 1.0]).argmin()]


def test_annealing_cools_to_the_bottom() -> None:
    box = Box(np.full(8, -30), np.full(8, 30))
    searcher = Annealing(box, np.random.default_rng(0), rounds=400)
    hot = searcher.temperature
    energies = []
    for _ in range(401):
        rounds(searcher, Bowls(box), 1)
        energies.append(float(Bowls(box)(searcher.points)[0] @ [0.15, 1.0]))
    assert searcher.temperature == pytest.approx(hot / 100)
    assert np.mean(energies[-20:]) < 0.075 + 0.005 < np.mean(energies[:50]) - 0.03  # 0.075 is the least there is


def test_tempering_orders_its_chains_along_the_front() -> None:
    box = Box(np.full(8, -30), np.full(8, 30))
    searcher = Tempering(box, np.random.default_rng(0))
    rounds(searcher, Bowls(box), 300)
    rates = [Bowls(box)(p)[:, 0].mean() for p in np.split(searcher.points, 6)]
    assert rates[0] > rates[2] > rates[5]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"temperature": 0.0}, "temperature 0.0"), ({"share": 0.0}, "share 0.0"), ({"multipliers": [1.0]}, "ladder of 1")],
)
def test_options_out_of_range_are_refused(options: dict[str, float | Sequence[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tempering(GRID, np.random.default_rng(0), **options)  # type: ignore[arg-type]


TABLE = Box(np.ones(64, np.int64), np.full(64, 255))


def test_five_point_means() -> None:
    point = np.zeros((8, 8), np.int64)
    point[0, 0], point[4, 5] = 10, 20
    means = five_point_means(point.ravel()).reshape(8, 8)
    assert means[:2, :2].tolist() == [[6, 2], [2, 0]]
    assert means[3:6, 4:7].tolist() == [[0, 4, 0], [4, 4, 4], [0, 4, 0]]
    with pytest.raises(ValueError, match="8 x 8 blocks"):
        NotebookWalk(GRID, np.random.default_rng(0), proposal="average")


def test_the_notebooks_average_becomes_one_value() -> None:
    """ "Eventually they become one value" (August 28th)."""
    searcher = NotebookWalk(TABLE, np.random.default_rng(0), proposal="average")
    rounds(searcher, Bowls(TABLE), 1)
    assert searcher.point.std() > 50
    rounds(searcher, Bowls(TABLE), 1000)
    assert searcher.point.std() < 5


def test_the_notebooks_steps_only_degrade_where_a_chain_improves() -> None:
    """ "The MCMC results only degrades" (August 24th); started alike, from fifteen points around the front."""
    noise = np.random.default_rng(1).integers(-40, 40, size=(15, 64), endpoint=True)
    start = np.clip(Bowls(TABLE).front(15) + noise, 1, 255)
    walk = NotebookWalk(TABLE, np.random.default_rng(0), start=start)
    chain = Metropolis(TABLE, np.random.default_rng(0), start=start)
    for searcher in (walk, chain):
        rounds(searcher, Bowls(TABLE), 400)
    best = (Bowls(TABLE)(start) @ [0.15, 1.0]).min()
    degraded, improved = Bowls(TABLE)(np.stack([walk.point, chain.points[0]])) @ [0.15, 1.0]
    assert degraded > 1.3 * best
    assert improved < 0.97 * best
    assert 0.2 <= walk.acceptance <= 0.8
