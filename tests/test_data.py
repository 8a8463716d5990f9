from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qtable.codec import Codec
from qtable.data import SPLITS, DataError, ImageSet, Photos, open_photo, split_of
from qtable.tables import QTables


def write_folder(root: Path, per_class: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for name in ("ants", "bees"):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 256, (20 + i % 3, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_class_folders_become_labels_and_disjoint_splits(tmp_path: Path) -> None:
    images = ImageSet.open(write_folder(tmp_path / "d"))
    assert images.classes == ("ants", "bees")
    names = [set(images[split].names) for split in SPLITS]
    assert sum(map(len, names)) == 24 == len(set.union(*names))
    for split in SPLITS:
        for name, label in zip(images[split].names, images[split].labels, strict=True):
            assert Path(name).parent.name == images.classes[label]


def test_a_photo_keeps_its_split_when_others_come(tmp_path: Path) -> None:
    few = ImageSet.open(write_folder(tmp_path / "d"))
    Image.new("RGB", (9, 9), (1, 2, 3)).save(tmp_path / "d" / "ants" / "new.png")
    more = ImageSet.open(tmp_path / "d")
    for split in SPLITS:
        assert set(few[split].names) <= set(more[split].names)
    assert few.fingerprint != more.fingerprint
    assert few.fingerprint == ImageSet.open(write_folder(tmp_path / "same")).fingerprint


def test_shares_of_the_splits() -> None:
    counts = dict.fromkeys(SPLITS, 0)
    rng = np.random.default_rng(0)
    for _ in range(10_000):
        counts[split_of(rng.bytes(32))] += 1
    assert [round(counts[name] / 10_000, 1) for name in SPLITS] == [0.3, 0.3, 0.4]


def test_csv_with_names_and_with_indices(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    rows = [f"{p.relative_to(root)},{p.parent.name}" for p in sorted(root.rglob("*.png"))]
    (root / "by_name.csv").write_text("path,label\n" + "\n".join(rows))
    by_name = ImageSet.open(root / "by_name.csv")
    assert by_name.classes == ("ants", "bees")
    (root / "labels.csv").write_text(
        "path,label,note\n" + "\n".join(row.replace(",ants", ",7,x").replace(",bees", ",450,y") for row in rows)
    )
    by_index = ImageSet.open(root)  # a folder that holds labels.csv
    assert {int(x) for split in SPLITS for x in by_index[split].labels} == {7, 450}


def test_damaged_files_are_skipped_counted_and_listed(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    good = Codec().encode(np.full((40, 40, 3), 90, np.uint8), QTables.standard())
    (root / "ants" / "truncated.jpg").write_bytes(good[: len(good) // 2])
    (root / "ants" / "empty.jpg").write_bytes(b"")
    (root / "bees" / "text.jpg").write_text("this is no photo")
    (root / "bees" / "fine.jpg").write_bytes(good)
    images = ImageSet.open(root)
    assert {Path(name).name for name, _ in images.skipped} == {"truncated.jpg", "empty.jpg", "text.jpg"}
    assert images.jpeg_sources == 1
    assert sum(len(images[split]) for split in SPLITS) == 25


@pytest.mark.parametrize(
    "damage", ["nothing", "empty folder", "one class", "no photos", "all broken", "bad csv", "one label"]
)
def test_unusable_data_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    root = tmp_path / "d"
    if damage != "nothing":
        root.mkdir()
    if damage in ("one class", "all broken"):
        for name in ("a", "b") if damage == "all broken" else ("a",):
            (root / name).mkdir()
            (root / name / "1.jpg").write_text("broken")
    if damage == "no photos":
        (root / "a").mkdir()
    if damage == "bad csv":
        (root / "labels.csv").write_text("file;class\n1;2\n")
    if damage == "one label":
        (root / "labels.csv").write_text("path,label\n1.png,2\n3.png,2\n")
    with pytest.raises(DataError) as error:
        ImageSet.open(root)
    assert "\n" not in str(error.value)
    assert str(root) in str(error.value)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_modes_become_rgb() -> None:
    grey = Image.new("L", (5, 4), 77)
    assert (open_photo(encoded(grey, "PNG"))[0] == 77).all()
    assert open_photo(encoded(grey, "PNG"))[0].shape == (4, 5, 3)
    deep = Image.fromarray(np.full((4, 5), 77 * 257, np.uint16))
    assert (open_photo(encoded(deep, "PNG"))[0] == 77).all()
    cmyk = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    red, is_jpeg = open_photo(cmyk)
    assert is_jpeg
    assert (red[..., 0] > 240).all()
    assert (red[..., 1:] < 15).all()
    assert (open_photo(encoded(Image.new("P", (3, 3), 0).convert("RGBA"), "PNG"))[0].shape) == (3, 3, 3)


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (8, 4), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    assert open_photo(encoded(image, "PNG", exif=exif))[0].shape == (8, 4, 3)


def test_resize_sets_the_shorter_side() -> None:
    data = encoded(Image.new("RGB", (100, 50)), "PNG")
    assert open_photo(data, resize=20)[0].shape == (20, 40, 3)


def test_limit_keeps_a_stable_choice(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", 30)
    few, more = ImageSet.open(root, limit=30), ImageSet.open(root, limit=50)
    assert sum(len(few[split]) for split in SPLITS) == 30
    assert all(set(few[split].names) <= set(more[split].names) for split in SPLITS)


def test_batches_hold_every_photo_once_and_one_size() -> None:
    sizes = [(8, 8), (9, 8), (8, 8)] * 40
    photos = Photos(tuple(np.zeros((*s, 3), np.uint8) for s in sizes), np.zeros(120, np.int64), ("x",) * 120)
    batches = photos.batches(most_photos=32, most_pixels=64 * 20)
    assert sorted(np.concatenate(batches).tolist()) == list(range(120))
    assert all(len({sizes[i] for i in batch}) == 1 and len(batch) <= 20 for batch in batches)


def test_numeric_labels_keep_their_value_or_are_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    photos = [str(p.relative_to(root)) for p in sorted(root.rglob("*.png"))]
    labels = ["2.0", "10.0", "0"] * 8
    (root / "labels.csv").write_text("path,label\n" + "\n".join(map(",".join, zip(photos, labels, strict=True))))
    images = ImageSet.open(root)
    found = {name: label for s in SPLITS for name, label in zip(images[s].names, images[s].labels, strict=True)}
    assert all(found[str(root / photo)] == float(label) for photo, label in zip(photos, labels, strict=True))
    for bad in ("-1", "1.5", "nan"):
        (root / "labels.csv").write_text(f"path,label\n{photos[0]},0\n{photos[1]},{bad}\n")
        with pytest.raises(DataError, match="row 3 has label"):
            ImageSet.open(root)


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 1 photo"):
        ImageSet.open(write_folder(tmp_path / "d"), limit=-5)
