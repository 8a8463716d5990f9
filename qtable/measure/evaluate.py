"""`Evaluator`: tables -> `Score`. The only place where a size or an accuracy is made.

`Evaluating` is what every evaluator does; this machine's threads (`Evaluator`) and a cluster's processes
(`qtable.cluster`) differ in who works on a batch.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.photos.sets import Photos
from qtable.progress import Progress
from qtable.tasks.base import Outcomes, Targets, Task

T = TypeVar("T")
Indices = npt.NDArray[np.intp]
Call = tuple[Any, ...]


@dataclass(frozen=True)
class Score:
    """What real files of `tables` weigh and what the task makes of them.

    photo_bytes: int64 [n], whole files. outcomes: float64 [n, k], the task's rows. bytes: mean file size.
    score: the task's metric, 0..1.
    """

    tables: QTables
    photo_bytes: npt.NDArray[np.int64]
    outcomes: Outcomes
    score: float

    @property
    def bytes(self) -> float:
        """Mean file size in bytes."""
        return float(self.photo_bytes.mean())


class Evaluating(ABC):
    """Evaluates tables on `photos` with real libjpeg-turbo files; same tables, same answer, whoever does the work.

    The unit of work is one batch of photos of equal size, given to `_run`; what is left here is putting the batches
    together.
    """

    def __init__(self, photos: Photos, task: Task, codec: Codec) -> None:
        self.photos, self.task, self.codec = photos, task, codec
        self._batches = photos.batches()
        try:
            self._targets = self._run(batch_targets, [(at,) for at in self._batches])
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _run(self, work: Callable[..., T], calls: Sequence[Call], done: Callable[[int], None] | None = None) -> list[T]:
        """`work(photos, task, codec, *call)` of every call, in order; an error or Ctrl-C drops what has not begun.

        work: a function of a module. call: begins with a batch's indices. done: called with each call's number.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop what works for this evaluator alone."""

    @property
    def fingerprint(self) -> str:
        """Hex digest of the targets: labels, and what the model answers on the uncompressed photos."""
        total = hashlib.sha256()
        for rows in self._targets:
            total.update(rows.tobytes())
        return total.hexdigest()[:16]

    def _scatter(self, parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        order = np.concatenate(self._batches)
        whole = np.concatenate(parts)
        out = np.empty_like(whole)
        out[order] = whole
        return out

    def __call__(self, tables: QTables, progress: Progress | None = None) -> Score:
        """Encode, decode and classify every photo. ModelError if the model's answers cannot be used."""
        (score,) = self.many([tables], progress)
        return score

    def many(self, tables: Sequence[QTables], progress: Progress | None = None) -> list[Score]:
        """The scores of several tables, worked on side by side; progress counts photos over all of them."""
        calls = [(at, rows, each) for each in tables for at, rows in zip(self._batches, self._targets, strict=True)]
        total = len(self.photos) * len(tables)
        ends = np.cumsum([len(at) for at, *_ in calls]).tolist()
        done = None if progress is None else lambda i: progress(ends[i], total)
        parts = self._run(batch_scores, calls, done)
        scores = []
        for i, each in enumerate(tables):
            mine = parts[i * len(self._batches) : (i + 1) * len(self._batches)]
            photo_bytes = self._scatter([sizes for sizes, _ in mine])
            outcomes = self._scatter([rows for _, rows in mine])
            scores.append(Score(each, photo_bytes, outcomes, self.task.score(outcomes)))
        return scores

    def clean(self) -> Outcomes:
        """The task's outcomes on the uncompressed photos, float64 [n, k]."""
        calls = list(zip(self._batches, self._targets, strict=True))
        return self._scatter(self._run(batch_clean, calls))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Evaluator(Evaluating):
    """Evaluates on this machine, with `workers` threads (default: the cores).

    libjpeg-turbo and torch release the GIL, and each thread computes alone, so that no sum depends on threads.
    """

    def __init__(self, photos: Photos, task: Task, codec: Codec, workers: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(
            workers or os.cpu_count() or 1, initializer=torch.set_num_threads, initargs=(1,)
        )
        super().__init__(photos, task, codec)

    def _run(self, work: Callable[..., T], calls: Sequence[Call], done: Callable[[int], None] | None = None) -> list[T]:
        futures = [self._pool.submit(work, self.photos, self.task, self.codec, *call) for call in calls]
        results = []
        try:
            for i, future in enumerate(futures):
                results.append(future.result())
                if done is not None:
                    done(i)
        finally:
            for future in futures:
                future.cancel()
        return results

    def close(self) -> None:
        """Stop the worker threads."""
        self._pool.shutdown(cancel_futures=True)


def batch_targets(photos: Photos, task: Task, codec: Codec, at: Indices) -> Targets:
    """What the answers on the photos at `at` are compared with."""
    return task.targets([photos.images[i] for i in at], photos.labels[at])


def batch_clean(photos: Photos, task: Task, codec: Codec, at: Indices, targets: Targets) -> Outcomes:
    """The outcomes on the uncompressed photos at `at`."""
    return task.outcomes([photos.images[i] for i in at], targets)


def batch_scores(
    photos: Photos, task: Task, codec: Codec, at: Indices, targets: Targets, tables: QTables
) -> tuple[npt.NDArray[np.int64], Outcomes]:
    """The bytes of the files of the photos at `at`, and the outcomes on what they decode to."""
    files = [codec.encode(photos.images[i], tables) for i in at]
    decoded = [codec.decode(file) for file in files]
    return np.array([len(file) for file in files]), task.outcomes(decoded, targets)
