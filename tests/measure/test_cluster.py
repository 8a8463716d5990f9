"""Over a cluster of two processes on this machine: the same bits, whoever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qtable.codecs.plain import TableCoder
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure import cluster
from qtable.measure.cluster import ClusterError, ClusterEvaluator, Job, connect, measure_over
from qtable.measure.evaluate import Evaluator, Score
from qtable.measure.sensitivity import measure
from qtable.photos.files import DataError
from qtable.photos.sets import ImageSet
from qtable.photos.spec import PhotosSpec
from qtable.tasks.base import DifferentiableTask, ModelError
from qtable.tasks.opening import TaskSpec

pytest.importorskip("distributed", reason="qtable[cluster] is not installed: no Dask to test with")

CODEC = Codec("4:2:2")
MODEL = """
import os, time, torch
from torch import nn

class Colour(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 2)

    def forward(self, rgb):
        return self.head(self.body(rgb / 64 - 2))

class Slow(Colour):
    def forward(self, rgb):
        time.sleep(0.05)
        return super().forward(rgb)

class Moody(Colour):
    '''Answers NaN to photos that are almost flat: those of coarse tables.'''
    def forward(self, rgb):
        return super().forward(rgb) + (float('nan') if rgb.std() < 9 else 0)

class Random(Colour):
    def __init__(self):
        super().__init__()
        self.head.bias.data[0] = int.from_bytes(os.urandom(3), 'little')

