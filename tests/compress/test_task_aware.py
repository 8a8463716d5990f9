"""Folders written anew by looking through a network: the same promises as with plain tables."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qtable import compress as module
from qtable.cli import main
from qtable.codecs.plain import save_coder
from qtable.codecs.task_aware import Network, TaskAware, lend
from qtable.compress import JOURNAL, MANIFEST, PART, CompressError, Recipe, compress, processes
from qtable.jpeg.codec import RGB, Codec, decode
from qtable.jpeg.coefficients import exact_size, read_coefficients
from qtable.jpeg.header import read_header
from qtable.jpeg.tables import QTables
from qtable.photos.embedded import crops
from qtable.tasks.base import ModelError
from qtable.tasks.classification import Classifier
from qtable.tasks.opening import TaskSpec
from tests.codecs.networks import Broken, usual
from tests.compress.test_compress import exit_code, files, rows, started, succeeds

MODEL = """
from torch import nn
from qtable.tasks.embedded import network as net
from tests.codecs.networks import Broken as broken, Cut as cut, Small as other
"""


@pytest.fixture(scope="module")
def photos() -> list[RGB]:
    return list(crops("fit").images[::6])


def write(folder: Path, photos: list[RGB]) -> Path:
    for i, photo in enumerate(photos):
        (folder / f"{i % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(folder / f"{i % 3}" / f"{i:03}.png")
    (folder / "labels.csv").write_text("path,label\n0/000.png,0\n")
    return folder


@pytest.fixture(scope="module")
def source(photos: list[RGB], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 photos in three folders, and another file."""
    return write(tmp_path_factory.mktemp("source") / "src", photos[:60])


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> TaskAware:
    """Looks through the embedded network, as a user's file names it."""
    model = tmp_path_factory.mktemp("model") / "mine.py"
    model.write_text(MODEL)
    spec = TaskSpec(f"{model}:net", "agreement")
    network = Network.of(spec, spec.open(), usual())
    return TaskAware(QTables.standard(25), 0.02, (network,), codec=Codec("4:2:0"))


