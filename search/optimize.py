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
from typing import Any

import numpy as np

from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder, save_coder
from qtable.codecs.task_aware import Effort
from qtable.encoders.formats import to_cjpeg
from qtable.files import write_atomically
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive
from qtable.measure.evaluate import Evaluating, Evaluator, Score
from qtable.measure.front import bd_rate
from qtable.measure.sensitivity import Sensitivity
from qtable.measure.sensitivity import measure as measure_here
from qtable.measure.summary import QUALITIES, STANDARD, _curve, front_records, judged, percent, pick, summarize
from qtable.photos.sets import ImageSet, Photos, Split
from qtable.progress import Watch
from qtable.report import plot
from qtable.tasks.base import DifferentiableTask, Task
from qtable.tasks.opening import TaskSpec
from qtable.tasks.several import Several
from search.base import Searcher
from search.closed_form import Sweep
from search.looking import looking
from search.methods import METHODS, Setting, candidates, needs_gradients
from search.racing import Racing, rungs, shuffled
from search.run import Measure, Measuring, search
from search.space import Plain, Space

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


Tell = Callable[[Sequence[str]], None]
"""What takes sentences for people."""


def quiet(sentences: Sequence[str]) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Plan:
    """What to do: the method (a key of METHODS), its budget in evaluations on `search`, number of tables, and seed.

    max_drop: also pick the smallest tables whose score is at most this much (a fraction) below the uncompressed
    photos', with 95% confidence. start: see `Setting`. racing: candidates may be dropped after a part of the photos,
    and the budget counts what was looked at. effort: of files that look through networks (see `TaskAware`), for which
    `method` is the closed form's path; None for plain tables.
    """

    method: str = "closed-form"
    budget: int = 40
    count: int = 2
    seed: int = 0
    max_drop: float | None = None
    start: str | None = None
    racing: bool = False
    effort: Effort | None = None

    def __post_init__(self) -> None:
        if self.max_drop is not None and not 0 < self.max_drop < 1:
            raise ValueError(f"max drop {self.max_drop:.3%}; allowed: above 0% and below 100%")
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is unknown; allowed: {', '.join(METHODS)}")
        if self.budget < 1:
            raise ValueError(f"budget {self.budget}; allowed: 1 evaluation or more")
        if not 1 <= self.count <= 3:
            raise ValueError(f"{self.count} tables; allowed: 1, 2 or 3")
        if self.effort is not None and (self.method != "closed-form" or self.start is not None):
            raise ValueError("a task-aware front is the closed form's path; leave method and start out")


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
    through: Sequence[tuple[TaskSpec, DifferentiableTask]] = (),
    judges: Mapping[str, Task] | None = None,
    tell: Tell = quiet,
) -> dict[str, Any]:
    """Run the main job in folder `out`, or continue it there; returns what summary.json holds.

    header: the archive's first line; its "identity" guards against continuing another run. workforce: by default this
    process. known: the folder of a run on the same photos and model, from which a new run takes the standard tables'
    scores and the statistics. through: the networks that tables, and with an effort files, are made for together;
    without any, tables are for the task alone. judges: by name, tasks that look at the tested files, too; nothing is
    chosen by them. tell: takes `Evaluating.doubts` before the search begins; the summary has them, too.

    Ctrl-C ends the search, and what was found by then is tested and written ("interrupted": true); a second Ctrl-C
    stops at once.
    """
    looks = {"search": task, "test": Several([task, *judges.values()]) if judges else task}
    workforce = workforce or Workforce(lambda split, photos: Evaluator(photos, looks[split]))
    _prepare(out, plan, task, [looked for _, looked in through], images, codec)
    with ExitStack() as stack:
        parts = rungs(shuffled(images.search)) if plan.racing else [images.search]
        on_search = [stack.enter_context(workforce.evaluator("search", photos)) for photos in parts]
        on_test = stack.enter_context(workforce.evaluator("test", images.test))
        archive = stack.enter_context(Archive(out / "archive.jsonl", _with_answers(header, on_search)))
        tell(doubts := on_search[-1].doubts())
        if not len(archive):
            _begin(out, archive, known)
        race, at_once = Racing(on_search, archive, task.metric), workforce.at_once
        measure: Measure = race if plan.racing else Measuring(on_search[0], "search", archive, at_once)
        interrupted = False
        try:
            _standard(race.full, codec, "search", watch)
            setting = Setting(
                count=plan.count,
                rng=np.random.default_rng(plan.seed),
                fit=images.fit,
                task=task,
                codec=codec,
                statistics=out / "statistics.npz",
                start=plan.start,
                measure=workforce.measure,
                progress=lambda done, total: watch("sensitivity on fit", done, total, ""),
            )
            space, searcher = _candidates(plan, setting, through, out)
            search(space, searcher, measure, plan.budget, plan.method, _best_so_far(archive, plan.budget, watch))
        except KeyboardInterrupt:
            interrupted = True
        summary, found = _tested(images, task, codec, plan, archive, on_test, interrupted, watch, tuple(judges or ()))
        summary |= {"doubts": doubts}
        _write(out, summary, found)
        return summary


