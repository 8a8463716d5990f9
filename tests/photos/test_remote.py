"""Photos in remote storage: an S3 server's sets are those of the same files on this machine."""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from qtable.photos.files import DataError, Part, RemoteFile
from qtable.photos.labels import ClassList
from qtable.photos.opening import MAX_FILE_BYTES
from qtable.photos.pixels import Pixels
from qtable.photos.readers import read_listing
from qtable.photos.sets import SPLITS, ImageSet
from qtable.photos.spec import PhotosSpec
from qtable.photos.where import RemotePath, beside, where
from qtable.storage import StorageError, Store, store
from tests.photos.layouts import class_folders, flat, labels, photo, samples, tar


def uploaded(folder: Path, place: str) -> str:
    here, there = store(folder), store(place)
    for file in here.files():
        there.write(file.name, here.read(file.name))
    return place


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> str:
    """A folder to write into: in this process's memory, for what is the same everywhere."""
    return f"memory://{secrets.token_hex(8)}"


def folders_with_much_else(root: Path) -> None:
    class_folders(root, "ant", "bee", "c a t", photos=9)
    for name in ("ant/deep/er/x.png", "ant/deep-er.png", ".git/y.png", "bee/.thumbs/z.png", "bee/@eaDir/u.png", "v.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(photo(abs(hash(name)) % 1000))
    for name in ("note.txt", "bee/LICENSE", "c a t/q.HEIC", "bee/.DS_Store", ".DS_Store", "empty/readme.md"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    (root / "bee" / "broken.jpg").write_bytes(b"\xff\xd8")
    (root / "bee" / "nothing.jpg").write_bytes(b"")


def flat_folder(root: Path) -> None:
    flat(root)
    (root / "ü #1%20?.PNG").write_bytes(photo(99))


def listed(name: str, line: str, header: str = "", up: str = "") -> Callable[[Path], None]:
    """A list of photos, one of which is not there, and one of which stands twice."""

    def write(root: Path) -> None:
        photos = "photos" if up else "lists/photos"
        flat(root / photos)
        place = root / ("lists" if up else "") / name
        place.parent.mkdir(exist_ok=True)
        rows = [line.format(f"{up or 'lists/'}photos/{i % 24:02}.png", "ab"[i % 2]) for i in range(26)]
        place.write_text("\n".join([header] * bool(header) + rows + [line.format("none.png", "a")]))

    return write


def shards(root: Path) -> None:
    root.mkdir()
    for i in range(3):
        tar(root / f"{i}.tar", [*samples("ab" * 4, begin=8 * i), (f"{i}.txt", b"x"), (".hidden/a.png", b"x")])
    tar(root / "json.tar", samples("ab" * 4, "json", begin=50))


def parquet(root: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root.mkdir()
    for begin in (0, 15):
        cells = pa.array([{"bytes": photo(begin + i), "path": f"{i}.png"} for i in range(15)])
        table = pa.table({"image": cells, "label": pa.array([i % 2 for i in range(15)])})
        pq.write_table(table, root / f"{begin}.parquet", row_group_size=4)


LAYOUTS: Final[dict[str, tuple[Callable[[Path], None], str]]] = {
    "class folders": (folders_with_much_else, ""),
    "flat folder": (flat_folder, ""),
    "labels.csv": (listed("labels.csv", "{},{}", "path,label"), ""),
    "metadata.csv": (listed("metadata.csv", "{},{}", "file_name,label"), ""),
    "metadata.jsonl": (listed("metadata.jsonl", '{{"file_name": "{}", "label": "{}"}}'), ""),
    "a list elsewhere": (listed("a.csv", "{};{}", "path;label", up="../"), "/lists/a.csv"),
    "shards": (shards, ""),
    "a shard": (shards, "/json.tar"),
    "Parquet": (parquet, ""),
    "a Parquet file": (parquet, "/15.parquet"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_read_as_on_this_machine(tmp_path: Path, s3: str, layout: str) -> None:
    write, inner = LAYOUTS[layout]
    root = tmp_path / "d"
    write(root)
    place = uploaded(root, f"{s3}/some where")
    here, there = ImageSet.open(f"{root}{inner}", memory=0), ImageSet.open(f"{place}{inner}", memory=0)
    assert there.fingerprint == here.fingerprint
    assert there.classes == here.classes
    assert there.jpeg_sources == here.jpeg_sources
    for mine, theirs in (
        (here.said, there.said),
        ([name for name, _ in here.skipped], [name for name, _ in there.skipped]),
        *((here[split].names, there[split].names) for split in SPLITS),
    ):
        assert [one.replace("/lists/../", "/").replace(str(root), place) for one in mine] == list(theirs)
    for split in SPLITS:
        assert np.array_equal(here[split].annotations, there[split].annotations)  # type: ignore[arg-type]
        images = there[split].images
        assert isinstance(images, Pixels)
        assert len(pickle.dumps(images)) < 1000 + 500 * len(images)
        for mine, theirs in zip(here[split].images, pickle.loads(pickle.dumps(images)), strict=True):
            assert (mine == theirs).all()
