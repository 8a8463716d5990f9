"""Racing: candidates are scored on a growing part of the photos and dropped once they cannot reach the front.

A candidate leaves when some fully scored tables made no more bytes on the photos seen so far and are better there by a
paired test (in the manner of F-Race: Birattari, Stuetzle, Paquete and Varrentrapp, GECCO 2002, with a one-sided paired
normal test in place of Friedman's). What it cost is counted in photos.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from qtable.codecs.base import Coder
from qtable.measure.archive import Archive, Record
from qtable.measure.evaluate import Evaluating, Score
from qtable.measure.front import pareto
from qtable.photos.sets import Photos
from qtable.tasks.base import Floats
from search.run import losses_of

SHARES: Final = (0.125, 0.25, 0.5, 1.0)
"""The parts of the photos after which a candidate may be dropped."""
CERTAINTY: Final = 1.645
"""Standard errors by which a candidate must be worse: 95%, one-sided."""


def shuffled(photos: Photos) -> Photos:
    """The photos in an order in which every beginning is a fair sample: drawn with seed 0, whatever the run's seed."""
    return photos.subset(np.random.default_rng(0).permutation(len(photos)))


def rungs(photos: Photos) -> list[Photos]:
    """Photos (`shuffled`) in the consecutive parts that `SHARES` makes of them; parts without photos are left out."""
    ends = [0, *(max(1, round(share * len(photos))) for share in SHARES)]
    return [photos.subset(range(a, b)) for a, b in itertools.pairwise(ends) if b > a]


@dataclass(frozen=True)
class Racing:
    """Measures on `search` by racing; `evaluators` have the consecutive `rungs` of the photos."""

    evaluators: Sequence[Evaluating]
    archive: Archive
    metric: str

    @property
    def photos(self) -> int:
        return sum(len(e.photos) for e in self.evaluators)

    def __call__(self, coder: Coder, origin: str) -> Score:
        known = self.archive.find("search", coder)
        if known is None:
            known = Record("search", origin, self._race(coder))
            self.archive.append(known)
        return known.score

    def full(self, coder: Coder, origin: str) -> Score:
        """Scored on all photos, whatever the front."""
        known = self.archive.find("search", coder)
        if known is None:
            known = Record("search", origin, self._through(coder, lambda _: False))
            self.archive.append(known)
        return known.score

    def prepare(self, coders: Sequence[Coder], origin: str) -> None:
        """Nothing: each candidate's race depends on those before it."""

    def cost(self, score: Score) -> float:
        return len(score.photo_bytes) / self.photos

    def losses(self, score: Score) -> tuple[float, float]:
        """For dropped candidates: those of the front's nearest in bytes, changed by the difference on the photos seen.

        (A control variate: that difference varies less than the candidate's own mean.)
        """
        seen = len(score.photo_bytes)
        if seen == self.photos:
            return losses_of(score)
        near = min(self._front(), key=lambda s: abs(np.log(s.photo_bytes[:seen].mean() / score.bytes)))
        whole, part, own = losses_of(near), losses_of(near.subset(range(seen))), losses_of(score)
        return whole[0] + own[0] - part[0], whole[1] + own[1] - part[1]

    def _front(self) -> list[Score]:
        scores = [r.score for r in self.archive.records("search")]
        return [scores[i] for i in pareto([s.bytes for s in scores], [s.score for s in scores])]

    def _race(self, coder: Coder) -> Score:
        front = self._front()
        return self._through(coder, lambda score: any(self._beats(rival, score) for rival in front))

    def _beats(self, rival: Score, score: Score) -> bool:
        seen = len(score.photo_bytes)
        if rival.photo_bytes[:seen].mean() > score.bytes:
            return False
        lead = self._right(rival)[:seen] - self._right(score)
        return bool(lead.mean() > CERTAINTY * lead.std() / np.sqrt(seen) > 0)

    def _through(self, coder: Coder, hopeless: Callable[[Score], bool]) -> Score:
        score: Score | None = None
        for evaluator in self.evaluators:
            part = evaluator(coder)
            score = part if score is None else score.joined(part)
            if len(score.photo_bytes) < self.photos and hopeless(score):
                break
        assert score is not None
        return score

    def _right(self, score: Score) -> Floats:
        right = score.outcomes.right()
        if right is None:
            raise ValueError(f"racing needs a metric that counts right answers, not {self.metric}")
        return right
