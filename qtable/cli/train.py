"""`qtable train`: tables and network together."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from torch import distributed

from qtable.cli.console import console, progress_watch
from qtable.cli.opening import open_images, open_task, tell
from qtable.cli.options import (
    AsJson,
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
    Seed,
    SubsamplingOption,
)
from qtable.cli.provenance import header_of
from qtable.jpeg.codec import Codec
from qtable.jpeg.proxies import PROXIES
from qtable.jpeg.rounding import ROUNDINGS
from qtable.measure.evaluate import Evaluator
from qtable.measure.summary import percent
from qtable.photos.pixels import MEMORY
from qtable.photos.sets import ImageSet
from qtable.photos.spec import PhotosSpec
from qtable.progress import Watch
from qtable.tasks.base import DifferentiableTask
from qtable.tasks.opening import TaskSpec
from qtable.train.recipe import Learn, Loss, Recipe
from search.joint import Family, learn
from search.methods import Setting

Points = Annotated[int, typer.Option(help="Operating points: sets of tables, all for one network.")]
Start = Annotated[str, typer.Option(help="Where tables begin: closed-form, standard, random or a run FOLDER.")]
Largest = Annotated[int, typer.Option(help="The first point starts at the size of this standard quality.")]
Smallest = Annotated[int, typer.Option(help="The last point starts at the size of this standard quality.")]
Multiplier = Annotated[float, typer.Option(help="Times the price of bytes that holds the starts in place.")]
Learns = Annotated[Learn, typer.Option("--learn", help=f"What is trained: {', '.join(get_args(Learn))}.")]
LossOption = Annotated[
    Loss,
    typer.Option(help="distillation: from the clean network, needs no annotations; annotations: their likelihood."),
]
Steps = Annotated[int, typer.Option(help="Optimizer steps.")]
Batch = Annotated[int, typer.Option(help="Photos of a step, over all points and processes.")]
TableRate = Annotated[float, typer.Option(help="Learning rate of log(table entries).")]
NetworkRate = Annotated[float, typer.Option(help="Learning rate of the network.")]
Settle = Annotated[float, typer.Option(help="Last part of the steps, in which tables stay.")]
Rate = Annotated[str, typer.Option(help=f"Proxy of the rate: {', '.join(PROXIES)}.")]
Rounding = Annotated[str, typer.Option(help=f"Surrogate of round(): {', '.join(ROUNDINGS)}.")]
Every = Annotated[int, typer.Option(help="Steps between validations (and checkpoints).")]
Patience = Annotated[int | None, typer.Option(help="Stop after so many validations without gain.")]
Crop = Annotated[int | None, typer.Option(help="Side of the training crops. \\[default: the smallest side]")]
Flip = Annotated[bool, typer.Option(help="Mirror half of the photos.")]
TrainMetric = Annotated[str, typer.Option(help="What counts: top-1, top-5, or agreement with the clean network.")]


def train_command(
    data: Data = None,
    classes: Classes = None,
    model: Model = None,
    points: Points = 5,
    start: Start = "closed-form",
    largest: Largest = 50,
    smallest: Smallest = 8,
    multiplier: Multiplier = 1.0,
    learns: Learns = "both",
    loss: LossOption = "distillation",
    steps: Steps = Recipe.steps,
    batch: Batch = Recipe.batch,
    table_rate: TableRate = Recipe.table_rate,
    network_rate: NetworkRate = Recipe.network_rate,
    settle: Settle = Recipe.settle,
    rate: Rate = Recipe.rate,
    rounding: Rounding = Recipe.rounding,
    every: Every = Recipe.every,
    patience: Patience = None,
    crop: Crop = None,
    flip: Flip = True,
    tables: Count = 2,
    subsampling: SubsamplingOption = "4:2:0",
    entropy: EntropyOption = "optimized",
    metric: TrainMetric = "top-1",
    resize: Resize = None,
    limit: Limit = None,
    memory: Memory = MEMORY,
    device: Device = "cpu",
    seed: Seed = 0,
    out: Out = Path("runs/train"),
    as_json: AsJson = False,
) -> None:
    """Train tables and network together: a set of tables for each operating point, one network for all.

    On several processors or machines, the same behind torchrun: torchrun --nproc-per-node 4 -m qtable.cli train ...
    """
    family, codec = Family(points, start, largest, smallest, multiplier), Codec(subsampling, entropy)
    recipe = Recipe(
        learn=learns, loss=loss, steps=steps, batch=batch, table_rate=table_rate, network_rate=network_rate,
        settle=settle, rate=rate, rounding=rounding, every=every, patience=patience, crop=crop, flip=flip, seed=seed,
    )  # fmt: skip
    with process_group(device) as rank, progress_watch(visible=rank == 0) as watch:
        task = open_task(TaskSpec(model, metric, device))
        images = _opened(PhotosSpec(data, resize, limit, memory, classes), task, rank, watch)
        out.mkdir(parents=True, exist_ok=True)
        header = header_of(images, model, task, codec)
        statistics = out / f"statistics{rank or ''}.npz"
        setting = Setting(
            count=tables, rng=np.random.default_rng(seed), fit=images.fit, task=task, codec=codec, start=start,
            statistics=statistics, progress=lambda done, total: watch("sensitivity on fit", done, total, ""),
        )  # fmt: skip
        summary = learn(images, setting, family, recipe, out, header, watch)
    if rank == 0:
        print(json.dumps(summary)) if as_json else _show(summary, out, recipe)


@contextmanager
def process_group(device: str) -> Iterator[int]:
    """The group that torchrun started this process in, if it did; gives this process's rank."""
    if "RANK" not in os.environ:
        yield 0
        return
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    rank = distributed.get_rank()
    console.quiet = rank > 0  # one process tells; errors are told by each, outside
    try:
        yield rank
    finally:
        console.quiet = False
        distributed.destroy_process_group()


