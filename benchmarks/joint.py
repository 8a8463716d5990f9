"""What training tables and network together brings, and how much of it is which: `python -m benchmarks.joint`.

On the embedded task: tables x fine-tuning as a 2 x 2 with equal budgets and three seeds; a family of operating points
for one network against a run per point; starts, rate proxies, and networks trained at one quality and tested at
another. Every figure is of real files of the test crops. Runs are kept in runs/joint, so an interrupted benchmark
continues. `--page` writes the page and the picture anew from joint.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.study import Curves, averaged, curves_of, run_study, text, weights, write_page
from qtable.jpeg.codec import Codec
from qtable.jpeg.header import read_header
from qtable.jpeg.proxies import PROXIES
from qtable.jpeg.tables import ZIGZAG, QTables
from qtable.measure.front import Curve, interval, size_change
from qtable.measure.summary import QUALITIES
from qtable.photos.sets import ImageSet
from qtable.report import plot
from qtable.tasks.opening import TaskSpec
from qtable.train.recipe import Learn, Recipe
from qtable.train.run import train
from qtable.train.validation import validate
from search.joint import Family, finish, learn
from search.methods import Setting

RUNS: Final = Path("runs/joint")
OUT: Final = Path("results/joint")
SEEDS: Final = (0, 1, 2)
FAMILY: Final = Family(points=5, largest=50, smallest=6)
RECIPE: Final = Recipe(steps=400, batch=60, table_rate=0.02, patience=2)
SHORT: Final = replace(RECIPE, steps=120, every=60)
GRID: Final = (8, 15, 30, 60)
"""Qualities at which networks are trained and tested."""
Cell = tuple[Learn, str, int]
CELLS: Final[dict[str, Cell]] = {
    "standard, fine-tuned": ("network", "standard", 2),
    "learned, fine-tuned, one table": ("both", "closed-form", 1),
    "learned, fine-tuned": ("both", "closed-form", 2),
    "learned, frozen": ("tables", "closed-form", 2),
}
"""Of the 2 x 2: what learns, where tables start, and how many there are. (standard, frozen) needs no training."""

Array = np.ndarray[Any, np.dtype[np.float64]]


@cache
def images() -> ImageSet:
    return ImageSet.open()


def run(name: str, family: Family, recipe: Recipe, count: int = 2) -> dict[str, Any]:
    """The summary of one training on the embedded task in runs/joint/`name`, made if it is not there."""
    return trained_in(RUNS / name, images(), None, "top-1", family, recipe, count)


def trained_in(
    out: Path, images: ImageSet, model: str | None, metric: str, family: Family, recipe: Recipe, count: int
) -> dict[str, Any]:
    """The summary of one training in `out`, made if it is not there."""
    if (out / "summary.json").exists():
        return dict(json.loads((out / "summary.json").read_text()))
    out.mkdir(parents=True, exist_ok=True)
    task = TaskSpec(model, metric).open()
    rng = np.random.default_rng(recipe.seed)
    setting = Setting(count, rng, images.fit, task, Codec(), out.parent / "statistics.npz", family.start)
    summary = learn(images, setting, family, recipe, out, {"identity": {}})
    print(f"{out.name}: {summary['bd_rate']:+.1%} against standard tables and the untrained network", flush=True)
    return summary


# ---- comparisons ----------------------------------------------------------------------------------------------


def curves(run: Path, which: str = "trained") -> Curves:
    """Of the points in the folder `run`; which: "trained", or "standard" (frozen) that they are tested with."""
    with np.load(run / "test.npz") as data:
        return curves_of(data[f"{which}_bytes"], data[f"{which}_right"])


def two_by_two(
    runs: Path, cells: Mapping[str, Cell], made: Callable[[Path, Cell, int], dict[str, Any]]
) -> dict[str, Any]:
    """Tables x fine-tuning with equal budgets: each of `cells` trained in a folder of `runs` with each seed."""
    summaries = {name: [made(folder(runs, name, s), cell, s) for s in SEEDS] for name, cell in cells.items()}
    frozen = [curves(folder(runs, "learned, frozen", 0), "standard")] * len(SEEDS)
    found = {name: [curves(folder(runs, name, seed)) for seed in SEEDS] for name in cells}
    tuned = found["standard, fine-tuned"]
    return {
        "against (standard, frozen)": {name: averaged(frozen, each) for name, each in found.items()},
        "against (standard, fine-tuned)": {
            name: averaged(tuned, each) for name, each in found.items() if name.startswith("learned, fine-tuned")
        },
        "added to learned tables by fine-tuning": averaged(found["learned, frozen"], found["learned, fine-tuned"]),
        "baseline": summaries["learned, frozen"][0]["baseline"],
        "points": {name: [s["points"] for s in each] for name, each in summaries.items()},
    }


def folder(runs: Path, cell: str, seed: int) -> Path:
    return runs / f"{cell.replace(', ', '-').replace(' ', '-')}-{seed}"


def embedded(out: Path, cell: Cell, seed: int) -> dict[str, Any]:
    """One training of the 2 x 2 on the embedded task."""
    learns, start, count = cell
    return run(out.name, replace(FAMILY, start=start), replace(RECIPE, learn=learns, seed=seed), count)


def scans_alone() -> dict[str, Any]:
    """The 2 x 2 without headers: what remains of a comparison where photos are so large that headers hardly count."""
    anchor = [_scan_curves(RUNS / "learned-frozen-0", "standard", [QTables.standard(q) for q in QUALITIES])] * len(
        SEEDS
    )
    rows: dict[str, Any] = {}
    for cell in CELLS:
        found = []
        for out in (folder(RUNS, cell, seed) for seed in SEEDS):
            tables = [QTables.load(file) for file in sorted((out / "tables").glob("*.json"))]
            found.append(_scan_curves(out, "trained", tables))
        rows[cell] = averaged(anchor, found)
    return rows


def _scan_curves(run: Path, which: str, tables: Sequence[QTables]) -> Curves:
    """As `curves`, with the bytes of the files' scans in the place of the whole files'."""
    with np.load(run / "test.npz") as data:
        right, whole = data[f"{which}_right"], data[f"{which}_bytes"]
    files = [[Codec().encode(image, t) for image in images().test.images] for t in tables]
    if not np.array_equal(whole, [[len(file) for file in row] for row in files]):
        raise ValueError(f"{run}: its tables are not those that were tested")
    sizes = np.array([[read_header(file).scan_bytes for file in row] for row in files])
    return curves_of(sizes, right)


def family_against_runs() -> dict[str, Any]:
    """One run for all points against a run for each with as many steps and its own share of each batch.

    Of each run alone: what the family needs at its score, against what the runs need there; where no point of the
    family has that score, at the nearest that one has.
    """
    whole = run("learned-fine-tuned-0", FAMILY, replace(RECIPE, seed=0))
    multipliers = [p["multiplier"] for p in whole["points"]]
    starts = [QTables(np.array(t)) for t in whole["history"][0]["tables"]]
    sizes, right = zip(
        *(_alone(i, *point) for i, point in enumerate(zip(starts, multipliers, strict=True))), strict=True
    )
    together = curves(RUNS / "learned-fine-tuned-0")
    apart = curves_of(sizes, right)
    rows = []
    for i, multiplier in enumerate(multipliers):
        scores = weights(len(right[i])) @ right[i]
        levels = [reached(*each) for each in zip(scores, apart, together, strict=True)]
        changes = [size_change(a, b, level) for a, b, level in zip(apart, together, levels, strict=True)]
        rows.append(
            {
                "multiplier": multiplier,
                "alone": {"bytes": float(sizes[i].mean()), "score": float(right[i].mean())},
                "family": {k: whole["points"][i][k] for k in ("bytes", "score")},
                "at": levels[0],
                "change": changes[0],
                "ci": interval(changes[1:]),
            }
        )
    return {"points": rows, "bd_rate": averaged([apart], [together])}


def reached(score: float, one: Curve, other: Curve) -> float:
    """The score nearest to `score` that both curves have."""
    low, high = max(one.scores[0], other.scores[0]), min(one.scores[-1], other.scores[-1])
    return float(np.clip(score, low, high))


def _alone(index: int, start: QTables, multiplier: float) -> tuple[Array, Array]:
    """Bytes and hits, float64 [n], of the test crops under the tables and network of one operating point's own run."""
    out = RUNS / f"alone-{index}"
    if not (out / "summary.json").exists():
        recipe = replace(RECIPE, batch=RECIPE.batch // FAMILY.points)
        task = TaskSpec().open()
        trained = train(task, [start], [multiplier], images(), Codec(), recipe, out, {})
        finish(task, trained, [multiplier], images(), Codec(), out, {})
    with np.load(out / "test.npz") as data:
        return data["trained_bytes"][0].astype(np.float64), data["trained_right"][0].astype(np.float64)


def starts() -> dict[str, Any]:
    """Tables alone, a short run from closed form, from standard and from random tables."""
    result = {}
    for start in ("closed-form", "standard", "random"):
        name, recipe = f"start-{start}", replace(SHORT, learn="tables")
        summary = run(name, replace(FAMILY, start=start, points=4), recipe)
        result[start] = {
            **averaged([curves(RUNS / name, "standard")], [curves(RUNS / name)]),
            "validated": [v["objective"] for v in summary["history"]],
        }
    return result


def proxies() -> dict[str, Any]:
    """Tables alone, the same short run with each rate proxy, from standard tables."""
    result = {}
    for proxy in PROXIES:
        name = f"proxy-{proxy.replace('/', '-').replace(' ', '-')}"
        summary = run(name, replace(FAMILY, start="standard", points=4), replace(SHORT, learn="tables", rate=proxy))
        last = summary["history"][-1]
        errors = [e / b - 1 for e, b in zip(last["estimated_bytes"], last["bytes"], strict=True)]
        result[proxy] = {**averaged([curves(RUNS / name, "standard")], [curves(RUNS / name)]), "estimate_error": errors}
    return result


def train_test_grid() -> dict[str, Any]:
    """Top-1 at each test quality of the network as it is and of networks fine-tuned at one quality each."""
    test = [QTables.standard(q) for q in GRID]
    rows: dict[str, list[float]] = {}
    task = TaskSpec().open()
    rows["not fine-tuned"] = [s.score for s in validate(task, task.model, test, images().test, Codec())]
    for quality in GRID:
        recipe = replace(SHORT, learn="network", batch=40)
        out = RUNS / f"quality-{quality}"
        cache_ = out / "grid.json"
        if not cache_.exists():
            trained = train(task, [QTables.standard(quality)], [0.0], images(), Codec(), recipe, out, {})
            scores = validate(task, trained.network, test, images().test, Codec())
            cache_.write_text(json.dumps([s.score for s in scores]))
        rows[f"at quality {quality}"] = json.loads(cache_.read_text())
    return {"qualities": list(GRID), "top-1": rows}


def growth() -> dict[str, Any]:
    """Which frequencies grow first: log2 of luma steps against the start, by zigzag band, at each validation."""
    history = run("learned-fine-tuned-0", FAMILY, replace(RECIPE, seed=0))["history"]
    middle = FAMILY.points // 2
    tables = np.array([v["tables"][middle][0] for v in history], float).reshape(len(history), 64)[:, ZIGZAG]
    change = np.log2(tables / tables[0])
    bands = ((0, 1), (1, 6), (6, 15), (15, 28), (28, 64))
    return {
        "steps": [v["step"] for v in history],
        "bands": [f"{a}..{b - 1}" for a, b in bands],
        "log2_change": [[float(row[a:b].mean()) for a, b in bands] for row in change],
    }


def study() -> dict[str, Any]:
    torch.set_num_threads(2)  # sums depend on it in their last bits
    return {
        "two by two": two_by_two(RUNS, CELLS, embedded),
        "scans alone": scans_alone(),
        "family against runs": family_against_runs(),
        "starts": starts(),
        "proxies": proxies(),
        "train and test qualities": train_test_grid(),
        "growth": growth(),
    }


# ---- the page -------------------------------------------------------------------------------------------------


def picture(found: Mapping[str, Any], out: Path, metric: str, title: str) -> None:
    """The fronts of the 2 x 2, seed 0."""
    figure, axes = plot.new_axes()
    plot.front(axes, found["baseline"], "standard, frozen", plot.STANDARD_COLOUR, "s")
    for i, (cell, points) in enumerate(found["points"].items()):
        plot.front(axes, points[0], cell, plot.COLOURS[i], "o^Dv"[i])
    axes.set_ylabel(f"{metric} (%)")
    axes.set_xlim(right=1.1 * max(point["bytes"] for points in found["points"].values() for point in points[0]))
    axes.set_title(f"tables x fine-tuning, {title}", fontsize=10)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(out / "two-by-two.png")


def page(found: dict[str, Any]) -> None:
    lines = [
        "# Tables and network, trained together",
        "",
        "The embedded task, 840 test crops that no training saw, real files of libjpeg-turbo (4:2:0, optimized",
        "Huffman tables, headers counted). `python -m benchmarks.joint` remakes this page.",
        f"Every training: {RECIPE.steps} steps of {RECIPE.batch} crops ({SHORT.steps} where it says short), one",
        f"network for {FAMILY.points} operating points, distilled from the untrained network's answers on the",
        "uncompressed crops, validated on `search`. Change of bytes at equal top-1 (BD-rate), mean over the seeds,",
        "with 95% paired intervals over the crops; these crops show the same places in up to six ways, so the",
        "intervals are too narrow.",
        "",
        *two_by_two_lines(found["two by two"]),
        "",
        "## The same without headers",
        "",
    ]
    lines += ["Bytes of the scans alone: nearer to what larger photos would show, where tables and Huffman tables"]
    lines += ["take no third of the file.", "", "| | against (standard, frozen) |", "|---|---|"]
    lines += [f"| ({cell}) | {text(entry)} |" for cell, entry in found["scans alone"].items()]
    lines += ["", "## One network for all points against one for each", ""]
    lines += ["Each run alone has as many steps, with the share of each batch that its point has in the family.", ""]
    lines += ["| multiplier | alone | in the family | at top-1 of | bytes of the family against the runs alone |"]
    lines += ["|---" * 5 + "|"]
    for row in found["family against runs"]["points"]:
        alone, family, (low, high) = row["alone"], row["family"], row["ci"]
        lines.append(
            f"| {row['multiplier']:.2f} | {alone['bytes']:.0f} B, {alone['score']:.1%} | {family['bytes']:.0f} B,"
            f" {family['score']:.1%} | {row['at']:.1%} | {row['change']:+.1%} [{low:+.1%}, {high:+.1%}] |"
        )
    lines += ["", f"Over the whole range (BD-rate): {text(found['family against runs']['bd_rate'])}.", ""]
    lines += ["## Where tables start (tables alone, short)", "", "| start | against standard tables |", "|---|---|"]
    lines += [f"| {name} | {text(entry)} |" for name, entry in found["starts"].items()]
    lines += ["", "## Rate proxies side by side (tables alone, from standard tables, short)", ""]
    lines += ["| proxy | against standard tables | its estimate of the bytes, against files |", "|---" * 3 + "|"]
    for name, entry in found["proxies"].items():
        errors = ", ".join(f"{e:+.1%}" for e in entry["estimate_error"])
        lines.append(f"| {name} | {text(entry)} | {errors} |")
    grid = found["train and test qualities"]
    lines += ["", "## Trained at one quality, tested at another (standard tables, top-1, short)", ""]
    lines += ["| network | " + " | ".join(f"quality {q}" for q in grid["qualities"]) + " |"]
    lines += ["|---" * (1 + len(grid["qualities"])) + "|"]
    lines += [f"| {n} | " + " | ".join(f"{x:.1%}" for x in row) + " |" for n, row in grid["top-1"].items()]
    rows = found["growth"]
    lines += ["", "## Which frequencies grow first", ""]
    lines += ["log2 of the luma steps against their start, by place along the zigzag, middle point, seed 0.", ""]
    lines += ["| step | " + " | ".join(rows["bands"]) + " |", "|---" * (1 + len(rows["bands"])) + "|"]
    for step, row in zip(rows["steps"], rows["log2_change"], strict=True):
        lines.append(f"| {step} | " + " | ".join(f"{x:+.2f}" for x in row) + " |")
    write_page(OUT, lines)
    picture(found["two by two"], OUT, "top-1 accuracy", "embedded task, test crops, seed 0")


def two_by_two_lines(found: Mapping[str, Any]) -> list[str]:
    """The 2 x 2 on a page."""
    lines = [
        "## Tables x fine-tuning",
        "",
        "![fronts](two-by-two.png)",
        "",
        "(tables, network); in the literature's words the first column compares with original-compressed, and",
        "fine-tuned means compressed-compressed.",
        "",
        "| | against (standard, frozen) | each seed | against (standard, fine-tuned) | each seed |",
        "|---" * 5 + "|",
    ]
    for cell, entry in found["against (standard, frozen)"].items():
        other = found["against (standard, fine-tuned)"].get(cell)
        cells = [text(entry), seeds(entry), text(other), seeds(other) if other else "-"]
        lines.append(f"| ({cell}) | " + " | ".join(cells) + " |")
    added = found["added to learned tables by fine-tuning"]
    return [*lines, "", f"(learned, fine-tuned) against (learned, frozen): {text(added)}; each seed {seeds(added)}."]


def seeds(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{x:+.1%}" for x in entry["seeds"])


if __name__ == "__main__":
    run_study(OUT / "joint.json", RUNS, study, page, needs=None)
