"""Evaluation and statistics over a Dask cluster: `ClusterEvaluator`, `measure_over`, `connect`.

Needs the optional extra `qtable[cluster]`. Photos and the model are opened by the workers themselves, from the same
paths as the driver; what travels is tables, indices and results. Units of work and the order in which results are put
together depend on the photos alone, so that neither the number of workers nor a worker's death changes a result.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import torch

from qtable.jpeg.codec import Codec, library_versions
from qtable.jpeg.tables import QTables
from qtable.measure.evaluate import Call, Evaluating
from qtable.measure.sensitivity import Sensitivity, Target, measure
from qtable.photos.files import DataError
from qtable.photos.sets import ImageSet, Split
from qtable.photos.spec import PhotosSpec
from qtable.progress import Progress
from qtable.tasks.base import DifferentiableTask, Indices, ModelError
from qtable.tasks.opening import TaskSpec, weights_digest

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")
ANSWER_SECONDS: Final = 10
"""How long a scheduler may take to answer."""
DEATHS: Final = 10
"""A local cluster gives up on work during which this many workers died."""
UNIT_PIXELS: Final = 1 << 18
"""Batches of small photos go together until they have this many pixels: some 50 ms of work against 1 ms of Dask."""
SHARD_PIXELS: Final = 1 << 21
"""Photos are measured in shards of at least this many pixels; their sums take 25 MB each."""
MOST_SHARDS: Final = 128


class ClusterError(ValueError):
    """The cluster cannot be reached or used; the message says why."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to open photos and task itself. Relative paths become absolute here, on the driver."""

    photos: PhotosSpec
    task: TaskSpec

    def __post_init__(self) -> None:
        object.__setattr__(self, "photos", self.photos.absolute())
        object.__setattr__(self, "task", self.task.absolute())


@dataclass(frozen=True)
class Expected:
    """What must be the same on the driver and on every worker: photos, model and libraries."""

    photos: str
    model: str
    libraries: tuple[str, ...]

    @classmethod
    def of(cls, job: Job, images: ImageSet, task: DifferentiableTask) -> Expected:
        """Digests of all photos, annotations and splits; of all weights and the model's files; the codec's versions."""
        model = hashlib.sha256(job.task.files_digest() + weights_digest(task.model).encode()).hexdigest()
        return cls(images.fingerprint, model, tuple(library_versions().values()))


@dataclass(frozen=True)
class Unit:
    """One task of the cluster: `work` on some batches of a split."""

    job: Job
    expected: Expected
    split: Split
    work: Callable[..., Any]
    calls: tuple[Call, ...]

    def __call__(self) -> list[Any]:
        images, task = _opened(self.job, self.expected)
        return [self.work(images[self.split], task, *call) for call in self.calls]


@dataclass(frozen=True)
class Shard:
    """Another task of the cluster: the statistics of some photos of a split."""

    job: Job
    expected: Expected
    split: Split
    at: Indices
    codec: Codec
    settings: dict[str, Any]

    def __call__(self) -> Sensitivity:
        images, task = _opened(self.job, self.expected)
        return measure(images[self.split].subset(self.at), task, self.codec, **self.settings)


def _do(unit: Callable[[], T]) -> T:
    torch.set_num_threads(1)  # it counts for this thread alone; no sum depends on threads
    return unit()


def _add(one: Sensitivity, other: Sensitivity) -> Sensitivity:
    return one + other


_opening = threading.Lock()


def _opened(job: Job, expected: Expected) -> tuple[ImageSet, DifferentiableTask]:
    with _opening:
        return _open(job, expected)


@lru_cache(maxsize=2)
def _open(job: Job, expected: Expected) -> tuple[ImageSet, DifferentiableTask]:
    """Photos and task, opened once per process; again if the driver now expects others. Two runs may share workers."""
    from distributed import get_worker

    here = f"worker {get_worker().address}"
    try:
        images = job.photos.open()
        task = job.task.open()
        found = Expected.of(job, images, task)
    except (DataError, ModelError) as error:
        raise type(error)(f"{here}: {error}") from None
    except OSError as error:
        raise DataError(f"{here}: {error}") from None
    if found.photos != expected.photos:
        raise DataError(f"{here}: the photos in {images.source} are not those that the driver sees")
    if found.model != expected.model:
        raise ModelError(
            f"{here}: model {job.task.model or 'embedded'!r} has another file or other weights than on the driver"
            " (are they random and unseeded?)"
        )
    if found.libraries != expected.libraries:
        ours, others = ", ".join(found.libraries), ", ".join(expected.libraries)
        raise ClusterError(f"{here}: its codec is {ours}; the driver's {others}")
    return images, task


def dask_setup(_: object) -> None:
    """Dask's preload hook in a local cluster's worker processes: they log nothing and leave Ctrl-C to the driver."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)


def connect(address: str | None = None, workers: int | None = None) -> Client:
    """A client of the scheduler at `address`; without one, of `workers` processes (default: the cores) started here.

    Closing the client (it is a context manager) ends the processes started here. ClusterError if there is no Dask, or
    if the address does not answer. A scheduler without workers is waited for when work is sent.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ClusterError("a cluster needs Dask: pip install 'qtable[cluster]'") from None
    if workers is not None and workers < 1:
        raise ClusterError(f"{workers} workers; allowed: 1 or more")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if address is None:
        return Client(
            processes=True,
            n_workers=workers or os.cpu_count() or 1,
            threads_per_worker=1,
            memory_limit=None,
            dashboard_address="127.0.0.1:0",  # even without a dashboard Dask opens a port: any that is free
            silence_logs=logging.CRITICAL,
            set_as_default=False,
            preload=[__name__],
            scheduler_kwargs={"allowed_failures": DEATHS, "dashboard": False},
        )
    try:
        with ThreadPoolExecutor(1) as pool:  # a thread of its own: notebooks have an event loop in the caller's
            pool.submit(asyncio.run, _answer(address)).result()
        return Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
    except MemoryError:  # a greeting of another kind, read as the length of a message
        raise ClusterError(f"no Dask scheduler answers at {address}: another protocol is spoken there") from None
    except (OSError, ValueError, AssertionError) as error:  # no answer, or a malformed address
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ClusterError(f"no Dask scheduler answers at {address} within {ANSWER_SECONDS} s: {first}") from None


