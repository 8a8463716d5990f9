"""What a run folder holds: `Run`, read from summary.json, archive.jsonl, tables/ and statistics.npz."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder, open_coder
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive
from qtable.measure.front import Curve, Measured, interval, resamples
from qtable.measure.sensitivity import Sensitivity
from qtable.measure.summary import RESAMPLES, max_drop_sentence, three_savings
from qtable.photos.sets import SPLITS, Split
from qtable.report.spent import Floats
from qtable.tasks.base import ModelError, Outcomes

AGAIN: Final = "the same qtable optimize command writes both anew"


class ReportError(ValueError):
    """No report can be made of this folder, or of these photos; the message says why."""


class Estimate(NamedTuple):
    """A figure and its 95% interval; NaN where one is not known."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, entry: Mapping[str, Any], key: str) -> Estimate:
        """`key` and `key`_ci of a part of summary.json, where None stands for NaN."""
        low, high = entry[f"{key}_ci"]
        return cls(*(_number(x) for x in (entry[key], low, high)))


def _number(value: Any) -> float:
    """A number of summary.json, where None stands for NaN. TypeError or ValueError for anything else."""
    return math.nan if value is None else float(value)


@dataclass(frozen=True)
class Point:
    """A coder and its tables as measured on `test`. photo_bytes: int64 [n]."""

    name: str
    coder: Coder
    tables: QTables
    bytes: Estimate
    score: Estimate
    photo_bytes: npt.NDArray[np.int64]
    outcomes: Outcomes

    @property
    def short(self) -> str:
        """For example 003 or q50."""
        return self.name.removeprefix("tables/").removesuffix(".json").replace("quality:", "q")

    @property
    def id(self) -> str:
        """The place on the page that shows them."""
        return f"tables-{self.short}"


@dataclass(frozen=True)
class Saving:
    """Bytes against standard tables at their score on `test`; use: the tables that were as good on `search`, if any."""

    standard: Point
    score: float
    change: Estimate
    use: Point | None


