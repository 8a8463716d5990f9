"""Rate-distortion optimal quantization with a weight for each coefficient: least error at a price for each bit.

Minimized is sum of w (F - q n)^2 + multiplier * bits(n) over the levels n of a photo: w weights, F unquantized
coefficients, q steps. Bits are those of the baseline scan, with code lengths estimated from the photo's own symbols, as
real numbers. After Crouse & Ramchandran, IEEE TIP 1997, and mozjpeg's `quantize_trellis`.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from qtable.jpeg.codec import Subsampling
from qtable.jpeg.coefficients import Coefficients, luma_order, order_of, symbol_counts
from qtable.jpeg.kernels import trellis as kernels
from qtable.jpeg.tables import QTables

Planes = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Y, Cb, Cr, each float32 [block rows, block columns, 8, 8], natural order, without dummy blocks."""
Lengths = npt.NDArray[np.float64]
"""float64 [4, 256]: bits of each symbol's code. Tables: DC, AC luma, then DC, AC chroma."""

UNSEEN: Final = 0.5
"""How often a symbol that a photo does not have is taken to occur when its code length is asked for."""
_RUNS: Final = np.arange(63)
_SIZES: Final = np.arange(11)[:, None]
_RUN_SIZE: Final = (_RUNS & 15) << 4 | _SIZES
"""int [11, 63]: the AC symbol of a size category after so many zeros, of which each 16 have a ZRL."""
_AMPLITUDE_BITS: Final = np.stack([np.arange(256), np.arange(256) & 15] * 2)


class _Photo(NamedTuple):
    """Checked arguments, each component as one contiguous array [64 * blocks]."""

    shapes: list[tuple[int, ...]]
    planes: list[npt.NDArray[np.float32]]
    weights: list[npt.NDArray[np.float32]]
    steps: list[npt.NDArray[np.float32]]
    nearest: list[npt.NDArray[np.int16]]
    orders: list[npt.NDArray[np.int32]]


def rounded(planes: Planes, tables: QTables) -> Coefficients:
    """Plainly rounded levels, halves away from zero, as libjpeg-turbo makes them; limited to what JPEG codes."""
    steps = tables.components().reshape(3, 64).astype(np.float32)
    y, cb, cr = (
        kernels.rounded(np.ascontiguousarray(plane).reshape(-1), step).reshape(plane.shape)
        for plane, step in zip(planes, steps, strict=True)
    )
    return y, cb, cr


def code_lengths(levels: Coefficients, subsampling: Subsampling) -> Lengths:
    """About the code lengths of an optimal Huffman code for a photo's symbols.

    -log2 p; but a symbol of p > 1/2 costs a whole bit, and the others one to tell them from it. Finite for symbols that
    do not occur (`UNSEEN`). Errors as `symbol_counts` has them.
    """
    counts = symbol_counts(levels, subsampling)
    total = counts.sum(1, keepdims=True)
    p = np.maximum(counts, UNSEEN) / total
    most = p.max(1, keepdims=True)
    others = np.where(most > 0.5, 2 * np.maximum(1 - most, UNSEEN / total), 1.0)
    lengths: Lengths = np.where(p > 0.5, 1.0, np.log2(others / p))
    return lengths


def trellis(
    planes: Planes, weights: Planes, tables: QTables, multiplier: float, subsampling: Subsampling, iterations: int = 2
) -> Coefficients:
    """Levels of least weighted error plus multiplier * bits: `optimal_levels` with the photo's own code lengths.

    These are at first those of plain rounding, then of the levels that came of them, `iterations` times in all (0:
    plain rounding). planes: unquantized, orthonormal units, as `dct.coefficients` gives them. weights: >= 0, of the
    same shapes. multiplier: >= 0, weight * F^2 that one bit is worth. ValueError for anything else.
    """
    if iterations < 0:
        raise ValueError(f"{iterations} iterations; allowed: 0 and more")
    photo = _checked(planes, weights, tables, multiplier, subsampling)
    levels = _levels(photo, photo.nearest)
    for _ in range(iterations):
        levels = _optimal_levels(photo, multiplier, code_lengths(levels, subsampling))
    return levels


