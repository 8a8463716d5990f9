"""Where the bytes of a file go, frequency by frequency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qtable.jpeg.coefficients import read_coefficients
from qtable.jpeg.header import read_header
from qtable.jpeg.tables import ZIGZAG, QTables
from qtable.measure.estimates import entropy_bits
from qtable.measure.sensitivity import Sensitivity

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spent:
    """Where the bytes of a mean file go; the parts add up to it.

    frequencies: float64 [3, 64], of Y, Cb, Cr and natural frequency, what its levels take with the zeros before them.
    ends: float64 [3], the marks after each block's last level. rest: headers, filling and stuffing.
    """

    frequencies: Floats
    ends: Floats
    rest: float

    @property
    def total(self) -> float:
        return float(self.frequencies.sum() + self.ends.sum() + self.rest)


def spent(files: Sequence[bytes]) -> Spent:
    """The mean over files that a `Codec` wrote with sequential coding; exact: every bit is counted once."""
    parts = [_spent(file) for file in files]
    return Spent(
        np.mean([p.frequencies for p in parts], axis=0),
        np.mean([p.ends for p in parts], axis=0),
        float(np.mean([p.rest for p in parts])),
    )


def _spent(file: bytes) -> Spent:
    """T.81, F.1.2: a DC difference and each AC level are a Huffman code and as many bits as the level has."""
    header = read_header(file)
    lengths = {(table.kind, table.slot): _code_lengths(table.counts, table.symbols) for table in header.huffman_tables}
    bits, ends = np.zeros((3, 64)), np.zeros(3)
    for c, (component, plane) in enumerate(zip(header.components, read_coefficients(file), strict=True)):
        dc, ac = lengths[0, min(c, 1)], lengths[1, min(c, 1)]
        order, dummies = _scan_order(plane.shape[0], plane.shape[1], component.vertical, component.horizontal)
        blocks = plane.reshape(-1, 64)[order][:, ZIGZAG].astype(np.int64)
        sizes = _bit_lengths(np.diff(blocks[:, 0], prepend=0))
        bits[c, 0] = (dc[sizes] + sizes).sum()
        block, k = np.nonzero(blocks[:, 1:])
        k += 1
        first = np.diff(block, prepend=-1) > 0
        run = k - np.where(first, 0, np.concatenate([[0], k[:-1]])) - 1
        sizes = _bit_lengths(blocks[block, k])
        bits[c] += np.bincount(ZIGZAG[k], ac[0xF0] * (run >> 4) + ac[(run & 15) << 4 | sizes] + sizes, 64)
        ended = len(blocks) - int((blocks[:, 63] != 0).sum())
        ends[c] = (ended + dummies) * ac[0] + dummies * dc[0]
    return Spent(bits / 8, ends / 8, len(file) - (float(bits.sum()) + float(ends.sum())) / 8)


def _code_lengths(counts: bytes, symbols: bytes) -> npt.NDArray[np.int64]:
    """int64 [256]: bits of each symbol's code, 0 of those without one."""
    lengths = np.zeros(256, np.int64)
    lengths[list(symbols)] = np.repeat(np.arange(1, 17), list(counts))
    return lengths


def _bit_lengths(levels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    lengths: npt.NDArray[np.int64] = np.frexp(np.abs(levels).astype(float))[1].astype(np.int64)
    return lengths


def _scan_order(rows: int, columns: int, high: int, wide: int) -> tuple[npt.NDArray[np.int64], int]:
    """A component's blocks in the order of a scan whose MCUs have high x wide of them, and how many dummies fill up.

    Dummy blocks repeat the DC before them (libjpeg's jccoefct.c), so they change nobody's difference.
    """
    padded = np.full((-(-rows // high) * high, -(-columns // wide) * wide), -1)
    padded[:rows, :columns] = np.arange(rows * columns).reshape(rows, columns)
    order = padded.reshape(-1, high, padded.shape[1] // wide, wide).transpose(0, 2, 1, 3).ravel()
    return order[order >= 0], int((order < 0).sum())


def spent_estimates(statistics: Sensitivity, tables: Sequence[QTables]) -> list[Spent]:
    """By the entropy of the `fit` photos' levels, frequency by frequency: without headers and ends of blocks."""
    bits = entropy_bits(statistics) / max(statistics.photos, 1)
    steps = [each.components().reshape(3, 64, 1).astype(np.intp) for each in tables]
    return [Spent(np.take_along_axis(bits, step - 1, axis=2)[..., 0] / 8, np.zeros(3), 0.0) for step in steps]
