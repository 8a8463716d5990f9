"""Huffman-coded segments, walked without decoding a pixel: are their bits what T.81 says? jdhuff.c, jdphuff.c."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qtable.jpeg.kernels import compiled, inlined

WHOLE, BAD_CODE, SHORT, LONG = range(4)
"""What there is to say of a segment: nothing; a code that no table has; too few bits; bytes too many."""


@inlined
def _peek(data: npt.NDArray[np.uint8], at: int) -> int:
    """The 16 bits from bit `at` on; `data` ends with four bytes that are not the segment's."""
    byte = at >> 3
    window = (int(data[byte]) << 16) | (int(data[byte + 1]) << 8) | int(data[byte + 2])
    return (window >> (8 - (at & 7))) & 0xFFFF


@compiled
def sequential(
    data: npt.NDArray[np.uint8],
    tables: npt.NDArray[np.int32],
    dc: npt.NDArray[np.int64],
    ac: npt.NDArray[np.int64],
    mcus: int,
) -> int:
    """Walk the MCUs of a sequential scan; one of `WHOLE`, `BAD_CODE`, `SHORT`, `LONG`, as of all functions here.

    data: what lies between two restart markers, without stuffing, and four bytes more. tables: int32 [tables, 65536],
    by the next 16 bits: 256 * the length of a code + its symbol, 0 if there is none. dc, ac: which table for each block
    of an MCU.
    """
    end, at = 8 * (len(data) - 4), 0
    for _ in range(mcus):
        for j in range(len(dc)):
            k = 0
            while k < 64:
                entry = tables[ac[j] if k else dc[j], _peek(data, at)]
                if entry == 0:
                    return SHORT if at + 16 > end else BAD_CODE
                zeros, size = (entry >> 4) & 15, entry & 15
                at += (entry >> 8) + size
                if at > end:
                    return SHORT
                if k and size == 0 and zeros < 15:
                    break
                k += 1 + (zeros if k else 0)
    return LONG if end - at >= 8 else WHOLE


@compiled
def progressive_dc(
    data: npt.NDArray[np.uint8], tables: npt.NDArray[np.int32], dc: npt.NDArray[np.int64], mcus: int, refines: bool
) -> int:
    """Walk the MCUs of a DC scan of a progressive file. refines: not the first one, which adds a bit to each block."""
    end, at = 8 * (len(data) - 4), 0
    if refines:
        at = mcus * len(dc)
    else:
        for _ in range(mcus):
            for j in range(len(dc)):
                entry = tables[dc[j], _peek(data, at)]
                if entry == 0:
                    return SHORT if at + 16 > end else BAD_CODE
                at += (entry >> 8) + (entry & 15)
                if at > end:
                    return SHORT
    return SHORT if at > end else LONG if end - at >= 8 else WHOLE


@compiled
def progressive_ac(
    data: npt.NDArray[np.uint8],
    table: npt.NDArray[np.int32],
    blocks: int,
    first: int,
    last: int,
    refines: bool,
    nonzero: npt.NDArray[np.uint8],
) -> int:
    """Walk the blocks of an AC scan of a progressive file, coefficients `first` to `last` along the zigzag.

    table: int32 [65536]. nonzero: uint8 [64 * blocks], which coefficients are not 0 so far; changed in place.
    """
    end, at, run = 8 * (len(data) - 4), 0, 0
    for block in range(0, 64 * blocks, 64):
        k = first
        while run == 0 and k <= last:
            entry = table[_peek(data, at)]
            if entry == 0:
                return SHORT if at + 16 > end else BAD_CODE
            at += entry >> 8
            zeros, size = (entry >> 4) & 15, entry & 15
            if size == 0 and zeros < 15:
                run = (1 << zeros) + (_peek(data, min(at, end)) >> (16 - zeros))
                at += zeros
                continue
            if refines and size > 1:
                return BAD_CODE
            at += size
            if refines:
                while k <= last and (nonzero[block + k] or zeros):
                    if nonzero[block + k]:
                        at += 1
                    else:
                        zeros -= 1
                    k += 1
            else:
                k += zeros
            if size and k <= (last if refines else 63):
                nonzero[block + k] = 1
            if at > end:
                return SHORT
            k += 1
        if run:
            if refines:
                at += int(nonzero[block + k : block + last + 1].sum())
            run -= 1
        if at > end:
            return SHORT
    return LONG if end - at >= 8 else WHOLE
