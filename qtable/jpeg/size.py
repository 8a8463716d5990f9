"""The exact size of a file from its coefficients, in bytes, without writing it (`exact_bytes`)."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qtable.jpeg.codec import Codec, Entropy
from qtable.jpeg.frame import Planes
from qtable.jpeg.huffman import STANDARD_HUFFMAN, _codes, optimal_huffman
from qtable.jpeg.scan import _entries, _first, _order, _row, _Scan, _scan, _take

CHUNK: Final = 1 << 24
"""Coefficients that are laid out at a time: bounds the memory of a large batch."""


class FileSize(NamedTuple):
    """Bytes of each photo's file, int64 [n] each: the entropy-coded segment with its stuffing, and all the rest."""

    scan: Tensor
    header: Tensor

    @property
    def total(self) -> Tensor:
        """Length of the file."""
        return self.scan + self.header


def exact_bytes(quantized: Planes, codec: Codec, table_count: int = 2) -> FileSize:
    """The size of the files that `codec` would write of these coefficients, to the byte, without writing them.

    quantized: whole numbers of any dtype. table_count: 1..3, `QTables.count`, which only the header depends on.
    ValueError for progressive coding, for planes that do not belong together and for levels that JPEG cannot code.
    """
    if codec.entropy == "progressive":
        raise ValueError("exact sizes are known for entropy coding standard and optimized, not for progressive")
    order = _order(quantized, codec.subsampling)
    photos = max(1, CHUNK // order.numel())
    parts = [_exact_bytes(row, order, codec.entropy) for row in torch.split(_row(quantized), photos)]
    scan, symbols = (torch.cat(column) for column in zip(*parts, strict=True))
    return FileSize(scan, header_bytes(table_count, symbols))


def header_bytes(table_count: int, huffman_symbols: Tensor) -> Tensor:
    """int64 [n]: bytes outside the scan of the baseline JFIF files that `Codec` writes (jcmarker.c).

    table_count: 1..3 quantization tables. huffman_symbols: int64 [n], how many the four Huffman tables have together.
    """
    fixed = 2 + 18 + 19 + 14 + 2  # SOI, APP0 (JFIF), SOF0, SOS, EOI
    return fixed + 69 * table_count + 4 * (2 + 2 + 1 + 16) + huffman_symbols  # 2, 2, 1: marker, length, table's class


def _exact_bytes(row: Tensor, order: Tensor, entropy: Entropy) -> tuple[Tensor, Tensor]:
    """int64 [n] each: bytes of the scan and symbols of the Huffman tables, of levels as `_row` has them."""
    entries = _entries(row != 0, order)
    scan = _scan(entries.at, _take(row, entries.photo * row.shape[1] + entries.position), entries.shape)
    if entropy == "standard":
        tables = list(STANDARD_HUFFMAN) * len(row)
    else:
        tables = [optimal_huffman(f) for f in scan.counts().cpu().numpy().reshape(-1, 256)]
    symbols = torch.tensor([len(t.symbols) for t in tables]).view(-1, 4).sum(1)
    codes = torch.as_tensor(np.stack([_codes(t) for t in tables]))
    return _stream_bytes(scan, codes.to(row.device)), symbols.to(row.device)


def _stream_bytes(scan: _Scan, codes: Tensor) -> Tensor:
    """int64 [n]: bytes of each photo's stream, stuffing included; jchuff.c, `encode_one_block` and `flush_bits`.

    codes: int32 [4 n, 256], code << 5 | length. Every code, with the bits that follow it, goes to its place in one
    row of 32-bit words, in which photos begin at whole words; then the bytes that are 0xFF are counted.
    """
    symbol, zrl, eob = (_take(codes, keys) for keys in (scan.key, scan.zrl, scan.eob))
    # The bits after a symbol: the low bits of a positive level, of a negative level less one (F.1.2.1.1).
    amplitude = (scan.level + (scan.level >> 31)) & ((1 << scan.size) - 1)
    value, width = (symbol >> 5 << scan.size) | amplitude, (symbol & 31) + scan.size
    bits = width.index_add(0, scan.runs, zrl & 31).index_add_(0, scan.ends, eob & 31)
    end = bits.cumsum(0)
    first = _first(scan.at, scan.shape[0], 64 * scan.shape[1] * scan.shape[2])
    before = torch.cat([end.new_zeros(1), end])[first]  # bits of all photos before each
    length = before.diff()
    words = (length + 31) >> 5
    first_bit = (words.cumsum(0) - words) << 5
    end += (first_bit - before[:-1]).repeat_interleave(first.diff())
    place = (end - width).index_add_(0, scan.ends, -(eob & 31).long())
    back = torch.searchsorted(scan.runs, scan.runs, right=True) - torch.arange(len(zrl), device=zrl.device)
    padding = -length & 7
    pieces = [  # value, bits, first bit
        (value, width, place),
        (zrl >> 5, zrl & 31, place[scan.runs] - back * (zrl & 31)),
        (eob >> 5, eob & 31, end[scan.ends] - (eob & 31)),
        ((1 << padding) - 1, padding, first_bit + length),
    ]
    total = int(words.sum())
    values, widths, places = (torch.cat(column) for column in zip(*pieces, strict=True))
    stream = _words(values, widths, places, total + 2)
    stuffed = torch.cat([words.new_zeros(1), (stream.view(torch.uint8) == 0xFF).view(-1, 8).sum(1).cumsum(0)])
    return ((length + 7) >> 3) + stuffed[torch.cat([words.new_zeros(1), words.cumsum(0)])].diff()


def _words(value: Tensor, width: Tensor, place: Tensor, count: int) -> Tensor:
    """int64 [count], each a 32-bit word of a stream, the first bit its highest: `value` in `width` bits at bit `place`.

    width <= 32; the word after the one where a piece begins must exist. Pieces do not overlap, so that sums of them,
    exact in float64, are the stream.
    """
    pair = value.long() << (64 - width - (place & 31))  # a window on two words, unsigned
    word = place >> 5
    high = torch.bincount(word, ((pair >> 32) & 0xFFFFFFFF).double(), count)
    low = torch.bincount(word + 1, (pair & 0xFFFFFFFF).double(), count)
    return (high + low).long()
