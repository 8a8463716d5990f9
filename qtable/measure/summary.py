"""What summary.json holds: all that a run claims, measured on `test` with paired intervals; written and read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive, Record
from qtable.measure.evaluate import Score
from qtable.measure.front import Curve, Floats, Measured, bd_rate, hypervolume, interval, pareto, resamples, size_change
from qtable.measure.noninferiority import Change, last_non_inferior, photos_needed
from qtable.photos.sets import ImageSet, Split
from qtable.tasks.base import Outcomes, Task
from qtable.tasks.several import part_of

QUALITIES: Final = (5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 70, 75, 80, 85, 90, 95)
"""The standard tables that everything is compared with."""
RESAMPLES: Final = 1000
STANDARD: Final = "standard"
"""The origin of baseline records."""


def front_records(archive: Archive, split: Split = "search") -> list[Record]:
    """The nondominated records of a split, standard tables left out, by rising size."""
    records = archive.records(split, without=STANDARD)
    if not records:
        return []
    return [records[i] for i in pareto([r.score.bytes for r in records], [r.score.score for r in records])]


def _curve(scores: Sequence[Score]) -> Curve:
    return Curve.fit([s.bytes for s in scores], [s.score for s in scores])


def summarize(
    archive: Archive,
    baseline: Sequence[Score],
    found: Sequence[Score],
    images: ImageSet,
    task: Task,
    codec: Codec,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Everything that is claimed, measured on `test` with paired bootstrap intervals (95%, photos resampled)."""
    standard, ours = Measured.of(baseline), Measured.of(found)
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
        "savings": _savings(archive, curves, drawn, standard.sizes.mean(axis=1), [a[0] for a, _ in points], codec),
    }
    return dict(numbers(summary))


def _savings(
    archive: Archive,
    curves: tuple[Curve, Curve],
    drawn: Sequence[tuple[Curve, Curve]],
    sizes: Floats,
    drawn_sizes: Sequence[Floats],
    codec: Codec,
) -> list[dict[str, Any]]:
    """At each standard quality's size the change of bytes at equal score, where the found curve has that score.

    curves: the standard tables' and the found ones'; drawn: of each resample. sizes: [qualities], and of each resample.
    """
    savings = []
    for i, quality in enumerate(QUALITIES):
        level = float(np.interp(np.log(sizes[i]), curves[0].log_sizes, curves[0].scores))
        change = size_change(*curves, level)
        if not np.isfinite(change):
            continue
        resampled = [
            size_change(a, b, float(np.interp(np.log(own[i]), a.log_sizes, a.scores)))
            for (a, b), own in zip(drawn, drawn_sizes, strict=True)
        ]
        use = _smallest_as_good(archive, TableCoder(QTables.standard(quality), codec))
        savings.append(
            {"quality": quality, "score": level, "change": change, "change_ci": interval(resampled), "use": use}
        )
    return savings


def judged(
    names: Sequence[str],
    baseline: Sequence[Score],
    found: Sequence[Score],
    clean: Outcomes,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """What networks say that nothing was chosen by: of each the BD-rate with its paired interval, and both curves.

    Scores and clean outcomes are those of `Several`, whose tasks after the first are the judges.
    """
    draws, rows = resamples(len(clean), RESAMPLES, rng), []
    for i, name in enumerate(names, start=1):
        standard, ours = (
            Measured.of([Score(s.coder, s.photo_bytes, part_of(s.outcomes, i)) for s in scores])
            for scores in (baseline, found)
        )
        rates = [bd_rate(standard.curve(draw), ours.curve(draw)) for draw in draws]
        points = [
            [{"bytes": float(b), "score": float(s)} for b, s in zip(*m.points(), strict=True)] for m in (standard, ours)
        ]
        rows.append(
            {
                "model": name,
                "clean": part_of(clean, i).score(),
                "bd_rate": bd_rate(standard.curve(), ours.curve()),
                "bd_rate_ci": interval(rates),
                "baseline": points[0],
                "front": points[1],
            }
        )
    return list(numbers(rows))


def numbers(value: Any) -> Any:
    """The same nested value with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [numbers(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def pick(
    baseline: Sequence[Score], found: Sequence[Score], clean: Outcomes, metric: str, max_drop: float
) -> dict[str, Any]:
    """The smallest found and the smallest standard tables proved to lose at most `max_drop` (see `noninferiority`).

    Both lists by rising size on `search` (standard ones by quality): each is tested from the largest down, an order
    that the test photos did not choose. ValueError for metrics that are no share of right answers.
    """

    def smallest(scores: Sequence[Score], names: Sequence[str]) -> tuple[dict[str, Any] | None, int | None]:
        before = clean.right()
        rows = [score.outcomes.right() for score in scores]
        if before is None or any(row is None for row in rows):
            raise ValueError(f"--max-drop needs a metric that counts right answers, not {metric}")
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


def _smallest_as_good(archive: Archive, coder: Coder) -> str | None:
    """The file of the smallest front tables that score at least as well as a standard coder, judged on `search`."""
    standard = archive.find("search", coder)
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
