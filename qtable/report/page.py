"""One page on a run: what its tables save, which they are, whom they hurt, what that means, and how to use them.

All figures come from the run folder (summary.json, archive.jsonl, tables/, statistics.npz) and were measured on `test`;
where the photos can be opened again, files of some of them are written anew. The page needs no network, and no script
but for convenience.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from qtable.codecs.plain import TableCoder
from qtable.encoders.formats import FORMATS
from qtable.photos.sets import ImageSet
from qtable.report.charts import _front_charts, _rate, _sensitivity_maps, _sizes, _table_maps
from qtable.report.run import Estimate, Run, changes
from qtable.report.words import (
    LISTED,
    _printable,
    _spoken,
    _table_names,
    _texts,
    fewer,
    headline,
    judge_sentence,
    saving_sentence,
    span,
)
from qtable.report.worst import _worst


def page(run: Run, images: ImageSet | None, without: str = "", price: float | None = None) -> str:
    """The HTML of the report. images: the run's photos, or None, and then `without` says why.

    price: of a gigabyte (10^9 bytes), in any currency.
    """
    loader = PackageLoader("qtable.report")
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
        unmade=_unmade(run, without),
        volumes=list(_volumes(run, price)),
        price=price,
        commands=list(_commands(run)),
        provenance=list(_provenance(run, images)),
        skipped=_skipped(run),
        folder=str(run.folder),
    )


def _shell(text: str) -> Markup:
    """A command whose options are not broken behind their hyphens where lines end."""
    escaped = str(escape(_printable(text)))
    return Markup(re.sub(r"(?<!\S)--?\w[\w-]*", r'<span class="whole">\g<0></span>', escaped))


def _notes(run: Run) -> list[str]:
    """What must be known to read the headline."""
    notes = [*run.doubts, *(judge_sentence(run, name, change) for name, change in run.judges)]
    networks = _networks(run)
    if networks:
        names = " and ".join(name or "the embedded network" for name in networks)
        notes.append(
            f"Its files were made by looking through {names}: levels as well as tables were chosen for what that feels."
            " Any decoder reads them; to make more of them takes qtable, the table file and"
            f" {'that network' if len(networks) == 1 else 'those networks'}."
        )
    notes += [
        "Measured with real files that libjpeg-turbo wrote and read. The test photos took no part in the search.",
        "95% intervals: photos resampled, the same ones for found and standard tables.",
    ]
    if math.isfinite(run.change_on_search):
        notes.append(
            f"On the {run.splits['search']:,} search photos, on which tables were chosen, it looked like"
            f" {fewer(run.change_on_search)}: the difference is the price of choosing."
        )
    if math.isfinite(run.clean) and run.annotated:  # else it is that of photos against themselves
        notes.append(f"Uncompressed, the test photos reach {run.clean:.1%} {run.metric}.")
    if _record(run.header, "photos").get("source") == "embedded":
        notes.append(
            "These are qtable's embedded photos, for trying the tool: they show the same places in several ways, so the"
            " intervals are too narrow."
        )
    if run.interrupted:
        notes.append("The search was interrupted; the same command continues it.")
    return notes


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


def _unmade(run: Run, without: str) -> str:
    """Why no files of a coder that looks through networks were made anew: statistics tell nothing of them."""
    if isinstance(run.chosen.coder, TableCoder):
        return ""
    return without or "files are made by looking through a network; qtable report RUN --through MODEL makes some"


def _networks(run: Run) -> list[str | None]:
    """Models that the chosen files were made by looking through; None: the embedded one."""
    coder = run.chosen.coder
    looked_through = coder.to_dict().get("networks", []) if not isinstance(coder, TableCoder) else []
    return [network["model"] for network in looked_through]


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
    networks = [f"--model {shlex.quote(name)}" for name in _networks(run) if name]
    coding = " ".join([f"--subsampling {codec.subsampling} --entropy {codec.entropy}", *networks])
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
