from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qtable.codecs.plain import TableCoder
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive, ArchiveError, Record
from qtable.measure.evaluate import Score
from qtable.tasks.classification import METRICS, ClassOutcomes
from qtable.tasks.several import SideBySide

HEADER = {"identity": {"data": "abc", "seed": 0}, "command": "qtable optimize"}


def outcomes(photos: int, rng: np.random.Generator, share: float = 0.5) -> ClassOutcomes:
    hits = {name: rng.random(photos) < share for name in METRICS}
    return ClassOutcomes("top-1", hits, rng.exponential(1, photos).astype(np.float32))


def coder(step: int) -> TableCoder:
    return TableCoder(QTables.flat(step))


def record(step: int) -> Record:
    rng = np.random.default_rng(step)
    return Record("search", "random", Score(coder(step), rng.integers(1, 999, 5), outcomes(5, rng)))


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    with Archive(tmp_path / "a.jsonl", HEADER) as archive:
        for step in (3, 5, 9):
            archive.append(record(step))
    again = Archive(tmp_path / "a.jsonl")
    assert again.header["identity"] == HEADER["identity"]
    assert [r.score.tables for r in again] == [QTables.flat(3), QTables.flat(5), QTables.flat(9)]
    found = again.find("search", coder(5))
    assert found is not None
    assert np.array_equal(found.score.photo_bytes, record(5).score.photo_bytes)
    assert found.score.coder == coder(5)
    assert found.score.outcomes.written() == record(5).score.outcomes.written()
    assert found.score.score == record(5).score.score
    assert again.find("test", coder(5)) is None
    assert again.find("search", TableCoder(QTables.flat(5), Codec("4:4:4"))) is None  # the same tables, other files


def test_a_torn_last_line_is_dropped_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Archive(path, HEADER) as archive:
        archive.append(record(3))
        whole = path.stat().st_size
        archive.append(record(5))
    data = path.read_bytes()
    for cut in range(whole, len(data), 7):
        path.write_bytes(data[:cut])
        assert len(Archive(path)) == 1
        with Archive(path, HEADER) as archive:
            archive.append(record(7))
        assert [r.score.tables for r in Archive(path)] == [QTables.flat(3), QTables.flat(7)]


def test_a_torn_header_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"qtable": 2, "iden')
    with Archive(tmp_path / "a.jsonl", HEADER) as archive:
        archive.append(record(3))
    assert len(Archive(tmp_path / "a.jsonl")) == 1


def test_another_run_is_refused_by_what_differs(tmp_path: Path) -> None:
    Archive(tmp_path / "a.jsonl", HEADER).close()
    with pytest.raises(ArchiveError, match="holds another run: --seed was 0, now 1; choose another --out"):
        Archive(tmp_path / "a.jsonl", {"identity": {"data": "abc", "seed": 1}})


@pytest.mark.parametrize("text", ["{}\n", "hello\n", '{"qtable": 1}\n', '{"qtable": 3}\n', "\n"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ArchiveError, match=r"a\.jsonl"):
        Archive(tmp_path / "a.jsonl")


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Archive(path, HEADER) as archive:
        archive.append(record(3))
        archive.append(record(5))
    lines = path.read_text().splitlines(keepends=True)
    bad = json.loads(lines[1])
    bad["coder"]["tables"] = [[[0] * 8] * 8]
    path.write_text(lines[0] + json.dumps(bad) + "\n" + lines[2])
    with pytest.raises(ArchiveError, match="line 2"):
        Archive(path)


def test_a_full_disk_leaves_whole_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    path = tmp_path / "a.jsonl"
    write = os.write
    with Archive(path, HEADER) as archive:
        archive.append(record(3))
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:100]))
        with pytest.raises(OSError, match="disk full"):
            archive.append(record(5))
        monkeypatch.undo()
        archive.append(record(7))
    assert [r.score.tables for r in Archive(path)] == [QTables.flat(3), QTables.flat(7)]


def test_nothing_is_written_through_an_archive_opened_for_reading(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no archive"):
        Archive(tmp_path / "none.jsonl")
    Archive(tmp_path / "a.jsonl", HEADER).close()
    with pytest.raises(ArchiveError, match="reading only"):
        Archive(tmp_path / "a.jsonl").append(record(3))


def test_a_second_writer_is_refused_and_loses_nothing(tmp_path: Path) -> None:
    with Archive(tmp_path / "a.jsonl", HEADER) as first:
        first.append(record(3))
        with pytest.raises(ArchiveError, match="another run is writing"):
            Archive(tmp_path / "a.jsonl", HEADER)
        first.append(record(5))
    assert len(Archive(tmp_path / "a.jsonl")) == 2


def test_a_record_of_two_tasks_on_a_thousand_photos_takes_less_than_20_kb(tmp_path: Path) -> None:
    """As random as outcomes can be: half of the answers right, losses of which no two are equal."""
    rng = np.random.default_rng(0)
    both = SideBySide((outcomes(1000, rng), outcomes(1000, rng)))
    tables = QTables(rng.integers(1, 256, (3, 8, 8)))
    score = Score(TableCoder(tables), rng.integers(1000, 99_999, 1000), both)
    with Archive(tmp_path / "a.jsonl", HEADER) as archive:
        archive.append(Record("test", "random", score))
    _, line = (tmp_path / "a.jsonl").read_bytes().splitlines()
    assert len(line) < 20_000
    found = Archive(tmp_path / "a.jsonl").find("test", TableCoder(tables))
    assert found is not None
    assert found.score.outcomes.written() == both.written()
