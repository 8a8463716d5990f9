"""The joint job: photos and a network in, a folder with a trained network and its tables out, tested on `test`.

What `qtable.train` needs beside a network is made here: where each operating point starts, and its multiplier.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.torch

from qtable.encoders.formats import to_cjpeg
from qtable.files import write_atomically
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.evaluate import Score
from qtable.measure.front import Curve, Measured, bd_rate, interval, resamples
from qtable.measure.summary import QUALITIES, RESAMPLES, numbers, percent
from qtable.photos.sets import ImageSet, Photos
from qtable.progress import Watch
from qtable.report import plot
from qtable.tasks.base import DifferentiableTask
from qtable.train.joint import slopes
from qtable.train.recipe import Recipe
from qtable.train.run import train
from qtable.train.validation import Trained, validate
from search.methods import Setting
from search.space import Sorted

RANDOM_START: Final = "random"
SLOPE_PHOTOS: Final = 256
SIZE_PHOTOS: Final = 32


@dataclass(frozen=True)
class Family:
    """The operating points of a joint training: where each starts, and its multiplier (nats per bit per pixel).

    points: how many. start: "closed-form", "standard", "random" or a run folder. largest, smallest: the standard
    qualities in whose files' sizes the first and the last point start; the others lie between, evenly in log(bytes).
    multiplier: scales those that hold the starts where they are (`slopes`). ValueError for what cannot be.
    """

    points: int = 5
    start: str = "closed-form"
    largest: int = 50
    smallest: int = 8
    multiplier: float = 1.0

    def __post_init__(self) -> None:
        if self.points < 1:
            raise ValueError(f"{self.points} operating points; allowed: 1 or more")
        if not 1 <= self.smallest <= self.largest <= 100:
            raise ValueError(f"qualities {self.largest} to {self.smallest}; allowed: 1..100, falling")
        if not 0 <= self.multiplier < float("inf"):
            raise ValueError(f"multiplier {self.multiplier}; allowed: 0 or more")


def path_of(setting: Setting) -> tuple[QTables, ...]:
    """The tables, from many bytes to few, on which the points start; random ones are one sorted random shape scaled."""
    if setting.start != RANDOM_START:
        return setting.family()
    space = Sorted(setting.count)
    shape = space.tables(setting.rng.integers(space.box.low, space.box.high + 1)).values.astype(float)
    scales = np.geomspace(2, 200, 65) / shape.mean()
    return tuple(QTables(np.clip(np.rint(shape * scale), 1, 255)) for scale in scales)


def places(path: Sequence[QTables], photos: Photos, codec: Codec, family: Family) -> list[int]:
    """Where in `path` the points start: next to the sizes that `family` asks for, by real files of a few photos."""
    few = [photos.images[i] for i in np.linspace(0, len(photos) - 1, min(len(photos), SIZE_PHOTOS)).astype(int)]

    def size(tables: QTables) -> float:
        return sum(len(codec.encode(photo, tables)) for photo in few)

    ends = [size(QTables.standard(quality)) for quality in (family.largest, family.smallest)]
    grid = np.unique(np.linspace(0, len(path) - 1, min(len(path), 33)).astype(int))
    sizes = np.minimum.accumulate([size(path[i]) for i in grid])
    wanted = np.geomspace(ends[0], ends[1], family.points) if family.points > 1 else [float(np.sqrt(ends[0] * ends[1]))]
    return [round(float(np.interp(-np.log(w), -np.log(sizes), grid))) for w in wanted]


def learn(
    images: ImageSet,
    setting: Setting,
    family: Family,
    recipe: Recipe,
    out: Path,
    header: Mapping[str, Any],
    watch: Watch = lambda *_: None,
) -> dict[str, Any]:
    """Train (see `qtable.train.run.train`) and test the setting's task; returns what summary.json in `out` holds.

    In a process group the first process tests and writes; the others return what they would write.
    """
    codec, task = setting.codec, setting.task
    plan = out / "family.json"
    out.mkdir(parents=True, exist_ok=True)
    path = path_of(setting)
    where = places(path, images.fit, codec, family)
    starts = [path[i] for i in where]
    some = images.fit.subset(np.sort(np.random.default_rng(0).permutation(len(images.fit))[:SLOPE_PHOTOS]))
    if plan.exists():  # the multipliers of the run that is continued, to the last bit
        multipliers = json.loads(plan.read_text())["multipliers"]
    else:
        multipliers = [family.multiplier * s for s in slopes(task, some, codec, path, where, recipe)]
        write_atomically(plan, json.dumps({"multipliers": multipliers}).encode())
    identity = {**header["identity"], "family": asdict(family), "tables": setting.count}
    trained = train(task, starts, multipliers, images, codec, recipe, out, identity, watch)
    return finish(task, trained, multipliers, images, codec, out, header)


def finish(
    task: DifferentiableTask,
    trained: Trained,
    multipliers: Sequence[float],
    images: ImageSet,
    codec: Codec,
    out: Path,
    header: Mapping[str, Any],
) -> dict[str, Any]:
    """Test what was trained against standard tables with the untrained network; write network, tables, figures."""
    base = validate(task, task.model, [QTables.standard(q) for q in QUALITIES], images.test, codec)
    ours = validate(task, trained.network, trained.tables, images.test, codec)
    summary = summarize(base, ours, trained, multipliers, header, task.metric, codec)
    folder = out / "tables"
    folder.mkdir(exist_ok=True)
    for i, tables in enumerate(trained.tables, start=1):
        tables.save(folder / f"{i:03d}.json")
        write_atomically(folder / f"{i:03d}.txt", to_cjpeg(tables).encode())
    _keep_outcomes(out / "test.npz", base, ours)
    state = {name: value.contiguous().clone() for name, value in trained.network.state_dict().items()}
    write_atomically(out / "network.safetensors", safetensors.torch.save(state))
    picture = io.BytesIO()
    figure, axes = plot.new_axes()
    plot.front(axes, summary["baseline"], "standard tables, untrained network", plot.STANDARD_COLOUR, "s", names=True)
    plot.front(axes, summary["points"], "trained together")
    axes.set_ylabel(f"{summary['metric']} (%)")
    low, high = map(percent, summary["bd_rate_ci"])
    axes.set_title(
        f"{percent(summary['bd_rate'])} bytes at equal score [{low}, {high}] · {len(images.test)} test photos"
    )
    axes.legend(loc="lower right")
    figure.savefig(picture, format="png")
    write_atomically(out / "front.png", picture.getvalue())
    write_atomically(out / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def summarize(
    base: Sequence[Score],
    ours: Sequence[Score],
    trained: Trained,
    multipliers: Sequence[float],
    header: Mapping[str, Any],
    metric: str,
    codec: Codec,
) -> dict[str, Any]:
    """What was measured on `test`, with paired bootstrap intervals (95%, photos resampled), and how training went."""
    anchor, other = (Measured.of(scores) for scores in (base, ours))
    draws = resamples(len(base[0].photo_bytes), RESAMPLES, np.random.default_rng(0))
    points = [(anchor.points(draw), other.points(draw)) for draw in draws]

    def entry(score: Score, side: int, i: int) -> dict[str, Any]:
        intervals = {
            name: interval([p[side][column][i] for p in points]) for column, name in enumerate(("bytes_ci", "score_ci"))
        }
        return {"bytes": score.bytes, "score": score.score, **intervals}

    summary = {
        "metric": metric,
        "codec": codec.to_dict(),
        "command": header.get("command"),
        "commit": header.get("commit"),
        "n_test": len(base[0].photo_bytes),
        "baseline": [{"quality": q, **entry(s, 0, i)} for i, (q, s) in enumerate(zip(QUALITIES, base, strict=True))],
        "points": [
            {"tables": f"tables/{i + 1:03d}.json", "multiplier": m, **entry(s, 1, i)}
            for i, (s, m) in enumerate(zip(ours, multipliers, strict=True))
        ],
        "bd_rate": bd_rate(anchor.curve(), other.curve()),
        "bd_rate_ci": interval([bd_rate(Curve.fit(*a), Curve.fit(*b)) for a, b in points]),
        "best_step": trained.best.step,
        "interrupted": trained.interrupted,
        "history": [asdict(v) for v in trained.history],
    }
    return dict(numbers(summary))


def _keep_outcomes(path: Path, base: Sequence[Score], ours: Sequence[Score]) -> None:
    """Bytes and, where the metric counts them, right answers of each test photo, for paired comparisons: [k, n]."""
    arrays = {}
    for name, scores in (("standard", base), ("trained", ours)):
        arrays[f"{name}_bytes"] = np.stack([s.photo_bytes for s in scores])
        right = [s.outcomes.right() for s in scores]
        if not any(row is None for row in right):
            arrays[f"{name}_right"] = np.array(right)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    write_atomically(path, file.getvalue())
