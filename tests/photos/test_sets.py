from __future__ import annotations

import io
import os
import re
import resource
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.photos import sets as data
from qtable.photos.files import DataError
from qtable.photos.opening import MAX_FILE_BYTES, open_photo
from qtable.photos.readers import read_listing
from qtable.photos.sets import SPLITS, ImageSet, Photos, split_of


def write_folder(root: Path, per_class: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for name in ("ants", "bees"):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 256, (20 + i % 3, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def labels(photos: Photos) -> list[int]:
    assert isinstance(photos.annotations, np.ndarray)
    assert photos.annotations.dtype == np.int64
    return [int(label) for label in photos.annotations]


def test_class_folders_become_labels_and_disjoint_splits(tmp_path: Path) -> None:
    images = ImageSet.open(write_folder(tmp_path / "d"))
    assert images.classes == ("ants", "bees")
    names = [set(images[split].names) for split in SPLITS]
    assert sum(map(len, names)) == 24 == len(set.union(*names))
    for split in SPLITS:
        for name, label in zip(images[split].names, labels(images[split]), strict=True):
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
    assert {x for split in SPLITS for x in labels(by_index[split])} == {7, 450}


def test_damaged_files_are_skipped_counted_and_listed(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    good = Codec().encode(np.full((40, 40, 3), 90, np.uint8), QTables.standard())
    (root / "ants" / "truncated.jpg").write_bytes(good[: len(good) // 2])
    (root / "ants" / "empty.jpg").write_bytes(b"")
    (root / "bees" / "text.jpg").write_text("this is no photo")
    (root / "bees" / "fine.jpg").write_bytes(good)
    images = ImageSet.open(root)
    found = reasons(images)
    assert set(found) == {"truncated.jpg", "empty.jpg", "text.jpg"}
    assert all(re.match("unreadable: |ValueError: empty file", reason) for reason in found.values()), found
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
    assert (open_photo(encoded(Image.new("P", (3, 3), 0).convert("RGBA"), "PNG"))[0].shape) == (3, 3, 3)


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (8, 4), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    assert open_photo(encoded(image, "PNG", exif=exif))[0].shape == (8, 4, 3)


def test_resize_sets_the_shorter_side() -> None:
    photo = encoded(Image.new("RGB", (100, 50)), "PNG")
    assert open_photo(photo, resize=20)[0].shape == (20, 40, 3)


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
    classes = ["2.0", "10.0", "0"] * 8
    (root / "labels.csv").write_text("path,label\n" + "\n".join(map(",".join, zip(photos, classes, strict=True))))
    images = ImageSet.open(root)
    found = {name: label for s in SPLITS for name, label in zip(images[s].names, labels(images[s]), strict=True)}
    assert all(found[str(root / photo)] == float(label) for photo, label in zip(photos, classes, strict=True))
    for bad in ("-1", "1.5", "nan"):
        (root / "labels.csv").write_text(f"path,label\n{photos[0]},0\n{photos[1]},{bad}\n")
        with pytest.raises(DataError, match="line 3 has label"):
            ImageSet.open(root)


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 1 photo"):
        ImageSet.open(write_folder(tmp_path / "d"), limit=-5)


# ---- photos of strangers --------------------------------------------------------------------------------------


def reasons(images: ImageSet) -> dict[str, str]:
    """Why each file was skipped, by its name without folders."""
    return {Path(name).name: reason for name, reason in images.skipped}


def count(images: ImageSet) -> int:
    return sum(len(images[split]) for split in SPLITS)


def claiming(kind: str, width: int, height: int) -> bytes:
    """A small file whose header claims this size; "whole png" has all the pixels, well packed."""
    if kind in ("png", "whole png"):
        bits, pixels = (1, bytes((width // 8 + 1) * height)) if kind == "whole png" else (8, b"")
        header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
        parts = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks]
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    if kind == "ppm":
        return f"P6 {width} {height} 255\n".encode()
    if kind == "bmp":
        return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    if kind == "tiff":
        tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 0)]
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    if kind == "webp":
        body = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(7)
        return b"RIFF" + struct.pack("<I", len(body) + 12) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body
    file = Codec().encode(np.zeros((8, 8, 3), np.uint8), QTables.standard())
    at = file.index(b"\xff\xc0") + 5
    return file[:at] + struct.pack(">HH", height, width) + file[at + 4 :]


def test_bombs_are_skipped_with_one_message_and_take_no_memory(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    for kind in ("png", "ppm", "bmp", "tiff", "webp", "jpg", "whole png"):
        side = {"webp": 16_383, "whole png": 16_384}.get(kind, 50_000)
        bomb = claiming(kind, side, side)
        assert len(bomb) < 100_000
        (root / "ants" / f"bomb.{kind}.jpg").write_bytes(bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images = ImageSet.open(root)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    )  # kilobytes; as pixels 262,144 at least
    assert count(images) == 24
    assert len(images.skipped) == 7
    assert all("pixels; at most 178,956,970 are read" in reason for reason in reasons(images).values())


def test_jpeg_files_of_endless_scans_or_impossible_sizes_are_skipped(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    progressive = encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    last = progressive.rindex(b"\xff\xda")
    (root / "ants" / "scans.jpg").write_bytes(progressive[:last] + 500 * progressive[last:-2] + b"\xff\xd9")
    (root / "ants" / "size.jpg").write_bytes(claiming("jpg", 13_000, 13_000))
    found = reasons(ImageSet.open(root))
    assert set(found) == {"scans.jpg", "size.jpg"}
    assert "scans; allowed: 500" in found["scans.jpg"]
    assert "13000 x 13000 pixels in" in found["size.jpg"]


def test_thin_photos_that_would_explode_when_scaled_are_skipped(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    Image.new("L", (1, 60_000)).save(root / "ants" / "thin.png")
    Image.new("L", (70_000, 8)).save(root / "ants" / "long.png")
    found = reasons(ImageSet.open(root))
    assert set(found) == {"long.png"}
    assert "too large: 70000 x 8 pixels; a JPEG file has at most 65500 a side" in found["long.png"]
    found = reasons(ImageSet.open(root, resize=64))
    assert "too large: 560000 x 64 pixels; a JPEG file has at most 65500 a side" in found["long.png"]
    assert "too large: 64 x 3840000 pixels; at most 178,956,970 are read" in found["thin.png"]


def test_only_photo_formats_are_opened_whatever_the_name_says(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    (root / "ants" / "program.jpg").write_bytes(postscript)
    (root / "ants" / "animation.jpg").write_bytes(encoded(Image.new("P", (9, 9)), "GIF"))
    two = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    (root / "ants" / "stereo.jpg").write_bytes(encoded(two[0], "MPO", save_all=True, append_images=two[1:]))
    images = ImageSet.open(root)
    found = reasons(images)
    assert set(found) == {"program.jpg", "stereo.jpg"}
    assert "not a photo (JPEG, PNG, WEBP, BMP, TIFF, PPM, GIF)" in found["program.jpg"]
    assert "several pictures" in found["stereo.jpg"]
    assert (count(images), images.jpeg_sources) == (25, 0)


def test_what_pillow_only_warns_of_is_read(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    cut = b"Exif\0\0II*\0\x08\0\0\0\x03\0\x12\x01\x03\0"  # "Corrupt EXIF data"
    (root / "ants" / "cut.jpg").write_bytes(encoded(Image.new("RGB", (9, 9)), "JPEG", exif=cut))
    assert count(ImageSet.open(root)) == 25


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    root, store = write_folder(tmp_path / "d"), write_folder(tmp_path / "store", per_class=5)
    for i in range(5):
        with Image.open(store / "bees" / f"{i}.png") as photo:
            photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(store / "bees" / f"{i}.png")
    (root / "ants" / "linked.png").symlink_to(store / "ants" / "0.png")
    (root / "cows").symlink_to(store / "bees")
    (root / "bees" / "deeper").mkdir()
    (root / "bees" / "deeper" / "store").symlink_to(store / "ants")
    (root / "bees" / "again").symlink_to(store / "ants")
    (root / "ants" / "up").symlink_to("..")  # would give the bees to the ants
    (root / "ants" / "beside").symlink_to(root / "bees")
    (root / "bees" / "deeper" / "loop").symlink_to("../deeper")
    (root / "bees" / "self.png").symlink_to("self.png")
    (root / "ants" / "gone.png").symlink_to("nothing")
    images = ImageSet.open(root)
    names = [Path(name).relative_to(root) for split in SPLITS for name in images[split].names]
    per_class = {folder: sum(name.parts[0] == folder for name in names) for folder in ("ants", "bees", "cows")}
    assert per_class == {"ants": 13, "bees": 17, "cows": 5}
    assert set(reasons(images)) == {"self.png", "gone.png"}


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    os.mkfifo(root / "ants" / "pipe.jpg")
    (root / "ants" / "zeros.jpg").symlink_to("/dev/zero")
    (root / "ants" / "folder.jpg").mkdir()
    Image.new("RGB", (9, 9)).save(root / "ants" / "folder.jpg" / "inside.png")
    with (root / "bees" / "vast.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    images = ImageSet.open(root)
    assert reasons(images) == {
        "pipe.jpg": "ValueError: not a regular file",
        "zeros.jpg": "ValueError: not a regular file",
        "vast.png": "ValueError: 1,073,741,825 bytes; at most 1,073,741,824 are read",
    }
    assert count(images) == 25


def test_a_photo_that_vanishes_between_listing_and_reading_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, listing = write_folder(tmp_path / "d"), read_listing

    def list_and_lose(folder: Path, *classes: None) -> object:
        listed = listing(folder, *classes)
        (root / "ants" / "3.png").unlink()
        return listed

    monkeypatch.setattr(data, "read_listing", list_and_lose)
    images = ImageSet.open(root)
    assert list(reasons(images)) == ["3.png"]
    assert "No such file" in reasons(images)["3.png"]
    assert count(images) == 23


@pytest.fixture
def anyones() -> Iterator[Path]:
    """A folder that the user `nobody` may read; root becomes that user, since root may read everything."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        root = os.geteuid() == 0
        if root:
            os.chown(name, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)


def test_unreadable_files_and_folders_are_skipped_and_counted(anyones: Path) -> None:
    root = write_folder(anyones / "d")
    (root / "ants" / "0.png").chmod(0)
    (root / "bees" / "closed").mkdir(mode=0)
    (root / "cows").mkdir(mode=0)
    images = ImageSet.open(root)
    found = reasons(images)
    (root / "bees" / "closed").chmod(0o700)
    (root / "cows").chmod(0o700)
    assert set(found) == {"0.png", "closed", "cows"}
    assert all("Permission denied" in reason for reason in found.values())
    assert count(images) == 23
    assert images.classes == ("ants", "bees", "cows")


def test_a_list_may_name_photos_anywhere(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "store")
    (tmp_path / "lists").mkdir()
    paths = [f"../store/{('ants', 'bees')[i % 2]}/{i % 12}.png" for i in range(12)]
    paths += [str(root / "ants" / f"{i}.png") for i in range(1, 12, 2)]
    rows = [f"{path},{'ants' in path}" for path in [*paths, "/etc/passwd", "../../../../../dev/null", "../gone.png"]]
    (tmp_path / "lists" / "l.csv").write_text("\n".join(["path,label", *rows]))
    images = ImageSet.open(tmp_path / "lists" / "l.csv")
    assert count(images) == 18
    assert set(reasons(images)) == {"passwd", "null", "gone.png"}


def test_folders_named_like_a_class_that_no_model_has_are_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    for old, new in (("ants", "1"), ("bees", "9" * 30)):
        (root / old).rename(root / new)
    with pytest.raises(DataError, match=f"class index {'9' * 30} is too large"):
        ImageSet.open(root)
