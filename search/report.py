"""One page on a run: what its tables save, which they are, whom they hurt, what that means, and how to use them.

All figures come from the run folder (summary.json, archive.jsonl, tables/, statistics.npz) and were measured on `test`;
where the photos can be opened again, files of some of them are written anew. The page needs no network, and no script
but for convenience.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qtable import plot
from qtable.archive import Archive
from qtable.codec import RGB, Codec, read_coefficients, read_header
from qtable.data import SPLITS, ImageSet, Progress, Split
from qtable.export import FORMATS
from qtable.front import Curve, Measured, interval, resamples
from qtable.sensitivity import Sensitivity
from qtable.tables import ZIGZAG, QTables
from qtable.task import COLUMNS, METRICS, Outcomes
from search.closed_form import entropy_bits
from search.optimize import RESAMPLES, max_drop_sentence, three_savings

Floats = npt.NDArray[np.float64]
AGAIN: Final = "the same qtable optimize command writes both anew"
COMPONENTS: Final = ("Y", "Cb", "Cr")
RIGHT: Final = {
    "top-1": "",
    "top-5": " (right: among the model's five first answers)",
    "agreement": " (right: the answer that the model gives on the uncompressed photo)",
}
"""What a right answer is, by the metric, where it must be said."""
SPLIT_PHOTOS: Final = 32
"""Photos whose files are taken apart, if they have no more than `SPLIT_PIXELS` together."""
SPLIT_PIXELS: Final = 1 << 24
CROPS: Final = 6
CROP_SIDE: Final = 160
CROP_BYTES: Final = 300_000
"""Bound on what all crops add to the page."""
SMALL: Final = 8
"""Of the smallest words in charts, in points: still legible where a phone shows a chart at 350 pixels."""
LISTED: Final = 20
"""Classes and skipped photos that are named; the rest is counted."""


class ReportError(ValueError):
    """No report can be made of this folder, or of these photos; the message says why."""


# ---- the run folder -------------------------------------------------------------------------------------------


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
    """Tables as measured on `test`. photo_bytes: int64 [n]; outcomes: float64 [n, k], the task's rows."""

    name: str
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
    BD-rates. clean: the score of the uncompressed photos, NaN if it is not known. statistics: of `fit`, or in words why
    there are none.
    """

    folder: Path
    header: Mapping[str, Any]
    metric: str
    codec: Codec
    coding: Mapping[str, str]
    splits: Mapping[Split, int]
    evaluations: int
    interrupted: bool
    standard: tuple[Point, ...]
    found: tuple[Point, ...]
    savings: tuple[Saving, ...]
    change: Estimate
    change_on_search: float
    clean: float
    max_drop: str | None
    statistics: Sensitivity | str

    @classmethod
    def open(cls, folder: Path) -> Run:
        """ReportError, in one line, for any other folder; OSError for files that cannot be read."""
        summary = _read_summary(folder)
        archive = Archive(folder / "archive.jsonl")
        try:
            baseline = [(f"quality:{e['quality']}", QTables.standard(e["quality"]), e) for e in summary["baseline"]]
            front = [(f"tables/{i:03d}.json", e) for i, e in enumerate(summary["front"], start=1)]
            loaded = [(name, QTables.load(folder / name), entry) for name, entry in front]
            standard, found = (
                {name: _point(name, tables, entry, archive) for name, tables, entry in each}
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
                codec=Codec(summary["codec"]["subsampling"], summary["codec"]["entropy"]),
                coding={str(key): str(value) for key, value in summary["codec"].items()},
                splits=splits,
                evaluations=int(summary["evaluations"]),
                interrupted=bool(summary["interrupted"]),
                standard=tuple(standard.values()),
                found=tuple(found.values()),
                savings=savings,
                change=Estimate.of(summary, "bd_rate"),
                change_on_search=_number(summary["bd_rate_search"]),
                clean=_number(summary.get("clean")),
                max_drop=None if drop is None else max_drop_sentence(drop, splits["test"]),
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
    def photos(self) -> int:
        """How many there are in `test`."""
        return self.splits["test"]

    @property
    def column(self) -> int | None:
        """Of the outcomes: 1 where the answer counts as right, else 0. None for metrics that are no share of these."""
        columns = {METRICS[name]: COLUMNS.index(name) for name in METRICS}
        return columns.get(self.metric) if self.found[0].outcomes.shape[1] == len(COLUMNS) else None

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


def _point(name: str, tables: QTables, entry: Mapping[str, Any], archive: Archive) -> Point:
    """ReportError if the archive has no such evaluation, or another result."""
    record = archive.find("test", tables)
    if record is None:
        raise ReportError(f"{archive.path}: no evaluation of {name} on test, which summary.json has; {AGAIN}")
    point = Point(
        name,
        tables,
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


# ---- photos ---------------------------------------------------------------------------------------------------


class Source(NamedTuple):
    """What `ImageSet.open` was given."""

    data: str | None
    resize: int | None
    limit: int | None


def recorded_source(header: Mapping[str, Any]) -> Source:
    """Where the photos of a run came from, by the command in its archive's header. ReportError if that does not say."""
    parser = argparse.ArgumentParser(exit_on_error=False, add_help=False, allow_abbrev=False)
    parser.add_argument("--data")
    parser.add_argument("--resize", type=int)
    parser.add_argument("--limit", type=int)
    try:
        words = shlex.split(str(header.get("command", "")))
        if words[:2] != ["qtable", "optimize"]:
            raise ValueError(f"its command is {shlex.join(words[:2]) or 'not recorded'}")
        known, _ = parser.parse_known_args(words[2:])
    except (ValueError, argparse.ArgumentError) as error:
        raise ReportError(f"the run does not say where its photos are: {str(error)[:200]}") from None
    return Source(known.data, known.resize, known.limit)


