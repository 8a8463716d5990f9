"""Differentiable estimates of size (`PROXIES`, of which `RunLength` is the one to train with).

Functions of the unquantized coefficients F and the steps q, through z = F / q. They are for gradients; every size that
qtable stores or reports comes from real files."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qtable.jpeg.codec import Codec
from qtable.jpeg.frame import Planes
from qtable.jpeg.huffman import STANDARD_HUFFMAN, Huffman, _codes
from qtable.jpeg.scan import (
    EOB,
    ZRL,
    _bit_length,
    _dc_differences,
    _dc_keys,
    _entries,
    _nonzero,
    _order,
    _row,
    _Scan,
    _scan,
    _take,
)

Proxy = Callable[[Planes, Tensor], Tensor]
"""`proxy(planes, steps) -> float [n]`: the estimated size of each photo, differentiable in both arguments.

planes: unquantized DCT coefficients, orthonormal units. steps: float [3, 8, 8], the step q of Y, Cb, Cr.
In bits unless the proxy's docstring names another unit; `calibrated` turns any of them into bytes.
"""
WINDOW: Final = 0.25
"""In steps: a coefficient within half of this of a rounding threshold counts in a proxy's gradient (`_ramp`)."""
UNSEEN: Final = 0.5
"""How often a symbol that a photo does not have is taken to occur when its code length is asked for."""


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
