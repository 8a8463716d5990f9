"""Photos that are opened when they are looked at, and the cache of their pixels."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qtable.jpeg.codec import RGB
from qtable.photos.files import DataError, LocalFile
from qtable.photos.pixels import Cache, Known, Pixels
from qtable.photos.sets import SPLITS, ImageSet


@dataclass
class Counted:
    """A file that counts how often it was read."""

    file: LocalFile
    reads: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.file.name

    def read(self) -> bytes:
        self.reads.append(self.name)
        return self.file.read()


def image(value: int, height: int = 10, width: int = 10) -> RGB:
    return np.full((height, width, 3), value, np.uint8)


def written(folder: Path, number: int) -> tuple[Known, Counted]:
    path = folder / f"{number}.png"
    Image.fromarray(image(number)).save(path)
    file = Counted(LocalFile(path))
    return Known(file, hashlib.sha256(path.read_bytes()).digest(), (10, 10)), file


def folder_of_classes(root: Path, photos: int = 30) -> Path:
    rng = np.random.default_rng(0)
    for name in ("ants", "bees"):
        (root / name).mkdir(parents=True)
        for i in range(photos):
            pixels = rng.integers(0, 256, (12, 20 + i % 2, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_a_cache_never_holds_more_than_its_bound() -> None:
    cache, kept = Cache(1000), []
    for i in range(10):
        cache.put("a", bytes([i]), image(i))
    kept = [i for i in range(10) if cache.get("a", bytes([i])) is not None]
    assert kept == [0, 1, 2]  # 300 bytes each


def test_photos_that_are_looked_at_in_turn_do_not_chase_each_other_out() -> None:
    """The least recently used would always be the next one wanted: every look would miss."""
    cache = Cache(1500)
    hits = 0
    for _ in range(10):
        for i in range(10):
            if cache.get("a", bytes([i])) is None:
                cache.put("a", bytes([i]), image(i))
            else:
                hits += 1
    assert hits == 9 * 5


def test_the_group_that_was_asked_longest_ago_makes_way() -> None:
    cache = Cache(900)
    cache.put("a", b"0", image(0))
    cache.put("b", b"0", image(0))
    cache.put("c", b"0", image(0))
    cache.get("a", b"0")
    cache.put("d", b"0", image(1))
    assert [cache.get(group, b"0") is not None for group in "abcd"] == [True, False, True, True]
    cache.put("e", b"0", image(1), makes_way=False)
    assert cache.get("e", b"0") is None


def test_a_photo_is_read_once_while_it_is_kept_and_each_time_where_there_is_no_room(tmp_path: Path) -> None:
    files = [written(tmp_path, i) for i in range(4)]
    pixels = Pixels(tuple(known for known, _ in files), None, Cache(700), "fit")
    for _ in range(3):
        assert [int(photo[0, 0, 0]) for photo in pixels] == [0, 1, 2, 3]
    assert [len(file.reads) for _, file in files] == [1, 1, 3, 3]


def test_a_photo_that_is_another_by_now_ends_the_run_in_one_line(tmp_path: Path) -> None:
    known, _ = written(tmp_path, 0)
    pixels = Pixels((known,), None, Cache(0), "fit")
    assert pixels[0].shape == (10, 10, 3)
    Image.fromarray(image(9)).save(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"^/.*0\.png: another file than it was when this run began$"):
        pixels[0]
    (tmp_path / "0.png").unlink()
    with pytest.raises(DataError, match=r"^/.*0\.png: .*No such file"):
        pixels[0]


def test_other_processes_get_names_and_not_pixels(tmp_path: Path) -> None:
    images = ImageSet.open(folder_of_classes(tmp_path / "d"))
    sent = pickle.dumps(images.search)
    assert len(sent) < 400 * len(images.search)
    again = pickle.loads(sent)
    assert all(np.array_equal(a, b) for a, b in zip(again.images, images.search.images, strict=True))


def test_how_many_pixels_are_kept_changes_nothing_else(tmp_path: Path) -> None:
    root = folder_of_classes(tmp_path / "d")
    all_kept, none = ImageSet.open(root), ImageSet.open(root, memory=0)
    assert all_kept.fingerprint == none.fingerprint
    for split in SPLITS:
        assert all_kept[split].sizes == none[split].sizes == [photo.shape[:2] for photo in none[split].images]
        assert all(np.array_equal(a, b) for a, b in zip(all_kept[split].images, none[split].images, strict=True))
        few = none[split].subset([1, 0])
        assert few.names == none[split].names[1::-1]
        assert np.array_equal(few.images[0], none[split].images[1])
    assert none.fingerprint != ImageSet.open(root, resize=9).fingerprint


def test_slices_are_opened_as_late(tmp_path: Path) -> None:
    files = [written(tmp_path, i) for i in range(4)]
    pixels = Pixels(tuple(known for known, _ in files), None, Cache(0), "fit")
    few = pixels[1:3]
    assert not any(file.reads for _, file in files)
    assert [int(photo[0, 0, 0]) for photo in few] == [1, 2]
