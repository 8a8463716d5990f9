"""The pictures of a report."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qtable.codecs.plain import TableCoder
from qtable.jpeg.codec import Codec
from qtable.measure.sensitivity import Sensitivity
from qtable.photos.sets import ImageSet
from qtable.report import plot
from qtable.report.photos import some_photos
from qtable.report.run import Estimate, Point, Run
from qtable.report.spent import Spent, spent, spent_estimates
from qtable.report.words import COMPONENTS, _printable, _spoken, _table_names, fewer, span

SMALL: Final = 8
"""Of the smallest words in charts, in points: still legible where a phone shows a chart at 350 pixels."""


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
    if not isinstance(found.coder, TableCoder) and (images is None or not run.makes_files):
        return None  # statistics tell of rounded levels alone
    if images is not None:
        codec = Codec(run.codec.subsampling, "optimized" if run.codec.entropy == "progressive" else run.codec.entropy)
        photos = [images.test.images[i] for i in some_photos(images)]
        coders = [
            TableCoder(p.tables, codec) if isinstance(p.coder, TableCoder) else p.coder for p in (standard, found)
        ]
        parts = [spent([coder.encode(photo) for photo in photos]) for coder in coders]
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
