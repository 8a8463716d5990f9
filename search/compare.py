"""A contest of methods: the same photos, budget, archive format and judges for all, over several seeds.

Searchers see `search` alone. Their progress is the hypervolume on `search` after each evaluation; what they are worth
is the BD-rate of their fronts on `test` against standard tables.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qtable.files import write_atomically
from qtable.jpeg.codec import Codec
from qtable.measure.archive import Archive
from qtable.measure.front import hypervolume
from qtable.measure.summary import STANDARD
from qtable.photos.sets import ImageSet
from qtable.progress import Watch
from qtable.report import plot
from qtable.tasks.base import DifferentiableTask
from search.optimize import NothingFound, Plan, Tell, optimize, quiet

CHECKPOINTS: Final = 40
"""So many hypervolumes are computed along a run."""
Floats = npt.NDArray[np.float64]


def compare(
    images: ImageSet,
    task: DifferentiableTask,
    codec: Codec,
    plans: Mapping[str, Plan],
    seeds: Sequence[int],
    out: Path,
    header: Mapping[str, Any],
    watch: Watch = lambda *_: None,
    tell: Tell = quiet,
) -> dict[str, Any]:
    """Run every plan (by the name it has in the results) with every seed, in folders of `out`; what compare.json holds.

    tell: see `optimize`; called by the first run. The same command continues a contest that was stopped.
    """
    runs: list[dict[str, Any]] = []
    known: dict[bool, Path] = {}
    total = len(plans) * len(seeds)
    for name, plan in plans.items():
        for seed in seeds:
            watch("contest", len(runs), total, f"{name}, seed {seed}")
            folder, heard = out / f"{name}-{seed}", quiet if runs else tell
            identity = {**header["identity"], "method": name, "plan": repr(replace(plan, seed=seed))}
            own = {**header, "identity": identity}
            try:
                seeded, before = replace(plan, seed=seed), known.get(plan.racing)
                summary = optimize(images, task, codec, seeded, folder, own, known=before, tell=heard)
            except NothingFound:
                summary = {"interrupted": False, "bd_rate": None, "bd_rate_ci": None, "bd_rate_search": None}
            if summary["interrupted"]:
                raise KeyboardInterrupt
            known.setdefault(plan.racing, folder)
            runs.append({"name": name, "seed": seed, **_judged(folder, summary)})
    watch("contest", total, total, "")
    result = {"metric": task.metric, "codec": codec.to_dict(), "seeds": list(seeds), "runs": runs}
    result["photos"] = {"search": len(images.search), "test": len(images.test)}
    result["methods"] = [_over_seeds(name, [r for r in runs if r["name"] == name]) for name in plans]
    write_atomically(out / "compare.json", (json.dumps(result, indent=1) + "\n").encode())
    write_atomically(out / "compare.png", _picture(result))
    return result


def _judged(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Hypervolume on `search` as it grew over the evaluations spent, and the verdict on `test`."""
    archive = Archive(folder / "archive.jsonl")
    photos = max(len(r.score.photo_bytes) for r in archive if r.split == "search")
    worst = max(r.score.bytes for r in archive.records("search") if r.origin == STANDARD)
    spent, sizes, scores = 0.0, [], []
    trace: list[tuple[float, float, float]] = []
    for record in archive:
        if record.split != "search" or record.origin == STANDARD:
            continue
        spent += len(record.score.photo_bytes) / photos
        whole = len(record.score.photo_bytes) == photos
        sizes.append(record.score.bytes if whole else worst)
        scores.append(record.score.score if whole else 0.0)
        trace.append((spent, sizes[-1], scores[-1]))
    at = np.unique(np.linspace(1, len(trace), CHECKPOINTS).round().astype(int))
    return {
        "spent": [trace[i - 1][0] for i in at],
        "hypervolume": [hypervolume(sizes[:i], scores[:i], worst) for i in at],
        "evaluations": len(trace),
        "bd_rate": summary["bd_rate"],
        "bd_rate_ci": summary["bd_rate_ci"],
        "bd_rate_search": summary["bd_rate_search"],
    }


def _over_seeds(name: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median and range of what the seeds reached."""

    def spread(values: list[float | None]) -> dict[str, float | None]:
        numbers = [v for v in values if v is not None]
        if not numbers:
            return {"median": None, "low": None, "high": None}
        return {"median": float(np.median(numbers)), "low": min(numbers), "high": max(numbers)}

    return {
        "name": name,
        "spent": float(np.median([r["spent"][-1] for r in runs])),
        "hypervolume": spread([r["hypervolume"][-1] for r in runs]),
        "bd_rate": spread([r["bd_rate"] for r in runs]),
        "bd_rate_search": spread([r["bd_rate_search"] for r in runs]),
    }


def _picture(result: Mapping[str, Any]) -> bytes:
    """Hypervolume against evaluations spent: median over seeds, and their range."""
    figure, axes = plot.new_axes(8.5, 5.2)
    for i, method in enumerate(result["methods"]):
        runs = [r for r in result["runs"] if r["name"] == method["name"]]
        at = np.unique(np.concatenate([r["spent"] for r in runs]))
        lines: Floats = np.array([np.interp(at, r["spent"], r["hypervolume"]) for r in runs])
        plot.progress(axes, at, lines, method["name"], i)
    axes.set_ylabel("hypervolume on search (octaves of bytes x score)")
    axes.legend(fontsize=7, loc="lower right", ncols=2)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