@pytest.fixture(scope="module")
def tables(coder: TaskAware, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "001.json"
    save_coder(coder, path)
    return path


@pytest.fixture(scope="module")
def model(coder: TaskAware) -> str:
    return str(coder.networks[0].model)


def command(source: Path, target: Path, tables: Path, *more: str) -> list[str]:
    return ["compress", str(source), str(target), "--tables", str(tables), *more]


@pytest.fixture(scope="module")
def whole(source: Path, tables: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run leaves, in a process of its own that has as many threads as there are cores."""
    target = tmp_path_factory.mktemp("undisturbed") / "dst"
    words = [sys.executable, "-m", "qtable.cli", *command(source, target, tables, "--model", model, "--workers", "2")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("60 photos: ")
    assert f"--model executes code of {model.partition(':')[0]}" in done.stderr
    return files(target)


def test_each_file_is_what_the_coder_makes_of_its_photo(
    coder: TaskAware, photos: list[RGB], whole: dict[str, bytes]
) -> None:
    for i, photo in enumerate(photos[:60]):
        file = whole[f"{i % 3}/{i:03}.jpg"]
        assert file == coder.encode(photo)
        assert read_header(file).tables == coder.tables
        assert read_header(file).frame == 0
        assert len(file) == exact_size(read_coefficients(file), coder.tables.count, "4:2:0")
        with Image.open(io.BytesIO(file)) as image:
            assert np.array_equal(np.asarray(image), decode(file))
    assert any(whole[f"0/{i:03}.jpg"] != Codec().encode(photos[i], coder.tables) for i in range(0, 60, 3))
    assert len([name for name in whole if name.endswith(".jpg")]) == 60


@pytest.mark.parametrize("workers", ["1", "2"])
def test_any_number_of_workers_makes_the_same_bytes(
    source: Path, tables: Path, model: str, whole: dict[str, bytes], tmp_path: Path, workers: str
) -> None:
    succeeds(command(source, tmp_path / "dst", tables, "--model", model, "--workers", workers))
    assert files(tmp_path / "dst") == whole


def killed_and_run_again(words: list[str], goals: list[int], target: Path, whole: dict[str, bytes]) -> None:
    journaled = 0
    for goal in goals:
        assert exit_code(started(words, goal, lambda: os.killpg(0, signal.SIGKILL))) == -signal.SIGKILL
        left = files(target)
        assert left.pop(JOURNAL).count(b"\n") >= journaled + goal
        journaled += goal - 1
        for name in left:
            assert name.startswith(PART) or left[name] == whole[name], name
    assert exit_code(started(words, 0, print)) == 0
    assert files(target) == whole


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigkill_twice_then_again_is_an_undisturbed_run(
    source: Path,
    tables: Path,
    model: str,
    whole: dict[str, bytes],
    tmp_path: Path,
    workers: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CHUNK_PHOTOS", 8)
    before = files(source)
    words = command(source, tmp_path / "dst", tables, "--model", model, "--workers", workers)
    killed_and_run_again(words, [11, 14], tmp_path / "dst", whole)
    assert files(source) == before


@pytest.mark.slow
def test_500_photos_survive_sigkill(photos: list[RGB], tables: Path, model: str, tmp_path: Path) -> None:
    assert len(photos) >= 500
    source = write(tmp_path / "src", photos[:500])
    words = [*command(source, tmp_path / "whole", tables, "--model", model, "--workers", "2")]
    subprocess.run([sys.executable, "-m", "qtable.cli", *words], check=True, timeout=300, capture_output=True)
    whole = files(tmp_path / "whole")
    assert len([row for row in rows(tmp_path / "whole") if row["action"] == "compressed"]) == 500
    goals = np.random.default_rng(0).integers(1, 150, 3).tolist()
    words = command(source, tmp_path / "dst", tables, "--model", model, "--workers", "2")
    killed_and_run_again(words, goals, tmp_path / "dst", whole)


def test_a_finished_run_asks_no_network(
    source: Path, tables: Path, model: str, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = command(source, tmp_path / "dst", tables, "--model", model, "--workers", "1")
    succeeds(words)
    monkeypatch.setattr(Recipe, "__call__", None)
    succeeds(words)
    assert files(tmp_path / "dst") == whole


def test_from_python(source: Path, coder: TaskAware, whole: dict[str, bytes], tmp_path: Path) -> None:
    spec = TaskSpec(coder.networks[0].model, "agreement")
    compress(source, tmp_path / "one", coder, models=[spec])
    assert files(tmp_path / "one") == whole
    compress(source, tmp_path / "two", coder, models=[spec], workers=2)
    assert files(tmp_path / "two") == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda coder: replace(coder, multiplier=0.03),
        lambda coder: replace(coder, effort="crop"),
        lambda coder: replace(coder, look=replace(coder.look, seed=1)),
        lambda coder: replace(coder, quantization=QTables.standard(26)),
    ],
)
def test_another_coder_on_the_same_target_is_refused(
    source: Path, coder: TaskAware, tmp_path: Path, change: Callable[[TaskAware], TaskAware]
) -> None:
    compress(source, tmp_path / "dst", coder)
    other = change(coder)
    identities = [Recipe(each).identity() for each in (coder, other)]
    (name,) = [key for key, value in identities[0].items() if identities[1][key] != value]
    with pytest.raises(CompressError, match=f"holds another run: its {name} is "):
        compress(source, tmp_path / "dst", other)


def test_threads_of_the_caller_stay_as_they_were(source: Path, coder: TaskAware, tmp_path: Path) -> None:
    import torch

    torch.set_num_threads(2)
    compress(source, tmp_path / "dst", coder)
    assert torch.get_num_threads() == 2


# ---- what can be wrong with a network -------------------------------------------------------------------------


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as status:
        main(words)
    assert status.value.code == 1
    written = capsys.readouterr().err
    lines = [line for line in written.splitlines() if line.startswith("qtable: ")]
    assert len(lines) == 1
    assert "Traceback" not in written
    return lines[0]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_network_that_is_missing_or_another_gets_one_line(
    source: Path,
    tables: Path,
    model: str,
    tmp_path: Path,
    workers: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qtable.codecs.task_aware._lent", {})
    words = command(source, tmp_path / "dst", tables, "--workers", workers)
    line = fails(words, capsys)
    assert f"--model: these files are made by looking through {model} (weights " in line
    assert line.endswith("): name that model")
    line = fails([*words, "--model", model.replace(":net", ":other")], capsys)
    assert "name that model; given are others, of weights " in line
    assert not (tmp_path / "dst").exists()


def test_models_that_plain_tables_do_not_ask_get_one_line(
    source: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ([], ["--dry-run"]):
        words = ["compress", str(source), str(tmp_path / "dst"), "--tables", "quality:50", "--model", model, *more]
        assert fails(words, capsys) == "qtable: these are plain tables, which ask no network; leave --model out"
    assert not (tmp_path / "dst").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("name", "message"),
    [("cut", "the model gives no gradients to the pixels"), ("broken", "the model answers NaN or infinity to RGB")],
)
def test_a_network_that_fails_on_a_photo_gets_one_line_that_names_it(
    model: str, tmp_path: Path, workers: str, name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = TaskSpec(model.replace(":net", f":{name}"), "agreement")
    save_coder(TaskAware(QTables.standard(), 0.01, (Network.of(own, own.open(), usual()),)), tmp_path / "tables.json")
    (tmp_path / "src").mkdir()
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(tmp_path / "src" / "dark.png")
    words = command(tmp_path / "src", tmp_path / "dst", tmp_path / "tables.json", "--model", str(own.model))
    line = fails([*words, "--workers", workers], capsys)
    assert line.startswith(f"qtable: dark.png: {message}")


def test_a_table_file_runs_no_code(
    source: Path, coder: TaskAware, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef net(): pass\n")
    network = replace(coder.networks[0], model=f"{tmp_path / 'evil.py'}:net", weights="0" * 64)
    for effort in ("photo", "crop"):
        save_coder(replace(coder, networks=(network,), effort=effort), tmp_path / "tables.json")
        for more in ([], ["--dry-run"]):
            line = fails(command(source, tmp_path / "dst", tmp_path / "tables.json", *more), capsys)
            assert "evil.py:net (weights 00000000): name that model" in line
    assert not (tmp_path / "ran").exists()


def test_weights_of_frequencies_need_no_model(
    source: Path, coder: TaskAware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qtable.codecs.task_aware._lent", {})
    save_coder(replace(coder, effort="frequency"), tmp_path / "tables.json")
    succeeds(command(source, tmp_path / "dst", tmp_path / "tables.json", "--workers", "2"))
    assert len(list((tmp_path / "dst").rglob("*.jpg"))) == 60


def test_a_dry_run_of_all_photos_is_exact(
    source: Path, tables: Path, model: str, whole: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    succeeds(command(source, tmp_path / "dst", tables, "--model", model, "--dry-run", "--json"))
    estimate = json.loads(capsys.readouterr().out)
    photos = [row for row in map(json.loads, whole[MANIFEST].splitlines()) if row["action"] == "compressed"]
    before, after = (sum(row[key] for row in photos) for key in ("bytes_before", "bytes_after"))
    assert estimate["sample"] == 60
    assert estimate["change"] == after / before - 1
    assert not (tmp_path / "dst").exists()


def test_a_network_may_be_lent_after_torch_has_computed_in_this_process(coder: TaskAware, photos: list[RGB]) -> None:
    """Workers are forked; what computed in the parent before must not hang them."""
    import torch

    torch.set_num_threads(2)
    spec = TaskSpec(coder.networks[0].model, "agreement")
    lend(spec.open())
    expected = coder.encode(photos[0])
    torch.rand(2000, 2000) @ torch.rand(2000, 2000)
    with processes(2) as pool:
        assert pool.submit(_encoded, spec, coder, photos[0]).result(timeout=60) == expected


def _encoded(spec: TaskSpec, coder: TaskAware, photo: RGB) -> bytes:
    import torch

    torch.set_num_threads(1)
    lend(spec.open())
    return coder.encode(photo)


def test_errors_of_networks_reach_the_driver(tmp_path: Path) -> None:
    task = Classifier(Broken(), "agreement")
    made = TaskAware(QTables.standard(), 0.01, (Network.of(TaskSpec("mine.py:net"), task, usual()),))
    with pytest.raises(ModelError, match="NaN or infinity"):
        Recipe(made)(Codec("4:4:4").encode(np.zeros((8, 8, 3), np.uint8), QTables.flat(1)))
