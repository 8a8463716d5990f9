"""What every command shares: the options, the console, progress bars, opening photos, one-line failures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from qtable.jpeg.codec import Entropy, Subsampling
from qtable.jpeg.tables import MAX_TABLE_FILE_BYTES
from qtable.photos.sets import SPLITS, ImageSet
from qtable.progress import Watch
from qtable.tasks.classification import METRICS, Classifier
from qtable.tasks.models import ModelSpec, load_model
from qtable.text import printable as printable

console = Console(stderr=True)
"""For what people read while they wait; results go to standard output."""

Data = Annotated[
    str | None,
    typer.Option(
        help="Folder of class folders, CSV file (path,label) or folder with labels.csv. \\[default: embedded]"
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="FILE.py:NAME or package.module:NAME, with @WEIGHTS.safetensors or .pth behind it if need be; FILE.pt2"
        " (torch.export); FILE.ts (TorchScript); FILE.onnx (no gradients). All but ONNX executes code of the file: take"
        " models only from people whom you trust. \\[default: the embedded task's network]"
    ),
]
Resize = Annotated[int | None, typer.Option(help="Scale photos: pixels of the shorter side.")]
Limit = Annotated[int | None, typer.Option(help="Use at most this many photos.")]
Metric = Annotated[str, typer.Option(help=f"What counts as a good answer: {', '.join(METRICS)}.")]
SubsamplingOption = Annotated[Subsampling, typer.Option(help="Chroma subsampling.")]
SubsamplingOrAuto = Literal["4:4:4", "4:2:2", "4:2:0", "auto"]
EntropyOption = Annotated[Entropy, typer.Option(help="Entropy coding.")]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1 ...")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]


@contextmanager
def progress_watch(visible: bool = True) -> Iterator[Watch]:
    """A live bar per stage of long work, with an estimate of the time left."""
    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not visible) as progress:
        stages: dict[str, TaskID] = {}

        def watch(stage: str, done: int, total: int, note: str) -> None:
            if stage not in stages:
                stages[stage] = progress.add_task(stage, total=total, note="")
            progress.update(stages[stage], completed=done, note=note)

        yield watch


def read_jpeg_or_tables(file: Path) -> bytes:
    """A JPEG whole; of another file as much as a table file may have, and one byte more, for which it is refused."""
    with file.open("rb") as opened:
        data = opened.read(MAX_TABLE_FILE_BYTES + 1)
        return data + opened.read() if data.startswith(b"\xff\xd8") else data


def open_task(model: str | None, metric: str, device: str) -> Classifier:
    """The task of the model that a user names; says first whose code that executes."""
    spec = None if model is None else ModelSpec.parse(model)
    if spec is not None and spec.runs_code:
        line = f"--model executes code of {printable(spec.place)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return Classifier(load_model(model), metric, device)


def open_images(data: str | None, resize: int | None, limit: int | None, watch: Watch) -> ImageSet:
    images = ImageSet.open(data, resize, limit, lambda done, total: watch("reading photos", done, total, ""))
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
    split_by = "place" if data is None else "content hash"
    console.print(f"photos: {sizes} (split by {split_by}) · {escape(printable(images.source))}")
    return images
