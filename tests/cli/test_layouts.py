"""Photos in other layouts than class folders, from the command to the report and the smaller files."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qtable.cli import main
from qtable.photos.spec import PhotosSpec
from tests.cli.test_cli import MODEL
from tests.photos.layouts import tar


def photos(count: int = 40) -> list[bytes]:
    """Noise of two strengths, which `MODEL` tells apart."""
    rng, files = np.random.default_rng(0), []
    for i in range(count):
        noise = rng.normal(0, (30, 8)[i % 2], (12, 16, 3)).repeat(2, 0).repeat(2, 1) + 128
        file = io.BytesIO()
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    return files


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "model.py").write_text(MODEL)
    return f"{tmp_path / 'model.py'}:net"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command prints, in this process; its status is checked."""

    def run(*arguments: str | Path, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["qtable", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        assert end.value.code == status, captured.err
        return captured.out + captured.err

    return run


def test_unlabelled_photos_work_from_optimize_to_compress(tmp_path: Path, model: str, said: Callable[..., str]) -> None:
    root, run = tmp_path / "photos", tmp_path / "run"
    root.mkdir()
    for i, data in enumerate(photos()):
        (root / f"{i}.png").write_bytes(data)
    how = ("--data", root, "--model", model, "--metric", "agreement")
    assert f"{root}: a folder of 40 photos without labels" in said("optimize", *how, "--out", run, "--budget", "3")
    tables = run / "tables" / "001.json"
    assert "agreement with the uncompressed answer" in said("evaluate", *how, "--tables", tables)
    assert "could not be opened" not in said("report", run)
    assert (run / "report.html").stat().st_size > 10_000
    said("compress", root, tmp_path / "smaller", "--tables", tables)
    assert len(list((tmp_path / "smaller").glob("*.jpg"))) == 40
    for command in (("evaluate", "--tables", "quality:50"), ("optimize", "--out", tmp_path / "other")):
        words = said(*command, "--data", root, "--model", model, status=1)
        assert "qtable: the photos have no labels; --metric agreement needs none" in words


def test_a_class_list_reaches_every_command(tmp_path: Path, model: str, said: Callable[..., str]) -> None:
    names = (b"strong", b"weak")
    pairs = [((f"{i}.png", data), (f"{i}.cls", names[i % 2])) for i, data in enumerate(photos())]
    shard = tar(tmp_path / "a.tar", [member for pair in pairs for member in pair])
    listed, run = tmp_path / "classes.txt", tmp_path / "run"
    more = ("--data", shard, "--classes", listed, "--model", model)
    for order, clean in (("weak\nstrong\n", "0.0%"), ("strong\nweak\n", "100.0%")):
        listed.write_text(order)
        words = said("evaluate", *more, "--tables", "quality:90")
        assert f"{shard}: 40 photos in 1 tar shard; 2 of the 2 classes in {listed}" in words
        assert f"uncompressed {clean}" in words
    said("optimize", *more, "--out", run, "--budget", "3")
    assert json.loads((run / "summary.json").read_text())["clean"] == 1.0
    assert "could not be opened" not in said("report", run)
    said("compare", *more, "--methods", "random", "--budget", "2", "--seeds", "1", "--out", tmp_path / "compare")
    listed.write_text("strong\nfaint\n")
    words = said("optimize", *more, "--out", run, "--budget", "3", status=1)
    assert f"{tmp_path}/a.tar/1 has label 'weak', which is none of the 2 in {listed}" in words


def test_class_lists_need_photos(said: Callable[..., str]) -> None:
    words = said("evaluate", "--tables", "quality:50", "--classes", "names.txt", status=1)
    assert "the embedded photos have their own classes; --classes needs --data" in words


def test_what_users_name_has_absolute_paths_elsewhere() -> None:
    spec = PhotosSpec("photos", classes="names.txt").absolute()
    assert (spec.source, spec.classes) == (str(Path("photos").absolute()), str(Path("names.txt").absolute()))
    assert PhotosSpec(limit=3).absolute() == PhotosSpec(limit=3)
