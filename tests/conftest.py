"""Photos, tables and the shared material that tests use."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageFile

from qtable.jpeg import dct
from qtable.jpeg.codec import RGB
from qtable.jpeg.tables import QTables
from qtable.photos.sets import Photos

torch.set_num_threads(1)  # pytest-xdist's workers share the cores
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared photos and networks; skips where it is missing."""
    if not (SHARED / "data" / "imagenet").is_dir():
        pytest.skip(f"{SHARED} is not there: this test needs its photos and networks")
    return SHARED


@pytest.fixture(scope="session")
def photo() -> RGB:
    """A 131 x 93 piece of a photograph: no side is a multiple of 8."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[40:171, 180:273])


@pytest.fixture(scope="session")
def asymmetric() -> QTables:
    """An asymmetric luma table and a different chroma table: a transposition or a zigzag slip shows at once."""
    rising = np.arange(1, 65).reshape(8, 8)
    return QTables(np.stack([rising, 65 - rising]))


@pytest.fixture(scope="session")
def crops() -> Photos:
    """24 crops of a photograph in two sizes, with random labels 0 and 1."""
    from skimage import data

    image, rng = data.coffee(), np.random.default_rng(0)
    images = []
    for i in range(24):
        top, left = rng.integers(0, 300), rng.integers(0, 500)
        images.append(np.ascontiguousarray(image[top : top + 48, left : left + 56 + 16 * (i % 2)]))
    return Photos(tuple(images), rng.integers(0, 2, 24), tuple(map(str, range(24))))


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """One thread, for photos this small; whatever a test sets is undone."""
    threads, precision, chunk = torch.get_num_threads(), torch.get_float32_matmul_precision(), dct.CHUNK_PIXELS
    block = ImageFile.MAXBLOCK  # an encoder of a large photo leaves Pillow with buffers as large
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    dct.CHUNK_PIXELS = chunk  # type: ignore[misc]
    ImageFile.MAXBLOCK = block


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 KB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount the small disk that this test fills")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)
