"""Files and layouts that neighbouring tools took for something else, to the right value or to a word."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.tables import QTables
from qtable.photos.files import DataError
from qtable.photos.labels import ClassList, numbered
from qtable.photos.opening import read_photo
from qtable.photos.readers import read_listing
from qtable.photos.samples import PhotoError
from qtable.photos.sets import ImageSet
from tests.jpeg.test_layouts import djpeg
from tests.photos.layouts import class_folders, labels, samples, tar

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def jpeg(image: RGB, identifiers: tuple[int, int, int], adobe: int | None, rgb: bool) -> bytes:
    """A JPEG whose components have these identifiers, with no marker but Adobe's with that transform."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90, keep_rgb=rgb)
    data, at = file.getvalue(), 2
    out = b"\xff\xd8" + (b"" if adobe is None else b"\xff\xee\0\x0eAdobe\0d\0\0\0\0" + bytes([adobe]))
    while data[at + 1] != 0xDA:
        length = 2 + int.from_bytes(data[at + 2 : at + 4])
        segment = bytearray(data[at : at + length])
        if segment[1] == 0xC0:
            segment[10:19:3] = bytes(identifiers)
        out += b"" if 0xE0 <= segment[1] <= 0xEF else bytes(segment)
        at += length
    scan = bytearray(data[at:])
    scan[5:11:2] = bytes(identifiers)
    return out + bytes(scan)


@pytest.mark.parametrize("identifiers", [(1, 2, 3), (0, 1, 2), (82, 71, 66), (34, 35, 36)])
@pytest.mark.parametrize("adobe", [None, 0, 1])
@pytest.mark.parametrize("rgb", [False, True])
def test_jpeg_files_without_a_colour_transform_have_djpegs_colours(
    photo: RGB, identifiers: tuple[int, int, int], adobe: int | None, rgb: bool
) -> None:
    data = jpeg(photo, identifiers, adobe, rgb)
    pixels = read_photo(data).pixels
    assert np.array_equal(pixels, djpeg(data))
    if rgb and (adobe == 0 or (adobe is None and identifiers == (82, 71, 66))):
        assert np.abs(pixels.astype(int) - photo).mean() < 8  # these are the photo's colours


def test_a_picture_behind_the_picture_is_not_lost_without_a_word(photo: RGB) -> None:
    data = Codec().encode(photo, QTables.standard())
    thumbnail = struct.pack(">BBH", 0xFF, 0xE1, 2 + 6 + len(data)) + b"Exif\0\0" + data
    assert np.array_equal(read_photo(data[:2] + thumbnail + data[2:] + bytes(9)).pixels, Codec().decode(data))
    for behind in (data, b"ftypmp42" + bytes(99), bytes(99) + b"\xff\xd9"):
        with pytest.raises(PhotoError, match="bytes after the picture's end"):
            read_photo(data + behind)


def test_restart_intervals_that_are_lost_or_swapped_are_damage(photo: RGB) -> None:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", restart_marker_blocks=3)
    data = file.getvalue()
    third, fourth = data.index(b"\xff\xd3"), data.index(b"\xff\xd4")
    assert read_photo(data).is_jpeg
    for damaged in (data[:third] + data[fourth:], data[:third] + data[third + 2 :], data[:-9] + b"\xff\xd9"):
        with pytest.raises(PhotoError, match="unreadable: a JPEG file that does not decode: Corrupt JPEG data"):
            read_photo(damaged)


def test_words_in_two_unicode_forms_are_not_two_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'caf.' in another Unicode form \('cafe\\u0301', 'caf\\xe9'\)"):
        numbered("x", [COMPOSED, DECOMPOSED, "tea"], lambda i: f"line {i}")
    listed = tmp_path / "classes.txt"
    listed.write_text(f"tea\n{COMPOSED}\n")
    folders = class_folders(tmp_path / "photos", DECOMPOSED, "tea")
    assert labels(read_listing(folders, ClassList.open(listed))) == [1, 1, 0, 0]


def test_words_that_differ_in_case_alone_are_said(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "photos", "Cat", "cat", "Dog")
    listing = read_listing(folders)
    assert listing.classes == ("Cat", "Dog", "cat")  # as torchvision's ImageFolder has them
    assert listing.said[0].endswith("; 'Cat' and 'cat' differ in case alone and are two classes")


def test_a_photo_in_two_class_folders_is_said(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", "a", "b", photos=12)
    (root / "b" / "again.png").write_bytes((root / "a" / "3.png").read_bytes())
    said = ImageSet.open(root).said
    one, other = sorted([f"{root}/a/3.png has 0", f"{root}/b/again.png has 1"])
    assert f"{root}: 1 photo under two class indices: {one}, {other}; one of them is wrong" in said
    (root / "b" / "again.png").write_bytes((root / "b" / "3.png").read_bytes())
    assert not any("two class indices" in line for line in ImageSet.open(root).said)


def test_photos_that_the_list_in_their_folder_does_not_name_are_counted(tmp_path: Path) -> None:
    root = class_folders(tmp_path, "photos", photos=6) / "photos"
    for name, head, line in (
        ("labels.csv", "path,label\n", "./{0}.png,{0}\n"),
        ("metadata.jsonl", "", '{{"file_name": "{0}.png", "label": {0}}}\n'),
    ):
        (root / name).write_text(head + "".join(line.format(i) for i in range(4)))
        listing = read_listing(root)
        assert len(listing.photos) == 4
        path = root / name
        assert listing.said[1:] == (
            f"{path}: 2 photos in {root} that it does not name left aside (one: {root / '4.png'})",
        )
        assert len(read_listing(path).said) == 1  # by itself it may name a part
        path.write_text(head + "".join(line.format(i) for i in range(6)))
        assert len(read_listing(root).said) == 1
        path.unlink()


def test_rows_without_a_photo_are_skipped_and_named(tmp_path: Path) -> None:
    root = class_folders(tmp_path, "photos", photos=24) / "photos"
    (root / "metadata.csv").write_text("file_name,label\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(25)))
    images = ImageSet.open(root)
    assert [name for name, _ in images.skipped] == [str(root / "24.png")]
    assert images.skipped[0][1].startswith("FileNotFoundError")


def test_dots_in_folders_are_no_kinds_and_dots_in_keys_are_said(tmp_path: Path) -> None:
    members = samples([0, 1, 0, 1])
    dotted = [(f"train.v1/22.0/{name}", data) for name, data in members]
    assert labels(read_listing(tar(tmp_path / "a.tar", dotted))) == [0, 1, 0, 1]
    renamed = [*members[:6], *((f"22.{name}", data) for name, data in members[6:])]
    listing = read_listing(tar(tmp_path / "b.tar", renamed))
    assert labels(listing) == [0, 1, 0]
    assert "2 files of other kinds (.000003.cls, .000003.png) left aside" in listing.said[1]


def test_equal_keys_in_shards_and_members_apart_are_samples_of_their_own(tmp_path: Path) -> None:
    for name, begin in (("a.tar", 0), ("b.tar", 1)):
        members = samples([begin, 1, 0])
        tar(tmp_path / name, [*members[::2], *members[1::2]])  # photos first, then labels
    listing = read_listing(tmp_path)
    assert labels(listing) == [0, 1, 0, 1, 1, 0]
    assert len({file.name for file, _ in listing.photos}) == 6


def test_labels_in_a_shard_without_a_photo_are_counted(tmp_path: Path) -> None:
    shard = tar(tmp_path / "a.tar", [*samples([0, 1]), ("9.cls", b"1")])
    assert f"{shard}: 1 label without a photo left aside (one: {shard}/9)" in read_listing(shard).said
