from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qtable.jpeg.tables import ZIGZAG, QTables
from qtable.measure.estimates import Floats, distortion, entropy_bits
from qtable.measure.sensitivity import BINS, RESOLUTION, Sensitivity
from search.closed_form import Lagrangian
from search.refine import _COARSE, _SIZES, Descent, RunAware, _cells, _code_lengths, _worth, run_aware_bits


def symbols(levels: list[int]) -> list[tuple[int, int]]:
    """(run, size) of a block's 63 AC levels along the zigzag (T.81, F.1.2.2), runs above 15 not yet split."""
    found, run = [], 0
    for level in levels:
        if level:
            found.append((run, abs(level).bit_length()))
            run = 0
        else:
            run += 1
    return found


def bits(levels: list[int], lengths: Floats) -> float:
    total = sum(lengths[run, size] + size for run, size in symbols(levels))
    return float(total) + (0.0 if levels[-1] else float(lengths[1, 0]))


def test_code_lengths_are_minus_log2_of_how_often_a_symbol_occurs() -> None:
    """Runs above 15 are 16-zero symbols and the rest (T.81, F.1.2.2.1); five ends of block."""
    lengths = _code_lengths(np.array([0, 0, 0, 35]), np.array([1, 1, 2, 4]), 5)
    total = 4 + 2 + 5
    assert lengths[0, 1] == pytest.approx(np.log2(total / 2))
    assert lengths[7, 0] == pytest.approx(np.log2(total / 5))
    assert lengths[35, 4] == pytest.approx(2 * np.log2(total / 2) + np.log2(total))
    assert lengths[19, 1] == pytest.approx(lengths[15 + 4, 4] - lengths[3, 4] + lengths[3, 1])
    assert lengths[0, 0] == 0


def test_worth_is_what_coding_the_block_again_would_cost() -> None:
    """One block, so that every coefficient is alone in its bin: its price must be the difference of two codings."""
    rng = np.random.default_rng(3)
    levels = np.where(rng.random(64) < 0.25, rng.integers(1, 40, 64), 0)
    levels[63] = 2
    steps = rng.integers(2, 30, 64)
    worth, number = _worth((levels * steps)[None].astype(np.float32), steps)
    assert number.sum() == 63
    pairs = symbols(levels[1:].tolist())
    run, size = (np.array(x) for x in zip(*pairs, strict=True))
    lengths = _code_lengths(run, size, 0)
    for k in range(1, 64):
        coarse = _COARSE[int(levels[k] * steps[k]) * 8]
        for tried in (1, 2, 5, 9):
            there, gone = levels.copy(), levels.copy()
            there[k], gone[k] = 1 << (tried - 1), 0
            expected = bits(there[1:].tolist(), lengths) - bits(gone[1:].tolist(), lengths)
            assert worth[k, coarse, tried] == pytest.approx(expected, abs=1e-9), (k, tried)
        assert worth[k, coarse, 0] == 0


def test_cells_are_the_bins_of_one_size() -> None:
    coarse, size, low, high, starts = _cells()
    values = np.arange(BINS)
    for q in (1, 2, 9, 100, 255):
        cells = slice(starts[q - 1], starts[q] if q < 255 else None)
        level = (2 * values + RESOLUTION * q) // (2 * RESOLUTION * q)
        found = np.full((2, BINS), -1)
        for b, s, first, end in zip(coarse[cells], size[cells], low[cells], high[cells], strict=True):
            assert (found[:, first:end] == -1).all()
            found[:, first:end] = [[b], [s]]
        assert np.array_equal(found, [_COARSE, _SIZES[level]]), q


def test_lonely_coefficients_behind_long_runs_are_dear() -> None:
    """Two frequencies with the same histogram: one follows directly behind DC, one stands alone at the end."""
    blocks = np.zeros((200, 64), np.float32)
    blocks[:100, ZIGZAG[1]] = 30
    blocks[100:, ZIGZAG[60]] = 30
    levels = np.zeros((3, 64, BINS))
    for k in (1, 60):
        levels[0, ZIGZAG[k], [0, 30 * 8]] = 100
    problem = Lagrangian(np.zeros((3, 64, 255)), np.zeros((3, 64, 255)))
    empty = np.zeros((1, 64), np.float32)
    found = run_aware_bits(problem, levels, [blocks, empty, empty], QTables.flat(10))
    near, far = found[0, ZIGZAG[1]], found[0, ZIGZAG[60]]
    assert far[9] > near[9] + 100
    assert near[254] == far[254] == 0


def test_descent_follows_exact_bits_where_they_differ_from_the_estimate() -> None:
    steps = np.arange(1, 256.0)
    problem = Lagrangian(np.tile(1e-3 * np.square(steps), (3, 64, 1)), np.tile(1000 / steps, (3, 64, 1)))
    path = problem.path()

    def exact(tables: QTables) -> float:
        values = tables.components().astype(float)
        weights = np.ones((3, 8, 8))
        weights[0, 0, 1] = 40.0  # this entry's bits are dearer than estimated
        return float((weights * 1000 / values).sum())

    point = np.array([64])
    start, refined = path.tables(point), Descent(problem, path, exact).tables(point)
    multiplier = np.exp(path.parameter(point))
    assert problem.cost_of(refined) + multiplier * exact(refined) < problem.cost_of(start) + multiplier * exact(start)
    assert refined.values[0, 0, 1] > 2 * start.values[0, 0, 1]
    same = (refined.values.astype(int) - start.values)[1]
    assert np.abs(same).max() <= 0.13 * start.values.max()


def test_run_aware_tables_lie_near_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    scales = 60 / (1 + np.add.outer(np.arange(8), np.arange(8)).ravel())
    blocks = [rng.laplace(0, scales, (300, 64)).astype(np.float32) for _ in range(3)]
    bins = [np.minimum(np.rint(np.abs(b) * RESOLUTION), BINS - 1).astype(int) for b in blocks]
    levels = np.array([[np.bincount(b[:, k], minlength=BINS) for k in range(64)] for b in bins], float)
    statistics = replace(Sensitivity.zero(), levels=levels, differences=levels[:, 0], photos=1)
    problem = Lagrangian(distortion(levels), entropy_bits(statistics))
    point = np.array([60])
    plain = problem.path().tables(point)
    aware = RunAware.of(problem, levels, blocks).tables(point)
    assert aware != plain
    assert np.abs(np.log(aware.values[0, :3, :3] / plain.values[0, :3, :3])).max() < 0.7
