"""`qtable export` and `inspect`: tables by themselves, in files of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from qtable.cli.common import AsJson, console
from qtable.codec import JpegError, read_header
from qtable.export import FORMATS
from qtable.tables import QTables


def export_command(
    tables: Annotated[str, typer.Argument(help="JSON file, quality:Q, flat:STEP or preset[:Q].")],
    to: Annotated[str, typer.Option(help=f"The format: {', '.join(FORMATS)}.")],
    output: Annotated[Path | None, typer.Option(help="File to write. [default: standard output]")] = None,
) -> None:
    """Write tables in the format of an encoder."""
    if to not in FORMATS:
        raise ValueError(f"format {to!r} is unknown; allowed: {', '.join(FORMATS)}")
    text = FORMATS[to](QTables.parse(tables))
    if output is None:
        print(text, end="")
    else:
        if output.exists():
            raise ValueError(f"{output} exists already; it is not overwritten")
        output.write_text(text)
        console.print(f"wrote {output}")


def inspect_command(
    file: Annotated[Path, typer.Argument(help="A JPEG or a table file.")],
    as_json: AsJson = False,
) -> None:
    """Show the tables of a JPEG or table file, the nearest IJG quality and, for a JPEG, its sampling and sizes."""
    with file.open("rb") as opened:
        start = opened.read(2)
        data = start + opened.read() if start == b"\xff\xd8" else b""
    facts: dict[str, Any] = {"file": str(file)}
    if data:
        header = read_header(data)
        try:
            tables = header.tables
        except JpegError as error:
            raise JpegError(f"{file}: {error}") from None
        mode = "progressive" if header.progressive else "sequential"
        facts |= {"width": header.width, "height": header.height, "subsampling": header.subsampling}
        facts |= {"mode": f"{mode} {'Huffman' if header.huffman else 'arithmetic'}"}
        grey = len(header.components) == 1
        facts |= {"header_bytes": header.header_bytes, "scan_bytes": header.scan_bytes}
    else:
        grey, tables = False, QTables.load(file)
    quality, gap = tables.nearest_quality(components=1 if grey else 3)
    facts |= {"nearest_quality": quality, "mean_difference": gap, "tables": tables.values.tolist()}
    if as_json:
        print(json.dumps(facts))
        return
    for key, value in facts.items():
        if key not in ("tables", "nearest_quality", "mean_difference"):
            print(f"{key:12} {value}")
    exactness = "exactly" if gap == 0 else f"mean difference of entries {gap:.1f}: a guess"
    print(f"IJG quality  {quality} ({exactness})")
    print(tables)
