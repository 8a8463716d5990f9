"""The main job: photos and a model in, a run folder with tested tables out.

The run folder: archive.jsonl (every evaluation), front.csv, front.png, tables/NNN.json and NNN.txt (for cjpeg),
summary.json. The front is chosen on `search` alone; everything that is reported is measured on `test`.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from qtable import plot
from qtable.archive import Archive, Record
from qtable.codec import Codec
from qtable.data import ImageSet, Photos, Split
from qtable.evaluate import Evaluating, Evaluator, Score
from qtable.export import to_cjpeg
from qtable.files import write_atomically
from qtable.front import Curve, Measured, bd_rate, hypervolume, interval, pareto, resamples, size_change
from qtable.noninferiority import Change, last_non_inferior, photos_needed
from qtable.sensitivity import Sensitivity
from qtable.sensitivity import measure as measure_here
from qtable.tables import QTables
from qtable.task import DifferentiableTask, Outcomes, Task
from search.methods import METHODS, Setting, needs_gradients
from search.racing import Racing, rungs, shuffled
from search.run import Measure, Measuring, search

QUALITIES: Final = (5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 70, 75, 80, 85, 90, 95)
"""The standard tables that everything is compared with."""
RESAMPLES: Final = 1000
STANDARD: Final = "standard"
"""The origin of baseline records."""

Watch = Callable[[str, int, int, str], None]
"""Called as work goes on with (stage, done, total, a word on the best so far)."""
MakeEvaluator = Callable[[Split, Photos], Evaluating]
"""Makes the evaluator of a split, whose photos these are."""


@dataclass(frozen=True)
class Workforce:
    """Who does the work: makes evaluators, measures statistics, and takes `at_once` tables side by side."""

    evaluator: MakeEvaluator
    measure: Callable[..., Sensitivity] = measure_here
    at_once: int = 1


class NothingFound(ValueError):
    """No candidate was scored on all photos."""


@dataclass(frozen=True)
class Plan:
    """What to do: the method (a key of METHODS), its budget in evaluations on `search`, number of tables, and seed.

    max_drop: also pick the smallest tables whose score is at most this much (a fraction) below the uncompressed
    photos', with 95% confidence. start: see `Setting`. racing: candidates may be dropped after a part of the photos,
    and the budget counts what was looked at.
    """

    method: str = "closed-form"
    budget: int = 40
    count: int = 2
    seed: int = 0
    max_drop: float | None = None
    start: str | None = None
    racing: bool = False

    def __post_init__(self) -> None:
        if self.max_drop is not None and not 0 < self.max_drop < 1:
            raise ValueError(f"max drop {self.max_drop:.3%}; allowed: above 0% and below 100%")
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is unknown; allowed: {', '.join(METHODS)}")
        if self.budget < 1:
            raise ValueError(f"budget {self.budget}; allowed: 1 evaluation or more")
        if not 1 <= self.count <= 3:
            raise ValueError(f"{self.count} tables; allowed: 1, 2 or 3")


def optimize(
    images: ImageSet,
    task: DifferentiableTask,
    codec: Codec,
    plan: Plan,
    out: Path,
    header: Mapping[str, Any],
    watch: Watch = lambda *_: None,
    workforce: Workforce | None = None,
    known: Path | None = None,
) -> dict[str, Any]:
    """Run the main job in folder `out`, or continue it there; returns what summary.json holds.

    header: the archive's first line; its "identity" guards against continuing another run. workforce: by default this
    process. known: the folder of a run on the same photos and model, from which a new run takes the standard tables'
    scores and the statistics.

    Ctrl-C ends the search, and what was found by then is tested and written ("interrupted": true); a second Ctrl-C
    stops at once.
    """
    workforce = workforce or Workforce(lambda _, photos: Evaluator(photos, task, codec))
    _make_folder(out)
    if needs_gradients(plan.method, plan.start) and not (out / "statistics.npz").exists():
        measure_here(images.fit.subset([0]), task, codec)  # refuses a model without gradients before long work begins
    with ExitStack() as stack:
        parts = rungs(shuffled(images.search)) if plan.racing else [images.search]
        on_search = [stack.enter_context(workforce.evaluator("search", photos)) for photos in parts]
        on_test = stack.enter_context(workforce.evaluator("test", images.test))
        archive = stack.enter_context(Archive(out / "archive.jsonl", _with_answers(header, on_search)))
        statistics = out / "statistics.npz"
        if not len(archive):
            statistics.unlink(missing_ok=True)  # another run's
            if known is not None:
                _take_over(known, out, archive)
        race = Racing(on_search, archive, task)
        measure: Measure = race if plan.racing else Measuring(on_search[0], "search", archive, workforce.at_once)
        interrupted = False
        try:
            _standard(race.full, "search", watch)
            setting = Setting(
                count=plan.count,
                rng=np.random.default_rng(plan.seed),
                fit=images.fit,
                task=task,
                codec=codec,
                statistics=statistics,
                start=plan.start,
                measure=workforce.measure,
                progress=lambda done, total: watch("sensitivity on fit", done, total, ""),
            )
            space, searcher = METHODS[plan.method](setting)
            search(space, searcher, measure, plan.budget, plan.method, _best_so_far(archive, plan.budget, watch))
        except KeyboardInterrupt:
            interrupted = True
        chosen = front_records(archive)
        if not chosen and interrupted:
            raise KeyboardInterrupt
        if not chosen:
            raise NothingFound(f"all {len(archive.partial('search'))} candidates lost their race; raise --budget")
        test = Measuring(on_test, "test", archive)
        baseline = _standard(test, "test", watch)
        found = []
        for done, record in enumerate(chosen, start=1):
            found.append(test(record.score.tables, record.origin))
            watch("testing the front", done, len(chosen), "")
        summary = summarize(archive, baseline, found, images, task, codec, np.random.default_rng(plan.seed))
        clean = on_test.clean()
        summary["clean"] = task.score(clean)
        if plan.max_drop is not None:
            summary["max_drop"] = pick(baseline, found, clean, task, plan.max_drop)
        tried = [r for r in archive if r.split == "search" and r.origin != STANDARD]
        spent = sum(len(r.score.photo_bytes) for r in tried) / len(images.search)
        summary |= {"evaluations": len(tried), "spent": spent, "interrupted": interrupted}
        _write(out, summary, found)
        return summary


def _with_answers(header: Mapping[str, Any], evaluators: Sequence[Evaluating]) -> dict[str, Any]:
    """The header with the model's answers in its identity: a changed model file is another run."""
    answers = "-".join(e.fingerprint for e in evaluators)
    return {**header, "identity": {**header["identity"], "answers": answers}}


