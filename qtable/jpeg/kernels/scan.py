"""The one scan of a baseline file, interleaved: its symbols, and its bits; jchuff.c `encode_one_block`."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from qtable.jpeg.kernels import compiled, inlined
from qtable.jpeg.kernels.bits import Whole, along_zigzag, bit_length, nonzeros, trailing_zeros
from qtable.jpeg.tables import ZIGZAG

Levels = npt.NDArray[np.int16]
Entries = npt.NDArray[np.uint32]
Words = npt.NDArray[np.uint64]

_ZIGZAG: Final = np.asarray(ZIGZAG, np.int64)
_NONE: Final = np.uint64(0)
_ONE: Final = np.uint64(1)
_SIX: Final = np.uint64(6)
_SEVEN: Final = np.uint64(7)
_WIDTH: Final = np.uint64(63)
_WORD: Final = np.uint64(64)
_AC: Final = ~np.uint64(1)
ZRL: Final = 0xF0
"""The AC symbol for 16 zeros; that for the end of a block is 0."""
AMPLITUDE: Final = 11
"""Low bits of an entry of `symbols`, for the bits that follow a code: the size of the largest DC difference."""
_AMPLITUDE: Final = np.uint64(AMPLITUDE)
_AMPLITUDES: Final = np.uint64((1 << AMPLITUDE) - 1)
_KEYS: Final = 1024 + 32
"""Four tables of 256 symbols, and room for the levels that no symbol exists for."""


@inlined
def _amplitude(level: Whole, size: Whole) -> Whole:
    """The bits after a symbol: the low bits of a positive level, of a negative level less one (T.81, F.1.2.1.1)."""
    return (level + (level >> 63)) & ((1 << size) - 1)


@compiled
def _component(
    levels: Levels,
    order: npt.NDArray[np.int32],
    table: int,
    entries: Entries,
    bounds: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> tuple[Whole, Whole]:
    """The entries of a component from bounds[0] on. table: 0 or 512, the key of its DC table's symbol 0.

    Fills entries, bounds and counts as `symbols` returns them. Returns the bits that occur in magnitudes, as it does.
    """
    mcus = len(bounds) - 1
    blocks = len(order) // mcus
    count, before = bounds[0], np.int64(0)
    differences, seen = np.int64(0), np.int64(0)
    ac = table + 256
    for m in range(mcus):
        for i in range(m * blocks, (m + 1) * blocks):
            block = np.int64(order[i])
            dc, word, at = before, np.uint64(0), 64 * block
            if block >= 0:
                dc, word = np.int64(levels[at]), along_zigzag(nonzeros(levels, at)) & _AC
            difference = dc - before
            before = dc
            differences |= abs(difference)
            size = bit_length(abs(difference))
            entries[np.uint64(count)] = (table + size) << AMPLITUDE | _amplitude(difference, size)
            counts[np.uint64(table + size)] += 1
            count += 1
            last = 0
            while word != 0:
                k = trailing_zeros(word)
                word &= word - _ONE
                run = k - last - 1
                last = k
                while run > 15:
                    entries[np.uint64(count)] = (ac + ZRL) << AMPLITUDE
                    counts[np.uint64(ac + ZRL)] += 1
                    count += 1
                    run -= 16
                level = np.int64(levels[np.uint64(at + _ZIGZAG[np.uint64(k)])])
                seen |= abs(level)
                size = bit_length(abs(level))
                key = ac + (run << 4) + size
                entries[np.uint64(count)] = key << AMPLITUDE | _amplitude(level, size)
                counts[np.uint64(key)] += 1
                count += 1
            if last < 63:
                entries[np.uint64(count)] = ac << AMPLITUDE
                counts[np.uint64(ac)] += 1
                count += 1
        bounds[m + 1] = count
    return differences, seen


@compiled
def symbols(
    y: Levels, cb: Levels, cr: Levels, order: npt.NDArray[np.int32]
) -> tuple[Entries, npt.NDArray[np.int64], npt.NDArray[np.int64], Whole, Whole]:
    """The symbols of a scan, and how often each occurs.

    order: int32 [MCUs * blocks of Y in an MCU], which block of Y comes when; -1: a dummy block (jccoefct.c), without AC
    and with the DC before it. Returns

    - entries: key << `AMPLITUDE` | bits that follow, where a key is 256 table + symbol;
    - bounds, int64 [3, MCUs + 1]: entries[bounds[c, m] : bounds[c, m + 1]] are component c's in MCU m;
    - counts, int64 [1024], by key;
    - the bits that occur in the magnitudes of DC differences, and of AC levels, from which what JPEG cannot code is
      seen: all else means nothing then.
    """
    mcus = len(cb) // 64
    entries = np.empty(64 * (len(order) + 2 * mcus), np.uint32)
    bounds = np.empty((3, mcus + 1), np.int64)
    counts = np.zeros(_KEYS, np.int64)
    raster = np.arange(mcus).astype(np.int32)
    bounds[0, 0] = 0
    d0, s0 = _component(y, order, 0, entries, bounds[0], counts)
    bounds[1, 0] = bounds[0, mcus]
    d1, s1 = _component(cb, raster, 512, entries, bounds[1], counts)
    bounds[2, 0] = bounds[1, mcus]
    d2, s2 = _component(cr, raster, 512, entries, bounds[2], counts)
    return entries[: bounds[2, mcus]], bounds, counts[:1024], d0 | d1 | d2, s0 | s1 | s2


@compiled
def pack(entries: Entries, bounds: npt.NDArray[np.int64], codes: npt.NDArray[np.int32]) -> tuple[Words, Whole]:
    """The bits of a scan, before stuffing, padded with ones to a whole byte; jchuff.c `flush_bits`.

    codes: int32 [1024] by key, code << 5 | length. Returns words, the first bit the highest of each, and the number
    of bytes; what follows these in the last word is 0.
    """
    table = np.empty(1024, np.uint64)  # the code and room for the bits that follow it, << 6 | their number
    for key in range(1024):
        extra = key & 15
        table[key] = np.int64(codes[key]) >> 5 << extra << 6 | (codes[key] & 31) + extra
    words = np.empty(len(entries) // 2 + 2, np.uint64)  # no entry has more than 27 bits
    window, filled, at = _NONE, _NONE, _NONE  # the last `filled` bits, and earlier ones above them
    for m in range(bounds.shape[1] - 1):
        for c in range(3):
            for i in range(np.uint64(bounds[c, m]), np.uint64(bounds[c, m + 1])):
                entry = np.uint64(entries[i])
                coded = table[entry >> _AMPLITUDE]
                width = coded & _WIDTH
                bits = coded >> _SIX | entry & _AMPLITUDES
                filled += width
                if filled < _WORD:
                    window = window << width | bits
                else:
                    filled -= _WORD
                    words[at] = window << width - filled | bits >> filled
                    window = bits
                    at += _ONE
    size = 8 * np.int64(at) + ((np.int64(filled) + 7) >> 3)
    while filled & _SEVEN != _NONE:
        window = window << _ONE | _ONE
        filled += _ONE
    if filled > _NONE:
        words[at] = window << _WORD - filled
        at += _ONE
    return words[:at], size


@compiled
def stuffing(words: Words) -> Whole:
    """Bytes 0xFF in a scan, each of which a zero follows in the file (T.81, F.1.2.3)."""
    count = np.int64(0)
    for byte in words.view(np.uint8):
        count += byte == 255
    return count
