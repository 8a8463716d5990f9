"""The symbols of a scan, laid out in tensors: runs, sizes, ends of blocks, dummy blocks."""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qtable.jpeg.codec import Subsampling
from qtable.jpeg.frame import Planes
from qtable.jpeg.tables import ZIGZAG

_LUMA_BLOCKS: Final[dict[Subsampling, tuple[int, int]]] = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}
"""Rows and columns of luma blocks in an MCU; chroma has one block of each component."""
EOB, ZRL = 0x00, 0xF0
"""The AC symbols for the end of a block and for 16 zeros."""
MOST_BITS: Final = 11
"""Size of the largest DC difference in baseline JPEG; of an AC level it is one less (jchuff.c, MAX_COEF_BITS)."""


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
