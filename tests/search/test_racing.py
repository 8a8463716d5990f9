from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive, Record
from qtable.measure.evaluate import Evaluator, Score
from qtable.photos.sets import ImageSet, Photos
from qtable.tasks.classification import METRICS, Classifier, ClassOutcomes
from qtable.tasks.embedded import network
from search.base import Box
from search.methods import METHODS, Setting, candidates
from search.racing import SHARES, Racing, rungs, shuffled
from search.random_search import RandomSearch
from search.run import losses_of, search
from search.space import Full, Plain


def standard(quality: int) -> TableCoder:
    return TableCoder(QTables.standard(quality))


@pytest.fixture(scope="module")
def photos() -> Photos:
    return shuffled(ImageSet.embedded().search.subset(range(0, 420, 5)))


@pytest.fixture
def racing(photos: Photos, tmp_path: Path) -> Iterator[Racing]:
    task = Classifier(network())
    with ExitStack() as stack:
        evaluators = [stack.enter_context(Evaluator(part, task)) for part in rungs(photos)]
        archive = stack.enter_context(Archive(tmp_path / "archive.jsonl", {"identity": {}}))
        yield Racing(evaluators, archive, task.metric)


def test_rungs_are_consecutive_parts_of_fair_samples(photos: Photos) -> None:
    parts = rungs(photos)
    assert [name for part in parts for name in part.names] == list(photos.names)
    assert np.cumsum([len(part) for part in parts]).tolist() == [round(share * len(photos)) for share in SHARES]
    assert isinstance(photos.annotations, np.ndarray)
    assert len(set(photos.annotations[:42].tolist())) > 12
    assert [len(part) for part in rungs(photos.subset(range(2)))] == [1, 1]


def test_full_scores_are_those_of_an_evaluator(racing: Racing, photos: Photos) -> None:
    with Evaluator(photos, Classifier(network())) as evaluator:
        expected = evaluator(standard(30))
    score = racing.full(standard(30), "standard")
    assert np.array_equal(score.photo_bytes, expected.photo_bytes)
    assert isinstance(score.outcomes, ClassOutcomes)
    assert isinstance(expected.outcomes, ClassOutcomes)
    for name in METRICS:
        assert np.array_equal(score.outcomes.hits[name], expected.outcomes.hits[name])
    assert score.score == expected.score
    assert racing.cost(score) == 1.0


def test_the_hopeless_are_dropped_and_the_good_are_not(racing: Racing) -> None:
    """Standard tables against their own transposes at more bytes and far less quality."""
    for quality in (20, 40, 60, 80):
        racing.full(standard(quality), "standard")
    bad = TableCoder(QTables(np.where(np.add.outer(np.arange(8), np.arange(8)) < 4, 120, 6)[None]))
    dropped = racing(bad, "test")
    assert racing.cost(dropped) < 1
    assert racing.archive.records("search", without="standard") == []
    assert [r.score.coder for r in racing.archive.partial("search")] == [bad]
    promising = racing(standard(50), "test")
    assert racing.cost(promising) == 1
    assert racing.losses(promising) == losses_of(promising)


def test_losses_of_the_dropped_are_near_the_truth(racing: Racing) -> None:
    for quality in (20, 40, 60, 80):
        racing.full(standard(quality), "standard")
    rng = np.random.default_rng(0)
    errors, naive = [], []
    for _ in range(12):
        coder = TableCoder(QTables(rng.integers(1, 120, (1, 8, 8))))
        whole = losses_of(racing._through(coder, lambda _: False))
        part = racing._through(coder, lambda score: len(score.photo_bytes) >= 0.25 * racing.photos)
        errors.append(np.subtract(racing.losses(part), whole))
        naive.append(np.subtract(losses_of(part), whole))
    assert np.abs(errors).mean(axis=0)[0] < np.abs(naive).mean(axis=0)[0]
    assert np.abs(errors).mean(axis=0)[1] < 0.12


def test_scores_join_and_begin(racing: Racing) -> None:
    first, second = (e(standard(30)) for e in racing.evaluators[:2])
    both = first.joined(second)
    again = both.subset(range(len(first.photo_bytes)))
    assert np.array_equal(again.photo_bytes, first.photo_bytes)
    assert again.score == first.score
    assert again.outcomes.written() == first.outcomes.written()
    assert first.coder == both.coder == again.coder
    assert len(both.outcomes) == len(first.outcomes) + len(second.outcomes)
    assert both.bytes == np.concatenate([first.photo_bytes, second.photo_bytes]).mean()


def test_the_budget_counts_photos(racing: Racing) -> None:
    for quality in (10, 30, 60, 90):
        racing.full(standard(quality), "standard")
    space = Plain(Full(2), Codec())
    spent = search(space, RandomSearch(space.box, np.random.default_rng(0)), racing, 4, "random")
    tried = racing.archive.partial("search") + racing.archive.records("search", without="standard")
    assert len(tried) > 4
    assert 4 <= spent < 5
    assert sum(len(r.score.photo_bytes) for r in tried) == pytest.approx(spent * racing.photos)


def test_every_method_spends_its_budget(tmp_path: Path, crops: Photos) -> None:
    """By name, without and with a start, in the box, on real photos, and each by itself."""
    task = Classifier(network())
    with Evaluator(crops, task) as evaluator:
        scores: dict[Coder, Score] = {}

        class Once:
            def __call__(self, coder: Coder, origin: str) -> Score:
                return scores.setdefault(coder, evaluator(coder))

            def prepare(self, coders: object, origin: str) -> None: ...

            def cost(self, score: Score) -> float:
                return 1.0

            def losses(self, score: Score) -> tuple[float, float]:
                return losses_of(score)

        for name in METHODS:
            starts = [None] if name.startswith(("mozjpeg", "notebook")) or name in REFUSES else [None, "standard"]
            for start in starts:
                setting = Setting(2, np.random.default_rng(0), crops, task, Codec(), tmp_path / "statistics.npz", start)
                space, searcher = candidates(name, setting)
                assert isinstance(space.box, Box)
                assert search(space, searcher, Once(), 3, name) == 3, (name, start)


REFUSES = {"closed-form", "rd-opt", "rd-opt-per-frequency", "deepn-jpeg", "grace", "opts", "optd"}


@pytest.mark.parametrize(("start", "message"), [("nowhere", "no run there"), ("standard", "leave --start out")])
def test_starts_that_cannot_be_are_refused(tmp_path: Path, crops: Photos, start: str, message: str) -> None:
    task = Classifier(network())
    setting = Setting(2, np.random.default_rng(0), crops, task, Codec(), tmp_path / "s.npz", start)
    with pytest.raises(ValueError, match=message):
        METHODS["genetic" if start == "nowhere" else "closed-form"](setting)


def test_an_archive_is_a_start(tmp_path: Path, photos: Photos) -> None:
    task = Classifier(network())
    with (
        Evaluator(photos, task) as evaluator,
        Archive(tmp_path / "archive.jsonl", {"identity": {}}) as archive,
    ):
        for quality in (20, 50, 80):
            archive.append(Record("search", "standard", evaluator(standard(quality))))
    setting = Setting(2, np.random.default_rng(0), photos, task, Codec(), tmp_path / "s.npz", str(tmp_path))
    space, searcher = candidates("genetic", setting)
    first = [space.coder(point) for point in searcher.ask()[:3]]
    assert standard(80) in first
    assert standard(20) in first
