"""Photos from and to an S3 server and other storage: what is there in the end is what a run on this disk leaves."""

from __future__ import annotations

import io
import itertools
import json
import os
import secrets
import signal
import socket
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qtable.compress import JOURNAL, MANIFEST, CompressError, Entry, Job, Journal, Row
from qtable.compress.sources import LOCK, PARTS
from qtable.compress.tars import read_tar
from qtable.storage import Memory, Remote, StorageError, Store, store
from tests.compress.test_compress import (
    OPTIONS,
    Elsewhere,
    encoded,
    exit_code,
    files,
    noise,
    run,
    started,
    succeeds,
    until,
)
from tests.storage.test_storage import Quiet, unfinished, web_server

KINDS = (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("bmp", "BMP"))
PHOTOS = 40


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
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(folder.write, content.keys(), content.values()))


def objects(folder: Store) -> dict[str, bytes]:
    names = [file.name for file in folder.files()]
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(folder.read, names), strict=True))


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
    parts = {name: left.pop(name) for name in list(left) if name.startswith(PARTS + "/")}
    assert sum(part.count(b"\n") for part in parts.values()) == 29
    assert all(data == whole[name] for name, data in left.items())
    finished = {json.loads(line)["rows"][0]["source"] for part in parts.values() for line in part.splitlines()}
    read, read_many = list[str](), Remote.read_many

    def noted(self: Remote, names: Sequence[str]) -> list[bytes | OSError]:
        read.extend(names)
        return read_many(self, names)

    monkeypatch.setattr(Remote, "read_many", noted)
    run(str(source), str(target))
    assert read
    assert finished.isdisjoint(read)
    assert objects(target) == whole
    assert unfinished(target) == []
    assert objects(source) == content


@pytest.mark.parametrize("way", ["to", "from"])
def test_between_a_disk_and_a_bucket(
    s3: str, content: dict[str, bytes], whole: dict[str, bytes], tmp_path: Path, way: str
) -> None:
    here, there = store(tmp_path / "here"), store(f"{s3}/there")
    source, target = (here, there) if way == "to" else (there, here)
    put(source, content)
    summary = run(str(source), str(target))
    assert objects(target) == whole
    assert (summary.photos, summary.label_maps, summary.lists) == (PHOTOS + 12, 1, 1)
    assert summary.skipped == {"unreadable": 1}
    assert str(summary.manifest) == f"{target}/{MANIFEST}"
    target.write("4/00004.jpg", b"damaged")
    target.remove("labels.csv")
    source.write("1/00001.png", content["1/00001.png"])  # anew, with the same bytes
    assert run(str(source), str(target)).photos == PHOTOS + 12
    assert objects(target) == whole


def test_one_shard_of_a_bucket(s3: str, content: dict[str, bytes], whole: dict[str, bytes]) -> None:
    put(store(f"{s3}/src"), content)
    assert run(f"{s3}/src/shard.tar", f"{s3}/dst").photos == 12
    assert store(f"{s3}/dst").read("shard.tar") == whole["shard.tar"]
    with pytest.raises(CompressError, match=r"src/none\.tar: no such folder or \.tar file"):
        run(f"{s3}/src/none.tar", f"{s3}/other")


def test_a_bucket_that_is_called_like_a_shard(content: dict[str, bytes], tmp_path: Path) -> None:
    put(store(place := f"memory://{secrets.token_hex(8)}.tar"), {"1.png": content["1/00001.png"]})
    assert run(place, tmp_path / "dst").photos == 1


def test_memory_is_of_one_process(content: dict[str, bytes], whole: dict[str, bytes]) -> None:
    place = f"memory://{secrets.token_hex(8)}"
    put(store(f"{place}/src"), content)
    with pytest.raises(CompressError, match=r"memory:// is of one process; allowed: 1 worker"):
        run(f"{place}/src", f"{place}/dst", workers=2)
    run(f"{place}/src", f"{place}/dst")
    assert objects(store(f"{place}/dst")) == whole


