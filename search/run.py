"""One loop, one budget, one archive, for every method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qtable.archive import Archive, Record
from qtable.data import Split
from qtable.evaluate import Evaluator, Score
from qtable.tables import QTables
from search.base import Searcher
from search.space import Space, points_to_tables

REPEATS_BEFORE_STOP = 1000
"""A searcher that asks this often in a row for nothing new has nothing left to ask."""


@dataclass(frozen=True)
class Measuring:
    """An evaluator on one split whose results go through an archive: what was evaluated before costs nothing."""

    evaluator: Evaluator
    split: Split
    archive: Archive

    def __call__(self, tables: QTables, origin: str) -> Score:
        known = self.archive.find(self.split, tables)
        if known is None:
            known = Record(self.split, origin, self.evaluator(tables))
            self.archive.append(known)
        return known.score


def losses(scores: list[Score]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """float64 [n, 2], what searchers minimize: mean bytes, and 1 - score."""
    return np.array([[score.bytes, 1.0 - score.score] for score in scores])


def search(
    space: Space,
    searcher: Searcher,
    measure: Measuring,
    budget: int,
    origin: str,
    progress: Callable[[int, Score], None] | None = None,
) -> int:
    """Let `searcher` spend `budget` evaluations of different tables; returns how many it spent.

    A run that was killed resumes by running again: the searcher, seeded as before, asks for the same points, and those
    in the archive are answered from there, counted in the budget, without being evaluated again. A last batch larger
    than what is left of the budget is cut and not told. KeyboardInterrupt passes through between two evaluations.
    """
    spent: set[QTables] = set()
    repeats = 0
    while len(spent) < budget and repeats < REPEATS_BEFORE_STOP:
        points = searcher.ask()
        scores = []
        before = len(spent)
        for tables in points_to_tables(space, points):
            if tables not in spent and len(spent) == budget:
                return len(spent)
            score = measure(tables, origin)
            scores.append(score)
            if tables not in spent:
                spent.add(tables)
                if progress is not None:
                    progress(len(spent), score)
        searcher.tell(points, losses(scores))
        repeats = repeats + 1 if len(spent) == before else 0
    return len(spent)
