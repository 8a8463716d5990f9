"""`optimize --encoder task-aware`, and what takes its table files: `compress`, `evaluate`, `report`."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qtable.cli import main
from qtable.codecs.plain import TableCoder, open_coder
from qtable.codecs.task_aware import TaskAware
from qtable.jpeg.codec import Codec
from qtable.jpeg.header import read_header
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive
from qtable.photos.embedded import crops

MODEL = """
from qtable.tasks.embedded import network as net
from tests.codecs.networks import Cut as cut, Small
def other(): return Small(classes=21)
def third(): return Small(1, classes=21)
"""


def qtable(*arguments: str | Path, code: int = 0) -> None:
    """`qtable ARGUMENTS` in this process, recorded as people would have typed it."""
    words = [str(a) for a in arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["qtable", *words])
        with pytest.raises(SystemExit) as ended:
            main(words)
    assert ended.value.code == code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 photos of the embedded task in class folders, and a file of models."""
    root = tmp_path_factory.mktemp("job")
    found = crops("fit")
    for i in np.random.default_rng(0).choice(len(found.images), 60, replace=False):
        place = root / "photos" / f"{found.labels[i]:02}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(found.images[i]).save(place / f"{i}.png")
    for label in range(21):
        (root / "photos" / f"{label:02}").mkdir(exist_ok=True)
    (root / "mine.py").write_text(MODEL)
    return root


