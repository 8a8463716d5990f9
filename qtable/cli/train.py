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

from qtable.cli.common import (
    AsJson,
    Data,
    Device,
    EntropyOption,
    Limit,
    Model,
    Resize,
    SubsamplingOption,
    console,
    open_images,
    open_task,
    progress_watch,
)
from qtable.cli.provenance import header_of
from qtable.jpeg.codec import Codec
from qtable.jpeg.proxies import PROXIES
from qtable.jpeg.rounding import ROUNDINGS
from qtable.measure.summary import percent
from qtable.tasks.models import load_model
from qtable.train.recipe import Learn, Loss, Recipe
from search.joint import Family, learn
from search.methods import Setting


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


def train_command(
    data: Data = None,
    model: Model = None,
    points: Annotated[int, typer.Option(help="Operating points: sets of tables, all for one network.")] = 5,
    start: Annotated[
        str, typer.Option(help="Where tables begin: closed-form, standard, random or a run FOLDER.")
    ] = "closed-form",
    largest: Annotated[int, typer.Option(help="The first point starts at the size of this standard quality.")] = 50,
    smallest: Annotated[int, typer.Option(help="The last point starts at the size of this standard quality.")] = 8,
    multiplier: Annotated[float, typer.Option(help="Times the price of bytes that holds the starts in place.")] = 1.0,
    learns: Annotated[Learn, typer.Option("--learn", help=f"What is trained: {', '.join(get_args(Learn))}.")] = "both",
    loss: Annotated[
        Loss, typer.Option(help="distillation: from the clean network, no labels; labels: cross-entropy.")
    ] = "distillation",
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = Recipe.steps,
    batch: Annotated[int, typer.Option(help="Photos of a step, over all points and processes.")] = Recipe.batch,
    table_rate: Annotated[float, typer.Option(help="Learning rate of log(table entries).")] = Recipe.table_rate,
    network_rate: Annotated[float, typer.Option(help="Learning rate of the network.")] = Recipe.network_rate,
    settle: Annotated[float, typer.Option(help="Last part of the steps, in which tables stay.")] = Recipe.settle,
    rate: Annotated[str, typer.Option(help=f"Proxy of the rate: {', '.join(PROXIES)}.")] = Recipe.rate,
    rounding: Annotated[str, typer.Option(help=f"Surrogate of round(): {', '.join(ROUNDINGS)}.")] = Recipe.rounding,
    every: Annotated[int, typer.Option(help="Steps between validations (and checkpoints).")] = Recipe.every,
    patience: Annotated[int | None, typer.Option(help="Stop after so many validations without gain.")] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the training crops. [default: the smallest side]")] = None,
    flip: Annotated[bool, typer.Option(help="Mirror half of the photos.")] = True,
    tables: Annotated[int, typer.Option(help="1: one table; 2: luma, chroma; 3: Y, Cb, Cr.")] = 2,
    subsampling: SubsamplingOption = "4:2:0",
    entropy: EntropyOption = "optimized",
    metric: Annotated[str, typer.Option(help="What counts: top-1, or agreement with the clean network.")] = "top-1",
    resize: Resize = None,
    limit: Limit = None,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder; the same command with the same folder continues.")] = Path(
        "runs/train"
    ),
    as_json: AsJson = False,
) -> None:
    """Train tables and network together: a set of tables for each operating point, one network for all.

    On several processors or machines, the same behind torchrun: torchrun --nproc-per-node 4 -m qtable.cli train ...
    """
    family = Family(points, start, largest, smallest, multiplier)
    recipe = Recipe(
        learn=learns,
        loss=loss,
        steps=steps,
        batch=batch,
        table_rate=table_rate,
        network_rate=network_rate,
        settle=settle,
        rate=rate,
        rounding=rounding,
        every=every,
        patience=patience,
        crop=crop,
        flip=flip,
        seed=seed,
    )
    codec = Codec(subsampling, entropy)
    with process_group(device) as rank, progress_watch(visible=rank == 0) as watch:
        task = open_task(model, metric, device)
        network = load_model(model)
        images = open_images(data, resize, limit, watch)
        out.mkdir(parents=True, exist_ok=True)
        setting = Setting(
            count=tables,
            rng=np.random.default_rng(seed),
            fit=images.fit,
            task=task,
            codec=codec,
            statistics=out / f"statistics{rank or ''}.npz",
            start=start,
            progress=lambda done, total: watch("sensitivity on fit", done, total, ""),
        )
        header = header_of(images, model, task, codec)
        summary = learn(network, images, metric, setting, family, recipe, out, header, watch)
    if rank:
        return
    if as_json:
        print(json.dumps(summary))
    else:
        _show(summary, out, recipe)


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
        f" network (BD-rate); best validated after step {summary['best_step']}."
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