def test_a_dry_run_on_a_bucket_is_that_on_a_disk(
    s3: str, content: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = []
    for place in (f"{s3}/src", str(tmp_path / "src")):
        put(store(place), content)
        succeeds(command(place, f"{s3}/dst", "--dry-run", "--sample", "45"))
        words.append(capsys.readouterr().out)
    assert words[0] == words[1]
    assert words[0].startswith("An estimate from 4")
    with pytest.raises(FileNotFoundError):
        store(f"{s3}/dst").files()


def test_a_run_that_ends_between_its_manifest_and_its_journal(
    content: dict[str, bytes], whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qtable.compress.lines.SAVE_SECONDS", 0)
    place, removed = f"memory://{secrets.token_hex(8)}", list[str]()
    put(store(f"{place}/src"), content)

    def remove(self: Memory, name: str) -> None:
        if len(removed) == 2:
            raise KeyboardInterrupt
        Remote.remove(self, name)
        removed.append(name)

    with monkeypatch.context() as patch:
        patch.setattr(Memory, "remove", remove)
        with pytest.raises(KeyboardInterrupt):
            run(f"{place}/src", f"{place}/dst")
    assert removed == ["00000000.jsonl", "00000001.jsonl"]  # the oldest
    target = store(f"{place}/dst")
    assert target.exists(MANIFEST)
    assert target.exists(f"{PARTS}/00000002.jsonl")
    target.remove(LOCK)  # of this process, which lives
    run(f"{place}/src", f"{place}/dst")
    assert objects(target) == whole


def test_from_a_web_server(content: dict[str, bytes], whole: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: this test reads http://")
    put(store(tmp_path / "src"), {name: data for name, data in content.items() if name != "shard.tar"})
    with web_server(tmp_path, Quiet) as address:
        assert run(f"{address}/src", tmp_path / "dst", workers=2).photos == PHOTOS
        with pytest.raises(StorageError, match="http:// is for reading"):
            run(tmp_path / "src", f"{address}/dst")
    made = files(tmp_path / "dst")
    assert all(made[name] == data for name, data in whole.items() if name not in (MANIFEST, "shard.tar"))


# ---- workers --------------------------------------------------------------------------------------------------


def test_the_same_work_over_dask(s3: str, content: dict[str, bytes], whole: dict[str, bytes]) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra qtable[cluster]")
    put(store(f"{s3}/src"), content)
    with distributed.Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None, set_as_default=False
    ) as client:
        run(f"{s3}/src", f"{s3}/dst", executor=client.get_executor(pure=False), workers=2)
    assert objects(store(f"{s3}/dst")) == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda job: replace(job, target=Remote("gs://b")),
            "worker on .*: gs://b: gs:// needs gcsfs: pip ",
        ),
        (lambda job: replace(job, root=Remote("gs://b")), r"gs://b: gs:// needs gcsfs: pip install 'qtable\[gcs\]'"),
        (lambda job: replace(job, target=store("memory://x/y")), "worker on .*: its memory://x/y is not the driver's"),
        (lambda job: replace(job, root=store("memory://x/y")), "a worker does not see ./.* in .*src"),
    ],
)
def test_workers_that_have_something_else_are_refused(
    content: dict[str, bytes],
    tmp_path: Path,
    change: Callable[[Job], Job],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qtable.storage.remote.find_spec", lambda name: None if name == "gcsfs" else name)
    put(store(tmp_path / "src"), content)
    with Elsewhere(change) as executor, pytest.raises((CompressError, StorageError), match=message):
        run(tmp_path / "src", tmp_path / "dst", executor=executor)
    assert not (tmp_path / "dst" / MANIFEST).exists()


# ---- what is refused or left out ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target"), [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a/x.tar", "a"), ("a/", "a/b/"), ("", "a")]
)
def test_places_in_a_bucket_lie_apart(source: str, target: str) -> None:
    with pytest.raises(CompressError, match="must lie apart: the originals are never overwritten"):
        run(f"memory://x/{source}", f"memory://x/{target}")


def test_folders_whose_names_begin_alike_lie_apart(content: dict[str, bytes]) -> None:
    place = f"memory://{secrets.token_hex(8)}"
    put(store(f"{place}/a"), {"1.png": content["1/00001.png"]})
    assert run(f"{place}/a", f"{place}/ab").photos == 1


