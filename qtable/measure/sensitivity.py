"""What a model feels at each DCT frequency: one backward pass over the photos, kept as mergeable histograms.

Let g be the gradient of the model's log-likelihood at a dequantized DCT coefficient F. To second order, with the
diagonal of the Fisher information, rounding F to a multiple of q costs g^2 (F - q round(F / q))^2 / 2 nats of
Kullback-Leibler divergence (Martens, New insights on the natural gradient method, JMLR 2020, section 5). Both this
cost and the bits saved are sums over coefficients, so histograms of |F| are all that a solver of tables needs.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qtable.files import write_atomically
from qtable.jpeg.codec import Codec
from qtable.jpeg.dct import coefficients
from qtable.jpeg.frame import Planes
from qtable.jpeg.linear import coefficient_gradient
from qtable.jpeg.tables import QTables
from qtable.memory import BATCHES, give_back
from qtable.photos.sets import Photos
from qtable.progress import Progress
from qtable.tasks.base import DifferentiableTask, Indices, check_finite
from qtable.tasks.gradients import generators, gradient_of, stacked

Histograms = npt.NDArray[np.float64]
RESOLUTION: Final = 8
"""Bins per unit of |F|: libjpeg's coefficients are multiples of 1/8, so nothing is lost."""
BINS: Final = 1024 * RESOLUTION + 1
Target = Literal["fisher", "annotations", "distillation"]
TARGETS: Final[tuple[Target, ...]] = get_args(Target)


