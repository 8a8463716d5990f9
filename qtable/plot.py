"""Pictures: fronts and tables as matplotlib axes; colour-blind-safe (Okabe and Ito's colours) and readable in grey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qtable.tables import QTables

STANDARD_COLOUR: Final = "#555555"
FOUND_COLOUR: Final = "#0072B2"
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Floats = npt.NDArray[np.float64]


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
    axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
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

    With `reference` the colour is log2(entry / the reference's entry): blue finer, orange coarser.
    """
    values = tables.components()[component].astype(float)
    if reference is None:
        axes.imshow(np.log2(values), cmap="Greys", vmin=0, vmax=8)
    else:
        ratio = np.log2(values / reference.components()[component])
        axes.imshow(ratio, cmap="PuOr_r", vmin=-3, vmax=3)
    for (u, v), entry in np.ndenumerate(values):
        dark = np.log2(entry) > 5 if reference is None else abs(ratio[u, v]) > 2
        axes.text(v, u, f"{entry:.0f}", ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set_xlabel("horizontal frequency")
    axes.set_ylabel("vertical frequency")
    axes.set_xticks(range(8))
    axes.set_yticks(range(8))
    return axes
