"""`TableCoder` makes the files of its codec, and coders are what their files say."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder, open_coder, save_coder
from qtable.jpeg.codec import ENTROPIES, RGB, SUBSAMPLINGS, Codec
from qtable.jpeg.header import read_header
from qtable.jpeg.modes import Entropy, Subsampling
from qtable.jpeg.tables import QTables

tables = st.integers(1, 3).flatmap(
    lambda count: hnp.arrays(np.int64, (count, 8, 8), elements=st.integers(1, 255)).map(QTables)
)
codecs = st.builds(Codec, st.sampled_from(get_args(Subsampling)), st.sampled_from(get_args(Entropy)))


@given(tables, codecs)
def test_a_coder_is_its_tables_and_its_codec(quantization: QTables, codec: Codec) -> None:
    coder = TableCoder(quantization, codec)
    again = Coder.read(json.loads(json.dumps(coder.written())))
    assert type(again) is TableCoder
    assert again == coder
    assert hash(again) == hash(coder)
    assert again.tables == quantization
    assert {coder: 1}[TableCoder(QTables(quantization.values.copy()), Codec(codec.subsampling, codec.entropy))] == 1
    coarser = QTables(quantization.values.astype(int) % 255 + 1)
    others = [Codec(s, e) for s in SUBSAMPLINGS for e in ENTROPIES if (s, e) != (codec.subsampling, codec.entropy)]
    for other in (TableCoder(coarser, codec), *(TableCoder(quantization, each) for each in others)):
        assert other != coder
    assert codec.subsampling in coder.name
    assert codec.entropy in coder.name


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("entropy", ENTROPIES)
def test_its_files_are_those_of_its_codec(
    photo: RGB, asymmetric: QTables, subsampling: Subsampling, entropy: Entropy
) -> None:
    codec = Codec(subsampling, entropy)
    coder = TableCoder(asymmetric, codec)
    file = coder.encode(photo)
    assert file == codec.encode(photo, asymmetric)
    assert coder.encode_all([photo, photo[::-1].copy()]) == [file, codec.encode(photo[::-1].copy(), asymmetric)]
    assert coder.encode_all([]) == []
    assert np.array_equal(coder.decode(file), codec.decode(file))
    assert read_header(file).tables == asymmetric


def test_without_a_codec_it_has_the_usual_one() -> None:
    assert TableCoder(QTables.flat(3)) == TableCoder(QTables.flat(3), Codec())


# ---- files ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Named(Coder, kind="test-named"):
    """The smallest kind: it has a number, and tables if that is above 0."""

    number: int

    @property
    def name(self) -> str:
        return f"number {self.number}"

    @property
    def tables(self) -> QTables | None:
        return QTables.flat(self.number) if self.number else None

    def encode(self, photo: RGB) -> bytes:
        return bytes([self.number])

    def to_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        number = int(data["number"])
        if number > 255:
            raise ValueError(f"number {number} of " + 9999 * "9")
        return cls(number)


def test_the_file_of_a_table_coder_is_a_table_file(tmp_path: Path, asymmetric: QTables) -> None:
    """So that every version of qtable reads it; how photos are coded is then said by who opens it."""
    save_coder(TableCoder(asymmetric, Codec("4:4:4", "progressive")), tmp_path / "coder.json")
    asymmetric.save(tmp_path / "tables.json")
    assert (tmp_path / "coder.json").read_bytes() == (tmp_path / "tables.json").read_bytes()
    codec = Codec("4:2:2", "standard")
    assert open_coder(str(tmp_path / "coder.json"), codec) == TableCoder(asymmetric, codec)
    assert open_coder("quality:50", codec) == TableCoder(QTables.standard(50), codec)


@pytest.mark.parametrize("number", [0, 7])
def test_the_file_of_another_coder_says_which_it_is(tmp_path: Path, number: int) -> None:
    path = tmp_path / "coder.json"
    save_coder(Named(number), path)
    assert open_coder(str(path), Codec("4:4:4")) == Named(number)
    if number:
        assert QTables.load(path) == QTables.flat(7)  # its tables, for whoever wants no more
    else:
        with pytest.raises(ValueError, match=r"coder\.json: a table file is a JSON object"):
            QTables.load(path)


def test_a_coder_in_a_table_file_comes_with_its_own_codec(tmp_path: Path) -> None:
    coder = TableCoder(QTables.flat(5), Codec("4:4:4", "progressive"))
    (tmp_path / "c.json").write_text(json.dumps({"coder": coder.written()}))
    assert open_coder(str(tmp_path / "c.json"), Codec()) == coder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"coder": {"kind": "future"}},
            "a coder of kind 'future': unknown here; known: tables, task-aware, test-n",
        ),
        ({"coder": {"kind": 9999 * "x"}}, ": unknown here; known: tables"),
        ({"coder": {}}, "KeyError: 'kind'"),
        ({"coder": {"kind": "tables"}}, "KeyError: 'tables'"),
        ({"coder": {"kind": "tables", "tables": [[[0] * 8] * 8]}}, "= 0 is not an integer"),
        (
            {"coder": {"kind": "tables", "tables": [[[1] * 8] * 8], "subsampling": 9999 * "x", "entropy": "standard"}},
            "subsampling 'x+ is unknown; allowed: 4:4:4",
        ),
        (
            {"coder": {"kind": "tables", "tables": [[[1] * 8] * 8], "subsampling": "4:2:0", "entropy": ["standard"]}},
            r"entropy coding \['standard'\] is unknown; allowed: standard",
        ),
        ({"coder": {"kind": "test-named", "number": "x\ny"}}, "invalid literal"),
        ({"coder": {"kind": "test-named", "number": 9999}}, "number 9999 of 9{150}"),
        ({"coder": "tables"}, "a table file is a JSON object"),
        ([], "a table file is a JSON object"),
        (None, "a table file is a JSON object"),
    ],
)
def test_files_of_no_coder_are_refused_in_a_short_line(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"c\.json: .*{message}") as error:
        open_coder(str(tmp_path / "c.json"), Codec())
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", 5000 * b"[", b'{"coder": {"kind": "tables"}}' + bytes(9)])
def test_files_of_no_json_are_refused_in_a_short_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.json: ") as error:
        open_coder(str(tmp_path / "c.json"), Codec())
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400 + len(str(tmp_path))


def test_a_file_that_is_not_there_and_one_without_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json': no such file"):
        open_coder(str(tmp_path / "none.json"), Codec())
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(1 << 27)  # takes no disk
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"large\.json: larger than"):
        open_coder(str(tmp_path / "large.json"), Codec())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 26
