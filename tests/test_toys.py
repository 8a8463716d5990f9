"""The house takes strangers in: a task that is no classifier, and a coder that is no table, defined here alone."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder
from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.linear import coefficient_gradient
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive
from qtable.measure.evaluate import Evaluator
from qtable.measure.front import pareto
from qtable.measure.sensitivity import measure
from qtable.photos.sets import Annotations, ImageSet, Photos
from qtable.report.page import page
from qtable.report.run import Run
from qtable.tasks.base import Floats, Indices, Outcomes, packed, unpacked
from qtable.train.recipe import Recipe
from search.base import Box
from search.closed_form import Sweep
from search.joint import Family, learn
from search.methods import Setting
from search.optimize import Plan, optimize
from search.run import Measuring, search

# ---- a task with two answers, one of them dense ---------------------------------------------------------------


class Seen(NamedTuple):
    """What the toy network says: one vector a photo, float [n, 2], and a map, float [n, 1, h / 8, w / 8]."""

    mood: Tensor
    map: Tensor


class ToyNet(nn.Module):
    """Seeded random convolutions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 6, 8, stride=8)
        self.head = nn.Conv2d(6, 1, 1)
        self.mood = nn.Linear(6, 2)

    def forward(self, rgb: Tensor) -> Seen:
        body = torch.tanh(self.body((rgb - 128) / 32))
        return Seen(self.mood(body.mean((2, 3))), 3 * self.head(body))


@dataclass(frozen=True, eq=False)
class Gaps(Outcomes, kind="toy-gaps"):
    """float64 [n, cells]: squared gaps of the map from the one of the clean photo. Scored by their overall mean."""

    squares: Floats

    def __len__(self) -> int:
        return len(self.squares)

    def subset(self, indices: Sequence[int] | Indices) -> Self:
        return type(self)(self.squares[np.asarray(indices, np.intp)])

    def score(self) -> float:
        return float(np.exp(-4 * np.sqrt(self.squares.mean())))  # not a mean over photos

    def losses(self) -> Floats:
        sums: Floats = self.squares.sum(axis=1)
        return sums

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        return cls(np.concatenate([part.squares for part in parts]))

    def to_dict(self) -> dict[str, Any]:
        return {"cells": self.squares.shape[1], "squares": packed(self.squares)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], photos: int) -> Self:
        return cls(unpacked(data["squares"], np.float64, (photos, int(data["cells"]))))


class Toy:
    """How near the network's map stays to that of the clean photo; needs no annotations."""

    metric = "nearness of the map"
    annotated = False
    device = torch.device("cpu")

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)
        self._reference = self.model

    def with_model(self, model: nn.Module) -> Self:
        other = copy.copy(self)
        other.model = model
        return other

    def answers(self, rgb: Tensor) -> Seen:
        return Seen(*self.model(rgb))

    def divergence(self, answers: Seen, reference: Seen) -> Tensor:
        """Between unit normal distributions around the answers."""
        gaps = [(a - b).flatten(1) for a, b in zip(answers, reference, strict=True)]
        return 0.5 * torch.cat(gaps, 1).square().sum(1)

    def log_likelihood(self, answers: Seen, annotations: Annotations) -> Tensor:
        raise AssertionError("nobody has annotations here")

    def sampled(self, answers: Seen, rngs: Sequence[np.random.Generator]) -> Tensor:
        drawn = [
            torch.stack([torch.from_numpy(rng.normal(size=part.shape[1:])) for rng in rngs]).to(part)
            for part in answers
        ]
        gaps = [(part - (part.detach() + noise)).flatten(1) for part, noise in zip(answers, drawn, strict=True)]
        return -0.5 * torch.cat(gaps, 1).square().sum(1)

    def crop(self, annotation: Any, top: int, left: int, side: int, mirrored: bool) -> Any:
        return annotation

    def _map(self, model: nn.Module, images: Sequence[RGB]) -> npt.NDArray[np.float64]:
        with torch.no_grad():
            rgb = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
            seen: npt.NDArray[np.float64] = model(rgb).map.flatten(1).double().numpy()
            return seen

    def targets(self, originals: Sequence[RGB], annotations: Annotations) -> npt.NDArray[np.float64]:
        return self._map(self._reference, originals)

    def outcomes(self, decoded: Sequence[RGB], targets: npt.NDArray[np.float64]) -> Gaps:
        return Gaps((self._map(self.model, decoded) - targets) ** 2)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """Unlabelled crops of the embedded photographs."""
    embedded = ImageSet.embedded().thinned(24)
    fit, search_, test = (
        Photos(photos.images[:20], None, photos.names[:20]) for photos in (embedded.fit, embedded.search, embedded.test)
    )
    return ImageSet(fit, search_, test, source="toy")


def setting_of(images: ImageSet, task: Toy, folder: Path) -> Setting:
    return Setting(2, np.random.default_rng(0), images.fit, task, Codec(), folder / "statistics.npz", "closed-form")


def test_statistics_converge_to_the_fisher_information_of_both_answers(images: ImageSet) -> None:
    """For unit normal answers it is the sum of all squared derivatives, whatever was drawn."""
    task = Toy(ToyNet())
    few = images.fit.subset([0, 5])
    found = measure(few, task, Codec("4:4:4"), samples=100).costs.sum(axis=2)
    rgb = torch.from_numpy(np.stack(few.images)).permute(0, 3, 1, 2).float().requires_grad_(True)
    flat = torch.cat([part.flatten(1) for part in task.answers(rgb)], 1)
    exact = np.zeros((3, 64))
    for i in range(flat.shape[1]):
        (gradient,) = torch.autograd.grad(flat[:, i].sum(), rgb, retain_graph=True)
        for c, plane in enumerate(coefficient_gradient(gradient, "4:4:4")):
            exact[c] += plane.square().sum((0, 1, 2)).reshape(64).double().numpy()
    assert np.allclose(found, exact, rtol=0.35)
    assert abs(found.sum() / exact.sum() - 1) < 0.05


