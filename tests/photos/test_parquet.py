from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qtable.photos.files import DataError
from qtable.photos.labels import ClassList
from qtable.photos.readers import parquet, read_listing
from qtable.photos.sets import SPLITS, ImageSet
from tests.photos.layouts import labels, photo

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def cells(count: int, begin: int = 0) -> Any:
    return pa.array([{"bytes": photo(i), "path": f"{i}.png"} for i in range(begin, begin + count)], FILE)


def written(
    path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None, rows: int | None = None
) -> Path:
    """As `datasets.Dataset.to_parquet` writes it: what the columns are stands in the schema's metadata."""
    table = pa.table(columns)
    if features is not None:
        noted = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": noted})
    pq.write_table(table, path, row_group_size=rows)
    return path


def features(names: Sequence[str], image: str = "image", label: str = "label") -> dict[str, Any]:
    return {image: {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}


def test_the_layout_of_datasets_is_read_lazily_row_group_by_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"image": cells(10), "label": pa.array([2, 0] * 5)}
    path = written(tmp_path / "train-00000-of-00001.parquet", columns, features(["ant", "bee", "cat"]), rows=4)
    listing = read_listing(path)
    assert labels(listing) == [2, 0] * 5
    assert listing.classes == ("ant", "bee", "cat")
    assert listing.said[0].startswith(f"{path}: 10 photos in column 'image' of 1 Parquet file; class indices")
    read: list[Path] = []
    opened = parquet._opened

    def counted(path: Path, file: Any) -> Any:
        read.append(path)
        return opened(path, file)

    monkeypatch.setattr(parquet, "_opened", counted)
    for i, (file, _) in enumerate(listing.photos):
        again = pickle.loads(pickle.dumps(file))
        assert again.read() == photo(i)
        assert again.name == f"{path}/row {i}"
        assert len(pickle.dumps(file)) < 500
    assert len(read) == 3


def test_a_folder_of_files_is_one_set_and_splits_in_it_are_refused(tmp_path: Path) -> None:
    for at in range(2):
        columns = {"img": cells(16, 16 * at), "label": pa.array(["cat", "ant"] * 8)}
        written(tmp_path / f"train-{at:05}-of-00002.parquet", columns)
    images = ImageSet.open(tmp_path)
    assert images.classes == ("ant", "cat")
    assert sum(len(images[split]) for split in SPLITS) == 32
    found = {label for split in SPLITS for label in np.asarray(images[split].annotations)}
    assert found == {0, 1}
    written(tmp_path / "test-00000-of-00001.parquet", columns)
    with pytest.raises(DataError, match="Parquet files of the splits test, train"):
        read_listing(tmp_path)


def test_plain_bytes_and_a_class_list(tmp_path: Path) -> None:
    columns = {"jpg": pa.array([photo(0), photo(1)]), "label": pa.array([1, 0])}
    path = written(tmp_path / "a.parquet", columns, {"label": {"names": ["cat", "ant"], "_type": "ClassLabel"}})
    assert [file.read() for file, _ in read_listing(path).photos] == [photo(0), photo(1)]
    assert (labels(read_listing(path)), read_listing(path).classes) == ([1, 0], ("cat", "ant"))
    (tmp_path / "classes.txt").write_text("cow\nant\ncat\n")
    by_name = read_listing(path, ClassList.open(tmp_path / "classes.txt"))
    assert (labels(by_name), by_name.classes) == ([1, 2], ("cow", "ant", "cat"))


def test_files_without_labels_say_so(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"image": cells(2), "caption": pa.array(["x", "y"])})
    assert labels(read_listing(path)) == [None, None]
    assert read_listing(path).said[0].endswith("; no labels")
    test = {"image": cells(2), "label": pa.array([-1, -1])}
    hidden = written(tmp_path / "b.parquet", test, features(["ant", "bee"]))
    assert labels(read_listing(hidden)) == [None, None]


def test_cells_without_bytes_are_skipped_with_the_reason(tmp_path: Path) -> None:
    cell = [*({"bytes": photo(i), "path": None} for i in range(24)), {"bytes": None, "path": "x.png"}, None]
    path = written(tmp_path / "a.parquet", {"image": pa.array(cell, FILE), "label": pa.array([0, 1] * 13)})
    images = ImageSet.open(path)
    assert dict(images.skipped) == {
        f"{path}/row 24": "ValueError: the cell names 'x.png' and has no bytes",
        f"{path}/row 25": "ValueError: empty cell",
    }


@pytest.mark.parametrize(
    ("columns", "noted", "message"),
    [
        ({"text": pa.array(["x"])}, None, "no column of photos among text"),
        ({"image": pa.array(["a.png"])}, None, "no column of photos among image"),
        ({"image": cells(1), "img": cells(1)}, None, "2 columns of photos among image, img"),
        (
            {"img": cells(2), "fine": pa.array([0, 1]), "coarse": pa.array([0, 1])},
            features(["a", "b"], "img", "fine") | features(["a", "b"], "img", "coarse"),
            "which of fine, coarse is the label?",
        ),
        ({"image": cells(2), "label": pa.array([0, None])}, None, "row 1 has no label, and others have one"),
        ({"image": cells(2), "label": pa.array(["0", "x"])}, None, "row 1 has label 'x' among class indices"),
        ({"image": cells(2), "label": pa.array([[0], [1]])}, None, "column label holds list"),
    ],
)
def test_what_is_not_clear_is_refused(
    tmp_path: Path, columns: dict[str, Any], noted: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(DataError) as error:
        read_listing(written(tmp_path / "a.parquet", columns, noted))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_differ_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"image": cells(2), "label": pa.array([0, 1])})
    written(tmp_path / "b.parquet", {"img": cells(2), "label": pa.array([0, 1])})
    with pytest.raises(DataError, match="have other columns or class names than each other"):
        read_listing(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.parquet: not a whole Parquet file"):
        read_listing(path)


def test_a_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for begin in (0, 7):
        written(path, {"image": cells(2 + begin, begin), "label": pa.array([0, 1] + [0] * begin)})
        assert read_listing(path).photos[0][0].read() == photo(begin)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.parquet", {"image": cells(2), "label": pa.array([0, 1])})
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=r"Parquet needs pyarrow: pip install 'qtable\[parquet\]'"):
        read_listing(path)


def test_labels_beyond_the_class_names_are_refused_and_unlabelled_photos_have_none(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"image": cells(4), "label": [0, 1, 2, 1]}, features(["x", "y"]))
    with pytest.raises(DataError, match=r"row 2 has label '2', beyond the 2 class names there"):
        read_listing(path)
    path = written(tmp_path / "b.parquet", {"image": cells(4), "label": [-1] * 4}, features(["x", "y"]))
    assert labels(read_listing(path)) == [None] * 4
    path = written(tmp_path / "c.parquet", {"image": cells(4), "label": [0, 1, -1, 1]}, features(["x", "y"]))
    with pytest.raises(DataError, match="row 2 has no label, and others have one"):
        read_listing(path)
