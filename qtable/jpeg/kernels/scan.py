"""The one scan of a baseline file, interleaved: its symbols, and its bits; jchuff.c `encode_one_block`."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from qtable.jpeg.kernels import compiled
from qtable.jpeg.kernels.bits import along_zigzag, bit_length, nonzeros, trailing_zeros
from qtable.tables import ZIGZAG

Levels = npt.NDArray[np.int16]

_ZIGZAG: Final = np.asarray(ZIGZAG, np.int64)
_ONE: Final = np.uint64(1)
_AC: Final = ~np.uint64(1)
ZRL: Final = 0xF0
"""The AC symbol for 16 zeros; that for the end of a block is 0."""
AMPLITUDE: Final = 11
"""Low bits of an entry of `symbols`, for the bits that follow a code: the size of the largest DC difference."""
_KEYS: Final = 1024 + 32
"""Four tables of 256 symbols, and room for the levels that no symbol exists for."""


@compiled
def _amplitude(level: int, size: int) -> int:
    """The bits after a symbol: the low bits of a positive level, of a negative level less one (T.81, F.1.2.1.1)."""
    return (level + (level >> 63)) & ((1 << size) - 1)


@compiled
def _block(
    levels: Levels,
    at: int,
    before: int,
    table: int,
    entries: npt.NDArray[np.int32],
    count: int,
    counts: npt.NDArray[np.int64],
) -> tuple[int, int, int, int]:
    """Append the entries of the block at `at`, which follows a DC of `before`.

    table: 0 or 512, the key of its DC table's symbol 0. Returns the new count of entries, the DC, and the bits that
    occur in the magnitudes of its difference and of its AC levels.
    """
    dc = np.int64(levels[at])
    difference = dc - before
    size = bit_length(abs(difference))
    entries[count] = (table + size) << AMPLITUDE | _amplitude(difference, size)
    count += 1
    counts[table + size] += 1
    table += 256
    word = along_zigzag(nonzeros(levels, at)) & _AC
    last = 0
    seen = 0
    while word != 0:
        k = trailing_zeros(word)
        word &= word - _ONE
        level = np.int64(levels[at + _ZIGZAG[k]])
        run = k - last - 1
        last = k
        while run > 15:
            entries[count] = (table + ZRL) << AMPLITUDE
            counts[table + ZRL] += 1
            count += 1
            run -= 16
        magnitude = abs(level)
        seen |= magnitude
        size = bit_length(magnitude)
        key = table + (run << 4) + size
        entries[count] = key << AMPLITUDE | _amplitude(level, size)
        counts[key] += 1
        count += 1
    if last < 63:
        entries[count] = table << AMPLITUDE
        counts[table] += 1
        count += 1
    return count, dc, abs(difference), seen


@compiled
def symbols(
    y: Levels, cb: Levels, cr: Levels, order: npt.NDArray[np.int32], luma: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], int, int]:
    """The symbols of a scan in the order of the stream, and how often each occurs.

    order: int32 [MCUs * luma], which block of Y comes when; -1: a dummy block (jccoefct.c), without AC and with the DC
    before it. luma: blocks of Y in an MCU. Returns entries, key << `AMPLITUDE` | bits that follow, where a key is
    256 table + symbol; counts, int64 [1024], by key; and the bits that occur in the magnitudes of DC differences and
    of AC levels, from which what JPEG cannot code is seen: entries and counts mean nothing then.
    """
    mcus = len(cb) // 64
    entries = np.empty(64 * (len(order) + 2 * mcus), np.int32)
    counts = np.zeros(_KEYS, np.int64)
    count = 0
    dc_y, dc_cb, dc_cr = np.int64(0), np.int64(0), np.int64(0)
    differences, seen = np.int64(0), np.int64(0)
    for mcu in range(mcus):
        for i in range(mcu * luma, (mcu + 1) * luma):
            block = order[i]
            if block >= 0:
                count, dc_y, d, s = _block(y, 64 * np.int64(block), dc_y, 0, entries, count, counts)
                differences |= d
                seen |= s
            else:
                entries[count] = 0
                entries[count + 1] = 256 << AMPLITUDE
                count += 2
                counts[0] += 1
                counts[256] += 1
        count, dc_cb, d, s = _block(cb, 64 * mcu, dc_cb, 512, entries, count, counts)
        differences |= d
        seen |= s
        count, dc_cr, d, s = _block(cr, 64 * mcu, dc_cr, 512, entries, count, counts)
        differences |= d
        seen |= s
    return entries[:count], counts[:1024], differences, seen


@compiled
def pack(entries: npt.NDArray[np.int32], codes: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.uint32], int]:
    """The bits of a scan, before stuffing, padded with ones to a whole byte; jchuff.c `flush_bits`.

    codes: int32 [1024] by key, code << 5 | length. Returns words, the first bit the highest of each, and the number
    of bytes; what follows these in the last word is 0.
    """
    values, widths = np.empty(1024, np.uint64), np.empty(1024, np.int64)
    for key in range(1024):
        size = key & 15
        values[key] = np.int64(codes[key]) >> 5 << size
        widths[key] = (codes[key] & 31) + size
    words = np.empty(len(entries) + 2, np.uint32)
    window, filled, at = np.uint64(0), np.int64(0), np.int64(0)
    for i in range(len(entries)):
        key = entries[i] >> AMPLITUDE
        amplitude = np.uint64(entries[i] & ((1 << AMPLITUDE) - 1))
        filled += widths[key]
        window |= (values[key] | amplitude) << np.uint64(64 - filled)
        words[at] = np.uint32(window >> np.uint64(32))
        full = filled >> 5
        window <<= np.uint64(32 * full)
        at += full
        filled &= 31
    window |= np.uint64((1 << (-filled & 7)) - 1) << np.uint64(64 - filled - (-filled & 7))
    words[at] = np.uint32(window >> np.uint64(32))
    return words[: at + 1], 4 * at + ((filled + 7) >> 3)


@compiled
def stuffing(words: npt.NDArray[np.uint32]) -> int:
    """Bytes 0xFF in a scan, each of which a zero follows in the file (T.81, F.1.2.3)."""
    count = np.int64(0)
    for byte in words.view(np.uint8):
        count += byte == 255
    return count
