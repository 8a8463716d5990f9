"""`qtable inspect`: what a JPEG or table file says of itself, and what can be concluded from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from qtable.cli.common import read_jpeg_or_tables
from qtable.cli.options import AsJson
from qtable.encoders.identify import Facts
from qtable.encoders.inspect import jpeg_facts, table_facts
from qtable.encoders.reading import read_tables
from qtable.jpeg.markers import JpegError
from qtable.text import printable

File = Annotated[Path, typer.Argument(help="A JPEG or a table file; - reads standard input.")]


def inspect_command(file: File, as_json: AsJson = False) -> None:
    """Show a JPEG's tables, quality, coding, sizes, metadata and likely encoder, or the tables of a table file."""
    data = read_jpeg_or_tables(file)
    if data.startswith(b"\xff\xd8"):
        try:
            facts = jpeg_facts(data)
        except JpegError as error:
            raise JpegError(f"{file}: {error}") from None
    else:
        facts = table_facts(*read_tables(data, str(file)))
    facts = {"file": str(file), **facts}
    print(json.dumps(facts) if as_json else _text(facts))


def _text(facts: Facts) -> str:
    lines = [
        ("file", printable(facts["file"])),
        *(_jpeg_lines(facts) if facts["format"] == "jpeg" else _file_lines(facts)),
    ]
    blocks = [f"{name:10} {text}".rstrip() for name, text in lines]
    for row in facts["quantization"]:
        width = max(3, len(str(np.max(row["values"]))))
        matrix = "\n".join("  " + " ".join(f"{x:{width}d}" for x in entries) for entries in row["values"])
        blocks.append(f"\n{_title(row)}\n{matrix}")
    return "\n".join(blocks)


def _file_lines(facts: Facts) -> list[tuple[str, str]]:
    return [("format", facts["format"]), ("tables", str(facts["count"])), ("quality", _quality(facts))]


def _jpeg_lines(facts: Facts) -> list[tuple[str, str]]:
    scans = len(facts["scans"])
    coding = [facts["mode"], f"{scans} scan{'s' * (scans != 1)}"]
    if facts["huffman_tables"]:
        coding.append(f"Huffman tables: {facts['huffman_tables']}")
    coding.append(f"restart every {facts['restart_interval']} MCUs" if facts["restart_interval"] else "no restarts")
    lines = [("coding", ", ".join(coding))]
    size = f"{facts['bytes']:,} bytes"
    if facts["components"]:
        sampling = "" if facts["colour"] == "grey" else f" {facts['subsampling']}"
        photo = f"{facts['width']} x {facts['height']} pixels, {facts['colour']}{sampling}"
        lines.insert(0, ("photo", f"{photo}, {facts['precision']} bits a sample"))
        size += f", {facts['bits_per_pixel']:.3f} bits a pixel"
    lines.append(("size", size))
    parts = {part: count for part, count in facts["sizes"].items() if count}
    lines += [("", f"{part:20}{count:>12,}  {count / facts['bytes']:6.1%}") for part, count in parts.items()]
    metadata = ", ".join(f"{name} {count:,} bytes" for name, count in facts["metadata"].items() if count)
    lines.append(("metadata", metadata or "no Exif, ICC or XMP"))
    if "nearest_quality" in facts:
        lines.append(("quality", _quality(facts)))
    likely = facts["encoder"]["likely"]
    lines.append(("encoder", f"likely {likely}" if likely else "not known"))
    lines += [("", f"- {fact}") for fact in facts["encoder"]["evidence"]]
    return lines + ([("note", facts["note"])] if facts["note"] else [])


def _quality(facts: Facts) -> str:
    gap = facts["mean_difference"]
    exactness = "exactly" if gap == 0 else f"mean difference of entries {gap:.1f}: a guess"
    return f"IJG quality {facts['nearest_quality']}, {exactness}"


def _title(row: Facts) -> str:
    users = ", ".join(row["components"]) or "no component"
    slot = f" (slot {row['slot']}, {row['entry_bits']} bits)" if "slot" in row else ""
    later = f", defined before scan {row['defined_before_scan']}" if row.get("defined_before_scan", 1) > 1 else ""
    return f"{users}{slot}{later}: {row['of']} at {_quality(row)}"
