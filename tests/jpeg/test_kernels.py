"""Huffman tables, bits and symbols against the plain forms of them; numba's cache, and life without it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qtable.jpeg import kernels
from qtable.jpeg.codec import SUBSAMPLINGS, Subsampling
from qtable.jpeg.coefficients import symbol_counts
from qtable.jpeg.frame import Planes
from qtable.jpeg.huffman import optimal_huffman
from qtable.jpeg.kernels import bits, compiled, huffman, scan
from qtable.jpeg.scan import _entries, _order, _row, _scan
from qtable.jpeg.tables import ZIGZAG
from tests.jpeg.photos import SIZES, file_and_size, random_levels

# ---- Huffman tables -------------------------------------------------------------------------------------------


def same_table(counts: np.ndarray) -> bool:
    """Whether the kernel's table is that of `optimal_huffman`; False where only one of them gives up."""
    lengths, symbols = huffman.optimal(counts)
    try:
        expected = optimal_huffman(counts)
    except ValueError:
        return len(lengths) == 0
    return bool(lengths.tolist() == expected.counts and symbols.tolist() == expected.symbols)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 256), st.sampled_from([2, 3, 10, 1000]))
def test_huffman_tables_equal_libjpegs_with_ties(seed: int, present: int, below: int) -> None:
    rng = np.random.default_rng(seed)
    counts = np.zeros(256, np.int64)
    counts[rng.permutation(256)[:present]] = rng.integers(1, below, present)
    assert same_table(counts)


def test_huffman_tables_of_long_codes_are_limited_or_refused() -> None:
    rng = np.random.default_rng(0)
    kinds = set()
    for growth in (1.3, 1.5, 1.618, 1.8, 2.0):
        for length in (10, 20, 30, 34, 40):
            counts = np.zeros(256, np.int64)
            counts[rng.permutation(256)[:length]] = (growth ** np.arange(length)).astype(np.int64) + 1
            assert same_table(counts)
            kinds.add((len(huffman.optimal(counts)[0]) == 0, bool(growth**length > 2**18)))
    assert kinds >= {(True, True), (False, True), (False, False)}


def test_codes_are_prefix_free_and_in_order() -> None:
    counts = np.random.default_rng(1).integers(0, 50, 256)
    packed = huffman.codes(*huffman.optimal(counts))
    assert ((packed > 0) == (counts > 0)).all()
    texts = sorted(f"{code >> 5:0{code & 31}b}" for code in packed[packed > 0].tolist())
    assert not any(later.startswith(text) for text, later in itertools.pairwise(texts))
    assert not any(set(text) == {"1"} for text in texts)


# ---- words and symbols ----------------------------------------------------------------------------------------


@compiled
def words_of(levels: np.ndarray) -> tuple[np.uint64, np.uint64, int, int]:
    word = bits.nonzeros(levels, 64)
    return word, bits.along_zigzag(word), bits.trailing_zeros(word), bits.bit_length(abs(np.int64(levels[64])))


@pytest.mark.parametrize("density", [0.03, 0.5, 1.0])
def test_words_say_which_levels_are_not_zero(density: float) -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        levels = rng.integers(-300, 300, 192).astype(np.int16) * (rng.random(192) < density).astype(np.int16)
        levels[64 + rng.integers(64)] = -32768
        block = levels[64:128] != 0
        word, zigzag, first, length = words_of(levels)
        assert int(word) == sum(1 << i for i in range(64) if block[i])
        assert int(zigzag) == sum(1 << k for k in range(64) if block[ZIGZAG[k]])
        assert first == int(np.flatnonzero(block)[0])
        assert length == abs(int(levels[64])).bit_length()
        assert bits.nonzeros(levels, 64) == word


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_symbol_counts_equal_those_of_rate(subsampling: Subsampling) -> None:
    rng = np.random.default_rng(3)
    for height, width in SIZES:
        for density in (0.0, 0.02, 0.4, 1.0):
            levels = random_levels(rng, height, width, subsampling, density)
            planes = Planes(*(torch.from_numpy(plane[None]) for plane in levels))
            order = _order(planes, subsampling)
            row = _row(planes)
            entries = _entries(row != 0, order)
            expected = _scan(entries.at, row[0, entries.position], entries.shape).counts()[0]
            assert (symbol_counts(levels, subsampling) == expected.numpy()).all()


# ---- numba ----------------------------------------------------------------------------------------------------

PROGRAM = """
import json, sys
if sys.argv[1] == "absent":
    sys.modules["numba"] = None
from qtable.jpeg.kernels import scan
from tests.jpeg.photos import file_and_size
data, size = file_and_size()
print(json.dumps({"data": data.hex(), "size": size, "compiled": hasattr(scan.pack, "stats")}))
"""
ONE_KERNEL = """
import json
import numpy as np
from qtable.jpeg.kernels import scan
y = np.arange(64, dtype=np.int16)
scan.symbols(y, y, y, np.zeros(1, np.int32))
print(json.dumps([len(counter) for counter in (scan.symbols.stats.cache_hits, scan.symbols.stats.cache_misses)]))
"""


def run(program: str, mode: str = "", **environment: str) -> Any:
    command = [sys.executable, "-W", "error", "-c", program, mode]
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=root)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_numba_and_without_its_compiler_results_are_the_same() -> None:
    data, size = file_and_size()
    assert hasattr(scan.pack, "stats")
    assert size == len(data)
    for other in (run(PROGRAM, "absent"), run(PROGRAM, NUMBA_DISABLE_JIT="1")):
        assert other == {"data": data.hex(), "size": size, "compiled": False}


def test_a_second_start_compiles_nothing(tmp_path: Path) -> None:
    assert [run(ONE_KERNEL, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)] == [[0, 1], [1, 0]]


def test_where_nothing_can_be_kept_functions_are_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.caching import CompileResultCacheImpl

    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])

    def twice(x: int) -> int:
        return 2 * x

    function = kernels.compiled(twice)
    assert function is not twice
    assert function(3) == 6
