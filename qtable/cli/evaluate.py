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
from qtable.cli.lending import models_to_lend
from qtable.cli.opening import Metric, open_images, open_task, tell
from qtable.cli.options import (
    AsJson,
    Classes,
    Data,
    Device,
    EntropyOption,
    Limit,
    Memory,
    Model,
    Resize,
    SeveralTables,
    SubsamplingOption,
    Through,
)
from qtable.codecs.plain import open_coder
from qtable.jpeg.codec import Codec
from qtable.measure.evaluate import Evaluator, Score
from qtable.measure.front import Measured, interval, resamples
from qtable.measure.summary import RESAMPLES
from qtable.photos.pixels import MEMORY
from qtable.photos.sets import Split
from qtable.photos.spec import PhotosSpec
from qtable.tasks.opening import TaskSpec

SplitOption = Annotated[Split, typer.Option("--split", help="Which photos.")]


def evaluate_command(
    tables: SeveralTables,
    data: Data = None,
    classes: Classes = None,
    model: Model = None,
    through: Through = None,
    split: SplitOption = "test",
    subsampling: SubsamplingOption = "4:2:0",
    entropy: EntropyOption = "optimized",
    metric: Metric = "top-1",
    resize: Resize = None,
    limit: Limit = None,
    memory: Memory = MEMORY,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure tables with real files: mean bytes and score with 95% intervals, and changes against the first."""
    codec = Codec(subsampling, entropy)
    candidates = [open_coder(spec, codec) for spec in tables]
    task = open_task(TaskSpec(model, metric, device))
    models_to_lend(candidates, through, device, "--through", task)
    with progress_watch() as watch:
        images = open_images(PhotosSpec(data, resize, limit, memory, classes), watch)
        with Evaluator(images[split], task) as evaluator:
            doubts = evaluator.doubts()
            tell(doubts)
            clean = evaluator.clean().score()
            scores = [
                evaluator(coder, lambda done, total, spec=spec: watch(spec, done, total, ""))  # type: ignore[misc]
                for spec, coder in zip(tables, candidates, strict=True)
            ]
    results = _compared(tables, scores)
    if as_json:
        report = {"metric": task.metric, "codec": codec.to_dict(), "split": split, "clean": clean, "results": results}
        print(json.dumps(report | {"photos": len(images[split]), "doubts": doubts}))
    else:
        _show(results, f"{task.metric} on {len(images[split])} {split} photos; uncompressed {clean:.1%}")


def _compared(tables: Sequence[str], scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Of each table set mean bytes, score and change of the score against the first, with 95% intervals; JSON-ready."""
    draws = resamples(len(scores[0].photo_bytes), RESAMPLES, np.random.default_rng(0))
    measured = Measured.of(scores)
    sizes, values = (np.array(column) for column in zip(*(measured.points(draw) for draw in draws), strict=True))
    results: list[dict[str, Any]] = []
    for i, (spec, score) in enumerate(zip(tables, scores, strict=True)):
        results.append(
            {
                "tables": spec,
                "bytes": score.bytes,
                "bytes_ci": interval(sizes[:, i]),
                "score": score.score,
                "score_ci": interval(values[:, i]),
                "score_change": score.score - scores[0].score,
                "score_change_ci": interval(values[:, i] - values[:, 0]),
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