def test_a_target_with_other_objects_is_refused(content: dict[str, bytes]) -> None:
    place = f"memory://{secrets.token_hex(8)}"
    put(store(f"{place}/src"), content)
    put(store(f"{place}/dst"), {"mine.txt": b"mine"})
    with pytest.raises(CompressError, match="dst holds other files; choose a new folder"):
        run(f"{place}/src", f"{place}/dst")
    assert objects(store(f"{place}/dst")) == {"mine.txt": b"mine"}


def test_names_that_no_folder_can_hold(s3: str, content: dict[str, bytes], tmp_path: Path) -> None:
    import s3fs

    photo, system, bucket = (
        content["0/00000.jpg"],
        s3fs.S3FileSystem(skip_instance_cache=True),
        s3.removeprefix("s3://"),
    )
    odd = ["a//1.jpg", "a/../2.jpg", "./3.jpg", "both.jpg", "/4.jpg"]
    for name in (*odd, "both.jpg/5.jpg", "fine.jpg", LOCK):
        system.call_s3("put_object", Bucket=bucket, Key=f"src/{name}", Body=photo)
    summary = run(f"{s3}/src", tmp_path / "dst")
    assert (summary.photos, summary.skipped) == (2, {"name needed by qtable": 1, "name that no folder can hold": 5})
    assert set(files(tmp_path / "dst")) == {"both.jpg/5.jpg", "fine.jpg", MANIFEST, JOURNAL}


