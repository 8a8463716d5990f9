"""Photos in remote storage: an S3 server's sets are those of the same files on this machine."""

from __future__ import annotations

import pickle
import re
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from qtable.photos.files import DataError, Part, RemoteFile
from qtable.photos.labels import ClassList
from qtable.photos.opening import MAX_FILE_BYTES
from qtable.photos.pixels import Pixels
from qtable.photos.readers import parquet as parquet_module
from qtable.photos.readers import read_listing
from qtable.photos.sets import SPLITS, ImageSet
from qtable.photos.spec import PhotosSpec
from qtable.photos.where import RemotePath, beside, where
from qtable.storage import StorageError, Store, store
from tests.photos.layouts import class_folders, flat, labels, photo, samples, tar
from tests.storage.test_storage import Quiet, Ranged, web_server


def uploaded(folder: Path, place: str) -> str:
    here, there = store(folder), store(place)
    for file in here.files():
        there.write(file.name, here.read(file.name))
    return place


@pytest.fixture
def memory() -> str:
    """A folder to write into in this process's memory, for what is the same in all storage."""
    return f"memory://{secrets.token_hex(8)}"


@pytest.fixture
def requests(s3: str, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each method of S3 is called from here on."""
    import s3fs

    count: Counter[str] = Counter()
    call = s3fs.S3FileSystem._call_s3

    async def counting(self: Any, method: str, *arguments: Any, **more: Any) -> Any:
        count[method] += 1
        return await call(self, method, *arguments, **more)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counting)
    return count


def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the S3 server does not answer."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()


def folders_with_much_else(root: Path) -> None:
    class_folders(root, "ant", "bee", "c a t", photos=9)
    more = ("ant/deep/er/x.png", "ant/deep-er.png", ".git/y.png", "bee/.thumbs/z.png", "bee/@eaDir/u.png", "v.png")
    for i, name in enumerate(more):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(photo(1000 + i))
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
        for image, same in zip(here[split].images, pickle.loads(pickle.dumps(images)), strict=True):
            assert (image == same).all()


@pytest.mark.parametrize(
    ("layout", "files", "each"), [("class folders", 1, 1), ("shards", 5, 0), ("Parquet", 3, 0), ("labels.csv", 1, 2)]
)
def test_photos_are_listed_together_and_read_once(
    tmp_path: Path, s3: str, requests: Counter[str], layout: str, files: int, each: int
) -> None:
    """each: requests for a photo beside the one that reads it (for a listed one its size; s3fs may ask, too)."""
    LAYOUTS[layout][0](tmp_path / "d")
    place = uploaded(tmp_path / "d", f"{s3}/d")
    requests.clear()
    photos = len(read_listing(where(place)).photos)
    assert requests.total() <= 5 + 4 * files < photos
    requests.clear()
    images = ImageSet.open(place)
    assert requests["get_object"] <= photos + 4 * files
    assert requests["head_object"] <= each * photos + 8 * files
    requests.clear()
    assert all(image.size for split in SPLITS for image in images[split].images)
    assert not requests


def test_remote_photos_are_small_values(memory: str, tmp_path: Path) -> None:
    shards(tmp_path / "d")
    uploaded(tmp_path / "d", memory)
    part = read_listing(where(f"{memory}/1.tar")).photos[3][0]
    assert isinstance(part, Part)
    assert part.name == f"{memory}/1.tar/000011.png"
    assert pickle.loads(pickle.dumps(part)) == part
    assert part.read() == photo(11)
    one = RemoteFile(RemotePath(store(memory), "a.png"), MAX_FILE_BYTES + 1)
    with pytest.raises(ValueError, match="at most 1,073,741,824 are read"):
        one.read()


def test_lists_name_photos_anywhere(memory: str, tmp_path: Path) -> None:
    other = f"memory://{secrets.token_hex(8)}"
    for i in range(24):
        store(other).write(f"{i}.png", photo(i))
    store(f"{memory}/lists/deep").write("own.png", photo(50))
    rows = [f"{other}/{i}.png,{i % 2}" for i in range(24)] + ["deep/own.png,0", "../x.png,1", "/own.png,1"]
    text = "\n".join(["path,label", *rows])
    store(memory).write("lists/list.csv", text.encode())
    (tmp_path / "list.csv").write_text(text)
    there, here = ImageSet.open(f"{memory}/lists/list.csv"), ImageSet.open(tmp_path / "list.csv")
    assert sum(len(there[split]) for split in SPLITS) == 25
    assert sum(len(here[split]) for split in SPLITS) == 24
    assert [name for name, _ in there.skipped] == [f"{memory}/x.png", f"{memory}/lists//own.png"]
    for row, reason in (
        ("../../x.png", "'../../x.png' leads out of memory://"),
        ("ftp://a/b", "ftp://a/b: ftp:// is not"),
    ):
        store(memory).write("lists/odd.csv", f"path,label\nx.png,0\n{row},1\n".encode())
        with pytest.raises(DataError, match=f"^{memory}/lists/odd.csv: line 3: {reason}"):
            ImageSet.open(f"{memory}/lists/odd.csv")


def test_paths_that_lists_name() -> None:
    folder = RemotePath(store("memory://a/b"), "c")
    assert str(beside(folder, "x.png")) == "memory://a/b/c/x.png"
    assert str(beside(folder, "d//x.png")) == "memory://a/b/c/d//x.png"
    assert str(beside(folder, "./d/../x.png")) == "memory://a/b/c/x.png"
    assert str(beside(folder, "../../x.png")) == "memory://a/x.png"
    assert str(beside(folder, "memory://y/x.png")) == "memory://y/x.png"
    assert (folder.name, folder.parent.name, folder.parent.parent) == ("c", "b", folder.parent)


def test_a_class_list_in_remote_storage(memory: str) -> None:
    store(memory).write("classes.txt", b"b\na\n")
    classes = ClassList.open(f"{memory}/classes.txt")
    assert (classes.names, str(classes.path)) == (("b", "a"), f"{memory}/classes.txt")
    with pytest.raises(DataError, match=rf"^{memory}/none: the class list cannot be read: No such file or directory$"):
        ClassList.open(f"{memory}/none")
    with pytest.raises(DataError, match=r"^the class list cannot be read: ftp://a/x: ftp:// is not known; allowed: s3"):
        ClassList.open("ftp://a/x")
    for i, name in enumerate("ab" * 12):
        store(memory).write(f"d/{name}/{i}.png", photo(i))
    assert ImageSet.open(f"{memory}/d", classes=f"{memory}/classes.txt").classes == ("b", "a")


def test_addresses_are_absolute() -> None:
    spec = PhotosSpec("s3://bucket/photos", classes="gs://bucket/names.txt")
    assert spec.absolute() == spec


def test_photos_of_this_machine_load_nothing_remote(tmp_path: Path) -> None:
    flat(tmp_path / "d")
    code = "import sys; from qtable.photos.sets import ImageSet; ImageSet.open(sys.argv[1]); print(*sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path / "d")]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not {"fsspec", "s3fs", "aiohttp", "botocore", "pyarrow"} & set(loaded)


# ---- one line for each reason -----------------------------------------------------------------------------------


def test_there_is_nothing(s3: str, memory: str) -> None:
    for place, reason in (
        (f"{s3}/none", "no such folder, or nothing in it"),
        (f"{s3}-none/photos", "no such bucket"),
        (s3, "no such folder, or nothing in it"),
        (f"{memory}/a.tar", "no such folder, or nothing in it"),
    ):
        with pytest.raises(DataError, match=f"^{re.escape(place)}: {reason}$"):
            ImageSet.open(place)
    with pytest.raises(StorageError, match=r"no bucket or folder is named$"):
        ImageSet.open("s3://")


def test_other_layouts_are_refused_by_name(memory: str) -> None:
    there: Store = store(memory)
    there.write("a.zip", b"PK\x03\x04")
    there.write("empty.csv", b"")
    there.write("yolo/images/a.png", b"x")
    there.write("yolo/labels/a.txt", b"x")
    there.write("odd//a.png", b"x")
    for name, reason in (
        ("a.zip", "this is a packed file"),
        ("yolo", "this is a YOLO data set"),
        ("empty.csv", "its first line must name the columns"),
        ("yolo/images/a.png", "this is one photo"),
        ("odd", "it holds '/a.png', which is no path below a folder"),
    ):
        with pytest.raises(DataError, match=f"^{memory}/{name}: {reason}"):
            ImageSet.open(f"{memory}/{name}")


def test_what_is_cut_off_is_an_error(memory: str, tmp_path: Path) -> None:
    data = tar(tmp_path / "a.tar", samples("ab" * 12)).read_bytes()
    store(memory).write("a.tar", data[: len(data) // 2])
    with pytest.raises(DataError, match=rf"^{memory}/a\.tar: cut off: byte [0-9,]+ "):
        ImageSet.open(f"{memory}/a.tar")
    pytest.importorskip("pyarrow")
    store(memory).write("a.parquet", b"PAR1" + bytes(100))
    with pytest.raises(DataError, match=rf"^{memory}/a\.parquet: not a whole Parquet file: "):
        ImageSet.open(f"{memory}/a.parquet")


def test_missing_credentials_are_an_error(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match=rf"^{s3}/d: no credentials: "):
        ImageSet.open(f"{s3}/d")


@pytest.mark.parametrize("layout", ["flat folder", "a shard", "a Parquet file", "labels.csv"])
def test_a_server_that_is_gone_ends_the_run(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    write, inner = LAYOUTS[layout]
    write(tmp_path / "d")
    place = uploaded(tmp_path / "d", f"{s3}/d") + inner
    images = ImageSet.open(place, memory=0)
    listing = read_listing(where(place))

    def list_and_lose(*_: object) -> object:
        unreachable(monkeypatch)
        return listing

    monkeypatch.setattr("qtable.photos.sets.read_listing", list_and_lose)
    parquet_module._GROUPS._kept.clear()
    with pytest.raises(StorageError, match=rf"^{s3}/d/[^:]*: not reached: Could not connect[^\n]*$"):
        ImageSet.open(place)
    with pytest.raises(DataError, match=rf"^{s3}/d/[^:]*: not reached: Could not connect[^\n]*$"):
        _ = images.fit.images[0]
    monkeypatch.undo()


@pytest.mark.parametrize("layout", ["shards", "Parquet"])
def test_storage_that_fails_midway_is_not_taken_for_damage(
    tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    LAYOUTS[layout][0](tmp_path / "d")
    uploaded(tmp_path / "d", memory)

    def fail(*_: object) -> int:
        raise StorageError("memory://x: not reached")

    monkeypatch.setattr("qtable.storage.remote.Reading.readinto", fail)
    with pytest.raises(StorageError, match=r"^memory://x: not reached$"):
        read_listing(where(memory))


def test_a_photo_that_changes_during_a_run_is_an_error(memory: str) -> None:
    there = store(memory)
    for i in range(24):
        there.write(f"{i}.png", photo(i))
    images = ImageSet.open(memory, memory=0)
    name = images.fit.names[0]
    there.write(name.rpartition("/")[2], photo(99))
    with pytest.raises(DataError, match=rf"^{name}: another file than it was when this run began$"):
        _ = images.fit.images[0]
    there.remove(name.rpartition("/")[2])
    with pytest.raises(DataError, match=rf"^{name}: .*No such file or directory"):
        _ = images.fit.images[0]


@pytest.mark.parametrize("kind", [Quiet, Ranged])
def test_photos_of_a_web_server(tmp_path: Path, kind: type[Quiet]) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: this test reads http://")
    class_folders(tmp_path / "v1.2", "a", "b c", photos=12)
    flat(tmp_path / "photos")
    (tmp_path / "list.csv").write_text("\n".join(["path,label"] + [f"photos/{i:02}.png,{i % 2}" for i in range(24)]))
    with web_server(tmp_path, kind) as address:
        for name in ("v1.2", "list.csv", "photos"):
            there, here = ImageSet.open(f"{address}/{name}"), ImageSet.open(tmp_path / name)
            assert there.fingerprint == here.fingerprint
            assert there.classes == here.classes
    assert labels(read_listing(tmp_path / "list.csv")) == [0, 1] * 12
