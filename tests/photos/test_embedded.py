"""The embedded task: honest splits, balanced classes, and a network that JPEG really hurts."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import pytest
import torch

from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.tables import QTables
from qtable.photos import embedded
from qtable.photos.embedded import Crops, Split
from qtable.tasks.embedded import WEIGHTS, Net, network

SPLITS: tuple[Split, ...] = get_args(Split)


@pytest.fixture(scope="module")
def test_crops() -> Crops:
    return embedded.crops("test")


@pytest.fixture(scope="module")
def net() -> Net:
    return network()


def accuracy(net: Net, images: list[RGB], labels: list[int]) -> float:
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        answers = torch.cat([net(part).argmax(1) for part in torch.tensor_split(pixels, 4)])
    return (answers == torch.tensor(labels)).float().mean().item()


def covered(split: Split, side: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """How many crops of one class use each pixel of a photograph."""
    count = np.zeros((512, 512), dtype=np.int64)
    for place in embedded.places(split, side):
        assert min(place.top, place.left) >= 0
        count[place.top : place.top + place.side, place.left : place.left + place.side] += 1
    return count


def test_no_pixel_is_in_two_splits() -> None:
    used = [np.any([covered(split, side) > 0 for side in embedded.SIDES], axis=0) for split in SPLITS]
    assert all(mask.any() for mask in used)
    assert np.sum(used, axis=0).max() == 1


def test_the_places_are_inside_every_photograph() -> None:
    side = embedded.TILE * len(embedded.TILES)
    assert {len(line) for line in embedded.TILES} == {len(embedded.TILES)}
    assert all(min(photo.shape[:2]) >= side for photo in embedded.photographs().values())


@pytest.mark.parametrize("split", ["search", "test"])
def test_no_two_crops_of_a_class_share_a_pixel(split: Split) -> None:
    assert all(covered(split, side).max() == 1 for side in embedded.SIDES)


@pytest.mark.parametrize(("split", "least"), [("fit", 1000), ("search", 400), ("test", 500)])
def test_splits_are_balanced_named_and_prepared(split: Split, least: int) -> None:
    data = embedded.crops(split)
    assert len(data.images) == len(data.labels) == len(set(data.names)) >= least
    assert len(set(Counter(data.labels).values())) == 1
    assert set(data.labels) == set(range(len(data.classes))) == set(range(len(embedded.views())))
    pixels = np.stack(data.images)
    assert pixels.dtype == np.uint8
    assert pixels.shape[1:] == (embedded.SIZE, embedded.SIZE, 3)
    assert len({image.tobytes() for image in data.images}) == len(data.images)
    # Mean colour does not give the answer away; clipping moves it where little but one bright or dark spot is seen.
    off = np.abs(pixels.mean(axis=(1, 2)) - embedded.MEAN).max(axis=1)
    assert np.median(off) < 1
    assert np.mean(off < 8) > 0.99


def test_crops_are_always_the_same(test_crops: Crops) -> None:
    again = embedded.crops("test")
    assert again.names == test_crops.names
    assert again.labels == test_crops.labels
    assert all(np.array_equal(a, b) for a, b in zip(again.images, test_crops.images, strict=True))


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="fit, search, test"):
        embedded.crops("train")  # type: ignore[arg-type]


def test_jpeg_hurts_and_chroma_matters(net: Net, test_crops: Crops) -> None:
    codec = Codec()

    def score(tables: QTables) -> float:
        files = [codec.encode(image, tables) for image in test_crops.images[::2]]
        return accuracy(net, [codec.decode(file) for file in files], test_crops.labels[::2])

    clean = accuracy(net, test_crops.images, test_crops.labels)
    at_50, at_5 = score(QTables.standard(50)), score(QTables.standard(5))
    luma_only = QTables(np.stack([QTables.standard(50).values[0], np.full((8, 8), 255)]))
    assert clean > 0.93
    assert clean - 0.08 < at_50 <= clean + 0.01
    assert at_5 < at_50 - 0.20
    assert score(luma_only) < at_50 - 0.10


def test_the_network_is_small_and_gives_gradients_to_the_pixels(net: Net, test_crops: Crops) -> None:
    assert WEIGHTS.stat().st_size < 500_000
    assert not net.training
    pixels = torch.from_numpy(test_crops.images[0].copy()).permute(2, 0, 1)[None].float().requires_grad_()
    logits = net(pixels)
    assert logits.shape == (1, len(test_crops.classes))
    (gradient,) = torch.autograd.grad(logits[0, test_crops.labels[0]], pixels)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
