"""What the conformance suite (test_searchers.py) needs: every searcher, the boxes and losses that it is tried on."""

from __future__ import annotations

import functools
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass

import moocore
import numpy as np
import torch

from search.base import Box, Losses, Points, Searcher
from search.bayesian import Bayesian
from search.closed_form import Sweep
from search.evolution import CMAES, DifferentialEvolution
from search.genetic import Genetic, NotebookGenetic
from search.mcmc import Annealing, Metropolis, NotebookWalk, Tempering
from search.random_search import RandomSearch
from search.swarm import Firefly, ParticleSwarm

Factory = Callable[[Box, np.random.Generator, Points | None], Searcher]


FACTORIES: dict[str, Factory] = {
    "random": lambda box, rng, start: RandomSearch(box, rng, start=start),
    "random-batch": lambda box, rng, start: RandomSearch(box, rng, 7, start=start),
    "sweep": lambda box, rng, start: Sweep(box),
    "nsga2": lambda box, rng, start: Genetic(box, rng, start=start),
    "nsga2-groups": lambda box, rng, start: Genetic(box, rng, start=start, groups=np.arange(box.dimension) // 2),
    "spea2": lambda box, rng, start: Genetic(box, rng, start=start, selection="spea2"),
    "genetic-product": lambda box, rng, start: NotebookGenetic(box, rng, start=start),
    "genetic-curve": lambda box, rng, start: NotebookGenetic(box, rng, start=start, fitness="curve"),
    "metropolis": lambda box, rng, start: Metropolis(box, rng, start=start),
    "annealing": lambda box, rng, start: Annealing(box, rng, start=start, rounds=160),
    "tempering": lambda box, rng, start: Tempering(box, rng, start=start),
    "walk-step": lambda box, rng, start: NotebookWalk(box, rng, start=start),
    "walk-average": lambda box, rng, start: NotebookWalk(box, rng, start=start, proposal="average"),
    "tpe": lambda box, rng, start: Bayesian(box, rng, start=start),
    "tpe-batch": lambda box, rng, start: Bayesian(box, rng, start=start, batch=4),
    "qmc": lambda box, rng, start: Bayesian(box, rng, start=start, sampler="qmc"),
    "cma-es": lambda box, rng, start: CMAES(box, rng, start=start),
    "differential-evolution": lambda box, rng, start: DifferentialEvolution(box, rng, start=start),
    "particle-swarm": lambda box, rng, start: ParticleSwarm(box, rng, start=start),
    "firefly": lambda box, rng, start: Firefly(box, rng, start=start),
}
"""name -> (box, rng, start) -> searcher: a new searcher is one new row."""

NOT_BETTER: dict[str, str] = {
    "random": "is what the others are compared with",
    "random-batch": "learns nothing",
    "sweep": "visits every point of a line; learns nothing",
    "genetic-product": "the notebook's: converges to one point, as it says",
    "genetic-curve": "the notebook's: converges to one point, as it says",
    "walk-step": "the notebook's: degrades, as it says",
    "walk-average": "the notebook's: all entries become one value, as it says",
    "qmc": "fills the box evenly; learns nothing",
}
"""Searchers that need not beat random search, and why."""

NOT_BETTER_FROM_A_START: dict[str, str] = {
    "cma-es": "begins at the middle of the box, a point of the front of `Bowls`; test_evolution.py starts it elsewhere",
}
"""Learners that `Bowls` cannot show to build upon a start, and why."""

LINE = {"sweep"}
"""Searchers of one-dimensional boxes; they take no start and look at no losses."""
BLOCKS = {"walk-average"}
"""Searchers whose points are 8 x 8 blocks."""
ENERGIES = {"metropolis": 0.15, "annealing": 0.15}
"""Searchers of one point instead of a front: they minimize column 1 + this * column 0."""


def box_of(name: str) -> Box:
    """A box with a side of one value and negative lows: d = 6; 64 for searchers of blocks, 1 for those of a line."""
    sides = [(-3, 20)] if name in LINE else [(-20, 20), (1, 255), (5, 5), (-9, -2), (0, 1), (-128, 127)]
    if name in BLOCKS:
        sides = [sides[i % len(sides)] for i in range(64)]
    low, high = np.array(sides, dtype=np.int64).T
    return Box(low, high)


@dataclass(frozen=True)
class Bowls:
    """Two convex bowls whose minima lie at a quarter and at three quarters of every side; columns of a rate's and a
    score's spread: 0..2.25 and 0..0.34. Between the minima lies the front.
    """

    box: Box

    def __call__(self, points: Points) -> Losses:
        at = (points - self.box.low) / np.maximum(self.box.high - self.box.low, 1)
        return np.column_stack([4.0 * np.square(at - 0.25).mean(axis=1), 0.6 * np.square(at - 0.75).mean(axis=1)])

    def front(self, count: int) -> Points:
        """int64 [count, d]: points of the front, evenly spaced, without the two ends."""
        at = np.linspace(0.25, 0.75, count + 2)[1:-1, None]
        return np.rint(self.box.low + at * (self.box.high - self.box.low)).astype(np.int64)


def volume(losses: Losses) -> float:
    """Hypervolume below the losses that a uniform point has on average."""
    return float(moocore.hypervolume(losses, ref=[4.0 * 7 / 48, 0.6 * 7 / 48]))


def rounds(searcher: Searcher, evaluate: Callable[[Points], Losses], count: int) -> list[tuple[Points, Losses]]:
    """`count` times ask, evaluate, tell; what was asked and told."""
    told = []
    for _ in range(count):
        points = searcher.ask()
        losses = evaluate(points)
        searcher.tell(points, losses)
        told.append((points.copy(), losses.copy()))
    return told


def spend(searcher: Searcher, evaluate: Callable[[Points], Losses], budget: int) -> tuple[Points, Losses]:
    """Points int64 [budget, d] and their losses float64 [budget, 2]; a last batch is cut."""
    told: list[tuple[Points, Losses]] = []
    while sum(len(points) for points, _ in told) < budget:
        told += rounds(searcher, evaluate, 1)
    return np.concatenate([p for p, _ in told])[:budget], np.concatenate([v for _, v in told])[:budget]


def global_states() -> tuple[object, bytes, bytes]:
    """The global generators of `random`, numpy and torch."""
    state = np.random.get_state()  # noqa: NPY002
    return random.getstate(), pickle.dumps(state), torch.get_rng_state().numpy().tobytes()


def draw_from_global_generators() -> None:
    """What a careless evaluator does."""
    random.random()
    np.random.random()  # noqa: NPY002
    torch.rand(1)


@functools.cache
def bowls_box() -> Box:
    """d = 8, sides -30..30."""
    return Box(np.full(8, -30), np.full(8, 30))


def spends(name: str, budget: int) -> list[Losses]:
    """The losses float64 [budget, 2] that a searcher gets from `Bowls` in `bowls_box()`, for each of three seeds."""
    box = bowls_box()
    searchers = (FACTORIES[name](box, np.random.default_rng(seed), None) for seed in range(3))
    return [spend(searcher, Bowls(box), budget)[1] for searcher in searchers]


@functools.cache
def volume_after(name: str, budget: int) -> float:
    """Median over three seeds of the hypervolume."""
    return float(np.median([volume(losses) for losses in spends(name, budget)]))


@functools.cache
def energy_after(name: str, budget: int, multiplier: float) -> float:
    """Median over three seeds of the lowest energy, above the lowest there is (between the bowls: each is round)."""
    lowest = multiplier * 0.6 / (4.0 * multiplier + 0.6)  # min over t of 4 m (t - 1/4)^2 + 0.6 (t - 3/4)^2
    return float(np.median([(v[:, 1] + multiplier * v[:, 0]).min() for v in spends(name, budget)])) - lowest
