"""Which reader a place is read by, and what is said of places that none reads."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
import pytest

from qtable.photos.files import DataError
from qtable.photos.opening import is_photo
from qtable.photos.readers import READERS, folders, foreign, lists, parquet, read_listing, shards
from qtable.photos.readers.places import look
from qtable.photos.sets import ImageSet
from tests.photos.layouts import class_folders, flat, photo, samples, tar


def parquet_file(path: Path) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"image": pa.array([photo(0), photo(1)]), "label": pa.array([0, 1])}), path)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return path


def folder_with(make: Callable[[Path], object], name: str) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        (folder / "d").mkdir()
        make(folder / "d" / name)
        return folder / "d"

    return made


def shard(path: Path) -> Path:
    return tar(path, samples([0, 1]))


LAYOUTS: Final[dict[str, tuple[Callable[[Path], Path], ModuleType]]] = {
    "class folders": (lambda folder: class_folders(folder / "d", "a", "b"), folders),
    "flat folder": (lambda folder: flat(folder / "d"), folders),
    "CSV": (lambda folder: text(folder / "l.csv", "path,label\na.png,0\nb.png,1\n"), lists),
    "JSON lines": (lambda folder: text(folder / "l.jsonl", '{"path": "a.png"}\n'), lists),
    "folder with labels.csv": (folder_with(lambda p: text(p, "path,label\na,0\nb,1\n"), "labels.csv"), lists),
    "folder with metadata.csv": (folder_with(lambda p: text(p, "file_name,label\na,0\nb,1\n"), "metadata.csv"), lists),
    "Parquet": (lambda folder: parquet_file(folder / "a.parquet"), parquet),
    "Parquet under another name": (lambda folder: parquet_file(folder / "data"), parquet),
    "folder of Parquet": (folder_with(parquet_file, "train.parquet"), parquet),
    "shard": (lambda folder: shard(folder / "a.tar"), shards),
    "shard under another name": (lambda folder: shard(folder / "a"), shards),
    "folder of shards": (folder_with(shard, "a.tar"), shards),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_has_one_reader_that_says_what_it_found(tmp_path: Path, layout: str) -> None:
    make, module = LAYOUTS[layout]
    place = look(make(tmp_path))
    first = next(reader for reader in READERS if reader.recognises(place))
    assert first is module.READER
    listing = read_listing(place.path)
    assert listing.photos
    assert str(tmp_path) in listing.said[0]


def test_class_folders_beside_an_archive_are_class_folders(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "d", "a", "b")
    shard(root / "backup.tar")
    listing = read_listing(root)
    assert len(listing.photos) == 4
    assert f"{root}: 1 file of other kinds (.tar) left aside" in listing.said


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.png", photo(0))
    return path


def arrays(path: Path) -> Path:
    file = io.BytesIO()
    np.save(file, np.zeros((4, 8, 8, 3), np.uint8))
    path.write_bytes(file.getvalue())
    return path


def coco(path: Path) -> Path:
    content = {"info": {}, "images": [{"id": i, "file_name": "x" * 90} for i in range(500)], "annotations": []}
    return text(path, json.dumps(content))


def yolo(folder: Path) -> Path:
    class_folders(folder / "d", "images", "labels")
    return folder / "d"


FOREIGN: Final[dict[str, tuple[Callable[[Path], Path], str]]] = {
    "COCO": (lambda folder: coco(folder / "instances.json"), "COCO"),
    "COCO under another name": (lambda folder: coco(folder / "instances"), "COCO"),
    "other JSON": (lambda folder: text(folder / "a.json", '[{"path": "a.png", "label": 0}]'), "JSON"),
    "zip": (lambda folder: zipped(folder / "a.zip"), "a packed file"),
    "zip under another name": (lambda folder: zipped(folder / "a"), "a zip file"),
    "tar.gz": (lambda folder: text(folder / "a.tar.gz", "x"), "a packed file"),
    "NumPy": (lambda folder: arrays(folder / "a.npy"), "a file of arrays"),
    "NumPy under another name": (lambda folder: arrays(folder / "a"), "NumPy's: arrays"),
    "TFRecord": (folder_with(lambda p: text(p, "x"), "train.tfrecord-00000-of-00004"), "TFRecord"),
    "RecordIO": (lambda folder: text(folder / "train.rec", "x"), "MXNet RecordIO"),
    "LMDB": (folder_with(lambda p: text(p, "x"), "data.mdb"), "LMDB"),
    "spreadsheet": (lambda folder: text(folder / "a.xlsx", "x"), "a spreadsheet"),
    "one photo": (lambda folder: flat(folder / "d") / "00.png", "one photo"),
    "YOLO": (yolo, "a YOLO data set"),
    "VOC": (lambda folder: class_folders(folder / "d", "Annotations", "JPEGImages"), "Pascal VOC"),
    "COCO folder": (lambda folder: class_folders(folder / "d", "annotations", "train2017", "val2017"), "COCO"),
    "masks": (lambda folder: class_folders(folder / "d", "images", "masks"), "photos with masks"),
    "Arrow": (
        folder_with(lambda p: text(p, "x") and text(p.parent / "dataset_info.json", "{}"), "data-0.arrow"),
        "Arrow as datasets' save_to_disk writes it",
    ),
}


@pytest.mark.parametrize("layout", FOREIGN)
def test_other_layouts_are_refused_by_name_in_a_short_line(tmp_path: Path, layout: str) -> None:
    make, name = FOREIGN[layout]
    path = make(tmp_path)
    with pytest.raises(DataError) as error:
        ImageSet.open(path)
    assert str(error.value).startswith(f"{path}: this is {name}")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 150


def test_every_word_on_a_suffix_is_short_and_of_no_photo() -> None:
    assert not any(is_photo(f"a{ending}") for ending in foreign.BY_SUFFIX)
    assert all("\n" not in word for word in foreign.BY_SUFFIX.values())


def test_what_is_binary_and_unknown_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        read_listing(tmp_path / "a.bin")
