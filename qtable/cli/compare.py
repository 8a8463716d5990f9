"""`qtable compare`: a contest of search methods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from qtable.cli.console import progress_watch
from qtable.cli.opening import Metric, open_images, open_task, tell
from qtable.cli.options import (
    AsJson,
    Budget,
    Classes,
    Count,
    Data,
    Device,
    EntropyOption,
    Limit,
    Memory,
    Model,
    Out,
    Resize,
    SubsamplingOption,
)
from qtable.cli.provenance import header_of
from qtable.jpeg.codec import Codec
from qtable.measure.summary import percent
from qtable.photos.pixels import MEMORY
from qtable.photos.spec import PhotosSpec
from qtable.tasks.opening import TaskSpec
from search.compare import compare
from search.optimize import Plan

Methods = Annotated[str, typer.Option(help="Names of methods, comma-separated; METHOD@START and METHOD+racing work.")]
Seeds = Annotated[int, typer.Option(help="Runs of each method, with seeds 0, 1, ...")]
Thin = Annotated[int, typer.Option(help="Use every THIN-th photo of each split.")]


def compare_command(
    methods: Methods,
    data: Data = None,
    classes: Classes = None,
    model: Model = None,
    budget: Budget = 100,
    seeds: Seeds = 3,
    tables: Count = 2,
    subsampling: SubsamplingOption = "4:2:0",
    entropy: EntropyOption = "optimized",
    metric: Metric = "top-1",
    resize: Resize = None,
    limit: Limit = None,
    memory: Memory = MEMORY,
    thin: Thin = 1,
    device: Device = "cpu",
    out: Out = Path("runs/compare"),
    as_json: AsJson = False,
) -> None:
    """Let search methods compete: hypervolume and BD-rate over several seeds, one table, one picture."""
    plans = {name: _contestant(name, budget, tables) for name in methods.split(",")}
    if seeds < 1:
        raise ValueError(f"--seeds {seeds}; allowed: 1 or more")
    codec = Codec(subsampling, entropy)
    task = open_task(TaskSpec(model, metric, device))
    with progress_watch() as watch:
        images = open_images(PhotosSpec(data, resize, limit, memory, classes), watch).thinned(thin)
        header = header_of(images, model, task, codec)
        result = compare(images, task, codec, plans, range(seeds), out, header, watch, tell)
    if as_json:
        print(json.dumps(result))
    else:
        _show(result, f"{task.metric}, {budget} evaluations, {seeds} seeds: median [range]", out)


def _contestant(name: str, budget: int, tables: int) -> Plan:
    """The plan of `METHOD`, `METHOD@START`, `METHOD+racing`, `METHOD@START+racing`."""
    method, racing, rest = name.partition("+racing")
    if rest:
        raise ValueError(f"method {name!r}: nothing may follow +racing")
    method, _, start = method.partition("@")
    return Plan(method, budget, tables, start=start or None, racing=bool(racing))


def _show(result: dict[str, Any], title: str, out: Path) -> None:
    """The end of a contest for people: a line for each method, and where the files are."""
    table = Table(title=title)
    for heading in ("method", "hypervolume (search)", "bytes at equal score (test)", "the same on search"):
        table.add_column(heading, justify="right")
    for row in sorted(result["methods"], key=lambda m: -m["hypervolume"]["median"]):
        cells = [row["name"], "{median:.3f} [{low:.3f}, {high:.3f}]".format(**row["hypervolume"])]
        for name in ("bd_rate", "bd_rate_search"):
            median, low, high = (percent(row[name][key]) for key in ("median", "low", "high"))
            cells.append(f"{median} [{low}, {high}]")
        table.add_row(*cells)
    printer = Console()
    printer.print(table)
    printer.print(f"picture  {out / 'compare.png'}\nnumbers  {out / 'compare.json'}")
