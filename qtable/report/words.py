"""What a run found, in words."""

from __future__ import annotations

import math
from typing import Any, Final

from markupsafe import Markup

from qtable.jpeg.tables import QTables
from qtable.report.run import Estimate, Point, Run, Saving

COMPONENTS: Final = ("Y", "Cb", "Cr")
LISTED: Final = 20
"""Classes and skipped photos that are named; the rest is counted."""


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


def judge_sentence(run: Run, name: str, change: Estimate) -> str:
    """What a network says by which nothing was chosen."""
    if not math.isfinite(change.value):
        return f"By {name}, by which nothing was chosen, the bytes cannot be compared: no scores in common."
    return (
        f"By {name}, by which nothing was chosen, they need {fewer(change.value)} bytes at equal {run.metric} (95%"
        f" interval: {span(change)})."
    )


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


def _printable(value: Any) -> Any:
    """Escapes for what a page must not get, from names above all: control characters and bytes that are not UTF-8."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in value)


def _table_names(tables: QTables) -> tuple[str, ...]:
    return (("all components",), ("luma", "chroma"), COMPONENTS)[tables.count - 1]


def _texts(tables: QTables) -> list[str]:
    return ["\n".join(" ".join(f"{x:3d}" for x in row) for row in table) for table in tables.values.tolist()]
