from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import ZIGZAG, QTables
from qtable.measure.archive import Archive
from qtable.measure.evaluate import Evaluator, Score
from qtable.measure.front import hypervolume
from qtable.photos.sets import ImageSet
from qtable.tasks.classification import METRICS, Classifier, ClassOutcomes
from qtable.tasks.embedded import network
from search.base import Box, Losses, Points
from search.random_search import RandomSearch
from search.run import Measuring, search
from search.space import Around, Bands, Full, Plain, Sorted, TableSpace

SPACES: list[TableSpace] = [
    Full(1), Full(3), Sorted(1), Sorted(2), Bands(8), Bands(2, 3), Around(QTables.standard(50), 5),
]  # fmt: skip


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_every_point_of_a_space_is_valid_tables(space: TableSpace) -> None:
    box, rng, codec = space.box, np.random.default_rng(0), Codec("4:4:4")
    plain = Plain(space, codec)
    assert np.array_equal([plain.box.low, plain.box.high], [box.low, box.high])
    points = RandomSearch(box, rng, batch=20).ask()
    for point in [*points, box.low, box.high]:
        assert isinstance(space.tables(point), QTables)
        assert plain.coder(point) == TableCoder(space.tables(point), codec)
    assert box.contains(points).all()
    assert points.dtype == np.int64


def test_sorted_space_has_the_published_distribution() -> None:
    """Against a direct transcription of the sampler as methods text gives it, by quantiles of several entries."""
    rng, n = np.random.default_rng(0), 4000
    space = Sorted(1)
    ours = np.stack([space.tables(p).zigzag()[0] for p in RandomSearch(space.box, rng, n).ask()]).astype(float)
    theirs = np.empty_like(ours)
    for row in theirs:
        t = np.sort(np.abs(rng.standard_normal(64)))
        t /= t.max()
        low, high = rng.integers(0, 35), rng.integers(50, 150)
        row[:] = np.clip(np.round(np.clip(np.round(t * (high - low) + low), 1, 255) * rng.uniform(0.5, 1.5)), 1, 255)
    for k in (0, 5, 20, 40, 63):
        for level in (0.1, 0.5, 0.9):
            a, b = np.quantile(ours[:, k], level), np.quantile(theirs[:, k], level)
            assert abs(a - b) <= 1 + 0.06 * b, (k, level, a, b)


def test_sorted_tables_rise_along_the_zigzag_and_full_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    for space, rises in ((Sorted(2), True), (Full(2), False)):
        for point in RandomSearch(space.box, rng, 10).ask():
            along = space.tables(point).zigzag().astype(int)
            assert (np.diff(along, axis=1) >= 0).all() == rises


def test_bands_are_log_linear_between_knots() -> None:
    tables = Bands(2, 1).tables(np.array([0, 128]))
    diagonal = tables.values[0].reshape(64)[ZIGZAG][[0, 1, 63]]
    assert diagonal.tolist() == [1, round(2 ** (8 / 14)), 255]


def test_around_moves_by_eighths_of_an_octave() -> None:
    center = QTables.flat(16)
    space = Around(center, 8)
    assert space.tables(np.zeros(64, np.int64)) == center
    assert space.tables(np.full(64, 8)) == QTables.flat(32)
    assert space.tables(np.full(64, -8)) == QTables.flat(8)


@pytest.mark.parametrize(
    "make", [lambda: Bands(1), lambda: Around(QTables.flat(1), 0), lambda: Box(np.array([1]), np.array([0]))]
)
def test_empty_spaces_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"allowed|empty"):
        make()


class Counting:
    """A stand-in for an evaluator that costs nothing: bytes and score are plain functions of the tables."""

    def __init__(self) -> None:
        self.calls: list[Coder] = []

    def __call__(self, coder: Coder) -> Score:
        np.random.random()  # noqa: NPY002  an evaluator that draws from the global generator must not shift the search
        self.calls.append(coder)
        assert coder.tables is not None
        mean = coder.tables.values.mean()
        right = np.arange(255) >= mean  # a share of 1 - mean / 255, nearly
        outcomes = ClassOutcomes("top-1", dict.fromkeys(METRICS, right), np.zeros(255, np.float32))
        return Score(coder, np.full(255, int(1e6 / mean)), outcomes)


