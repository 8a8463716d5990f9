"""Do tables made for one network, photo size or chroma sampling serve another? `python -m benchmarks.transfer`.

Each matrix has the place that tables were made for as its row and the place where they are used as its column; the
diagonal is a place with its own tables. ImageNet photos, agreement, default statistics and solver, two-fold
cross-fitting as in `benchmarks.tables`: tables come from one half of the photos and are tested on the other, so a
place's own tables are no more at home than foreign ones. What is tested is kept in runs/transfer, so an interrupted
run continues. Needs ../shared. `--page` writes the page and the picture anew from transfer.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from benchmarks import tables
from benchmarks.halves import (
    FIVE_POINTS,
    NETWORKS,
    QUALITIES,
    PhotosOf,
    classifier,
    half_of,
    halves,
    solver,
    swept,
    tested,
)
from benchmarks.study import Tested, averaged, compared, forest, run_study, text, write_page
from qtable.jpeg.codec import RGB, Codec, Subsampling
from qtable.jpeg.tables import QTables
from qtable.measure.sensitivity import Sensitivity, measure
from qtable.photos.sets import Photos
from qtable.report import plot
from search.closed_form import shrinkage_for
from search.methods import DISTILLED_AT

CACHE: Final = Path("runs/transfer")
OUT: Final = Path("results/transfer")
SMALL: Final = "mobilenet_v1_025_128"
MIDDLE: Final = "mobilenet_v1_050_160"
EVERY: Final = (SMALL, *NETWORKS)
EACH: Final = slice(None, None, 2)
"""Of the standard qualities: eight of fifteen make gains look about one point larger, alike for all."""
SIDE: Final = 160
"""Pixels of the shorter side of the shrunk photos."""


def shrunk_to_side(image: RGB) -> RGB:
    """With a shorter side of at most `SIDE`; as `--resize` does it."""
    height, width = image.shape[:2]
    factor = min(1.0, SIDE / min(height, width))
    size = round(width * factor), round(height * factor)
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


@cache
def shrunk(half: int) -> Photos:
    """The ImageNet photos with a shorter side of at most `SIDE`."""
    photos = halves()[half]
    return replace(photos, images=tuple(shrunk_to_side(image) for image in photos.images))


@dataclass(frozen=True)
class Place:
    """What tables are made for or used with."""

    network: str = MIDDLE
    photos: PhotosOf = half_of
    subsampling: Subsampling = "4:2:0"

    @property
    def name(self) -> str:
        return f"{self.network}-{self.photos.__name__}-{self.subsampling.replace(':', '')}"


def statistics_of(place: Place, half: int) -> Sensitivity:
    """The default ones for agreement."""
    if place.photos is half_of:
        return tables.statistics(half, place.network, place.subsampling, tables.DISTILLED)
    file = CACHE / f"statistics-{place.name}-{half}.npz"
    if not file.exists():
        task, codec = classifier(place.network), Codec(place.subsampling)
        measure(place.photos(half), task, codec, target="distillation", at=DISTILLED_AT).save(file)
    return Sensitivity.load(file)


@cache
def made_for(place: Place, half: int) -> list[QTables]:
    """What `qtable optimize` makes from the photos of `half`."""
    photos = place.photos(half)
    path = solver(photos, statistics_of(place, half), place.subsampling, shrinkage_for(len(photos)))
    return swept(path, FIVE_POINTS)


def used(made: Place, at: Place) -> Tested:
    """Tables made for one place, used with the photos and sampling of another; networks alone differ: seen by all."""
    networks = EVERY if replace(made, network=MIDDLE) == replace(at, network=MIDDLE) == Place() else (at.network,)
    file = CACHE / f"{made.name}-at-{at.photos.__name__}-{at.subsampling.replace(':', '')}.npz"
    return tested(file, at.photos, Codec(at.subsampling), networks, lambda half: made_for(made, half))


def standard(place: Place) -> Tested:
    """Standard tables, seen by the networks of `NETWORKS`, or by the place's alone."""
    codec, alone = Codec(place.subsampling), (place.network,)
    if place.photos is half_of and place.network in NETWORKS:
        known = tables.standard(codec)
        return Tested(known.sizes[EACH], {name: rows[EACH] for name, rows in known.outcomes.items()})
    made = [QTables.standard(q) for q in QUALITIES[EACH]]
    return tested(CACHE / f"standard-{place.name}.npz", place.photos, codec, alone, lambda _: made)