def test_names_that_no_bucket_can_hold(s3: str, content: dict[str, bytes], tmp_path: Path) -> None:
    photo, fine = content["0/00000.jpg"], "a b\t[*]?{}ü.jpg"
    deep = "/".join(["x" * 200] * 6) + ".jpg"
    put(store(tmp_path / "src"), {os.fsdecode(b"caf\xe9.jpg"): photo, deep: photo, fine: photo})
    for _ in range(2):
        summary = run(tmp_path / "src", f"{s3}/dst")
        assert (summary.photos, summary.skipped) == (1, {"name that is no UTF-8": 1, "name too long": 1})
    assert set(objects(store(f"{s3}/dst"))) == {fine, MANIFEST, JOURNAL}


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_a_shard_that_is_replaced_while_it_is_read_is_left_out(
    place: str,
    request: pytest.FixtureRequest,
    content: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = store(tmp_path / "src" if place == "disk" else f"{request.getfixturevalue('s3')}/src")
    put(source, {"shard.tar": content["shard.tar"], "1.jpg": content["0/00000.jpg"]})

    def replaced(file: Any) -> Any:
        source.write("shard.tar", content["shard.tar"] + bytes(1024))
        return read_tar(file)

    with monkeypatch.context() as patch:
        patch.setattr("qtable.compress.worker.read_tar", replaced)
        assert run(str(source), tmp_path / "dst").skipped == {"changed while it was read": 1}
    assert not (tmp_path / "dst/shard.tar").exists()
    assert run(str(source), tmp_path / "dst").photos == 13


@pytest.mark.parametrize("call", ["read_many", "write_many", "open", "write"])
def test_an_outage_ends_the_run_in_one_line_and_the_next_completes_it(
    content: dict[str, bytes], whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Where photos are read or written, a shard read, the journal written."""
    monkeypatch.setattr("qtable.compress.lines.SAVE_SECONDS", 0)
    place, calls, works = f"memory://{secrets.token_hex(8)}", itertools.count(), getattr(Memory, call)
    put(store(f"{place}/src"), content)

    def fails(self: Remote, *rest: Any) -> Any:
        if next(calls) < {"write": 2, "open": 3}.get(call, 1):
            return works(self, *rest)
        if call == "read_many":
            return [StorageError(f"{self}/{name}: not reached: no route") for name in rest[0]]
        raise StorageError(f"{self}: not reached: no route")

    monkeypatch.setattr(Memory, call, fails)
    with pytest.raises(CompressError, match=r"not reached: no route; what was written before is whole, and the same c"):
        run(f"{place}/src", f"{place}/dst")
    monkeypatch.undo()
    assert MANIFEST not in (left := objects(store(f"{place}/dst")))
    assert b"no route" not in b"".join(left.values())
    run(f"{place}/src", f"{place}/dst")
    assert objects(store(f"{place}/dst")) == whole


def test_a_bucket_that_is_not_there(s3: str, content: dict[str, bytes], tmp_path: Path) -> None:
    put(store(tmp_path / "src"), content)
    for source, target in ((tmp_path / "src", f"{s3}-none/x"), (f"{s3}-none/x", tmp_path / "dst")):
        with pytest.raises(FileNotFoundError, match="no such bucket"):
            run(source, target)
    with pytest.raises(CompressError, match=r"/none: no such folder or \.tar file"):
        run(f"{s3}/none", tmp_path / "dst")
    assert not (tmp_path / "dst").exists()


# ---- two runs at once -----------------------------------------------------------------------------------------


def test_a_second_run_on_a_bucket_is_refused(
    s3: str, content: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qtable.compress.lock.BEAT_SECONDS", 0.1)
    put(store(f"{s3}/src"), content)
    with Journal(store(f"{s3}/dst"), {}):
        line = rf"another run \({socket.gethostname()}, process {os.getpid()}\) is writing {s3}/dst; wait for it or"
        with pytest.raises(CompressError, match=line):
            run(f"{s3}/src", f"{s3}/dst")
    assert set(objects(store(f"{s3}/dst"))) == {JOURNAL}


def test_a_lock_of_a_dead_run_elsewhere_is_taken_over(
    s3: str, content: dict[str, bytes], whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qtable.compress.lock.DEAD_SECONDS", 0.5)
    put(store(f"{s3}/src"), content)
    put(store(f"{s3}/dst"), {LOCK: json.dumps({"host": "gone", "machine": "x", "pid": 1, "token": "y"}).encode()})
    run(f"{s3}/src", f"{s3}/dst")
    assert objects(store(f"{s3}/dst")) == whole


def test_who_is_taken_over_writes_no_more(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtable.compress.lock.BEAT_SECONDS", 0.05)
    target = store(f"{s3}/dst")
    with Journal(target, {}) as journal:

        def taken_over() -> bool:
            target.write(LOCK, b'{"token": "another"}')  # again where it said just then that it lives
            return bool(journal._lines._lock.lost)  # type: ignore[attr-defined]

        until(taken_over)
        with pytest.raises(CompressError, match="another run took over"):
            journal.add(Entry(1, "1", (Row("a", None, None, "skipped"),)))
    assert set(objects(target)) == {JOURNAL, LOCK}


# ---- many -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_thousand(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """A data set, and what a run on this disk leaves of it."""
    root, content = tmp_path_factory.mktemp("many"), contents(1988)
    put(store(root / "src"), content)
    assert run(root / "src", root / "dst", workers=2).photos == 2000
    return content, files(root / "dst")


@pytest.fixture(params=["processes", "cluster"])
def workers(request: pytest.FixtureRequest, s3: str) -> Iterator[list[str]]:
    """Options for two of them; those of a cluster outlive the command, and reach the bucket by their environment."""
    if request.param == "processes":
        yield ["--workers", "2"]
        return
    pytest.importorskip("distributed", reason="needs the extra qtable[cluster]")
    from qtable.measure.cluster import connect

    with connect(workers=2) as client:
        yield ["--cluster", client.scheduler_info()["address"]]


@pytest.mark.slow
def test_two_thousand_photos_killed_three_times(
    s3: str,
    two_thousand: tuple[dict[str, bytes], dict[str, bytes]],
    workers: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qtable.compress.lines.SAVE_SECONDS", 0.5)
    content, whole = two_thousand
    source, target = store(f"{s3}/src"), store(f"{s3}/dst")
    put(source, content)
    words = command(source, target, *workers)
    for at in (500, 400, 600):
        assert exit_code(started(words, at, lambda: os.killpg(0, signal.SIGKILL))) == -signal.SIGKILL
        assert not target.exists(MANIFEST)
    assert exit_code(started(words, 0, print)) == 0
    assert objects(target) == whole
    assert unfinished(target) == []
    assert objects(source) == content
