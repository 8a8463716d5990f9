from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qtable.codecs.plain import TableCoder
from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.tables import QTables
from qtable.measure.evaluate import Evaluator
from qtable.photos.sets import Photos
from qtable.tasks.base import ModelError, Outcomes
from qtable.tasks.classification import METRICS, Classifier, ClassOutcomes


class TinyNet(nn.Module):
    """A seeded random convolution over 3 classes, for any size of photo."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 12, 5, stride=2)
        self.head = nn.Linear(12, 3)

    def forward(self, rgb: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.conv((rgb - 128) / 32)).amax(dim=(2, 3)))
        return logits


@pytest.fixture(scope="module")
def photos() -> Photos:
    from skimage import data

    image, rng = data.coffee(), np.random.default_rng(0)
    images = []
    for i in range(50):
        top, left = rng.integers(0, 300), rng.integers(0, 500)
        images.append(np.ascontiguousarray(image[top : top + 40 + i % 3, left : left + 60]))
    return Photos(tuple(images), rng.integers(0, 3, 50), tuple(map(str, range(50))))


def test_bytes_and_outcomes_are_those_of_the_files_one_by_one(photos: Photos, asymmetric: QTables) -> None:
    codec, net = Codec("4:2:2"), TinyNet()
    with Evaluator(photos, Classifier(net)) as evaluator:
        score = evaluator(TableCoder(asymmetric, codec))
    outcomes = score.outcomes
    assert isinstance(outcomes, ClassOutcomes)
    assert set(outcomes.hits) == set(METRICS)
    assert Outcomes.read(outcomes.written(), len(photos)).written() == outcomes.written()  # of the types it says
    assert isinstance(photos.annotations, np.ndarray)
    for i, image in enumerate(photos.images):
        file = codec.encode(image, asymmetric)
        assert score.photo_bytes[i] == len(file)
        answers = []
        for pixels in (codec.decode(file), image):
            with torch.no_grad():
                answers.append(net(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()))
        label = torch.tensor(photos.annotations[i : i + 1])
        row = {name: bits[i] for name, bits in outcomes.hits.items()}
        assert row["top-1"] == (answers[0].argmax() == label)
        assert row["top-5"] == 1
        assert row["agreement"] == (answers[0].argmax() == answers[1].argmax())
        assert outcomes.cross_entropy[i] == pytest.approx(float(F.cross_entropy(answers[0], label)), rel=1e-4)
    assert score.score == np.mean(outcomes.hits["top-1"])
    assert 0 < outcomes.hits["agreement"].mean() < 1  # these tables change some answers: the comparison can fail


def test_the_number_of_threads_changes_nothing(photos: Photos) -> None:
    results = []
    for workers in (1, 2, 5):
        with Evaluator(photos, Classifier(TinyNet()), workers) as evaluator:
            results.append(evaluator(TableCoder(QTables.standard(20))))
    for other in results[1:]:
        assert results[0].outcomes.written() == other.outcomes.written()
        assert np.array_equal(results[0].photo_bytes, other.photo_bytes)


def test_clean_is_the_model_on_the_originals(photos: Photos) -> None:
    with Evaluator(photos, Classifier(TinyNet(), "agreement")) as evaluator:
        assert evaluator.clean().score() == 1.0


class Constant(nn.Module):
    def __init__(self, value: float, classes: int = 3) -> None:
        super().__init__()
        self.value, self.classes = value, classes

    def forward(self, rgb: Tensor) -> Tensor:
        return torch.full((len(rgb), self.classes), self.value)


class Misshapen(nn.Module):
    def forward(self, rgb: Tensor) -> Tensor:
        return rgb.mean(dim=(1, 2, 3))


class Failing(nn.Module):
    def forward(self, rgb: Tensor) -> Tensor:
        raise RuntimeError("expected 4 channels\nat some place")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Constant(float("nan")), "NaN"),
        (Constant(float("inf")), "infinity"),
        (Misshapen(), r"\[n, classes\]"),
        (Failing(), "expected 4 channels"),
        (Constant(0.0, classes=2), "label 2 is outside the model's 2 classes"),
    ],
)
def test_models_that_do_not_answer_are_refused(photos: Photos, model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        Evaluator(photos, Classifier(model))
    assert "\n" not in str(error.value)


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="top-1, top-5, agreement"):
        Classifier(TinyNet(), "mAP")


def test_threads_end_with_the_evaluator(photos: Photos) -> None:
    before = threading.active_count()
    with Evaluator(photos, Classifier(TinyNet()), workers=3):
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_progress_reaches_the_end(photos: Photos) -> None:
    seen: list[tuple[int, int]] = []
    with Evaluator(photos, Classifier(TinyNet())) as evaluator:
        evaluator(TableCoder(QTables.standard(50)), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (50, 50)


def test_photos_of_the_right_type(photos: Photos) -> None:
    image: RGB = photos.subset([3, 1]).images[1]
    assert np.array_equal(image, photos.images[1])
