from __future__ import annotations

import json
from pathlib import Path

import pytest

from qtable.photos.files import DataError
from qtable.photos.labels import ClassList
from qtable.photos.readers import read_listing
from qtable.photos.readers.lists import list_csv, list_jsonl
from tests.photos.layouts import class_folders, flat, labels


def written(folder: Path, text: str, name: str = "list.csv") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.png,3\nb c.png,12\n",
        "\ufeffpath,label\r\na.png,3\r\nb c.png,12",
        "path;label\na.png;3\nb c.png;12\n",
        "label\tsize\tpath\n3\t1\ta.png\n12\t\tb c.png\n",
        'file_name,label\na.png,3.0\n"b c.png","12"\n',
        "filename,label,\na.png,3,\nb c.png,12,\n",
        " Image , Label \na.png, 3\nb c.png,12 \n",
        "\n\npath,label\n\na.png,3\n\nb c.png,12\n\n",
    ],
)
def test_one_list_in_many_spellings(tmp_path: Path, text: str) -> None:
    listing = list_csv(written(tmp_path, text))
    assert labels(listing) == [3, 12]
    assert [file.name for file, _ in listing.photos] == [str(tmp_path / "a.png"), str(tmp_path / "b c.png")]
    assert listing.said[0].startswith(f"{tmp_path / 'list.csv'}: a CSV list of 2 photos; class indices as they stand")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,0\npath,label\nb.png,1\n", "line 3 has the names of the columns again"),
        ("path,label\na.png,0\nb.png,1\nc.png,unknown\n", "line 4 has label 'unknown' among class indices such as '0'"),
        ("path,label\na.png,0\n\n\nb.png,-1\n", "line 5 has label '-1'"),
        ('path,label,note\na.png,0,"two\nlines"\n\nb.png,\n', "line 5 has no path or no label"),
        ("path,label\na.png,0\nb.png,1\n./a.png,1\n", "lines 2 and 4 give './a.png' two labels, '0' and '1'"),
        ("path,label\na,b.png,0\nb.png,1\n", "line 2 has 3 cells, the first line names 2; quote commas"),
        ("path\na.png\n,\n", "line 3 has no path"),
        ("a.png,0\nb.png,1\n", "its first line must name the columns path,label; it is 'a.png,0'"),
        ("", "its first line must name the columns path,label; it is ''"),
    ],
)
def test_a_bad_line_is_named_by_its_number_in_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        list_csv(written(tmp_path, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_photo_that_is_named_again_counts_once(tmp_path: Path) -> None:
    text = f"path,label\na.png,0\nb.png,1\n./a.png,0.0\nx/../b.png,1\n{tmp_path}/a.png,0\n"
    listing = list_csv(written(tmp_path, text))
    assert labels(listing) == [0, 1]
    assert listing.said[1].endswith("3 repeated rows (the first: line 4); each photo counts once")


def test_a_list_without_labels_says_so(tmp_path: Path) -> None:
    listing = list_csv(written(tmp_path, "path,class\na.png,x\nb.png,y\n"))
    assert labels(listing) == [None, None]
    assert listing.said == (f"{tmp_path / 'list.csv'}: a CSV list of 2 photos; no labels (its columns: path, class)",)


def test_names_are_numbered_in_alphabetical_order_or_by_a_class_list(tmp_path: Path) -> None:
    path = written(tmp_path, "path,label\na.png,dog\nb.png,ant\n")
    assert labels(list_csv(path)) == [1, 0]
    classes = ClassList.open(written(tmp_path, '{"ant": 2, "dog": 0, "cat": 1}', "classes.json"))
    assert (labels(list_csv(path, classes)), list_csv(path, classes).classes) == ([0, 2], ("dog", "cat", "ant"))
    other = written(tmp_path, "path,label\na.png,dog\nb.png,cow\n")
    with pytest.raises(DataError, match="line 3 has label 'cow', which is none of the 3 in"):
        list_csv(other, classes)


def test_json_lines_as_datasets_writes_them(tmp_path: Path) -> None:
    lines = [{"file_name": "a.png", "label": 3, "text": "x"}, {"file_name": "b.png", "label": 12.0}]
    text = "\n\n".join(map(json.dumps, lines))
    assert labels(list_jsonl(written(tmp_path, text, "metadata.jsonl"))) == [3, 12]
    captions = "".join(json.dumps({"file_name": f"{i}.png", "text": "x"}) + "\n" for i in range(2))
    assert labels(list_jsonl(written(tmp_path, captions, "metadata.jsonl"))) == [None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file_name": "a.png", "label": 0}\n\n[1]\n', "line 3 is no JSON object"),
        ('{"file_name": "a.png", "label": 0}\n' + 5000 * "[" + "\n", "line 2 is no JSON object"),
        ('{"name": "a.png"}\n', "line 1 names no photo"),
        ('{"file_name": "a.png", "label": 0}\n{"file_name": "b.png"}\n', "line 2 has no path or no label"),
        ('{"file_name": "a.png", "label": [0]}\n', "line 1 has label '[0]'"),
        ('{"file_name": "a.png", "label": true}\n', "line 1 has label 'True'"),
        ('{"file_name": "a.png", "label": 0}\n{"file_name": "b.png", "label": "x"}\n', "line 2 has label 'x' among"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        list_jsonl(written(tmp_path, text, "list.jsonl"))
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["labels.csv", "metadata.csv", "metadata.jsonl"])
def test_a_list_in_the_folder_says_what_its_photos_are(tmp_path: Path, name: str) -> None:
    root = flat(tmp_path / "d", photos=3)
    if name.endswith("csv"):
        written(root, "file_name,label\n00.png,5\n02.png,7\n", name)
    else:
        written(root, '{"file_name": "00.png", "label": 5}\n{"file_name": "02.png", "label": 7}\n', name)
    assert labels(read_listing(root)) == [5, 7]


def test_two_lists_in_a_folder_are_refused_and_other_metadata_is_none(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "d", "ants", "bees")
    written(root, "isic_id,age\n1,50\n", "metadata.csv")
    assert labels(read_listing(root)) == [0, 0, 1, 1]
    written(root, "path,label\nants/0.png,5\nbees/0.png,7\n", "labels.csv")
    assert labels(read_listing(root)) == [5, 7]
    written(root, "file_name,label\nants/0.png,4\n", "metadata.csv")
    with pytest.raises(DataError, match=r"labels\.csv and metadata\.csv both list photos"):
        read_listing(root)
