from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from qtable.models import Preprocess, load_model
from qtable.task import ModelError

GOOD = """
import torch
def net():
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
def raises(): raise OSError("weights are missing")
def number(): return 7
def broken():
    model = torch.nn.Linear(2, 2)
    model.weight.data[0, 0] = float("nan")
    return model
value = 3
"""


def test_a_model_loads_from_a_file_and_from_a_package(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    model = load_model(f"{tmp_path / 'mine.py'}:net")
    assert model(torch.ones(2, 3, 4, 4)).shape == (2, 3)
    assert not model.training
    assert isinstance(load_model("torch.nn:Identity"), nn.Identity)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mine.py", "FILE.py:NAME"),
        ("{}/mine.py:nothing", "no callable 'nothing'"),
        ("{}/mine.py:value", "no callable 'value'"),
        ("{}/mine.py:raises", "weights are missing"),
        ("{}/mine.py:number", "not a torch.nn.Module"),
        ("{}/mine.py:broken", "weight holds NaN"),
        ("{}/absent.py:net", "no such file"),
        ("{}/syntax.py:net", "SyntaxError"),
        ("{}/imports.py:net", "no_such_package"),
        ("{}/exits.py:net", "SystemExit"),
        ("no_such_package.models:net", "no_such_package"),
    ],
)
def test_models_that_do_not_load_are_one_clear_error(tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "syntax.py").write_text("def net(:\n")
    (tmp_path / "imports.py").write_text("import no_such_package\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(ModelError, match=message):
        load_model(spec.format(tmp_path))


def test_preprocess_follows_the_usual_pipeline() -> None:
    from skimage import data

    photo = data.coffee()[:300, :451]
    ours = Preprocess(size=64, resize=80)(torch.from_numpy(photo).permute(2, 0, 1)[None].float())
    resized = Image.fromarray(photo).resize((120, 80), Image.Resampling.BILINEAR).crop((28, 8, 92, 72))
    theirs = (np.asarray(resized) / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert ours.shape == (1, 3, 64, 64)
    gap = ours[0].permute(1, 2, 0).numpy() - theirs
    assert np.abs(gap).max() < 0.03  # Pillow rounds to 8 bits after each of its two passes: up to 1 / 255 / 0.224
    assert abs(gap.mean()) < 1e-3


def test_preprocess_passes_gradients_to_the_pixels() -> None:
    rgb = torch.full((1, 3, 40, 50), 100.0, requires_grad=True)
    Preprocess(size=16, resize=20)(rgb).sum().backward()
    assert rgb.grad is not None
    assert rgb.grad.abs().sum() > 0


def test_preprocess_refuses_crops_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="larger than resize"):
        Preprocess(size=300, resize=256)
    with pytest.raises(ValueError, match="smaller than the 64 x 64 crop"):
        Preprocess(size=64, resize=None)(torch.zeros(1, 3, 50, 80))


def test_what_lies_beside_a_models_file_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "beside_the_model.py").write_text("classes = 4")
    (tmp_path / "user.py").write_text(
        "import torch, beside_the_model\ndef net(): return torch.nn.Linear(2, beside_the_model.classes)"
    )
    assert load_model(f"{tmp_path / 'user.py'}:net")(torch.ones(1, 2)).shape == (1, 4)


def test_preprocess_shows_its_settings() -> None:
    assert repr(Preprocess(64, 80)) != repr(Preprocess(64, 96))
