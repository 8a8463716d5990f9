"""`Evaluator`: a coder -> `Score`. The only place where a size or a score is made.

`Evaluating` is what every evaluator does; this machine's threads (`Evaluator`) and a cluster's processes
(`qtable.measure.cluster`) differ in who works on a batch.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from qtable.codecs.base import Coder
from qtable.jpeg.tables import QTables
from qtable.memory import BATCHES, give_back
from qtable.photos.sets import Photos
from qtable.progress import Progress
from qtable.tasks.base import Doubting, Indices, Outcomes, Targets, Task, digest

T = TypeVar("T")
Call = tuple[Any, ...]


@dataclass(frozen=True)
class Score:
    """What the files of one coder weigh and what a task makes of them.

    photo_bytes: int64 [n], whole files. outcomes: of the n photos.
    """

    coder: Coder
    photo_bytes: npt.NDArray[np.int64]
    outcomes: Outcomes

    @cached_property
    def bytes(self) -> float:
        """Mean file size in bytes."""
        return float(self.photo_bytes.mean())

    @cached_property
    def score(self) -> float:
        """The task's metric, 0..1."""
        return self.outcomes.score()

    @property
    def tables(self) -> QTables:
        """The coder's quantization tables. ValueError if it has none."""
        if self.coder.tables is None:
            raise ValueError(f"{self.coder.name}: files without quantization tables of their own")
        return self.coder.tables

    def subset(self, indices: Sequence[int] | Indices) -> Score:
        """On some of the photos."""
        at = np.asarray(indices, dtype=np.intp)
        return Score(self.coder, self.photo_bytes[at], self.outcomes.subset(at))

    def joined(self, other: Score) -> Score:
        """On these photos and those of another score of the same coder."""
        outcomes = type(self.outcomes).join([self.outcomes, other.outcomes])
        return Score(self.coder, np.concatenate([self.photo_bytes, other.photo_bytes]), outcomes)


class Evaluating(ABC):
    """Evaluates coders on `photos` with real files; the same coder, the same answer, whoever does the work.

    The unit of work is one batch of photos of equal size, given to `_run`; what is left here is putting the batches
    together.
    """

    def __init__(self, photos: Photos, task: Task) -> None:
        self.photos, self.task = photos, task
        self._batches = photos.batches()
        self._back = np.argsort(np.concatenate(self._batches), kind="stable")
        try:
            self._targets = self._run(batch_targets, [(at,) for at in self._batches])
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _run(self, work: Callable[..., T], calls: Sequence[Call], done: Callable[[int], None] | None = None) -> list[T]:
        """`work(photos, task, *call)` of every call, in order; an error or Ctrl-C drops what has not begun.

        work: a function of a module. call: begins with a batch's indices. done: called with each call's number.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop what works for this evaluator alone."""

    @property
    def fingerprint(self) -> str:
        """Hex digest of the targets: annotations, and what the model answers on the uncompressed photos."""
        return digest(self._targets)[:16]

    def doubts(self) -> list[str]:
        """What the task doubts of photos, annotations and network together, for people; most often nothing."""
        return self.task.doubts(self._targets) if isinstance(self.task, Doubting) else []

    def _whole(self, parts: Sequence[Outcomes]) -> Outcomes:
        return type(parts[0]).join(parts).subset(self._back)

    def __call__(self, coder: Coder, progress: Progress | None = None) -> Score:
        """Encode, decode and look at every photo. ModelError if the model's answers cannot be used."""
        (score,) = self.many([coder], progress)
        return score

    def many(self, coders: Sequence[Coder], progress: Progress | None = None) -> list[Score]:
        """The scores of several coders, worked on side by side; progress counts photos over all of them."""
        calls = [(at, rows, each) for each in coders for at, rows in zip(self._batches, self._targets, strict=True)]
        total = len(self.photos) * len(coders)
        ends = np.cumsum([len(at) for at, *_ in calls]).tolist()
        done = None if progress is None else lambda i: progress(ends[i], total)
        parts = self._run(batch_scores, calls, done)
        scores = []
        for i, each in enumerate(coders):
            mine = parts[i * len(self._batches) : (i + 1) * len(self._batches)]
            photo_bytes = np.concatenate([sizes for sizes, _ in mine])[self._back]
            scores.append(Score(each, photo_bytes, self._whole([outcomes for _, outcomes in mine])))
        return scores

    def clean(self) -> Outcomes:
        """The task's outcomes on the uncompressed photos."""
        calls = list(zip(self._batches, self._targets, strict=True))
        return self._whole(self._run(batch_clean, calls))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Evaluator(Evaluating):
    """Evaluates on this machine, with `workers` threads (default: the cores).

    libjpeg-turbo and torch release the GIL, and each thread computes alone, so that no sum depends on threads.
    """

    def __init__(self, photos: Photos, task: Task, workers: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(
            workers or os.cpu_count() or 1, initializer=torch.set_num_threads, initargs=(1,)
        )
        super().__init__(photos, task)

    def _run(self, work: Callable[..., T], calls: Sequence[Call], done: Callable[[int], None] | None = None) -> list[T]:
        futures = [self._pool.submit(work, self.photos, self.task, *call) for call in calls]
        results = []
        try:
            for i, future in enumerate(futures):
                results.append(future.result())
                if i % BATCHES == BATCHES - 1:
                    give_back()
                if done is not None:
                    done(i)
        finally:
            for future in futures:
                future.cancel()
        return results

    def close(self) -> None:
        """Stop the worker threads."""
        self._pool.shutdown(cancel_futures=True)


def batch_targets(photos: Photos, task: Task, at: Indices) -> Targets:
    """What the outcomes of the photos at `at` are compared with."""
    return task.targets([photos.images[i] for i in at], photos.annotated(at))


def batch_clean(photos: Photos, task: Task, at: Indices, targets: Targets) -> Outcomes:
    """The outcomes on the uncompressed photos at `at`."""
    return task.outcomes([photos.images[i] for i in at], targets)


def batch_scores(
    photos: Photos, task: Task, at: Indices, targets: Targets, coder: Coder
) -> tuple[npt.NDArray[np.int64], Outcomes]:
    """The bytes of the files of the photos at `at`, and the outcomes on what they decode to."""
    files = coder.encode_all([photos.images[i] for i in at])
    decoded = [coder.decode(file) for file in files]
    return np.array([len(file) for file in files]), task.outcomes(decoded, targets)
