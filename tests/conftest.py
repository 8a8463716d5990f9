"""Photos, tables and the shared material that tests use."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
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


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server that runs as a process of its own, on this machine."""
    missing = [name for name in ("s3fs", "moto", "flask", "flask_cors") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: this test needs an S3 server and s3fs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        while server.poll() is None:
            with socket.socket() as caller:
                if caller.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            pytest.fail(f"the S3 server ended at once: {log.read_text()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`s3://` and the name of a new bucket, which this process and its children reach as a user's reach theirs."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    import s3fs

    bucket = f"bucket-{secrets.token_hex(8)}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    yield f"s3://{bucket}"
    s3fs.S3FileSystem.clear_instance_cache()  # connections of this environment


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)
