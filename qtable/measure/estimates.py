"""What statistics say of tables that were not tried: the cost and the bits of every step at every frequency."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from qtable.codecs.looking import FLOOR, Usual
from qtable.jpeg.tables import QTables
from qtable.measure.sensitivity import BINS, RESOLUTION, Histograms, Sensitivity

Floats = npt.NDArray[np.float64]
STEPS: Final = np.arange(1, 256)


@functools.cache
def _levels() -> npt.NDArray[np.int64]:
    """int64 [BINS, 255]: the level round(|F| / q) of each bin for each step."""
    values = np.arange(BINS)[:, None]
    return (2 * values + RESOLUTION * STEPS) // (2 * RESOLUTION * STEPS)


@functools.cache
def _squared_errors() -> Floats:
    """float64 [BINS, 255]: (|F| - q round(|F| / q))^2 of each bin for each step."""
    return np.square(np.arange(BINS)[:, None] / RESOLUTION - STEPS * _levels())


def distortion(weights: Histograms) -> Floats:
    """float64 [3, 64, 255]: the weighted squared error of each component and frequency at steps 1..255.

    weights: float64 [3, 64, BINS]: `Sensitivity.costs` for the model's loss, `Sensitivity.levels` for squared error.
    """
    return (weights.reshape(-1, BINS) @ _squared_errors()).reshape(3, 64, -1)


def entropy_bits(statistics: Sensitivity) -> Floats:
    """float64 [3, 64, 255]: estimated bits at steps 1..255: zero-order entropy of the quantized levels, signs included.

    For DC it is the entropy of the quantized differences, which is nearly that of the differences that a file stores.
    """
    counts = statistics.levels.copy()
    counts[:, 0] = statistics.differences
    counts = counts.reshape(-1, BINS)
    total = counts.sum(axis=1)
    bits = np.empty((len(counts), len(STEPS)))
    for i, level in enumerate(_levels().T):
        starts = np.searchsorted(level, np.arange(level[-1] + 1))
        groups = np.add.reduceat(counts, starts, axis=1)
        bits[:, i] = _n_log_n(total) - _n_log_n(groups).sum(axis=1) + (total - groups[:, 0])
    return bits.reshape(3, 64, -1)


def _n_log_n(n: Floats) -> Floats:
    return np.where(n > 0, n * np.log2(np.maximum(n, 1)), 0.0)


def usual_of(statistics: Sensitivity, at: QTables) -> Usual:
    """What is usual over the photos of statistics that were measured at these tables."""
    number = np.maximum(statistics.levels.sum(axis=2), 1)
    squares = statistics.levels @ np.square(np.arange(BINS) / RESOLUTION) / number
    steps = at.components().reshape(3, 64).astype(float)
    return Usual(statistics.costs.sum(axis=2) / number, np.minimum(np.square(steps) / 12, squares))


def together(statistics: Sequence[Sensitivity], usual: Sequence[Usual]) -> Sensitivity:
    """Statistics of several networks on the same photos as one: the mean of their costs, each in its usual total."""
    shares = [s.costs / max(float(u.total.sum()), FLOOR) for s, u in zip(statistics, usual, strict=True)]
    return replace(statistics[0], costs=np.sum(shares, axis=0) / len(shares))
