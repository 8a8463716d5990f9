"""What a searcher's point means: a `Space` maps points of an integer box to coders, most through `QTables`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from search.base import Box, Points


class Space(Protocol):
    """A box, and the coder that each of its points stands for."""

    @property
    def box(self) -> Box: ...

    def coder(self, point: npt.NDArray[np.int64]) -> Coder:
        """The coder of one point int64 [d] of the box."""
        ...


class TableSpace(Protocol):
    """A box, and the tables that each of its points stands for."""

    @property
    def box(self) -> Box: ...

    def tables(self, point: npt.NDArray[np.int64]) -> QTables:
        """The tables of one point int64 [d] of the box."""
        ...


@dataclass(frozen=True)
class Plain:
    """Tables as coders: each written plainly through libjpeg-turbo."""

    space: TableSpace
    codec: Codec

    @property
    def box(self) -> Box:
        return self.space.box

    def coder(self, point: npt.NDArray[np.int64]) -> TableCoder:
        """The tables of one point int64 [d] of the box, with the codec."""
        return TableCoder(self.space.tables(point), self.codec)


def _box(sides: list[tuple[int, int]], repeat: int) -> Box:
    low, high = np.array(sides * repeat, dtype=np.int64).T
    return Box(low, high)


@dataclass(frozen=True)
class Full:
    """Every entry by itself: `count` x 64 dimensions, 1..255, natural order. The control that any prior must beat."""

    count: int = 2

    @property
    def box(self) -> Box:
        return _box([(1, 255)] * 64, self.count)

    def tables(self, point: npt.NDArray[np.int64]) -> QTables:
        return QTables(point.reshape(self.count, 8, 8))


@dataclass(frozen=True)
class Sorted:
    """Entries that rise along the zigzag: the sampler of Li, De Sa and Sampson 2020 (arXiv 2003.02874) as a space.

    Per table 67 dimensions: the lowest entry lo in 0..34, the highest hi in 50..149, a final factor of 50..150 percent,
    and 64 quantiles (in thousandths) of |N(0, 1)|, sorted, divided by their maximum and stretched onto lo..hi:
    q = round(round(t (hi - lo) + lo) factor), clipped to 1..255. Uniform points give the published distribution.
    """

    count: int = 2
    RESOLUTION: Final = 1000

    @property
    def box(self) -> Box:
        return _box([(0, 34), (50, 149), (50, 150), *[(0, self.RESOLUTION - 1)] * 64], self.count)

    def tables(self, point: npt.NDArray[np.int64]) -> QTables:
        zigzag = np.empty((self.count, 64))
        for row, (low, high, percent, *quantiles) in zip(zigzag, point.reshape(self.count, 67), strict=True):
            half_normal = ndtri(0.5 + (np.sort(quantiles) + 0.5) / (2 * self.RESOLUTION))
            stretched = np.clip(np.round(half_normal / half_normal.max() * (high - low) + low), 1, 255)
            row[:] = np.clip(np.round(stretched * percent / 100), 1, 255)
        return QTables.from_zigzag(zigzag)


_FREQUENCY: Final = np.add.outer(np.arange(8), np.arange(8)).ravel()
"""Diagonal of each entry, 0 (DC) .. 14."""


@dataclass(frozen=True)
class Bands:
    """`knots` values per table, spread over the 15 diagonals from DC to the highest frequency; between them log-linear.

    Few dimensions (`count` x `knots`) for searchers that need them. Point values are steps of 1/16 of an octave: 0 = 1,
    128 = 255 (nearly).
    """

    knots: int = 8
    count: int = 2
    STEPS: Final = 16

    def __post_init__(self) -> None:
        if not 2 <= self.knots <= 15:
            raise ValueError(f"bands of {self.knots} knots; allowed: 2..15")

    @property
    def box(self) -> Box:
        return _box([(0, 8 * self.STEPS)] * self.knots, self.count)

    def tables(self, point: npt.NDArray[np.int64]) -> QTables:
        at = np.linspace(0, 14, self.knots)
        logs = np.stack([np.interp(_FREQUENCY, at, knots) for knots in point.reshape(self.count, self.knots)])
        return QTables(np.clip(np.round(2 ** (logs / self.STEPS)), 1, 255).reshape(self.count, 8, 8))


@dataclass(frozen=True)
class Around:
    """Every entry of `center` moved by up to `width` steps of 1/8 octave down or up; the zero point is `center`."""

    center: QTables
    width: int = 8

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width {self.width}; allowed: 1 or more")

    @property
    def box(self) -> Box:
        return _box([(-self.width, self.width)] * 64, self.center.count)

    def tables(self, point: npt.NDArray[np.int64]) -> QTables:
        moved = self.center.values.astype(float) * 2 ** (point.reshape(-1, 8, 8) / 8)
        return QTables(np.clip(np.round(moved), 1, 255))


@dataclass(frozen=True)
class Modulated:
    """A family of tables, from many bytes to few, each of which may be bent: what warm starts search.

    Dimension 0 chooses the member; then, per table, `knots` factors spread over the diagonals from DC to the highest
    frequency, in steps of 1/8 octave from -`width` to `width`, between them log-linear. All zero is the member itself.
    """

    family: tuple[QTables, ...]
    knots: int = 4
    width: int = 8

    def __post_init__(self) -> None:
        if not self.family:
            raise ValueError("a family of no tables; at least one is needed to start from")
        if len({tables.count for tables in self.family}) > 1:
            raise ValueError("a family of table sets of different numbers of tables")
        if not 2 <= self.knots <= 15:
            raise ValueError(f"modulation by {self.knots} knots; allowed: 2..15")

    @property
    def box(self) -> Box:
        bends = [(-self.width, self.width)] * self.knots * self.family[0].count
        return _box([(0, len(self.family) - 1), *bends], 1)

    def tables(self, point: npt.NDArray[np.int64]) -> QTables:
        member = self.family[int(point[0])]
        at = np.linspace(0, 14, self.knots)
        bends = np.stack([np.interp(_FREQUENCY, at, knots) for knots in point[1:].reshape(member.count, self.knots)])
        steps = member.values * 2 ** (bends.reshape(-1, 8, 8) / 8)
        return QTables(np.clip(np.round(steps), 1, 255))

    def start(self, count: int) -> Points:
        """int64 [<= count, d]: members evenly spaced, unbent."""
        members = np.unique(np.linspace(0, len(self.family) - 1, count).round().astype(np.int64))
        points = np.zeros((len(members), self.box.dimension), np.int64)
        points[:, 0] = members
        return points