@dataclass(frozen=True)
class Run:
    """A finished run of `qtable optimize`, tested on `splits["test"]` photos.

    header: the archive's. coding: the codec and its libraries. standard: by rising quality. found: by rising size on
    `search`. savings: at most three; none if the curves have no range of scores in common. change, change_on_search:
    BD-rates. clean: the score of the uncompressed photos, NaN if it is not known. annotated: whether scores are about
    annotations, not about answers on the uncompressed photos. statistics: of `fit`, or in words why there are none.
    doubts: what was said of labels, preprocessing and network before the search. judges: networks by which nothing was
    chosen, and what the found tables change by them.
    """

    folder: Path
    header: Mapping[str, Any]
    metric: str
    codec: Codec
    coding: Mapping[str, str]
    splits: Mapping[Split, int]
    evaluations: int
    interrupted: bool
    doubts: tuple[str, ...]
    standard: tuple[Point, ...]
    found: tuple[Point, ...]
    savings: tuple[Saving, ...]
    change: Estimate
    change_on_search: float
    clean: float
    annotated: bool
    max_drop: str | None
    judges: tuple[tuple[str, Estimate], ...]
    statistics: Sensitivity | str

    @classmethod
    def open(cls, folder: Path) -> Run:
        """ReportError, in one line, for any other folder; OSError for files that cannot be read."""
        summary = _read_summary(folder)
        archive = Archive(folder / "archive.jsonl")
        try:
            codec = Codec(summary["codec"]["subsampling"], summary["codec"]["entropy"])
            front = [(f"tables/{i:03d}.json", e) for i, e in enumerate(summary["front"], start=1)]
            baseline = [
                (f"quality:{e['quality']}", TableCoder(QTables.standard(e["quality"]), codec), e)
                for e in summary["baseline"]
            ]
            loaded = [(name, open_coder(str(folder / name), codec), entry) for name, entry in front]
            standard, found = (
                {name: _point(name, coder, entry, archive) for name, coder, entry in each}
                for each in (baseline, loaded)
            )
            splits = {split: int(summary[f"n_{split}"]) for split in SPLITS}
            if not found or {len(p.photo_bytes) for p in (*standard.values(), *found.values())} != {splits["test"]}:
                raise ValueError("no tables, or not all on the same photos")
            savings = tuple(
                Saving(
                    standard[f"quality:{row['quality']}"],
                    float(row["score"]),
                    Estimate.of(row, "change"),
                    found.get(str(row["use"])),
                )
                for row in three_savings(summary)
            )
            drop = summary.get("max_drop")
            return cls(
                folder=folder,
                header=archive.header,
                metric=str(summary["metric"]),
                codec=codec,
                coding={str(key): str(value) for key, value in summary["codec"].items()},
                splits=splits,
                evaluations=int(summary["evaluations"]),
                interrupted=bool(summary["interrupted"]),
                doubts=tuple(map(str, summary.get("doubts", ()))),
                standard=tuple(standard.values()),
                found=tuple(found.values()),
                savings=savings,
                change=Estimate.of(summary, "bd_rate"),
                change_on_search=_number(summary["bd_rate_search"]),
                clean=_number(summary.get("clean")),
                annotated=bool(summary.get("annotated", True)),
                max_drop=None if drop is None else max_drop_sentence(drop, splits["test"]),
                judges=tuple((str(j["model"]), Estimate.of(j, "bd_rate")) for j in summary.get("judges", ())),
                statistics=_statistics(folder),
            )
        except ReportError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise ReportError(f"{folder}: not a whole run of qtable optimize ({reason})") from None

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the archive's evaluations depend on."""
        identity: Mapping[str, Any] = self.header.get("identity", {})
        return identity

    @property
    def makes_files(self) -> bool:
        """Whether files of the chosen coder can be made anew: the networks that it looks through may be missing."""
        try:
            self.chosen.coder.check()
        except ModelError:
            return False
        return True

    @property
    def photos(self) -> int:
        """How many there are in `test`."""
        return self.splits["test"]

    def nearest_standard(self, point: Point) -> Point:
        """The standard tables whose files are nearest in mean size."""
        return min(self.standard, key=lambda p: abs(math.log(p.bytes.value / point.bytes.value)))

    @property
    def pairs(self) -> list[tuple[Point, Point]]:
        """(standard, found) as good as each other on `search`, one for each saving; else the middle of the front."""
        pairs = [(saving.standard, saving.use) for saving in self.savings if saving.use is not None]
        middle = self.found[len(self.found) // 2]
        return pairs or [(self.nearest_standard(middle), middle)]

    @property
    def chosen(self) -> Point:
        """The tables that the page takes as its example: those in the middle of `pairs`."""
        return self.pairs[len(self.pairs) // 2][1]


def _read_summary(folder: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    if not folder.is_dir():
        raise ReportError(f"{folder}: no such folder; expected the folder of a finished qtable optimize")
    if not path.is_file():
        raise ReportError(f"{folder}: no summary.json; expected the folder of a finished qtable optimize")
    try:
        summary = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: not JSON ({str(error)[:100]})") from None
    if not isinstance(summary, dict):
        raise ReportError(f"{path}: not a run's summary")
    if "samplings" in summary:
        runs = " or ".join(str(folder / name) for name in ("420", "444"))
        raise ReportError(f"{folder}: a run of --subsampling auto; report on one of its two runs, {runs}")
    if "points" in summary:
        raise ReportError(f"{folder}: a run of qtable train; expected the folder of a finished qtable optimize")
    return summary


def _statistics(folder: Path) -> Sensitivity | str:
    path = folder / "statistics.npz"
    if not path.is_file():
        return "the run has no statistics.npz, as its method asked the model for no gradients"
    try:
        return Sensitivity.load(path)
    except ValueError as error:
        return str(error)


def _point(name: str, coder: Coder, entry: Mapping[str, Any], archive: Archive) -> Point:
    """ReportError if the archive has no such evaluation, or another result."""
    record = archive.find("test", coder)
    if record is None:
        raise ReportError(f"{archive.path}: no evaluation of {name} on test, which summary.json has; {AGAIN}")
    point = Point(
        name,
        coder,
        record.score.tables,
        Estimate.of(entry, "bytes"),
        Estimate.of(entry, "score"),
        record.score.photo_bytes,
        record.score.outcomes,
    )
    archived = record.score.bytes, record.score.score
    if (point.bytes.value, point.score.value) != archived:
        here = f"{point.bytes.value:.10g} bytes and score {point.score.value:.10g}"
        there = f"{archived[0]:.10g} and {archived[1]:.10g}"
        raise ReportError(
            f"{archive.path.parent}: {name} has {here} in summary.json, {there} in archive.jsonl; {AGAIN}"
        )
    if not (point.photo_bytes > 0).all() or not 0 <= point.score.value <= 1:
        raise ReportError(f"{archive.path}: {name} has sizes or a score that cannot be")
    return point


def changes(run: Run, rng: np.random.Generator) -> list[Estimate]:
    """For each of `run.found` the change of bytes against standard tables at equal score, where the curve has its size.

    Paired: 95% intervals over photos resampled alike for both. NaN where standard tables do not reach the score, and
    if the curves have no range of scores in common: a flat one has no size of its own.
    """
    if not math.isfinite(run.change.value):
        return [Estimate(math.nan)] * len(run.found)
    standard, found = (
        Measured(np.stack([p.photo_bytes for p in points]), tuple(p.outcomes for p in points))
        for points in (run.standard, run.found)
    )

    def of(photos: npt.NDArray[np.intp] | slice) -> Floats:
        sizes, scores = found.points(photos)
        anchor, curve = standard.curve(photos), Curve.fit(sizes, scores)
        levels = np.interp(np.log(sizes), curve.log_sizes, curve.scores)
        change: Floats = np.expm1(curve.log_size(levels) - anchor.log_size(levels))
        return change

    drawn = np.stack([of(draw) for draw in resamples(run.photos, RESAMPLES, rng)])
    return [Estimate(float(x), *interval(values)) for x, values in zip(of(slice(None)), drawn.T, strict=True)]
