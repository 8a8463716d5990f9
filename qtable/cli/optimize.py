"""`qtable optimize`: the main job."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from qtable.cli.common import say
from qtable.cli.console import console, progress_watch
from qtable.cli.opening import Metric, open_images, open_task, tell
from qtable.cli.options import (
    AsJson,
    Budget,
    Classes,
    Cluster,
    Count,
    Data,
    Device,
    EntropyOption,
    Judges,
    Limit,
    Memory,
    Models,
    Out,
    Resize,
    Seed,
    SubsamplingOrAuto,
)
from qtable.cli.provenance import header_of
from qtable.codecs.task_aware import Effort
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.cluster import ClusterEvaluator, Job, connect, measure_over
from qtable.measure.sensitivity import Sensitivity, Target
from qtable.measure.summary import max_drop_sentence, percent, three_savings
from qtable.photos.pixels import MEMORY
from qtable.photos.sets import ImageSet
from qtable.photos.spec import PhotosSpec
from qtable.progress import Progress as DataProgress
from qtable.tasks.base import DifferentiableTask
from qtable.tasks.opening import TaskSpec, weights_digest
from search.chroma import optimize_sampling, sentences
from search.methods import METHODS
from search.optimize import Plan, Workforce, optimize

EncoderOption = Annotated[
    Literal["tables", "task-aware"],
    typer.Option(help="tables: for any encoder; task-aware: files whose levels are chosen through networks, too."),
]
EffortOption = Annotated[
    Effort,
    typer.Option(
        help="Of the task-aware encoder: weights of each photo by its gradients; crop: of each frequency, and nothing"
        " where no network looks; frequency: of each frequency."
    ),
]
Method = Annotated[str, typer.Option(help=f"How to search: {', '.join(METHODS)}.")]
Start = Annotated[
    str | None, typer.Option(help="Search around standard tables, the closed-form ones, or a run FOLDER's front.")
]
Racing = Annotated[
    bool, typer.Option("--racing", help="Drop candidates after a part of the photos; the budget counts photos.")
]
Workers = Annotated[int | None, typer.Option(help="Evaluate in this many processes. \\[default: threads of this one]")]
MaxDrop = Annotated[
    str | None, typer.Option(help="Also pick the smallest tables proved to lose at most this, e.g. 0.5%.")
]


def optimize_command(
    data: Data = None,
    classes: Classes = None,
    model: Models = None,
    encoder: EncoderOption = "tables",
    effort: EffortOption = "photo",
    judge: Judges = None,
    method: Method = "closed-form",
    budget: Budget = 40,
    tables: Count = 2,
    subsampling: SubsamplingOrAuto = "4:2:0",
    entropy: EntropyOption = "optimized",
    metric: Metric = "top-1",
    resize: Resize = None,
    limit: Limit = None,
    memory: Memory = MEMORY,
    device: Device = "cpu",
    start: Start = None,
    racing: Racing = False,
    workers: Workers = None,
    cluster: Cluster = None,
    max_drop: MaxDrop = None,
    seed: Seed = 0,
    out: Out = Path("runs/latest"),
    as_json: AsJson = False,
) -> None:
    """Find tables that make smaller files at equal score, and test them on photos that no search has seen."""
    drop = None if max_drop is None else _fraction(max_drop)
    plan = Plan(method, budget, tables, seed, drop, start, racing, effort if encoder == "task-aware" else None)
    codec = Codec("4:2:0" if subsampling == "auto" else subsampling, entropy)
    specs = [TaskSpec(each, metric, device) for each in model or ()] or [TaskSpec(None, metric, device)]
    tasks, judges = [open_task(spec) for spec in specs], _judges(judge, metric, device)
    spec, task = specs[0], tasks[0]
    through = list(zip(specs, tasks, strict=True)) if len(specs) > 1 or plan.effort is not None else []
    with progress_watch() as watch:
        photos = PhotosSpec(data, resize, limit, memory, classes)
        images = open_images(photos, watch)
        header = header_of(images, spec.model, task, codec)
        header["identity"] |= _identity(plan) | {
            "through": [weights_digest(looked.model)[:16] for _, looked in through],
            "judges": {name: weights_digest(judging.model)[:16] for name, judging in judges.items()},
        }
        _check_workable((workers, cluster) != (None, None), subsampling, racing, bool(through or judges))
        if subsampling == "auto":
            summary = optimize_sampling(images, task, entropy, plan, out, header, watch, tell)
        else:
            job = Job(replace(photos, memory=memory // (workers or 1)), spec)
            with _workforce(cluster, workers, job, images, task, codec) as workforce:
                summary = optimize(
                    images, task, codec, plan, out, header, watch, workforce, through=through, judges=judges, tell=tell
                )
    if as_json:
        print(json.dumps(summary))
    elif subsampling == "auto":
        _show_samplings(summary, out)
    else:
        _show(summary, out)
    for run in (out / "420", out / "444") if subsampling == "auto" else (out,):
        if (run / "report.html").exists():
            say(f"{run / 'report.html'} is from before; qtable report {shlex.quote(str(run))} renews it")


def _fraction(text: str) -> float:
    """0.005 from "0.5%" or "0.005"."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise ValueError(f"--max-drop {text!r} is not a number such as 0.5%") from None


