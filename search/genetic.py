"""Genetic search on two objectives, and the notebook's two genetic algorithms, which collapse onto one point.

Why those collapse: one fitness number has one best point, survivors are chosen by it alone, and exchanging entries
between survivors creates no value that the first fifteen did not have. What cures it: selection by Pareto rank and
crowding keeps a whole front, mutation brings new values, and no point is asked twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from deap import base, tools  # type: ignore[import-untyped]

from search.base import Box, Losses, Points, checked, checked_start

Floats = npt.NDArray[np.float64]


class _Fitness(base.Fitness):  # type: ignore[misc]
    """Two losses under Deb's constrained domination (Deb et al. 2002, definition 1): less violation dominates."""

    weights = (-1.0, -1.0)

    def __init__(self, losses: Floats, violation: float) -> None:
        super().__init__(losses.tolist())
        self.violation = violation

    def dominates(self, other: _Fitness, obj: slice = slice(None)) -> bool:
        if self.violation != other.violation:
            return self.violation < other.violation
        return bool(super().dominates(other, obj))


@dataclass(eq=False)
class _Member:
    index: int
    fitness: _Fitness


def _members(losses: Losses, window: tuple[float, float]) -> list[_Member]:
    violations = np.maximum(0.0, np.maximum(window[0] - losses[:, 0], losses[:, 0] - window[1]))
    return [_Member(i, _Fitness(row, float(v))) for i, (row, v) in enumerate(zip(losses, violations, strict=True))]


def nsga2_order(losses: Losses, window: tuple[float, float] = (-np.inf, np.inf)) -> npt.NDArray[np.intp]:
    """Indices [n], best first: by nondomination rank, then by falling crowding distance (Deb et al. 2002, III.B)."""
    members = _members(losses, window)
    order: list[int] = []
    for front in tools.sortNondominated(members, len(members)):
        tools.emo.assignCrowdingDist(front)
        order += [m.index for m in sorted(front, key=lambda m: m.fitness.crowding_dist, reverse=True)]
    return np.array(order, dtype=np.intp)


def spea2_order(losses: Losses, window: tuple[float, float] = (-np.inf, np.inf)) -> npt.NDArray[np.intp]:
    """Indices [n], best first; its first k are SPEA2's archive of k (Zitzler, Laumanns and Thiele 2001, section 3).

    Nondominated members stand in the reverse of the order in which truncation removes them, the others follow by raw
    fitness plus density. Distances are taken after scaling both columns to 0..1. (DEAP's selSPEA2 draws from the
    global `random`, and measures density to later members only.)
    """
    members = _members(losses, window)
    dominates = np.array([[a.fitness.dominates(b.fitness) for b in members] for a in members])
    raw = dominates.sum(axis=1) @ dominates  # R(i): strengths of those that dominate i
    scaled = (losses - losses.min(axis=0)) / np.maximum(np.ptp(losses, axis=0), np.finfo(float).tiny)
    distances = np.linalg.norm(scaled[:, None] - scaled, axis=2)
    nearest = np.sort(distances, axis=1)  # column 0 is the member itself
    density = 1 / (nearest[:, min(int(np.sqrt(len(losses))), len(losses) - 1)] + 2)
    kept, removed = np.flatnonzero(raw == 0), []
    while len(kept):
        closest = np.sort(distances[np.ix_(kept, kept)], axis=1)
        worst = np.lexsort(closest.T[::-1])[0]
        removed.append(kept[worst])
        kept = np.delete(kept, worst)
    dominated = np.flatnonzero(raw > 0)
    return np.array([*removed[::-1], *dominated[np.argsort((raw + density)[dominated], kind="stable")]], dtype=np.intp)


_ORDERS: Final = {"nsga2": nsga2_order, "spea2": spea2_order}


