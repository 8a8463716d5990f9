"""What every command says when labels, preprocessing and network do not belong together: real networks, real photos."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from qtable.cli import main

GREYS = tuple((40 * i + 30,) * 3 for i in range(6))
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255))


class Nearest(nn.Module):
    """Answers the nearest of `COLOURS`, in this order; photos are 32 x 32, as often in exported programs."""

    colours: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("colours", torch.tensor(COLOURS).float())

    def forward(self, rgb: Tensor) -> Tensor:
        mean = rgb.reshape(-1, 3, 32 * 32).mean(2)
        return -(mean[:, None] - self.colours).square().sum(2)


class Normalized(Nearest):
    """The nearest of `GREYS` in normalized photos, as programs are exported that lack their preprocessing."""

    def forward(self, rgb: Tensor) -> Tensor:
        mean = (127.5 + 127.5 * rgb).reshape(-1, 3, 32 * 32).mean(2)
        return -(mean[:, None] - torch.tensor(GREYS)).square().sum(2)


def traced(model: nn.Module, file: Path, side: int) -> Path:
    """The model as TorchScript that was traced for one size of photos."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch: TorchScript is deprecated, and sizes become constants
        torch.jit.trace(model, torch.rand(1, 3, side, side)).save(file)  # type: ignore[no-untyped-call]
    return file


def write_photos(folder: Path, names: tuple[str, ...], colours: tuple[tuple[int, ...], ...] = COLOURS) -> Path:
    """30 noisy photos of each colour in class folders of these names."""
    rng = np.random.default_rng(0)
    for name, colour in zip(names, colours, strict=True):
        (folder / name).mkdir(parents=True)
        for i in range(30):
            noisy = rng.normal(colour, 60, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / name / f"{i}.png")
    return folder


Said = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Said:
    """Runs a command that succeeds: standard output, and what it doubts on standard error."""

    def command(*arguments: str | Path) -> tuple[str, list[str]]:
        with pytest.raises(SystemExit) as status:
            main([str(argument) for argument in arguments])
        out, errors = capfd.readouterr()
        assert not status.value.code, errors
        words = (
            "answers on uncompressed",
            "labels are numbered",
            "--classes FILE",
            "the network answers",
            "no other numbering",
        )
        return out, [line for line in errors.splitlines() if any(word in line for word in words)]

    return command


COMMANDS = {
    "evaluate": ["--tables", "quality:50"],
    "optimize": ["--budget", "1", "--method", "mozjpeg-3"],
    "compare": ["--methods", "random,mozjpeg-3", "--budget", "1", "--seeds", "1"],
    "train": ["--steps", "1", "--points", "1", "--start", "standard", "--batch", "2", "--learn", "tables"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_scores_says_that_labels_are_numbered_otherwise(
    command: str, tmp_path: Path, said: Said
) -> None:
    """Folders in alphabetical order, a network in another."""
    photos = write_photos(tmp_path / "photos", ("red", "green", "blue", "yellow", "cyan", "magenta"))
    model = traced(Nearest(), tmp_path / "net.ts", 32)
    out = [] if command == "evaluate" else ["--out", tmp_path / "run"]
    _, lines = said(command, "--data", photos, "--model", model, *COMMANDS[command], *out)
    assert len(lines) == 3
    looked_at = 70 if command == "evaluate" else 53  # test, search
    assert lines[0].startswith(f"0.0% of {looked_at} answers on uncompressed photos are right, no better than chance: ")
    assert "(label 0 is output 2, label 1 is output 4, label 2 is output 1, ...), 100.0% of the other half" in lines[1]
    assert lines[2] == "give the classes in the order of the outputs: --classes FILE"
    if command == "optimize":
        assert json.loads((tmp_path / "run" / "summary.json").read_text())["doubts"] == lines


def test_labels_in_the_networks_order_and_agreement_are_not_doubted(tmp_path: Path, said: Said) -> None:
    model = traced(Nearest(), tmp_path / "net.ts", 32)
    evaluate = ["evaluate", "--model", model, "--tables", "quality:50", "--json"]
    out, lines = said(*evaluate, "--data", write_photos(tmp_path / "in order", tuple("012345")))
    assert (json.loads(out)["doubts"], lines) == ([], [])
    assert json.loads(out)["clean"] == 1
    photos = write_photos(tmp_path / "otherwise", tuple("120345"))
    out, lines = said(*evaluate, "--data", photos)
    assert json.loads(out)["doubts"] == lines != []
    out, lines = said(*evaluate, "--data", photos, "--metric", "agreement")
    assert (json.loads(out)["doubts"], lines) == ([], [])


def test_a_program_that_lacks_its_preprocessing_is_said_to(tmp_path: Path, said: Said) -> None:
    photos = write_photos(tmp_path / "photos", tuple("012345"), GREYS)
    model = traced(Normalized(), tmp_path / "net.ts", 32)
    out, lines = said("evaluate", "--data", photos, "--model", model, "--tables", "quality:50", "--json")
    assert json.loads(out)["clean"] < 0.3
    assert len(lines) == 3
    assert lines[1] == "the network answers 5 on 100% of the photos"
    assert lines[-1].endswith("RGB 0..255 and must resize, scale and normalize it as in training (qtable.Preprocess)")


def test_a_real_network_exported_for_normalized_photos_of_one_size(shared: Path, tmp_path: Path, said: Said) -> None:
    """MobileNet of 1001 outputs, the first "background", traced for 128 x 128 and -1..1; photos have 256 a side."""
    models = shared / "models"
    sys.path.insert(0, str(models))
    try:
        network = importlib.import_module("mobilenet").load("mobilenet_v1_0.25_128")
    finally:
        sys.path.remove(str(models))

    class Scaled(nn.Module):
        def __init__(self, outputs: int) -> None:
            super().__init__()
            self.network, self.outputs = network, outputs

        def forward(self, rgb: Tensor) -> Tensor:
            small = nn.functional.interpolate(rgb, (128, 128), mode="bilinear", antialias=True)[:, :3]
            scores: Tensor = self.network((small - 127.5) / 127.5)[:, -self.outputs :]
            return scores

    photos = shared / "data" / "imagenet"
    evaluate = ["evaluate", "--data", photos, "--tables", "quality:50", "--resize", "160", "--json"]
    out, lines = said(*evaluate, "--model", traced(network, tmp_path / "fixed.ts", 128))
    assert json.loads(out)["clean"] < 0.01
    assert "qtable.Preprocess" in lines[-1]
    out, lines = said(*evaluate, "--model", traced(Scaled(1001), tmp_path / "shifted.ts", 160))
    assert json.loads(out)["clean"] < 0.01
    assert "(label 2 is output 3, label 12 is output 13, label " in lines[1]
    out, lines = said(*evaluate, "--model", traced(Scaled(1000), tmp_path / "right.ts", 160))
    assert json.loads(out)["clean"] > 0.3
    assert lines == []
