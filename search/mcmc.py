"""Markov chains on an integer box: Metropolis, annealing, parallel tempering; and the notebook's two walks, which fail.

A chain with a rate multiplier m has the energy E = column 1 + m * column 0 and, at temperature T, the stationary
distribution exp(-E / T) / Z (Metropolis et al. 1953), because its proposal is symmetric.

Why the notebook's walks fail: neither is a Metropolis chain. They accept by a coin that knows only the side of a fixed
curve, so worse points are taken for ever; random steps in most entries at once make almost every proposal worse, and
averaging can only take differences between entries away, so that all become one value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from search.base import Box, Losses, Points, checked, checked_start
from search.genetic import RateCurve

Floats = npt.NDArray[np.float64]


def reflected(points: Points, box: Box) -> Points:
    """Points int64 [n, d] outside the box folded into it, with mirrors half a step beyond its first and last values.

    A step of -1 from `low` stays on `low`, -2 leads to `low` + 1. With n values 0..n-1 on a side, y is reached as
    y + 2 n j and as -1 - y + 2 n j; from x these are |x - y - 2 n j| and |x + y + 1 - 2 n j| away. Over all j, both
    sets are the same for (x, y) and (y, x): steps distributed alike in both directions remain a symmetric proposal.
    Mirrors on the values themselves would not: they reach the ends in one way where other values are reached in two.
    """
    values = box.high - box.low + 1
    folded = (points - box.low) % (2 * values)
    return np.asarray(box.low + np.minimum(folded, 2 * values - 1 - folded))


def propose(rng: np.random.Generator, points: Points, box: Box, share: float, steps: Floats) -> Points:
    """A symmetric proposal for every chain's point, int64 [c, d].

    Each entry moves with probability `share`, one at least, by a rounded Gaussian step of at least 1 whose deviation
    is steps float64 [c] times the side; then `reflected`. What moves and by how much does not depend on the point.
    """
    moved = rng.random(points.shape) < share
    moved[np.arange(len(points)), rng.integers(box.dimension, size=len(points))] = True
    normal = rng.standard_normal(points.shape) * steps[:, None] * (box.high - box.low)
    sizes = np.maximum(1.0, np.rint(np.abs(normal)))
    return reflected(points + np.where(moved, np.copysign(sizes, normal), 0.0).astype(np.int64), box)


class Metropolis:
    """One Metropolis chain per multiplier, independent of each other; one proposal per chain and `ask`.

    start: int64 [m, d]; asked first (without: one uniform point per chain). Each chain begins at the asked point of
        the lowest energy.
    temperature: default 0.01 / d: a bowl's mean energy is d T / 2 above its minimum (equipartition), 0.005 at any d.
    share, step: see `propose`. During the first `burn_in` rounds, and only then, each chain's step follows its
        acceptance towards 0.234 (Roberts, Gelman and Gilks 1997; Robbins-Monro as in Andrieu and Thoms 2008);
        from then on the chain is Markov.
    """

    TARGET: Final = 0.234

    def __init__(
        self,
        box: Box,
        rng: np.random.Generator,
        *,
        start: Points | None = None,
        multipliers: Sequence[float] = (0.15,),
        temperature: float | None = None,
        share: float = 0.2,
        step: float = 0.1,
        burn_in: int = 100,
    ) -> None:
        if temperature is not None and not temperature > 0:
            raise ValueError(f"temperature {temperature}; allowed: above 0")
        if not 0 < share <= 1:
            raise ValueError(f"share {share} of the entries; allowed: above 0, up to 1")
        self.box, self.rng, self.share, self.burn_in = box, rng, share, burn_in
        self.multipliers: Floats = np.array(multipliers, dtype=np.float64)
        self.temperature = 0.01 / box.dimension if temperature is None else temperature
        self._first = checked_start(box, start)
        if not len(self._first):
            self._first = rng.integers(box.low, box.high, (len(self.multipliers), box.dimension), endpoint=True)
        self._points = np.empty((0, box.dimension), dtype=np.int64)
        self._losses = np.empty((0, 2))
        self._steps: Floats = np.full(len(self.multipliers), step)
        self._rounds = 0
        self._accepted = np.zeros(len(self.multipliers))

    @property
    def points(self) -> Points:
        """Where the chains are, int64 [c, d]."""
        return self._points

    @property
    def acceptance(self) -> Floats:
        """Share of accepted proposals of each chain so far, float64 [c]."""
        return self._accepted / max(1, self._rounds)

    def ask(self) -> Points:
        if not len(self._points):
            return self._first.copy()
        return propose(self.rng, self._points, self.box, self.share, self._steps)

    def tell(self, points: Points, losses: Losses) -> None:
        checked(points, losses)
        if not len(self._points):
            best = (losses[:, 1] + np.multiply.outer(self.multipliers, losses[:, 0])).argmin(axis=1)
            self._points, self._losses = points[best], losses[best]
            return
        self._rounds += 1
        change = losses - self._losses
        rises = change[:, 1] + self.multipliers * change[:, 0]
        chances = np.exp(-np.maximum(0.0, rises) / self.temperature)
        accepted = self.rng.random(len(chances)) < chances
        self._points = np.where(accepted[:, None], points, self._points)
        self._losses = np.where(accepted[:, None], losses, self._losses)
        self._accepted += accepted
        if self._rounds <= self.burn_in:
            gain = 2.0 * self._rounds**-0.6
            self._steps = np.clip(self._steps * np.exp(gain * (chances - self.TARGET)), 0.001, 0.5)


class Annealing(Metropolis):
    """Simulated annealing (Kirkpatrick, Gelatt and Vecchi 1983): the temperature falls geometrically over `rounds`.

    From `temperature` (default 0.1 / d, ten times a chain's) to a hundredth of it, where it stays. A chain whose
    temperature falls has no stationary distribution to protect, so steps adapt throughout.
    """

    def __init__(
        self,
        box: Box,
        rng: np.random.Generator,
        *,
        start: Points | None = None,
        multipliers: Sequence[float] = (0.15,),
        temperature: float | None = None,
        rounds: int = 400,
    ) -> None:
        hot = 0.1 / box.dimension if temperature is None else temperature
        super().__init__(box, rng, start=start, multipliers=multipliers, temperature=hot, burn_in=rounds)
        self._hot = hot

    def tell(self, points: Points, losses: Losses) -> None:
        super().tell(points, losses)
        self.temperature = self._hot * 0.01 ** min(1.0, self._rounds / self.burn_in)


class Tempering(Metropolis):
    """Parallel tempering (Geyer 1991) over the rate multiplier instead of the temperature: one run draws the front.

    After each round neighbours on the ladder of multipliers, even and odd pairs in turn, swap their points with
    probability min(1, exp((m_i - m_j) (r_i - r_j) / T)), r = column 0: the ratio of the joint density
    prod_k exp(-(column 1 + m_k * column 0) / T) after and before, in which column 1 cancels. So every chain keeps its
    own stationary distribution.
    """

    LADDER: Final = tuple(np.geomspace(0.02, 1.0, 6).tolist())
    """Score given up per octave of bytes. Whole fronts of score against log2(bytes) have slopes in between."""

    def __init__(
        self,
        box: Box,
        rng: np.random.Generator,
        *,
        start: Points | None = None,
        multipliers: Sequence[float] = LADDER,
        temperature: float | None = None,
        share: float = 0.2,
        step: float = 0.1,
        burn_in: int = 100,
    ) -> None:
        if len(multipliers) < 2:
            raise ValueError(f"a ladder of {len(multipliers)} multipliers; allowed: 2 or more")
        ladder = sorted(multipliers)
        super().__init__(
            box,
            rng,
            start=start,
            multipliers=ladder,
            temperature=temperature,
            share=share,
            step=step,
            burn_in=burn_in,
        )
        self._swaps, self._tried = np.zeros(len(ladder) - 1), np.zeros(len(ladder) - 1)

    @property
    def swap_acceptance(self) -> Floats:
        """Share of accepted swaps of each pair of neighbours so far, float64 [c - 1]."""
        return self._swaps / np.maximum(1, self._tried)

    def tell(self, points: Points, losses: Losses) -> None:
        super().tell(points, losses)
        pairs = np.arange(self._rounds % 2, len(self.multipliers) - 1, 2)
        falls = np.diff(self.multipliers)[pairs] * np.diff(self._losses[:, 0])[pairs]
        swap = self.rng.random(len(pairs)) < np.exp(np.minimum(0.0, falls / self.temperature))
        order = np.arange(len(self.multipliers))
        order[pairs[swap]], order[pairs[swap] + 1] = pairs[swap] + 1, pairs[swap]
        self._points, self._losses = self._points[order], self._losses[order]
        self._tried[pairs] += 1
        self._swaps[pairs] += swap


_CROSS: Final = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))


def five_point_means(point: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Every entry of 8 x 8 blocks (int64 [64 b], row by row) averaged with its neighbours above, below and beside it.

    At an edge the entry itself stands in for a neighbour that is missing. Rounded.
    """
    blocks = np.pad(point.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)), mode="edge")
    total = sum(np.roll(blocks, shift, axis=(1, 2)) for shift in _CROSS)
    return np.rint(np.asarray(total)[:, 1:-1, 1:-1] / 5).astype(np.int64).ravel()


