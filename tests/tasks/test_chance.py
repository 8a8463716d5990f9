"""Clean scores at chance: labels numbered otherwise, wrong preprocessing, weak networks, few photos."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import norm
from torch import nn

from qtable.tasks.chance import _expected, _one_to_one, at_chance
from qtable.tasks.classification import Classifier, ClassTargets
from qtable.tasks.several import Several

Labels = npt.NDArray[np.int64]


def drawn(photos: int, classes: int, accuracy: float, seed: int = 0) -> tuple[Labels, Labels]:
    """Answers and labels: right with this probability, else anything."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, photos)
    return np.where(rng.random(photos) < accuracy, labels, rng.integers(0, classes, photos)), labels


def test_shifted_labels_are_recognised_by_their_renumbering() -> None:
    answers, labels = drawn(300, 10, 0.8)
    chance = at_chance(answers + 1, labels)
    assert chance is not None
    assert chance.found
    assert chance.pairs == tuple((label, label + 1) for label in range(10))
    assert 0.7 < chance.renumbered < 0.9
    first, evidence, advice = chance.sentences()
    assert "of 300 answers on uncompressed photos are right, no better than chance: the most frequent label" in first
    assert "(label 0 is output 1, label 1 is output 2, label 2 is output 3, ...)" in evidence
    assert f"{chance.renumbered:.1%} of the other half are right" in evidence
    assert "--classes FILE" in advice


def test_alphabetical_instead_of_numeric_labels_are_recognised() -> None:
    """0..20 sorted as text: 0, 1, 10, 11, ... 19, 2, 20, 3, ...: 0 and 1 keep their numbers."""
    answers, numbers = drawn(400, 21, 0.9)
    place = {int(name): i for i, name in enumerate(sorted(map(str, range(21))))}
    chance = at_chance(answers, np.array([place[n] for n in numbers]))
    assert chance is not None
    assert chance.found
    assert dict(chance.pairs) == {place[n]: n for n in range(21)}
    assert 0.05 < chance.right < 0.15


def test_some_folders_of_a_network_with_a_thousand_outputs_are_recognised() -> None:
    """Ten of 1000 classes numbered 0..9 by their folders; the first is the network's 0, too, as with Imagenette."""
    outputs = np.array([0, 217, 482, 491, 497, 566, 569, 571, 574, 701])
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 30)
    answers = np.where(rng.random(300) < 0.9, outputs[labels], rng.integers(0, 1000, 300))
    chance = at_chance(answers, labels)
    assert chance is not None
    assert chance.found
    assert dict(chance.pairs) == dict(enumerate(outputs.tolist()))


def test_a_class_that_went_missing_before_numbering_is_recognised() -> None:
    """Six classes without the second: 0 keeps its number, so that the score is above chance."""
    answers, labels = drawn(600, 6, 0.9)
    kept = labels != 1
    chance = at_chance(answers[kept], np.where(labels > 1, labels - 1, labels)[kept])
    assert chance is not None
    assert chance.pairs == ((0, 0), (1, 2), (2, 3), (3, 4), (4, 5))
    for seed in range(20):  # more of the one class that is right: above chance, yet said
        rng = np.random.default_rng(seed)
        labels = np.where(rng.random(400) < 0.25, 0, rng.integers(1, 20, 400))
        chance = at_chance(np.where(rng.random(400) < 0.9, labels + (labels > 4), labels), labels)
        assert chance is not None
        assert chance.above
        assert chance.sentences()[0].startswith("only ")


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_answers_that_have_nothing_to_do_with_labels_have_no_better_numbering(classes: int) -> None:
    found = [at_chance(*drawn(400, classes, 0.0, seed)) for seed in range(40)]
    doubts = [chance for chance in found if chance is not None]
    assert len(doubts) > 36
    assert not any(chance.found for chance in doubts)
    assert "no other numbering of labels does better" in doubts[0].sentences()[-1]
    assert "preprocessing" in doubts[0].sentences()[-1]


def test_one_answer_for_all_photos_is_named() -> None:
    labels = np.arange(200) % 10
    chance = at_chance(np.full(200, 7), labels)
    assert chance is not None
    assert not chance.found
    assert "the network answers 7 on 100% of the photos" in chance.sentences()


