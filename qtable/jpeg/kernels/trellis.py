"""Rate-distortion optimal levels by dynamic programming: the AC of each block, and a component's chain of DC.

Costs are float64, in units of weight * coefficient^2. Sums are made in one order, so that results are the same on every
machine and equal to the plain reference in tests/jpeg/test_trellis.py to the last bit.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from qtable.jpeg.kernels import compiled
from qtable.jpeg.kernels.bits import along_zigzag, bit_length, nonzeros, trailing_zeros
from qtable.jpeg.tables import ZIGZAG

Levels = npt.NDArray[np.int16]
Plane = npt.NDArray[np.float32]
Costs = npt.NDArray[np.float64]

_ZIGZAG: Final = np.asarray(ZIGZAG, np.int64)
_ONE: Final = np.uint64(1)
_AC: Final = ~np.uint64(1)
MAX_AC: Final = 1023
LEAST_DC: Final = -1024
GREATEST_DC: Final = 1023
"""No two DC levels within these differ by more than baseline JPEG's 2047."""
_AROUND: Final = 2
"""DC levels that are tried on either side of the rounded one."""
_TRIED: Final = 2 * _AROUND + 2


@compiled
def rounded(plane: Plane, table: Plane) -> Levels:
    """F / q in float32, rounded to the nearest whole number, halves away from zero; jcdctmgr.c `quantize`.

    plane: float32 [64 * blocks], finite. table: float32 [64]. Limited to what JPEG codes.
    """
    blocks = plane.reshape(-1, 64)
    levels = np.empty(blocks.shape, np.int16)
    half, greatest = np.float32(0.5), np.float32(MAX_AC)
    least = np.full(64, -MAX_AC).astype(np.float32)
    least[0] = LEAST_DC
    for b in range(blocks.shape[0]):
        for i in range(64):
            level = blocks[b, i] / table[i]
            level = level if level < greatest else greatest
            level = level if level > least[i] else least[i]
            levels[b, i] = np.int16(np.int32(level + (half if level > 0 else -half)))
    return levels.reshape(-1)


@compiled
def optimal_ac(plane: Plane, weights: Plane, table: Plane, nearest: Levels, rates: Costs, end: float) -> Levels:
    """The AC levels of each block that cost least, int16 [64 * blocks]; DC is 0.

    Where rounding (`nearest`) is not 0 a level may be that, or the largest of each smaller size category, or 0: others
    of a category cost as many bits and err more. A state is the place of the last nonzero level; its cost is that of
    the block up to there less the error of a block of zeros. Blocks without weight where they are not 0 become empty.
    rates: float64 [11, 63], the cost of the bits of a level by its size category and the zeros before it. end: of EOB.
    """
    levels = np.zeros(len(plane), np.int16)
    place, before, chosen = np.zeros(64, np.int64), np.zeros(64, np.int64), np.zeros(64, np.int64)
    cost = np.zeros(64, np.float64)
    for at in range(0, len(plane), 64):
        word = along_zigzag(nonzeros(nearest, at)) & _AC
        states = np.int64(1)
        weighted = False
        while word != 0:
            k = trailing_zeros(word)
            word &= word - _ONE
            i = at + _ZIGZAG[k]
            weight, step, magnitude = np.float64(weights[i]), np.float64(table[_ZIGZAG[k]]), abs(np.float64(plane[i]))
            weighted = weighted or bool(weight > 0)
            level = abs(np.int64(nearest[i]))
            place[states], cost[states] = k, np.inf
            for size in range(bit_length(level), 0, -1):
                least, source = np.inf, np.int64(0)
                for j in range(states):
                    total = cost[j] + rates[size, k - place[j] - 1]
                    source = np.int64(j) if total < least else source
                    least = min(total, least)
                value = step * level
                total = least + weight * value * (value - 2 * magnitude)
                if total < cost[states]:
                    cost[states], before[states], chosen[states] = total, source, level
                level = np.int64((1 << (size - 1)) - 1)
            states += 1
        if not weighted:
            continue
        least, last = end, np.int64(0)
        for j in range(1, states):
            total = cost[j] if place[j] == 63 else cost[j] + end
            if total < least:
                least, last = total, np.int64(j)
        while last > 0:
            i = at + _ZIGZAG[place[last]]
            levels[i] = -chosen[last] if nearest[i] < 0 else chosen[last]
            last = before[last]
    return levels


@compiled
def choose_dc(
    levels: Levels,
    plane: Plane,
    weights: Plane,
    step: float,
    nearest: Levels,
    order: npt.NDArray[np.int32],
    rates: Costs,
) -> None:
    """Put the DC levels that cost least into `levels`, whose AC it leaves alone.

    Tried in each block: the rounded level, two on either side, and the last level of the cheapest chain so far.
    order: which block comes when; -1: a dummy block, whose difference is 0. rates: float64 [12], the cost of the bits
    of a difference by its size category.
    """
    tried = np.zeros((len(order) + 1, _TRIED), np.int16)
    before = np.zeros((len(order) + 1, _TRIED), np.int8)
    cost, following = np.full(_TRIED, np.inf), np.empty(_TRIED, np.float64)
    cost[0] = 0.0  # the chain begins at level 0
    done, cheapest = 0, 0
    for i in range(len(order)):
        if order[i] < 0:
            continue
        at = 64 * np.int64(order[i])
        value, weight, middle = np.float64(plane[at]), np.float64(weights[at]), np.int64(nearest[at])
        best = np.inf
        carried = np.int64(tried[done, cheapest])
        for c in range(_TRIED):
            level = carried
            if c <= 2 * _AROUND:
                level = min(max(middle + c - _AROUND, np.int64(LEAST_DC)), np.int64(GREATEST_DC))
            least, source = np.inf, np.int64(0)
            for j in range(_TRIED):
                total = cost[j] + rates[bit_length(abs(level - np.int64(tried[done, j])))]
                source = np.int64(j) if total < least else source
                least = min(total, least)
            error = step * level - value
            following[c] = least + weight * error * error
            tried[done + 1, c], before[done + 1, c] = level, source
            if following[c] < best:
                best, cheapest = following[c], c
        done += 1
        cost[:] = following
    state = np.int64(cheapest)
    for i in range(len(order) - 1, -1, -1):
        if order[i] >= 0:
            levels[64 * np.int64(order[i])] = tried[done, state]
            state = np.int64(before[done, state])
            done -= 1