def reopen(run: Run, source: Source, progress: Progress | None = None) -> ImageSet:
    """The photos of a run; its model is not needed, and not run.

    ReportError or DataError if they are not there or have changed.
    """
    images = ImageSet.open(*source, progress)
    if images.fingerprint != run.identity.get("data") or len(images.test) != run.photos:
        raise ReportError(f"{images.source}: not the photos of the run {run.folder}, or not as it resized them")
    return images


# ---- what is computed -----------------------------------------------------------------------------------------


def changes(run: Run, rng: np.random.Generator) -> list[Estimate]:
    """For each of `run.found` the change of bytes against standard tables at equal score, where the curve has its size.

    Paired: 95% intervals over photos resampled alike for both. NaN where standard tables do not reach the score, and
    if the curves have no range of scores in common: a flat one has no size of its own.
    """
    column = run.column
    if column is None or not math.isfinite(run.change.value):
        return [Estimate(math.nan)] * len(run.found)
    standard, found = (
        Measured(
            np.stack([p.photo_bytes for p in points]),
            tuple(p.outcomes[:, [column]] for p in points),
            lambda rows: float(rows.mean()),
        )
        for points in (run.standard, run.found)
    )

    def of(photos: npt.NDArray[np.intp] | slice) -> Floats:
        sizes, scores = found.points(photos)
        anchor, curve = standard.curve(photos), Curve.fit(sizes, scores)
        levels = np.interp(np.log(sizes), curve.log_sizes, curve.scores)
        change: Floats = np.expm1(curve.log_size(levels) - anchor.log_size(levels))
        return change

    drawn = np.stack([of(draw) for draw in resamples(run.photos, RESAMPLES, rng)])
    return [Estimate(float(x), *interval(column)) for x, column in zip(of(slice(None)), drawn.T, strict=True)]


@dataclass(frozen=True)
class Spent:
    """Where the bytes of a mean file go; the parts add up to it.

    frequencies: float64 [3, 64], of Y, Cb, Cr and natural frequency, what its levels take with the zeros before them.
    ends: float64 [3], the marks after each block's last level. rest: headers, filling and stuffing.
    """

    frequencies: Floats
    ends: Floats
    rest: float

    @property
    def total(self) -> float:
        return float(self.frequencies.sum() + self.ends.sum() + self.rest)


def spent(files: Sequence[bytes]) -> Spent:
    """The mean over files that a `Codec` wrote with sequential coding; exact: every bit is counted once."""
    parts = [_spent(file) for file in files]
    return Spent(
        np.mean([p.frequencies for p in parts], axis=0),
        np.mean([p.ends for p in parts], axis=0),
        float(np.mean([p.rest for p in parts])),
    )


