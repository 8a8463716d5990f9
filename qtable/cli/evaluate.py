"""`qtable evaluate`: tables measured with real files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from qtable.cli.console import progress_watch
from qtable.cli.opening import Metric, open_images, open_task
from qtable.cli.options import (
    AsJson,
    Data,
    Device,
    EntropyOption,
    Limit,
    Model,
    Resize,
    SeveralTables,
    SubsamplingOption,
)
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.evaluate import Evaluator, Score
from qtable.measure.front import interval, resamples
from qtable.measure.summary import RESAMPLES
from qtable.photos.sets import Split
from qtable.tasks.classification import Classifier

SplitOption = Annotated[Split, typer.Option("--split", help="Which photos.")]


def evaluate_command(
    tables: SeveralTables,
    data: Data = None,
    model: Model = None,
    split: SplitOption = "test",
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
    results = _compared(tables, scores, task)
    if as_json:
        report = {"metric": task.metric, "codec": codec.to_dict(), "split": split, "clean": clean, "results": results}
        print(json.dumps(report | {"photos": len(images[split])}))
    else:
        _show(results, f"{task.metric} on {len(images[split])} {split} photos; uncompressed {clean:.1%}")


def _compared(tables: Sequence[str], scores: Sequence[Score], task: Classifier) -> list[dict[str, Any]]:
    """Of each table set mean bytes, score and change of the score against the first, with 95% intervals; JSON-ready."""
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
    return results


def _show(results: Sequence[dict[str, Any]], title: str) -> None:
    table = Table(title=title)
    for heading in (
        "tables",
        "mean bytes",
        "score [95% interval]",
        f"change against {results[0]['tables']} [95% interval]",
    ):
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
