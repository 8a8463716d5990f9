"""Size: exact, in bytes, without writing a file; and differentiable proxies of it, in bits, calibrated to real bytes.

Exact (`exact_bytes`): the scan that libjpeg-turbo would write is laid out bit by bit in tensors, so that the length
includes dummy blocks, padding and 0xFF stuffing. Proxies (`PROXIES`, of which `RunLength` is the one to train with):
functions of the unquantized coefficients F and the steps q, through z = F / q. They are for gradients; every size that
qtable stores or reports comes from `Codec`.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qtable.codec import Codec, Entropy, Subsampling
from qtable.dct import Planes
from qtable.tables import ZIGZAG

Proxy = Callable[[Planes, Tensor], Tensor]
"""`proxy(planes, steps) -> float [n]`: the estimated size of each photo, differentiable in both arguments.

planes: unquantized DCT coefficients, orthonormal units. steps: float [3, 8, 8], the step q of Y, Cb, Cr.
In bits unless the proxy's docstring names another unit; `calibrated` turns any of them into bytes.
"""

_LUMA_BLOCKS: Final[dict[Subsampling, tuple[int, int]]] = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}
"""Rows and columns of luma blocks in an MCU; chroma has one block of each component."""
EOB, ZRL = 0x00, 0xF0
"""The AC symbols for the end of a block and for 16 zeros."""
_END: Final = 256
"""jchuff.c's pseudo-symbol that keeps the all-ones code free."""
MOST_BITS: Final = 11
"""Size of the largest DC difference in baseline JPEG; of an AC level it is one less (jchuff.c, MAX_COEF_BITS)."""
CHUNK: Final = 1 << 24
"""Coefficients that are laid out at a time: bounds the memory of a large batch."""
WINDOW: Final = 0.25
"""In steps: a coefficient within half of this of a rounding threshold counts in a proxy's gradient (`_ramp`)."""
UNSEEN: Final = 0.5
"""How often a symbol that a photo does not have is taken to occur when its code length is asked for."""


# ---- Huffman tables -------------------------------------------------------------------------------------------


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


