"""How many photos does a free table need before it beats a smooth one? `python -m benchmarks.samples`.

Tables of the run-aware solver from n photos of one half of the ImageNet photos, tested on the other half, both ways
round: free (no shrinkage), smooth (the nearest smooth surface, whose 8 terms take the place of 64 numbers) and the
default in between (`shrinkage_for`). Draws of n photos are nested: a draw's first 4, first 8, and so on. What is
tested is kept in runs/samples, so an interrupted run continues. Needs ../shared. `--page` writes the page and the
picture anew from samples.json.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import tables
from benchmarks.halves import FIVE_POINTS, classifier, half_of, halves, solver, swept, tested
from benchmarks.study import Tested, averaged, run_study, text, write_page
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.sensitivity import Sensitivity, measure
from qtable.photos.sets import Photos
from qtable.report import plot
from search.closed_form import shrinkage_for
from search.methods import DISTILLED_AT
from search.refine import RunAware

CACHE: Final = Path("runs/samples")
OUT: Final = Path("results/samples")
NETWORK: Final = "mobilenet_v1_050_160"
DRAWS: Final = {4: 3, 8: 3, 16: 3, 32: 2, 64: 2, 128: 1, 250: 1}
"""How many draws of so many photos in each half."""
SOLUTIONS: Final = ("free", "smooth", "default")
PAIRS: Final = (("free", "smooth"), ("default", "smooth"), ("default", "free"))
LEAST: Final = 0.1
"""Where the default is shrunk less than this, it is nearly the free solution and left out."""

GROUPS: Final = {"4 to 16": (4, 8, 16), "64 to 250": (64, 128, 250)}
"""Numbers of photos whose draws are also averaged, since one number alone decides little."""


@cache
def drawn(half: int, draw: int, number: int) -> Photos:
    """The first `number` photos of a draw."""
    photos = halves()[half]
    return photos.subset(np.random.default_rng([half, draw]).permutation(len(photos))[:number])


@cache
def statistics_of(half: int, draw: int, number: int) -> Sensitivity:
    """Of a draw's first photos: those of the first half of them and of the rest add up."""
    photos = drawn(half, draw, number)
    if number == len(halves()[half]):
        return tables.statistics(half, NETWORK, "4:2:0", tables.DISTILLED)
    known = number // 2 if number > min(DRAWS) else 0
    rest = photos.subset(range(known, number))
    measured = measure(rest, classifier(NETWORK), Codec(), target="distillation", at=DISTILLED_AT)
    return statistics_of(half, draw, known) + measured if known else measured


@cache
def solver_of(half: int, draw: int, number: int) -> RunAware:
    return solver(drawn(half, draw, number), statistics_of(half, draw, number), "4:2:0")


def solution(name: str, draw: int, number: int) -> Tested:
    """One of `SOLUTIONS` from a draw's first `number` photos of each half, on the other half."""
    shrinkage = {"free": 0.0, "smooth": 1.0, "default": shrinkage_for(number)}[name]

    def made(half: int) -> list[QTables]:
        return swept(replace(solver_of(half, draw, number), shrinkage=shrinkage), FIVE_POINTS)

    return tested(CACHE / f"{name}-{number}-{draw}.npz", half_of, Codec(), (NETWORK,), made)


def solutions(number: int) -> tuple[str, ...]:
    return SOLUTIONS if shrinkage_for(number) >= LEAST else SOLUTIONS[:2]


def study() -> dict[str, Any]:
    """Per number of photos: each solution against standard tables, and against each other."""
    for draw in range(max(DRAWS.values())):
        for number in (n for n, draws in DRAWS.items() if draw < draws):
            for name in solutions(number):
                solution(name, draw, number)
    standard = tables.standard(Codec()).curves(NETWORK)
    rows, known = {}, {}
    for number, draws in DRAWS.items():
        curves = {name: [solution(name, d, number).curves(NETWORK) for d in range(draws)] for name in solutions(number)}
        known[number] = curves
        rows[str(number)] = {
            "draws": draws,
            "shrinkage": shrinkage_for(number),
            **{name: averaged([standard] * draws, curves[name]) for name in curves},
            **{f"{a} against {b}": averaged(curves[b], curves[a]) for a, b in PAIRS if {a, b} <= set(curves)},
        }
    groups = {
        name: averaged(*([c for n in numbers for c in known[n][kind]] for kind in ("smooth", "free")))
        for name, numbers in GROUPS.items()
    }
    return {"network": NETWORK, "points": FIVE_POINTS, "photos": rows, "groups, free against smooth": groups}


