"""Pictures: fronts and tables as matplotlib axes; colour-blind-safe (Okabe and Ito's colours) and readable in grey."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qtable.jpeg.tables import QTables
from qtable.measure.sensitivity import Sensitivity

STANDARD_COLOUR: Final = "#555555"
FOUND_COLOUR: Final = "#0072B2"
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Floats = npt.NDArray[np.float64]
_TIMES: Final = "\N{MULTIPLICATION SIGN}"


def new_axes(width: float = 7.0, height: float = 4.6, columns: int = 1) -> tuple[Figure, Any]:
    """A figure that needs no display and its axes (an array of them for several columns)."""
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    return figure, figure.subplots(1, columns)


def front(
    axes: Axes,
    points: Sequence[dict[str, Any]],
    label: str,
    colour: str = FOUND_COLOUR,
    marker: str = "o",
    names: bool = False,
) -> Axes:
    """Mean file size against score, with 95% intervals of the score.

    points: dicts of "bytes" and "score" (0..1), optionally "score_ci" [low, high] and, for `names`, "quality".
    """
    points = sorted(points, key=lambda p: float(p["bytes"]))
    sizes = np.array([p["bytes"] for p in points], float)
    scores = 100 * np.array([p["score"] for p in points], float)
    if points and all("score_ci" in p for p in points):
        low, high = (100 * np.array([p["score_ci"][side] for p in points], float) for side in (0, 1))
        axes.fill_between(sizes, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(sizes, scores, marker=marker, color=colour, label=label, markersize=4.5, linewidth=1.4)
    if names:
        for p, size, score in zip(points, sizes, scores, strict=True):
            if p["quality"] in (5, 10, 20, 30, 50, 75, 90, 95):
                axes.annotate(
                    f"q{p['quality']}",
                    (size, score),
                    xytext=(4, -10),
                    textcoords="offset points",
                    fontsize=7,
                    color=colour,
                )
    axes.set_xscale("log")
    _plain_log_ticks(axes)
    axes.set_xlabel("mean file size (bytes, log scale)")
    axes.grid(True, alpha=0.25)
    return axes


def progress(axes: Axes, spent: Floats, lines: Floats, label: str, index: int) -> Axes:
    """How something grew with the evaluations spent: the median of lines float64 [seeds, n], and their range.

    index: chooses colour, dashes and marker, so that a dozen lines can be told apart, in grey as well.
    """
    colour = COLOURS[index % len(COLOURS)]
    style = ("-", "--", ":")[index // len(COLOURS) % 3]
    axes.fill_between(spent, lines.min(axis=0), lines.max(axis=0), color=colour, alpha=0.1, linewidth=0)
    marker = "osD^vP*X<>"[index % 10]
    axes.plot(
        spent, np.median(lines, axis=0), style, color=colour, label=label, marker=marker, markevery=0.15, markersize=4
    )
    axes.set_xlabel("evaluations spent")
    axes.grid(True, alpha=0.25)
    return axes


def table(axes: Axes, tables: QTables, component: int = 0, reference: QTables | None = None) -> Axes:
    """One component's table (0 = Y, 1 = Cb, 2 = Cr) as a heat map with its numbers; colour = log2 of the entry.

    With `reference` the colour is log2(entry / the reference's entry): purple finer, orange coarser; the ratio stands
    below each number, for those who see no colours.
    """
    values = tables.components()[component].astype(float)
    if reference is None:
        axes.imshow(np.log2(values), cmap="Greys", vmin=0, vmax=8)
        words = [[f"{entry:.0f}" for entry in row] for row in values]
        return _numbered(axes, words, np.log2(values) > 5)
    ratio = values / reference.components()[component]
    axes.imshow(np.log2(ratio), cmap="PuOr_r", vmin=-3, vmax=3)
    pairs = zip(values, ratio, strict=True)
    words = [[f"{entry:.0f}\n{_TIMES}{times:.2g}" for entry, times in zip(*rows, strict=True)] for rows in pairs]
    return _numbered(axes, words, np.abs(np.log2(ratio)) > 2)


def sensitivity(axes: Axes, statistics: Sensitivity, component: int = 0) -> Axes:
    """What an error at each frequency of a component (0 = Y, 1 = Cb, 2 = Cr) costs the model, as a heat map.

    The numbers are the mean of g^2 over coefficients, in percent of the greatest of all components; colour = their
    logarithm, the darker the dearer.
    """
    counts = np.maximum(statistics.levels.sum(axis=2), 1)
    share = statistics.costs.sum(axis=2) / counts
    share = (share / max(share.max(), np.finfo(float).tiny))[component].reshape(8, 8)
    shade = np.log10(np.maximum(share, 1e-4))
    axes.imshow(shade, cmap="Greys", vmin=-4, vmax=0)
    return _numbered(axes, [[_two_digits(100 * value) for value in row] for row in share], shade > -1.5)


def _two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _numbered(axes: Axes, words: Sequence[Sequence[str]], dark: npt.NDArray[np.bool_]) -> Axes:
    """The cells of an 8 x 8 heat map with a word in each; dark: where the word must be white."""
    for (u, v), white in np.ndenumerate(dark):
        colour = "white" if white else "black"
        cell = axes.text(v, u, words[u][v], ha="center", va="center", fontsize=7, color=colour)
        cell.set_in_layout(False)  # inside the axes anyway, and measuring 64 texts takes long
    axes.set_xlabel("horizontal frequency")
    axes.set_ylabel("vertical frequency")
    axes.set_xticks(range(8))
    axes.set_yticks(range(8))
    return axes


def changes(axes: Axes, scores: Floats, values: Floats, low: Floats, high: Floats) -> Axes:
    """Changes of size at equal score (fractions), with their intervals, over the scores (0..1); 0 = standard tables."""
    shown = np.isfinite(values)
    axes.axhline(0, color=STANDARD_COLOUR, linewidth=1.4)
    axes.vlines(100 * scores[shown], 100 * low[shown], 100 * high[shown], color=FOUND_COLOUR, linewidth=1.4)
    axes.plot(100 * scores[shown], 100 * values[shown], "o", color=FOUND_COLOUR, markersize=4.5)
    axes.set_ylabel("change of bytes (%)")
    axes.grid(True, alpha=0.25)
    return axes


def sizes(axes: Axes, photo_bytes: npt.NDArray[np.int64], label: str, index: int, dashed: bool = False) -> Axes:
    """The share of photos whose files are at most so large. photo_bytes: int64 [n]. index: chooses colour, marker."""
    values, share = np.sort(photo_bytes), np.arange(1, len(photo_bytes) + 1) / len(photo_bytes)
    style, width = ("--", 1.2) if dashed else ("-", 1.8)
    look: dict[str, Any] = {"marker": "osD^vP*X"[index % 8], "markevery": 0.2, "markersize": 4, "linewidth": width}
    axes.step(values, 100 * share, style, where="post", color=COLOURS[index % len(COLOURS)], label=label, **look)
    axes.set_xscale("log")
    _plain_log_ticks(axes)
    axes.set_xlabel("file size (bytes, log scale)")
    axes.set_ylabel("photos with smaller files (%)")
    axes.grid(True, alpha=0.25)
    return axes


def spectrum(axes: Axes, spent: Sequence[tuple[str, Floats]]) -> Axes:
    """Bars of what frequencies take, summed over diagonals: u + v = 0 (the mean of a block) to 14 (finest detail).

    spent: one or two of (label, float64 [64] in natural order); the last is drawn filled, one before it hollow.
    """
    diagonal = np.add.outer(np.arange(8), np.arange(8)).ravel()
    width = 0.8 / len(spent)
    colours = (("white", STANDARD_COLOUR), (FOUND_COLOUR, FOUND_COLOUR))
    for i, (label, values) in enumerate(spent):
        left, (fill, edge) = np.arange(15) - 0.4 + i * width, colours[i - len(spent)]
        heights = np.bincount(diagonal, values, 15)
        axes.bar(left, heights, width, align="edge", label=label, color=fill, edgecolor=edge)
    axes.set_xticks(range(0, 15, 2))
    axes.set_xlabel("frequency: row + column in the 8 x 8 table")
    axes.grid(True, axis="y", alpha=0.25)
    return axes


def _plain_log_ticks(axes: Axes) -> None:
    """1,000 and not 10^3 along a logarithmic x axis; fewer numbers over more than a decade."""
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5) if high > 10 * low else (1, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())


def places(axes: Axes, x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Where points lie in a figure that was drawn: float64 [n, 2], fractions of its width and, from the top, height."""
    box = axes.figure.bbox
    at = axes.transData.transform(np.column_stack([x, y])) / (box.width, box.height)
    placed: Floats = np.column_stack([at[:, 0], 1 - at[:, 1]])
    return placed


def svg(figure: Figure, name: str) -> str:
    """An `<svg>` element to stand in an HTML page: text as text, no ids but those that it uses, made from `name`."""
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.sans-serif": ["DejaVu Sans"]}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*|<style.*?</style>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:xmlns(?::\w+)?|version)="[^"]*"', "", text)
    used = set(re.findall(r"#([\w-]+)", text))
    return re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
