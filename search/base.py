"""`Searcher`: proposes points of an integer box and learns from their losses. Knows no JPEG, budget or files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.int64]
"""int64 [n, d]."""
Losses = npt.NDArray[np.float64]
"""float64 [n, k]: every column is minimized."""


@dataclass(frozen=True)
class Box:
    """An integer box: low and high int64 [d], both inclusive."""

    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.low.shape != self.high.shape or self.low.ndim != 1 or not len(self.low):
            raise ValueError(f"a box needs low and high of one shape [d]; got {self.low.shape} and {self.high.shape}")
        if (self.low > self.high).any():
            i = int(np.argmax(self.low > self.high))
            raise ValueError(f"box side {i} is empty: {self.low[i]}..{self.high[i]}")

    @property
    def dimension(self) -> int:
        return len(self.low)

    def contains(self, points: Points) -> npt.NDArray[np.bool_]:
        """bool [n]."""
        inside: npt.NDArray[np.bool_] = np.logical_and.reduce((points >= self.low) & (points <= self.high), axis=1)
        return inside


class Searcher(Protocol):
    """Seeded at construction; the same seed and the same losses give the same points."""

    def ask(self) -> Points:
        """The points that it wants evaluated next, int64 [n, d], n >= 1, inside its box."""
        ...

    def tell(self, points: Points, losses: Losses) -> None:
        """The losses float64 [n, k] of the points last asked for, in the same order."""
        ...


def checked(points: Points, losses: Losses) -> Losses:
    """`losses` if they are one finite row [2] per point, else ValueError; every `tell` starts with it."""
    if losses.shape != (len(points), 2):
        raise ValueError(f"losses of shape {losses.shape} for {len(points)} points; expected ({len(points)}, 2)")
    if not np.isfinite(losses).all():
        i, column = np.argwhere(~np.isfinite(losses))[0]
        raise ValueError(f"loss [{i}, {column}] is {losses[i, column]}; a searcher learns from finite losses only")
    return losses


def checked_start(box: Box, start: Points | None) -> Points:
    """`start` int64 [m, d] if it lies in the box, else ValueError; no start is [0, d]."""
    if start is None:
        return np.empty((0, box.dimension), dtype=np.int64)
    if start.ndim != 2 or start.shape[1] != box.dimension:
        raise ValueError(f"start of shape {start.shape}; expected [m, {box.dimension}]")
    if not (inside := box.contains(start)).all():
        i = int(np.argmin(inside))
        side = int(np.argmax((start[i] < box.low) | (start[i] > box.high)))
        allowed = f"{box.low[side]}..{box.high[side]}"
        raise ValueError(f"start [{i}, {side}] = {start[i, side]} is outside the box; allowed: {allowed}")
    return start.astype(np.int64)