def matrix(places: Mapping[str, Place]) -> dict[str, Any]:
    """Of every pair of places (made for, used in) the BD-rate, and against the tables made for where it is used.

    cells: by made for and used in. mean: of the changes against own tables, over all pairs of two places.
    """
    rows: dict[str, Any] = {}
    for name, made in places.items():
        rows[name] = {}
        for other, at in places.items():
            own = None if made == at else used(at, at)
            entry = compared(standard(at), used(made, at), at.network, own)["agreement"]
            rows[name][other] = {key: value for key, value in entry.items() if key != "size_change_at"}
            print(f"{name} -> {other}: {text(entry)}", flush=True)
    pairs = [(made, at) for made in places.values() for at in places.values() if made != at]
    owns, others = ([used(a, at).curves(at.network) for a, at in p] for p in ([(b, b) for _, b in pairs], pairs))
    return {"cells": rows, "mean": averaged(owns, others)}


def study() -> dict[str, Any]:
    usual = Place()
    return {
        "network": matrix({network[13:]: Place(network) for network in EVERY}),
        "photo size": matrix({"256": usual, str(SIDE): replace(usual, photos=shrunk)}),
        "chroma sampling": matrix({"4:2:0": usual, "4:4:4": replace(usual, subsampling="4:4:4")}),
    }


# ---- the page -------------------------------------------------------------------------------------------------

WHAT: Final = {
    "network": (
        "All three networks look at the same decoded files. Photos as they are, 4:2:0; the name of a network is its"
        " width and the side of its input."
    ),
    "photo size": (
        f"MobileNetV1 0.5/160, 4:2:0. 256: the photos as they are, shorter side at most 256. {SIDE}: the same photos"
        f" shrunk to a shorter side of {SIDE}; their clean answers are those on the shrunk photos."
    ),
    "chroma sampling": "MobileNetV1 0.5/160, photos as they are. Standard tables have the column's sampling, too.",
}


def losses(rows: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(made for, used in, entry) off the diagonal."""
    return [(a, b, entry) for a, row in rows.items() for b, entry in row.items() if a != b]


def answer(found: Mapping[str, Any]) -> list[str]:
    """One sentence for each matrix."""
    lines = []
    for what, matrix_ in found.items():
        mean = text(matrix_["mean"])
        entries = [entry for _, _, entry in losses(matrix_["cells"])]
        changes = [entry["against_plain"] for entry in entries]
        proved = sum(entry["against_plain_ci"][0] > 0 for entry in entries)
        worst = max(entry["bd_rate"] for entry in entries)
        lines.append(
            f"- Another {what}: {mean} bytes against the tables made for it on average, {min(changes):+.1%} to"
            f" {max(changes):+.1%} (a loss is proved in {proved} of {len(entries)} cases); against standard tables at"
            f" worst {worst:+.1%}."
        )
    return lines


def page(found: dict[str, Any]) -> None:
    lines = ["# Do tables made for one network, photo size or chroma sampling serve another?", ""]
    lines += answer(found)
    lines += [
        "",
        "500 ImageNet photos, agreement, real files of libjpeg-turbo, optimized Huffman tables. Change of bytes at",
        "equal agreement (BD-rate) with 95% paired bootstrap intervals over photos; negative is smaller. Two-fold",
        "cross-fitting: tables from one half of the photos are tested on the other half. Default statistics and",
        "solver, 5 points per curve, 8 of standard tables. Rows: what the tables were made for; columns: where they",
        "are used. `python -m benchmarks.transfer` remakes this page.",
        "",
        "![loss against own tables](transfer.png)",
        "",
    ]
    for what, matrix_ in found.items():
        rows = matrix_["cells"]
        names = list(rows)
        lines += [f"## Another {what}", "", WHAT[what], ""]
        for heading, key in (("against standard tables", "bd_rate"), ("against its own tables", "against_plain")):
            lines += [
                f"| {heading} | " + " | ".join(f"used with {n}" for n in names) + " |",
                "|---" * (1 + len(names)) + "|",
            ]
            for name, row in rows.items():
                cells = [text(row[other], key) for other in names]
                lines.append(f"| made for {name} | " + " | ".join(cells) + " |")
            lines.append("")
    write_page(OUT, lines)
    picture(found)


def picture(found: Mapping[str, Any]) -> None:
    """The change of bytes of foreign tables against own ones, with intervals."""
    rows: Sequence[tuple[str, dict[str, Any], int]] = [
        (f"{a} used with {b}", entry, i)
        for i, matrix_ in enumerate(found.values())
        for a, b, entry in losses(matrix_["cells"])
    ]
    figure, axes = plot.new_axes(7, 4.2)
    forest(axes, rows, "bytes at equal agreement against the tables made for it (%)", "against_plain")
    figure.savefig(OUT / "transfer.png")


if __name__ == "__main__":
    run_study(OUT / "transfer.json", CACHE, study, page)
