"""Tables straight from statistics: for each multiplier the best table is an independent argmin per frequency.

With histograms of |F| per frequency (`qtable.sensitivity`), the cost D_k(q) of every step q and the bits R_k(q) that
the quantized levels take are sums over bins. Minimizing sum_k D_k(q_k) + multiplier * sum_k R_k(q_k) separates over
the frequencies k (Ratnakar and Livny, RD-OPT, DCC 1995, section 3: the Lagrangian variant), and sweeping the
multiplier draws the whole front. With squared error as cost this is RD-OPT; with g^2-weighted squared error it is tuned
to the model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from qtable.jpeg.tables import QTables
from qtable.measure.estimates import STEPS, Floats, distortion, entropy_bits
from qtable.measure.sensitivity import Sensitivity
from search.base import Box, Losses, Points

FIRST_COMPONENTS: Final = ((0,), (0, 1), (0, 1, 2))
"""For 1, 2 and 3 tables the component at which each begins to be used."""


def _at(per_step: Floats, tables: QTables) -> float:
    """The sum of float64 [3, 64, 255] at the steps of `tables`."""
    steps = tables.components().reshape(3, 64).astype(np.intp)
    return float(np.take_along_axis(per_step, steps[..., None] - 1, axis=2).sum())


@dataclass(frozen=True)
class Lagrangian:
    """The separable problem: costs and bits float64 [3, 64, 255] per component, frequency and step; `count` tables."""

    costs: Floats
    bits: Floats
    count: int = 2

    @classmethod
    def of(cls, statistics: Sensitivity, count: int = 2) -> Lagrangian:
        """For the model whose sensitivity was measured."""
        return cls(distortion(statistics.costs), entropy_bits(statistics), count)

    def shared(self, per_component: Floats) -> Floats:
        """[3, 64, 255] summed over the components that share a table: [count, 64, 255]."""
        return np.add.reduceat(per_component, FIRST_COMPONENTS[self.count - 1], axis=0)

    @functools.cached_property
    def _per_table(self) -> tuple[Floats, Floats]:
        return self.shared(self.costs), self.shared(self.bits)

    def _best(self, multiplier: float) -> npt.NDArray[np.intp]:
        costs, bits = self._per_table
        best: npt.NDArray[np.intp] = (costs + multiplier * bits).argmin(axis=2)
        return best

    def solve(self, multiplier: float) -> QTables:
        """The tables that minimize costs + multiplier * bits; of equal steps the smallest."""
        return QTables(STEPS[self._best(multiplier)].reshape(-1, 8, 8))

    def bits_of(self, tables: QTables) -> float:
        """Estimated bits of all the photos together."""
        return _at(self.bits, tables)

    def cost_of(self, tables: QTables) -> float:
        """Estimated cost of all the photos together."""
        return _at(self.costs, tables)

    def path(self, steps: int = 128) -> Path:
        """The whole front: from a multiplier at which bits cost nothing to one at which nothing else counts."""
        ratio = float(np.log(self.costs.max() / max(self.bits.max(), 1.0)))
        return Path(lambda x: self.solve(float(np.exp(x))), ratio - 40.0, ratio + 20.0, self.bits_of, steps)


_V, _U = np.meshgrid(np.arange(8.0), np.arange(8.0))
_SURFACE: Final = np.stack(
    [np.ones((8, 8)), _U, _V, _U**2, _V**2, _U * _V, np.hypot(_U, _V), np.log1p(_U + _V)], axis=-1
)
_PROJECTION: Final = _SURFACE.reshape(64, -1) @ np.linalg.pinv(_SURFACE.reshape(64, -1))


def shrunk(tables: QTables, weight: float) -> QTables:
    """log(steps) moved by `weight` (0..1) towards the nearest smooth surface: 8 terms in the two frequencies."""
    logs = np.log(tables.values.reshape(-1, 64).astype(float))
    smooth = logs @ _PROJECTION.T
    return QTables(np.clip(np.rint(np.exp(logs + weight * (smooth - logs))), 1, 255).reshape(-1, 8, 8))


def shrinkage_for(photos: int) -> float:
    """How far tables made from this many photos are to be `shrunk`: half way for 8 photos, 5% for 150.

    The form is that of a posterior mean whose prior, the smooth surface, counts as much as 8 photos.
    """
    return 8 / (8 + photos)


@dataclass(frozen=True)
class Path:
    """A family of tables with one parameter, low..high, as a space of one dimension: from many bits (0) to few.

    family: the parameter's tables, whose bits fall as it rises. bits_of: estimated bits of tables. The `steps` + 1
    points are evenly spaced in log(bits), between what standard tables of quality 95 and 4 are estimated to take.
    """

    family: Callable[[float], QTables]
    low: float
    high: float
    bits_of: Callable[[QTables], float]
    steps: int = 128

    @property
    def box(self) -> Box:
        """One side, 0..`steps`."""
        return Box(np.array([0]), np.array([self.steps]))

    def _parameter(self, bits: float) -> float:
        """Where the estimated bits are the most that do not exceed `bits` (else the fewest), by bisection."""
        low, high = self.low, self.high
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.bits_of(self.family(middle)) > bits else (low, middle)
        return high

    def parameter(self, point: npt.NDArray[np.int64]) -> float:
        """The family's parameter at a point int64 [1] of the box."""
        most, fewest = (self.bits_of(QTables.standard(quality)) for quality in (95, 4))
        return self._parameter(most * (fewest / most) ** (int(point[0]) / self.steps))

    def tables(self, point: npt.NDArray[np.int64]) -> QTables:
        """The tables of a point int64 [1] of the box."""
        return self.family(self.parameter(point))


class Sweep:
    """Every point of a one-dimensional box, the ends first, then middle after middle (van der Corput's order)."""

    def __init__(self, box: Box) -> None:
        low, high = int(box.low[0]), int(box.high[0])
        halves, gap = [low, high], high - low
        while gap > 1:
            gap = -(-gap // 2)
            halves += range(low + gap, high, gap)
        self._order = list(dict.fromkeys([*halves, *range(low, high + 1)]))
        self._next = 0

    def ask(self) -> Points:
        """The next point, int64 [1, 1]; from the beginning again after the last."""
        point = self._order[self._next % len(self._order)]
        self._next += 1
        return np.array([[point]], dtype=np.int64)

    def tell(self, points: Points, losses: Losses) -> None:
        """Nothing to learn."""
