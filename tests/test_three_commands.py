"""From a folder of photos and a model to smaller photos, with the three commands that people type."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from qtable.jpeg.header import read_header
from qtable.jpeg.tables import QTables
from qtable.tasks.models import load_model

MODEL = """
import torch
from torch import nn

class Absolute(nn.Module):
    def forward(self, x):
        return x.abs()

def net():
    '''Tells fine textures from coarse ones: the mean of |Laplacian of green|, against 28.'''
    edges, answer = nn.Conv2d(3, 1, 3, bias=False), nn.Linear(1, 2)
    with torch.no_grad():
        edges.weight.zero_()
        edges.weight[0, 1] = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])
        answer.weight.copy_(torch.tensor([[-0.1], [0.1]]))
        answer.bias.copy_(torch.tensor([2.8, -2.8]))
    return nn.Sequential(edges, Absolute(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), answer)
"""
PHOTOS = 60


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with PHOTOS/coarse, PHOTOS/fine (photos/0.png ...) and my_model.py."""
    rng = np.random.default_rng(0)
    for i in range(PHOTOS):
        fine = i % 2
        grain, strength = 2 - fine, rng.uniform(4, 12) + 6 * fine
        texture = rng.normal(0, strength, (48 // grain, 48 // grain, 1)).repeat(grain, 0).repeat(grain, 1).repeat(3, 2)
        folder = tmp_path / "PHOTOS" / ("coarse", "fine")[fine]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((128 + texture).clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "my_model.py").write_text(MODEL)
    return tmp_path


def as_file(home: Path) -> str:
    return "my_model.py:net"


def as_torchscript(home: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(network(home), torch.rand(2, 3, 48, 48))  # type: ignore[no-untyped-call]
        traced.save(home / "my_model.ts")
    return "my_model.ts"


def as_onnx(home: Path) -> str:
    pytest.importorskip("onnxruntime", reason="needs the extra qtable[onnx]")
    pytest.importorskip("onnx", reason="torch.onnx.export needs onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network(home),
            (torch.rand(2, 3, 48, 48),),
            str(home / "my_model.onnx"),
            input_names=["rgb"],
            dynamic_axes={"rgb": {0: "n", 2: "h", 3: "w"}},
            dynamo=False,
        )
    return "my_model.onnx"


def network(home: Path) -> nn.Module:
    return load_model(f"{home / 'my_model.py'}:net")


def type_command(home: Path, line: str) -> subprocess.CompletedProcess[str]:
    """`qtable LINE`, in the folder."""
    command = [sys.executable, "-m", "qtable.cli", *line.split()]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (as_file, ""),
        pytest.param(as_torchscript, "", marks=pytest.mark.slow),
        pytest.param(as_onnx, "--method sorted-random", marks=pytest.mark.slow),
    ],
)
def test_three_commands_lead_to_smaller_photos(home: Path, model: Callable[[Path], str], options: str) -> None:
    type_command(home, f"optimize --data PHOTOS --model {model(home)} --out RUN --budget 8 {options}")
    report = home / "RUN" / "report.html"
    assert str(report.relative_to(home)) in type_command(home, "report RUN").stdout
    assert "the found tables need" in report.read_text()
    assert ("the run has no statistics.npz" in report.read_text()) == bool(options)
    name = json.loads((home / "RUN" / "summary.json").read_text())["front"][-1]["tables"]
    said = type_command(home, f"compress PHOTOS SMALLER --tables RUN/{name} --workers 1").stdout
    chosen = QTables.load(home / "RUN" / name)
    written = sorted((home / "SMALLER").rglob("*.jpg"))
    sources = sorted((home / "PHOTOS").rglob("*.png"))
    assert [p.relative_to(home / "SMALLER").with_suffix(".png") for p in written] == [
        p.relative_to(home / "PHOTOS") for p in sources
    ]
    assert f"{PHOTOS} photos" in said
    assert all(read_header(p.read_bytes()).tables == chosen for p in written)
    assert sum(p.stat().st_size for p in written) < sum(p.stat().st_size for p in sources) / 2
