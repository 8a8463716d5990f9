"""Is the loss of accuracy small enough? Paired non-inferiority tests on the same photos, and how many photos they need.

Only photos whose outcome changed speak: `lost` were right before and are wrong now, `gained` the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Bits = npt.NDArray[np.float64]
"""float64 [n]: 1 where a photo's outcome is right, else 0."""


@dataclass(frozen=True)
class Change:
    """What became of `photos` outcomes: how many were lost and how many gained."""

    photos: int
    lost: int
    gained: int

    @classmethod
    def between(cls, before: Bits, after: Bits) -> Change:
        """ValueError if outcomes are not 0 or 1, or not of the same photos."""
        if before.shape != after.shape or before.ndim != 1 or not len(before):
            raise ValueError(f"outcomes of shapes {before.shape} and {after.shape}; expected two of one shape [n]")
        if not np.isin([before, after], (0, 1)).all():
            raise ValueError("a non-inferiority test needs outcomes that are right or wrong, 0 or 1")
        return cls(len(before), int((before > after).sum()), int((after > before).sum()))

    @property
    def drop(self) -> float:
        """The measured loss of accuracy, as a fraction (negative: a gain)."""
        return (self.lost - self.gained) / self.photos


def _gained_rate(change: Change, max_drop: float) -> float:
    """The likeliest rate of gained photos if the true drop is `max_drop` (Tango 1998, equation 11)."""
    n, b, c = change.photos, min(change.lost + 1, change.photos), change.gained
    linear = -b - c + (2 * n - b + c) * max_drop
    return (math.sqrt(linear**2 + 8 * n * c * max_drop * (1 - max_drop)) - linear) / (4 * n)


def score_statistic(change: Change, max_drop: float) -> float:
    """Tango's score statistic for a true drop of `max_drop` (Statistics in Medicine 17, 1998, equation 10).

    Standard normal if the true drop is `max_drop`; below -1.645 the drop is smaller with 95% confidence. One is added
    to `lost` (a continuity correction), which keeps the error at or below its nominal rate in small samples.
    """
    n, b, c = change.photos, min(change.lost + 1, change.photos), change.gained
    variance = n * (2 * _gained_rate(change, max_drop) + max_drop * (1 - max_drop))
    return (b - c - n * max_drop) / math.sqrt(variance)


def is_non_inferior(change: Change, max_drop: float, confidence: float = 0.95) -> bool:
    """Whether the true drop is below `max_drop` (a fraction, above 0 and below 1) with this confidence (one-sided).

    ValueError for other drops.
    """
    if not 0 < max_drop < 1:
        raise ValueError(f"a maximal drop of {max_drop}; allowed: above 0 and below 1 (0.005 = half a point)")
    return score_statistic(change, max_drop) <= float(ndtri(1 - confidence))


def last_non_inferior(changes: Sequence[Change], max_drop: float, confidence: float = 0.95) -> int | None:
    """Index of the last of `changes` before the first that fails, None if the first fails.

    The order must be fixed beforehand, from the least compressed on. Testing in a fixed order until the first failure
    keeps the chance of any wrong acceptance at 1 - confidence without correction (Maurer, Hothorn, Lehmacher 1995).
    """
    last = None
    for i, change in enumerate(changes):
        if not is_non_inferior(change, max_drop, confidence):
            break
        last = i
    return last


def photos_needed(change: Change, max_drop: float, confidence: float = 0.95, power: float = 0.8) -> int | None:
    """How many photos would prove it with this power if the true rates are those measured; None if no number would.

    Normal approximation with the variance under the null hypothesis for the test and the measured one for the power,
    and one photo more for the continuity correction. Always more than `change.photos` for a change that fails.
    """
    margin = max_drop - change.drop
    if margin <= 0:
        return None
    null = 2 * _gained_rate(change, max_drop) + max_drop * (1 - max_drop)
    measured = max((change.lost + change.gained) / change.photos - change.drop**2, 0.0)
    spread = float(ndtri(confidence)) * math.sqrt(null) + float(ndtri(power)) * math.sqrt(measured)
    needed = math.ceil((spread / margin) ** 2 + 1 / margin)
    return needed if is_non_inferior(change, max_drop, confidence) else max(needed, change.photos + 1)
