"""`qtable report`: one page on a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from qtable.cli.common import say
from qtable.cli.console import progress_watch
from qtable.cli.lending import models_to_lend
from qtable.cli.options import Device, Through
from qtable.files import write_atomically
from qtable.photos.spec import PhotosSpec
from qtable.report.page import page
from qtable.report.photos import recorded_source, reopen
from qtable.report.run import Run
from qtable.tasks.base import ModelError
from qtable.text import printable

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished qtable optimize.")]
Page = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File to write; never one that exists. \\[default: RUN/report.html, anew]"),
]
Photos = Annotated[
    str | None,
    typer.Option("--data", help="The run's photos. \\[default: where its command took them, if still there]"),
]
ClassesBefore = Annotated[str | None, typer.Option("--classes", help="With --data: the class list that the run had.")]
AsBefore = Annotated[int | None, typer.Option(help="With --data: as the run had it.")]
Price = Annotated[float | None, typer.Option(help="Of a GB, in any currency: also say what the saved bytes are worth.")]


def report_command(
    run: RunFolder,
    output: Page = None,
    data: Photos = None,
    classes: ClassesBefore = None,
    resize: AsBefore = None,
    limit: AsBefore = None,
    through: Through = None,
    device: Device = "cpu",
    price: Price = None,
) -> None:
    """Write one HTML page on a run: what it saves, its tables, whom they hurt, how to use them."""
    if price is not None and not 0 < price < math.inf:
        raise ValueError(f"--price {price}; allowed: above 0")
    if data is None and (resize, limit, classes) != (None, None, None):
        raise ValueError("--resize, --limit and --classes need --data")
    if output is not None and output.exists():
        raise ValueError(f"{output} exists already; it is not overwritten")
    opened = Run.open(run)
    if through:
        models_to_lend([point.coder for point in opened.found], through, device, "--through")
    images, without = None, ""
    try:
        source = recorded_source(opened.header) if data is None else PhotosSpec(data, resize, limit, classes=classes)
        with progress_watch() as watch:
            images = reopen(opened, source, lambda done, total: watch("reading photos", done, total, ""))
    except (ValueError, OSError) as error:
        if data is not None:
            raise
        without = f"the photos could not be opened again ({error})"
    if without:
        say(f"{without}; qtable report {run} --data PHOTOS shows more")
    try:
        opened.chosen.coder.check()
    except ModelError as error:
        say(f"without files made anew: {error}; qtable report {run} --through MODEL shows more")
    html = page(opened, images, without, price).encode()
    target = run / "report.html" if output is None else output
    write_atomically(target, html)
    print(printable(f"report  {target} ({len(html) / 1000:,.0f} kB)"))