def _spent(file: bytes) -> Spent:
    """T.81, F.1.2: a DC difference and each AC level are a Huffman code and as many bits as the level has."""
    header = read_header(file)
    lengths = {(table.kind, table.slot): _code_lengths(table.counts, table.symbols) for table in header.huffman_tables}
    bits, ends = np.zeros((3, 64)), np.zeros(3)
    for c, (component, plane) in enumerate(zip(header.components, read_coefficients(file), strict=True)):
        dc, ac = lengths[0, min(c, 1)], lengths[1, min(c, 1)]
        order, dummies = _scan_order(plane.shape[0], plane.shape[1], component.vertical, component.horizontal)
        blocks = plane.reshape(-1, 64)[order][:, ZIGZAG].astype(np.int64)
        sizes = _bit_lengths(np.diff(blocks[:, 0], prepend=0))
        bits[c, 0] = (dc[sizes] + sizes).sum()
        block, k = np.nonzero(blocks[:, 1:])
        k += 1
        first = np.diff(block, prepend=-1) > 0
        run = k - np.where(first, 0, np.concatenate([[0], k[:-1]])) - 1
        sizes = _bit_lengths(blocks[block, k])
        bits[c] += np.bincount(ZIGZAG[k], ac[0xF0] * (run >> 4) + ac[(run & 15) << 4 | sizes] + sizes, 64)
        ended = len(blocks) - int((blocks[:, 63] != 0).sum())
        ends[c] = (ended + dummies) * ac[0] + dummies * dc[0]
    return Spent(bits / 8, ends / 8, len(file) - (float(bits.sum()) + float(ends.sum())) / 8)


def _code_lengths(counts: bytes, symbols: bytes) -> npt.NDArray[np.int64]:
    """int64 [256]: bits of each symbol's code, 0 of those without one."""
    lengths = np.zeros(256, np.int64)
    lengths[list(symbols)] = np.repeat(np.arange(1, 17), list(counts))
    return lengths


