"""Which chroma sampling is better at which rate? 4:2:0 and 4:4:4, each with its own tables, on the same photos.

Halved chroma saves bytes at every rate; whether the model misses what it loses depends on the model and on the rate.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from qtable.codecs.plain import TableCoder
from qtable.files import write_atomically
from qtable.jpeg.codec import Codec, Entropy, Subsampling
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive, Record
from qtable.measure.front import Curve, Measured, bd_rate, interval, pareto, resamples, size_change
from qtable.measure.summary import QUALITIES, RESAMPLES, STANDARD, front_records, numbers
from qtable.photos.sets import ImageSet
from qtable.progress import Watch
from qtable.report import plot
from qtable.tasks.base import DifferentiableTask
from search.optimize import Plan, Tell, optimize, quiet

CANDIDATES: Final[tuple[Subsampling, ...]] = ("4:2:0", "4:4:4")


def folder_of(subsampling: Subsampling) -> str:
    """Where the run of one sampling lies in the folder of both."""
    return subsampling.replace(":", "")


def optimize_sampling(
    images: ImageSet,
    task: DifferentiableTask,
    entropy: Entropy,
    plan: Plan,
    out: Path,
    header: Mapping[str, Any],
    watch: Watch = lambda *_: None,
    tell: Tell = quiet,
) -> dict[str, Any]:
    """The main job for each of `CANDIDATES`, each with the plan's whole budget, and what is best over both.

    Returns what summary.json in `out` holds: bytes of both at the scores of the standard tables (4:2:0), and the front
    over both, chosen on `search` and measured on `test`. tell: see `optimize`; called once.
    """
    for subsampling in CANDIDATES:
        codec = Codec(subsampling, entropy)
        own = {**header, "identity": {**header["identity"], "codec": codec.to_dict()}}

        def renamed(stage: str, done: int, total: int, note: str, name: str = subsampling) -> None:
            watch(f"{name} {stage}", done, total, note)

        heard = tell if subsampling == CANDIDATES[0] else quiet
        summary = optimize(images, task, codec, plan, out / folder_of(subsampling), own, renamed, tell=heard)
        if summary["interrupted"]:
            raise KeyboardInterrupt
    archives = {s: Archive(out / folder_of(s) / "archive.jsonl") for s in CANDIDATES}
    result: dict[str, Any] = numbers(_compared(archives, task.metric, entropy, np.random.default_rng(plan.seed)))
    write_atomically(out / "summary.json", (json.dumps(result, indent=1) + "\n").encode())
    write_atomically(out / "front.png", _picture(result))
    return result


def _tested(archive: Archive) -> list[Record]:
    """The `test` records of the front that was chosen on `search`, by rising size on `search`."""
    found = (archive.find("test", record.score.coder) for record in front_records(archive))
    return [record for record in found if record is not None]


def _compared(
    archives: Mapping[Subsampling, Archive], metric: str, entropy: Entropy, rng: np.random.Generator
) -> dict[str, Any]:
    usual = archives["4:2:0"]
    standard = [TableCoder(QTables.standard(q), Codec("4:2:0", entropy)) for q in QUALITIES]
    baseline = [r for coder in standard if (r := usual.find("test", coder)) and r.origin == STANDARD]
    fronts = {s: _tested(archive) for s, archive in archives.items()}
    both = [(s, record) for s, archive in archives.items() for record in front_records(archive)]
    kept = [both[i] for i in pareto([r.score.bytes for _, r in both], [r.score.score for _, r in both])]
    joint = [(s, found) for s, r in kept if (found := archives[s].find("test", r.score.coder)) is not None]
    measured: dict[str, Measured] = {
        "standard": Measured.of([r.score for r in baseline]),
        **{s: Measured.of([r.score for r in records]) for s, records in fronts.items()},
        "both": Measured.of([r.score for _, r in joint]),
    }
    draws = resamples(len(baseline[0].score.photo_bytes), RESAMPLES, rng)
    curves = {name: m.curve() for name, m in measured.items()}
    drawn = {name: [m.curve(draw) for draw in draws] for name, m in measured.items()}

    def change(level: float) -> tuple[float, tuple[float, float]]:
        pairs = zip(drawn["4:2:0"], drawn["4:4:4"], strict=True)
        return size_change(curves["4:2:0"], curves["4:4:4"], level), interval(
            [size_change(a, b, level) for a, b in pairs]
        )

    levels = []
    for quality, size in zip(QUALITIES, measured["standard"].points()[0], strict=True):
        level = _score_at(curves["standard"], size)
        fraction, (low, high) = change(level)
        if np.isfinite(fraction):
            better = "4:4:4" if high < 0 else "4:2:0" if low > 0 else None
            row = {"quality": quality, "score": level, "change": fraction, "change_ci": (low, high), "better": better}
            levels.append(row | {s: float(np.exp(curves[s].log_size(level))) for s in CANDIDATES})

    def rate(name: str) -> dict[str, Any]:
        rates = [bd_rate(a, b) for a, b in zip(drawn["standard"], drawn[name], strict=True)]
        return {"bd_rate": bd_rate(curves["standard"], curves[name]), "bd_rate_ci": interval(rates)}

    def points(name: str) -> list[dict[str, float]]:
        return [{"bytes": float(b), "score": float(s)} for b, s in zip(*measured[name].points(), strict=True)]

    return {
        "metric": metric,
        "n_test": len(baseline[0].score.photo_bytes),
        **rate("both"),
        "samplings": {s: rate(s) | {"points": points(s)} for s in CANDIDATES},
        "baseline": [{"quality": q, **p} for q, p in zip(QUALITIES, points("standard"), strict=True)],
        "levels": levels,
        "front": [
            {"subsampling": s, "tables": record.score.tables.to_dict()["values"], **point}
            for (s, record), point in zip(joint, points("both"), strict=True)
        ],
    }


def _score_at(curve: Curve, size: float) -> float:
    return float(np.interp(np.log(size), curve.log_sizes, curve.scores))


def _picture(result: Mapping[str, Any]) -> bytes:
    figure, axes = plot.new_axes()
    plot.front(axes, result["baseline"], "standard tables, 4:2:0", plot.STANDARD_COLOUR, marker="s", names=True)
    for i, (name, marker) in enumerate(zip(CANDIDATES, "o^", strict=True)):
        plot.front(axes, result["samplings"][name]["points"], f"found tables, {name}", plot.COLOURS[i], marker=marker)
    axes.set_ylabel(f"{result['metric']} (%)")
    axes.legend(loc="lower right")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Which sampling wins at each rate, for people: one line per stretch of standard qualities."""
    lines: list[str] = []
    stretch: list[Mapping[str, Any]] = []
    for row in [*reversed(result["levels"]), None]:
        if stretch and (row is None or row["better"] != stretch[0]["better"]):
            first, last = stretch[0], stretch[-1]
            where = f"q{first['quality']}" + (f" to q{last['quality']}" if last is not first else "")
            changes = sorted(r["change"] for r in stretch)
            spread = f"{changes[0]:+.1%}" + (f" to {changes[-1]:+.1%}" if last is not first else "")
            verdict = f"{first['better']} is smaller" if first["better"] else "no difference is proved"
            lines.append(f"at the accuracy of standard {where}: {verdict} (4:4:4 against 4:2:0: {spread} bytes)")
            stretch = []
        if row is not None:
            stretch.append(row)
    return lines or ["no score is reached by both samplings; raise --budget"]
