"""Whom tables hurt: classes and photos whose answers they change."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.tables import QTables
from qtable.photos.sets import ImageSet
from qtable.report.run import Point, Run
from qtable.report.words import LISTED, _spoken

CROPS: Final = 6
CROP_SIDE: Final = 160
CROP_BYTES: Final = 300_000
"""Bound on what all crops add to the page."""


def _worst(run: Run, images: ImageSet | None) -> dict[str, Any] | None:
    """Whose answers the chosen tables change against standard ones of nearly the same size; None without answers."""
    found = run.chosen
    standard = run.nearest_standard(found)
    rows = [p.outcomes.right() for p in (standard, found)]
    if rows[0] is None or rows[1] is None:
        return None
    before, after = rows[0] > 0, rows[1] > 0
    worst: dict[str, Any] = {
        "names": (_spoken(standard), found.name),
        "bytes": [f"{p.bytes.value:,.0f}" for p in (standard, found)],
        "lost": int((before & ~after).sum()),
        "gained": int((after & ~before).sum()),
        "photos": f"{run.photos:,}",
        "meaning": found.outcomes.meaning,
        "classes": None,
        "crops": [],
    }
    if images is not None:
        worst["classes"] = _worst_classes(images, before, after)
        losses = [p.outcomes.losses() for p in (standard, found)]
        lost = np.flatnonzero(before & ~after)
        if losses[0] is not None and losses[1] is not None:
            lost = lost[np.argsort(-(losses[1] - losses[0])[lost], kind="stable")]
        if run.makes_files:
            worst["crops"] = list(_crops(run, images, standard, found, lost.tolist()))
    return worst


def _class_name(images: ImageSet, index: int) -> str:
    return images.classes[index] if index < len(images.classes) else f"class {index}"


def _worst_classes(
    images: ImageSet, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]
) -> dict[str, Any] | None:
    """Classes with fewer right answers than before, the greatest loss first; None where annotations are no classes.

    before, after: bool [n].
    """
    classes = images.test.annotations
    if not isinstance(classes, np.ndarray):
        return None
    rows: list[dict[str, Any]] = []
    for index in np.unique(classes):
        mine = classes == index
        photos, was, now = (int(x) for x in (mine.sum(), before[mine].sum(), after[mine].sum()))
        if now < was:
            rows.append({"name": _class_name(images, int(index)), "photos": photos, "before": was, "after": now})
    rows.sort(key=lambda row: row["after"] - row["before"])
    return {"rows": rows[:LISTED], "more": max(0, len(rows) - LISTED), "all": len(np.unique(classes))}


def _crops(run: Run, images: ImageSet, standard: Point, found: Point, worst: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Middles of photos as both tables leave them, as many as `CROPS` and `CROP_BYTES` allow."""
    room, classes = CROP_BYTES, images.test.annotations
    for i in worst[:CROPS]:
        photo = images.test.images[i]
        decoded = (p.coder.decode(p.coder.encode(photo)) for p in (standard, found))
        pictures = [_data_uri(_middle(image)) for image in decoded]
        room -= sum(map(len, pictures))
        if room < 0:
            return
        yield {
            "name": images.test.names[i],
            "class": _class_name(images, int(classes[i])) if isinstance(classes, np.ndarray) else "",
            "pictures": pictures,
            "bytes": [f"{p.photo_bytes[i]:,}" for p in (standard, found)],
        }


def _middle(image: RGB) -> RGB:
    top, left = (max(0, (side - CROP_SIDE) // 2) for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + CROP_SIDE, left : left + CROP_SIDE])


def _data_uri(image: RGB) -> str:
    """Steps of 1 to 7 and no subsampling: what is to be seen stays to be seen."""
    file = Codec("4:4:4").encode(image, QTables.standard(95))
    return "data:image/jpeg;base64," + base64.b64encode(file).decode()