def _bit_lengths(levels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    lengths: npt.NDArray[np.int64] = np.frexp(np.abs(levels).astype(float))[1].astype(np.int64)
    return lengths


def _scan_order(rows: int, columns: int, high: int, wide: int) -> tuple[npt.NDArray[np.int64], int]:
    """A component's blocks in the order of a scan whose MCUs have high x wide of them, and how many dummies fill up.

    Dummy blocks repeat the DC before them (libjpeg's jccoefct.c), so they change nobody's difference.
    """
    padded = np.full((-(-rows // high) * high, -(-columns // wide) * wide), -1)
    padded[:rows, :columns] = np.arange(rows * columns).reshape(rows, columns)
    order = padded.reshape(-1, high, padded.shape[1] // wide, wide).transpose(0, 2, 1, 3).ravel()
    return order[order >= 0], int((order < 0).sum())


def spent_estimates(statistics: Sensitivity, tables: Sequence[QTables]) -> list[Spent]:
    """By the entropy of the `fit` photos' levels, frequency by frequency: without headers and ends of blocks."""
    bits = entropy_bits(statistics) / max(statistics.photos, 1)
    steps = [each.components().reshape(3, 64, 1).astype(np.intp) for each in tables]
    return [Spent(np.take_along_axis(bits, step - 1, axis=2)[..., 0] / 8, np.zeros(3), 0.0) for step in steps]


def some_photos(images: ImageSet) -> list[int]:
    """Test photos, evenly spread, as many as `SPLIT_PHOTOS` and `SPLIT_PIXELS` allow, but one at least."""
    photos = images.test.images
    spread = [int(i) for i in np.unique(np.linspace(0, len(photos) - 1, SPLIT_PHOTOS).astype(int))]
    pixels = np.cumsum([photos[i].shape[0] * photos[i].shape[1] for i in spread])
    return spread[: max(1, int((pixels <= SPLIT_PIXELS).sum()))]


# ---- words ----------------------------------------------------------------------------------------------------


def fewer(change: float) -> str:
    """A change of bytes (-0.2 = 20% fewer) in words."""
    return f"{abs(change):.1%} {'fewer' if change < 0 else 'more'}"


def span(change: Estimate) -> str:
    """The 95% interval of a change of bytes in words."""
    low, high = change.low, change.high
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unknown, too few resamples reach this score"
    if high < 0:
        return f"{-high:.1%} to {-low:.1%} fewer"
    return f"{fewer(low)} to {fewer(high)}" if low < 0 else f"{low:.1%} to {high:.1%} more"


def headline(run: Run) -> str:
    """What the run found, in one sentence."""
    where = f"on {run.photos:,} test photos"
    if not math.isfinite(run.change.value):
        reason = f"Found and standard tables have no range of {run.metric} in common"
        return f"{reason} {where}: their bytes cannot be compared."
    verdict = (
        f"At equal {run.metric} the found tables need {fewer(run.change.value)} bytes than the standard tables"
        f" (95% interval: {span(run.change)}), measured {where}."
    )
    return verdict if run.change.high < 0 else f"No saving is proved. {verdict}"


def saving_sentence(run: Run, saving: Saving) -> str:
    """One saving for people."""
    quality, before = _spoken(saving.standard), saving.standard.bytes.value
    sentence = (
        f"At the {run.metric} of {quality} ({saving.score:.1%}) the curves say {fewer(saving.change.value)} bytes"
        f" (95% interval: {span(saving.change)}), {before * (1 + saving.change.value):,.0f} bytes a photo instead of"
        f" {before:,.0f}."
    )
    if not saving.change.high < 0:
        sentence += " That is no proved saving."
    use = saving.use
    if use is None:
        return f"{sentence} None of the found tables was as good as {quality} on the search photos."
    sentence += (
        f" The smallest tables that were as good as {quality} on the search photos are {use.name}:"
        f" on the test photos {use.bytes.value:,.0f} bytes and {use.score.value:.1%}."
    )
    if use.bytes.value >= before:
        sentence += (
            f" They are no smaller than {quality} ({before:,.0f} bytes), as no smaller tables found were as good there;"
            " a larger --budget tries more."
        )
    return sentence


def _spoken(point: Point) -> str:
    """Standard quality 50, or the file of found tables."""
    return point.name.replace("quality:", "standard quality ")


# ---- the page -------------------------------------------------------------------------------------------------


def page(run: Run, images: ImageSet | None, without: str = "", price: float | None = None) -> str:
    """The HTML of the report. images: the run's photos, or None, and then `without` says why.

    price: of a gigabyte (10^9 bytes), in any currency.
    """
    loader = PackageLoader("search")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters["shell"] = _shell
    style, script = (Markup(loader.get_source(environment, f"report.{kind}")[0]) for kind in ("css", "js"))
    seed = run.identity.get("seed")
    found_changes = changes(run, np.random.default_rng(seed if isinstance(seed, int) and seed >= 0 else 0))
    return environment.get_template("report.html").render(
        title=f"qtable: {run.folder}",
        style=style,
        script=script,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        headline=headline(run),
        notes=_notes(run),
        savings=[saving_sentence(run, saving) for saving in run.savings],
        max_drop=run.max_drop,
        metric=run.metric,
        charts=_front_charts(run, found_changes),
        points=list(_points(run, found_changes)),
        chosen=run.chosen,
        tables=list(_table_maps(run)),
        rate=_rate(run, images),
        sensitivity=_sensitivity_maps(run),
        sizes=_sizes(run),
        worst=_worst(run, images),
        without=without,
        volumes=list(_volumes(run, price)),
        price=price,
        commands=list(_commands(run)),
        provenance=list(_provenance(run, images)),
        skipped=_skipped(run),
        folder=str(run.folder),
    )


def _printable(value: Any) -> Any:
    """Escapes for what a page must not get, from names above all: control characters and bytes that are not UTF-8."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in value)


def _shell(text: str) -> Markup:
    """A command whose options are not broken behind their hyphens where lines end."""
    escaped = str(escape(_printable(text)))
    return Markup(re.sub(r"(?<!\S)--?\w[\w-]*", r'<span class="whole">\g<0></span>', escaped))


def _notes(run: Run) -> list[str]:
    """What must be known to read the headline."""
    notes = [
        "Measured with real files that libjpeg-turbo wrote and read. The test photos took no part in the search.",
        "95% intervals: photos resampled, the same ones for found and standard tables.",
    ]
    if math.isfinite(run.change_on_search):
        notes.append(
            f"On the {run.splits['search']:,} search photos, on which tables were chosen, it looked like"
            f" {fewer(run.change_on_search)}: the difference is the price of choosing."
        )
    if math.isfinite(run.clean) and run.metric != METRICS["agreement"]:  # with themselves they agree
        notes.append(f"Uncompressed, the test photos reach {run.clean:.1%} {run.metric}.")
    if _record(run.header, "photos").get("source") == "embedded":
        notes.append(
            "These are qtable's embedded photos, for trying the tool: they show the same places in several ways, so the"
            " intervals are too narrow."
        )
    if run.interrupted:
        notes.append("The search was interrupted; the same command continues it.")
    return notes


def _chart(
    figure: Figure, name: str, links: Mapping[str, tuple[str, Axes, float, float]] | None = None
) -> dict[str, Any]:
    """A picture; links: by the id of the place on the page they lead to, a title, axes and a point in their data."""
    drawn = Markup(plot.svg(figure, name))
    width, height = 72 * figure.get_size_inches()
    placed = []
    for target, (title, axes, x, y) in (links or {}).items():
        left, top = plot.places(axes, [x], [y])[0]
        placed.append({"id": target, "title": title, "x": f"{left * width:.1f}", "y": f"{top * height:.1f}"})
    return {"svg": drawn, "width": f"{width:.1f}", "height": f"{height:.1f}", "links": placed}


def _entry(point: Point) -> dict[str, Any]:
    """A point as `plot.front` takes it."""
    quality = point.name.removeprefix("quality:")
    return {
        "bytes": point.bytes.value,
        "score": point.score.value,
        "score_ci": point.score[1:],
        "quality": int(quality) if quality.isdecimal() else None,
    }


def _front_charts(run: Run, found_changes: Sequence[Estimate]) -> list[dict[str, Any]]:
    """The front over the standard curve, and the paired changes of bytes at equal score."""
    figure, axes = plot.new_axes(4.4, 3.5)
    axes.set_xmargin(0.12)  # room for the last name
    standard = [_entry(p) for p in run.standard]
    plot.front(axes, standard, "standard tables", plot.STANDARD_COLOUR, marker="s", names=True)
    axes.lines[0].set_markerfacecolor("white")  # to be told apart in grey
    for name in axes.texts:
        name.set_fontsize(SMALL)
    plot.front(axes, [_entry(p) for p in run.found], "found tables")
    axes.set_ylabel(textwrap.fill(_printable(f"{run.metric} (%)"), 30), parse_math=False)
    axes.legend(loc="lower right")
    links = {p.id: (_title(p), axes, p.bytes.value, 100 * p.score.value) for p in (*run.standard, *run.found)}
    charts = [_chart(figure, "front", links)]
    values = np.array(found_changes)
    if np.isfinite(values[:, 0]).any():
        figure, axes = plot.new_axes(4.4, 2.5)
        scores = np.array([p.score.value for p in run.found])
        plot.changes(axes, scores, *values.T)
        axes.set_xlabel(_printable(f"{run.metric} (%)"), parse_math=False)
        links = {
            p.id: (
                f"{p.name}: {fewer(c.value)} bytes (95% interval: {span(c)})",
                axes,
                100 * p.score.value,
                100 * c.value,
            )
            for p, c in zip(run.found, found_changes, strict=True)
            if math.isfinite(c.value)
        }
        charts.append(_chart(figure, "changes", links))
    return charts


def _title(point: Point) -> str:
    return f"{point.name}: {point.bytes.value:,.0f} bytes, {point.score.value:.1%}"


def _points(run: Run, found_changes: Sequence[Estimate]) -> Iterator[dict[str, Any]]:
    """What the page shows of each point, the found ones first."""
    nothing = [None] * len(run.standard)
    for point, change in zip((*run.found, *run.standard), (*found_changes, *nothing), strict=True):
        (small, large), (low, high) = point.bytes[1:], point.score[1:]
        known = change is not None and math.isfinite(change.value)
        yield {
            "id": point.id,
            "name": _spoken(point),
            "short": point.short,
            "standard": change is None,
            "bytes": f"{point.bytes.value:,.0f}",
            "bytes_interval": (f"{small:,.0f}", f"{large:,.0f}"),
            "score": f"{point.score.value:.1%}",
            "score_interval": (f"{low:.1%}", f"{high:.1%}"),
            "change": fewer(change.value) if change is not None and known else None,
            "change_interval": span(change) if change is not None and known else None,
            "tables": list(zip(_table_names(point.tables), _texts(point.tables), strict=True)),
        }


def _table_names(tables: QTables) -> tuple[str, ...]:
    return (("all components",), ("luma", "chroma"), COMPONENTS)[tables.count - 1]


def _texts(tables: QTables) -> list[str]:
    return ["\n".join(" ".join(f"{x:3d}" for x in row) for row in table) for table in tables.values.tolist()]


def _table_maps(run: Run) -> Iterator[dict[str, Any]]:
    """Heat maps of the tables for each saving against standard tables of nearly the same size."""
    for found in {found.name: found for _, found in run.pairs}.values():
        standard = run.nearest_standard(found)
        maps = []
        for component, name in enumerate(_table_names(found.tables)):
            figure, axes = plot.new_axes(3.4, 3.4)
            plot.table(axes, found.tables, component, standard.tables)
            maps.append({"name": name, **_chart(figure, f"{found.id}-{component}")})
        yield {
            "name": found.name,
            "bytes": f"{found.bytes.value:,.0f}",
            "standard": _spoken(standard),
            "standard_bytes": f"{standard.bytes.value:,.0f}",
            "maps": maps,
        }


def _rate(run: Run, images: ImageSet | None) -> dict[str, Any] | None:
    """Where bytes go with the chosen tables and with standard ones of nearly the same size; None if nothing tells."""
    found = run.chosen
    standard = run.nearest_standard(found)
    if images is not None:
        codec = Codec(run.codec.subsampling, "optimized" if run.codec.entropy == "progressive" else run.codec.entropy)
        photos = [images.test.images[i] for i in some_photos(images)]
        parts = [spent([codec.encode(photo, p.tables) for photo in photos]) for p in (standard, found)]
        source, count, exact = "test", len(photos), True
    elif isinstance(run.statistics, Sensitivity):
        parts = spent_estimates(run.statistics, [standard.tables, found.tables])
        source, count, exact = "fit", run.statistics.photos, False
    else:
        return None
    names = _spoken(standard), found.name
    charts = []
    for label, components in (("luma (Y)", [0]), ("chroma (Cb and Cr)", [1, 2])):
        figure, axes = plot.new_axes(4.4, 2.4)
        plot.spectrum(
            axes, [(n, part.frequencies[components].sum(axis=0)) for n, part in zip(names, parts, strict=True)]
        )
        axes.set_ylabel("bytes a photo")
        axes.legend(loc="upper right", title=label, fontsize=SMALL)
        charts.append(_chart(figure, f"rate-{components[0]}"))
    rows = [
        {"name": name, "bytes": [f"{b:,.1f}", f"{f:,.1f}"], "shares": [f"{b / whole[0]:.1%}", f"{f / whole[1]:.1%}"]}
        for (name, b), (_, f) in zip(*(_bands(part, exact) for part in parts), strict=True)
        for whole in [(parts[0].total, parts[1].total)]
    ]
    return {
        "exact": exact,
        "sequential": exact and run.codec.entropy == "progressive",
        "names": names,
        "source": source,
        "photos": f"{count:,}",
        "rows": rows,
        "charts": charts,
    }


def _bands(part: Spent, exact: bool) -> list[tuple[str, float]]:
    bands = [
        ("luma, mean of blocks (DC)", float(part.frequencies[0, 0])),
        ("luma, detail (AC)", float(part.frequencies[0, 1:].sum())),
        ("chroma Cb", float(part.frequencies[1].sum())),
        ("chroma Cr", float(part.frequencies[2].sum())),
    ]
    if exact:
        bands += [("ends of blocks", float(part.ends.sum())), ("headers, filling", part.rest)]
    return [*bands, ("together", part.total)]


def _sensitivity_maps(run: Run) -> dict[str, Any]:
    if isinstance(run.statistics, str):
        return {"without": run.statistics}
    maps = []
    for component, name in enumerate(COMPONENTS):
        figure, axes = plot.new_axes(3.4, 3.4)
        plot.sensitivity(axes, run.statistics, component)
        maps.append({"name": name, **_chart(figure, f"sensitivity-{component}")})
    return {"without": "", "maps": maps, "photos": f"{run.statistics.photos:,}"}


def _sizes(run: Run) -> dict[str, Any]:
    """How sizes are distributed over photos, with standard tables and with the found ones that are as good."""
    figure, axes = plot.new_axes(4.4, 3.8)
    rows = []
    for i, (standard, found) in enumerate(run.pairs):
        change = found.photo_bytes / standard.photo_bytes - 1
        for point, dashed in ((standard, True), (found, False)):
            name = _spoken(point)
            plot.sizes(axes, point.photo_bytes, name, i, dashed)
            low, middle, high = np.quantile(point.photo_bytes, (0.05, 0.5, 0.95))
            rows.append({"name": name, "cells": [f"{x:,.0f}" for x in (low, middle, high)], "note": ""})
        least, most = np.quantile(change, (0.05, 0.95))
        grown = int((found.photo_bytes > standard.photo_bytes).sum())
        rows[-1]["note"] = (
            f"{found.name} against {_spoken(standard)}, photo by photo: the median file changes by"
            f" {np.median(change):+.1%}, nine in ten between {least:+.1%} and {most:+.1%};"
            f" {grown:,} of {run.photos:,} grow."
        )
    handles, names = axes.get_legend_handles_labels()
    columns = handles[::2] + handles[1::2], names[::2] + names[1::2]
    figure.legend(*columns, loc="outside lower center", ncols=2, fontsize=SMALL)
    return {"chart": _chart(figure, "sizes"), "rows": rows}


def _worst(run: Run, images: ImageSet | None) -> dict[str, Any] | None:
    """Whose answers the chosen tables change against standard ones of nearly the same size; None without answers."""
    column = run.column
    if column is None:
        return None
    found = run.chosen
    standard = run.nearest_standard(found)
    before, after = (p.outcomes[:, column] > 0 for p in (standard, found))
    worst: dict[str, Any] = {
        "names": (_spoken(standard), found.name),
        "bytes": [f"{p.bytes.value:,.0f}" for p in (standard, found)],
        "lost": int((before & ~after).sum()),
        "gained": int((after & ~before).sum()),
        "photos": f"{run.photos:,}",
        "meaning": RIGHT[COLUMNS[column]],
        "classes": None,
        "crops": [],
    }
    if images is not None:
        worst["classes"] = _worst_classes(images, before, after)
        loss = found.outcomes[:, COLUMNS.index("cross-entropy")] - standard.outcomes[:, COLUMNS.index("cross-entropy")]
        lost = np.flatnonzero(before & ~after)
        worst["crops"] = list(
            _crops(run, images, standard, found, lost[np.argsort(-loss[lost], kind="stable")].tolist())
        )
    return worst


def _class_name(images: ImageSet, label: int) -> str:
    return images.classes[label] if label < len(images.classes) else f"class {label}"


def _worst_classes(images: ImageSet, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Classes with fewer right answers than before, the greatest loss first. before, after: bool [n]."""
    labels = images.test.labels
    rows: list[dict[str, Any]] = []
    for label in np.unique(labels):
        mine = labels == label
        photos, was, now = (int(x) for x in (mine.sum(), before[mine].sum(), after[mine].sum()))
        if now < was:
            rows.append({"name": _class_name(images, int(label)), "photos": photos, "before": was, "after": now})
    rows.sort(key=lambda row: row["after"] - row["before"])
    return {"rows": rows[:LISTED], "more": max(0, len(rows) - LISTED), "all": len(np.unique(labels))}


def _crops(run: Run, images: ImageSet, standard: Point, found: Point, worst: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Middles of photos as both tables leave them, as many as `CROPS` and `CROP_BYTES` allow."""
    room = CROP_BYTES
    for i in worst[:CROPS]:
        photo = images.test.images[i]
        decoded = (run.codec.decode(run.codec.encode(photo, p.tables)) for p in (standard, found))
        pictures = [_data_uri(_middle(image)) for image in decoded]
        room -= sum(map(len, pictures))
        if room < 0:
            return
        yield {
            "name": images.test.names[i],
            "class": _class_name(images, int(images.test.labels[i])),
            "pictures": pictures,
            "bytes": [f"{p.photo_bytes[i]:,}" for p in (standard, found)],
        }


def _middle(image: RGB) -> RGB:
    top, left = (max(0, (side - CROP_SIDE) // 2) for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + CROP_SIDE, left : left + CROP_SIDE])


def _data_uri(image: RGB) -> str:
    """Steps of 1 to 7 and no subsampling: what is to be seen stays to be seen."""
    file = Codec("4:4:4").encode(image, QTables.standard(95))
    return "data:image/jpeg;base64," + base64.b64encode(file).decode()


def _volumes(run: Run, price: float | None) -> Iterator[dict[str, Any]]:
    """Gigabytes (10^9 bytes) for millions of photos of the test photos' mean size."""
    for saving in run.savings:
        for millions in (1, 10, 100):
            before = saving.standard.bytes.value * millions / 1000
            saved = [-before * x for x in (saving.change.value, saving.change.high, saving.change.low)]
            yield {
                "name": saving.standard.short,
                "millions": millions,
                "before": f"{before:,.2f}",
                "after": f"{before - saved[0]:,.2f}",
                "saved": f"{saved[0]:,.2f}",
                "interval": (f"{saved[1]:,.2f}", f"{saved[2]:,.2f}") if math.isfinite(saved[1]) else None,
                "worth": None if price is None else f"{saved[0] * price:,.2f}",
            }


def _commands(run: Run) -> Iterator[dict[str, str]]:
    """How the chosen tables are used, with the run's sampling and entropy coding."""
    tables, codec = run.chosen.tables, run.codec
    file = shlex.quote(str(run.folder / run.chosen.name))
    sample = {"4:4:4": "1x1", "4:2:2": "2x1", "4:2:0": "2x2"}[codec.subsampling]
    flag = {"standard": "", "optimized": " -optimize", "progressive": " -progressive"}[codec.entropy]
    options = {"standard": "", "optimized": ", optimize=True", "progressive": ", progressive=True"}[codec.entropy]
    cjpeg = FORMATS["cjpeg"].use(tables, "tables.txt").replace("2x2", sample).replace(" -optimize", flag)
    pillow = FORMATS["pillow"].use(tables).replace("4:2:0", codec.subsampling).replace(", optimize=True", options)
    yield {"name": "cjpeg", "kind": "shell", "text": f"qtable export {file} --to cjpeg -o tables.txt\n{cjpeg}"}
    body = str(FORMATS["pillow"].body(tables))
    opened = 'from PIL import Image\n\nimage = Image.open("IN.png").convert("RGB")\n'
    yield {"name": "Pillow", "kind": "code", "text": f"{opened}{body}{pillow}"}
    coding = f"--subsampling {codec.subsampling} --entropy {codec.entropy}"
    yield {
        "name": "a folder of photos",
        "kind": "shell",
        "text": f"qtable compress PHOTOS SMALLER --tables {file} {coding}",
    }
    yield {
        "name": "other encoders",
        "kind": "shell",
        "text": f"qtable export {file} --to FORMAT\n# FORMAT: {', '.join(FORMATS)}",
    }


def _record(header: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of an archive's header; empty if it is missing or something else."""
    part = header.get(key)
    return part if isinstance(part, dict) else {}


def _provenance(run: Run, images: ImageSet | None) -> Iterator[tuple[str, str]]:
    identity = run.identity
    yield "command", str(run.header.get("command", "not recorded"))
    yield "commit", str(run.header.get("commit") or "not recorded")
    yield "versions", ", ".join(f"{name} {version}" for name, version in _record(run.header, "versions").items())
    yield "JPEG", ", ".join(run.coding.values())
    yield "photos", str(_record(run.header, "photos").get("source", "not recorded"))
    if images is not None and images.jpeg_sources:
        yield "JPEG before", f"{images.jpeg_sources:,} photos: a second compression behaves differently from a first"
    yield "splits", ", ".join(f"{name} {count:,}" for name, count in run.splits.items())
    yield "data digest", str(identity.get("data", "not recorded"))
    yield "model", str(identity.get("model", "not recorded"))
    yield "metric", run.metric
    method = [str(identity.get("method", "not recorded"))]
    method += [f"{key} {identity[key]}" for key in ("start", "racing") if identity.get(key)]
    yield "method", ", ".join(method)
    yield "evaluations", f"{run.evaluations:,} tables on the search photos"
    yield "seed", str(identity.get("seed", "not recorded"))
    yield "report", f"qtable {metadata.version('qtable')}"


def _skipped(run: Run) -> dict[str, Any]:
    """Files that were no readable photos."""
    listed = run.header.get("skipped")
    rows = [item for item in listed if isinstance(item, list) and len(item) == 2] if isinstance(listed, list) else []
    named = [(str(name), str(reason)) for name, reason in rows[:LISTED]]
    return {"rows": named, "more": max(0, len(rows) - LISTED), "all": len(rows)}