@pytest.mark.parametrize(("classes", "accuracy"), [(2, 0.6), (10, 0.3), (100, 0.2), (100, 0.9)])
def test_networks_better_than_chance_pass(classes: int, accuracy: float) -> None:
    assert all(at_chance(*drawn(500, classes, accuracy, seed)) is None for seed in range(20))


@pytest.mark.parametrize(("photos", "classes"), [(1, 2), (5, 2), (20, 2), (6, 10), (0, 2), (50, 1)])
def test_few_photos_and_one_class_say_nothing(photos: int, classes: int) -> None:
    answers, labels = drawn(photos, classes, 0.0)
    assert at_chance(answers + 1, labels) is None


@pytest.mark.parametrize("accuracy", [0.05, 0.1, 0.15])
def test_networks_hardly_better_than_chance_are_never_renumbered(accuracy: float) -> None:
    for seed in range(60):
        chance = at_chance(*drawn(150, 10, accuracy, seed))
        assert chance is None or not chance.found


def test_photos_without_labels_do_not_count() -> None:
    answers, labels = drawn(300, 10, 0.8)
    some = np.arange(300) % 2 == 0
    assert at_chance(answers, np.full(300, -1)) is None
    chance = at_chance(answers + 1, np.where(some, labels, -1))
    assert chance is not None
    assert chance == at_chance((answers + 1)[some], labels[some])


def test_a_weak_network_among_unequal_classes_passes() -> None:
    """Right less often than the most frequent label, but its answers depend on the labels as they are numbered."""
    rng = np.random.default_rng(0)
    labels = (rng.random(600) < 0.2).astype(np.int64)
    answers = np.where(rng.random(600) < 0.7, labels, 1 - labels)
    assert (answers == labels).mean() < (labels == 0).mean()
    assert at_chance(answers, labels) is None


def test_the_expected_right_answers_are_those_of_labels_dealt_anew() -> None:
    rng = np.random.default_rng(0)
    answers, labels = rng.integers(0, 4, 60) ** 2, rng.integers(0, 4, 60)
    dealt = [int((answers == rng.permutation(labels)).sum()) for _ in range(20_000)]
    mean, deviation = _expected(answers, labels)
    assert abs(np.mean(dealt) - mean) < norm.isf(1e-4) * deviation / np.sqrt(20_000)
    assert np.std(dealt) == pytest.approx(deviation, rel=0.03)


def test_a_numbering_takes_no_output_twice_and_many_classes() -> None:
    labels, present = np.array([0, 0, 0, 1, 1]), np.array([0, 1])
    assert _one_to_one(np.array([5, 5, 5, 5, 6]), labels, present) == {0: 5, 1: 6}
    assert _one_to_one(np.array([5, 5, 5, 5, 5]), labels, present) == {0: 5}
    many = np.concatenate([np.arange(5000), np.arange(1500)])
    pairs = _one_to_one(many + 7, many, np.unique(many))
    assert len(pairs) == 2000
    assert all(output == label + 7 for label, output in pairs.items() if label < 1500)


def test_one_photo_of_each_class_is_enough_for_a_shift() -> None:
    """A network whose first output is "background": no label is on both halves of the photos."""
    labels = np.arange(0, 1000, 4)
    answers = np.where(np.random.default_rng(0).random(250) < 0.35, labels + 1, 3)
    chance = at_chance(answers, labels)
    assert chance is not None
    assert chance.found
    assert chance.pairs[:2] == ((0, 1), (4, 5))
    assert chance.renumbered == (answers == labels + 1).mean()


def test_several_tasks_doubt_what_the_scored_one_does() -> None:
    answers, labels = drawn(300, 10, 0.8)
    scored, other = Classifier(nn.Identity()), Classifier(nn.Identity(), "agreement")
    batches = [ClassTargets(labels[at], answers[at] + 1) for at in (slice(0, 100), slice(100, 300))]
    chance = at_chance(answers + 1, labels)
    assert chance is not None
    assert scored.doubts(batches) == chance.sentences()
    assert other.doubts(batches) == []
    assert Several([scored, other]).doubts([(own, own) for own in batches]) == chance.sentences()
    assert Several([other, scored]).doubts([(own, own) for own in batches]) == []
