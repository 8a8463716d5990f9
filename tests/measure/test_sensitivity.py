from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from qtable.jpeg.codec import SUBSAMPLINGS, Codec, Subsampling
from qtable.jpeg.dct import coefficients
from qtable.jpeg.frame import Frame
from qtable.jpeg.linear import coefficient_gradient, relaxed
from qtable.jpeg.tables import QTables
from qtable.measure.sensitivity import BINS, RESOLUTION, Sensitivity, measure
from qtable.photos.sets import Photos
from qtable.tasks.base import ModelError
from qtable.tasks.classification import Classifier
from tests.jpeg.planted import Planted


class Nudge:
    """In place of rounding: levels moved by seeded noise."""

    exact = False

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, z: Tensor) -> Tensor:
        return z + self.strength * torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)


def squares(u: int, v: int) -> Planted:
    return Planted(u, v, scale=190, squares=True)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_coefficient_gradient_is_the_transpose_of_the_ideal_decoder(subsampling: Subsampling) -> None:
    """<g, J e> = <J^T g, e> for a step e of the coefficients, against the layer without any rounding."""
    torch.manual_seed(0)
    rgb = torch.rand(1, 3, 21, 35, dtype=torch.float64) * 60 + 100
    frame, steps = Frame(21, 35, subsampling), torch.ones(3, 8, 8, dtype=torch.float64)
    plain, before = relaxed(rgb, steps, frame, Nudge(0.0))
    nudged, after = relaxed(rgb, steps, frame, Nudge(0.01))
    g = torch.randn_like(plain)
    at_coefficients = coefficient_gradient(g, subsampling)
    expected = (g * (nudged - plain)).sum()
    got = sum(((b - a) * at).sum() for a, b, at in zip(before, after, at_coefficients, strict=True))
    assert float(got) == pytest.approx(float(expected), rel=1e-6)


def test_only_the_planted_frequency_costs(crops: Photos) -> None:
    statistics = measure(crops, Classifier(squares(2, 3)), Codec("4:4:4"))
    per_frequency = statistics.costs.sum(axis=2)
    assert per_frequency[0].argmax() == 8 * 2 + 3
    others = np.delete(per_frequency[0], 8 * 2 + 3)
    assert per_frequency[0].max() > 1e6 * others.max()
    assert per_frequency[0].max() > 1e3 * per_frequency[1:].max()


def test_levels_count_every_coefficient(crops: Photos) -> None:
    statistics = measure(crops, Classifier(squares(0, 1)), Codec("4:2:0"))
    batch = [coefficients(torch.from_numpy(p.copy()).permute(2, 0, 1)[None], "4:2:0") for p in crops.images]
    for component in range(3):
        planes = [planes[component][0].reshape(-1, 64) for planes in batch]
        assert (statistics.levels[component].sum(axis=1) == sum(map(len, planes))).all()
        second = torch.cat(planes)[:, 9].abs().mul(RESOLUTION).long().bincount()
        assert np.array_equal(statistics.levels[component, 9][: len(second)], second.double().numpy())
        steps = torch.cat([plane[:, 0].diff(prepend=torch.zeros(1)) for plane in planes])
        dc = steps.abs().mul(RESOLUTION).round().long().clamp(max=BINS - 1).bincount()
        assert np.array_equal(statistics.differences[component][: len(dc)], dc.double().numpy())


def test_statistics_of_shards_add_up_in_any_order(crops: Photos) -> None:
    task, codec = Classifier(squares(1, 1)), Codec("4:2:0")
    whole = measure(crops, task, codec, normalize=0.5)
    shards = [measure(crops.subset(range(i, 24, 3)), task, codec, normalize=0.5) for i in (2, 0, 1)]
    total = sum(shards, Sensitivity.zero())
    assert total.photos == whole.photos == 24
    assert np.array_equal(total.levels, whole.levels)
    assert np.array_equal(total.differences, whole.differences)
    np.testing.assert_allclose(total.costs, whole.costs, rtol=1e-6, atol=1e-12)


def test_many_samples_approach_the_exact_fisher_information(crops: Photos) -> None:
    """Two classes: sum_y p_y g_y^2 in closed form. For logits +-z, grad log p_y = (1 - p_y) 2 s_y grad z."""
    few = crops.subset(range(4))
    task, codec = Classifier(squares(0, 2)), Codec("4:4:4")
    sampled = measure(few, task, codec, samples=400).costs[0, 2].sum()
    exact = 0.0
    for image in few.images:
        rgb = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float().requires_grad_(True)
        z = task.answers(rgb)[0, 0]
        (gradient,) = torch.autograd.grad(z, rgb)
        p = torch.sigmoid(2 * z.detach())
        norm = coefficient_gradient(gradient, "4:4:4").y.reshape(-1, 64)[:, 2].square().sum()
        exact += float(4 * p * (1 - p) * norm)
    assert sampled == pytest.approx(exact, rel=0.15)


def test_annotations_and_distillation(crops: Photos) -> None:
    task, codec = Classifier(squares(0, 2)), Codec("4:4:4")
    for statistics in (
        measure(crops, task, codec, target="annotations"),
        measure(crops, task, codec, target="distillation", at=QTables.standard(30)),
    ):
        assert statistics.costs[0].sum(axis=1).argmax() == 2
    with pytest.raises(ValueError, match="pass the tables"):
        measure(crops, task, codec, target="distillation")
    with pytest.raises(ValueError, match="fisher, annotations, distillation"):
        measure(crops, task, codec, target="hessian")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 or more"):
        measure(crops, task, codec, samples=0)


def test_save_and_load(tmp_path: Path, crops: Photos) -> None:
    statistics = measure(crops.subset([0, 1]), Classifier(squares(0, 1)), Codec())
    statistics.save(tmp_path / "s.npz")
    again = Sensitivity.load(tmp_path / "s.npz")
    assert np.array_equal(again.costs, statistics.costs)
    assert np.array_equal(again.levels, statistics.levels)
    assert np.array_equal(again.differences, statistics.differences)
    assert again.photos == 2
    (tmp_path / "bad.npz").write_bytes(b"not an archive")
    with pytest.raises(ValueError, match=r"bad\.npz"):
        Sensitivity.load(tmp_path / "bad.npz")


class NoGradient(torch.nn.Module):
    def forward(self, rgb: Tensor) -> Tensor:
        return rgb.detach().mean(dim=(2, 3))


class BrokenGradient(torch.nn.Module):
    def forward(self, rgb: Tensor) -> Tensor:
        return (rgb.mean(dim=(2, 3)) * 0).sqrt()


@pytest.mark.parametrize(("model", "message"), [(NoGradient(), "no gradients"), (BrokenGradient(), "NaN")])
def test_models_without_usable_gradients_are_refused(crops: Photos, model: torch.nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=f"{message}.*sorted-random"):
        measure(crops, Classifier(model), Codec())