def _take_over(known: Path, out: Path, archive: Archive) -> None:
    if (known / "statistics.npz").exists():
        shutil.copy(known / "statistics.npz", out / "statistics.npz")
    for record in Archive(known / "archive.jsonl"):
        if record.origin == STANDARD:
            archive.append(record)


def _standard(measure: Callable[[QTables, str], Score], split: Split, watch: Watch) -> list[Score]:
    scores = []
    for done, quality in enumerate(QUALITIES, start=1):
        scores.append(measure(QTables.standard(quality), STANDARD))
        watch(f"standard tables on {split}", done, len(QUALITIES), "")
    return scores


def front_records(archive: Archive, split: Split = "search") -> list[Record]:
    """The nondominated records of a split, standard tables left out, by rising size."""
    records = archive.records(split, without=STANDARD)
    if not records:
        return []
    return [records[i] for i in pareto([r.score.bytes for r in records], [r.score.score for r in records])]


def _curve(scores: Sequence[Score]) -> Curve:
    return Curve.fit([s.bytes for s in scores], [s.score for s in scores])


def _best_so_far(archive: Archive, budget: int, watch: Watch) -> Callable[[float, Score], None]:
    standard = _curve([r.score for r in archive.records("search") if r.origin == STANDARD])

    def report(spent: float, _: Score) -> None:
        front = [r.score for r in front_records(archive)]
        change = bd_rate(standard, _curve(front)) if front else float("nan")
        watch(
            "search",
            int(spent),
            budget,
            f"front so far {change:+.1%} bytes (search photos)" if np.isfinite(change) else "",
        )

    return report


