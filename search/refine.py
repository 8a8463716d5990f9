"""Closer to the file: the closed form's rate corrected for runs and end-of-block codes, and descent on exact sizes.

`entropy_bits` prices every coefficient by itself. In a file a zero costs nothing but a longer run, and one symbol codes
a run together with a size (ITU-T T.81, section F.1.2.2), so that what a coefficient saves by becoming zero depends on
its neighbours along the zigzag. Both refinements start from tables of the closed form.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from qtable.jpeg import dct
from qtable.jpeg.codec import Subsampling
from qtable.jpeg.tables import ZIGZAG, QTables
from qtable.measure.estimates import STEPS, Floats
from qtable.measure.sensitivity import BINS, RESOLUTION, Histograms
from qtable.photos.sets import Photos
from search.base import Box
from search.closed_form import Lagrangian, Path, shrunk

Coefficients = Sequence[npt.NDArray[np.float32]]
"""DCT coefficients of Y, Cb and Cr: float32 [blocks, 64] each, natural order, libjpeg's scale."""
Integers = npt.NDArray[np.signedinteger[Any]]
_CLASSES: Final = ((0,), (1, 2))
"""The components that share Huffman tables."""
_LONGEST: Final = 16
_SIZES: Final = np.array([n.bit_length() for n in range(BINS)], dtype=np.int16)
"""The size category of each level (T.81, table F.2)."""
_COARSE: Final = np.concatenate([[0], 1 + np.floor(2 * np.log2(np.arange(1, BINS))).astype(int)])
"""Half octaves of |F|, within which coefficients are taken to have like neighbours."""