def net(): return Colour()
def slow(): return Slow()
def moody(): return Moody()
def random(): return Random()
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with connect(workers=2) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 40 small photos in two sizes, and a model file."""
    rng = np.random.default_rng(0)
    for name, strength in (("a", 30), ("b", 8)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(40):
            noise = rng.normal(0, strength, (12, 16 + 4 * (i % 2), 3)).repeat(2, 0).repeat(2, 1) + 128
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


def opened(folder: Path, model: str = "net", limit: int | None = None) -> tuple[Job, ImageSet, DifferentiableTask]:
    spec = f"{folder / 'model.py'}:{model}"
    job = Job(PhotosSpec(str(folder / "photos"), None, limit), TaskSpec(spec))
    return job, ImageSet.open(job.photos.source, None, limit), job.task.open()


@pytest.fixture(scope="module")
def embedded() -> tuple[Job, ImageSet, DifferentiableTask]:
    job = Job(PhotosSpec(), TaskSpec())
    return job, ImageSet.open(), job.task.open()


def assert_same(ours: Score, other: Score) -> None:
    assert ours.coder == other.coder
    assert ours.photo_bytes.dtype == other.photo_bytes.dtype
    assert np.array_equal(ours.photo_bytes, other.photo_bytes)
    assert ours.outcomes.written() == other.outcomes.written()
    assert ours.score == other.score


def test_scores_are_bit_for_bit_those_of_one_machine(
    client: Any, embedded: tuple[Job, ImageSet, DifferentiableTask], asymmetric: QTables
) -> None:
    job, images, task = embedded
    coders = [TableCoder(QTables.standard(20)), TableCoder(asymmetric)]
    with (
        Evaluator(images.search, task) as alone,
        ClusterEvaluator(job, "search", client, images, task) as many,
    ):
        assert many.fingerprint == alone.fingerprint
        expected = [alone(each) for each in coders]
        for ours, other in zip(many.many(coders), expected, strict=True):
            assert_same(ours, other)
        seen: list[tuple[int, int]] = []
        assert_same(many(coders[1], lambda done, total: seen.append((done, total))), expected[1])
        assert seen[-1] == (420, 420)
        assert many.clean().written() == alone.clean().written()
        assert many.many([]) == []


def test_some_photos_of_several_sizes(client: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "UNIT_PIXELS", 1)  # one batch a unit
    job, images, task = opened(folder)
    only = list(range(len(images.test)))[::-3]
    coder = TableCoder(QTables.standard(30), CODEC)
    with Evaluator(images.test.subset(only), task) as alone:
        expected = alone(coder)
    with ClusterEvaluator(job, "test", client, images, task, only) as many:
        assert_same(many(coder), expected)
        assert many.photos.names == images.test.subset(only).names


def test_a_killed_worker_costs_nothing_but_time(client: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "UNIT_PIXELS", 1)
    job, images, task = opened(folder, "slow")
    coders = [TableCoder(QTables.standard(quality), CODEC) for quality in range(10, 30)]
    with Evaluator(images.search, task) as alone:
        expected = alone.many(coders)
    processes = client.run(os.getpid)
    killed = next(iter(processes.values()))
    assert killed != os.getpid()

    def kill(done: int, total: int) -> None:
        if total // 3 < done and killed in processes.values():
            os.kill(killed, signal.SIGKILL)
            processes.clear()

    with ClusterEvaluator(job, "search", client, images, task) as many:
        found = many.many(coders, kill)
        assert not processes
        for ours, other in zip(found, expected, strict=True):
            assert_same(ours, other)
        client.wait_for_workers(2, timeout=120)  # another takes its place
        assert killed not in client.run(os.getpid).values()
        assert_same(many(coders[3]), expected[3])


@pytest.mark.parametrize(
    "settings",
    [{}, {"target": "distillation", "at": QTables.standard(40), "normalize": 0.5, "seed": 3}],
)
def test_statistics_add_up_to_those_of_one_machine(
    client: Any, folder: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SHARD_PIXELS", 6000)
    job, images, task = opened(folder)
    expected = measure(images.fit, task, CODEC, **settings)
    seen: list[tuple[int, int]] = []
    found = measure_over(client, job, images, task, CODEC, progress=lambda *now: seen.append(now), **settings)
    assert len(seen) > 2
    assert seen[-1] == (len(images.fit), len(images.fit))
    assert found.photos == expected.photos
    assert np.array_equal(found.levels, expected.levels)
    assert np.array_equal(found.differences, expected.differences)
    assert expected.costs.max() > 0
    np.testing.assert_allclose(found.costs, expected.costs, rtol=1e-4, atol=1e-6 * expected.costs.max())
    again = measure_over(client, job, images, task, CODEC, **settings)
    assert np.array_equal(found.costs, again.costs)


def test_mistakes_of_the_work_arrive_in_one_line(client: Any, folder: Path) -> None:
    job, images, task = opened(folder, "moody")
    with ClusterEvaluator(job, "search", client, images, task) as many:
        many(TableCoder(QTables.standard(95)))
        with pytest.raises(ModelError, match=r"^the model answers NaN or infinity to RGB") as error:
            many(TableCoder(QTables(np.full((1, 8, 8), 255))))
        many(TableCoder(QTables.standard(95)))  # and work goes on
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="target 'taste' is unknown"):
        measure_over(client, job, images, task, CODEC, target="taste")  # type: ignore[arg-type]


def test_workers_that_see_something_else_are_refused(client: Any, folder: Path) -> None:
    job, images, task = opened(folder)
    ClusterEvaluator(job, "search", client, images, task)
    with pytest.raises(DataError, match=r"^worker tcp://.*: the photos in .* are not those that the driver sees"):
        ClusterEvaluator(job, "search", client, ImageSet.open(job.photos.source, None, 60), task)
    (folder / "photos" / "a" / "0.png").unlink()
    fresh = ImageSet.open(job.photos.source)
    ClusterEvaluator(job, "search", client, fresh, task)  # what a worker opened before is opened again
    with pytest.raises(DataError, match=r"^worker tcp://.*: .*no such folder"):
        ClusterEvaluator(replace(job, photos=PhotosSpec("/nowhere")), "search", client, fresh, task)
    (folder / "model.py").write_text(MODEL.replace("64 - 2", "64 - 1"))
    changed = job.task.open()
    with Evaluator(fresh.search, changed) as alone:
        assert ClusterEvaluator(job, "search", client, fresh, changed).fingerprint == alone.fingerprint
    job, images, task = opened(folder, "random")
    with pytest.raises(ModelError, match=r"^worker tcp://.*: model .*random' has .* other weights"):
        ClusterEvaluator(job, "search", client, images, task)


def test_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job(PhotosSpec("photos"), TaskSpec("model.py:net", "agreement"))
    assert (job.photos.source, job.task.model) == (str(tmp_path / "photos"), f"{tmp_path / 'model.py'}:net")
    assert job.task.metric == "agreement"
    assert replace(job, task=TaskSpec("package.module:net")).task.model == "package.module:net"
    assert replace(job, task=TaskSpec()).task == TaskSpec()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "magic://here:1"])
def test_an_address_that_does_not_answer(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1)
    with pytest.raises(ClusterError, match=f"no Dask scheduler answers at {address} within 1 s") as error:
        connect(address)
    assert "\n" not in str(error.value)


def test_a_server_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ClusterError, match="no Dask scheduler"):
        connect(f"tcp://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n" * 4, b"\xff" * 64])
def test_a_server_of_another_kind(greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            caller, _ = other.accept()
            with caller:
                caller.sendall(greeting)
                caller.recv(1 << 16)

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(greet)
            with pytest.raises(ClusterError, match="no Dask scheduler answers at tcp://127"):
                connect(f"tcp://127.0.0.1:{other.getsockname()[1]}")
            done.result()


def test_a_scheduler_elsewhere_answers_from_within_an_event_loop(client: Any) -> None:
    async def notebook() -> int:
        with connect(client.scheduler.address) as second:
            return len(second.scheduler_info()["workers"])

    assert asyncio.run(notebook()) == 2


def test_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"pip install 'qtable\[cluster\]'"):
        connect()


def test_no_workers_asked_for() -> None:
    with pytest.raises(ClusterError, match="0 workers; allowed: 1 or more"):
        connect(workers=0)


SCRIPT = """
import os, sys
from qtable.measure.cluster import ClusterEvaluator, Job, connect
from qtable import ImageSet, QTables
from qtable.codecs.plain import TableCoder
from qtable.photos.spec import PhotosSpec
from qtable.tasks.opening import TaskSpec

