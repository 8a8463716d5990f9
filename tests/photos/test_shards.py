from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import pytest

from qtable.photos.files import DataError
from qtable.photos.labels import ClassList
from qtable.photos.readers import read_listing
from qtable.photos.readers.shards import list_shards
from qtable.photos.sets import SPLITS, ImageSet
from tests.photos.layouts import labels, photo, samples, tar


@pytest.mark.parametrize("kind", ["cls", "json"])
def test_a_shard_gives_photos_and_labels_lazily(tmp_path: Path, kind: str) -> None:
    shard = tar(tmp_path / "a.tar", samples([3, 12, 3], kind))
    listing = read_listing(shard)
    assert labels(listing) == [3, 12, 3]
    for i, (file, _) in enumerate(listing.photos):
        assert file.name == f"{shard}/{i:06}.png"
        assert pickle.loads(pickle.dumps(file)).read() == photo(i)
        assert len(pickle.dumps(file)) < 500
    assert listing.said[0].startswith(f"{shard}: 3 photos in 1 tar shard; class indices as they stand there")


def test_a_folder_of_shards_is_one_set(tmp_path: Path) -> None:
    for at in range(2):
        tar(tmp_path / f"train-{at:06}.tar", samples(["cat", "ant"] * 8, begin=16 * at))
    images = ImageSet.open(tmp_path)
    assert images.classes == ("ant", "cat")
    assert sum(len(images[split]) for split in SPLITS) == 32
    (tmp_path / "classes.txt").write_text("cow\ncat\nant\n")
    assert set(labels(read_listing(tmp_path, ClassList.open(tmp_path / "classes.txt")))) == {1, 2}
    tar(tmp_path / "val-000000.tar", samples([0]))
    with pytest.raises(DataError, match="shards of the splits val, train"):
        read_listing(tmp_path)


def test_joined_tar_files_are_read_to_the_end(tmp_path: Path) -> None:
    one, two = tar(tmp_path / "1.tar", samples([0, 1])), tar(tmp_path / "2.tar", samples([2, 3]))
    joined = tmp_path / "joined.tar"
    joined.write_bytes(one.read_bytes() + two.read_bytes())
    listing = list_shards([joined], joined)
    assert labels(listing) == [0, 1, 2, 3]
    assert len({file.name for file, _ in listing.photos}) == 4
    assert [file.read() for file, _ in listing.photos] == [photo(0), photo(1), photo(0), photo(1)]


def test_the_shared_joined_shard_has_six_photos(shared: Path) -> None:
    shard = shared / "cases" / "shard" / "concatenated.tar"
    if not shard.exists():
        pytest.skip(f"{shard} is not there")
    assert len(list_shards([shard], shard).photos) == 6


def test_a_shard_that_is_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", samples([0, 1]))
    data, cut = whole.read_bytes(), tmp_path / "cut.tar"
    with tarfile.open(whole) as archive:
        end = archive.getmembers()[-1].offset_data + 512
    assert len(list_shards([whole], whole).photos) == 2
    for size in (*range(1, end, 100), *range(512, end + 1, 512)):
        cut.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"cut\.tar: ") as error:
            list_shards([cut], cut)
        assert "\n" not in str(error.value)
    cut.write_bytes(data[:700])
    with pytest.raises(DataError, match=r"000000\.png is cut off; the file ends too early"):
        list_shards([cut], cut)
    cut.write_bytes(data + b"garbage" * 100)
    with pytest.raises(DataError, match=r"not a tar file from byte"):
        list_shards([cut], cut)
    cut.write_bytes(data[:end] + b"garbage" * 500)
    with pytest.raises(DataError, match=r"not a tar file from byte"):
        list_shards([cut], cut)


def test_keys_end_at_the_first_dot_and_label_maps_are_no_photos(tmp_path: Path) -> None:
    members = [
        ("./x.y/a.png", photo(0)), ("./x.y/a.cls", b"0\n"), ("./x.y/a.seg.png", photo(9)), ("./x.y/a.txt", b"words"),
        ("b.cls", b"1"), ("b.JPG", photo(1)), ("__MACOSX/._b.png", b"fork"), ("._b.png", b"fork"),
    ]  # fmt: skip
    listing = read_listing(tar(tmp_path / "a.tar", members))
    assert labels(listing) == [0, 1]
    assert "2 files of other kinds (.seg.png, .txt) left aside" in listing.said[1]
    assert "hidden or system" in listing.said[2]


def test_a_shard_without_labels_says_so(tmp_path: Path) -> None:
    members = [(f"{i}.png", photo(i)) for i in range(3)]
    listing = read_listing(tar(tmp_path / "a.tar", members))
    assert labels(listing) == [None] * 3
    assert "no labels (no .cls, no .json with label)" in listing.said[0]
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"there is nothing for .* to number"):
        read_listing(tmp_path / "a.tar", ClassList.open(tmp_path / "classes.txt"))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([*samples([0, 1]), ("x.png", photo(2))], "x has no label (.cls, or .json with label), and others have one"),
        ([*samples([0, 1]), *samples(["cat"], begin=2)], "000002 has label 'cat' among class indices such as '0'"),
        ([*samples([0, 1]), ("000001.jpg", photo(2))], "000001.jpg are two photos under one key"),
        ([*samples([0, 1]), ("000001.json", b'{"label": 0}')], "000001: .cls says '1' and .json '0'"),
        ([*samples([0, 1]), ("000001.cls", b"1")], "000001.cls stands twice"),
        ([*samples([0, 1]), ("2.png", photo(2)), ("2.json", b"{")], "2.json: not JSON"),
        ([*samples([0, 1]), ("2.png", photo(2)), ("2.cls", b"\xff")], "2.cls: not text in UTF-8"),
        ([*samples([0, 1]), ("2.png", photo(2)), ("2.cls", b" ")], "2.cls: empty"),
        ([*samples([0, 1]), ("2.png", photo(2)), ("2.json", b'{"label": []}')], "2.json has label '[]'"),
        ([("a.heic", b"x"), ("a.cls", b"0")], "no photos in 1 tar file; it holds 1 file of other kinds (.heic)"),
        ([], "no photos in 1 tar file"),
    ],
)
def test_a_bad_sample_is_named(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(DataError) as error:
        read_listing(tar(tmp_path / "a.tar", members))
    assert message in str(error.value)
    assert str(tmp_path / "a.tar") in str(error.value)


def test_a_link_in_a_shard_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("a.png")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    (tmp_path / "a.tar").write_bytes(file.getvalue())
    with pytest.raises(DataError, match=r"a\.png is no plain file"):
        read_listing(tmp_path / "a.tar")


def test_a_shard_that_changes_behind_the_listing_is_noticed(tmp_path: Path) -> None:
    shard = tar(tmp_path / "a.tar", samples([0, 1] * 12))
    images = ImageSet.open(shard, memory=0)
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(DataError, match=r"a\.tar/0000"):
        images.fit.images[len(images.fit) - 1]