def _opened(photos: PhotosSpec, task: DifferentiableTask, rank: int, watch: Watch) -> ImageSet:
    """The photos; the first process says what is doubted of them."""
    images = open_images(photos, watch)
    if rank == 0:
        with Evaluator(images.search, task) as clean:
            tell(clean.doubts())
    return images


def _show(summary: dict[str, Any], out: Path, recipe: Recipe) -> None:
    printer = Console()
    table = Table(title=f"{summary['metric']}, {summary['n_test']} test photos, real files")
    for heading in ("tables", "mean bytes [95% interval]", "score [95% interval]"):
        table.add_column(heading, justify="right")
    for point in sorted(summary["points"], key=lambda p: -p["bytes"]):
        (small, large), (low, high) = point["bytes_ci"], point["score_ci"]
        table.add_row(
            point["tables"],
            f"{point['bytes']:,.0f} [{small:,.0f}, {large:,.0f}]",
            f"{point['score']:.1%} [{low:.1%}, {high:.1%}]",
        )
    printer.print(table)
    low, high = map(percent, summary["bd_rate_ci"])
    printer.print(
        f"{percent(summary['bd_rate'])} bytes at equal score [{low}, {high}] against standard tables and the untrained"
        f" network (BD-rate); best validated after step {summary['best_step']}.",
        markup=False,
    )
    if not summary["best_step"] and not summary["interrupted"]:
        printer.print(
            "No step was better on search than the start, so tables and network are those. Lower rates may help"
            f" (--table-rate {recipe.table_rate:g}, --network-rate {recipe.network_rate:g}): pretrained networks often"
            " want 1e-5 to 1e-4."
        )
    if summary["interrupted"]:
        printer.print("interrupted; the same command continues")
    printer.print(f"network  {out / 'network.safetensors'}\ntables   {out / 'tables'}/\npicture  {out / 'front.png'}")
