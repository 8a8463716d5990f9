"""The trellis against a plain form of it, equal to the last bit, and against all combinations of levels."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qtable.jpeg.codec import SUBSAMPLINGS, Codec, Subsampling, decode
from qtable.jpeg.coefficients import Coefficients, exact_size, read_coefficients, symbol_counts, write_coefficients
from qtable.jpeg.kernels import trellis as kernels
from qtable.jpeg.proxies import _code_lengths
from qtable.jpeg.tables import ZIGZAG, QTables
from qtable.jpeg.trellis import Planes, code_lengths, objective, optimal_levels, rounded, trellis
from tests.jpeg.photos import SIZES, photo, planes_of, random_planes, weights_like
from tests.jpeg.plain import block_bits, reference, size_of

every_subsampling = pytest.mark.parametrize("subsampling", SUBSAMPLINGS)


# ---- the kernels ----------------------------------------------------------------------------------------------


@every_subsampling
def test_levels_equal_those_of_the_plain_form(subsampling: Subsampling) -> None:
    rng = np.random.default_rng(5)
    changed = 0
    for (height, width), scale, price in itertools.product(((33, 41), (1, 1), (8, 24)), (15, 400), (0.0, 3.0, 500.0)):
        planes = random_planes(rng, height, width, subsampling, scale)
        weights, tables = weights_like(rng, planes), QTables(rng.integers(1, 40, (3, 8, 8)))
        start = rounded(planes, tables)
        lengths = code_lengths(start, subsampling)
        levels = optimal_levels(planes, weights, tables, price, subsampling, lengths)
        for ours, plain in zip(levels, reference(planes, weights, tables, price, subsampling, lengths), strict=True):
            assert np.array_equal(ours.reshape(-1, 64), plain)
        changed += sum(int((a != b).sum()) for a, b in zip(levels, start, strict=True))
    assert changed > 1000


def random_lengths(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(1, 12, 256)


@pytest.mark.parametrize("seed", range(12))
def test_no_levels_of_a_block_cost_less(seed: int) -> None:
    """All combinations of all levels from 0 to one beyond the rounded one, at six places."""
    rng = np.random.default_rng(seed)
    places = np.arange(1, 7) if seed % 3 == 0 else np.sort(rng.choice(np.arange(1, 64), 6, replace=False))
    if seed % 3 == 2:
        places[-1] = 63
    lengths, price = random_lengths(rng), float(rng.uniform(1, 60))
    f, w, q = np.zeros(64), rng.uniform(0, 2, 64), rng.integers(5, 15, 64).astype(float)
    f[places] = (rng.uniform(0.2, 3.4, 6) * rng.choice([-1, 1], 6) * q[places]).astype(np.float32)
    w = w.astype(np.float32).astype(float)
    natural = np.argsort(ZIGZAG)
    plane, weight, table = (np.ascontiguousarray(x[natural], np.float32) for x in (f, w, q))
    nearest = kernels.rounded(plane, table)
    runs, sizes = np.arange(63), np.arange(11)[:, None]
    rates = price * ((runs >> 4) * lengths[0xF0] + lengths[(runs & 15) << 4 | sizes] + sizes)
    ours = kernels.optimal_ac(plane, weight, table, nearest, rates, price * float(lengths[0]))[ZIGZAG].tolist()

    def cost(levels: list[int]) -> float:
        return float((w[1:] * (f - q * np.array(levels))[1:] ** 2).sum()) + price * block_bits(levels, lengths)

    least = math.inf
    tops = [int(abs(nearest[ZIGZAG[k]])) + (seed % 2) for k in places]
    for magnitudes in itertools.product(*(range(top + 1) for top in tops)):
        levels = [0] * 64
        for k, magnitude in zip(places, magnitudes, strict=True):
            levels[k] = magnitude if f[k] > 0 else -magnitude
        if seed % 2 and any(levels[k] and not nearest[ZIGZAG[k]] for k in places):
            continue  # levels where rounding gives 0 are left out: they save bits only of the ZRLs and the EOB
        least = min(least, cost(levels))
    assert cost(ours) == pytest.approx(least, rel=1e-12)


def test_no_chain_of_dc_costs_less() -> None:
    rng = np.random.default_rng(6)
    better = 0
    for _ in range(8):
        lengths, price, q = random_lengths(rng), float(rng.uniform(0.5, 40)), float(rng.integers(3, 20))
        plane, weight = np.zeros((4, 64), np.float32), np.zeros((4, 64), np.float32)
        plane[:, 0], weight[:, 0] = rng.normal(0, 60, 4), rng.exponential(1, 4) * (rng.random(4) < 0.8)
        nearest = kernels.rounded(plane.reshape(-1), np.full(64, q, np.float32))
        levels = np.full(256, 7, np.int16)
        rates: np.ndarray = price * (lengths[:12] + np.arange(12.0))
        order = np.array([2, 0, -1, 1, -1, 3], np.int32)
        kernels.choose_dc(levels, plane.reshape(-1), weight.reshape(-1), q, nearest, order, rates)
        assert (levels.reshape(4, 64)[:, 1:] == 7).all()
        chain = [2, 0, 1, 3]

        def cost(dc: Sequence[int], plane=plane, weight=weight, q=q, rates=rates, chain=chain) -> float:  # type: ignore[no-untyped-def]
            f, w = plane[chain, 0].astype(float), weight[chain, 0].astype(float)
            sizes = [size_of(int(d)) for d in np.diff(dc, prepend=0)]
            return float((w * (f - q * np.array(dc)) ** 2).sum() + rates[sizes].sum())

        around = ([int(nearest[64 * b]) + d for d in (-2, -1, 0, 1, 2)] for b in chain)
        least = min(cost(dc) for dc in itertools.product(*around))
        ours = cost(levels[::64][chain].tolist())
        assert ours <= least * (1 + 1e-12)
        better += ours < least * (1 - 1e-9)
    assert better > 0  # by carrying a level on


def test_rounding_is_libjpegs() -> None:
    for subsampling, tables in itertools.product(SUBSAMPLINGS, (QTables.standard(30), QTables.flat(1))):
        image = photo(43, 57)
        expected = read_coefficients(Codec(subsampling).encode(image, tables))
        for ours, theirs in zip(rounded(planes_of(image, subsampling), tables), expected, strict=True):
            assert np.array_equal(ours, theirs)
    ends = np.array([-1024, -1016, 1016, -0.5, 0.5, 1.5, -2.5, 1e9, -1e9] + [0] * 55, np.float32)
    assert kernels.rounded(ends, np.ones(64, np.float32))[:9].tolist() == [
        *(-1024, -1016, 1016, -1, 1, 2, -3),
        *(1023, -1023),
    ]


# ---- whole photos ---------------------------------------------------------------------------------------------


def emptied(levels: Coefficients, weights: Planes) -> Coefficients:
    """Without the AC of blocks of which all levels have weight 0."""
    kept = []
    for plane, weight in zip(levels, weights, strict=True):
        flat, w = plane.reshape(-1, 64).copy(), weight.reshape(-1, 64)
        flat[~((flat != 0) & (w > 0))[:, 1:].any(1), 1:] = 0
        kept.append(flat.reshape(plane.shape))
    y, cb, cr = kept
    return y, cb, cr


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 50),
    st.integers(1, 50),
    st.sampled_from(SUBSAMPLINGS),
    st.sampled_from([5.0, 50.0, 1000.0]),
    st.sampled_from([0.0, 0.01, 1.0, 100.0, 1e6]),
)
def test_never_worse_than_rounding_and_always_a_file(
    seed: int, height: int, width: int, subsampling: Subsampling, scale: float, price: float
) -> None:
    rng = np.random.default_rng(seed)
    planes = random_planes(rng, height, width, subsampling, scale)
    weights = weights_like(rng, planes)
    tables = QTables(rng.integers(1, rng.integers(3, 257), (rng.integers(1, 4), 8, 8)))
    start = emptied(rounded(planes, tables), weights)
    lengths = code_lengths(start, subsampling)
    levels = optimal_levels(planes, weights, tables, price, subsampling, lengths)
    before, after = (objective(planes, weights, tables, price, x, subsampling, lengths) for x in (start, levels))
    assert after <= before * (1 + 1e-12)
    levels = trellis(planes, weights, tables, price, subsampling)
    data = write_coefficients(levels, tables, height, width, subsampling)
    assert len(data) == exact_size(levels, tables.count, subsampling)
    for ours, read in zip(levels, read_coefficients(data), strict=True):
        assert np.array_equal(ours, read)


@every_subsampling
def test_files_of_photos_decode_to_equal_pixels(subsampling: Subsampling) -> None:
    for height, width in SIZES:
        planes = planes_of(photo(height, width), subsampling)
        y, cb, cr = (np.ones_like(plane) for plane in planes)
        tables = QTables.standard(60)
        levels = trellis(planes, (y, cb, cr), tables, 60.0, subsampling)
        data = write_coefficients(levels, tables, height, width, subsampling)
        with Image.open(io.BytesIO(data)) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), decode(data))
        for ours, read in zip(levels, read_coefficients(data), strict=True):
            assert np.array_equal(ours, read)


def test_fewer_bits_for_the_same_error() -> None:
    """A finer table and the trellis: fewer bytes than rounding with a coarser one, and less error."""
    planes = planes_of(photo(120, 168), "4:2:0")
    y, cb, cr = (np.ones_like(plane) for plane in planes)
    zero = np.zeros((4, 256))

    def error_and_size(tables: QTables, levels: Coefficients) -> tuple[float, int]:
        return objective(planes, (y, cb, cr), tables, 0, levels, "4:2:0", zero), exact_size(levels, 1, "4:2:0")

    coarse, fine = QTables.flat(32), QTables.flat(26)
    error, size = error_and_size(coarse, rounded(planes, coarse))
    by_trellis, smaller = error_and_size(fine, trellis(planes, (y, cb, cr), fine, 0.12 * 26**2, "4:2:0"))
    assert by_trellis < error
    assert smaller < 0.97 * size


def test_blocks_without_weight_are_empty_and_their_dc_is_flat() -> None:
    planes = planes_of(photo(120, 168), "4:2:0")
    tables = QTables.flat(4)
    y, cb, cr = (np.ones_like(plane) for plane in planes)
    y[:, 6:] = 0
    levels = trellis(planes, (y, cb, cr), tables, 1e-9, "4:2:0")
    assert (levels[0][:, 6:].reshape(-1, 64)[:, 1:] == 0).all()
    assert np.count_nonzero(levels[0][:, :6]) > 1000
    counts = symbol_counts(levels, "4:2:0")
    assert counts[0, 0] > 0.4 * counts[0].sum()
    y[:] = cb[:] = cr[:] = 0
    nothing = trellis(planes, (y, cb, cr), tables, 1e-9, "4:2:0")
    assert not any(plane.any() for plane in nothing)


def test_blocks_without_weight_are_empty_even_where_an_end_is_dear() -> None:
    """A level at the last place needs no EOB, and would cost less here."""
    f = np.zeros((1, 1, 8, 8), np.float32)
    f[..., 7, 7] = 50
    planes, tables = (f, f, f), QTables.flat(10)
    lengths = np.ones((4, 256))
    lengths[1::2, 0] = 30
    for weight, expected in ((0.0, 0), (1e-9, 3)):
        y, cb, cr = (np.full_like(f, weight) for _ in range(3))
        levels = optimal_levels(planes, (y, cb, cr), tables, 1.0, "4:4:4", lengths)
        assert sum(int(np.count_nonzero(plane)) for plane in levels) == expected


def test_objective_is_what_it_says() -> None:
    rng = np.random.default_rng(7)
    planes = random_planes(rng, 9, 9, "4:4:4", 60)
    weights, tables = weights_like(rng, planes), QTables.flat(7)
    levels = rounded(planes, tables)
    lengths = rng.uniform(1, 9, (4, 256))
    expected = 0.0
    for c in range(3):
        f, w, n = (x[c].reshape(-1, 64)[:, ZIGZAG].astype(float) for x in (planes, weights, levels))
        expected += float((w * (f - 7 * n) ** 2).sum())
        for b in range(len(n)):
            difference = size_of(int(n[b, 0] - (n[b - 1, 0] if b else 0)))
            bits = block_bits(n[b].astype(int).tolist(), lengths[2 * (c > 0) + 1])
            expected += 5 * (bits + lengths[2 * (c > 0), difference] + difference)
    assert objective(planes, weights, tables, 5.0, levels, "4:4:4", lengths) == pytest.approx(expected, rel=1e-12)


def test_code_lengths_are_those_of_rate() -> None:
    import torch

    for image in (photo(40, 40), np.full((40, 40, 3), 128, np.uint8)):
        levels = read_coefficients(Codec().encode(image, QTables.standard(20)))
        expected = _code_lengths(torch.from_numpy(symbol_counts(levels, "4:2:0")[None]))[0]
        assert np.allclose(code_lengths(levels, "4:2:0"), expected.numpy(), rtol=1e-5)
        assert np.isfinite(code_lengths(levels, "4:2:0")).all()


def test_no_iterations_are_plain_rounding() -> None:
    planes = planes_of(photo(20, 20), "4:2:2")
    y, cb, cr = (np.ones_like(plane) for plane in planes)
    levels = trellis(planes, (y, cb, cr), QTables.flat(9), 1e3, "4:2:2", iterations=0)
    for ours, plain in zip(levels, rounded(planes, QTables.flat(9)), strict=True):
        assert np.array_equal(ours, plain)


def test_wrong_arguments_are_refused() -> None:
    planes = planes_of(photo(20, 20), "4:2:0")
    y, cb, cr = (np.ones_like(plane) for plane in planes)
    tables, weights = QTables.standard(50), (y, cb, cr)
    for multiplier in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="a multiplier of"):
            trellis(planes, weights, tables, multiplier, "4:2:0")
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="a weight is negative or not finite"):
            trellis(planes, (y, cb, np.full_like(cr, bad)), tables, 1.0, "4:2:0")
    with pytest.raises(ValueError, match="a coefficient is not finite"):
        trellis((planes[0] * np.float32(np.nan), *planes[1:]), weights, tables, 1.0, "4:2:0")
    with pytest.raises(ValueError, match="float32; got"):
        trellis(planes, (y.astype(float), cb, cr), tables, 1.0, "4:2:0")
    with pytest.raises(ValueError, match="weights"):
        trellis(planes, (y[:1], cb, cr), tables, 1.0, "4:2:0")
    with pytest.raises(ValueError, match="are not a photo in 4:4:4"):
        trellis(planes, weights, tables, 1.0, "4:4:4")
    with pytest.raises(ValueError, match="-1 iterations"):
        trellis(planes, weights, tables, 1.0, "4:2:0", -1)
    with pytest.raises(ValueError, match=r"code lengths are \[4, 256\]"):
        optimal_levels(planes, weights, tables, 1.0, "4:2:0", np.zeros((2, 256)))
