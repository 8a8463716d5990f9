"""What the studies share: measured tables, resamples of photos and intervals over them, and a page of results."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from qtable.files import write_atomically
from qtable.measure.evaluate import Score
from qtable.measure.front import Curve, bd_rate, interval, resamples, size_change
from qtable.report import plot
from qtable.tasks.base import Outcomes
from qtable.tasks.classification import ClassOutcomes
from qtable.tasks.several import SideBySide

SHARED: Final = Path("../shared")
RESAMPLES: Final = 1000
METRICS: Final = ("top-1", "agreement")
COLUMNS: Final = ("top-1", "top-5", "agreement", "cross-entropy")
"""What is kept of a classifier's outcomes, in this order: 0/1, 0/1, 0/1, nats."""

Floats = np.ndarray[Any, np.dtype[np.float64]]
Curves = list[Curve]
"""Of all photos, then of each resample."""

# ---- what was measured ----------------------------------------------------------------------------------------


@cache
def weights(photos: int) -> Floats:
    """float64 [resamples + 1, photos], rows that sum to 1: all photos alike, then resamples; always the same."""
    draws = resamples(photos, RESAMPLES, np.random.default_rng(0))
    return np.stack([np.ones(photos), *(np.bincount(d, minlength=photos) for d in draws)]) / photos


def curves_of(sizes: npt.ArrayLike, scores: npt.ArrayLike) -> Curves:
    """Of tables on photos, [k, n] each."""
    sizes, scores = np.asarray(sizes, float), np.asarray(scores, float)
    w = weights(sizes.shape[1])
    return [Curve.fit(*point) for point in zip(w @ sizes.T, w @ scores.T, strict=True)]


@dataclass(frozen=True)
class Tested:
    """Tables on photos: sizes int64 [k, n]; per network outcomes float64 [k, n, len(COLUMNS)]."""

    sizes: np.ndarray[Any, np.dtype[np.int64]]
    outcomes: dict[str, Floats]

    def scores(self, network: str, metric: str) -> Floats:
        """float64 [k, n]."""
        return self.outcomes[network][..., COLUMNS.index(metric)]

    def curves(self, network: str, metric: str = "agreement") -> Curves:
        return curves_of(self.sizes, self.scores(network, metric))


def columns_of(outcomes: Outcomes) -> Floats:
    """float64 [n, networks x len(COLUMNS)] of one classifier's outcomes, or of several side by side."""
    columns: list[npt.NDArray[Any]] = []
    for part in outcomes.parts if isinstance(outcomes, SideBySide) else (outcomes,):
        if not isinstance(part, ClassOutcomes):
            raise TypeError(f"outcomes of kind {part.kind!r}; only those of classifiers are kept")
        columns += [part.cross_entropy if name == "cross-entropy" else part.hits[name] for name in COLUMNS]
    return np.column_stack(columns).astype(np.float64)


