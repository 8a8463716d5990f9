"""One loop, one budget, one archive, for every method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from qtable.codecs.base import Coder
from qtable.measure.archive import Archive, Record
from qtable.measure.evaluate import Evaluating, Score
from qtable.photos.sets import Split
from search.base import Losses, Searcher
from search.space import Space

REPEATS_BEFORE_STOP = 1000
"""A searcher that asks this often in a row for nothing new has nothing left to ask."""


def losses_of(score: Score) -> tuple[float, float]:
    """What searchers minimize: log2 of the mean bytes, and 1 - score."""
    return float(np.log2(score.bytes)), 1.0 - score.score


class Measure(Protocol):
    """Scores candidates; remembers, so that asking twice costs nothing."""

    def __call__(self, coder: Coder, origin: str) -> Score: ...

    def prepare(self, coders: Sequence[Coder], origin: str) -> None:
        """These will be asked for next: whatever can be done for all at once is done now."""
        ...

    def cost(self, score: Score) -> float:
        """What making this score took, in evaluations on all photos."""
        ...

    def losses(self, score: Score) -> tuple[float, float]:
        """`losses_of` this score, estimated where not all photos were looked at."""
        ...


@dataclass(frozen=True)
class Measuring:
    """An evaluator on one split whose results go through an archive: what was evaluated before costs nothing.

    at_once: how many coders keep the evaluator's workers busy; at most as many are lost when the run is killed.
    """

    evaluator: Evaluating
    split: Split
    archive: Archive
    at_once: int = 1

    def __call__(self, coder: Coder, origin: str) -> Score:
        known = self.archive.find(self.split, coder)
        if known is None:
            known = Record(self.split, origin, self.evaluator(coder))
            self.archive.append(known)
        return known.score

    def prepare(self, coders: Sequence[Coder], origin: str) -> None:
        if self.at_once == 1:
            return
        unknown = [c for c in coders if self.archive.find(self.split, c) is None]
        for i in range(0, len(unknown), self.at_once):
            for score in self.evaluator.many(unknown[i : i + self.at_once]):
                self.archive.append(Record(self.split, origin, score))

    def cost(self, score: Score) -> float:
        return 1.0

    def losses(self, score: Score) -> tuple[float, float]:
        return losses_of(score)


def search(
    space: Space,
    searcher: Searcher,
    measure: Measure,
    budget: int,
    origin: str,
    progress: Callable[[float, Score], None] | None = None,
) -> float:
    """Let `searcher` spend `budget` evaluations of different coders; returns how many it spent.

    Coders asked for again cost nothing. A batch that does not fit into the rest of the budget is cut and not told.
    KeyboardInterrupt passes through between two evaluations.
    """
    spent = 0.0
    seen: set[Coder] = set()
    repeats = 0
    while spent < budget and repeats < REPEATS_BEFORE_STOP:
        points = searcher.ask()
        batch = [space.coder(point) for point in points]
        new = list(dict.fromkeys(coder for coder in batch if coder not in seen))
        measure.prepare(new[: int(np.ceil(budget - spent))], origin)
        for coder in new:
            if spent >= budget:
                return spent
            score = measure(coder, origin)
            seen.add(coder)
            spent += measure.cost(score)
            if progress is not None:
                progress(spent, score)
        losses: Losses = np.array([measure.losses(measure(coder, origin)) for coder in batch])
        searcher.tell(points, losses)
        repeats = 0 if new else repeats + 1
    return spent
