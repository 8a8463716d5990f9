"""Fronts of size against score: Pareto dominance, hypervolume, BD-rate, and paired bootstrap intervals.

Everywhere: bytes are minimized, scores (0..1) are maximized.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from qtable.measure.evaluate import Score
from qtable.tasks.base import Outcomes

Floats = npt.NDArray[np.float64]


def pareto(sizes: npt.ArrayLike, scores: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Indices of the nondominated points, by rising size; of equal points the first. sizes, scores: float [k]."""
    sizes, scores = np.asarray(sizes, float), np.asarray(scores, float)
    order = np.lexsort((-scores, sizes))
    best = -np.inf
    kept = []
    for i in order:
        if scores[i] > best:
            best = scores[i]
            kept.append(i)
    return np.array(kept, dtype=np.intp)


def hypervolume(sizes: npt.ArrayLike, scores: npt.ArrayLike, worst_size: float, worst_score: float = 0.0) -> float:
    """Area between the front and (worst_size, worst_score) in log2(bytes) x score: halving counts alike anywhere.

    sizes: float [k], bytes, above 0. scores: float [k], 0..1. Points worse than the corner add nothing.
    """
    points = np.column_stack([np.log2(np.asarray(sizes, float)), -np.asarray(scores, float)])
    return float(moocore.hypervolume(points, ref=[np.log2(worst_size), -worst_score]))


@dataclass(frozen=True)
class Curve:
    """Mean file size as a function of score: log(bytes) interpolated linearly between isotonic points.

    scores and log_sizes are float64 [m], both strictly rising. Noise makes measured scores fall here and there as
    bytes rise; isotonic regression pools such points, and each pool counts as one point at its mean score and mean
    log(bytes). Taking the best of them would be optimistic.
    """

    scores: Floats
    log_sizes: Floats

    @classmethod
    def fit(cls, sizes: npt.ArrayLike, scores: npt.ArrayLike) -> Curve:
        """From measured points in any order: sizes float [k], bytes, above 0; scores float [k], 0..1."""
        log_sizes = np.log(np.asarray(sizes, float))
        order = np.argsort(log_sizes, kind="stable")
        rising = isotonic_regression(np.asarray(scores, float)[order]).x
        levels, pool, members = np.unique(rising, return_inverse=True, return_counts=True)
        return cls(levels, np.bincount(pool, log_sizes[order]) / members)

    def log_size(self, scores: npt.ArrayLike) -> Floats:
        """log(bytes) at these scores; NaN outside the measured range."""
        sizes: Floats = np.interp(np.asarray(scores, float), self.scores, self.log_sizes, left=np.nan, right=np.nan)
        return sizes


def size_change(anchor: Curve, curve: Curve, score: float) -> float:
    """Bytes of `curve` against `anchor` at one score, as a fraction: -0.2 = 20% fewer. NaN if one does not reach it."""
    return float(np.expm1(curve.log_size(score) - anchor.log_size(score)))


def bd_rate(anchor: Curve, curve: Curve) -> float:
    """Bjøntegaard's mean change of size at equal score, as a fraction: -0.2 = 20% fewer bytes than `anchor`.

    The mean of the difference in log(bytes) over the scores that both curves reach (VCEG-M33, with piecewise linear
    interpolation). NaN if they share no interval of scores.
    """
    low = max(anchor.scores[0], curve.scores[0])
    high = min(anchor.scores[-1], curve.scores[-1])
    if not high > low:
        return float("nan")
    inside = np.concatenate([anchor.scores, curve.scores, [low, high]])
    grid = np.unique(inside[(inside >= low) & (inside <= high)])
    gap = curve.log_size(grid) - anchor.log_size(grid)
    return float(np.expm1(np.trapezoid(gap, grid) / (high - low)))


@dataclass(frozen=True)
class Measured:
    """Several coders' scores on the same photos: sizes int64 [k, n] in bytes, outcomes of each."""

    sizes: npt.NDArray[np.int64]
    outcomes: tuple[Outcomes, ...]

    @classmethod
    def of(cls, scores: Sequence[Score]) -> Measured:
        """ValueError for no scores."""
        if not scores:
            raise ValueError("no scores to compare")
        return cls(np.stack([s.photo_bytes for s in scores]), tuple(s.outcomes for s in scores))

    @functools.cached_property
    def _right(self) -> Floats | None:
        """float64 [k, n], for metrics that are a share of right answers: their resamples are fast."""
        rows = [outcomes.right() for outcomes in self.outcomes]
        return None if any(row is None for row in rows) else np.array(rows)

    def points(self, photos: npt.NDArray[np.intp] | slice = slice(None)) -> tuple[Floats, Floats]:
        """Mean sizes [k] and scores [k] on these photos (repeats count)."""
        sizes: Floats = self.sizes[:, photos].mean(axis=1)
        if self._right is not None:
            return sizes, self._right[:, photos].mean(axis=1)
        at = np.arange(self.sizes.shape[1])[photos]
        return sizes, np.array([outcomes.subset(at).score() for outcomes in self.outcomes])

    def curve(self, photos: npt.NDArray[np.intp] | slice = slice(None)) -> Curve:
        """The curve through `points` of these photos."""
        return Curve.fit(*self.points(photos))


@dataclass(frozen=True)
class Resamples:
    """`count` bootstrap resamples of photo indices, int [photos] each; the same ones each time it is gone through.

    They are drawn when they are asked for: 2,000 of 20,000 photos would take 320 MB.
    """

    photos: int
    count: int
    state: Any
    """Of the PCG64 generator that draws them."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[npt.NDArray[np.intp]]:
        bits = np.random.PCG64()
        bits.state = copy.copy(self.state)
        rng = np.random.Generator(bits)
        return (rng.integers(0, self.photos, size=self.photos) for _ in range(self.count))


def resamples(photos: int, count: int, rng: np.random.Generator) -> Resamples:
    """Bootstrap resamples of photo indices, used alike for everything that is compared. rng: of default_rng."""
    drawn = Resamples(photos, count, rng.bit_generator.state)
    for _ in range(count):  # the caller's generator goes on behind them
        rng.integers(0, photos, size=photos)
    return drawn


def interval(values: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap values, NaNs left out; (NaN, NaN) if fewer than half are numbers."""
    values = np.asarray(values, float)
    numbers = values[np.isfinite(values)]
    if 2 * len(numbers) < len(values) or not len(numbers):
        return float("nan"), float("nan")
    low, high = np.quantile(numbers, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
