"""The photos of a run, opened again."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from qtable.photos.sets import ImageSet
from qtable.photos.spec import PhotosSpec
from qtable.progress import Progress
from qtable.report.run import ReportError, Run

SPLIT_PHOTOS: Final = 32
"""Photos whose files are taken apart, if they have no more than `SPLIT_PIXELS` together."""
SPLIT_PIXELS: Final = 1 << 24


def recorded_source(header: Mapping[str, Any]) -> PhotosSpec:
    """Where the photos of a run came from, by the command in its archive's header. ReportError if that does not say."""
    parser = argparse.ArgumentParser(exit_on_error=False, add_help=False, allow_abbrev=False)
    parser.add_argument("--data")
    parser.add_argument("--resize", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--classes")
    try:
        words = shlex.split(str(header.get("command", "")))
        if words[:2] != ["qtable", "optimize"]:
            raise ValueError(f"its command is {shlex.join(words[:2]) or 'not recorded'}")
        known, _ = parser.parse_known_args(words[2:])
    except (ValueError, argparse.ArgumentError) as error:
        raise ReportError(f"the run does not say where its photos are: {str(error)[:200]}") from None
    return PhotosSpec(known.data, known.resize, known.limit, classes=known.classes)


def reopen(run: Run, source: PhotosSpec, progress: Progress | None = None) -> ImageSet:
    """The photos of a run; its model is not needed, and not run.

    ReportError or DataError if they are not there or have changed.
    """
    images = source.open(progress)
    if images.fingerprint != run.identity.get("data") or len(images.test) != run.photos:
        raise ReportError(f"{images.source}: not the photos of the run {run.folder}, or not as it resized them")
    return images


def some_photos(images: ImageSet) -> list[int]:
    """Test photos, evenly spread, as many as `SPLIT_PHOTOS` and `SPLIT_PIXELS` allow, but one at least."""
    spread: list[int] = np.unique(np.linspace(0, len(images.test) - 1, SPLIT_PHOTOS).astype(int)).tolist()
    pixels = np.cumsum(np.prod(images.test.sizes, axis=1)[spread])
    return spread[: max(1, int((pixels <= SPLIT_PIXELS).sum()))]