def crossed(
    rng: np.random.Generator, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], group: npt.NDArray[np.intp]
) -> Floats:
    """A child float64 [d] of two parents; group intp [d], labels 0..g-1.

    With probability 1/2 it takes every group whole from either parent; else it lies on the line through both,
    a + w (b - a) with w uniform on an interval of width sqrt(3) about 1/2: E[w^2 + (1 - w)^2] = 1, so the population's
    variance stays as it is. (With w in 0..1 it would shrink by a third in every generation.)
    """
    if rng.random() < 0.5:
        from_a = rng.random(group.max() + 1) < 0.5
        return np.where(from_a[group], a, b).astype(np.float64)
    return np.asarray(a + (0.5 + np.sqrt(3) * (rng.random() - 0.5)) * (b - a))


def mutated(
    rng: np.random.Generator, point: npt.NDArray[np.number], box: Box, group: npt.NDArray[np.intp]
) -> npt.NDArray[np.int64]:
    """A mutant int64 [d] of a point [d] of the box; group intp [d], labels 0..g-1.

    A share of the groups, log-uniform between one and all, moves by rounded Gaussian steps of at least 1 whose
    deviation is log-uniform between 1/100 and 1/5 of the side; with probability 1/2 a group moves as one.
    """
    groups = group.max() + 1
    moved = rng.random(groups) < groups ** -rng.random()
    moved[rng.integers(groups)] = True
    as_one = rng.random() < 0.5
    normal = rng.standard_normal(groups)[group] if as_one else rng.standard_normal(len(point))
    steps = 0.01 * 20 ** rng.random() * (box.high - box.low) * normal
    steps = np.copysign(np.maximum(1.0, np.abs(steps)), steps)
    mutant: npt.NDArray[np.int64] = np.rint(point + moved[group] * steps).astype(np.int64)
    return np.clip(mutant, box.low, box.high)


class _Population:
    """Points of a box that survived so far."""

    box: Box
    _points: Points

    @property
    def points(self) -> Points:
        """The population int64 [<= population, d], best first."""
        return self._points

    @property
    def spread(self) -> float:
        """Mean over dimensions of the population's standard deviation / side; uniform points have 0.29."""
        width = self.box.high - self.box.low
        if not len(self._points) or not width.any():
            return 0.0
        return float((self._points.std(axis=0)[width > 0] / width[width > 0]).mean())


class Genetic(_Population):
    """NSGA-II (Deb, Pratap, Agarwal and Meyarivan 2002) or SPEA2 on an integer box; one generation per `ask`.

    start: int64 [m, d]; asked first, and the rest of the first population are mutants of them (without: uniform).
    groups: int64 [d], a label per dimension (a zigzag band, a quadrant): crossover exchanges whole groups, and half of
        the mutations move a group as one. None: every dimension is its own group.
    window: allowed losses of column 0, both ends included; what lies outside is dominated by everything inside.

    Children are `crossed` and `mutated`. No point is asked twice as long as mutation finds new ones.
    """

    ATTEMPTS: Final = 20

    def __init__(
        self,
        box: Box,
        rng: np.random.Generator,
        *,
        start: Points | None = None,
        population: int = 24,
        selection: Literal["nsga2", "spea2"] = "nsga2",
        groups: npt.NDArray[np.int64] | None = None,
        window: tuple[float, float] | None = None,
    ) -> None:
        if population < 2:
            raise ValueError(f"population {population}; allowed: 2 or more")
        if groups is not None and groups.shape != (box.dimension,):
            raise ValueError(f"groups of shape {groups.shape}; expected ({box.dimension},)")
        self.box, self.rng, self.population = box, rng, population
        self._start = checked_start(box, start)
        self._order, self._window = _ORDERS[selection], window or (-np.inf, np.inf)
        labels = np.arange(box.dimension) if groups is None else groups
        self._group = np.unique(labels, return_inverse=True)[1]
        self._points = np.empty((0, box.dimension), dtype=np.int64)
        self._losses = np.empty((0, 2))
        self._seen: set[bytes] = set()

    def ask(self) -> Points:
        if not len(self._points):
            missing = max(0, self.population - len(self._start))
            if not len(self._start):
                return self.rng.integers(self.box.low, self.box.high, (missing, self.box.dimension), endpoint=True)
            mutants = [self._new(self._start[self.rng.integers(len(self._start))]) for _ in range(missing)]
            return np.array([*self._start, *mutants], dtype=np.int64)
        pairs = self.rng.integers(len(self._points), size=(self.population, 2, 2)).min(axis=2)  # binary tournaments
        return np.array([self._new(crossed(self.rng, a, b, self._group)) for a, b in self._points[pairs]])

    def tell(self, points: Points, losses: Losses) -> None:
        checked(points, losses)
        self._seen.update(point.tobytes() for point in points)
        together, first = np.unique(np.concatenate([self._points, points]), axis=0, return_index=True)
        both = np.concatenate([self._losses, losses])[first]
        survivors = self._order(both, self._window)[: self.population]
        self._points, self._losses = together[survivors], both[survivors]

    def _new(self, point: npt.NDArray[np.number]) -> npt.NDArray[np.int64]:
        """A mutant of `point` that was not asked before, if some attempts find one."""
        for _ in range(self.ATTEMPTS):
            mutant = mutated(self.rng, point, self.box, self._group)
            if mutant.tobytes() not in self._seen:
                break
        self._seen.add(mutant.tobytes())
        return mutant