# ---- the symbols of a scan ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def _scan_order(y: tuple[int, int], chroma: tuple[int, int], subsampling: Subsampling) -> Tensor:
    """Where the k-th zigzag coefficient of each block of each MCU lies in `_row`: int64 [m, b, 64].

    y, chroma: rows and columns of blocks. m MCUs of b blocks: luma's, Cb, Cr. MCUs at the right and at the bottom are
    filled as jccoefct.c fills them: a dummy block has no AC and the DC of the block before it.
    """
    high, wide = _LUMA_BLOCKS[subsampling]
    (y_rows, y_columns), (rows, columns) = y, chroma
    if not (0 <= rows * high - y_rows < high and 0 <= columns * wide - y_columns < wide):
        raise ValueError(
            f"{y_rows} x {y_columns} luma and {rows} x {columns} chroma blocks are not a photo in {subsampling}"
        )
    luma, cb, cr = 64 * y_rows * y_columns, 64 * rows * columns, 64 * rows * columns
    positions = torch.arange(luma + cb + cr).view(-1, 64)[:, torch.as_tensor(ZIGZAG)]
    grid, blue, red = torch.split(positions, [luma // 64, cb // 64, cr // 64])
    grid = grid.view(y_rows, y_columns, 64)
    if y_columns < columns * wide:
        grid = torch.cat([grid, _dummy(grid[:, -1:], luma + cb + cr)], 1)
    if y_rows < rows * high:
        last_of_mcu = grid[-1:, wide - 1 :: wide].repeat_interleave(wide, 1)
        grid = torch.cat([grid, _dummy(last_of_mcu, luma + cb + cr)], 0)
    grid = grid.view(rows, high, columns, wide, 64).transpose(1, 2).reshape(rows * columns, high * wide, 64)
    return torch.cat([grid, blue[:, None], red[:, None]], 1)


def _dummy(block: Tensor, zero: int) -> Tensor:
    """Positions like those of `block` for the DC and of a coefficient that is `zero` for the AC."""
    return torch.cat([block[..., :1], torch.full_like(block[..., 1:], zero)], -1)


def _order(planes: Planes, subsampling: Subsampling) -> Tensor:
    """`_scan_order` of these planes on their device."""
    y, cb, cr = (tuple(plane.shape[1:3]) for plane in planes)
    if cb != cr:
        raise ValueError(f"Cb has {cb[0]} x {cb[1]} blocks and Cr {cr[0]} x {cr[1]}")
    return _scan_order((y[0], y[1]), (cb[0], cb[1]), subsampling).to(planes.y.device)


def _row(planes: Planes) -> Tensor:
    """[n, coefficients + 1]: one photo a row: Y, Cb, Cr in natural order, then a zero."""
    n = len(planes.y)
    return torch.cat([*(plane.reshape(n, -1) for plane in planes), planes.y.new_zeros(n, 1)], 1)


class _Entries(NamedTuple):
    """Coefficients picked out of `_row`, in scan order: every DC and some AC."""

    at: Tensor  # int64 [t]: flat position in scan order, [n, m, b, 64]
    position: Tensor  # int64 [t]: in its photo's row
    photo: Tensor  # int64 [t]
    shape: tuple[int, int, int]  # n, m, b


def _entries(keep: Tensor, order: Tensor) -> _Entries:
    """Every DC, and the AC where `keep`, bool [n, coefficients + 1] like `_row`, is true."""
    n, m, b = len(keep), *order.shape[:2]
    chosen = keep.gather(1, order.view(1, -1).expand(n, -1))
    chosen[:, ::64] = True
    at = _nonzero(chosen.view(-1))
    photo = torch.arange(n, device=at.device).repeat_interleave(_first(at, n, order.numel()).diff())
    position = _take(order, at - photo * order.numel())
    return _Entries(at, position, photo, (n, m, b))


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x.view(-1)[index]; on a CPU several times faster."""
    return x.view(-1).index_select(0, index)


def _nonzero(x: Tensor) -> Tensor:
    """int64 [k]: indices of what is not zero in x [j]. On a CPU numpy is several times faster than torch."""
    if x.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(x.numpy()))
    return x.nonzero()[:, 0]


def _first(at: Tensor, photos: int, coefficients: int) -> Tensor:
    """int64 [photos + 1]: where each photo's entries begin among the sorted flat positions `at`."""
    return torch.searchsorted(at, torch.arange(photos + 1, device=at.device) * coefficients)


def _dc_differences(dc: Tensor) -> Tensor:
    """From DC [n, m, b] in scan order: each less the one before it of its component, the first less 0."""
    n, m, b = dc.shape
    components = (c.reshape(n, -1) for c in torch.split(dc, [b - 2, 1, 1], 2))
    return torch.cat([torch.cat([c[:, :1], c.diff()], 1).view(n, m, -1) for c in components], 2)


def _dc_keys(shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """int32 [n, m, b]: key of symbol 0 of each block's DC table; that of its AC table is 256 more."""
    photo = torch.arange(shape[0], dtype=torch.int32, device=device)
    chroma = (torch.arange(shape[2], device=device) >= shape[2] - 2).int()
    return (1024 * photo[:, None, None] + 512 * chroma).expand(shape)


def _bit_length(x: Tensor) -> Tensor:
    """int32: bits of whole numbers x >= 0 (of any dtype, up to 2^24): 0 of 0, 1 of 1, 2 of 2 and 3."""
    return torch.frexp(x.float()).exponent


class _Scan(NamedTuple):
    """What is coded, in the order of the stream: one entry [t] for each DC difference and each nonzero AC level.

    A key is 1024 photo + 256 table + symbol, an index into flat [n, 4, 256] statistics.
    """

    at: Tensor  # int64 [t]: flat position in scan order, [n, m, b, 64]
    level: Tensor  # int32 [t]: DC difference or AC level
    size: Tensor  # int32 [t]: bits that follow the symbol, 0..11
    key: Tensor  # int32 [t]: of the (run, size) symbol, without the ZRLs before it
    runs: Tensor  # int64 [z]: for each ZRL, the entry that it comes before
    zrl: Tensor  # int32 [z]: keys of the ZRLs
    ends: Tensor  # int64 [e]: the entries that an EOB follows
    eob: Tensor  # int32 [e]: keys of the EOBs
    shape: tuple[int, int, int]  # n, m, b

    def counts(self) -> Tensor:
        """int64 [n, 4, 256]: how often each photo has each symbol."""
        keys = torch.cat([self.key, self.zrl, self.eob])
        return torch.bincount(keys, minlength=1024 * self.shape[0]).view(-1, 4, 256)


def _scan(at: Tensor, level: Tensor, shape: tuple[int, int, int]) -> _Scan:
    """The symbols of coefficients at scan positions `at`, every DC and the AC that are not zero.

    level: whole numbers [t], DC not yet as differences. jchuff.c, `encode_one_block`.
    """
    k = (at & 63).int()
    is_ac = (k > 0).int()
    dc = _nonzero(k == 0)
    level = level.int().index_copy(0, dc, _dc_differences(level.int()[dc].view(shape)).view(-1))
    size = _bit_length(level.abs())
    if bool((size + is_ac > MOST_BITS).any()):
        raise ValueError(f"a level of {int(level.abs().max())}: JPEG codes AC up to 1023 and DC differences up to 2047")
    run = (at.diff(prepend=at[:1]).int() - 1) * is_ac
    table = _take(_dc_keys(shape, at.device).contiguous(), at >> 6)
    long = _nonzero(run > 15)
    runs = long.repeat_interleave(run[long] >> 4)
    ends = _nonzero(torch.cat([1 - is_ac[1:], is_ac.new_ones(1)]) * (63 - k))
    return _Scan(
        at=at,
        level=level,
        size=size,
        key=table + 256 * is_ac + ((run & 15) << 4) + size,
        runs=runs,
        zrl=_take(table, runs) + 256 + ZRL,
        ends=ends,
        eob=_take(table, ends) + 256 + EOB,
        shape=shape,
    )


# ---- exact size -----------------------------------------------------------------------------------------------


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


# ---- differentiable proxies -----------------------------------------------------------------------------------


def scaled(planes: Planes, steps: Tensor) -> Planes:
    """z = F / q, real-valued: what is rounded to levels. steps: float [3, 8, 8]."""
    return Planes(*(plane / step for plane, step in zip(planes, steps, strict=True)))


def _total(planes: Planes) -> Tensor:
    """float [n]: sum over all coefficients of each photo."""
    return torch.stack([plane.sum((1, 2, 3, 4)) for plane in planes]).sum(0)


def _ramp(fraction: Tensor) -> Tensor:
    """The share, 0..1, in which a coefficient `fraction` of a step above a level counts as the next level.

    round() with its jump at 1/2 spread over `WINDOW`: what a threshold's crossings cost is measured from the
    coefficients this near to it. Wider averages over more of them; narrower errs less where density is steep.
    """
    share: Tensor = (fraction - 0.5) / WINDOW + 0.5
    return share.clamp(0, 1)


def inverse_l1(planes: Planes, steps: Tensor) -> Tensor:
    """1 / mean(q), without unit: the regularizer of the JpegNN notebook (cucapra/JpegNN, `nn.L1Loss` of the tables)."""
    return (1 / steps.abs().mean()).expand(len(planes.y))


def l1(planes: Planes, steps: Tensor) -> Tensor:
    """sum |F| / q, in steps: the JpegNN notebook's plot of April 12."""
    return _total(Planes(*(z.abs() for z in scaled(planes, steps))))


def log2(planes: Planes, steps: Tensor) -> Tensor:
    """sum log2(1 + |F| / q): about the bits of the levels' magnitudes; Luo et al., DCC 2021 (arXiv 2008.00605)."""
    return _total(Planes(*(z.abs().log1p() for z in scaled(planes, steps)))) / math.log(2)


def nonzeros(planes: Planes, steps: Tensor) -> Tensor:
    """Number of nonzero levels (`_ramp`), not bits: He & Mitra's rho-domain, R = theta (1 - rho), TCSVT 2001."""
    return _total(Planes(*(_ramp(z.abs()) for z in scaled(planes, steps))))


def laplacian(planes: Planes, steps: Tensor) -> Tensor:
    """Bits if each frequency of each photo is Laplacian, b = mean |F|, and coded alone (no runs).

    With r = exp(-q / b): P(0) = 1 - exp(-q / 2b), P(+-m) = exp(-q / 2b) (1 - r) r^(m - 1) / 2. The entropy is that of
    zero or not, plus for the nonzeros one sign bit and the entropy of a geometric distribution.
    """
    bits = []
    for z in scaled(planes, steps):
        rate = 1 / z.abs().mean((1, 2)).clamp(min=1e-3)  # q / b, float [n, 8, 8]
        nonzero = torch.exp(-rate / 2)
        entropy = _choice_bits(rate / 2) + nonzero * (1 + _choice_bits(rate) / -torch.expm1(-rate))
        bits.append(entropy.sum((1, 2)) * (z.shape[1] * z.shape[2]))
    return torch.stack(bits).sum(0)


def _choice_bits(x: Tensor) -> Tensor:
    """Entropy in bits of a choice with probabilities exp(-x) and 1 - exp(-x), x > 0."""
    other = -torch.expm1(-x)
    return (x * torch.exp(-x) - other * other.log()) / math.log(2)


def soft_histogram(planes: Planes, steps: Tensor) -> Tensor:
    """Bits if each frequency is coded alone with the entropy of the batch's own histogram of softly counted levels.

    Soft-to-hard assignment (Agustsson et al., NeurIPS 2017) with the kernel `_ramp`. Code lengths are detached, which
    leaves the gradient of the batch's total as it is: sum over p of d(p log p) = sum of dp log p, as sum of dp = 0.
    A level that counts for less than one coefficient costs what one would.
    """
    bits = []
    for z in scaled(planes, steps):
        low = z.detach().floor()
        above = _ramp(z - low)
        smallest = int(low.min())
        bins = int(low.max()) - smallest + 2
        row = torch.arange(0, 64 * bins, bins, device=z.device).view(8, 8)
        index = (low.long() - smallest + row).reshape(-1)
        weight = above.detach().reshape(-1)
        counts = torch.bincount(index, 1 - weight, 64 * bins) + torch.bincount(index + 1, weight, 64 * bins)
        lengths = math.log2(z[..., 0, 0].numel()) - counts.clamp(min=1).log2()
        here, next_ = (lengths.take(i).view_as(z) for i in (index, index + 1))
        bits.append((here + above * (next_ - here)).sum((1, 2, 3, 4)))
    return torch.stack(bits).sum(0)


@dataclass(frozen=True)
class RunLength:
    """Bits of the scan from the photo's own run/size statistics: sees runs, EOB, ZRL and the DC's prediction.

    Value: of the rounded levels, the sum over symbols of count times (code length + amplitude bits). Code lengths are
    Annex K's for "standard", with the stuffing they cause; for "optimized" about -log2 of the symbol's share in the
    photo (`_code_lengths`), and 8 bits more for each symbol that the photo's tables list.

    Gradient: code lengths are constants (detached; as for any entropy they may be, to first order). A coefficient near
    a threshold is worth what its block costs with the level above it less what it costs with the level below,
    all other levels as they are: a longer amplitude, or a symbol more and a run split in two. It counts as in
    `_ramp`. A DC difference counts in proportion between the two levels around it: its average over all phases of the
    rounding of the two DCs.

    "progressive" is estimated as if it were "optimized".
    """

    codec: Codec = field(default_factory=Codec)

    def __call__(self, planes: Planes, steps: Tensor) -> Tensor:
        order = _order(planes, self.codec.subsampling)
        row, step = _row(planes), _row(Planes(*(q.expand(1, *p.shape[1:]) for p, q in zip(planes, steps, strict=True))))
        with torch.no_grad():
            entries = _entries(row.abs() > (0.5 - WINDOW / 2) * step, order)
        z = _take(row, entries.photo * row.shape[1] + entries.position) / _take(step, entries.position)
        magnitude = z.abs()
        with torch.no_grad():
            level = (magnitude + 0.5).floor() * z.sign()
            is_dc = (entries.at & 63) == 0
            coded = is_dc | (level != 0)
            kept = _nonzero(coded)
            scan = _scan(_take(entries.at, kept), _take(level, kept), entries.shape)
            bits, lengths = self._bits(scan.counts())
        if not z.requires_grad:
            return bits
        with torch.no_grad():
            near = _nonzero(((magnitude - magnitude.floor() - 0.5).abs() <= WINDOW / 2) & ~is_dc)
            at, below, among, rank = (_take(x, near) for x in (entries.at, magnitude.floor(), coded, coded.cumsum(0)))
            worth = _worth(at, below, rank - among.long(), rank, scan, lengths)
        share = _take(magnitude, near) * (worth / WINDOW)
        difference = _dc_differences(_take(z, _nonzero(is_dc)).view(entries.shape)).abs()
        slope = (difference * _dc_worth(difference.detach(), lengths)).sum((1, 2))
        slope = slope.index_add(0, _take(entries.photo, near), share)
        return bits + (slope - slope.detach())

    def _bits(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Bits of each photo, float [n], and of each symbol with its amplitude, float [n * 1024], by `counts`."""
        symbol = torch.arange(256, device=counts.device)
        amplitude = torch.stack([symbol, symbol & 15] * 2)
        if self.codec.entropy == "standard":
            lengths = torch.as_tensor(np.stack(_STUFFED_LENGTHS), device=counts.device) + amplitude
            return (counts * lengths).sum((1, 2)), lengths.expand(counts.shape).reshape(-1)
        lengths = _code_lengths(counts) + amplitude
        return (counts * lengths).sum((1, 2)) + 8 * (counts > 0).sum((1, 2)), lengths.view(-1)


def _code_lengths(counts: Tensor) -> Tensor:
    """About the code lengths in bits of an optimal Huffman code for each table's symbols, float [n, 4, 256].

    -log2 p; but a symbol of p > 1/2 (EOB in small files) costs a whole bit, and the others one to tell them from it.
    """
    total = counts.sum(2, keepdim=True)
    p = counts.clamp(min=UNSEEN) / total
    most = p.amax(2, keepdim=True)
    others = torch.where(most > 0.5, 2 * (1 - most).clamp(min=UNSEEN / total), 1.0)
    return torch.where(p > 0.5, 1.0, (others / p).log2())


def _stuffed_lengths(table: Huffman) -> npt.NDArray[np.float32]:
    """float [256]: bits of each code with those of the 0xFF stuffing that it causes on average.

    j ones in a row hold a whole byte in j - 7 of the 8 ways in which bytes may begin, and each then costs 8 bits. The
    bits before a code are like coin flips: they lengthen its leading ones by one on average. Annex K's codes of 16 bits
    begin with 9 and more.
    """
    packed = _codes(table).tolist()
    ones = [len(f"{code >> 5:0{code & 31}b}".partition("0")[0]) for code in packed]
    return np.array([(code & 31) + max(0, j - 6) for code, j in zip(packed, ones, strict=True)], np.float32)


_STUFFED_LENGTHS: Final = [_stuffed_lengths(table) for table in STANDARD_HUFFMAN]


def _worth(at: Tensor, below: Tensor, up_to: Tensor, through: Tensor, scan: _Scan, lengths: Tensor) -> Tensor:
    """Bits of the level above less bits of the level below, float [c], of AC coefficients with all others as they are.

    at: int64 [c], scan positions. below: the lower magnitude, a whole number. up_to, through: int64 [c], how many of
    scan's entries lie before the coefficient, without and with itself. lengths: bits by key, amplitude included.
    """
    before, following = up_to - 1, through.clamp(max=len(scan.at) - 1)  # the former exists: the block's DC
    run = (at - _take(scan.at, before) - 1).int()
    gap = (_take(scan.at, following) - at - 1).int()
    has_next = (_take(scan.at, following) >> 6 == at >> 6) & (gap >= 0)
    gap = gap * has_next
    table = _take(_dc_keys(scan.shape, at.device).contiguous(), at >> 6) + 256
    zrl, eob = _take(lengths, table + ZRL), _take(lengths, table + EOB)

    def cost(run: Tensor, size: Tensor) -> Tensor:
        return (run >> 4) * zrl + _take(lengths, table + ((run & 15) << 4) + size)

    size_next = _take(scan.size, following)
    split = cost(gap, size_next) - cost(torch.where(has_next, run + 1 + gap, 0), size_next)
    # Without a next level the EOB stays as it is, except that the last coefficient of a block needs none.
    appended = -eob * (at & 63 == 63)
    instead = torch.where(below > 0, -cost(run, _bit_length(below)), torch.where(has_next, split, appended))
    return cost(run, _bit_length(below + 1)) + instead


def _dc_worth(difference: Tensor, lengths: Tensor) -> Tensor:
    """Bits per step of magnitudes of DC differences, real-valued [n, m, b]: the next whole one less the last."""
    n, m, b = difference.shape
    key = _dc_keys((n, m, b), difference.device)
    low = difference.floor()
    last, next_ = (_take(lengths, (key + _bit_length(x)).view(-1)) for x in (low, low + 1))
    return (next_ - last).view(n, m, b)


PROXIES: Final[dict[str, Proxy]] = {
    "1/L1": inverse_l1,
    "L1": l1,
    "log2": log2,
    "nonzeros": nonzeros,
    "Laplacian": laplacian,
    "soft histogram": soft_histogram,
    "run-length": RunLength(),
}
"""Rate estimates by name, all differentiable."""


# ---- calibration ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibrated:
    """A proxy turned into bytes: offset + slope * estimate, or exp(offset) * estimate^slope if `log`."""

    proxy: Proxy
    offset: float
    slope: float
    log: bool = False

    def __call__(self, planes: Planes, steps: Tensor) -> Tensor:
        """Estimated bytes of each photo's file (or scan: what it was fitted to), float [n]; differentiable."""
        return self.to_bytes(self.proxy(planes, steps))

    def to_bytes(self, estimate: Tensor) -> Tensor:
        """Bytes for what the proxy gave."""
        return torch.exp(self.offset + self.slope * estimate.log()) if self.log else self.offset + self.slope * estimate

    def refitted(self, estimates: npt.ArrayLike, real_bytes: npt.ArrayLike) -> Calibrated:
        """The same proxy fitted to other files: what training does every few hundred steps, as its tables move."""
        return calibrated(self.proxy, estimates, real_bytes, self.log)


def calibrated(proxy: Proxy, estimates: npt.ArrayLike, real_bytes: npt.ArrayLike, log: bool = False) -> Calibrated:
    """`proxy` with the map to bytes that fits best, by least squares (of the logarithms if `log`).

    estimates: [k], what the proxy gave for k photos, or its means over the photos for k table sets. real_bytes: [k], of
    the same photos' files as `Codec` made them. ValueError for fewer than two different estimates, and if `log` for
    any that are not above 0.
    """
    x, y = np.asarray(estimates, np.float64).ravel(), np.asarray(real_bytes, np.float64).ravel()
    if x.shape != y.shape or not len(x) or not np.isfinite([x, y]).all() or np.ptp(x) == 0:
        raise ValueError(
            f"{x.size} estimates and {y.size} sizes: a fit needs as many finite ones of each, and two that differ"
        )
    if log:
        if min(x.min(), y.min()) <= 0:
            raise ValueError(f"a logarithmic fit needs numbers above 0; the smallest is {min(x.min(), y.min())}")
        x, y = np.log(x), np.log(y)
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return Calibrated(proxy, float(y.mean() - slope * x.mean()), slope, log)