def main():
    source, model = sys.argv[1:]
    job = Job(PhotosSpec(source), TaskSpec(model))
    with connect(workers=1) as client:
        print("workers", *client.run(os.getpid).values(), flush=True)
        images, task, coder = ImageSet.open(source), job.task.open(), TableCoder(QTables.standard(50))
        with ClusterEvaluator(job, "search", client, images, task) as evaluator:
            print("score", evaluator(coder).score, flush=True)
            while "slow" in model:
                evaluator(coder)

if __name__ == "__main__":
    main()
"""


@contextmanager
def started(folder: Path, model: str) -> Iterator[subprocess.Popen[str]]:
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    with subprocess.Popen(
        [sys.executable, "-W", "error", folder / "script.py", folder / "photos", f"{folder / 'model.py'}:{model}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_a_run_says_nothing_but_its_results(client: Any, folder: Path) -> None:
    assert client.status == "running"  # another cluster on this machine disturbs nobody
    with started(folder, "net") as process:
        out, errors = process.communicate(timeout=150)
    assert (process.returncode, errors) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["workers", "score"]


def alive(pid: int) -> bool:
    """Whether this process runs (a zombie does not)."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_driver(folder: Path, blow: signal.Signals) -> None:
    with started(folder, "slow") as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline().split()[1])
        process.stdout.readline()
        assert alive(worker)
        if blow == signal.SIGINT:
            os.killpg(process.pid, blow)  # as a terminal does: the workers get it, too
        else:
            process.send_signal(blow)
        _, errors = process.communicate(timeout=150)
    deadline = time.monotonic() + 60
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)
    if blow == signal.SIGINT:
        assert errors.count("Traceback") == 1  # the driver's KeyboardInterrupt, and no worker's
        assert errors.strip().endswith("KeyboardInterrupt")
