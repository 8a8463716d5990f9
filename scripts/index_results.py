"""Writes results/README.md from the figures beside it: `python scripts/index_results.py` (part of `make results`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

RESULTS: Final = Path(__file__).resolve().parent.parent / "results"
RUNS: Final = {
    "embedded": ("closed form, embedded task, top-1", "qtable optimize"),
    "imagenet-sample/auto": (
        "closed form with the better chroma sampling at each rate, ImageNet photos, agreement; against 4:2:0",
        (
            "qtable optimize --data ../shared/data/imagenet --model ../shared/models/classifiers.py:mobilenet_v1_050_160"
            " --metric agreement --subsampling auto --budget 20"
        ),
    ),
}
CONTESTS: Final = {
    "embedded/contest-cold": (
        "Search methods from nothing",
        (
            "The notebook's four begin with fifteen sorted random tables and hardly improve on those. Its genetic algorithms"
            " have no mutation and one fitness number with one best point, so all fifteen become one table and they run out"
            " of new ones before the budget ends; averaging neighbours can only take differences away and ends the same"
            " way; steps of up to 7 in most entries at once make nearly every proposal worse, and its coin accepts them all"
            " the same. Selection by Pareto rank, small steps in few dimensions and a proper acceptance rule cure it."
        ),
    ),
    "embedded/contest-racing": (
        "Racing against scoring every candidate on all photos",
        "Both may look at as many photos; the picture shows how many evaluations' worth each needed.",
    ),
    "embedded/contest-closed": ("The closed form alone, to compare the next with", ""),
    "embedded/contest-warm": (
        "Search methods around the closed form",
        (
            "They begin with 8 points of the closed form; the rest of the budget looks for better ones around them. On"
            " `test` nothing is won against the closed form alone at this budget (the intervals of the single runs, in"
            " compare.json, are some 4 points wide); the last two columns are the price of choosing."
        ),
    ),
    "imagenet-sample/contest": (
        "From nothing and around the closed form, ImageNet photos, agreement, MobileNetV1 0.5/160",
        "Every second photo, one seed, 40 evaluations: a small contest whose intervals are wide.",
    ),
}
HEAD: Final = """\
# Results

Each figure is the change of bytes at equal score against standard tables (BD-rate) on `test` photos that nothing was
chosen on, with its paired 95% interval. Real files of libjpeg-turbo, same sampling and entropy coding on both sides
where nothing else is said. `make results` remakes the runs and contests (hours on two cores), `make bench` the
benchmarks; `scripts/results.sh` has the commands.

| question | bytes at equal score | | command |
|---|---|---|---|
"""
TAIL: Final = """\
| closed forms, sixteen published tables, and every refinement, two networks | [page](imagenet-sample/README.md) | \
[picture](imagenet-sample/tables.png) | `python -m benchmarks.tables` |

The embedded task is for trying the tool. "agreement" is the share of photos whose top answer stays what it is on the
uncompressed photo.

| benchmark | | command |
|---|---|---|
| the JPEG layer against kornia's: time, memory, equal pixels | [layer](layer/README.md) | `python -m benchmarks.layer` |
| seven rate estimates against real bytes over 200 table sets | [rate](rate/README.md) | `python -m benchmarks.rate` |
| what evaluating, statistics and solving cost beside inference | [evaluate](evaluate/evaluate.json) | \
`python -m benchmarks.evaluate` |
| evaluations per second of two worker processes against one | [cluster](cluster/cluster.json) | \
`python -m benchmarks.cluster` |
| `qtable compress` against a bare Pillow loop, photos per second and core | [compress](compress/compress.json) | \
`python -m benchmarks.compress` |

## Contests of search methods

Hypervolume is on `search` (octaves of bytes x score; larger is better), bytes at equal score on `test`; medians and ranges
over seeds. The same photos, budget and archive for all. On the embedded task where nothing else is said.
"""


def row(run: str) -> str:
    """One line of the table: question, figure with interval, picture, command."""
    question, command = RUNS[run]
    summary = json.loads((RESULTS / run / "summary.json").read_text())
    low, high = summary["bd_rate_ci"]
    figure = f"{summary['bd_rate']:+.1%} [{low:+.1%}, {high:+.1%}]"
    return f"| {question} | {figure} | [picture]({run}/front.png) | `{command}` |"


def contest(name: str) -> str:
    """A section: one line per method, the largest hypervolume first."""
    result: dict[str, Any] = json.loads((RESULTS / name / "compare.json").read_text())

    def spread(values: dict[str, float | None], form: str) -> str:
        if values["median"] is None:
            return "-"
        median, low, high = (format(values[key], form) for key in ("median", "low", "high"))
        return f"{median} [{low}, {high}]"

    photos = result["photos"]
    lines = [
        f"\n### {CONTESTS[name][0]}\n",
        (
            f"{photos['search']} search and {photos['test']} test photos, {len(result['seeds'])} seeds."
            f" [picture]({name}/compare.png)\n"
        ),
        f"{CONTESTS[name][1]}\n",
        "| method | evaluations spent | hypervolume (search) | bytes at equal score (test) | the same on search |",
        "|---|---|---|---|---|",
    ]
    for method in sorted(result["methods"], key=lambda m: -m["hypervolume"]["median"]):
        cells = [method["name"], f"{method['spent']:.0f}", spread(method["hypervolume"], ".3f")]
        cells += [spread(method[key], "+.1%") for key in ("bd_rate", "bd_rate_search")]
        lines.append("| " + " | ".join(cells) + " |")
    if name == "embedded/contest-racing":
        lines += ["", racing_gain(result["runs"])]
    return "\n".join(lines) + "\n"


def racing_gain(runs: list[dict[str, Any]]) -> str:
    """How far racing gets with half of the photo evaluations, and when it reaches what the other ends with."""
    full, raced = ([r for r in runs if r["name"] == name] for name in ("genetic", "genetic+racing"))
    end = np.median([r["hypervolume"][-1] for r in full])
    half = np.median([np.interp(r["spent"][-1] / 2, r["spent"], r["hypervolume"]) for r in raced])
    shares = [
        np.interp(f["hypervolume"][-1], r["hypervolume"], r["spent"]) / f["spent"][-1]
        for f, r in zip(full, raced, strict=True)
    ]
    each = ", ".join(f"{share:.0%}" for share in sorted(shares))
    return (
        f"With half of the photo evaluations racing has a median hypervolume of {half:.3f}; without it all of them give"
        f" {end:.3f}. Seed by seed it needs {each} of them for what the other ends with."
    )


def main() -> None:
    rows = [row(run) for run in RUNS if (RESULTS / run / "summary.json").exists()]
    contests = [contest(name) for name in CONTESTS if (RESULTS / name / "compare.json").exists()]
    (RESULTS / "README.md").write_text(HEAD + "\n".join(rows) + "\n" + TAIL + "".join(contests), encoding="utf-8")


if __name__ == "__main__":
    main()