class Pairs:
    """Asks for each point twice: duplicates must cost nothing."""

    def __init__(self, box: Box, rng: np.random.Generator) -> None:
        self.inner = RandomSearch(box, rng)
        self.told: list[npt.NDArray[np.float64]] = []

    def ask(self) -> Points:
        return np.repeat(self.inner.ask(), 2, axis=0)

    def tell(self, points: Points, losses: Losses) -> None:
        self.told.append(losses)


def spend(path: Path, budget: int, seed: int = 0) -> tuple[list[QTables], Counting, Pairs]:
    counting, space = Counting(), Plain(Full(1), Codec())
    searcher = Pairs(space.box, np.random.default_rng(seed))
    with Archive(path, {"identity": {}}) as archive:
        measure = Measuring(counting, "search", archive)  # type: ignore[arg-type]
        seen: list[float] = []
        assert search(space, searcher, measure, budget, "test", lambda spent, _: seen.append(spent)) == budget
        assert seen == list(range(1, budget + 1))
        return [r.score.tables for r in archive], counting, searcher


def test_the_budget_counts_different_tables_exactly(tmp_path: Path) -> None:
    tables, counting, searcher = spend(tmp_path / "a.jsonl", 30)
    assert len(tables) == len(set(tables)) == len(counting.calls) == 30
    assert all(losses.shape == (2, 2) and (losses[0] == losses[1]).all() for losses in searcher.told)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    first, second, third = (spend(tmp_path / f"{i}.jsonl", 10, seed)[0] for i, seed in enumerate((1, 1, 2)))
    assert first == second != third


def test_a_stopped_run_continues_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole, _, _ = spend(tmp_path / "whole.jsonl", 25)
    spend(tmp_path / "a.jsonl", 11)
    data = (tmp_path / "a.jsonl").read_bytes()
    (tmp_path / "a.jsonl").write_bytes(data[:-5])  # killed while it wrote the eleventh record
    tables, counting, _ = spend(tmp_path / "a.jsonl", 25)
    assert tables == whole
    assert len(counting.calls) == 15


def test_a_searcher_with_nothing_left_to_ask_ends_the_search(tmp_path: Path) -> None:
    space = Plain(Bands(2, 1), Codec())
    small = Box(np.zeros(2, np.int64), np.array([16, 0]))
    with Archive(tmp_path / "a.jsonl", {"identity": {}}) as archive:
        measure = Measuring(Counting(), "search", archive)  # type: ignore[arg-type]
        spent = search(space, RandomSearch(small, np.random.default_rng(0)), measure, 1000, "test")
    assert spent == len({space.coder(np.array([i, 0])) for i in range(17)})


def test_sorted_random_beats_unsorted_on_the_embedded_task(tmp_path: Path) -> None:
    """As published: at the same number of evaluations the sorted prior draws the better front, in real bytes."""
    photos = ImageSet.embedded().search
    task = Classifier(network())
    volumes = {}
    with Evaluator(photos.subset(range(0, len(photos), 4)), task) as evaluator:
        for name, tables in (("sorted", Sorted(2)), ("full", Full(2))):
            space = Plain(tables, Codec())
            with Archive(tmp_path / f"{name}.jsonl", {"identity": {}}) as archive:
                measure = Measuring(evaluator, "search", archive)
                search(space, RandomSearch(space.box, np.random.default_rng(0)), measure, 20, name)
                sizes, scores = [r.score.bytes for r in archive], [r.score.score for r in archive]
            volumes[name] = hypervolume(sizes, scores, worst_size=2000)
    assert volumes["sorted"] > 1.1 * volumes["full"]
