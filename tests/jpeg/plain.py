"""Plain forms of the trellis, for its tests: Python's floats in the kernels' order, no candidate left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qtable.jpeg.codec import Subsampling
from qtable.jpeg.coefficients import luma_order
from qtable.jpeg.tables import ZIGZAG, QTables
from qtable.jpeg.trellis import Lengths, Planes

Block = Sequence[float]


def size_of(level: int) -> int:
    return abs(level).bit_length()


def block_bits(levels: Sequence[int], lengths: np.ndarray) -> float:
    """Bits of the AC of a block along the zigzag, levels[0] apart; jchuff.c `encode_one_block`."""
    bits, run = 0.0, 0
    for level in levels[1:]:
        if level == 0:
            run += 1
            continue
        bits += (run >> 4) * lengths[0xF0] + lengths[(run & 15) << 4 | size_of(level)] + size_of(level)
        run = 0
    return bits + (lengths[0] if run else 0)


def reference_ac(f: Block, w: Block, q: Block, nearest: Sequence[int], lengths: np.ndarray, price: float) -> list[int]:
    """The best path, along the zigzag; f, w, q: Python's floats. All as `kernels.optimal_ac` says it."""
    levels = [0] * 64
    if not any(w[k] > 0 and nearest[k] for k in range(1, 64)):
        return levels
    cost, best = {0: 0.0}, {0: (0, 0)}
    for k in (k for k in range(1, 64) if nearest[k]):
        top = abs(nearest[k])
        options = []
        for level in [top, *((1 << s) - 1 for s in range(size_of(top) - 1, 0, -1))]:
            error = w[k] * (q[k] * level) * (q[k] * level - 2 * abs(f[k]))
            for j in cost:
                run = k - j - 1
                code = (run >> 4) * lengths[0xF0] + lengths[(run & 15) << 4 | size_of(level)] + size_of(level)
                options.append((cost[j] + price * code + error, level, j))
        least = min(option[0] for option in options)
        total, level, j = next(option for option in options if option[0] == least)
        cost[k], best[k] = total, (level, j)
    end = {k: c + (0 if k == 63 else price * lengths[0]) for k, c in cost.items()}
    k = min(end, key=lambda k: end[k])
    while k:
        levels[k] = best[k][0] if f[k] > 0 else -best[k][0]
        k = best[k][1]
    return levels


def reference_dc(f: Block, w: Block, q: float, nearest: Sequence[int], lengths: np.ndarray, price: float) -> list[int]:
    """The best chain; as `kernels.choose_dc` says it."""
    chains = [(0.0, [0])]
    for value, weight, middle in zip(f, w, nearest, strict=True):
        carried = min(chains, key=lambda chain: chain[0])[1][-1]
        options = []
        for level in [*(min(max(middle + d, -1024), 1023) for d in (-2, -1, 0, 1, 2)), carried]:
            totals = []
            for total, levels in chains:
                size = size_of(level - levels[-1])
                totals.append((total + price * (lengths[size] + size), levels))
            total, levels = min(totals, key=lambda option: option[0])
            error = q * level - value
            options.append((total + weight * error * error, [*levels, level]))
        chains = options
    return min(chains, key=lambda chain: chain[0])[1][1:]


def reference(
    planes: Planes, weights: Planes, tables: QTables, price: float, subsampling: Subsampling, lengths: Lengths
) -> list[np.ndarray]:
    """What `optimal_levels` must return, [blocks, 64] of each component."""
    found = []
    chroma = planes[1].shape[:2]
    for c, (plane, weight, table) in enumerate(zip(planes, weights, tables.components(), strict=True)):
        f, w, q = (x.reshape(-1, 64)[:, ZIGZAG].astype(float) for x in (plane, weight, table))
        ratio = (plane.reshape(-1, 64) / table.reshape(64).astype(np.float32))[:, ZIGZAG]
        nearest = np.copysign(np.floor(np.abs(ratio) + np.float32(0.5)), ratio).astype(int).clip(-1024, 1023)
        dc, ac = lengths[2 * min(c, 1)], lengths[2 * min(c, 1) + 1]
        blocks = [
            reference_ac(*(x.tolist() for x in (f[b], w[b], q[0], nearest[b])), ac, price)  # type: ignore[call-arg]
            for b in range(len(f))
        ]
        levels = np.array(blocks)[:, np.argsort(ZIGZAG)]
        order = luma_order(plane.shape[:2], chroma, subsampling) if c == 0 else np.arange(len(f))
        order = order[order >= 0]
        levels[order, 0] = reference_dc(
            f[order, 0].tolist(), w[order, 0].tolist(), float(q[0, 0]), nearest[order, 0].tolist(), dc, price
        )
        found.append(levels)
    return found