@dataclass(frozen=True)
class Sensitivity:
    """Sums over photos; statistics of two sets of photos add up to those of both.

    levels: float64 [3, 64, BINS], for Y, Cb, Cr and natural frequency how many coefficients have |F| in a bin (the bin
    of |F| rounded to 1/8). differences: float64 [3, BINS], the same for the differences of DC between successive
    blocks, which is what a file stores (those above 1024 count as 1024). costs: float64 [3, 64, BINS], the sum of g^2
    over the coefficients of that bin, in nats^2 per unit of F^2. photos: their number.
    """

    levels: Histograms
    differences: Histograms
    costs: Histograms
    photos: int

    def __add__(self, other: Sensitivity) -> Sensitivity:
        return Sensitivity(
            self.levels + other.levels,
            self.differences + other.differences,
            self.costs + other.costs,
            self.photos + other.photos,
        )

    @classmethod
    def zero(cls) -> Sensitivity:
        """Of no photo."""
        return cls(np.zeros((3, 64, BINS)), np.zeros((3, BINS)), np.zeros((3, 64, BINS)), 0)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a compressed NumPy file (.npz), atomically."""
        file = io.BytesIO()
        np.savez_compressed(file, **vars(self))
        write_atomically(Path(path), file.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sensitivity:
        """ValueError if the file holds no such statistics; OSError if it cannot be opened."""
        with Path(path).open("rb") as file:
            try:
                with zipfile.ZipFile(file) as archive:
                    shapes = {name: np.shape(zero) for name, zero in vars(cls.zero()).items()}
                    arrays = {name: _read_array(archive, name, shape) for name, shape in shapes.items()}
            except Exception as error:  # zipfile raises whatever it likes on damaged files
                reason = f"{type(error).__name__}: {str(error)[:200]}"
                raise ValueError(f"{os.fspath(path)}: not a file of sensitivity statistics ({reason})") from None
        return cls(arrays["levels"], arrays["differences"], arrays["costs"], int(arrays["photos"]))


def _read_array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> Histograms:
    """An array of `numpy.savez`, finite and not negative. Nothing larger than float64 of this shape is taken in."""
    most = 8 * math.prod(shape) + 1024
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > most:
        raise ValueError(f"{name} of {info.file_size} bytes; allowed: {most}")
    with archive.open(info) as member:
        data = io.BytesIO(member.read())
    if np.lib.format.read_magic(data) != (1, 0):
        raise ValueError(f"{name} in a version of NumPy's format other than 1.0")
    found, by_columns, dtype = np.lib.format.read_array_header_1_0(data)
    if found != shape or by_columns or dtype not in (np.float64, np.int64):
        raise ValueError(f"{name} of shape {list(found)} and type {dtype}; expected {list(shape)}, float64 or int64")
    array = np.frombuffer(data.read(), dtype).reshape(shape).astype(np.float64)
    if not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError(f"{name} holds what is not a sum of counts or squares")
    return array


def measure(
    photos: Photos,
    task: DifferentiableTask,
    codec: Codec,
    target: Target = "fisher",
    samples: int = 2,
    at: QTables | None = None,
    normalize: float = 0.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sensitivity:
    """Statistics of `photos` for the sampling of `codec`.

    target: whose log-likelihood is differentiated. "fisher": answers drawn from the network's own distribution,
    `samples` per photo (the true Fisher information, no annotations needed); "annotations": the photos' own;
    "distillation": what the network says of the clean photo (needs `at`, for there its gradient is zero).
    at: differentiate at the photo as real files of these tables decode to, instead of at the clean photo.
    normalize: each photo's g^2 is divided by (its total)^normalize, 0..1, so that no photo dominates.

    Draws depend on a photo's pixels and `seed` alone: neither order nor sharding changes the result (beyond the
    rounding of sums). ValueError for settings out of range.
    """
    if target not in TARGETS:
        raise ValueError(f"target {target!r} is unknown; allowed: {', '.join(TARGETS)}")
    if samples < 1 or not 0 <= normalize <= 1:
        raise ValueError(f"samples {samples} and normalize {normalize}; allowed: 1 or more, and 0..1")
    if target == "distillation" and at is None:
        raise ValueError(
            "distillation has no gradient at the clean photo; pass the tables of an operating point as `at`"
        )

    def work(batch: Indices) -> list[tuple[Planes, Planes]]:
        images = [photos.images[i] for i in batch]
        clean = stacked(images)
        seen = clean if at is None else stacked([codec.decode(codec.encode(image, at)) for image in images])
        seen = seen.to(task.device).requires_grad_(True)
        answers = task.answers(seen)
        check_finite(answers, seen)
        if target == "fisher":
            rngs = generators(images, seed)
            objectives = [task.sampled(answers, rngs).sum() for _ in range(samples)]
        elif target == "annotations":
            objectives = [task.log_likelihood(answers, photos.annotated(batch)).sum()]
        else:
            with torch.no_grad():
                reference = task.answers(clean.to(task.device))
            objectives = [-task.divergence(answers, reference).sum()]
        squares = [torch.zeros(())] * 3
        for i, objective in enumerate(objectives):
            gradient = gradient_of(objective, seen, retain=i + 1 < len(objectives))
            parts = coefficient_gradient(gradient.cpu(), codec.subsampling)
            squares = [a + g.square() / len(objectives) for a, g in zip(squares, parts, strict=True)]
        if normalize:
            totals = sum(part.flatten(1).sum(1) for part in squares) + 1e-30
            squares = [part / (totals**normalize).view(-1, 1, 1, 1, 1) for part in squares]
        return [(coefficients(clean, codec.subsampling), Planes(*squares))]

    return _gathered(photos, work, progress)


def _gathered(
    photos: Photos, work: Callable[[Indices], list[tuple[Planes, Planes]]], progress: Progress | None
) -> Sensitivity:
    """The sums of F and g^2 that `work` finds for each batch, added up in a fixed order."""
    total = Sensitivity.zero()
    levels, costs = total.levels.reshape(3, -1), total.costs.reshape(3, -1)
    differences = total.differences
    batches = photos.batches(most_photos=16, most_pixels=1 << 19)
    done = 0
    with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for i, (batch, results) in enumerate(zip(batches, _bounded_map(pool, work, batches), strict=True), start=1):
            if i % BATCHES == 0:
                give_back()
            for planes, squares_of in results:
                for component, (plane, square) in enumerate(zip(planes, squares_of, strict=True)):
                    _accumulate(plane, square, levels[component], differences[component], costs[component])
            done += len(batch)
            if progress is not None:
                progress(done, len(photos))
    return replace(total, photos=len(photos))


def _bounded_map(
    pool: ThreadPoolExecutor, work: Callable[[Indices], list[tuple[Planes, Planes]]], batches: Sequence[Indices]
) -> Iterator[list[tuple[Planes, Planes]]]:
    """`pool.map` in order, with only a few results waiting in memory."""
    waiting: deque[Future[list[tuple[Planes, Planes]]]] = deque()
    for batch in batches:
        waiting.append(pool.submit(work, batch))
        if len(waiting) > 4:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _accumulate(plane: Tensor, square: Tensor, levels: Histograms, differences: Histograms, costs: Histograms) -> None:
    """Add one component's |F| and g^2, each [n, rows, columns, 8, 8], to its flat histograms [64 x BINS] and [BINS]."""
    f = plane.reshape(len(plane), -1, 64).numpy()
    bins = _bins(f) + np.arange(64) * BINS
    weights = square.reshape(len(square), -1).double().numpy()
    costs += np.bincount(bins.ravel(), weights.ravel(), 64 * BINS)
    levels += np.bincount(bins.ravel(), minlength=64 * BINS)
    differences += np.bincount(_bins(np.diff(f[..., 0], axis=1, prepend=0)).ravel(), minlength=BINS)


def _bins(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    bins: npt.NDArray[np.int64] = np.minimum(np.rint(np.abs(values) * RESOLUTION), BINS - 1).astype(np.int64)
    return bins
