"""Commands on photos in a bucket of an S3 server: what they make is what they make of the same photos here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from qtable.storage import store
from tests.cli.test_layouts import model, photos, said

__all__ = ["model", "said"]


def written(place: str) -> str:
    """Class folders, and a list of the two classes."""
    there = store(place)
    for i, data in enumerate(photos()):
        there.write(f"photos/{('strong', 'weak')[i % 2]}/{i}.png", data)
    there.write("classes.txt", b"strong\nweak\n")
    return place


def test_commands_take_photos_from_a_bucket(tmp_path: Path, s3: str, model: str, said: Callable[..., str]) -> None:
    """Workers, too: each opens them itself."""
    here, there = written(str(tmp_path / "d")), written(f"{s3}/d")
    work = {"here": (here,), "there": (there,), "workers": (there, "--workers", "2")}
    if importlib.util.find_spec("distributed") is None:
        del work["workers"]
    tables = {}
    for run, (place, *more) in work.items():
        how = ("--data", f"{place}/photos", "--classes", f"{place}/classes.txt", "--model", model)
        words = said("optimize", *how, "--out", tmp_path / run, "--budget", "3", "--limit", "36", *more)
        assert f"{place}/photos: 40 photos in 2 class folders; 2 of the 2 classes in {place}/classes.txt" in words
        tables[run] = {path.name: path.read_bytes() for path in (tmp_path / run / "tables").iterdir()}
    assert all(found == tables["here"] for found in tables.values())
    assert "could not be opened" not in said("report", tmp_path / "there")
    assert (tmp_path / "there" / "report.html").stat().st_size > 10_000
    assert "uncompressed 100.0%" in said("evaluate", *how, "--tables", tmp_path / "there" / "tables" / "001.json")
    said("compare", *how, "--methods", "random", "--budget", "2", "--seeds", "1", "--out", tmp_path / "compare")


def test_places_that_cannot_be_read_are_one_line(
    tmp_path: Path, s3: str, model: str, said: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ("--model", model, "--out", tmp_path / "run", "--budget", "3")
    for place, reason in (
        (f"{s3}-none/d", f"{s3}-none/d: no such bucket"),
        (f"{s3}/none", f"{s3}/none: no such folder, or nothing in it"),
        ("s3://", "s3://: no bucket or folder is named"),
        ("ftp://a/b", "ftp://a/b: ftp:// is not known; allowed: s3://"),
    ):
        lines = [
            line
            for line in said("optimize", "--data", place, *how, status=1).splitlines()
            if line and "executes" not in line
        ]
        assert len(lines) == 1
        assert lines[0].startswith(f"qtable: {reason}")
    monkeypatch.setattr("qtable.storage.remote.find_spec", lambda name: None)
    words = said("optimize", "--data", f"{s3}/d", *how, status=1)
    assert f"{s3}/d: s3:// needs s3fs: pip install 'qtable[s3]'" in words