def words(folder: Path, out: Path, *more: str | Path, judge: bool = True) -> list[str | Path]:
    mine = folder / "mine.py"
    judges = ["--judge", f"{mine}:third"] if judge else []
    return [
        "optimize", "--data", folder / "photos", "--model", f"{mine}:net", "--metric", "agreement", "--encoder",
        "task-aware", "--budget", "5", "--out", out, *judges, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with a judge."""
    out = tmp_path_factory.mktemp("done") / "run"
    qtable(*words(folder, out))
    return out


def summary_of(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary


def test_a_run_leaves_coders_that_were_measured(folder: Path, done: Path) -> None:
    archive, summary = Archive(done / "archive.jsonl"), summary_of(done)
    paths = sorted((done / "tables").glob("*.json"))
    assert len(paths) == len(summary["front"]) > 0
    assert summary["evaluations"] == 5
    for path, entry in zip(paths, summary["front"], strict=True):
        coder = open_coder(str(path), Codec())
        assert isinstance(coder, TaskAware)
        assert coder.effort == "photo"
        assert coder.networks[0].model == f"{folder / 'mine.py'}:net"
        assert QTables.load(path) == coder.tables
        record = archive.find("test", coder)
        assert record is not None
        assert record.score.bytes == entry["bytes"]
        assert (done / "tables" / f"{path.stem}.txt").exists()
    assert {type(r.score.coder) for r in archive if r.origin == "standard"} == {TableCoder}


def test_the_same_command_again_evaluates_nothing(folder: Path, done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in done.rglob("*") if path.suffix in (".json", ".jsonl", ".npz", ".txt")}
    monkeypatch.setattr(TaskAware, "encode_all", None)
    monkeypatch.setattr(TableCoder, "encode", None)
    qtable(*words(folder, done))
    assert {path: path.read_bytes() for path in before} == before


def test_another_effort_judge_or_network_is_another_run(
    folder: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = folder / "mine.py"
    for changed in (
        words(folder, done, "--effort", "crop"),
        words(folder, done, judge=False),
        words(folder, done, "--model", f"{mine}:other"),
    ):
        capsys.readouterr()
        qtable(*changed, code=1)
        assert "qtable: " in capsys.readouterr().err


def test_a_judge_has_a_line_and_numbers(folder: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    qtable(*words(folder, done))
    text = " ".join(capsys.readouterr().out.split())
    name = f"{folder / 'mine.py'}:third"
    assert f"{name}, by which nothing was chosen: " in text
    (judge,) = summary_of(done)["judges"]
    assert judge["model"] == name
    assert [point["bytes"] for point in judge["front"]] == [point["bytes"] for point in summary_of(done)["front"]]
    assert 0 <= judge["clean"] <= 1


def test_compress_takes_the_tables(
    folder: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = done / "tables" / "001.json"
    short: list[str | Path] = ["compress", folder / "photos", tmp_path / "dst", "--tables", tables, "--workers", "1"]
    qtable(*short, "--model", f"{folder / 'mine.py'}:net")
    made = sorted((tmp_path / "dst").rglob("*.jpg"))
    assert len(made) == 60
    assert all(read_header(path.read_bytes()).tables == QTables.load(tables) for path in made)


# ---- evaluate -------------------------------------------------------------------------------------------------


def evaluated(folder: Path, *more: str | Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    qtable("evaluate", "--data", folder / "photos", "--metric", "agreement", "--json", *more)
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_evaluate_measures_what_the_run_measured(
    folder: Path, done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qtable.codecs.task_aware._lent", {})
    tables = [done / "tables" / f"{i:03}.json" for i in range(1, len(summary_of(done)["front"]) + 1)]
    mine = folder / "mine.py"
    options = [word for path in tables for word in ("--tables", path)]
    own = evaluated(folder, *options, "--tables", "quality:50", "--model", f"{mine}:net", capsys=capsys)
    for entry, result in zip(summary_of(done)["front"], own["results"], strict=False):
        assert (result["bytes"], result["score"]) == (entry["bytes"], entry["score"])
    monkeypatch.setattr("qtable.codecs.task_aware._lent", {})
    judged = evaluated(folder, *options, "--model", f"{mine}:third", "--through", f"{mine}:net", capsys=capsys)
    (judge,) = summary_of(done)["judges"]
    for point, result in zip(judge["front"], judged["results"], strict=True):
        assert (result["bytes"], result["score"]) == (point["bytes"], point["score"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--tables", "{run}/tables/001.json", "--model", "{mine}:third"],
            "--through: these files are made by looking",
        ),
        (
            ["--tables", "{run}/tables/001.json", "--model", "{mine}:third", "--through", "{mine}:other"],
            "name that model; given are others",
        ),
        (["--tables", "quality:50", "--through", "{mine}:net"], "leave --through out"),
    ],
)
def test_evaluate_says_which_network_is_missing(
    folder: Path,
    done: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qtable.codecs.task_aware._lent", {})
    asked = [option.format(run=done, mine=folder / "mine.py") for option in options]
    capsys.readouterr()
    qtable("evaluate", "--data", folder / "photos", "--metric", "agreement", *asked, code=1)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qtable: ")]
    assert message in line


# ---- several networks and refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["task-aware", "tables"])
def test_several_models_are_looked_through_together(folder: Path, tmp_path: Path, encoder: str) -> None:
    mine = folder / "mine.py"
    qtable(
        "optimize", "--data", folder / "photos", "--model", f"{mine}:net", "--model", f"{mine}:other", "--metric",
        "agreement", "--encoder", encoder, "--budget", "4", "--out", tmp_path / "run", "--effort", "crop",
    )  # fmt: skip
    assert (tmp_path / "run" / "statistics-2.npz").exists()
    coder = open_coder(str(tmp_path / "run" / "tables" / "001.json"), Codec())
    if encoder == "tables":
        assert isinstance(coder, TableCoder)
        return
    assert isinstance(coder, TaskAware)
    assert coder.effort == "crop"
    assert [network.model for network in coder.networks] == [f"{mine}:net", f"{mine}:other"]
    tables = tmp_path / "run" / "tables" / "001.json"
    save: list[str | Path] = ["compress", folder / "photos", tmp_path / "dst", "--tables", tables]
    qtable(*save, "--model", f"{mine}:other", "--model", f"{mine}:net", "--workers", "1")
    assert len(list((tmp_path / "dst").rglob("*.jpg"))) == 60


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--workers", "2"], "several networks runs in this process; leave --workers and --cluster out"),
        (["--subsampling", "auto"], "--subsampling auto makes tables for one --model, without --judge"),
        (["--judge", "{mine}:third"], "one of them is named twice"),
        (["--method", "genetic"], "a task-aware front is the closed form's path; leave method and start out"),
        (["--start", "standard"], "leave method and start out"),
        (["--entropy", "progressive"], "optimized Huffman tables, not entropy coding progressive"),
        (["--judge", "{mine}:missing"], "has no callable 'missing'"),
    ],
)
def test_what_cannot_be_gets_one_line(
    folder: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = folder / "mine.py"
    qtable(*words(folder, tmp_path / "run", *(word.format(mine=mine) for word in more)), code=1)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qtable: ")]
    assert message in line
    assert not (tmp_path / "run").exists()


def test_several_networks_are_refused_by_methods_that_would_ask_the_first_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = folder / "mine.py"
    several: list[str | Path] = ["--data", folder / "photos", "--model", f"{mine}:net", "--model", f"{mine}:other"]
    qtable("optimize", *several, "--method", "genetic", "--budget", "2", "--out", tmp_path / "run", code=1)
    assert "tables for several networks are the closed form's path" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_network_without_gradients_is_refused_before_long_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qtable(*words(folder, tmp_path / "run", "--model", f"{folder / 'mine.py'}:cut"), code=1)
    assert "the model gives no gradients to the pixels" in capsys.readouterr().err
    assert not (tmp_path / "run" / "archive.jsonl").exists()


# ---- the report -----------------------------------------------------------------------------------------------


def test_a_report_says_through_what_files_were_made(
    folder: Path, done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, third = f"{folder / 'mine.py'}:net", f"{folder / 'mine.py'}:third"
    monkeypatch.setattr("qtable.codecs.task_aware._lent", {})
    qtable("report", done)
    assert f"made by looking through {name} (weights " in capsys.readouterr().err
    without = (done / "report.html").read_text()
    qtable("report", done, "--through", name)
    assert "without files made anew" not in capsys.readouterr().err
    page = (done / "report.html").read_text()
    for text in (page, without):
        assert f"Its files were made by looking through {name}: " in text
        bare = re.sub(r"<[^>]*>", "", text)
        assert f"--tables {done}/tables/" in bare
        assert f"--subsampling 4:2:0 --entropy optimized --model {shlex.quote(name)}" in bare
        assert bare.index(f"By {third}, by which nothing was chosen, ") < bare.index("Measured with real files")
    assert "taken apart bit by bit" in page
    assert "taken apart bit by bit" not in without
    assert "qtable report RUN --through MODEL makes some" in re.sub(r"<[^>]*>", "", without)
    (done / "report.html").unlink()


def test_a_report_refuses_another_network(
    folder: Path, done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qtable.codecs.task_aware._lent", {})
    qtable("report", done, "--through", f"{folder / 'mine.py'}:other", code=1)
    assert "name that model; given are others" in capsys.readouterr().err
