"""Huffman tables as libjpeg makes them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qtable.jpeg.kernels import compiled

Counts = npt.NDArray[np.int64]

_END = 256
"""jchuff.c's pseudo-symbol that keeps the all-ones code free."""


@compiled
def _sorted_leaves(frequencies: Counts) -> tuple[Counts, int]:
    """One integer for each symbol that occurs and for `_END`, in increasing order: frequency << 9 | 256 - symbol."""
    leaves = np.empty(257, np.int64)
    leaves[0] = 1 << 9
    count = 1
    for symbol in range(255, -1, -1):
        if frequencies[symbol] == 0:
            continue
        leaf = np.int64(frequencies[symbol]) << 9 | (_END - symbol)
        i = count
        while i > 0 and leaves[i - 1] > leaf:
            leaves[i] = leaves[i - 1]
            i -= 1
        leaves[i] = leaf
        count += 1
    return leaves, count


@compiled
def _sizes(frequencies: Counts) -> Counts:
    """int64 [257]: code size, not limited yet, of each symbol and of `_END`; 0 of those that do not occur.

    The two least frequent trees merge; of equals the larger symbol goes first, a merged tree under its first's symbol.
    Merged trees come with increasing frequency, so that two queues hold all trees in order.
    """
    leaves, count = _sorted_leaves(frequencies)
    merged, roots = np.empty(257, np.int64), np.empty(257, np.int64)
    parent = np.zeros(514, np.int64)  # of nodes: 0..256 the symbols, then the merged trees
    leaf, tree = 0, 0
    for made in range(count - 1):
        node = _END + 1 + made
        key = np.int64(0)
        for side in range(2):
            if tree == made or (leaf < count and leaves[leaf] < merged[tree]):
                taken, child = leaves[leaf], _END - (leaves[leaf] & 511)
                leaf += 1
            else:
                taken, child = merged[tree], roots[tree]
                tree += 1
            parent[child] = node
            key += taken if side == 0 else taken >> 9 << 9
        i = made
        while i > tree and merged[i - 1] > key:
            merged[i], roots[i] = merged[i - 1], roots[i - 1]
            i -= 1
        merged[i], roots[i] = key, node
    depth = np.zeros(514, np.int64)
    for node in range(_END + count - 2, -1, -1):
        if parent[node] > 0:
            depth[node] = depth[parent[node]] + 1
    return depth[:257]


@compiled
def _limit_to_16_bits(counts: Counts) -> None:
    """ITU-T T.81, figure K.3 as jchuff.c has it: move the longest codes up in pairs. counts[size], in place."""
    for size in range(32, 16, -1):
        while counts[size] > 0:
            shorter = size - 2
            while counts[shorter] == 0:
                shorter -= 1
            counts[size] -= 2
            counts[size - 1] += 1
            counts[shorter + 1] += 2
            counts[shorter] -= 1


@compiled
def optimal(frequencies: Counts) -> tuple[Counts, npt.NDArray[np.uint8]]:
    """The table that libjpeg builds for these symbols; jchuff.c, `jpeg_gen_optimal_table`, ties included.

    frequencies: int64 [256]. Returns counts, int64 [16], the number of codes of 1..16 bits, and the symbols in order
    of increasing code. Both are empty if a code would exceed 32 bits before limiting, where libjpeg gives up.
    """
    sizes = _sizes(frequencies)
    counts = np.zeros(258, np.int64)
    for symbol in range(257):
        counts[sizes[symbol]] += 1
    counts[0] = 0
    longest = 0
    for size in range(1, 258):
        if counts[size] > 0:
            longest = size
    if longest > 32:
        return np.empty(0, np.int64), np.empty(0, np.uint8)
    place = np.zeros(258, np.int64)  # of the next symbol of each size
    for size in range(1, longest + 1):
        place[size + 1] = place[size] + counts[size] - (size == sizes[_END])
    symbols = np.empty(place[longest + 1], np.uint8)
    for symbol in range(256):
        size = sizes[symbol]
        if size > 0:
            symbols[place[size]] = symbol
            place[size] += 1
    _limit_to_16_bits(counts)
    longest = 16
    while counts[longest] == 0 and longest > 0:
        longest -= 1
    counts[longest] -= 1  # the pseudo-symbol's
    return counts[1:17].copy(), symbols


@compiled
def codes(counts: Counts, symbols: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """int32 [256]: code << 5 | length in bits of each symbol, 0 if absent; jchuff.c, `jpeg_make_c_derived_tbl`."""
    packed = np.zeros(256, np.int32)
    at, code = 0, 0
    for size in range(1, 17):
        for _ in range(counts[size - 1]):
            packed[symbols[at]] = code << 5 | size
            at += 1
            code += 1
        code <<= 1
    return packed


@compiled
def photo_tables(counts: Counts) -> tuple[npt.NDArray[np.int32], int]:
    """int32 [1024]: `codes` of the four optimal tables for counts [1024] by key; and how many symbols they have.

    The number is -1 if libjpeg gives up on one of them.
    """
    packed = np.empty(1024, np.int32)
    total = 0
    for table in range(0, 1024, 256):
        lengths, symbols = optimal(counts[table : table + 256])
        if len(lengths) == 0:
            return packed, -1
        packed[table : table + 256] = codes(lengths, symbols)
        total += len(symbols)
    return packed, total