def _check(plan: Plan, codec: Codec, through: bool) -> None:
    """ValueError for what cannot be, before long work."""
    if plan.effort is not None and codec.entropy != "optimized":
        raise ValueError(f"task-aware files have optimized Huffman tables, not entropy coding {codec.entropy}")
    if plan.effort is not None and not through:
        raise ValueError("task-aware files are made by looking through networks; none is given")
    if through and (plan.method != "closed-form" or plan.start is not None):
        raise ValueError("tables for several networks are the closed form's path; leave method and start out")


def _prepare(
    out: Path,
    plan: Plan,
    task: DifferentiableTask,
    through: Sequence[DifferentiableTask],
    images: ImageSet,
    codec: Codec,
) -> None:
    """Make the folder of a run. ValueError for what cannot be, ModelError where gradients are needed and missing."""
    _check(plan, codec, bool(through))
    _make_folder(out)
    if needs_gradients(plan.method, plan.start) and not (out / "statistics.npz").exists():
        for each in through or [task]:
            measure_here(images.fit.subset([0]), each, codec)


def _candidates(
    plan: Plan, setting: Setting, through: Sequence[tuple[TaskSpec, DifferentiableTask]], out: Path
) -> tuple[Space, Searcher]:
    """Where to search and how: by the plan's method; along one path if networks are to be looked through."""
    if not through:
        return candidates(plan.method, setting)
    effort = plan.effort or "frequency"
    space = looking(through, setting.fit, setting.codec, plan.count, effort, out, setting.progress)
    return (Plain(space.path, setting.codec) if plan.effort is None else space), Sweep(space.box)


def _tested(
    images: ImageSet,
    task: DifferentiableTask,
    codec: Codec,
    plan: Plan,
    archive: Archive,
    on_test: Evaluating,
    interrupted: bool,
    watch: Watch,
    judges: Sequence[str],
) -> tuple[dict[str, Any], list[Score]]:
    """The front that `search` chose, measured on `test`: the summary, and the scores of what was found."""
    chosen = front_records(archive)
    if not chosen and interrupted:
        raise KeyboardInterrupt
    if not chosen:
        raise NothingFound(f"all {len(archive.partial('search'))} candidates lost their race; raise --budget")
    test = Measuring(on_test, "test", archive)
    baseline = _standard(test, codec, "test", watch)
    found = []
    for done, record in enumerate(chosen, start=1):
        found.append(test(record.score.coder, record.origin))
        watch("testing the front", done, len(chosen), "")
    summary = summarize(archive, baseline, found, images, task, codec, np.random.default_rng(plan.seed))
    clean = on_test.clean()
    summary |= {"annotated": task.annotated, "clean": clean.score()}
    if judges:
        summary["judges"] = judged(judges, baseline, found, clean, np.random.default_rng(plan.seed))
    if plan.max_drop is not None:
        summary["max_drop"] = pick(baseline, found, clean, task.metric, plan.max_drop)
    tried = [r for r in archive if r.split == "search" and r.origin != STANDARD]
    spent = sum(len(r.score.photo_bytes) for r in tried) / len(images.search)
    return summary | {"evaluations": len(tried), "spent": spent, "interrupted": interrupted}, found


def _with_answers(header: Mapping[str, Any], evaluators: Sequence[Evaluating]) -> dict[str, Any]:
    """The header with the model's answers in its identity: a changed model file is another run."""
    answers = "-".join(e.fingerprint for e in evaluators)
    return {**header, "identity": {**header["identity"], "answers": answers}}


def _begin(out: Path, archive: Archive, known: Path | None) -> None:
    """A new run has no statistics but what it takes over from a known one."""
    for statistics in out.glob("statistics*.npz"):
        statistics.unlink()
    if known is None:
        return
    if (known / "statistics.npz").exists():
        shutil.copy(known / "statistics.npz", out / "statistics.npz")
    for record in Archive(known / "archive.jsonl"):
        if record.origin == STANDARD:
            archive.append(record)


def _standard(measure: Callable[[Coder, str], Score], codec: Codec, split: Split, watch: Watch) -> list[Score]:
    scores = []
    for done, quality in enumerate(QUALITIES, start=1):
        scores.append(measure(TableCoder(QTables.standard(quality), codec), STANDARD))
        watch(f"standard tables on {split}", done, len(QUALITIES), "")
    return scores


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


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(f"{out} is a file, not a run folder; choose another --out") from None


def _write(out: Path, summary: Mapping[str, Any], found: Sequence[Score]) -> None:
    folder = out / "tables"
    folder.mkdir(exist_ok=True)
    for i, score in enumerate(found, start=1):
        save_coder(score.coder, folder / f"{i:03d}.json")
        if score.coder.tables is not None:
            write_atomically(folder / f"{i:03d}.txt", to_cjpeg(score.coder.tables).encode())
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
