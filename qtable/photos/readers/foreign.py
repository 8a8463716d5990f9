"""Layouts that are known and not read: each has a name, and a word on what to give instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from qtable.photos.opening import is_photo
from qtable.photos.readers.places import Place, suffix

CLASSES_ONLY: Final = "the commands know class labels only: give its folder of photos with --metric agreement"
PACKED: Final = "unpack it and give the folder"
ARRAYS: Final = "arrays have no photo files; from Python, ImageSet.of takes uint8 arrays"
WRITE: Final = "write the photos as files, Parquet or .tar shards"
COCO: Final = f"COCO (objects in photos); {CLASSES_ONLY}"
YOLO: Final = f"a YOLO data set (objects in photos); {CLASSES_ONLY}"
VOC: Final = f"Pascal VOC (objects in photos); {CLASSES_ONLY}"
MASKS: Final = f"photos with masks or boxes beside them; {CLASSES_ONLY}"
ARROW: Final = "Arrow as datasets' save_to_disk writes it; write Parquet (Dataset.to_parquet) and give that"
MXNET: Final = f"MXNet RecordIO; {WRITE}"
TFRECORD: Final = f"TFRecord; {WRITE}"
MDS: Final = f"MosaicML shards; {WRITE}"

BY_SUFFIX: Final[Mapping[str, str]] = {
    **dict.fromkeys([".zip", ".7z", ".rar", ".tgz", ".gz", ".zst", ".xz", ".bz2"], f"a packed file; {PACKED}"),
    **dict.fromkeys([".npz", ".npy", ".h5", ".hdf5", ".mat", ".pkl", ".pickle", ".pt", ".pth"], f"a file of {ARRAYS}"),
    **dict.fromkeys([".tfrecord", ".tfrecords"], TFRECORD),
    **dict.fromkeys([".arrow", ".feather"], ARROW),
    **dict.fromkeys([".mdb", ".lmdb"], f"LMDB; {WRITE}"),
    **dict.fromkeys([".xls", ".xlsx", ".ods"], "a spreadsheet; save it as CSV with the columns path,label"),
    **dict.fromkeys([".yaml", ".yml"], "YAML, as YOLO data sets have it; give the folder of photos or a CSV file"),
    **dict.fromkeys([".mp4", ".avi", ".mov", ".mkv", ".webm"], "a video; give a folder of its frames"),
    ".rec": MXNET,
    ".beton": f"FFCV; {WRITE}",
    ".mds": MDS,
    ".xml": VOC,
}  # fmt: skip
BY_HEAD: Final[tuple[tuple[bytes, str], ...]] = (
    (b"PK\x03\x04", f"a zip file; {PACKED}"),
    (b"\x1f\x8b", f"a gzip file; {PACKED}"),
    (b"\x28\xb5\x2f\xfd", f"a zstd file; {PACKED}"),
    (b"\x89HDF", f"HDF5: {ARRAYS}"),
    (b"\x93NUMPY", f"NumPy's: {ARRAYS}"),
    (b"ARROW1", ARROW),
    (b"\x80\x04", f"a pickle, which is never opened; {ARRAYS}"),
    (b"\x00\x00\x08\x03", f"MNIST's format: {ARRAYS}"),
    (b"\xff\xd8\xff", "one photo; give the folder of the photos"),
    (b"\x89PNG", "one photo; give the folder of the photos"),
)
_COCO_KEYS: Final = re.compile(rb'"(annotations|images|categories|licenses|info)"\s*:')


def name_of(place: Place) -> str | None:
    """What a place is laid out as, and what to do, if it is known and not read; else None."""
    return _folder(place) if place.is_folder else _file(place)


def _file(place: Place) -> str | None:
    name = place.path.name
    if is_photo(name):
        return "one photo; give the folder of the photos"
    if suffix(name) == ".json" or (
        place.head.lstrip()[:1] in (b"{", b"[") and suffix(name) not in (".jsonl", ".ndjson")
    ):
        return _json(place.head)
    by_head = next((word for magic, word in BY_HEAD if place.head.startswith(magic)), None)
    return BY_SUFFIX.get(suffix(name), by_head)


def _json(head: bytes) -> str:
    if len(set(_COCO_KEYS.findall(head))) >= 2 or re.match(rb'\s*\{\s*"(annotations|images)"\s*:', head):
        return COCO
    return "JSON, which is no list of photos; lists are CSV (path,label) or JSON lines (file_name, label)"


def _folder(place: Place) -> str | None:
    names = {name.lower() for name in (*place.folders, *place.files)}
    if {"images", "labels"} <= set(place.folders):
        return YOLO
    if {"annotations", "jpegimages"} <= names:
        return VOC
    if "annotations" in place.folders and any(re.fullmatch(r"(train|val|test)\d{4}", name) for name in place.folders):
        return COCO
    if "images" in names and names & {"annotations", "masks", "segmentation"}:
        return MASKS
    if place.with_suffix(".arrow") and "dataset_info.json" in names:
        return ARROW
    if place.photos:
        return None
    inside = {word for ending, word in BY_SUFFIX.items() if ending in (".mds", ".rec") and place.with_suffix(ending)}
    if place.with_suffix(".tfrecord") or any(".tfrecord-" in name for name in names):
        return TFRECORD
    return next(iter(inside), "LMDB; " + WRITE if "data.mdb" in names else None)
