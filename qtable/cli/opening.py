"""Photos and models that users name: opened, with a word to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape

from qtable.cli.console import console
from qtable.photos.sets import SPLITS, ImageSet
from qtable.photos.spec import PhotosSpec
from qtable.progress import Watch
from qtable.tasks.base import DifferentiableTask
from qtable.tasks.models import ModelSpec
from qtable.tasks.opening import METRICS, TaskSpec
from qtable.text import printable

Metric = Annotated[str, typer.Option(help=f"What counts as a good answer: {', '.join(METRICS)}.")]


def open_task(spec: TaskSpec) -> DifferentiableTask:
    """The task of the model that a user names; says first whose code that executes."""
    model = None if spec.model is None else ModelSpec.parse(spec.model)
    if model is not None:
        model.check_files()
    if model is not None and model.runs_code:
        line = f"--model executes code of {printable(model.place)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return spec.open()


def open_images(spec: PhotosSpec, watch: Watch) -> ImageSet:
    """The photos that a user names; says what was left aside."""
    images = spec.open(lambda done, total: watch("reading photos", done, total, ""))
    for line in images.said:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
    if images.skipped:
        console.print(f"[yellow]skipped {len(images.skipped)} unreadable files:[/]")
        for name, reason in images.skipped[:10]:
            console.print(printable(f"  {name}: {reason}"), markup=False)
        if len(images.skipped) > 10:
            console.print(f"  ... and {len(images.skipped) - 10} more")
    if images.jpeg_sources:
        console.print(
            f"{images.jpeg_sources} photos are JPEG files already:"
            " a second compression behaves differently from a first."
        )
    sizes = ", ".join(f"{len(images[name])} {name}" for name in SPLITS)
    split_by = "place" if spec.source is None else "content hash"
    console.print(f"photos: {sizes} (split by {split_by}) · {escape(printable(images.source))}")
    return images


def tell(doubts: Sequence[str]) -> None:
    """What an evaluator doubts, before work goes on."""
    for line in doubts:
        console.print(f"[yellow]{escape(printable(line))}[/]", highlight=False, soft_wrap=True)
