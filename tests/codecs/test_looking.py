"""Weights of a photo against closed forms, and against networks whose gradients are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qtable.codecs.looking import Look, Squares, Usual, seen_blocks, squared_gradients, weights_of
from qtable.jpeg.codec import SUBSAMPLINGS, Codec, Subsampling
from qtable.jpeg.coefficients import block_counts
from qtable.jpeg.linear import coefficient_gradient
from qtable.jpeg.tables import QTables
from qtable.tasks.classification import Classifier
from qtable.tasks.gradients import generators, gradient_of, stacked
from qtable.tasks.preprocess import Preprocess
from tests.codecs.networks import SIZES, Corner, Small, photos, small, usual

every_subsampling = pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
every_size = pytest.mark.parametrize(("height", "width"), SIZES)


def squares_like(height: int, width: int, subsampling: Subsampling, of: Usual, rng: np.random.Generator) -> Squares:
    """Squared gradients that vary from place to place by a factor of e or so."""
    y, chroma = block_counts(height, width, subsampling)
    one, two, three = (
        (of.feeling[c].reshape(8, 8) * rng.gamma(1, 1, (*shape, 8, 8))).astype(np.float32)
        for c, shape in enumerate((y, chroma, chroma))
    )
    return one, two, three


def usual_everywhere(height: int, width: int, subsampling: Subsampling, of: Usual) -> Squares:
    y, chroma = block_counts(height, width, subsampling)
    one, two, three = (
        np.broadcast_to(of.feeling[c].reshape(8, 8).astype(np.float32), (*shape, 8, 8))
        for c, shape in enumerate((y, chroma, chroma))
    )
    return one, two, three


# ---- weights --------------------------------------------------------------------------------------------------


@every_subsampling
@every_size
@pytest.mark.parametrize("evening", [0.0, 0.85])
def test_what_is_usual_everywhere_has_the_usual_weights(
    height: int, width: int, subsampling: Subsampling, evening: float
) -> None:
    ordinary = usual()
    squares = usual_everywhere(height, width, subsampling, ordinary)
    found = weights_of(squares, ordinary, Look(evening=evening))
    for c, plane in enumerate(found):
        assert plane.dtype == np.float32
        expected = np.broadcast_to(ordinary.feeling[c].reshape(8, 8) / ordinary.total.sum(), plane.shape)
        np.testing.assert_allclose(plane, expected, rtol=1e-5)


@every_subsampling
@every_size
def test_blocks_that_are_not_seen_weigh_nothing(height: int, width: int, subsampling: Subsampling) -> None:
    rng, ordinary = np.random.default_rng(0), usual()
    squares = squares_like(height, width, subsampling, ordinary, rng)
    seen = [rng.random(plane.shape[:2]) < 0.6 for plane in squares]
    for plane, mask in zip(weights_of(squares, ordinary, Look(), seen), seen, strict=True):
        assert (plane[~mask] == 0).all()
        assert (plane[mask] > 0).all() or not mask.any()


def test_blocks_that_are_not_seen_do_not_speak_for_their_neighbours() -> None:
    """What is usual where it is seen has the usual weights, whatever lies beside it."""
    ordinary = usual()
    squares = usual_everywhere(131, 93, "4:4:4", ordinary)
    seen = [np.arange(12) < np.full((17, 1), 5)] * 3
    loud = [np.where(mask[..., None, None], plane, 9 * plane) for plane, mask in zip(squares, seen, strict=True)]
    found = weights_of((loud[0], loud[1], loud[2]), ordinary, Look(), seen)
    for c, plane in enumerate(found):
        expected = np.broadcast_to(ordinary.feeling[c].reshape(8, 8) / ordinary.total.sum(), (17, 5, 8, 8))
        np.testing.assert_allclose(plane[:, :5], expected, rtol=1e-5)


@pytest.mark.parametrize("evening", [0.0, 0.5, 0.85, 1.0])
@pytest.mark.parametrize("some", [False, True])
def test_feeling_twice_as_much_everywhere_is_evened_out(evening: float, some: bool) -> None:
    rng, ordinary = np.random.default_rng(1), usual()
    squares = squares_like(131, 93, "4:2:0", ordinary, rng)
    seen = [rng.random(plane.shape[:2]) < 0.6 for plane in squares] if some else None
    look = Look(evening=evening)
    before = weights_of(squares, ordinary, look, seen)
    y, cb, cr = (2 * plane for plane in squares)
    after = weights_of((y, cb, cr), ordinary, look, seen)
    for one, two in zip(before, after, strict=True):
        np.testing.assert_allclose(two, one * 2 ** (1 - evening), rtol=1e-5)


def test_evened_out_wholly_each_photo_costs_the_same() -> None:
    """At the usual error, in the mean over the blocks that count: what one usual block costs of the three."""
    rng, ordinary = np.random.default_rng(2), usual()
    squares = squares_like(131, 93, "4:2:2", ordinary, rng)
    seen = [rng.random(plane.shape[:2]) < 0.6 for plane in squares]
    found = weights_of(squares, ordinary, Look(evening=1.0), seen)
    cost = sum(float((w.reshape(-1, 64) @ ordinary.error[c]).sum()) for c, w in enumerate(found))
    expected = sum(float(ordinary.total[c] * mask.sum()) for c, mask in enumerate(seen))
    assert cost == pytest.approx(expected / ordinary.total.sum(), rel=1e-5)


def test_mixed_wholly_weights_are_the_squared_gradients_and_without_mixing_means_times_saliency() -> None:
    rng, ordinary = np.random.default_rng(3), usual()
    squares = squares_like(33, 50, "4:2:0", ordinary, rng)
    for mixed, plane in zip(weights_of(squares, ordinary, Look(mix=1.0, evening=0.0)), squares, strict=True):
        np.testing.assert_allclose(mixed, plane / ordinary.total.sum(), rtol=1e-5)
    found = weights_of(squares, ordinary, Look(mix=0.0, evening=0.0, blur=0.0))
    felt = [(plane.reshape(*plane.shape[:2], 64) @ ordinary.error[c]) for c, plane in enumerate(squares)]
    for i, j in np.ndindex(felt[0].shape):  # 4:2:0: a chroma block lies over four of luma
        chroma = [felt[c][i // 2, j // 2] / 4 for c in (1, 2)]
        expected = (felt[0][i, j] + sum(chroma)) / (ordinary.total[0] + ordinary.total[1:].sum() / 4)
        ratio = found[0][i, j].reshape(64) * ordinary.total.sum() / ordinary.feeling[0]
        np.testing.assert_allclose(ratio, expected, rtol=1e-4)


def test_a_network_that_feels_nothing_has_weights_of_nothing() -> None:
    ordinary = usual()
    squares = usual_everywhere(33, 50, "4:2:0", Usual(0 * ordinary.feeling, ordinary.error))
    for of in (ordinary, Usual(0 * ordinary.feeling, ordinary.error)):
        assert all((plane == 0).all() for plane in weights_of(squares, of, Look()))


@pytest.mark.parametrize(
    "wrong",
    [{"quality": 0}, {"draws": 0}, {"mix": 1.1}, {"mix": float("nan")}, {"evening": -0.1}, {"blur": float("inf")}],
)
def test_looks_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed: "):
        Look(**wrong)


# ---- planted: a network that looks at one corner alone ------------------------------------------------------------


def expected_blocks(height: int, width: int, subsampling: Subsampling, top: int, left: int, side: int) -> list[Any]:
    """The blocks that hold the square, or a chroma sample from which up-sampling reaches into it."""
    y, chroma = block_counts(height, width, subsampling)
    masks = [np.zeros(shape, bool) for shape in (y, chroma, chroma)]
    masks[0][top // 8 : (top + side - 1) // 8 + 1, left // 8 : (left + side - 1) // 8 + 1] = True

    def reach(start: int, factor: int, pixels: int) -> slice:
        if factor == 1:
            return slice(start // 8, (start + side - 1) // 8 + 1)
        samples = -(-pixels // 2)  # a pixel is 3/4 of its sample and 1/4 of the next one on its side
        first, last = max(0, (start - 1) // 2), min(samples - 1, (start + side) // 2)
        return slice(first // 8, last // 8 + 1)

    factors = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}[subsampling]
    for mask in masks[1:]:
        mask[reach(top, factors[0], height), reach(left, factors[1], width)] = True
    return masks


@every_subsampling
@pytest.mark.parametrize(
    ("top", "left", "side"), [(0, 0, 8), (40, 48, 8), (33, 34, 6), (15, 15, 2), (16, 16, 16), (61, 65, 5)]
)
def test_blocks_that_a_network_can_see(subsampling: Subsampling, top: int, left: int, side: int) -> None:
    task = Classifier(Corner(top, left, side), "agreement")
    found = seen_blocks(task, 66, 70, subsampling)
    for mask, expected in zip(found, expected_blocks(66, 70, subsampling, top, left, side), strict=True):
        assert np.array_equal(mask, expected)


@every_subsampling
def test_all_weight_lies_where_the_network_looks(subsampling: Subsampling) -> None:
    codec, task = Codec(subsampling), Classifier(Corner(33, 34, 6), "agreement")
    image = photos(66, 70, 1)[0]
    (squares,) = squared_gradients(task, [image], codec, Look())
    masks = expected_blocks(66, 70, subsampling, 33, 34, 6)
    for plane, mask in zip(squares, masks, strict=True):
        assert ((plane != 0).any((-1, -2)) == mask).all()
    found = weights_of(squares, usual(), Look(), seen_blocks(task, 66, 70, subsampling))
    for plane, mask in zip(found, masks, strict=True):
        assert ((plane != 0).any((-1, -2)) == mask).all()


def test_blocks_outside_a_central_crop_are_not_seen() -> None:
    task = Classifier(nn.Sequential(Preprocess(size=32, resize=None), Small()), "agreement")
    found = seen_blocks(task, 80, 96, "4:4:4")
    expected = np.zeros((10, 12), bool)
    expected[3:7, 4:8] = True  # of 80 x 96 the crop of 32 begins at 24, 32
    assert all(np.array_equal(mask, expected) for mask in found)
    for mask, masks in zip(
        seen_blocks(task, 80, 96, "4:2:0"), expected_blocks(80, 96, "4:2:0", 24, 32, 32), strict=True
    ):
        assert np.array_equal(mask, masks)


# ---- squared gradients ----------------------------------------------------------------------------------------


def test_draws_depend_on_the_photo_and_the_seed_alone() -> None:
    images, look = photos(33, 50, 4), Look(draws=2)
    found = squared_gradients(small(), images, Codec(), look)
    again = squared_gradients(small(), images, Codec(), look)
    turned = squared_gradients(small(), images[::-1], Codec(), look)[::-1]
    other = squared_gradients(small(), images, Codec(), replace(look, seed=1))
    for i, image in enumerate(images):
        (alone,) = squared_gradients(small(), [image], Codec(), look)
        for c in range(3):
            assert np.array_equal(found[i][c], again[i][c])
            scale = float(found[i][c].max())
            np.testing.assert_allclose(alone[c], found[i][c], atol=1e-4 * scale)
            np.testing.assert_allclose(turned[i][c], found[i][c], atol=1e-4 * scale)
            assert np.abs(other[i][c] - found[i][c]).max() > 0.01 * scale
    first, second = (generators([image], 0)[0].integers(0, 1 << 30) for image in images[:2])
    assert first != second


def test_squared_gradients_do_not_depend_on_labels() -> None:
    class Blind(Classifier):
        def log_likelihood(self, answers: Any, annotations: Any) -> Tensor:
            raise AssertionError("labels")

        def targets(self, originals: Any, annotations: Any) -> Any:
            raise AssertionError("labels")

    image = photos(16, 16, 2)[0]
    (found,) = squared_gradients(Blind(Small(), "top-1"), [image], Codec(), Look())
    (same,) = squared_gradients(small(), [image], Codec(), Look())
    assert all(np.array_equal(a, b) for a, b in zip(found, same, strict=True))


def test_many_draws_come_to_the_fisher_informations_diagonal() -> None:
    """sum over classes of p (d log p / d rgb)^2, each class's gradient by itself."""
    torch.manual_seed(0)
    task = Classifier(Small(3, classes=4), "agreement")
    rgb = (torch.rand(1, 3, 6, 5) * 255).requires_grad_(True)
    log_p = torch.log_softmax(task.answers(rgb), dim=1)[0]
    gradients = [torch.autograd.grad(each, rgb, retain_graph=True)[0] for each in log_p]
    exact = sum(p * g.square() for p, g in zip(log_p.exp().detach(), gradients, strict=True))
    assert isinstance(exact, Tensor)
    answers, rngs, total = task.answers(rgb), generators([np.zeros((6, 5, 3), np.uint8)], 0), torch.zeros_like(rgb)
    draws = 4000
    for _ in range(draws):
        (gradient,) = torch.autograd.grad(task.sampled(answers, rngs).sum(), rgb, retain_graph=True)
        total += gradient.square() / draws
    assert float((total - exact).abs().max()) < 0.06 * float(exact.max())
    assert float(total.sum()) == pytest.approx(float(exact.sum()), rel=0.03)


def test_gradients_are_those_where_the_operating_point_leaves_the_photo() -> None:
    image, codec, look = photos(33, 50, 2)[0], Codec(), Look(quality=5)
    (found,) = squared_gradients(small(), [image], codec, look)
    seen = stacked([codec.decode(codec.encode(image, QTables.standard(5)))]).requires_grad_(True)
    objective = small().sampled(small().answers(seen), generators([image], 0)).sum()
    gradient = coefficient_gradient(gradient_of(objective, seen), codec.subsampling)
    for plane, expected in zip(found, gradient, strict=True):
        np.testing.assert_allclose(plane, expected[0].square().numpy(), rtol=1e-6)
