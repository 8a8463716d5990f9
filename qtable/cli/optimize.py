"""`qtable optimize`, `compare` and `evaluate`: what needs photos and a model."""

from __future__ import annotations

import json
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from qtable.cli.common import (
    AsJson,
    Data,
    Device,
    EntropyOption,
    Limit,
    Metric,
    Model,
    Resize,
    SubsamplingOption,
    SubsamplingOrAuto,
    console,
    open_images,
    open_task,
    printable,
    progress_watch,
)
from qtable.cli.provenance import header_of
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.cluster import ClusterEvaluator, Job, connect, measure_over
from qtable.measure.evaluate import Evaluator
from qtable.measure.front import interval, resamples
from qtable.measure.sensitivity import Sensitivity, Target
from qtable.measure.summary import RESAMPLES, max_drop_sentence, percent, three_savings
from qtable.photos.sets import ImageSet, Split
from qtable.progress import Progress as DataProgress
from qtable.tasks.classification import Classifier
from search.chroma import optimize_sampling, sentences
from search.compare import compare
from search.methods import METHODS
from search.optimize import Plan, Workforce, optimize


def optimize_command(
    data: Data = None,
    model: Model = None,
    method: Annotated[str, typer.Option(help=f"How to search: {', '.join(METHODS)}.")] = "closed-form",
    budget: Annotated[int, typer.Option(help="Evaluations of different tables on the search photos.")] = 40,
    tables: Annotated[int, typer.Option(help="1: one table; 2: luma, chroma; 3: Y, Cb, Cr.")] = 2,
    subsampling: Annotated[
        SubsamplingOrAuto, typer.Option(help="Chroma subsampling; auto: 4:2:0 and 4:4:4 with their own tables.")
    ] = "4:2:0",
    entropy: EntropyOption = "optimized",
    metric: Metric = "top-1",
    resize: Resize = None,
    limit: Limit = None,
    device: Device = "cpu",
    start: Annotated[
        str | None, typer.Option(help="Search around standard tables, the closed-form ones, or a run FOLDER's front.")
    ] = None,
    racing: Annotated[
        bool, typer.Option("--racing", help="Drop candidates after a part of the photos; the budget counts photos.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Evaluate in this many processes. [default: threads of this one]")
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="Evaluate on a Dask cluster: tcp://HOST:PORT.")] = None,
    max_drop: Annotated[
        str | None, typer.Option(help="Also pick the smallest tables proved to lose at most this, e.g. 0.5%.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    out: Annotated[Path, typer.Option(help="Run folder; the same command with the same folder continues.")] = Path(
        "runs/latest"
    ),
    as_json: AsJson = False,
) -> None:
    """Find tables that make smaller files at equal score, and test them on photos that no search has seen."""
    plan = Plan(method, budget, tables, seed, None if max_drop is None else _fraction(max_drop), start, racing)
    codec = Codec("4:2:0" if subsampling == "auto" else subsampling, entropy)
    task = open_task(model, metric, device)
    with progress_watch() as watch, ExitStack() as stack:
        images = open_images(data, resize, limit, watch)
        header = header_of(images, model, task, codec)
        header["identity"] |= {
            "method": plan.method,
            "tables": plan.count,
            "seed": plan.seed,
            "start": plan.start,
            "racing": plan.racing,
        }
        if subsampling == "auto":
            if workers is not None or cluster is not None:
                raise ValueError("--subsampling auto runs in this process; leave --workers and --cluster out")
            summary = optimize_sampling(images, task, entropy, plan, out, header, watch)
        else:
            workforce = None
            if workers is not None or cluster is not None:
                if racing:
                    raise ValueError("--racing runs in this process; leave --workers and --cluster out")
                client = stack.enter_context(connect(cluster, workers))
                job = Job(data, resize, limit, model, metric, codec, device)
                workforce = _cluster(client, job, images, task)
            summary = optimize(images, task, codec, plan, out, header, watch, workforce)
    if as_json:
        print(json.dumps(summary))
    elif subsampling == "auto":
        _show_samplings(summary, out)
    else:
        _show(summary, out)
    for run in (out / "420", out / "444") if subsampling == "auto" else (out,):
        if (run / "report.html").exists():
            line = f"{run / 'report.html'} is from before; qtable report {shlex.quote(str(run))} renews it"
            console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _cluster(client: Any, job: Job, images: ImageSet, task: Classifier) -> Workforce:
    """The workers of a Dask client do the work."""

    def measure(
        *_: object, target: Target, at: QTables | None = None, progress: DataProgress | None = None
    ) -> Sensitivity:
        return measure_over(client, job, images, task, target=target, at=at, progress=progress)

    return Workforce(
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
        printer.print(f"{name}: {percent(rate['bd_rate'])} bytes at equal score [{low}, {high}] against standard 4:2:0")
    printer.print(f"picture  {out / 'front.png'}\nruns     {out / '420'}, {out / '444'}")


def compare_command(
    methods: Annotated[
        str, typer.Option(help="Names of methods, comma-separated; METHOD@START and METHOD+racing work.")
    ],
    data: Data = None,
    model: Model = None,
    budget: Annotated[int, typer.Option(help="Evaluations of each run on the search photos.")] = 100,
    seeds: Annotated[int, typer.Option(help="Runs of each method, with seeds 0, 1, ...")] = 3,
    tables: Annotated[int, typer.Option(help="1: one table; 2: luma, chroma; 3: Y, Cb, Cr.")] = 2,
    subsampling: SubsamplingOption = "4:2:0",
    entropy: EntropyOption = "optimized",
    metric: Metric = "top-1",
    resize: Resize = None,
    limit: Limit = None,
    thin: Annotated[int, typer.Option(help="Use every THIN-th photo of each split.")] = 1,
    device: Device = "cpu",
    out: Annotated[Path, typer.Option(help="Folder of the contest; the same command continues it.")] = Path(
        "runs/compare"
    ),
    as_json: AsJson = False,
) -> None:
    """Let search methods compete: hypervolume and BD-rate over several seeds, one table, one picture."""
    plans = {name: _contestant(name, budget, tables) for name in methods.split(",")}
    if seeds < 1:
        raise ValueError(f"--seeds {seeds}; allowed: 1 or more")
    codec = Codec(subsampling, entropy)
    task = open_task(model, metric, device)
    with progress_watch() as watch:
        images = open_images(data, resize, limit, watch).thinned(thin)
        header = header_of(images, model, task, codec)
        result = compare(images, task, codec, plans, range(seeds), out, header, watch)
    if as_json:
        print(json.dumps(result))
        return
    table = Table(title=f"{task.metric}, {budget} evaluations, {seeds} seeds: median [range]")
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


def _contestant(name: str, budget: int, tables: int) -> Plan:
    """The plan of `METHOD`, `METHOD@START`, `METHOD+racing`, `METHOD@START+racing`."""
    method, racing, rest = name.partition("+racing")
    if rest:
        raise ValueError(f"method {name!r}: nothing may follow +racing")
    method, _, start = method.partition("@")
    return Plan(method, budget, tables, start=start or None, racing=bool(racing))


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


def evaluate_command(
    tables: Annotated[list[str], typer.Option(help="JSON file, quality:Q, flat:STEP or preset[:Q]; repeatable.")],
    data: Data = None,
    model: Model = None,
    split: Annotated[Split, typer.Option(help="Which photos.")] = "test",
    subsampling: SubsamplingOption = "4:2:0",
    entropy: EntropyOption = "optimized",
    metric: Metric = "top-1",
    resize: Resize = None,
    limit: Limit = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure tables with real files: mean bytes and score with 95% intervals, and changes against the first."""
    candidates = [QTables.parse(spec) for spec in tables]
    codec = Codec(subsampling, entropy)
    task = open_task(model, metric, device)
    with progress_watch() as watch:
        images = open_images(data, resize, limit, watch)
        with Evaluator(images[split], task, codec) as evaluator:
            clean = task.score(evaluator.clean())
            scores = [
                evaluator(t, lambda done, total, spec=spec: watch(spec, done, total, ""))  # type: ignore[misc]
                for spec, t in zip(tables, candidates, strict=True)
            ]
    draws = resamples(len(scores[0].photo_bytes), RESAMPLES, np.random.default_rng(0))
    results: list[dict[str, Any]] = []
    for spec, score in zip(tables, scores, strict=True):
        sizes = [float(score.photo_bytes[draw].mean()) for draw in draws]
        values = [task.score(score.outcomes[draw]) for draw in draws]
        change = [task.score(score.outcomes[d]) - task.score(scores[0].outcomes[d]) for d in draws]
        results.append(
            {
                "tables": spec,
                "bytes": score.bytes,
                "bytes_ci": interval(sizes),
                "score": score.score,
                "score_ci": interval(values),
                "score_change": score.score - scores[0].score,
                "score_change_ci": interval(change),
            }
        )
    if as_json:
        report = {"metric": task.metric, "codec": codec.to_dict(), "split": split, "clean": clean, "results": results}
        print(json.dumps(report | {"photos": len(images[split])}))
        return
    table = Table(title=f"{task.metric} on {len(images[split])} {split} photos; uncompressed {clean:.1%}")
    for heading in ("tables", "mean bytes", "score [95% interval]", f"change against {tables[0]} [95% interval]"):
        table.add_column(heading, justify="right")
    for r in results:
        low, high = r["score_ci"]
        change_low, change_high = r["score_change_ci"]
        table.add_row(
            r["tables"],
            f"{r['bytes']:,.0f}",
            f"{r['score']:.1%} [{low:.1%}, {high:.1%}]",
            f"{100 * r['score_change']:+.1f} [{100 * change_low:+.1f}, {100 * change_high:+.1f}] points",
        )
    Console().print(table)


def _fraction(text: str) -> float:
    """0.005 from "0.5%" or "0.005"."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise ValueError(f"--max-drop {text!r} is not a number such as 0.5%") from None
