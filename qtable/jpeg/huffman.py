"""Huffman tables: Annex K's, and the ones that libjpeg builds for a photo."""

from __future__ import annotations

import heapq
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

_END: Final = 256
"""jchuff.c's pseudo-symbol that keeps the all-ones code free."""


class Huffman(NamedTuple):
    """A Huffman table as a DHT segment has it (ITU-T T.81, B.2.4.2)."""

    counts: list[int]  # [16]: number of codes of 1..16 bits
    symbols: list[int]  # 0..255, in order of increasing code


def _annex_k(counts: str, symbols: str) -> Huffman:
    return Huffman([int(c) for c in counts.split()], list(bytes.fromhex(symbols)))


# ITU-T T.81, tables K.3, K.5, K.4, K.6.
STANDARD_HUFFMAN: Final = (
    _annex_k("0 1 5 1 1 1 1 1 1 0 0 0 0 0 0 0", "000102030405060708090a0b"),
    _annex_k(
        "0 2 1 3 3 2 4 3 5 5 4 4 0 0 1 125",
        """01020300041105122131410613516107 227114328191a1082342b1c11552d1f0 2433627282090a161718191a25262728
        292a3435363738393a43444546474849 4a535455565758595a63646566676869 6a737475767778797a83848586878889
        8a92939495969798999aa2a3a4a5a6a7 a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5 c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2
        e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8 f9fa""",
    ),
    _annex_k("0 3 1 1 1 1 1 1 1 1 1 0 0 0 0 0", "000102030405060708090a0b"),
    _annex_k(
        "0 2 1 2 4 4 3 4 7 5 4 4 0 1 2 119",
        """00010203110405213106124151076171 1322328108144291a1b1c109233352f0 156272d10a162434e125f11718191a26
        2728292a35363738393a434445464748 494a535455565758595a636465666768 696a737475767778797a828384858687
        88898a92939495969798999aa2a3a4a5 a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3 c4c5c6c7c8c9cad2d3d4d5d6d7d8d9da
        e2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8 f9fa""",
    ),
)
"""Annex K's tables for DC luma, AC luma, DC chroma, AC chroma: the order of everything here that has four tables."""


def optimal_huffman(frequencies: npt.NDArray[np.int64]) -> Huffman:
    """The table that libjpeg builds for these symbols; jchuff.c, `jpeg_gen_optimal_table`, ties included.

    frequencies: int [256]. ValueError if a code would exceed 32 bits before limiting, where libjpeg gives up too.
    """
    sizes = _huffman_sizes(frequencies)
    counts = [0] * (max(32, max(sizes.values())) + 1)
    for size in sizes.values():
        counts[size] += 1
    if len(counts) > 33:
        raise ValueError(f"a Huffman code of {len(counts) - 1} bits; libjpeg allows 32 before it shortens them to 16")
    _limit_to_16_bits(counts)
    longest = max(size for size, count in enumerate(counts) if count)
    counts[longest] -= 1  # the pseudo-symbol's
    symbols = sorted((size, symbol) for symbol, size in sizes.items() if symbol != _END)
    return Huffman(counts[1:17], [symbol for _, symbol in symbols])


def _huffman_sizes(frequencies: npt.NDArray[np.int64]) -> dict[int, int]:
    """Code size, not limited yet, of each symbol that occurs and of `_END`.

    The two least frequent trees merge; of equals the larger symbol goes first, a merged tree under its first's symbol.
    """
    present = np.flatnonzero(frequencies)
    # One integer orders by frequency, then by symbol downwards.
    heap = [
        (count << 9) + _END - symbol
        for symbol, count in zip(present.tolist(), frequencies[present].tolist(), strict=True)
    ]
    heap.append(1 << 9)
    heapq.heapify(heap)
    parents: list[tuple[int, int, int]] = []
    node = {symbol: symbol for symbol in (*present.tolist(), _END)}  # a tree's representative -> its root
    while len(heap) > 1:
        least = heapq.heappop(heap)
        first, second = _END - (least & 511), _END - (heap[0] & 511)
        heapq.heapreplace(heap, least + (heap[0] >> 9 << 9))
        root = _END + 1 + len(parents)
        parents.append((root, node[first], node[second]))
        node[first] = root
    depth = {_END + len(parents): 0}
    for root, left, right in reversed(parents):
        depth[left] = depth[right] = depth.pop(root) + 1
    return depth


def _limit_to_16_bits(counts: list[int]) -> None:
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


def _codes(table: Huffman) -> npt.NDArray[np.int32]:
    """int [256]: code << 5 | length in bits of each symbol, 0 if absent; jchuff.c, `jpeg_make_c_derived_tbl`."""
    packed = np.zeros(256, np.int32)
    at, following = 0, 0
    for size, count in enumerate(table.counts, start=1):
        packed[table.symbols[at : at + count]] = [code << 5 | size for code in range(following, following + count)]
        at, following = at + count, (following + count) << 1
    return packed
