from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qtable.photos.files import DataError
from qtable.photos.labels import ClassList
from qtable.photos.readers.folders import list_folder
from qtable.photos.sets import SPLITS, ImageSet
from tests.photos.layouts import class_folders, flat, labels, photo


def test_class_folders_are_numbered_alike_whether_one_is_empty_or_not(tmp_path: Path) -> None:
    full = list_folder(class_folders(tmp_path / "full", *"abcdef"))
    root = class_folders(tmp_path / "gap", *"abcdef")
    for file in (root / "c").iterdir():
        file.unlink()
    gap = list_folder(root)
    assert labels(full) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert labels(gap) == [0, 0, 1, 1, 3, 3, 4, 4, 5, 5]
    assert gap.classes == full.classes == tuple("abcdef")
    assert f"{root}: class folders without photos: c; the others keep their numbers" in gap.said


def test_numeric_folders_are_indices_and_one_other_name_among_them_is_refused(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "d", "0", "10", "2")
    assert labels(list_folder(root)) == [0, 0, 10, 10, 2, 2]
    (root / "unsorted").mkdir()
    with pytest.raises(DataError, match="the folder 'unsorted' stands among class indices such as '0'"):
        list_folder(root)
    names = class_folders(tmp_path / "e", "ants", "bees", "7")
    with pytest.raises(DataError, match="the folder '7' stands among names such as 'ants'"):
        list_folder(names)


def test_hidden_and_system_folders_are_no_classes_at_any_depth(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "d", "ants", "bees")
    odd = ["__MACOSX", "@eaDir", ".x", "lost+found", "$RECYCLE.BIN", "System Volume Information", "#recycle"]
    class_folders(root, *odd)
    class_folders(root / "ants", "@eaDir", ".ipynb_checkpoints")
    (root / "bees" / "._0.png").write_bytes(b"resource fork")
    (root / "Thumbs.db").write_bytes(b"")
    listing = list_folder(root)
    assert (labels(listing), listing.classes) == ([0, 0, 1, 1], ("ants", "bees"))
    (line,) = (line for line in listing.said if "hidden or system" in line)
    assert "@eaDir" in line


def test_files_of_other_kinds_are_counted_and_said(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "d", "ants", "bees")
    for name in ("a.heic", "b.HEIC", "c.txt"):
        (root / "ants" / name).write_bytes(b"x")
    assert f"{root}: 3 files of other kinds (.heic, .txt) left aside" in list_folder(root).said


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (("train", "val"), "val"),
        (("train", "validation", "test"), "validation"),
        (("train", "test"), "test"),
        (("Train", "Valid", "meta"), "Valid"),
    ],
)
def test_splits_above_the_classes_are_refused_with_what_to_give(
    tmp_path: Path, names: tuple[str, ...], given: str
) -> None:
    for name in names:
        class_folders(tmp_path / "d" / name, "ants", "bees")
    with pytest.raises(DataError) as error:
        list_folder(tmp_path / "d")
    assert f"are splits, not classes; give one of them: {tmp_path / 'd' / given}" in str(error.value)


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    assert list_folder(class_folders(tmp_path / "d", "bus", "car", "train")).classes == ("bus", "car", "train")
    assert list_folder(class_folders(tmp_path / "e", "exam", "test", "train")).classes == ("exam", "test", "train")


def test_a_class_list_numbers_folders(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "d", "n02", "n07")
    (tmp_path / "classes.txt").write_text("n01\nn02\nn03\nn07\n")
    images = ImageSet.open(class_folders(tmp_path / "e", "n02", "n07", photos=12), classes=tmp_path / "classes.txt")
    assert images.classes == ("n01", "n02", "n03", "n07")
    assert {int(x) for split in SPLITS for x in np.asarray(images[split].annotations)} == {1, 3}
    classes = ClassList.open(tmp_path / "classes.txt")
    assert labels(list_folder(root, classes)) == [1, 1, 3, 3]
    (root / "n09").mkdir()
    with pytest.raises(DataError, match="the folder 'n09' stands, which is none of the 4 in"):
        list_folder(root, classes)


def test_wordnet_folders_without_a_class_list_are_said_to_be_a_guess(tmp_path: Path) -> None:
    listing = list_folder(class_folders(tmp_path / "d", "n01440764", "n02123045"))
    assert labels(listing) == [0, 0, 1, 1]
    assert "a network of all 1000 classes of ImageNet numbers them otherwise; give --classes FILE" in listing.said[0]


def test_a_flat_folder_has_photos_without_labels(tmp_path: Path) -> None:
    root = flat(tmp_path / "d")
    (root / "notes.txt").write_text("x")
    (root / "empty").mkdir()
    images = ImageSet.open(root)
    assert sum(len(images[split]) for split in SPLITS) == 24
    assert images.fit.annotations is images.test.annotations is None
    said = f"{root}: a folder of 24 photos without labels", f"{root}: 1 file of other kinds (.txt) left aside"
    assert images.said == said
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"there is nothing for .* to number"):
        ImageSet.open(root, classes=tmp_path / "classes.txt")


def test_photos_beside_class_folders_are_left_aside_and_said(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "d", "ants", "bees")
    (root / "contact_sheet.png").write_bytes(photo(9))
    assert f"{root}: 1 photo beside the class folders left aside" in list_folder(root).said
    one = class_folders(tmp_path / "e", "ants")
    (one / "loose.png").write_bytes(photo(9))
    with pytest.raises(DataError, match=r"only one class folder with photos \(ants\), and 1 photo beside it"):
        list_folder(one)


def test_copies_are_said(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "d", "ants", "bees", photos=12)
    (root / "ants" / "again.png").write_bytes((root / "ants" / "3.png").read_bytes())
    assert any("1 photo repeated byte for byte" in line for line in ImageSet.open(root).said)
