"""Random search: points drawn uniformly from the box. What a space makes of them is the prior."""

from __future__ import annotations

import numpy as np

from search.base import Box, Losses, Points, checked, checked_start


class RandomSearch:
    """Independent uniform points, `batch` at a time, after the `start` points int64 [m, d]; learns nothing.

    In the space `Sorted` this is the sorted random search of Li, De Sa and Sampson (arXiv 2003.02874).
    """

    def __init__(self, box: Box, rng: np.random.Generator, batch: int = 1, *, start: Points | None = None) -> None:
        self.box, self.rng, self.batch = box, rng, batch
        self._start = checked_start(box, start)

    def ask(self) -> Points:
        if len(self._start):
            points, self._start = self._start[: self.batch], self._start[self.batch :]
            return points
        return self.rng.integers(self.box.low, self.box.high, size=(self.batch, self.box.dimension), endpoint=True)

    def tell(self, points: Points, losses: Losses) -> None:
        """Nothing to learn."""
        checked(points, losses)