def _code_lengths(run: Integers, size: Integers, end_of_blocks: int) -> Floats:
    """Ideal lengths in bits of the AC symbols, as often as they occur: float64 [64, 16] by run of zeros and size.

    Of size 0 is what follows the last coefficient of a block: nothing behind position 63 (run 0), else end-of-block.
    """
    counts = np.bincount(run % 16 * 16 + size, minlength=256).reshape(16, 16).astype(float)
    counts[15, 0] += (run // 16).sum()
    counts[0, 0] += end_of_blocks
    rarest = 0.3  # symbols that do not occur, at a price
    symbols = np.clip(np.log2(max(counts.sum(), 1.0)) - np.log2(np.maximum(counts, rarest)), 1, _LONGEST)
    runs = np.arange(64)
    lengths: Floats = runs[:, None] // 16 * symbols[15, 0] + symbols[runs % 16]
    lengths[:, 0] = np.where(runs > 0, symbols[0, 0], 0.0)
    return lengths


def _worth(zigzag: npt.NDArray[np.float32], steps: npt.NDArray[np.int64]) -> tuple[Floats, Histograms]:
    """What being of size s costs against being zero, given the neighbours that `steps` leave.

    zigzag: [blocks, 64]. Returns bits float64 [64, coarse bins, sizes], means over the coefficients of each bin, and
    how many these were [64, coarse bins].
    """
    magnitude = np.abs(zigzag)
    level = np.floor(magnitude / steps.astype(np.float32) + np.float32(0.5)).astype(np.int16)
    nonzero = level > 0
    nonzero[:, 0] = True  # runs begin behind DC
    position = np.arange(64, dtype=np.int16)
    last = np.maximum.accumulate(np.where(nonzero, position, 0), axis=1)
    before = np.pad(last[:, :-1], ((0, 0), (1, 0)))
    upcoming = np.minimum.accumulate(np.where(nonzero, position, 64)[:, ::-1], axis=1)[:, ::-1]
    after = np.pad(upcoming[:, 1:], ((0, 0), (0, 1)), constant_values=64)
    size = np.pad(_SIZES[level], ((0, 0), (0, 1)))
    size_after = np.take_along_axis(size, after.astype(np.intp), axis=1)
    run = position - before - 1
    coded = nonzero & (position > 0)
    lengths = _code_lengths(run[coded], size[:, :64][coded], int((last[:, -1] < 63).sum()))

    def following(start: Integers) -> Floats:
        """Bits of what comes next if the last nonzero coefficient is at `start`."""
        bits: Floats = lengths.ravel()[(after - start - 1) * 16 + size_after]
        return bits

    remainder = following(position) - following(before)
    coarse = _COARSE[np.minimum(np.rint(magnitude * RESOLUTION), BINS - 1).astype(np.intp)]
    bins = _COARSE[-1] + 1
    key = (position * bins + coarse)[:, 1:].ravel()
    runs = np.bincount(key * 63 + run[:, 1:].ravel(), minlength=64 * bins * 63).reshape(-1, 63)
    remainders = np.bincount(key, remainder[:, 1:].ravel(), 64 * bins)
    number = runs.sum(axis=1)
    sizes = np.arange(1, 12)
    worth = (runs @ (lengths[:63, 1:12] + sizes) + remainders[:, None]) / np.maximum(number, 1)[:, None]
    worth = np.pad(worth, ((0, 0), (1, 0)))
    return worth.reshape(64, bins, -1), number.reshape(64, bins).astype(float)


@functools.cache
def _cells() -> tuple[npt.NDArray[np.int64], ...]:
    """Ranges low..high of the bins of |F| that are of one coarse bin and one size at one step; rising by step.

    Returns int64 [cells] each: coarse bin, size, low, high; and int64 [255]: where each step's cells begin.
    """
    edges = np.searchsorted(_COARSE, np.arange(_COARSE[-1] + 2))
    smallest = np.concatenate([[0], 2 ** np.arange(11), [BINS]])  # levels at which the sizes 0..11 begin, and the end
    begins = np.ceil((smallest - 0.5) * STEPS[:, None] * RESOLUTION).clip(0, BINS).astype(np.int64)
    low = np.maximum(edges[:-1, None], begins[:, None, :-1])
    high = np.minimum(edges[1:, None], begins[:, None, 1:])
    step, coarse, size = np.nonzero(low < high)
    return coarse, size, low[step, coarse, size], high[step, coarse, size], np.searchsorted(step, np.arange(len(STEPS)))


def run_aware_bits(problem: Lagrangian, levels: Histograms, coefficients: Coefficients, tables: QTables) -> Floats:
    """float64 [3, 64, 255]: AC bits by run and size symbols, marginal around `tables`; DC as in `problem`.

    Only differences between the steps of one frequency have a meaning: the bits of a frequency that is all zero are 0.
    levels: `Sensitivity.levels`. coefficients: of some photos, from which the neighbourhoods are learned.
    """
    steps = tables.components().reshape(3, 64).astype(np.int64)
    bits = problem.bits.copy()
    coarse, size, low, high, starts = _cells()
    below = np.pad(levels.cumsum(axis=2), ((0, 0), (0, 0), (1, 0)))
    for components in _CLASSES:
        together = [_worth(coefficients[c][:, ZIGZAG], steps[c][ZIGZAG]) for c in components]
        number = np.sum([n for _, n in together], axis=0)
        worth = np.sum([w * n[..., None] for w, n in together], axis=0) / np.maximum(number, 1)[..., None]
        for k in range(1, 64):
            known = np.flatnonzero(number[k])
            if not len(known):
                continue
            nearest = known[np.abs(np.arange(worth.shape[1])[:, None] - known).argmin(axis=1)]
            price = worth[k][nearest][coarse, size]
            for c in components:
                counted = below[c, ZIGZAG[k]]
                bits[c, ZIGZAG[k]] = np.add.reduceat((counted[high] - counted[low]) * price, starts)
    return bits


def coefficients_of(photos: Photos, subsampling: Subsampling, pixels: int = 1 << 20) -> Coefficients:
    """Those of photos evenly spaced among all, as many as make up about `pixels`; see `Coefficients`."""
    share = pixels * len(photos) / np.prod(photos.sizes, axis=1).sum()
    few = np.unique(np.linspace(0, len(photos) - 1, min(len(photos), max(1, round(share)))).round().astype(int))
    planes = [
        dct.coefficients(torch.from_numpy(photos.images[i]).permute(2, 0, 1)[None].float(), subsampling) for i in few
    ]
    return [np.concatenate([p[c].reshape(-1, 64).numpy() for p in planes]) for c in range(3)]


@dataclass(frozen=True)
class RunAware:
    """The closed form's path with `run_aware_bits`: learned at some of its points, interpolated in between.

    anchors: log multipliers float64 [a], rising. learned: the bits there, float64 [a, 3, 64, 255].
    """

    problem: Lagrangian
    path: Path
    anchors: Floats
    learned: Floats
    shrinkage: float = 0.0

    @classmethod
    def of(
        cls,
        problem: Lagrangian,
        levels: Histograms,
        coefficients: Coefficients,
        shrinkage: float = 0.0,
        anchors: int = 5,
    ) -> RunAware:
        """With `anchors` points of the path at which the neighbourhoods of `coefficients` are looked at."""
        path = problem.path()
        points = np.linspace(0, path.steps, anchors).round().astype(np.int64)
        at = np.array([path.parameter(points[i : i + 1]) for i in range(anchors)])
        learned = [run_aware_bits(problem, levels, coefficients, problem.solve(float(np.exp(x)))) for x in at]
        return cls(problem, path, at, np.array(learned), shrinkage)

    @property
    def box(self) -> Box:
        return self.path.box

    def tables(self, point: npt.NDArray[np.int64]) -> QTables:
        x = self.path.parameter(point)
        right = int(np.clip(np.searchsorted(self.anchors, x), 1, len(self.anchors) - 1))
        low, high = self.anchors[right - 1], self.anchors[right]
        weight = (x - low) / (high - low) if high > low else 0.0
        bits = (1 - weight) * self.learned[right - 1] + weight * self.learned[right]
        return shrunk(replace(self.problem, bits=bits).solve(float(np.exp(x))), self.shrinkage)


@dataclass(frozen=True)
class Descent:
    """The closed form's path, each point improved by coordinate descent on estimated cost + multiplier x exact bits.

    bits: the exact size of the photos' files, in bits, as many photos as `problem` has (or scaled to as many).
    Every entry in turn is tried at 12% and 35% more and less (Fung and Parker, Journal of Electronic Imaging 4(4),
    1995, with the exact size in place of their estimate); `rounds` passes over all entries.
    """

    problem: Lagrangian
    path: Path
    bits: Callable[[QTables], float]
    rounds: int = 2

    @property
    def box(self) -> Box:
        return self.path.box

    def tables(self, point: npt.NDArray[np.int64]) -> QTables:
        multiplier = float(np.exp(self.path.parameter(point)))

        def loss(tables: QTables) -> float:
            return self.problem.cost_of(tables) + multiplier * self.bits(tables)

        best = self.problem.solve(multiplier)
        least = loss(best)
        for _ in range(self.rounds):
            for entry in np.ndindex(best.values.shape):
                for factor in (1.12, 1 / 1.12, 1.35, 1 / 1.35):
                    values = best.values.astype(np.int64)
                    values[entry] = np.clip(_moved(int(values[entry]), factor), 1, 255)
                    tried = QTables(values)
                    if tried != best and (found := loss(tried)) < least:
                        best, least = tried, found
        return best


def _moved(step: int, factor: float) -> int:
    """`step` times `factor`, at least one away from it."""
    moved = round(step * factor)
    return moved if moved != step else step + (1 if factor > 1 else -1)
