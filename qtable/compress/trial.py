"""What a recipe would save, from a sample; nothing is written."""

from __future__ import annotations

import tarfile
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qtable.compress.label_maps import Evidence, judge
from qtable.compress.photo import Recipe, Skip
from qtable.compress.reading import Source, read, read_part
from qtable.compress.sources import EVERYTHING, CompressError, Place, Selection, listing
from qtable.compress.tars import read_tar
from qtable.compress.worker import members_to_write
from qtable.progress import Progress
from qtable.storage import Store


@dataclass(frozen=True)
class Sample:
    """Of `photos` photos with `bytes` bytes in all, some drawn at random: int64 [n] bytes of each before and after.

    label_maps: how many others were drawn that would stay as they are. skipped: reason -> how many others were drawn
    that would be left out, and how many tar files could not be read.
    """

    photos: int
    bytes: int
    before: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]
    label_maps: int
    skipped: dict[str, int]


_Photo = tuple[str, int | None, int, Evidence]
"""Path, where in a shard, bytes, what is known."""


def sample(
    source: Place,
    recipe: Recipe,
    count: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
    selection: Selection = EVERYTHING,
) -> Sample:
    """Try a recipe on at most `count` photos; nothing is written. CompressError for a count below 1."""
    if count < 1:
        raise CompressError(f"a sample of {count} photos; allowed: 1 or more")
    root, items = listing(source, selection)
    photos: list[_Photo] = []
    skipped, label_maps = Counter[str](), 0
    for item in items:
        if item.kind == "photo":
            photos.append((item.source, None, item.size, item.evidence))
        elif item.kind == "shard":
            try:
                photos += _photos_in(root, item.source, selection)
            except Skip as skip:
                skipped[str(skip).partition(":")[0]] += 1
    chosen = sorted(rng.choice(len(photos), min(count, len(photos)), replace=False)) if photos else []
    sizes = list[tuple[int, int]]()
    for done, i in enumerate(chosen, start=1):
        name, start, size, known = photos[i]
        try:
            recipe.check_bytes(size)
            data = read(root, name) if start is None else read_part(root, name, start, size)
            if judge(data, known, recipe.max_pixels)[0]:
                label_maps += 1
            else:
                sizes.append((len(data), len(recipe(data)[0])))
        except Skip as skip:
            skipped[str(skip).partition(":")[0]] += 1
        if progress is not None:
            progress(done, len(chosen))
    before, after = np.array(sizes, np.int64).reshape(-1, 2).T
    total = sum(size for _, _, size, _ in photos)
    return Sample(len(photos), total, before, after, label_maps, dict(sorted(skipped.items())))


def _photos_in(root: Store, shard: str, selection: Selection) -> list[_Photo]:
    """Raises Skip for what is no whole tar file."""
    try:
        with Source(root, shard) as file:
            members, _ = read_tar(file)
    except (tarfile.TarError, ValueError) as error:
        raise Skip(f"damaged tar: {error}") from None
    written = members_to_write(shard, members, selection)
    return [(shard, m.offset_data, m.size, known) for m, _, known in written if known is not None]
