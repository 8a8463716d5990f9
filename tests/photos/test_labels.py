from __future__ import annotations

import json
from pathlib import Path

import pytest

from qtable.photos.files import DataError
from qtable.photos.labels import ClassList, numbered


def tell(i: int) -> str:
    return f"line {i + 1} has a label"


def written(folder: Path, text: str) -> ClassList:
    (folder / "classes").write_text(text, encoding="utf-8")
    return ClassList.open(folder / "classes")


def test_numbers_are_indices_and_names_are_numbered_in_alphabetical_order() -> None:
    assert list(numbered("x", ["10", "2", "3.0", "002"], tell).indices) == [10, 2, 3, 2]
    order = numbered("x", ["cat", "ant", "cat"], tell)
    assert (list(order.indices), order.classes) == ([1, 0, 1], ("ant", "cat"))
    assert order.said == "classes 0 to 1 in alphabetical order: ant, cat"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["0", "1", "unknown", "2"], "line 3 has a label among class indices such as '0'"),
        (["cat", "dog", "7"], "line 3 has a label among names such as 'cat'"),
        (["0", "-1"], "line 2 has a label; a class index is a whole number from 0 on"),
        (["0", "1.5"], "line 2 has a label; a class index is a whole number from 0 on"),
        (["0", "nan"], "line 2 has a label among class indices"),
        (["0", "9" * 5000], "is too large; at most 2,147,483,647 is allowed"),
        (["0", "2147483648"], "class index 2147483648 is too large"),
        (["cat", "cat"], "1 different labels; accuracy needs at least two"),
    ],
)
def test_no_index_is_guessed_from_a_mixture(words: list[str], message: str) -> None:
    with pytest.raises(DataError) as error:
        numbered("x", words, tell)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_wordnet_ids_of_a_part_of_imagenet_are_said_to_be_numbered_by_themselves() -> None:
    few = [f"n{i:08}" for i in range(3)]
    assert "a network of all 1000 classes of ImageNet numbers them otherwise" in numbered("x", few, tell).said
    assert "otherwise" not in numbered("x", [f"n{i:08}" for i in range(1000)], tell).said
    assert "otherwise" not in numbered("x", [*few, "cat"], tell).said


def test_a_class_list_has_one_meaning_in_all_its_forms(tmp_path: Path) -> None:
    keras = {"1": ["n02", "cat"], "0": ["n01", "ant"], "2": ["n03", "dog"]}
    forms = [
        "ant\ncat\ndog\n",
        "\ufeffant\r\ncat\r\ndog",
        json.dumps(["ant", "cat", "dog"]),
        json.dumps({"dog": 2, "ant": 0, "cat": 1}),
        json.dumps({"2": "dog", "0": "ant", "1": "cat"}),
        json.dumps({"model_type": "vit", "id2label": {"0": "ant", "1": "cat", "2": "dog"}}),
        json.dumps(keras),
        "n00000001 ant\nn00000002 cat\nn00000003 dog\n",
    ]
    for text in forms:
        classes = written(tmp_path, text)
        assert classes.names == ("ant", "cat", "dog"), text
        order = numbered("x", ["dog", "ant"], tell, classes)
        assert (list(order.indices), order.classes) == ([2, 0], classes.names)
        assert list(numbered("x", ["2", "1.0"], tell, classes).indices) == [2, 1]
    assert list(numbered("x", ["n03", "cat"], tell, written(tmp_path, json.dumps(keras))).indices) == [2, 1]
    assert list(numbered("x", ["n00000003", "cat"], tell, written(tmp_path, forms[-1])).indices) == [2, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cat", "cow"], "line 2 has a label, which is none of the 3 in"),
        (["cat", "1"], "line 2 has a label, which is none of the 3 in"),
        (["0", "3"], "line 2 has a label; "),
        (["crane", "n04"], "line 1 has a label, which stands for two of the 3 in"),
    ],
)
def test_labels_beyond_the_class_list_are_refused(tmp_path: Path, words: list[str], message: str) -> None:
    text = json.dumps({"0": ["n04", "crane"], "1": ["n05", "crane"], "2": ["n06", "cat"]})
    classes = written(tmp_path, text)
    assert list(numbered("x", ["n05", "cat"], tell, classes).indices) == [1, 2]
    with pytest.raises(DataError) as error:
        numbered("x", words, tell, classes)
    assert message in str(error.value)
    assert str(classes.path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ant\n\ncat\n", "line 2 is empty"),
        ("ant\ncat\nant\n", "'ant' stands for index 0 and for 2"),
        ('["ant", "ant"]', "'ant' stands for index 0 and for 1"),
        ('["ant", ""]', "class 1 is ''"),
        ('["ant", 3]', "class 1 is 3"),
        ('{"ant": 0, "cat": 0}', "'ant' and 'cat' both have index 0"),
        ('{"ant": 0, "cat": 2}', "none has index 1"),
        ('{"ant": 0, "ant": 1}', "'ant' stands twice"),
        ('{"0": "ant", "2": "cat"}', "none has index 1"),
        ('{"a": {"b": 1}}', "none has index 0"),
        ("[[[", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("ant", "1 class names"),
        ("", "0 class names"),
    ],
)
def test_other_class_lists_are_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        written(tmp_path, text)
    assert message in str(error.value)
    assert str(tmp_path / "classes") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_class_list_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        ClassList.open(tmp_path / "none")
    with pytest.raises(DataError, match="no class list: not a file of at most"):
        ClassList.open(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a class list in UTF-8"):
        ClassList.open(tmp_path / "binary")
