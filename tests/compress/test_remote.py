"""Photos from and to an S3 server and other storage: what is there in the end is what a run on this disk leaves."""

from __future__ import annotations

import io
import os
import signal
import tarfile

import numpy as np
import pytest
from PIL import Image

from qtable.compress import JOURNAL, MANIFEST
from qtable.compress.sources import LOCK
from qtable.storage import Store, store
from tests.compress.test_compress import OPTIONS, encoded, exit_code, files, noise, run, started
from tests.storage.test_storage import unfinished

KINDS = (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("bmp", "BMP"))
PHOTOS = 60


def contents(photos: int) -> dict[str, bytes]:
    """A data set by paths: photos of several formats, a shard, a list that names them, label maps, a text."""
    made = [encoded(noise(i), kind) for i in range(8) for _, kind in KINDS]
    names = [f"{i % 7}/{i:05}.{KINDS[i % 4][0]}" for i in range(photos)]
    found = {name: made[i % 32] for i, name in enumerate(names)}
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as shard:
        for i in range(12):
            member = tarfile.TarInfo(f"{i:03}.png")
            member.size = len(made[1])
            shard.addfile(member, io.BytesIO(made[1]))
    mask = Image.fromarray(np.kron(np.eye(8, dtype=np.uint8), np.ones((6, 6), np.uint8)))
    others = {
        "shard.tar": tar.getvalue(),
        "labels.csv": "".join(["path,label\n", *(f"{name},1\n" for name in names)]).encode(),
        "masks/1.png": encoded(mask, "PNG"),
        "1/ü #%20?.txt": b"text",
        "1/cut.jpg": made[0][:300],
    }
    return found | others


def put(folder: Store, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        folder.write(name, data)


def objects(folder: Store) -> dict[str, bytes]:
    return {file.name: folder.read(file.name) for file in folder.files()}


@pytest.fixture(scope="module")
def content() -> dict[str, bytes]:
    return contents(PHOTOS)


@pytest.fixture(scope="module")
def whole(content: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run on this disk leaves."""
    root = tmp_path_factory.mktemp("whole")
    put(store(root / "src"), content)
    assert run(root / "src", root / "dst").photos == PHOTOS + 12
    return files(root / "dst")


def command(source: object, target: object, *more: str) -> list[str]:
    return ["compress", str(source), str(target), *OPTIONS, *more]


def killed_and_resumed(words: list[str], at: list[int]) -> None:
    """The command, SIGKILLed with its workers each time when it journals one of these files, and then to its end."""
    for goal in at:
        assert exit_code(started(words, goal, lambda: os.killpg(0, signal.SIGKILL))) == -signal.SIGKILL
    assert exit_code(started(words, 0, print)) == 0


def test_a_run_in_a_bucket_that_is_killed_and_resumed_is_an_undisturbed_one_on_a_disk(
    s3: str, content: dict[str, bytes], whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qtable.compress.lines.SAVE_SECONDS", 0)
    source, target = store(f"{s3}/src"), store(f"{s3}/dst")
    put(source, content)
    words = command(source, target, "--workers", "2")
    assert exit_code(started(words, 30, lambda: os.killpg(0, signal.SIGKILL))) == -signal.SIGKILL
    left = objects(target)
    assert MANIFEST not in left
    assert left.pop(JOURNAL) == whole[JOURNAL]
    assert str(left.pop(LOCK)).count("token") == 1
    parts = {name: left.pop(name) for name in list(left) if name.startswith(".qtable-journal/")}
    assert sum(part.count(b"\n") for part in parts.values()) == 29
    assert all(data == whole[name] for name, data in left.items())
    killed_and_resumed(words, [20])
    assert objects(target) == whole
    assert unfinished(target) == []
    assert objects(source) == content
