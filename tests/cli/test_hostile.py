"""Faults around a whole command: strangers' models and names, disks that are full, what docs/reliability.md says."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from qtable.cli import main
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive
from qtable.text import printable
from tests.conftest import remount
from tests.tasks.test_models import WEIGHTS, write_onnx

ROOT = Path(__file__).resolve().parents[2]
MODEL = """
import torch

class Contrast(torch.nn.Module):
    def forward(self, rgb):
        z = (rgb[:, 0] - rgb[:, 2]).flatten(1).square().mean(1) / 1000 - 1
        return torch.stack([z, -z], 1)

def net(): return Contrast()
"""


def write_photos(root: Path, per_class: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for name, strength in (("a", 40), ("b", 8)):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            noise = rng.normal(0, strength, (12, 16, 3)).repeat(2, 0).repeat(2, 1) + 128
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ and model.py."""
    root = tmp_path_factory.mktemp("job")
    write_photos(root / "photos")
    (root / "model.py").write_text(MODEL)
    return root


Run = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process: exit status, standard output, lines of standard error."""

    def command(*arguments: str | Path) -> tuple[int, str, list[str]]:
        with pytest.raises(SystemExit) as status:
            main([str(argument) for argument in arguments])
        out, errors = capfd.readouterr()
        assert isinstance(status.value.code, int)
        return status.value.code, out, errors.splitlines()

    return command


def optimize(job: Path, out: Path, *more: str | Path, model: str = "model.py:net") -> list[str | Path]:
    return ["optimize", "--data", job / "photos", "--model", f"{job}/{model}", "--out", out, *more]


def complaints(errors: list[str]) -> list[str]:
    return [line for line in errors if line.startswith("qtable: ")]


# ---- models ---------------------------------------------------------------------------------------------------


class MakesFolder:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def with_other_inputs(program: Path, changed: Path, payload: object) -> None:
    """A copy of a .pt2 file whose pickled example inputs are `payload`."""
    pickled = io.BytesIO()
    torch.save(payload, pickled)
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(changed, "w") as new:
        for item in old.infolist():
            new.writestr(item.filename, pickled.getvalue() if "sample_inputs" in item.filename else old.read(item))


class ReadsFile(nn.Module):
    def forward(self, rgb: Tensor) -> Tensor:
        return torch.from_file("secret", False, 4, dtype=torch.uint8)


def test_the_command_says_whose_code_it_executes_and_programs_can_do_what_it_fears(
    job: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate: list[str | Path] = ["evaluate", "--data", job / "photos", "--tables", "quality:50"]
    said = f"--model executes code of {job / 'model.py'}"
    status, _, errors = run(*evaluate, "--model", f"{job / 'model.py'}:net")
    assert (status, errors[0]) == (0, said)
    write_onnx(tmp_path / "mean.onnx", WEIGHTS[:2], ("n", 3, "h", "w"))
    status, _, errors = run(*evaluate, "--model", tmp_path / "mean.onnx")
    assert status == 0
    assert not any("executes" in line for line in errors)

    torch.export.save(torch.export.export(nn.Flatten(), (torch.zeros(2, 3, 4, 4),)), tmp_path / "good.pt2")
    with_other_inputs(tmp_path / "good.pt2", tmp_path / "bad.pt2", MakesFolder(tmp_path / "code ran"))
    status, _, errors = run(*evaluate, "--model", tmp_path / "bad.pt2")
    assert (status, errors[0]) == (1, f"--model executes code of {tmp_path / 'bad.pt2'}")
    assert (tmp_path / "code ran").exists()  # if torch has mended this, docs/reliability.md and --help can say so

    (tmp_path / "secret").write_bytes(b"1234")
    monkeypatch.chdir(tmp_path)
    with pytest.deprecated_call():
        torch.jit.script(ReadsFile()).save(tmp_path / "reads.ts")  # type: ignore[no-untyped-call]
    status, _, errors = run(*evaluate, "--model", tmp_path / "reads.ts")
    assert (status, errors[0]) == (1, f"--model executes code of {tmp_path / 'reads.ts'}")
    assert complaints(errors)[0].startswith("qtable: the model answers [4] to RGB")  # it has read the file


@pytest.mark.parametrize("command", ["optimize", "evaluate --tables quality:50", "compare --methods random", "train"])
@pytest.mark.parametrize("model", ["nosuch.pt", "nosuch.py:net", "{0}/model.py:net@nosuch.safetensors"])
def test_a_model_that_is_not_there_is_said_before_code_is(
    command: str, model: str, job: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, errors = run(*command.split(), "--data", job / "photos", "--model", model.format(job))
    assert status == 1
    (line,) = (line for line in errors if line)
    assert line.startswith(f"qtable: model '{model.format(job)}': nosuch.")
    assert line.endswith(": no such file")


def test_a_model_without_gradients_works_with_searchers_alone(job: Path, tmp_path: Path, run: Run) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra qtable[onnx]")
    write_onnx(job / "mean.onnx", WEIGHTS[:2], ("n", 3, "h", "w"))
    status, out, errors = run(
        *optimize(job, tmp_path / "run", "--method", "genetic", "--budget", "2", "--json", model="mean.onnx")
    )
    assert status == 0, errors
    assert json.loads(out)["evaluations"] == 2
    for more in (
        [],
        ["--method", "mozjpeg-3"],
        ["--method", "grace"],
        ["--method", "genetic", "--start", "closed-form"],
    ):
        status, _, errors = run(*optimize(job, tmp_path / "refused", *more, model="mean.onnx"))
        (line,) = complaints(errors)
        assert status == 1
        assert "the model gives no gradients to the pixels" in line
        assert "methods that need none: --method genetic" in line
        assert not (tmp_path / "refused" / "archive.jsonl").exists()  # nothing was evaluated in vain


# ---- names ----------------------------------------------------------------------------------------------------


def test_names_that_are_no_text_reach_no_terminal_and_stop_nothing(tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"caf\xe9")
    photos = write_photos(place / os.fsdecode(b"photos\xff"))
    (photos / "a").rename(photos / os.fsdecode(b"\xfe"))
    (place / "model.py").write_text(MODEL)
    bad = os.fsdecode(b"\xff\x1b]0;title\x07\n[red].png")
    (photos / "b" / bad).write_bytes(b"no photo")
    command = [sys.executable, "-m", "qtable.cli", *map(str, optimize(place, place / "run", "--budget", "1"))]
    command[command.index("--data") + 1] = str(photos)
    done = subprocess.run([*command, "--method", "random"], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = done.stderr.partition(rb"b/\udcff\x1b]0;title\x07\n[red].png: ")[2]
    assert b"unreadable: not a photo" in said.partition(b"\n")[0]
    assert rb"executes code of" in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    assert rb"caf\udce9" in done.stdout
    assert (done.stdout + done.stderr).decode()
    with Archive(place / "run" / "archive.jsonl") as archive:
        assert [name for name, _ in archive.header["skipped"]] == [str(photos / "b" / bad)]
    assert (place / "run" / "summary.json").exists()


def test_printable_keeps_what_can_be_read() -> None:
    assert printable("grün ✓ [b]") == "grün ✓ [b]"
    assert printable("a\x1b[1m\udcff\u202e\n") == r"a\x1b[1m\udcff\u202e\n"


# ---- disks ----------------------------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing_that_was_written(
    job: Path, tmp_path: Path, disk: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qtable.measure.summary.RESAMPLES", 50)
    plan = ["--budget", "3", "--tables", "1", "--method", "rd-opt"]
    status, _, errors = run(*optimize(job, tmp_path / "whole", *plan))
    assert status == 0, errors
    named, records, out = set(), 0, disk / "run"
    for size in (8, 32, 112):
        remount(disk, f"size={size}k")
        status, _, errors = run(*optimize(job, out, *plan))
        (line,) = complaints(errors)
        assert status == 1
        assert re.search(r"\[Errno 28\] (No space left on device|only \d+ of \d+ bytes could be written)", line), line
        named.add(Path(line.split("'")[1]).name)
        files = [file for file in out.rglob("*") if file.is_file()]
        assert not [file for file in files if "tmp" in file.name]  # nothing half-written stays
        if out.joinpath("archive.jsonl").stat().st_size:
            kept = len(Archive(out / "archive.jsonl"))
            assert kept >= records
            records = kept
    assert {"archive.jsonl", "statistics.npz", "front.png"} <= named
    assert records > 0
    remount(disk, "size=2m")
    status, _, errors = run(*optimize(job, out, *plan))
    assert status == 0, errors
    lines = [(folder / "archive.jsonl").read_bytes().splitlines()[1:] for folder in (out, tmp_path / "whole")]
    assert lines[0] == lines[1]  # the same evaluations, none twice
    assert (out / "summary.json").read_bytes() == (tmp_path / "whole" / "summary.json").read_bytes()
    remount(disk, "ro")
    status, _, errors = run(*optimize(job, out, *plan))
    assert status == 1
    assert complaints(errors) == [f"qtable: [Errno 30] Read-only file system: '{out / 'archive.jsonl'}'"]
    status, _, errors = run(*optimize(job, disk / "other", *plan))
    assert complaints(errors) == [f"qtable: [Errno 30] Read-only file system: '{disk / 'other'}'"]


def test_a_run_folder_that_is_a_file_is_refused(job: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "taken").write_text("mine")
    status, _, errors = run(*optimize(job, tmp_path / "taken"))
    message = f"qtable: {tmp_path / 'taken'} is a file, not a run folder; choose another --out"
    assert (status, complaints(errors)) == (1, [message])
    status, _, errors = run(*optimize(job, tmp_path / "taken" / "below"))
    assert (status, complaints(errors)) == (1, [f"qtable: [Errno 20] Not a directory: '{tmp_path}/taken/below'"])
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_a_full_disk_behind_standard_output_is_one_clear_line(tmp_path: Path) -> None:
    QTables.standard().save(tmp_path / "t.json")
    command = [sys.executable, "-m", "qtable.cli", "inspect", str(tmp_path / "t.json"), "--json"]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, env=buffered)
    assert done.returncode == 1
    assert done.stderr == "qtable: [Errno 28] No space left on device: 'standard output'\n"


# ---- the document ---------------------------------------------------------------------------------------------


def test_every_test_named_in_the_document_on_reliability_exists() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert len(named) == text.count("`test_") > 40
    sources: dict[str, str] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):  # folders have files of one name
        sources[path.name] = sources.get(path.name, "") + path.read_text()
    assert not [(file, name) for file, name in named if f"\ndef {name}(" not in sources[file]]