def summarize(
    archive: Archive,
    baseline: Sequence[Score],
    found: Sequence[Score],
    images: ImageSet,
    task: DifferentiableTask,
    codec: Codec,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Everything that is claimed, measured on `test` with paired bootstrap intervals (95%, photos resampled)."""
    standard, ours = Measured.of(baseline, task.score), Measured.of(found, task.score)
    photos = len(images.test)
    draws = resamples(photos, RESAMPLES, rng)
    curves = standard.curve(), ours.curve()
    points = [(standard.points(draw), ours.points(draw)) for draw in draws]
    drawn = [(Curve.fit(*a), Curve.fit(*b)) for a, b in points]

    def entry(score: Score, side: int, index: int) -> dict[str, Any]:
        return {
            "bytes": score.bytes,
            "score": score.score,
            "bytes_ci": interval([p[side][0][index] for p in points]),
            "score_ci": interval([p[side][1][index] for p in points]),
        }

    savings = []
    for i, quality in enumerate(QUALITIES):
        log_size = np.log(standard.sizes[i].mean())
        level = float(np.interp(log_size, curves[0].log_sizes, curves[0].scores))
        change = size_change(*curves, level)
        if not np.isfinite(change):
            continue
        resampled = [
            size_change(a, b, float(np.interp(np.log(p[0][0][i]), a.log_sizes, a.scores)))
            for (a, b), p in zip(drawn, points, strict=True)
        ]
        use = _smallest_as_good(archive, quality)
        savings.append(
            {"quality": quality, "score": level, "change": change, "change_ci": interval(resampled), "use": use}
        )
    on_search = [record.score for record in front_records(archive)]
    summary = {
        "metric": task.metric,
        "codec": codec.to_dict(),
        "n_fit": len(images.fit),
        "n_search": len(images.search),
        "n_test": photos,
        "baseline": [
            {"quality": q, **entry(s, 0, i)} for i, (q, s) in enumerate(zip(QUALITIES, baseline, strict=True))
        ],
        "front": [{"tables": f"tables/{i + 1:03d}.json", **entry(s, 1, i)} for i, s in enumerate(found)],
        "bd_rate": bd_rate(*curves),
        "bd_rate_ci": interval([bd_rate(a, b) for a, b in drawn]),
        "bd_rate_search": bd_rate(
            _curve([r.score for r in archive.records("search") if r.origin == STANDARD]), _curve(on_search)
        ),
        "hypervolume": {
            name: hypervolume(*measured.points(), worst_size=float(standard.sizes.mean(axis=1).max()))
            for name, measured in (("baseline", standard), ("front", ours))
        },
        "savings": savings,
    }
    return dict(numbers(summary))


def numbers(value: Any) -> Any:
    """The same nested value with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [numbers(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def pick(
    baseline: Sequence[Score], found: Sequence[Score], clean: Outcomes, task: Task, max_drop: float
) -> dict[str, Any]:
    """The smallest found and the smallest standard tables proved to lose at most `max_drop` (see `noninferiority`).

    Both lists by rising size on `search` (standard ones by quality): each is tested from the largest down, an order
    that the test photos did not choose. ValueError for metrics that are no share of right answers.
    """

    def smallest(scores: Sequence[Score], names: Sequence[str]) -> tuple[dict[str, Any] | None, int | None]:
        before = task.right(clean)
        rows = [task.right(score.outcomes) for score in scores]
        if before is None or any(row is None for row in rows):
            raise ValueError(f"--max-drop needs a metric that counts right answers, not {task.metric}")
        changes = [Change.between(before, row) for row in rows if row is not None][::-1]
        last = last_non_inferior(changes, max_drop)
        if last is None:
            return None, photos_needed(changes[0], max_drop)
        at = len(scores) - 1 - last
        chosen = {"tables": names[at], "bytes": scores[at].bytes, "score": scores[at].score, "drop": changes[last].drop}
        return chosen, None

    ours, needed = smallest(found, [f"tables/{i + 1:03d}.json" for i in range(len(found))])
    standard, _ = smallest(baseline, [f"quality:{q}" for q in QUALITIES])
    return {"max_drop": max_drop, "found": ours, "standard": standard, "photos_needed": needed}


def max_drop_sentence(picked: Mapping[str, Any], photos: int) -> str:
    """What `pick` found, for people."""
    limit = f"{100 * picked['max_drop']:g} points"
    ours, standard = picked["found"], picked["standard"]
    if ours is None:
        needed = picked["photos_needed"]
        count = f"about {needed:,} test photos would be needed" if needed else "the tables found lose more than that"
        return f"No tables are proved to lose at most {limit} with {photos} test photos; {count}."
    against = (
        f"{percent(ours['bytes'] / standard['bytes'] - 1)} against the smallest standard tables that pass"
        f" ({standard['tables']}, {standard['bytes']:,.0f} bytes)"
        if standard
        else "no standard tables pass"
    )
    return (
        f"{ours['tables']} loses at most {limit} against the uncompressed photos with 95% confidence"
        f" (measured {100 * ours['drop']:+.1f}): {ours['bytes']:,.0f} bytes, {against}."
    )


def _smallest_as_good(archive: Archive, quality: int) -> str | None:
    """The file of the smallest front tables that score at least as well as standard `quality`, judged on `search`."""
    standard = archive.find("search", QTables.standard(quality))
    for i, record in enumerate(front_records(archive)):
        if standard is not None and record.score.score >= standard.score.score:
            return f"tables/{i + 1:03d}.json"
    return None


def percent(fraction: float | None) -> str:
    """For people: +1.2%, or "unknown" for None and NaN."""
    return "unknown" if fraction is None or not np.isfinite(fraction) else f"{fraction:+.1%}"


def three_savings(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the standard qualities that the found front reaches those nearest to 75, 50 and 20 (fewer if it is short).

    None if the fronts have no range of scores in common: a flat curve has no size of its own.
    """
    rows = list(summary["savings"]) if summary["bd_rate"] is not None else []
    nearest = (
        {min(range(len(rows)), key=lambda i: abs(rows[i]["quality"] - q)) for q in (75, 50, 20)} if rows else set()
    )
    return [rows[i] for i in sorted(nearest, reverse=True)]


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(f"{out} is a file, not a run folder; choose another --out") from None


def _write(out: Path, summary: Mapping[str, Any], found: Sequence[Score]) -> None:
    folder = out / "tables"
    folder.mkdir(exist_ok=True)
    for i, score in enumerate(found, start=1):
        score.tables.save(folder / f"{i:03d}.json")
        write_atomically(folder / f"{i:03d}.txt", to_cjpeg(score.tables).encode())
    for stale in [*folder.glob("[0-9][0-9][0-9].json"), *folder.glob("[0-9][0-9][0-9].txt")]:
        if int(stale.stem) > len(found):
            stale.unlink()
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["tables", "bytes", "bytes_low", "bytes_high", "score", "score_low", "score_high"])
    for kind, name in (("baseline", "quality"), ("front", "tables")):
        for p in summary[kind]:
            label = f"quality:{p[name]}" if kind == "baseline" else p[name]
            writer.writerow([label, p["bytes"], *p["bytes_ci"], p["score"], *p["score_ci"]])
    write_atomically(out / "front.csv", rows.getvalue().encode())
    figure, axes = plot.new_axes()
    plot.front(axes, summary["baseline"], "standard tables", plot.STANDARD_COLOUR, marker="s", names=True)
    plot.front(axes, summary["front"], "found tables")
    axes.set_ylabel(f"{summary['metric']} (%)")
    change, (low, high) = percent(summary["bd_rate"]), map(percent, summary["bd_rate_ci"])
    setting = f"{summary['n_test']} test photos · {summary['codec']['subsampling']}"
    axes.set_title(f"{change} bytes at equal score [{low}, {high}] · {setting}", fontsize=10)
    axes.legend(loc="lower right")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(out / "front.png", picture.getvalue())
    write_atomically(out / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