def optimal_levels(
    planes: Planes, weights: Planes, tables: QTables, multiplier: float, subsampling: Subsampling, lengths: Lengths
) -> Coefficients:
    """Levels of least `objective` with these code lengths, among those that the kernels try.

    They try the rounded levels, so that the objective is never above theirs; but a block whose levels all have weight
    0 has no AC. Arguments as `trellis` takes them; lengths: as `code_lengths` gives them.
    """
    photo = _checked(planes, weights, tables, multiplier, subsampling)
    if lengths.shape != (4, 256):
        raise ValueError(f"code lengths are [4, 256]; got {list(lengths.shape)}")
    return _optimal_levels(photo, multiplier, lengths)


def objective(
    planes: Planes,
    weights: Planes,
    tables: QTables,
    multiplier: float,
    levels: Coefficients,
    subsampling: Subsampling,
    lengths: Lengths,
) -> float:
    """sum of w (F - q n)^2 + multiplier * bits, what `optimal_levels` minimizes. Arguments and errors as there."""
    error = 0.0
    for plane, weight, table, level in zip(planes, weights, tables.components(), levels, strict=True):
        difference = plane.astype(np.float64) - level * table.astype(np.float64)
        error += float((weight * difference**2).sum())
    return error + multiplier * float((symbol_counts(levels, subsampling) * (lengths + _AMPLITUDE_BITS)).sum())


def _checked(planes: Planes, weights: Planes, tables: QTables, multiplier: float, subsampling: Subsampling) -> _Photo:
    luma = order_of(planes, subsampling)
    if [plane.shape for plane in planes] != [weight.shape for weight in weights]:
        raise ValueError(f"planes {[list(p.shape) for p in planes]}, weights {[list(w.shape) for w in weights]}")
    if not 0 <= multiplier < math.inf:
        raise ValueError(f"a multiplier of {multiplier}; allowed: 0 and more, finite")
    if any(array.dtype != np.float32 for array in (*planes, *weights)):
        raise ValueError(f"planes and weights are float32; got {[str(a.dtype) for a in (*planes, *weights)]}")
    if not all(np.isfinite(plane).all() for plane in planes):
        raise ValueError("a coefficient is not finite")
    if not all(weight.min() >= 0 and weight.max() < np.inf for weight in weights):
        raise ValueError("a weight is negative or not finite")
    flat = [np.ascontiguousarray(plane).reshape(-1) for plane in planes]
    steps = list(tables.components().reshape(3, 64).astype(np.float32))
    chroma = (planes[1].shape[0], planes[1].shape[1])
    raster = luma_order(chroma, chroma, "4:4:4")
    return _Photo(
        shapes=[plane.shape for plane in planes],
        planes=flat,
        weights=[np.ascontiguousarray(weight).reshape(-1) for weight in weights],
        steps=steps,
        nearest=[kernels.rounded(plane, step) for plane, step in zip(flat, steps, strict=True)],
        orders=[luma, raster, raster],
    )


def _optimal_levels(photo: _Photo, multiplier: float, lengths: Lengths) -> Coefficients:
    found = []
    for c in range(3):
        dc, ac = lengths[2 * min(c, 1)], lengths[2 * min(c, 1) + 1]
        rates = multiplier * ((_RUNS >> 4) * ac[0xF0] + ac[_RUN_SIZE] + _SIZES)
        component = photo.planes[c], photo.weights[c]
        levels = kernels.optimal_ac(*component, photo.steps[c], photo.nearest[c], rates, multiplier * float(ac[0]))
        differences = multiplier * (dc[:12] + np.arange(12))
        kernels.choose_dc(levels, *component, float(photo.steps[c][0]), photo.nearest[c], photo.orders[c], differences)
        found.append(levels)
    return _levels(photo, found)


def _levels(photo: _Photo, flat: list[npt.NDArray[np.int16]]) -> Coefficients:
    y, cb, cr = (levels.reshape(shape) for levels, shape in zip(flat, photo.shapes, strict=True))
    return y, cb, cr