class NotebookWalk:
    """The notebook's two MCMC variants (August 28th), kept to show how they degrade and collapse.

    proposal "step": 60% of the entries move by uniform -7..7 and are clipped to the box. "average": 60% of the entries
    are replaced by `five_point_means`.

    The rule is that of the code behind the notebook: a proposal is taken with probability 0.8 if it lies above a
    parabola (compression rate over score), else 0.2. The parabola is fitted to the first points: `start` and, up to
    fifteen, uniform ones. The walk begins at the highest of them.
    """

    SHARE: Final = 0.6

    def __init__(
        self,
        box: Box,
        rng: np.random.Generator,
        *,
        start: Points | None = None,
        proposal: Literal["step", "average"] = "step",
    ) -> None:
        if proposal == "average" and box.dimension % 64:
            raise ValueError(f"averaging needs 8 x 8 blocks; the box has {box.dimension} dimensions")
        self.box, self.rng, self.proposal = box, rng, proposal
        first = checked_start(box, start)
        random = rng.integers(box.low, box.high, size=(max(0, 15 - len(first)), box.dimension), endpoint=True)
        self._first = np.concatenate([first, random])
        self._curve: RateCurve | None = None
        self._rounds, self._accepted = 0, 0
        self.point: npt.NDArray[np.int64] = self._first[0]
        """Where the walk is, int64 [d]."""

    @property
    def acceptance(self) -> float:
        """Share of accepted proposals so far."""
        return self._accepted / max(1, self._rounds)

    def ask(self) -> Points:
        if self._curve is None:
            return self._first.copy()
        if self.proposal == "step":
            moved = self.point + self.rng.integers(-7, 7, size=self.box.dimension, endpoint=True)
        else:
            moved = five_point_means(self.point)
        changed = np.where(self.rng.random(self.box.dimension) < self.SHARE, moved, self.point)
        return np.asarray(np.clip(changed, self.box.low, self.box.high))[None]

    def tell(self, points: Points, losses: Losses) -> None:
        checked(points, losses)
        if self._curve is None:
            self._curve = RateCurve.fit(losses, 2)
            self.point = points[self._curve.heights(losses).argmax()]
            return
        self._rounds += 1
        if self.rng.random() < (0.8 if self._curve.heights(losses)[0] > 0 else 0.2):
            self.point = points[0]
            self._accepted += 1
