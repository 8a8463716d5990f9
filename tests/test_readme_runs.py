"""The README's code blocks, run one after the other as they are printed, in a folder like a fresh clone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qtable import Codec, ImageSet, QTables

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
LINKED = (
    ".venv",
    "Makefile",
    "pyproject.toml",
    "constraints.txt",
    "requirements-dev.txt",
    "scripts",
    "qtable",
    "search",
)
OWN_NETWORK = """

def my_network():
    from qtable.tasks.models import load_model

    class Unprepared(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network, before = load_model(None), qtable.Preprocess()
            self.register_buffer("mean", before.mean)
            self.register_buffer("std", before.std)

        def forward(self, prepared):
            rgb = 255 * (prepared * self.std + self.mean)
            return self.network(torch.nn.functional.interpolate(rgb, (56, 56), mode="area"))

    return Unprepared()
"""
"""What users have and the README cannot print: here the embedded network, behind the preprocessing of another."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    images = ImageSet.open()
    for split in (images.fit, images.search, images.test):
        assert isinstance(split.annotations, np.ndarray)
        for i in range(0, len(split), 6):
            photo = folder / "PHOTOS" / str(split.annotations[i]) / f"{split.names[i].replace('/', '-')}.png"
            photo.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(split.images[i]).save(photo)
    (folder / "photo.jpg").write_bytes(Codec().encode(images.test.images[0], QTables.standard(50)))
    return folder


def test_there_are_blocks_of_both_kinds() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "python"}
    assert any("make demo" in text for _, text in BLOCKS)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_a_block_runs(clone: Path, index: int) -> None:
    """`make test` is left out: it is what runs tests."""
    kind, text = BLOCKS[index]
    if text.startswith("# my_model.py"):
        (clone / "my_model.py").write_text(text + OWN_NETWORK)
        text = text + OWN_NETWORK + "\nprint(net())"
    command = [sys.executable, "-c", text]
    if kind == "sh":
        command = ["bash", "-euo", "pipefail", "-c", re.sub(r"^make test.*$", "", text, flags=re.M)]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "COLUMNS": "120"}
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
