"""Small photos in the layouts that people keep them in, written by code."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from qtable.photos.files import Listing


def photo(i: int) -> bytes:
    """A small PNG file, another one for each i."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def class_folders(root: Path, *names: str, photos: int = 2) -> Path:
    """A folder for each name, with so many photos in it."""
    for at, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(photos):
            (root / name / f"{i}.png").write_bytes(photo(100 * at + i))
    return root


def flat(root: Path, photos: int = 24) -> Path:
    """Photos without labels."""
    root.mkdir(parents=True)
    for i in range(photos):
        (root / f"{i:02}.png").write_bytes(photo(i))
    return root


def tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def samples(labels: Iterable[object], kind: str = "cls", begin: int = 0) -> list[tuple[str, bytes]]:
    """Members of a shard: KEY.png, and KEY.cls or KEY.json for each label."""
    members = []
    for i, label in enumerate(labels, start=begin):
        text = str(label) if kind == "cls" else json.dumps({"label": label})
        members += [(f"{i:06}.png", photo(i)), (f"{i:06}.{kind}", text.encode())]
    return members


def labels(listing: Listing) -> list[int | None]:
    return [label for _, label in listing.photos]
