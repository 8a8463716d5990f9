"""Particle swarm and fireflies: they fly towards better points of the unit cube, whose cells are the box's points."""

from __future__ import annotations

from typing import Final

import moocore
import numpy as np
import numpy.typing as npt

from search.base import Box, Losses, Points, checked, checked_start
from search.dominance import first_generation, no_worse, survivors

Cube = npt.NDArray[np.float64]
"""float64 [n, d] in [0, 1)."""


def to_cube(box: Box, points: Points) -> Cube:
    """The middles of the cells that points int64 [n, d] have in the unit cube."""
    return (points - box.low + 0.5) / (box.high - box.low + 1)


def from_cube(box: Box, cube: Cube) -> Points:
    """int64 [n, d]: the points of the box in whose cells float64 [n, d] lies."""
    return np.minimum(box.low + np.floor(cube * (box.high - box.low + 1)).astype(np.int64), box.high)


def inside(cube: Cube) -> Cube:
    """What lies outside the unit cube, moved to its wall."""
    return np.clip(cube, 0, np.nextafter(1, 0))


class ParticleSwarm:
    """Particle swarm (Kennedy and Eberhart 1995) led by a nondominated archive (MOPSO: Coello, Pulido, Lechuga 2004).

    velocity = `inertia` velocity + `pull` (r1 (own best - position) + r2 (leader - position)), r uniform in [0, 1) for
    each entry. The leader is the roomier of two drawn from the archive (Raquel and Naval 2005, instead of MOPSO's
    hypercubes). A position that neither dominates a particle's own best nor is dominated replaces it half of the time.
    The inertia is MOPSO's; particles that stop at the wall, where MOPSO's turn, and a pull of 1.5 instead of 1 gave
    larger hypervolumes.
    """

    ARCHIVE: Final = 100

    def __init__(
        self,
        box: Box,
        rng: np.random.Generator,
        *,
        start: Points | None = None,
        particles: int = 20,
        inertia: float = 0.4,
        pull: float = 1.5,
    ) -> None:
        self.box, self.rng, self.particles, self.inertia, self.pull = box, rng, particles, inertia, pull
        self._position = to_cube(box, first_generation(box, rng, checked_start(box, start), particles))
        self._velocity = np.zeros_like(self._position)
        self._best, self._best_losses = self._position[:0], np.empty((0, 2))
        self._archive, self._archive_losses = self._best, self._best_losses

    def ask(self) -> Points:
        if len(self._best):
            self._fly()
        return from_cube(self.box, self._position)

    def _fly(self) -> None:
        x = self._position
        leader = self._archive[self.rng.integers(len(self._archive), size=(2, len(x))).min(axis=0)]  # roomiest first
        r1, r2 = self.rng.random((2, *x.shape))
        velocity = self.inertia * self._velocity + self.pull * (r1 * (self._best - x) + r2 * (leader - x))
        self._position = inside(x + velocity)
        self._velocity = np.where(self._position == x + velocity, velocity, 0)

    def tell(self, points: Points, losses: Losses) -> None:
        checked(points, losses)
        position = to_cube(self.box, points)
        seen, seen_losses = np.concatenate([self._archive, position]), np.concatenate([self._archive_losses, losses])
        front = np.flatnonzero(moocore.is_nondominated(seen_losses))
        front = front[survivors(seen_losses[front], self.ARCHIVE)]
        self._archive, self._archive_losses = seen[front], seen_losses[front]
        if not len(self._best):
            keep = survivors(losses, self.particles)
            self._position, self._velocity = position[keep], self._velocity[keep]
            self._best, self._best_losses = position[keep], losses[keep]
            return
        undecided = self.rng.random(len(losses)) < 0.5
        replace = no_worse(losses, self._best_losses) | (undecided & ~no_worse(self._best_losses, losses))
        self._best = np.where(replace[:, None], position, self._best)
        self._best_losses = np.where(replace[:, None], losses, self._best_losses)


class Firefly:
    """Fireflies (Yang 2009), in the version for several objectives (Yang 2013): each flies to those that dominate it.

    position += exp(-`absorption` r^2) (brighter - position) for every firefly that dominates it, then a random step of
    up to half of `step` times each side, never less than one value. One that nobody dominates starts from the best by a
    randomly weighted sum instead (Yang 2013, eqs. 8 to 10). r^2 is the mean over the sides, not the sum, so that light
    reaches as far in any dimension. `step` falls by `cooling` in each generation. The brightest of the old and the new
    positions stay: without that the swarm forgets.
    """

    def __init__(
        self,
        box: Box,
        rng: np.random.Generator,
        *,
        start: Points | None = None,
        fireflies: int = 20,
        absorption: float = 1.0,
        step: float = 0.25,
        cooling: float = 0.98,
    ) -> None:
        self.box, self.rng, self.fireflies, self.absorption = box, rng, fireflies, absorption
        self.step, self.cooling = step, cooling
        self._first = first_generation(box, rng, checked_start(box, start), fireflies)
        self._position, self._losses = to_cube(box, self._first[:0]), np.empty((0, 2))

    def ask(self) -> Points:
        return from_cube(self.box, self._flown()) if len(self._position) else self._first

    def _flown(self) -> Cube:
        x = self._position
        moved = x.copy()
        for i, own in enumerate(self._losses):
            brighter = np.flatnonzero(no_worse(self._losses, own) & (self._losses < own).any(axis=1))
            if not len(brighter):
                moved[i] = x[np.argmin(self._losses @ self.rng.dirichlet([1, 1]))]
            for j in brighter:
                towards = x[j] - moved[i]
                moved[i] += np.exp(-self.absorption * np.square(towards).mean()) * towards
        side = np.maximum(self.step, 2 / (self.box.high - self.box.low + 1))
        return inside(moved + side * (self.rng.random(x.shape) - 0.5))

    def tell(self, points: Points, losses: Losses) -> None:
        position = np.concatenate([self._position, to_cube(self.box, points)])
        losses = np.concatenate([self._losses, checked(points, losses)])
        keep = survivors(losses, self.fireflies)
        self._position, self._losses = position[keep], losses[keep]
        self.step *= self.cooling