@pytest.fixture(scope="module")
def job(images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the main job: statistics, closed form and a genetic search around it, tested."""
    out = tmp_path_factory.mktemp("toy") / "run"
    optimize(images, Toy(ToyNet()), Codec(), Plan(budget=9), out, {"identity": {"data": images.fingerprint}})
    return out


def test_statistics_closed_form_and_search_run_on_it(job: Path) -> None:
    run = Run.open(job)
    assert len(run.found) >= 5
    assert np.isfinite(run.change.value)
    assert run.change.low < run.change.value < run.change.high
    assert run.metric == Toy.metric
    assert run.clean == 1.0


def test_the_run_resumes_from_its_archive(job: Path, images: ImageSet) -> None:
    before = (job / "archive.jsonl").read_bytes()
    summary = (job / "summary.json").read_bytes()
    optimize(images, Toy(ToyNet()), Codec(), Plan(budget=9), job, {"identity": {"data": images.fingerprint}})
    assert (job / "archive.jsonl").read_bytes() == before
    assert (job / "summary.json").read_bytes() == summary


def test_a_search_without_gradients_runs_on_it(images: ImageSet, tmp_path: Path) -> None:
    plan = Plan(method="genetic", budget=12)
    summary = optimize(images, Toy(ToyNet()), Codec(), plan, tmp_path, {"identity": {}})
    assert summary["evaluations"] == 12
    assert summary["front"]


def test_the_report_is_written(job: Path, images: ImageSet) -> None:
    html = page(Run.open(job), images)
    assert Toy.metric in html
    assert "right to wrong" not in html  # nothing is right or wrong here
    assert not Run.open(job).annotated
    assert "Uncompressed" not in html  # against themselves


def test_it_trains(images: ImageSet, tmp_path: Path) -> None:
    recipe = Recipe(steps=12, batch=8, every=6, network_rate=1e-4, loss="distillation")
    task = Toy(ToyNet())
    before = copy.deepcopy(task.model.state_dict())
    summary = learn(images, setting_of(images, task, tmp_path), Family(points=2), recipe, tmp_path, {"identity": {}})
    assert len(summary["points"]) == 2
    assert [v["step"] for v in summary["history"]] == [0, 6, 12]
    assert summary["metric"] == Toy.metric
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())


# ---- a coder that is no table ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Halved(Coder, kind="toy-halved"):
    """A JPEG of the photo at half its size, enlarged again when it is read."""

    quality: int

    @property
    def name(self) -> str:
        return f"half size, quality {self.quality}"

    def encode(self, photo: RGB) -> bytes:
        height, width = photo.shape[:2]
        small = Image.fromarray(photo).resize((width // 2, height // 2), Image.Resampling.BOX)
        return Codec().encode(np.asarray(small), QTables.standard(self.quality))

    def decode(self, data: bytes) -> RGB:
        small = Image.open(io.BytesIO(data))
        return np.asarray(small.resize((2 * small.width, 2 * small.height), Image.Resampling.BILINEAR).convert("RGB"))

    def to_dict(self) -> dict[str, Any]:
        return {"quality": self.quality}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(int(data["quality"]))


class Qualities:
    """A space whose points are qualities."""

    box = Box(np.array([5]), np.array([60]))

    def coder(self, point: npt.NDArray[np.int64]) -> Halved:
        return Halved(int(point[0]))


def test_another_coder_goes_through_evaluator_archive_resume_and_front(images: ImageSet, tmp_path: Path) -> None:
    photos, task = images.search, Toy(ToyNet())
    with Evaluator(photos, task) as evaluator, Archive(tmp_path / "archive.jsonl", {"identity": {}}) as archive:
        measured = Measuring(evaluator, "search", archive)
        assert search(Qualities(), Sweep(Qualities.box), measured, 6, "sweep") == 6
        score = measured(TableCoder(QTables.standard(20), Codec()), "standard")
        for i in (0, 7):
            file = Halved(5).encode(photos.images[i])
            assert measured(Halved(5), "sweep").photo_bytes[i] == len(file)
        assert isinstance(score.outcomes, Gaps)
        assert np.array_equal(score.outcomes.subset([3, 3]).losses(), score.outcomes.losses()[[3, 3]])

    again = Archive(tmp_path / "archive.jsonl")
    known = again.find("search", Halved(5))
    assert known is not None
    assert known.score.coder == Halved(5)
    assert next(r.score.coder for r in again).encode(photos.images[0]) == Halved(5).encode(photos.images[0])

    class Nobody:
        """An evaluator that must not be asked again."""

        def __call__(self, coder: Coder) -> None:
            raise AssertionError("evaluated twice")

    with Archive(tmp_path / "archive.jsonl", {"identity": {}}) as archive:
        search(Qualities(), Sweep(Qualities.box), Measuring(Nobody(), "search", archive), 6, "sweep")  # type: ignore[arg-type]
    records = again.records("search")
    front = pareto([r.score.bytes for r in records], [r.score.score for r in records])
    assert len(front) >= 3
    assert {type(records[i].score.coder) for i in front} <= {Halved, TableCoder}
