"""Two-fold cross-fitting on the ImageNet photos: tables from one half of them are tested on the other.

All photos count, none is scored with tables that saw it, and nothing is selected: each path has a fixed grid of points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.study import SHARED, Tested, kept
from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder
from qtable.jpeg.codec import Codec, Subsampling
from qtable.jpeg.tables import QTables
from qtable.measure.evaluate import Evaluator, Score
from qtable.measure.sensitivity import Sensitivity
from qtable.photos.sets import SPLITS, ImageSet, Photos
from qtable.tasks.classification import Classifier
from qtable.tasks.models import load_model
from qtable.tasks.several import Several
from search.closed_form import Lagrangian
from search.refine import RunAware, coefficients_of
from search.space import TableSpace

NETWORKS: Final = ("mobilenet_v1_050_160", "mobilenet_v1_075_192")
QUALITIES: Final[tuple[int, ...]] = (5, 6, 8, 10, 13, 17, 22, 30, 40, 50, 60, 70, 80, 88, 93)
POINTS: Final = tuple(int(p) for p in np.linspace(14, 120, 9))
"""Of a path's 0..128."""
FIVE_POINTS: Final = POINTS[::2]
"""Five in place of nine make gains look about one point smaller, alike for all."""

PhotosOf = Callable[[int], Photos]
"""The photos of half 0 or 1; a function of a module, so that evaluators can be kept."""


@cache
def halves() -> tuple[Photos, Photos]:
    """All the photos in two halves, drawn with seed 0."""
    images = ImageSet.open(SHARED / "data/imagenet")
    parts = [images[split] for split in SPLITS]
    every = Photos(
        tuple(image for p in parts for image in p.images),
        np.concatenate([np.asarray(p.annotations) for p in parts]),
        tuple(name for p in parts for name in p.names),
    )
    order = np.random.default_rng(0).permutation(len(every))
    return every.subset(order[::2]), every.subset(order[1::2])


def half_of(half: int) -> Photos:
    """The photos as they are."""
    return halves()[half]


@cache
def classifier(network: str) -> Classifier:
    return Classifier(load_model(model_of(network)))


def model_of(network: str) -> str:
    """What a user would type for one of the shared networks."""
    file = "classnets" if network == "efficientnet_lite0" else "classifiers"
    return f"{SHARED}/models/{file}.py:{network}"


@cache
def evaluator(
    photos: PhotosOf, half: int, networks: tuple[str, ...], task_of: Callable[[str], Classifier]
) -> Evaluator:
    return Evaluator(photos(half), Several([task_of(n) for n in networks]))


def tested(
    file: Path, photos: PhotosOf, codec: Codec, networks: tuple[str, ...], made: Callable[[int], Sequence[QTables]]
) -> Tested:
    """Score `made`(half), tables from that half, on the photos of the other half; kept in `file`."""
    return tested_coders(
        file, photos, networks, lambda half: [TableCoder(tables, codec) for tables in made(half)], classifier
    )


def tested_coders(
    file: Path,
    photos: PhotosOf,
    networks: tuple[str, ...],
    made: Callable[[int], Sequence[Coder]],
    task_of: Callable[[str], Classifier],
) -> Tested:
    """Score `made`(half), coders from that half, on the photos of the other half; kept in `file`."""

    def scored() -> list[list[Score]]:
        return [evaluator(photos, 1 - half, networks, task_of).many(made(half)) for half in (0, 1)]

    return kept(file, networks, scored)


def solver(photos: Photos, statistics: Sensitivity, subsampling: Subsampling, shrinkage: float = 0.0) -> RunAware:
    """What `qtable optimize` solves: closed form with the run-aware rate, shrunk."""
    neighbourhoods = coefficients_of(photos, subsampling)
    return RunAware.of(Lagrangian.of(statistics), statistics.levels, neighbourhoods, shrinkage)


def swept(path: TableSpace, points: Sequence[int] = POINTS) -> list[QTables]:
    return [path.tables(np.array([point])) for point in points]