def enough(rows: dict[str, Any]) -> str:
    """With which numbers of photos free is proved ahead of smooth, or behind."""
    gaps = {n: row["free against smooth"]["bd_rate_ci"] for n, row in rows.items()}
    behind = [n for n, (low, _) in gaps.items() if low > 0]
    ahead = [n for n, (_, high) in gaps.items() if high < 0]
    proved = [(behind, "Smooth tables"), (ahead, "Free tables")]
    said = [f"{who} are proved ahead with {', '.join(numbers)} photos." for numbers, who in proved if numbers]
    if not ahead:
        said.append(
            f"Free tables are not proved ahead of smooth ones with any number of photos up to {list(rows)[-1]}."
        )
    return " ".join(said)


def page(found: dict[str, Any]) -> None:
    rows = found["photos"]
    lines = [
        "# How many photos does a free table need before it beats a smooth one?",
        "",
        enough(rows),
        "Change of bytes at equal agreement, free against smooth: "
        + "; ".join(f"{n} photos {text(row['free against smooth'])}" for n, row in rows.items())
        + ".",
        "",
        "500 ImageNet photos (shorter side at most 256), MobileNetV1 0.5/160, agreement, 4:2:0, real files of",
        "libjpeg-turbo. Tables come from n photos of one half and are tested on the 250 of the other, both ways round;",
        f"{len(found['points'])} points per curve. Free: the run-aware solver as it is, 64 numbers a table. Smooth:",
        "its tables moved onto the nearest surface of 8 terms (shrinkage 1). Default: moved by 8 / (8 + n) of the way;",
        f"left out where that is less than {LEAST:.0%}.",
        "Change of bytes at equal agreement (BD-rate), mean over the draws, with 95% paired bootstrap intervals over",
        "the photos tested on; they do not hold the chance of which photos were drawn. Draws are nested, so rows",
        "share photos. `python -m benchmarks.samples` remakes this page.",
        "",
        "![bytes at equal agreement over the number of photos](samples.png)",
        "",
        "## Against standard tables",
        "",
        "| photos | draws in each half | free | smooth | default | shrinkage of the default |",
        "|---" * 6 + "|",
    ]
    for number, row in rows.items():
        cells = [text(row.get(name)) for name in SOLUTIONS]
        lines.append(f"| {number} | {row['draws']} | " + " | ".join(cells) + f" | {row['shrinkage']:.0%} |")
    pairs = [f"{a} against {b}" for a, b in PAIRS]
    lines += [
        "",
        "## Against each other",
        "",
        "| photos | " + " | ".join(pairs) + " | each draw, free against smooth |",
    ]
    lines += ["|---" * 5 + "|"]
    for number, row in rows.items():
        each = ", ".join(f"{x:+.1%}" for x in row[pairs[0]]["seeds"])
        lines.append(f"| {number} | " + " | ".join(text(row.get(pair)) for pair in pairs) + f" | {each} |")
    shown = "; ".join(f"{name} photos {text(entry)}" for name, entry in found["groups, free against smooth"].items())
    lines += ["", f"Free against smooth, mean over the draws of several numbers of photos: {shown}."]
    write_page(OUT, lines)
    picture(rows)


def picture(rows: dict[str, Any]) -> None:
    """BD-rate over the number of photos, a line for each solution."""
    figure, axes = plot.new_axes()
    for i, name in enumerate(SOLUTIONS):
        shown = {int(n): row[name] for n, row in rows.items() if name in row}
        numbers = np.array(list(shown)) * 1.03 ** (i - 1)
        rates = 100 * np.array([entry["bd_rate"] for entry in shown.values()])
        ends = 100 * np.array([entry["bd_rate_ci"] for entry in shown.values()]).T
        axes.errorbar(
            numbers,
            rates,
            np.abs(ends - rates),
            marker="os^"[i],
            color=plot.COLOURS[i],
            label=name,
            linewidth=1.4,
            elinewidth=0.8,
            capsize=2,
        )
    axes.axhline(0, color=plot.STANDARD_COLOUR, linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks([int(n) for n in rows], list(rows))
    axes.set_xlabel("photos that tables are made from (log scale)")
    axes.set_ylabel("bytes at equal agreement against standard tables (%)")
    axes.grid(True, alpha=0.25)
    axes.legend(fontsize=8)
    figure.savefig(OUT / "samples.png")


if __name__ == "__main__":
    run_study(OUT / "samples.json", CACHE, study, page)
