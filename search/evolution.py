"""CMA-ES and differential evolution: populations that learn the shape of the landscape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from cmaes import CMAwM  # type: ignore[import-untyped]

from search.base import Box, Losses, Points, checked, checked_start
from search.dominance import first_generation, no_worse, survivors


class CMAES:
    """One CMA-ES (Hansen and Ostermeier 2001) for each multiplier of the rate; they are asked in turn.

    Each minimizes one weighted sum, losses[:, 1] + multiplier * losses[:, 0], in the variant for integers that keeps
    every step possible (CMA-ES with margin: Hamano, Saito, Nomura and Shirakawa, GECCO 2022). An `ask` is one
    generation of 4 + 3 ln(d) points.

    They begin at the middle of the box, or each at the point of `start` that is best for its weighting, with a standard
    deviation of `sigma` times each side. One that has converged restarts at a uniform point. The other way to a front,
    uncrowded hypervolume improvement (Toure, Hansen, Auger and Brockhoff, GECCO 2019), was tried and was not better:
    DECISIONS.md.
    """

    def __init__(
        self,
        box: Box,
        rng: np.random.Generator,
        *,
        start: Points | None = None,
        multipliers: Sequence[float] = (0.05, 0.15, 0.45),
        sigma: float = 0.1,
    ) -> None:
        self.box, self.rng, self.multipliers, self.sigma = box, rng, multipliers, sigma
        self._free = np.flatnonzero(box.low < box.high)
        if len(self._free) < 2:
            raise ValueError(f"CMA-ES in a box with {len(self._free)} sides of more than one value; allowed: 2 or more")
        self._start = checked_start(box, start)
        self._optimizers = [self._optimizer((box.low + box.high) / 2) for _ in multipliers]
        self._turn = 0
        self._sampled: tuple[npt.NDArray[np.float64], ...] = ()

    def _optimizer(self, mean: npt.NDArray[np.float64]) -> CMAwM:
        """A fresh CMA-ES around mean float64 [d]; it knows the free sides only."""
        low, high = self.box.low[self._free].astype(float), self.box.high[self._free].astype(float)
        return CMAwM(
            mean=mean[self._free],
            sigma=self.sigma,
            bounds=np.column_stack([low, high]),
            steps=np.ones(len(low)),
            cov=np.diag(np.square(high - low)),
            seed=int(self.rng.integers(2**32)),
        )

    def ask(self) -> Points:
        if len(self._start):
            return self._start
        optimizer = self._optimizers[self._turn]
        encoded, self._sampled = zip(*(optimizer.ask() for _ in range(optimizer.population_size)), strict=True)
        points = np.tile(self.box.low, (len(encoded), 1))
        points[:, self._free] = encoded
        return points

    def tell(self, points: Points, losses: Losses) -> None:
        weighted = np.outer(self.multipliers, checked(points, losses)[:, 0]) + losses[:, 1]
        if len(self._start):
            self._optimizers = [self._optimizer(points[best].astype(float)) for best in weighted.argmin(axis=1)]
            self._start = self._start[:0]
            return
        optimizer = self._optimizers[self._turn]
        optimizer.tell(list(zip(self._sampled, weighted[self._turn].tolist(), strict=True)))
        if optimizer.should_stop():
            self._optimizers[self._turn] = self._optimizer(self.rng.uniform(self.box.low, self.box.high))
        self._turn = (self._turn + 1) % len(self._optimizers)


class DifferentialEvolution:
    """DE/rand/1/bin of Storn and Price (1997) with the two-objective selection GDE3 of Kukkonen and Lampinen (2005).

    Every member x_i gets a child: in a share `crossover` of its entries, at least one, x_a + `scale` (x_b - x_c) of
    three other members (Storn and Price, eqs. 2 to 5), rounded; an entry that leaves the box returns to the middle
    between the parent's and the bound.
    """

    def __init__(
        self,
        box: Box,
        rng: np.random.Generator,
        *,
        start: Points | None = None,
        population: int = 20,
        scale: float = 0.5,
        crossover: float = 0.9,
    ) -> None:
        if population < 4:
            raise ValueError(f"differential evolution with a population of {population}; allowed: 4 or more")
        self.box, self.rng, self.population, self.scale, self.crossover = box, rng, population, scale, crossover
        self._first = first_generation(box, rng, checked_start(box, start), population)
        self._members, self._losses = self._first[:0], np.empty((0, 2))

    def ask(self) -> Points:
        if not len(self._members):
            return self._first
        x, (n, d) = self._members, self._members.shape
        a, b, c = np.argsort(self.rng.random((n, n)) + 2 * np.eye(n), axis=1)[:, :3].T  # the member itself sorts last
        crossed = self.rng.random((n, d)) < self.crossover
        crossed[np.arange(n), self.rng.integers(d, size=n)] = True
        child = np.where(crossed, x[a] + self.scale * (x[b] - x[c]), x)
        child = np.where(child < self.box.low, (x + self.box.low) / 2, child)
        child = np.where(child > self.box.high, (x + self.box.high) / 2, child)
        return np.rint(child).astype(np.int64)

    def tell(self, points: Points, losses: Losses) -> None:
        checked(points, losses)
        first = not len(self._members)
        keep = survivors(losses, self.population) if first else gde3(self._losses, losses, self.population)
        self._members = np.concatenate([self._members, points])[keep]
        self._losses = np.concatenate([self._losses, losses])[keep]


def gde3(parents: Losses, children: Losses, count: int) -> npt.NDArray[np.intp]:
    """Who survives of n parents and then their n children, both float64 [n, 2]: indices into the 2n, at most `count`.

    A child replaces a parent that it weakly dominates, is dropped if the parent dominates it, else both stay; what is
    then too many goes by rank and crowding (Kukkonen and Lampinen 2005, eq. 8).
    """
    replaced = no_worse(children, parents)
    kept = np.flatnonzero(np.concatenate([~replaced, replaced | ~no_worse(parents, children)]))
    return kept[survivors(np.concatenate([parents, children])[kept], count)]
