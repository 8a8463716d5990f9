"""The command, as people run it: in processes of their own."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from PIL import Image

from qtable.cli import main
from qtable.codecs.plain import TableCoder
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive

MODEL = """
import torch
from torch import nn

class Colour(nn.Module):
    '''Tells reddish noise from bluish noise by its coarse detail.'''
    def forward(self, rgb):
        fine = torch.nn.functional.avg_pool2d(rgb, 2)
        z = (fine[:, 0] - fine[:, 2]).flatten(1)
        z = (z - z.mean(1, keepdim=True)).square().mean(1) / 100 - 3
        return torch.stack([z, -z], 1)

def net(): return Colour()

class Nothing(nn.Module):
    def forward(self, rgb):
        return torch.full((len(rgb), 2), float('nan'))

def nan(): return Nothing()
"""


def qtable(*arguments: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qtable.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 30 x 2 small photos, a model file, and a damaged photo of each kind."""
    root = tmp_path_factory.mktemp("job")
    rng = np.random.default_rng(0)
    for name, strength in (("a", 30), ("b", 8)):
        (root / "photos" / name).mkdir(parents=True)
        for i in range(30):
            noise = rng.normal(0, strength, (12, 16, 3)).repeat(2, 0).repeat(2, 1) + 128
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / "photos" / name / f"{i}.png")
    good = Codec().encode(np.zeros((16, 16, 3), np.uint8), QTables.standard())
    (root / "photos" / "a" / "cut.jpg").write_bytes(good[:200])
    (root / "photos" / "a" / "zero.jpg").write_bytes(b"")
    (root / "photos" / "b" / "text.jpg").write_text("no photo")
    (root / "model.py").write_text(MODEL)
    return root


def optimize(folder: Path, out: Path, *more: str | Path) -> list[str | Path]:
    return ["optimize", "--data", folder / "photos", "--model", f"{folder / 'model.py'}:net", "--out", out, *more]


