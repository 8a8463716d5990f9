"""`Evaluator`: tables -> `Score`. The only place where a size or an accuracy is made."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from qtable.codec import RGB, Codec
from qtable.data import Photos, Progress
from qtable.tables import QTables
from qtable.task import Outcomes, Task

T = TypeVar("T")
Indices = npt.NDArray[np.intp]


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
        return float(self.photo_bytes.mean())


class Evaluator:
    """Evaluates tables on `photos` with real libjpeg-turbo files; same tables, same answer, whatever `workers`.

    Batches of photos go through encoding, decoding and inference side by side on `workers` threads (default: the
    cores); libjpeg-turbo and torch release the GIL, and each thread computes alone, so that no sum depends on threads.
    """

    def __init__(self, photos: Photos, task: Task, codec: Codec, workers: int | None = None) -> None:
        self.photos, self.task, self.codec = photos, task, codec
        self._batches = photos.batches()
        self._pool = ThreadPoolExecutor(
            workers or os.cpu_count() or 1, initializer=torch.set_num_threads, initargs=(1,)
        )
        try:
            targets = self._map(lambda at: task.targets(self._images(at), photos.labels[at]))
        except BaseException:
            self.close()
            raise
        self._targets = {at[0]: rows for at, rows in zip(self._batches, targets, strict=True)}

    @property
    def fingerprint(self) -> str:
        """Hex digest of the targets: labels, and what the model answers on the uncompressed photos."""
        total = hashlib.sha256()
        for at in self._batches:
            total.update(self._targets[at[0]].tobytes())
        return total.hexdigest()[:16]

    def _images(self, at: Indices) -> list[RGB]:
        return [self.photos.images[i] for i in at]

    def _map(self, work: Callable[[Indices], T], progress: Progress | None = None) -> list[T]:
        """`work` on every batch of indices, in order; an error or Ctrl-C drops what has not begun."""
        futures = [self._pool.submit(work, at) for at in self._batches]
        results, done = [], 0
        try:
            for at, future in zip(self._batches, futures, strict=True):
                results.append(future.result())
                done += len(at)
                if progress is not None:
                    progress(done, len(self.photos))
        finally:
            for future in futures:
                future.cancel()
        return results

    def _scatter(self, parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        order = np.concatenate(self._batches)
        whole = np.concatenate(parts)
        out = np.empty_like(whole)
        out[order] = whole
        return out

    def __call__(self, tables: QTables, progress: Progress | None = None) -> Score:
        """Encode, decode and classify every photo. ModelError if the model's answers cannot be used."""

        def work(at: Indices) -> tuple[npt.NDArray[np.int64], Outcomes]:
            files = [self.codec.encode(image, tables) for image in self._images(at)]
            decoded = [self.codec.decode(file) for file in files]
            return np.array([len(file) for file in files]), self.task.outcomes(decoded, self._targets[at[0]])

        parts = self._map(work, progress)
        photo_bytes = self._scatter([sizes for sizes, _ in parts])
        outcomes = self._scatter([rows for _, rows in parts])
        return Score(tables, photo_bytes, outcomes, self.task.score(outcomes))

    def clean(self) -> Outcomes:
        """The task's outcomes on the uncompressed photos, float64 [n, k]."""
        return self._scatter(self._map(lambda at: self.task.outcomes(self._images(at), self._targets[at[0]])))

    def close(self) -> None:
        """Stop the worker threads."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