@dataclass(frozen=True)
class RateCurve:
    """The notebook's f(score) ~ compression rate: a polynomial, highest power first, fitted to some losses.

    Rates are 2^-column 0, relative to 2^-`zero`.
    """

    coefficients: Floats
    zero: float

    @classmethod
    def fit(cls, losses: Losses, degree: int) -> RateCurve:
        zero = float(losses[:, 0].mean())
        powers, rates = np.vander(1 - losses[:, 1], degree + 1), np.exp2(zero - losses[:, 0])
        return cls(np.asarray(np.linalg.lstsq(powers, rates, rcond=None)[0], dtype=np.float64), zero)

    def rates(self, losses: Losses) -> Floats:
        """float64 [n]."""
        return np.exp2(self.zero - losses[:, 0])

    def heights(self, losses: Losses) -> Floats:
        """float64 [n]: rate minus f(score)."""
        return np.asarray(self.rates(losses) - np.polyval(self.coefficients, 1 - losses[:, 1]))


class NotebookGenetic(_Population):
    """The notebook's genetic algorithms (August 24th and 28th), kept to show how they converge to one point.

    Fifteen points to begin with; each child takes a share p of its entries from one parent and the rest from another,
    p uniform; of parents and children the fittest fifteen stay. There is no mutation. The notebook does not say how
    parents are picked ("no matter how"): uniformly here.

    fitness "product": score x compression rate. "curve": compression rate minus f(score), f a cubic polynomial fitted
    to the first population.
    """

    def __init__(
        self,
        box: Box,
        rng: np.random.Generator,
        *,
        start: Points | None = None,
        fitness: Literal["product", "curve"] = "product",
        population: int = 15,
    ) -> None:
        self.box, self.rng, self.fitness, self.population = box, rng, fitness, population
        first = checked_start(box, start)
        missing = max(0, population - len(first))
        random = rng.integers(box.low, box.high, size=(missing, box.dimension), endpoint=True)
        self._points, self._losses = np.concatenate([first, random]), np.empty((0, 2))
        self._curve: RateCurve | None = None

    def ask(self) -> Points:
        if self._curve is None:
            return self._points.copy()
        pairs = self.rng.integers(len(self._points), size=(2, self.population))
        a, b = self._points[pairs]
        children: Points = np.where(self.rng.random(a.shape) < self.rng.random((self.population, 1)), a, b)
        return children

    def tell(self, points: Points, losses: Losses) -> None:
        checked(points, losses)
        if self._curve is None:
            self._curve = RateCurve.fit(losses, 3)
            together, both = points, losses
        else:
            together, both = np.concatenate([self._points, points]), np.concatenate([self._losses, losses])
        product = self._curve.rates(both) * (1 - both[:, 1])
        fitness = product if self.fitness == "product" else self._curve.heights(both)
        fittest = np.argsort(-fitness, kind="stable")[: self.population]
        self._points, self._losses = together[fittest], both[fittest]
