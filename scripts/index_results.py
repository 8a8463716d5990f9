"""Writes results/README.md from the figures beside it: `python scripts/index_results.py` (part of `make results`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from search.published import PUBLISHED

RESULTS: Final = Path(__file__).resolve().parent.parent / "results"
NETWORKS: Final = ("mobilenet_v1_050_160", "mobilenet_v1_075_192")
CONTESTS: Final = {
    "embedded/contest-cold": (
        "Search methods from nothing",
        (
            "Bytes at equal score count only the scores that a front reaches, and the fronts of some are short: read the"
            " hypervolume first. By bytes on `test` none but `random` is told apart from the others. The four of the JpegNN"
            " lab notebook (https://github.com/cucapra/JpegNN, rebuilt here) begin with fifteen sorted random tables and hardly improve on those. Its genetic algorithms"
            " have no mutation and one fitness number with one best point, so all fifteen become one table and they run out"
            " of new ones before the budget ends; averaging neighbours can only take differences away and ends the same"
            " way; steps of up to 7 in most entries at once make nearly every proposal worse, and its coin accepts them all"
            " the same. Selection by Pareto rank, small steps in few dimensions and a proper acceptance rule cure it."
        ),
    ),
    "embedded/contest-others": (
        "The other search methods from nothing, beside the genetic one",
        (
            "Half of the budget of the contest above. The Gaussian process has the largest hypervolume in every seed; by bytes on"
            " `test` it and the fireflies lead and are not told apart. `quasi-random` shows what spreading points evenly gives"
            " in 16 dimensions: worse than standard tables."
        ),
    ),
    "embedded/contest-published": (
        "Published tables and the closed form",
        "Every other crop; each method is a path of tables from many bytes to few, of which 33 points are taken.",
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
        (
            "Every second photo. From nothing 100 evaluations are too few for genetic and MCMC; sorted random tables look best"
            " of all by bytes on `search` and not on `test`. Around the closed form both methods gain 1 to 3"
            " points on `search` against the closed form alone, and nothing on `test` that these photos tell apart (the"
            " intervals of the single runs are in compare.json)."
        ),
    ),
}
HEAD: Final = """\
# Results

Each figure is the change of bytes at equal score (BD-rate, negative is smaller) against standard tables, where nothing
else is said, on photos that nothing was chosen on, with its paired 95% interval. Real files of libjpeg-turbo, same
sampling and entropy coding on both sides. "agreement" is the share of photos whose top answer stays what it is on the
uncompressed photo. The embedded task is for trying the tool (its crops show the same places in several ways, so its
intervals are too narrow); the other photos are 500 of ImageNet, shorter side at most 256, with one to three MobileNets.

`make results` remakes everything but the benchmarks (hours), `make bench` the benchmarks; `scripts/results.sh` has
the commands. Seeds are fixed; trainings with two threads (joint, fine-tune) still differ in the last bits of their
sums, and what grows from those: expect figures within the spread of the seeds. Minutes are about those of an idle
two-core x86_64 machine without GPU. The photos and networks are not ours to give: what is made from them needs
`../shared/data` (500 ImageNet photos, one for each even class index, as lossless WebP with a `labels.csv`; the ants
and bees) and `../shared/models` (MobileNetV1), and is left as it is where they are missing.

| question | answer | page | command | minutes |
|---|---|---|---|---|
"""
BENCHMARKS: Final = """
## Benchmarks

Each a ratio to the alternative, measured in the same run.

| question | answer | page | command | minutes |
|---|---|---|---|---|
"""
TAIL: Final = """
## Contests of search methods