def kept(file: Path, networks: Sequence[str], scored: Callable[[], Sequence[Sequence[Score]]]) -> Tested:
    """What is in `file`; if it is not there, made first: scores of each part of the photos, of each table."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        parts = scored()
        new = file.with_suffix(".part.npz")
        np.savez_compressed(
            new,
            sizes=np.hstack([[s.photo_bytes for s in part] for part in parts]),
            outcomes=np.hstack([[columns_of(s.outcomes) for s in part] for part in parts]),
        )
        new.replace(file)
        print(f"{file.stem}: {time.monotonic() - start:.0f} s", flush=True)
    with np.load(file) as data:
        outcomes = np.split(data["outcomes"], len(networks), axis=2)
        return Tested(data["sizes"], dict(zip(networks, outcomes, strict=True)))


# ---- comparisons ----------------------------------------------------------------------------------------------


def averaged(anchors: Sequence[Curves], others: Sequence[Curves]) -> dict[str, Any]:
    """Mean BD-rate over pairs of curves (seeds, draws), its paired interval over photos, and each pair's own."""
    rates = np.array(
        [[bd_rate(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(anchors, others, strict=True)]
    )
    mean = rates.mean(axis=0)
    return {"bd_rate": mean[0], "bd_rate_ci": interval(mean[1:]), "seeds": rates[:, 0].tolist()}


def compared(anchor: Tested, other: Tested, network: str, plain: Tested | None = None) -> dict[str, Any]:
    """Of each metric the BD-rate against `anchor`; with `plain` also against that. Intervals are paired."""
    result: dict[str, Any] = {}
    for metric in METRICS:
        ours, standard = other.curves(network, metric), anchor.curves(network, metric)
        rates = [bd_rate(a, b) for a, b in zip(standard, ours, strict=True)]
        sizes, scores = other.sizes.mean(axis=1), other.scores(network, metric).mean(axis=1)
        top = float(standard[0].scores[-1])
        result[metric] = {
            "bd_rate": rates[0],
            "bd_rate_ci": interval(rates[1:]),
            "points": np.column_stack([sizes, scores]).tolist(),
            "size_change_at": {f"{top - d:.3f}": size_change(standard[0], ours[0], top - d) for d in (0.02, 0.05, 0.1)},
        }
        if plain is not None:
            changes = [bd_rate(a, b) for a, b in zip(plain.curves(network, metric), ours, strict=True)]
            result[metric] |= {"against_plain": changes[0], "against_plain_ci": interval(changes[1:])}
    return result


# ---- the page -------------------------------------------------------------------------------------------------


def text(entry: Mapping[str, Any] | None, key: str = "bd_rate") -> str:
    """For people: +1.2% [-0.3%, +2.1%]."""
    if entry is None or not np.isfinite(entry.get(key, np.nan)):
        return "-"
    low, high = entry[f"{key}_ci"]
    return f"{entry[key]:+.1%} [{low:+.1%}, {high:+.1%}]"


def forest(
    axes: Axes, rows: Sequence[tuple[str, Mapping[str, Any], int]], label: str, key: str = "bd_rate", size: float = 8
) -> None:
    """One row for each (name, entry, group): the change `key` in percent, with its interval."""
    for at, (_, entry, group) in enumerate(rows):
        low, high = entry[f"{key}_ci"]
        axes.plot([100 * low, 100 * high], [at, at], color=plot.COLOURS[group], linewidth=1.6)
        axes.plot(100 * entry[key], at, "os^"[group], color=plot.COLOURS[group])
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=size)
    axes.invert_yaxis()
    axes.axvline(0, color=plot.STANDARD_COLOUR, linewidth=0.8)
    axes.set_xlabel(label, fontsize=8)
    axes.grid(True, axis="x", alpha=0.25)


def write_page(out: Path, lines: Sequence[str]) -> None:
    """README.md of `lines`, with the hand-written reading.md, where there is one, behind them."""
    reading = out / "reading.md"
    whole = "\n".join(lines).rstrip() + "\n" + ("\n" + reading.read_text() if reading.exists() else "")
    write_atomically(out / "README.md", whole.encode())


def run_study(
    file: Path,
    work: Path,
    study: Callable[[], dict[str, Any]],
    page: Callable[[dict[str, Any]], None],
    needs: Path | None = SHARED / "data/imagenet",
) -> None:
    """Write to `file` (JSON) what `study` finds, then its page beside it; with `--page` the page alone.

    work: the folder of what is kept on the way. needs: a folder without which the study is skipped.
    """
    if "--page" not in sys.argv:
        if needs is not None and not needs.is_dir():
            sys.exit(f"benchmarks.{file.stem}: {needs} is not here; skipped")
        for folder in (file.parent, work):
            folder.mkdir(parents=True, exist_ok=True)
        start = time.process_time()
        found = study()
        print(f"{file.stem}: {(time.process_time() - start) / 60:.1f} CPU minutes", flush=True)
        write_atomically(file, (json.dumps(found, indent=1) + "\n").encode())
    page(json.loads(file.read_text()))
