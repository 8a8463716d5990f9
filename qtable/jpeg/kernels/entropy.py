"""Huffman-coded segments, walked without decoding a pixel: are their bits what T.81 says? jdhuff.c, jdphuff.c."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qtable.jpeg.kernels import compiled, inlined

SEQUENTIAL, DC_FIRST, DC_REFINE, AC_FIRST, AC_REFINE = range(5)
"""What a scan codes."""
WHOLE, BAD_CODE, SHORT, LONG = range(4)
"""What there is to say of a segment: nothing; a code that no table has; too few bits; bytes too many."""


@inlined
def _peek(data: npt.NDArray[np.uint8], at: int) -> int:
    """The 16 bits from bit `at` on; `data` ends with four bytes that are not the segment's."""
    byte = at >> 3
    window = (int(data[byte]) << 16) | (int(data[byte + 1]) << 8) | int(data[byte + 2])
    return (window >> (8 - (at & 7))) & 0xFFFF


@compiled
def walk(
    data: npt.NDArray[np.uint8],
    kind: int,
    tables: npt.NDArray[np.int32],
    dc: npt.NDArray[np.int64],
    ac: npt.NDArray[np.int64],
    mcus: int,
    first: int,
    last: int,
    nonzero: npt.NDArray[np.uint8],
    block: int,
) -> int:
    """Walk the MCUs between two restart markers; one of `WHOLE`, `BAD_CODE`, `SHORT`, `LONG`.

    data: the segment without stuffing, and four bytes more. tables: [tables, 65536], by the next 16 bits: 256 * the
    length of a code + its symbol, 0 if there is none. dc, ac: which table for each block of an MCU. first, last: along
    the zigzag. nonzero: [64 * blocks] of the one component of an AC scan, changed in place. block: its first here.
    """
    end, at, run = 8 * (len(data) - 4), 0, 0
    for _ in range(mcus):
        for j in range(len(dc)):
            if kind == DC_REFINE:
                at += 1
            if kind in (SEQUENTIAL, DC_FIRST):
                entry = tables[dc[j], _peek(data, at)]
                if entry == 0:
                    return SHORT if at + 16 > end else BAD_CODE
                at += (entry >> 8) + (entry & 15)
            if at > end:
                return SHORT
            if kind in (DC_FIRST, DC_REFINE):
                continue
            k, top = (1, 63) if kind == SEQUENTIAL else (first, last)
            if run == 0:
                while k <= top:
                    entry = tables[ac[j], _peek(data, at)]
                    if entry == 0:
                        return SHORT if at + 16 > end else BAD_CODE
                    at += entry >> 8
                    zeros, size = (entry >> 4) & 15, entry & 15
                    if size == 0 and zeros < 15:
                        if kind != SEQUENTIAL:
                            run = 1 << zeros
                            if zeros:
                                run += _peek(data, min(at, end)) >> (16 - zeros)
                                at += zeros
                        break
                    if kind == AC_REFINE:
                        if size > 1:
                            return BAD_CODE
                        at += size
                        while k <= top:
                            if nonzero[64 * block + k]:
                                at += 1
                            else:
                                zeros -= 1
                                if zeros < 0:
                                    break
                            k += 1
                        if size and k <= top:
                            nonzero[64 * block + k] = 1
                    else:
                        at += size
                        k += zeros
                        if size and kind == AC_FIRST and k <= 63:
                            nonzero[64 * block + k] = 1
                    if at > end:
                        return SHORT
                    k += 1
            if run > 0:
                if kind == AC_REFINE:
                    while k <= top:
                        at += nonzero[64 * block + k]
                        k += 1
                run -= 1
            if at > end:
                return SHORT
            block += 1
    return LONG if end - at >= 8 else WHOLE
