"""What do files save that are made by looking through networks? `python -m benchmarks.task_aware`.

ImageNet photos and three networks: two MobileNets and an EfficientNet, another family. The files of each row are made
by looking through some of them and judged by all; networks that were not asked are the columns to read. Tables and what
is usual come from one half of the photos (`HALVES`), files are made of the other half. Nothing was chosen on any of
them: the recipe is `Look`'s default. What is done is kept in runs/task-aware, so an interrupted run continues. Needs
../shared. `--page` writes the page and the picture anew from task-aware.json.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.halves import FIVE_POINTS, classifier, half_of, halves, model_of, scores_of
from benchmarks.study import METRICS, Tested, compared, forest, kept, run_study, text, write_page
from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder
from qtable.codecs.task_aware import Effort
from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.tables import QTables
from qtable.photos.sets import Photos
from qtable.report import plot
from qtable.tasks.classification import Classifier
from qtable.tasks.models import load_model
from qtable.tasks.opening import TaskSpec
from search.looking import Looking, looking

CACHE: Final = Path("runs/task-aware")
OUT: Final = Path("results/task-aware")
ASKED: Final = "mobilenet_v1_050_160"
SISTER: Final = "mobilenet_v1_075_192"
STRANGER: Final = "efficientnet_lite0"
JUDGES: Final = (ASKED, SISTER, STRANGER)
SHORT: Final = {ASKED: "MobileNetV1 0.5/160", SISTER: "MobileNetV1 0.75/192", STRANGER: "EfficientNet-lite0"}
BOTH: Final = (ASKED, STRANGER)
QUALITIES: Final = (5, 8, 12, 17, 25, 40, 60, 80, 93)
HALVES: Final = (0, 1)
"""Of which halves tables are made; files are made of the photos of the other one. Each takes half an hour."""
AVIF_QUALITIES: Final = (10, 18, 28, 40, 55, 70)
VISIBLE: Final = 0.0625
"""Of each side, what the MobileNets crop away; EfficientNet sees less."""


# ---- coders that are compared with ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Other(Coder, kind="benchmark-pillow"):
    """Another format through Pillow, with its own decoder."""

    format: str
    quality: int

    @property
    def name(self) -> str:
        return f"{self.format} {self.quality}"

    def encode(self, photo: RGB) -> bytes:
        file = io.BytesIO()
        Image.fromarray(photo).save(file, self.format, quality=self.quality)
        return file.getvalue()

    def decode(self, data: bytes) -> RGB:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def to_dict(self) -> dict[str, Any]:
        return {"format": self.format, "quality": self.quality}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(data["format"], data["quality"])


# ---- photos stored as the networks crop them ------------------------------------------------------------------


class Whole(nn.Module):
    """A network that crops the middle, shown the middle alone: a border is put around it that the crop takes away."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, rgb: Tensor) -> Tensor:
        side = rgb.shape[-1]
        border = next(b for b in range(side) if int((side + 2 * b) * VISIBLE) == b and _middle(side + 2 * b) == side)
        answers: Tensor = self.network(F.pad(rgb, (border,) * 4))
        return answers


def _middle(side: int) -> int:
    return round(side * (1 - 2 * VISIBLE))