async def _answer(address: str) -> None:
    """Raises (OSError, ValueError) unless a scheduler answers at `address`.

    Client alone will not do: it waits forever for a server that accepts and is silent, and one that failed may lock
    up the process when the garbage collector closes it while another starts (both hold `LoopRunner._lock`).
    """
    from distributed.core import rpc

    async with asyncio.timeout(ANSWER_SECONDS), rpc(address) as scheduler:
        await scheduler.identity(n_workers=0)


@contextmanager
def _one_line() -> Iterator[None]:
    """What Dask raises when it gives up becomes a ClusterError; what the work itself raised passes through."""
    from distributed import CancelledError, KilledWorker
    from distributed.comm.core import CommClosedError

    try:
        yield
    except KilledWorker as error:
        deaths = error.allowed_failures + 1
        raise ClusterError(f"{deaths} workers died during the same work (out of memory?); see their logs") from None
    except (CancelledError, CommClosedError) as error:
        raise ClusterError(f"the cluster is gone: {str(error).splitlines()[0]}") from None


class ClusterEvaluator(Evaluating):
    """Evaluates the photos of a split on the workers of `client`: bit for bit what `Evaluator` answers.

    images, task: what the driver opened for the same job; the workers must find the same (DataError, ModelError or
    ClusterError if not). only: indices of the photos to evaluate (default: all).
    """

    def __init__(
        self,
        job: Job,
        split: Split,
        client: Client,
        images: ImageSet,
        task: DifferentiableTask,
        only: Sequence[int] | Indices | None = None,
    ) -> None:
        self._client, self._job, self._split = client, job, split
        self._expected = Expected.of(job, images, task)
        self._only: Indices = np.arange(len(images[split])) if only is None else np.asarray(only, dtype=np.intp)
        super().__init__(images[split].subset(self._only), task)

    def _units(self, work: Callable[..., Any], calls: Sequence[Call]) -> Iterator[Unit]:
        pixels, waiting, sizes = 0, list[Call](), self.photos.sizes
        for at, *rest in calls:
            size = sum(sizes[i][0] * sizes[i][1] for i in at)
            if waiting and pixels + size > UNIT_PIXELS:
                yield Unit(self._job, self._expected, self._split, work, tuple(waiting))
                pixels, waiting = 0, []
            pixels += size
            waiting.append((self._only[at], *rest))
        if waiting:
            yield Unit(self._job, self._expected, self._split, work, tuple(waiting))

    def _run(self, work: Callable[..., T], calls: Sequence[Call], done: Callable[[int], None] | None = None) -> list[T]:
        results: list[T] = []
        futures = [_submit(self._client, _do, unit) for unit in self._units(work, calls)]
        try:
            for future in futures:
                with _one_line():
                    parts = future.result()
                for part in parts:
                    results.append(part)
                    if done is not None:
                        done(len(results) - 1)
        except BaseException:
            with suppress(Exception):
                self._client.cancel(futures)
            raise
        return results

    def close(self) -> None:
        """Nothing: the client is the caller's."""


def _submit(client: Client, work: Callable[..., Any], *arguments: Any, priority: int = 0) -> Any:
    """Never looked up by its arguments (pure): they need not be hashed, and the same work may be asked for twice."""
    return client.submit(work, *arguments, pure=False, priority=priority)


def measure_over(
    client: Client,
    job: Job,
    images: ImageSet,
    task: DifferentiableTask,
    codec: Codec,
    split: Split = "fit",
    target: Target = "fisher",
    samples: int = 2,
    at: QTables | None = None,
    normalize: float = 0.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sensitivity:
    """`measure` on a split, map-reduced over the workers: equal to it up to the rounding of sums.

    Shards and the tree in which their sums are added depend on the photos alone: the same bits on any cluster.
    """
    photos, expected = images[split], Expected.of(job, images, task)
    settings = {"target": target, "samples": samples, "at": at, "normalize": normalize, "seed": seed}
    order = np.concatenate(photos.batches())  # photos of equal size stay together
    ends = np.cumsum(np.prod(photos.sizes, axis=1)[order])
    most = max(SHARD_PIXELS, int(ends[-1]) // MOST_SHARDS)
    cuts = np.flatnonzero(np.diff(ends // most)) + 1
    shards = np.split(order, cuts)
    level = [_submit(client, _do, Shard(job, expected, split, members, codec, settings)) for members in shards]
    leaves = list(level)
    while len(level) > 1:  # inner nodes go first, so that few sums wait in memory
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [_submit(client, _add, *pair, priority=1) if len(pair) == 2 else pair[0] for pair in pairs]
    (total,) = level
    done = 0
    try:
        for i, members in enumerate(shards):
            with _one_line():
                error = leaves[i].exception()  # waits, and fetches no sum
            if error is not None:
                raise error
            leaves[i] = None  # the node above it keeps it as long as needed
            done += len(members)
            if progress is not None:
                progress(done, len(photos))
        with _one_line():
            result: Sensitivity = total.result()
    except BaseException:
        with suppress(Exception):
            client.cancel([future for future in [*leaves, total] if future is not None])
        raise
    return result
