from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from qtable.jpeg.codec import RGB
from qtable.photos.files import DataError
from qtable.photos.sets import SPLITS, ImageSet

rng = np.random.default_rng(0)
ARRAYS = [rng.integers(0, 256, (10 + i % 3, 14, 3), dtype=np.uint8) for i in range(24)]


def found(images: ImageSet) -> dict[str, tuple[RGB, Any]]:
    """By name photo and annotation."""
    return {
        name: (image, None if photos.annotations is None else photos.annotations[i])
        for photos in (images[split] for split in SPLITS)
        for i, (name, image) in enumerate(zip(photos.names, photos.images, strict=True))
    }


class Torch(Dataset[Any]):
    """As torchvision's data sets are: items by index, an IndexError never."""

    def __init__(self, noise: bool = False) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return len(ARRAYS)

    def __getitem__(self, i: int) -> tuple[Image.Image, torch.Tensor]:
        array = rng.integers(0, 256, ARRAYS[i].shape, dtype=np.uint8) if self.noise else ARRAYS[i]
        return Image.fromarray(array), torch.tensor(i % 3)


def stream() -> Iterator[tuple[RGB, int]]:
    for i, array in enumerate(ARRAYS):
        yield array, i % 3


@pytest.mark.parametrize(
    ("photos", "annotations"),
    [
        ([(array, i % 3) for i, array in enumerate(ARRAYS)], None),
        (stream(), None),
        (Torch(), None),
        (ARRAYS, [i % 3 for i in range(24)]),
        ([Image.fromarray(array) for array in ARRAYS], np.arange(24) % 3),
        ([torch.from_numpy(array).permute(2, 0, 1) for array in ARRAYS], torch.arange(24) % 3),
    ],
    ids=["pairs", "iterator", "Dataset", "arrays", "Pillow", "tensors"],
)
def test_one_set_of_photos_in_many_forms(photos: Any, annotations: Any) -> None:
    images = ImageSet.of(photos, annotations, classes=("a", "b", "c"))
    assert images.fingerprint == ImageSet.of(list(stream())).fingerprint
    assert images.classes == ("a", "b", "c")
    for i, array in enumerate(ARRAYS):
        image, label = found(images)[f"photo {i}"]
        assert np.array_equal(image, array)
        assert label == i % 3


def test_a_photo_keeps_its_split_wherever_it_stands() -> None:
    images, turned = ImageSet.of(ARRAYS), ImageSet.of(ARRAYS[::-1])
    assert images.fit.annotations is None
    for split in SPLITS:
        names = {f"photo {23 - int(name.split()[1])}" for name in turned[split].names}
        assert names == set(images[split].names)


def test_photos_are_asked_for_again_and_must_be_the_same() -> None:
    images = ImageSet.of(Torch(), memory=0)
    assert np.array_equal(images.fit.images[0], found(images)[images.fit.names[0]][0])
    with pytest.raises(DataError, match=r"photo .*: another file than it was"):
        ImageSet.of(Torch(noise=True), memory=0).fit.images[0]


def test_grey_becomes_colour_and_annotations_may_be_anything() -> None:
    images = ImageSet.of([(array[..., 0], {"boxes": [i]}) for i, array in enumerate(ARRAYS)])
    for i, array in enumerate(ARRAYS):
        image, annotation = found(images)[f"photo {i}"]
        assert (image == array[..., :1]).all()
        assert annotation == {"boxes": [i]}
    assert {len(image) for image, _ in found(ImageSet.of(ARRAYS, resize=20)).values()} == {20}


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ([*ARRAYS, ARRAYS[0] / 255], "photo 24 is float64 [10, 14, 3]; photos are uint8 0..255 as decoded"),
        ([torch.rand(3, 9, 9)], "photo 0 is float32 [3, 9, 9]; photos are uint8"),
        ([ARRAYS[0].astype(np.int64)], "photo 0 is int64"),
        ([np.zeros((9, 9, 4), np.uint8)], "photo 0 has shape [9, 9, 4]; a photo is [h, w, 3]"),
        ([np.zeros((0, 9, 3), np.uint8)], "photo 0 has no pixels"),
        (
            [np.zeros((1, 70_000, 3), np.uint8)],
            "photo 0: too large: 70000 x 1 pixels; a JPEG file has at most 65500 a side",
        ),
        ([Image.new("F", (9, 9))], "photo 0 is a Pillow image of mode F"),
        ([Image.new("RGBA", (9, 9))], "photo 0 is a Pillow image of mode RGBA"),
        (["a.jpg"], "photo 0 is str"),
        ([(ARRAYS[0], 1, 2)], "photo 0 comes with 3 items"),
        (ARRAYS[0], "an array [10, 14, 3] is one photo"),
        ("photos", "photos are given as str"),
        ([], "0 readable photos leave fit, search, test empty"),
    ],
)
def test_what_is_no_photo_is_named(photos: Any, message: str) -> None:
    with pytest.raises(DataError) as error:
        ImageSet.of(photos)
    assert message in str(error.value)


def test_annotations_must_match() -> None:
    with pytest.raises(DataError, match="24 photos and 3 annotations"):
        ImageSet.of(ARRAYS, [1, 2, 3])
    with pytest.raises(DataError, match="photo 0 has an annotation already"):
        ImageSet.of(list(stream()), range(24))