@functools.cache
def cropped(half: int) -> Photos:
    """The central square of 87.5% of the shorter side."""

    def middle(image: RGB) -> RGB:
        side = _middle(min(image.shape[:2]))
        while not any(int((side + 2 * b) * VISIBLE) == b and _middle(side + 2 * b) == side for b in range(side)):
            side -= 1
        top, left = ((length - side) // 2 for length in image.shape[:2])
        return np.ascontiguousarray(image[top : top + side, left : left + side])

    photos = halves()[half]
    return replace(photos, images=tuple(middle(image) for image in photos.images))


@functools.cache
def whole(network: str) -> Classifier:
    return Classifier(Whole(load_model(model_of(network))))


# ---- rows -----------------------------------------------------------------------------------------------------


@functools.cache
def path_of(half: int, networks: tuple[str, ...], stored: str) -> Looking:
    """The front that `qtable optimize --encoder task-aware` makes from the photos of `half`."""
    folder = CACHE / f"{stored}-{half}-{'+'.join(networks)}"
    folder.mkdir(parents=True, exist_ok=True)
    task_of, photos = (classifier, half_of) if stored == "whole" else (whole, cropped)
    through = [(TaskSpec(model_of(network), "agreement"), task_of(network)) for network in networks]
    return looking(through, photos(half), Codec(), 2, "photo", folder)


def coders(half: int, networks: tuple[str, ...], effort: Effort | None, stored: str = "whole") -> list[Coder]:
    """The points of a front; without an effort its tables, plainly rounded."""
    space = path_of(half, networks, stored)
    made = [space.coder(np.array([point])) for point in FIVE_POINTS]
    if effort is None:
        return [TableCoder(coder.quantization, coder.codec) for coder in made]
    return [replace(coder, effort=effort) for coder in made]


def standard() -> list[Coder]:
    return [TableCoder(QTables.standard(quality), Codec()) for quality in QUALITIES]


ROWS: Final[dict[str, Any]] = {
    "standard": lambda half: standard(),
    "tables, MobileNet": lambda half: coders(half, (ASKED,), None),
    "photo, MobileNet": lambda half: coders(half, (ASKED,), "photo"),
    "AVIF": lambda half: [Other("AVIF", quality) for quality in AVIF_QUALITIES],
    "photo, both": lambda half: coders(half, BOTH, "photo"),
    "crop, MobileNet": lambda half: coders(half, (ASKED,), "crop"),
    "photo, EfficientNet": lambda half: coders(half, (STRANGER,), "photo"),
}
"""Rows by name, as functions from the half that tables come from to coders."""
WORDS: Final = {
    "tables, MobileNet": "closed-form tables, plain rounding",
    "crop, MobileNet": "trellis, one weight for each frequency, nothing outside the crop",
    "photo, MobileNet": "trellis, weights of the photo",
    "photo, EfficientNet": "the same, looking through the other family",
    "photo, both": "the same, through both: the weights averaged",
    "AVIF": "Pillow's, speed 6",
}
PAIRS: Final = (
    ("photo, MobileNet", "tables, MobileNet"),
    ("photo, MobileNet", "crop, MobileNet"),
    ("photo, both", "photo, MobileNet"),
    ("photo, both", "photo, EfficientNet"),
    ("photo, both", "AVIF"),
)
CROPPED: Final[dict[str, Any]] = {
    "standard": lambda half: standard(),
    "tables, MobileNet": lambda half: coders(half, (ASKED,), None, "cropped"),
    "photo, MobileNet": lambda half: coders(half, (ASKED,), "photo", "cropped"),
}
"""Rows on photos that are stored as the networks crop them."""


def scored(name: str, rows: Mapping[str, Any], stored: str) -> Tested:
    """A row on the photos of the halves that are tested."""
    photos, task_of = (half_of, classifier) if stored == "whole" else (cropped, whole)
    parts = []
    for half in HALVES:
        file = CACHE / f"{stored}-{name.replace(' ', '-').replace(',', '')}-{half}.npz"
        parts.append(kept(file, JUDGES, lambda half=half: [scores_of(half, photos, JUDGES, rows[name], task_of)]))  # type: ignore[misc]
    return Tested(
        np.hstack([part.sizes for part in parts]),
        {n: np.hstack([part.outcomes[n] for part in parts]) for n in JUDGES},
    )


def against(rows: Mapping[str, Tested], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Of each pair of rows and each network the paired change of bytes."""
    return {f"{a} against {b}": {n: compared(rows[b], rows[a], n) for n in JUDGES} for a, b in pairs}


def study() -> dict[str, Any]:
    """Each row against standard tables, and rows against each other, by each network and metric."""
    rows = {name: scored(name, ROWS, "whole") for name in ROWS}
    stored = {name: scored(name, CROPPED, "cropped") for name in CROPPED}
    others = [name for name in ROWS if name != "standard"]
    return {
        "photos": len(rows["standard"].sizes[0]),
        "qualities": QUALITIES,
        "points": FIVE_POINTS,
        "rows": {name: {n: compared(rows["standard"], rows[name], n) for n in JUDGES} for name in others},
        "pairs": against(rows, PAIRS),
        "cropped": {name: {n: compared(stored["standard"], stored[name], n) for n in JUDGES} for name in CROPPED},
        "cropped pairs": against(stored, [("photo, MobileNet", "tables, MobileNet")]),
        "mean bytes": {name: row.sizes.mean(axis=1).tolist() for name, row in rows.items()},
    }


# ---- the page -------------------------------------------------------------------------------------------------


def _table(rows: Mapping[str, Any], names: Sequence[str], words: Mapping[str, str]) -> list[str]:
    heads = [f"{SHORT[n]}, {metric}" for n in JUDGES for metric in METRICS]
    lines = ["| files | " + " | ".join(heads) + " | |", "|---" * (len(heads) + 2) + "|"]
    for name in names:
        cells = [text(rows[name][n][metric]) for n in JUDGES for metric in METRICS]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {words.get(name, '')} |")
    return lines


def page(found: dict[str, Any]) -> None:
    rows = found["rows"]
    sister, stranger = (text(rows["photo, MobileNet"][n]["agreement"]) for n in (SISTER, STRANGER))
    avif = [text(rows["AVIF"][n]["agreement"]) for n in (SISTER, STRANGER)]
    lines = [
        "# What do files save that are made by looking through networks?",
        "",
        "Plain JPEG made by looking through MobileNetV1 0.5/160, judged by networks that were not asked, at equal",
        f"agreement with the clean answer, against standard tables: {SHORT[SISTER]} {sister} (AVIF {avif[0]}),",
        f"{SHORT[STRANGER]}, of another family, {stranger} (AVIF {avif[1]}).",
        "",
        f"{found['photos']} ImageNet photos (shorter side at most 256), 4:2:0, optimized Huffman tables, whole files,",
        "real bytes. Change of bytes at equal score (BD-rate) against standard tables with 95% paired bootstrap",
        "intervals over photos. Tables and what is usual come from other photos, as many, than files are made of;",
        f"{len(found['points'])} points a curve, {len(found['qualities'])} standard qualities.",
        "The encoder never sees a label. Each row names the networks that were looked through;",
        "a network's own column says what files save for it that were made for it.",
        "`python -m benchmarks.task_aware` remakes this page.",
        "",
        "![bytes at equal agreement](task-aware.png)",
        "",
        "## Against standard tables",
        "",
        *_table(rows, list(rows), WORDS),
        "",
        "## Rows against each other",
        "",
        *_table(found["pairs"], list(found["pairs"]), {}),
        "",
        "## Photos stored as the networks crop them",
        "",
        "The central square of 87.5% of the shorter side alone is stored, and the networks look at all of it: nothing",
        "can be saved outside of any crop.",
        "",
        *_table(found["cropped"], [n for n in found["cropped"] if n != "standard"], {}),
        *_table(found["cropped pairs"], list(found["cropped pairs"]), {})[2:],
    ]
    write_page(OUT, lines)
    figure, axes = plot.new_axes(8.0, 6.4)
    bars = [
        (f"{name} · {SHORT[n]}", rows[name][n]["agreement"], i)
        for name in rows
        for i, n in enumerate(JUDGES)
        if np.isfinite(rows[name][n]["agreement"]["bd_rate"])
    ]
    forest(axes, bars, "bytes at equal agreement against standard tables (%)", size=6)
    figure.savefig(OUT / "task-aware.png")


if __name__ == "__main__":
    run_study(OUT / "task-aware.json", CACHE, study, page)