Hypervolume is on `search` (octaves of bytes x score; larger is better), bytes at equal score on `test`; medians and ranges
over seeds. The same photos, budget and archive for all. On the embedded task where nothing else is said.
"""
Answer = Callable[[Any], str]


@dataclass(frozen=True)
class Row:
    """One experiment: its file of figures in results/, and what the index says of it; answer: figures -> a sentence."""

    file: str
    question: str
    answer: Answer
    command: str
    minutes: int
    page: str | None = None

    def line(self) -> str:
        figures = json.loads((RESULTS / self.file).read_text())
        shown = self.page or self.file
        kind = "picture" if shown.endswith(".png") else "figures" if shown.endswith(".json") else "page"
        return f"| {self.question} | {self.answer(figures)} | [{kind}]({shown}) | `{self.command}` | {self.minutes} |"


def rate(entry: Mapping[str, Any], key: str = "bd_rate") -> str:
    """-10.7% [-12.5%, -8.8%]."""
    low, high = entry[f"{key}_ci"]
    return f"{entry[key]:+.1%} [{low:+.1%}, {high:+.1%}]"


def tables(figures: Any) -> str:
    """What `qtable optimize` makes, and its lead over the best of `PUBLISHED` in each column."""
    parts, leads = [], []
    for metric, ours in (("top-1", "labels, run-aware"), ("agreement", "distillation, run-aware")):
        cells = [figures[f"{ours} | {network} | 4:2:0 optimized"][metric] for network in NETWORKS]
        parts.append(f"{metric} {' and '.join(map(rate, cells))}")
        for network, cell in zip(NETWORKS, cells, strict=True):
            known = (figures.get(f"{name} | {network} | 4:2:0 optimized") for name in PUBLISHED)
            leads.append(100 * (min(e[metric]["bd_rate"] for e in known if e is not None) - cell["bd_rate"]))
    lead = f"{min(leads):.1f} to {max(leads):.1f} points ahead of the best others in each column (not proved)"
    return f"`qtable optimize`: {'; '.join(parts)}; {lead}"


def samples(figures: Any) -> str:
    photos = figures["photos"]
    first, last = min(photos, key=int), max(photos, key=int)
    proved = [n for n in photos if photos[n]["free against smooth"]["bd_rate_ci"][1] < 0]
    few, many = (rate(photos[n]["free"]) for n in (first, last))
    smooth = f"first proved with {min(proved, key=int)}" if proved else "not proved with any number tried"
    return f"with {first} photos {few}, with {last} {many}; a free table better than a smooth one: {smooth}"


def task_aware(figures: Any) -> str:
    row = figures["rows"]["photo, MobileNet"]
    asked, sister, stranger = (rate(row[n]["agreement"]) for n in (*NETWORKS, "efficientnet_lite0"))
    return f"agreement {asked} by the network asked, {sister} and {stranger} by two that were not"


def transfer(figures: Any) -> str:
    parts = [f"another {what} {rate(entry['mean'])}" for what, entry in figures.items()]
    return f"against the tables made for it: {', '.join(parts)}"


def files(figures: Any) -> str:
    spread = figures["spread"]["22"]["measures"]
    second, coding = figures["second compression"], figures["entropy coding"]["found against standard"]
    return (
        f"at standard quality 22 the middle 90% of photos take {spread['5%']['value']:.2f} to"
        f" {spread['95%']['value']:.2f} times the bytes; photos stored at quality 75 before:"
        f" {rate(second['quality 75, statistics from the same photos'])} (never: {rate(second['never'])}); progressive"
        f" {rate(coding['progressive'])} (optimized: {rate(coding['optimized'])})"
    )


def joint(figures: Any) -> str:
    frozen, tuned = (figures["two by two"][f"against (standard, {which})"] for which in ("frozen", "fine-tuned"))
    one, two = "learned, fine-tuned, one table", "learned, fine-tuned"
    return (
        f"network and one table {rate(frozen[one])}, and two tables {rate(frozen[two])}; two tables alone"
        f" {rate(frozen['learned, frozen'])}, network alone {rate(frozen['standard, fine-tuned'])}; against standard tables"
        f" with a fine-tuned network: one {rate(tuned[one])}, two {rate(tuned[two])}"
    )


def fine_tune(figures: Any) -> str:
    frozen, tuned = (figures[f"against (standard, {which})"] for which in ("frozen", "fine-tuned"))
    both = "learned, fine-tuned"
    return (
        f"both {rate(frozen[both])}; tables alone {rate(frozen['learned, frozen'])}, network alone"
        f" {rate(frozen['standard, fine-tuned'])}; against standard tables with a fine-tuned network {rate(tuned[both])}"
    )


def trellis(figures: Any) -> str:
    rows = [figures["networks"][network] for network in NETWORKS]
    alone, both = (" and ".join(rate(r[f"{t}, mozjpeg"]) for r in rows) for t in ("standard", "found"))
    return f"mozjpeg with standard tables {alone}, with found ones {both}"


def layer(figures: Any) -> str:
    cpu = figures["devices"]["cpu"]
    equal = cpu["pixels_equal_to_libjpeg_turbo"]
    return (
        f"{cpu['times']['one thread']['ratio']:.1f} times faster on one thread; {equal['qtable']:.0%} of samples equal to"
        f" libjpeg-turbo's (kornia's {equal['kornia']:.0%})"
    )


EMBEDDED: Final = Row(
    "embedded/summary.json",
    "Closed form, embedded task, top-1",
    rate,
    "qtable optimize --max-drop 2%",
    2,
    "embedded/front.png",
)
ROWS: Final = (
    EMBEDDED,
    Row(
        "imagenet-sample/tables.json",
        "Closed forms, every refinement, and fourteen published or related tables, two networks",
        tables,
        "python -m benchmarks.tables",
        90,
        "imagenet-sample/README.md",
    ),
    Row(
        "task-aware/task-aware.json",
        "Files made by looking through a network, judged by it and by others, beside AVIF",
        task_aware,
        "python -m benchmarks.task_aware",
        60,
        "task-aware/README.md",
    ),
    Row(
        "joint/joint.json",
        "Tables and network trained together, embedded task: whose share is which",
        joint,
        "python -m benchmarks.joint",
        60,
        "joint/README.md",
    ),
    Row(
        "fine-tune/fine-tune.json",
        "The same for a small ImageNet network with 151 photos to train on, agreement",
        fine_tune,
        "python -m benchmarks.fine_tune",
        20,
        "fine-tune/README.md",
    ),
    Row(
        "samples/samples.json",
        "How many photos do tables need, and when does a free one beat a smooth one",
        samples,
        "python -m benchmarks.samples",
        15,
        "samples/README.md",
    ),
    Row(
        "transfer/transfer.json",
        "Do tables serve another network, photo size, chroma sampling",
        transfer,
        "python -m benchmarks.transfer",
        12,
        "transfer/README.md",
    ),
    Row(
        "files/files.json",
        "How is the saving spread over photos; second compression; entropy coding",
        files,
        "python -m benchmarks.files",
        15,
        "files/README.md",
    ),
    Row(
        "hymenoptera/hymenoptera.json",
        "Ants and bees: a network trained on 244 photos, 153 to measure on",
        lambda figures: (
            f"top-1 {rate(figures['top-1'])}, agreement {rate(figures['agreement'])}: too few photos to tell"
        ),
        "python -m benchmarks.hymenoptera",
        6,
        "hymenoptera/README.md",
    ),
    Row(
        "trellis/trellis.json",
        "Do tables and mozjpeg's trellis quantization add up",
        trellis,
        "python -m benchmarks.trellis",
        12,
        "trellis/README.md",
    ),
)
SPEED: Final = (
    Row(
        "layer/layer.json", "The JPEG layer against kornia's", layer, "python -m benchmarks.layer", 2, "layer/README.md"
    ),
    Row(
        "kernels/kernels.json",
        "Exact sizes without files against writing them; what a task-aware file costs",
        lambda f: (
            f"sizes {min(q['encode_to_size'] for q in f['qualities'].values()):.1f} to"
            f" {max(q['encode_to_size'] for q in f['qualities'].values()):.1f} times faster; a file"
            f" {f['looking through a network']['forward_passes']['whole file']:.1f} forward passes"
        ),
        "python -m benchmarks.kernels",
        2,
    ),
    Row(
        "rate/rate.json",
        "Seven rate estimates against real bytes over 200 table sets",
        lambda _: "run-length is the one that is right about shapes",
        "python -m benchmarks.rate",
        10,
        "rate/README.md",
    ),
    Row(
        "evaluate/evaluate.json",
        "Evaluating a table set, statistics and solving, beside inference",
        lambda f: (
            f"{f['evaluation_to_inference']:.2f} and {f['statistics_to_inference']:.1f} times inference; 30 points in"
            f" {f['solving_30_points_s']:.1f} s"
        ),
        "python -m benchmarks.evaluate",
        2,
    ),
    Row(
        "scale/scale.json",
        "Many photos: peak of memory above the model, and processor time a photo",
        lambda f: "; ".join(
            f"{r['photos']:,} of {r['size']} ({r['layout']}): {r['above_model_mb'] / 1000:.1f} GB,"
            f" {1000 * r['cpu_s'] / r['photos']:.0f} ms"
            for r in f["rows"]
        ),
        "python -m benchmarks.scale",
        120,
        "scale/README.md",
    ),
    Row(
        "cluster/cluster.json",
        "Evaluations per second of two worker processes against one",
        lambda f: f"{f['ratio']:.2f} times",
        "python -m benchmarks.cluster",
        3,
    ),
    Row(
        "compress/compress.json",
        "`qtable compress` against a bare Pillow loop, photos per second and core",
        lambda f: f"{f['ratio']:.2f} times",
        "python -m benchmarks.compress",
        1,
    ),
    Row(
        "startup/startup.json",
        "`qtable --help`, `--version`, `inspect`, `export`, `import` beside `import numpy`",
        lambda f: (
            f"at most {max(c['ratio'] for c in f['commands'].values()):.1f} times,"
            f" {max(c['core_s'] for c in f['commands'].values()):.2f} s of a core"
        ),
        "python -m benchmarks.startup",
        1,
    ),
)


def lines(rows: Sequence[Row]) -> str:
    return "".join(row.line() + "\n" for row in rows if (RESULTS / row.file).exists())


def contest(name: str) -> str:
    """A section: one line per method, the largest hypervolume first."""
    result: dict[str, Any] = json.loads((RESULTS / name / "compare.json").read_text())

    photos, count = result["photos"], len(result["seeds"])
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    brackets = "the range over the seeds" if count > 1 else "95% intervals over photos, of bytes on `test`"
    intervals = {run["name"]: run for run in result["runs"]} if count == 1 else {}

    def spread(values: dict[str, float | None], form: str) -> str:
        if values["median"] is None:
            return "-"
        median, low, high = (format(values[key], form) for key in ("median", "low", "high"))
        return f"{median} [{low}, {high}]" if count > 1 else median

    lines = [
        f"\n### {CONTESTS[name][0]}\n",
        (
            f"{photos['search']} search and {photos['test']} test photos, {seeds}. Brackets: {brackets}."
            f" [picture]({name}/compare.png)\n"
        ),
        f"{CONTESTS[name][1]}\n",
        "| method | evaluations spent | hypervolume (search) | bytes at equal score (test) | the same on search |",
        "|---|---|---|---|---|",
    ]
    for method in sorted(result["methods"], key=lambda m: -m["hypervolume"]["median"]):
        cells = [method["name"], f"{method['spent']:.0f}", spread(method["hypervolume"], ".3f")]
        for key in ("bd_rate", "bd_rate_search"):
            one = intervals.get(method["name"], {})
            cells.append(rate(one) if key == "bd_rate" and one.get(key) is not None else spread(method[key], "+.1%"))
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


def page() -> str:
    contests = [contest(name) for name in CONTESTS if (RESULTS / name / "compare.json").exists()]
    return HEAD + lines(ROWS) + BENCHMARKS + lines(SPEED) + TAIL + "".join(contests)


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(page(), encoding="utf-8")