def _identity(plan: Plan) -> dict[str, Any]:
    """What of a plan must be equal for a run to go on."""
    return {
        "method": plan.method,
        "tables": plan.count,
        "seed": plan.seed,
        "start": plan.start,
        "racing": plan.racing,
        "effort": plan.effort,
    }


def _judges(models: list[str] | None, metric: str, device: str) -> dict[str, DifferentiableTask]:
    """By what the user calls them. ValueError for one that is named twice."""
    if len(set(models or ())) < len(models or ()):
        raise ValueError(f"--judge {', '.join(models or ())}: one of them is named twice")
    return {model: open_task(TaskSpec(model, metric, device)) for model in models or ()}


def _check_workable(elsewhere: bool, subsampling: str, racing: bool, several: bool) -> None:
    """ValueError for what other processes, or the runs of two samplings, cannot do."""
    if subsampling == "auto" and several:
        raise ValueError("--subsampling auto makes tables for one --model, without --judge")
    options = ("--subsampling auto", subsampling == "auto"), ("--racing", racing), ("several networks", several)
    for option, asked in options:
        if elsewhere and asked:
            raise ValueError(f"{option} runs in this process; leave --workers and --cluster out")


@contextmanager
def _workforce(
    cluster: str | None, workers: int | None, job: Job, images: ImageSet, task: DifferentiableTask, codec: Codec
) -> Iterator[Workforce | None]:
    """What works on a cluster or in processes; None if neither is asked for."""
    if cluster is None and workers is None:
        yield None
        return
    with connect(cluster, workers) as client:

        def measure(
            *_: object, target: Target, at: QTables | None = None, progress: DataProgress | None = None
        ) -> Sensitivity:
            return measure_over(client, job, images, task, codec, target=target, at=at, progress=progress)

        yield Workforce(
            lambda split, _: ClusterEvaluator(job, split, client, images, task),
            measure,
            at_once=max(1, len(client.scheduler_info()["workers"])),
        )


def _show_samplings(summary: dict[str, Any], out: Path) -> None:
    printer = Console()
    for line in sentences(summary):
        printer.print(line)
    for name, rate in (*summary["samplings"].items(), ("best of both", summary)):
        low, high = map(percent, rate["bd_rate_ci"])
        change = f"{percent(rate['bd_rate'])} bytes at equal score [{low}, {high}]"
        printer.print(f"{name}: {change} against standard 4:2:0", markup=False)
    printer.print(f"picture  {out / 'front.png'}\nruns     {out / '420'}, {out / '444'}")


def _show(summary: dict[str, Any], out: Path) -> None:
    """The end of a run for people: savings at three scores, and where the files are."""
    if summary["interrupted"]:
        console.print(f"[yellow]interrupted after {summary['evaluations']} evaluations; the same command continues[/]")
    table = Table(title=f"at equal {summary['metric']}, {summary['n_test']} test photos")
    for heading in ("standard tables", "found tables: bytes [95% interval]", "as good on the search photos"):
        table.add_column(heading, justify="right")
    baseline = {p["quality"]: p for p in summary["baseline"]}
    for row in three_savings(summary):
        standard = baseline[row["quality"]]
        table.add_row(
            f"q{row['quality']}: {standard['bytes']:,.0f} B, {standard['score']:.1%}",
            f"{percent(row['change'])} [{percent(row['change_ci'][0])}, {percent(row['change_ci'][1])}]",
            row["use"] or "-",
        )
    printer = Console()
    printer.print(f"{summary['metric']} of the uncompressed test photos: {summary['clean']:.1%}")
    if table.row_count:
        printer.print(table)
    for judge in summary.get("judges", ()):
        low, high = map(percent, judge["bd_rate_ci"])
        change = f"{percent(judge['bd_rate'])} bytes at equal {summary['metric']} [{low}, {high}]"
        printer.print(f"{judge['model']}, by which nothing was chosen: {change}", markup=False, soft_wrap=True)
    low, high = summary["bd_rate_ci"]
    printer.print(
        f"Over the whole front: {percent(summary['bd_rate'])} bytes at equal score [{percent(low)}, {percent(high)}]"
        f" (BD-rate, test photos); on the search photos it was {percent(summary['bd_rate_search'])}."
    )
    if "max_drop" in summary:
        printer.print(max_drop_sentence(summary["max_drop"], summary["n_test"]))
    printer.print(
        f"picture  {out / 'front.png'}\n"
        f"tables   {out / 'tables'}/ (.json, and .txt for cjpeg)\n"
        f"numbers  {out / 'summary.json'}"
    )