def read(out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


@pytest.mark.parametrize("method", ["closed-form", "sorted-random", "random"])
def test_optimize_leaves_a_whole_run_folder(folder: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "run"
    done = qtable(*optimize(folder, out, "--method", method, "--budget", "6", "--json"))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == read(out)
    assert summary["n_fit"] + summary["n_search"] + summary["n_test"] == 60
    assert summary["evaluations"] == 6
    assert "skipped 3 unreadable files" in done.stderr
    assert [p["quality"] for p in summary["baseline"]][:2] == [5, 6]
    assert (out / "front.png").read_bytes().startswith(b"\x89PNG")
    with (out / "front.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(summary["baseline"]) + len(summary["front"])
    archive = Archive(out / "archive.jsonl")
    assert len(archive.header["skipped"]) == 3
    for point in summary["front"]:  # the figures are those of the tables that the files hold, on `test`
        record = archive.find("test", TableCoder(QTables.load(out / point["tables"]), Codec()))
        assert record is not None
        assert (record.score.bytes, record.score.score) == (point["bytes"], point["score"])
        assert point["bytes_ci"][0] <= point["bytes"] <= point["bytes_ci"][1]


def test_the_bytes_in_the_summary_are_those_of_real_files(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert qtable(*optimize(folder, out, "--budget", "2", "--subsampling", "4:4:4")).returncode == 0
    evaluated = qtable(
        "evaluate", "--data", folder / "photos", "--model", f"{folder / 'model.py'}:net", "--subsampling", "4:4:4",
        "--tables", out / "tables" / "001.json", "--tables", "quality:50", "--json",
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    first, standard = json.loads(evaluated.stdout)["results"]
    assert first["bytes"] == read(out)["front"][0]["bytes"]
    assert first["score"] == read(out)["front"][0]["score"]
    assert standard["bytes"] == next(p["bytes"] for p in read(out)["baseline"] if p["quality"] == 50)


def test_auto_sampling_runs_both_and_says_which_wins(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = qtable(*optimize(folder, out, "--budget", "12", "--subsampling", "auto"))
    assert done.returncode == 0, done.stderr
    summary = read(out)
    for name in ("420", "444"):
        alone = read(out / name)
        subsampling = f"{name[0]}:{name[1]}:{name[2]}"
        assert alone["codec"]["subsampling"] == subsampling
        expected = [(p["bytes"], p["score"]) for p in alone["front"]]
        assert [(p["bytes"], p["score"]) for p in summary["samplings"][subsampling]["points"]] == expected
    assert {p["subsampling"] for p in summary["front"]} <= {"4:2:0", "4:4:4"}
    for level in summary["levels"]:
        low, high = level["change_ci"]
        assert level["better"] == ("4:4:4" if high < 0 else "4:2:0" if low > 0 else None)
        assert level["change"] == pytest.approx(level["4:4:4"] / level["4:2:0"] - 1)
    sentence = "at the accuracy of standard q" if summary["levels"] else "no score is reached by both"
    assert sentence in " ".join(done.stdout.split())


def test_compare_judges_all_alike_and_continues(folder: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [
        "compare", "--data", folder / "photos", "--model", f"{folder / 'model.py'}:net", "--out", tmp_path / "contest",
        "--methods", "random,genetic@standard,genetic+racing", "--budget", "6", "--seeds", "2", "--json",
    ]  # fmt: skip
    done = qtable(*command)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [m["name"] for m in result["methods"]] == ["random", "genetic@standard", "genetic+racing"]
    assert len(result["runs"]) == 6
    for run in result["runs"]:
        assert run["hypervolume"] == sorted(run["hypervolume"])
        assert run["spent"][-1] == pytest.approx(6, abs=1)
    assert (tmp_path / "contest" / "compare.png").read_bytes().startswith(b"\x89PNG")
    archives = {p: p.read_bytes() for p in (tmp_path / "contest").glob("*/archive.jsonl")}
    again = qtable(*command)
    assert json.loads(again.stdout) == result
    assert archives == {p: p.read_bytes() for p in archives}  # nothing was evaluated twice


def test_a_killed_worker_loses_nothing(folder: Path, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil", reason="needs the extra qtable[cluster]")
    pytest.importorskip("distributed", reason="needs the extra qtable[cluster]")
    plan = ("--method", "genetic", "--budget", "30")
    command = [sys.executable, "-m", "qtable.cli", *map(str, optimize(folder, tmp_path / "killed", *plan))]
    with (tmp_path / "stderr").open("wb") as words:
        process = subprocess.Popen([*command, "--workers", "2"], stderr=words, stdout=subprocess.DEVNULL)
    archive = tmp_path / "killed" / "archive.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if archive.exists() and archive.read_bytes().count(b"\n") >= 24:
            break
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    assert process.wait(timeout=180) == 0, (tmp_path / "stderr").read_text()
    whole = qtable(*optimize(folder, tmp_path / "whole", *plan))
    assert whole.returncode == 0, whole.stderr
    lines = [(tmp_path / name / "archive.jsonl").read_bytes().splitlines()[1:] for name in ("killed", "whole")]
    assert sorted(lines[0]) == sorted(lines[1])
    assert read(tmp_path / "killed") == read(tmp_path / "whole")


def test_max_drop_names_tables_or_the_photos_that_are_missing(folder: Path, tmp_path: Path) -> None:
    for limit in ("30%", "0.1%"):
        done = qtable(*optimize(folder, tmp_path / "run", "--budget", "5", "--max-drop", limit))
        assert done.returncode == 0, done.stderr
        picked = read(tmp_path / "run")["max_drop"]
        if limit == "30%":
            assert picked["found"]["drop"] < 0.3
            assert "loses at most 30 points against the uncompressed photos" in " ".join(done.stdout.split())
        else:
            assert picked["found"] is None
            needed = picked["photos_needed"]
            assert needed is None or needed > read(tmp_path / "run")["n_test"]
            sentence = f"about {needed:,} test photos would be needed" if needed else "lose more than that"
            assert sentence in " ".join(done.stdout.split())


@pytest.mark.parametrize("method", ["genetic", "mcmc", "bayesian"])
def test_sigkill_at_any_moment_loses_at_most_the_evaluation_in_flight(
    folder: Path, tmp_path: Path, method: str
) -> None:
    arguments = optimize(folder, tmp_path / "killed", "--method", method, "--budget", "30")
    archive = tmp_path / "killed" / "archive.jsonl"
    seen = 0
    for goal in (1, 12, 30):  # records, the header among them, at which to kill: baseline and search
        process = subprocess.Popen(
            [sys.executable, "-m", "qtable.cli", *map(str, arguments)], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            if archive.exists() and archive.read_bytes().count(b"\n") >= goal:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = archive.read_bytes().count(b"\n")
        assert kept >= max(seen, goal)
        seen = kept
    last = qtable(*arguments)
    assert last.returncode == 0, last.stderr
    whole = qtable(*optimize(folder, tmp_path / "whole", "--method", method, "--budget", "30"))
    assert whole.returncode == 0, whole.stderr
    assert read(tmp_path / "killed") == read(tmp_path / "whole")
    lines = [(tmp_path / name / "archive.jsonl").read_bytes().splitlines()[1:] for name in ("killed", "whole")]
    assert lines[0] == lines[1]
    tables = [r.score.tables for r in Archive(archive).records("search", without="standard")]
    assert len(tables) == len(set(tables)) == 30
    if method == "bayesian":
        storage = f"sqlite:///{tmp_path / 'killed' / 'study.db'}"
        [name] = optuna.get_all_study_names(storage)
        assert len(optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)) >= 30


def test_ctrl_c_leaves_a_usable_run_that_continues(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = optimize(folder, out, "--method", "random", "--budget", "2000")
    process = subprocess.Popen(
        [sys.executable, "-m", "qtable.cli", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if (out / "archive.jsonl").exists() and (out / "archive.jsonl").read_bytes().count(
            b"\n"
        ) >= 26:  # the header, 19 standard tables, some candidates
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=90)
    assert process.returncode == 0, stderr
    summary = read(out)
    assert summary["interrupted"]
    assert 0 < summary["evaluations"] < 2000
    assert (out / "front.png").exists()
    again = qtable(*optimize(folder, out, "--method", "random", "--budget", str(summary["evaluations"] + 3)))
    assert again.returncode == 0, again.stderr
    assert read(out)["evaluations"] == summary["evaluations"] + 3
    assert not read(out)["interrupted"]


def test_another_run_in_the_same_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    assert qtable(*optimize(folder, tmp_path / "r", "--budget", "1")).returncode == 0
    before = (tmp_path / "r" / "archive.jsonl").read_bytes()
    other = qtable(*optimize(folder, tmp_path / "r", "--budget", "1", "--seed", "1"))
    assert other.returncode == 1
    assert f"qtable: {tmp_path / 'r'} holds another run: --seed was 0, now 1; choose another --out" in other.stderr
    assert (tmp_path / "r" / "archive.jsonl").read_bytes() == before


def test_a_changed_model_file_is_another_run(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.py"
    model.write_text(MODEL)
    arguments = ["optimize", "--data", str(folder / "photos"), "--model", f"{model}:net", "--out", str(tmp_path / "r")]
    assert qtable(*arguments, "--budget", "1").returncode == 0
    model.write_text(MODEL.replace("[z, -z]", "[-z, z]"))
    changed = qtable(*arguments, "--budget", "1")
    assert changed.returncode == 1
    assert "holds another run: the model answers otherwise on the same photos" in changed.stderr


def test_all_that_was_changed_is_said_in_the_words_of_the_command(folder: Path, tmp_path: Path) -> None:
    first = optimize(folder, tmp_path / "r", "--budget", "1", "--resize", "20", "--tables", "1")
    assert qtable(*first).returncode == 0
    other = qtable(*optimize(folder, tmp_path / "r", "--limit=50", "--metric", "agreement", "--entropy", "standard"))
    assert other.returncode == 1
    (line,) = (line for line in other.stderr.splitlines() if "another run" in line)
    assert line == (
        f"qtable: {tmp_path / 'r'} holds another run: --entropy was optimized, now standard; --metric was"
        " top-1 accuracy, now agreement with the uncompressed answer; --tables was 1, now 2; --resize was 20, now none;"
        " --limit was none, now 50; choose another --out"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimize", "--data", "{0}/nowhere"], "no such folder or file"),
        (["optimize", "--data", "{0}/empty"], "no class folders with photos"),
        (["optimize", "--data", "{0}/one"], "only one class folder"),
        (["optimize", "--data", "{0}/photos", "--model", "{0}/model.py:nan"], "the model answers NaN or infinity"),
        (["optimize", "--data", "{0}/photos", "--model", "{0}/model.py:none"], "no callable 'none'"),
        (["optimize", "--data", "{0}/photos", "--model", "{0}/broken.py:net"], "ModuleNotFoundError"),
        (["optimize", "--data", "{0}/photos", "--model", "{0}/model.py:net", "--method", "magic"], "closed-form"),
        (["optimize", "--data", "{0}/photos", "--model", "{0}/model.py:net", "--budget", "0"], "budget 0"),
        (["optimize", "--data", "{0}/photos", "--metric", "mAP"], "top-1, top-5, agreement"),
        (["optimize", "--resize", "64"], "need --data"),
        (["evaluate", "--tables", "quality:50", "--device", "nowhere"], "device 'nowhere' cannot be used"),
        (["optimize", "--max-drop", "half"], "not a number such as 0.5%"),
        (["optimize", "--max-drop", "0"], "above 0% and below 100%"),
        (["evaluate", "--tables", "quality:0"], "quality 0 is outside"),
        (["evaluate", "--tables", "{0}/missing.json"], "missing.json"),
        (["export", "quality:50", "--to", "gif"], "cjpeg, json, pillow"),
        (["export", "{0}/zero.json", "--to", "json"], "entry [0,0,0] = 0"),
        (["inspect", "{0}/photos/b/text.jpg"], "text.jpg"),
        (["inspect", "{0}/photos/a/cut.jpg"], "truncated"),
        (["inspect", "{0}/photos/a/zero.jpg"], "zero.jpg"),
    ],
)  # fmt: skip
def test_mistakes_get_one_clear_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "one" / "ants").mkdir(parents=True, exist_ok=True)
    (folder / "one" / "ants" / "1.png").write_bytes((folder / "photos" / "a" / "1.png").read_bytes())
    (folder / "broken.py").write_text("import no_such_module\n")
    (folder / "zero.json").write_text(json.dumps({"values": [[[0] * 8] * 8]}))
    more = ["--out", str(tmp_path / "run")] if arguments[0] == "optimize" else []
    with pytest.raises(SystemExit) as exit_status:
        main([*[a.format(folder) for a in arguments], *more])
    assert exit_status.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qtable: ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_a_mistake_in_a_process_of_its_own_leaves_no_traceback() -> None:
    done = qtable("optimize", "--data", "/nowhere")
    assert done.returncode == 1
    assert done.stderr.strip() == "qtable: /nowhere: no such folder or file"


def test_export_and_inspect_round_trip(tmp_path: Path, asymmetric: QTables) -> None:
    asymmetric.save(tmp_path / "t.json")
    assert qtable("export", tmp_path / "t.json", "--to", "json", "--output", tmp_path / "u.json").returncode == 0
    assert QTables.load(tmp_path / "u.json") == asymmetric
    again = qtable("export", tmp_path / "t.json", "--to", "json", "--output", tmp_path / "u.json")
    assert again.returncode == 1
    assert "exists already" in again.stderr
    photo = Codec("4:2:2", "progressive").encode(np.zeros((20, 30, 3), np.uint8), asymmetric)
    (tmp_path / "p.jpg").write_bytes(photo)
    facts = json.loads(qtable("inspect", tmp_path / "p.jpg", "--json").stdout)
    assert facts["tables"] == asymmetric.values.tolist()
    assert (facts["width"], facts["height"], facts["subsampling"], facts["mode"]) == (
        30,
        20,
        "4:2:2",
        "progressive Huffman",
    )
    assert facts["header_bytes"] + facts["scan_bytes"] == len(photo)
