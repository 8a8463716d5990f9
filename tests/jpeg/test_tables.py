from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from qtable.jpeg.header import read_header
from qtable.jpeg.tables import PRESETS, ZIGZAG, QTables, scale

entries = hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(8), st.just(8)), elements=st.integers(1, 255))


@pytest.mark.parametrize("quality", range(1, 101))
def test_standard_equals_what_libjpeg_turbo_writes(quality: int) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
    assert read_header(file.getvalue()).tables == QTables.standard(quality)


@pytest.mark.parametrize("number", range(9))
def test_presets_equal_what_mozjpeg_writes(number: int) -> None:
    pyvips = pytest.importorskip("pyvips")
    data = pyvips.Image.black(16, 16, bands=3).jpegsave_buffer(Q=50, quant_table=number)
    file = read_header(data).tables
    assert np.array_equal(file.components(), QTables.preset(f"mozjpeg-{number}").components())


def test_zigzag_begins_as_the_standard_draws_it() -> None:
    assert ZIGZAG[:10].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]
    assert sorted(ZIGZAG.tolist()) == list(range(64))


@given(entries)
def test_zigzag_and_json_round_trip(values: Any) -> None:
    tables = QTables(values)
    assert QTables.from_zigzag(tables.zigzag()) == tables
    assert QTables.from_dict(json.loads(json.dumps(tables.to_dict()))) == tables


@given(entries)
def test_equality_and_hash_go_by_content(values: Any) -> None:
    tables, same = QTables(values), QTables(values.copy())
    assert tables == same
    assert len({tables, same}) == 1
    other = values.copy()
    other[0, 3, 5] = 1 + other[0, 3, 5] % 255
    assert tables != QTables(other)


def test_save_and_load(tmp_path: Path, asymmetric: QTables) -> None:
    asymmetric.save(tmp_path / "t.json")
    assert QTables.load(tmp_path / "t.json") == asymmetric
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_values_do_not_change_under_the_tables() -> None:
    source = np.full((1, 8, 8), 9, np.uint8)
    tables = QTables(source)
    source[:] = 1
    assert tables == QTables.flat(9)
    with pytest.raises(ValueError, match="read-only"):
        tables.values[0, 0, 0] = 1


@pytest.mark.parametrize("bad", [0, 256, -1, float("nan"), float("inf"), 1.5])
def test_bad_entries_are_refused_by_name(bad: float) -> None:
    values = np.full((2, 8, 8), 16.0)
    values[1, 2, 3] = bad
    with pytest.raises(ValueError, match=r"entry \[1,2,3\] = .* 1\.\.255"):
        QTables(values)


@pytest.mark.parametrize(
    "bad", [np.ones((4, 8, 8)), np.ones(64), np.ones((0, 8, 8)), [[1, 2], [3]], "abc", None, {}, 10**400]
)
def test_bad_shapes_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="t = 1, 2 or 3"):
        QTables(bad)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"values": 3}',
        '{"values": [[[1]]], "order": "natural"}',
        "\x00\xff",
        '{"values":' + "[" * 10_000,
        "nan",
    ],
)
def test_malformed_table_files_are_refused_with_their_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"bad\.json"):
        QTables.load(tmp_path / "bad.json")


@pytest.mark.parametrize("quality", [0, 101, 50.5, -3, True])
def test_quality_outside_1_to_100_is_refused(quality: Any) -> None:
    with pytest.raises(ValueError, match=r"1\.\.100"):
        scale(np.ones((8, 8), int), quality)


def test_parse_understands_what_people_type(tmp_path: Path) -> None:
    QTables.flat(7).save(tmp_path / "t.json")
    assert QTables.parse(str(tmp_path / "t.json")) == QTables.flat(7) == QTables.parse("flat:7")
    assert QTables.parse("quality:30") == QTables.standard(30) == QTables.parse("annex-k:30")
    assert all(QTables.parse(name) == QTables.preset(name) for name in PRESETS)
    with pytest.raises(ValueError, match="whole number"):
        QTables.parse("quality:high")
    for bad in ("quality", "quality:", "mozjpeg-9", ""):
        with pytest.raises(ValueError, match="no such file; allowed"):
            QTables.parse(bad)


def test_components_assign_tables_as_jpeg_does() -> None:
    one, two, three = (QTables(np.arange(1, t + 1).repeat(64).reshape(t, 8, 8)) for t in (1, 2, 3))
    assert [t.components()[:, 0, 0].tolist() for t in (one, two, three)] == [[1, 1, 1], [1, 2, 2], [1, 2, 3]]


def test_nearest_quality_and_repr() -> None:
    assert QTables.standard(37).nearest_quality() == (37, 0.0)
    text = repr(QTables.standard(50))
    assert "q50" in text
    assert "16  11  10" in text
    assert QTables.flat(3).nearest_quality()[1] > 0
    assert QTables(QTables.standard(37).values[:1]).nearest_quality(components=1) == (37, 0.0)


def test_a_file_of_another_kind_is_said_to_be_no_table_file(tmp_path: Path) -> None:
    for text in ("junk", "{0: [16, 11]}", "", "[[[16"):  # among them Pillow's print(im.quantization)
        (tmp_path / "t.json").write_text(text)
        with pytest.raises(
            ValueError, match=r"t\.json: not a JSON table file; qtable import .*t\.json -o TABLES\.json"
        ):
            QTables.load(tmp_path / "t.json")
    (tmp_path / "t.json").write_text('{"values": [1,')
    with pytest.raises(ValueError, match=r"t\.json: not a JSON table file: Expecting value: line 1 column 15"):
        QTables.load(tmp_path / "t.json")
