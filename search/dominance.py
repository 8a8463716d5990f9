"""What methods with a population share: whom they begin with, and who survives."""

from __future__ import annotations

import moocore
import numpy as np
import numpy.typing as npt

from search.base import Box, Losses, Points


def first_generation(box: Box, rng: np.random.Generator, start: Points, size: int) -> Points:
    """int64 [max(m, size), d]: `start` int64 [m, d], then neighbours of its points; without start, uniform points.

    A neighbour differs in every entry, normally distributed with a standard deviation of a tenth of the side.
    """
    if not len(start):
        return rng.integers(box.low, box.high, size=(size, box.dimension), endpoint=True)
    near = start[rng.integers(len(start), size=max(size - len(start), 0))]
    moved = rng.normal(near, 0.1 * (box.high - box.low))
    return np.concatenate([start, np.clip(np.rint(moved).astype(np.int64), box.low, box.high)])


def no_worse(first: Losses, second: Losses) -> npt.NDArray[np.bool_]:
    """bool [n]: each row of `first` weakly dominates the same row of `second`: in no column is it larger."""
    weakly: npt.NDArray[np.bool_] = np.logical_and.reduce(first <= second, axis=1)
    return weakly


def crowding(losses: Losses) -> npt.NDArray[np.float64]:
    """float64 [n]: how much room each row has between its neighbours on a front, the ends infinite.

    The crowding distance of Deb, Pratap, Agarwal and Meyarivan (2002), section III-B.
    """
    room = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        inner, ends = order[1:-1], order[[0, -1]]
        room[inner] += (column[order[2:]] - column[order[:-2]]) / max(np.ptp(column), np.finfo(float).tiny)
        room[ends] = np.inf
    return room


def survivors(losses: Losses, count: int) -> npt.NDArray[np.intp]:
    """Indices of the `count` best rows, best first: by nondominated rank, in a rank by crowding (Deb et al. 2002)."""
    ranks = moocore.pareto_rank(losses)
    room = np.empty(len(losses))
    for rank in np.unique(ranks):
        room[ranks == rank] = crowding(losses[ranks == rank])
    return np.lexsort((-room, ranks))[:count]
