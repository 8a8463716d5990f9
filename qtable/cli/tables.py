"""`qtable export` and `import`: tables by themselves, in files of every kind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from qtable.cli.common import read_jpeg_or_tables, say
from qtable.cli.options import Output, Tables
from qtable.encoders.formats import FORMATS
from qtable.encoders.reading import read_tables, remark
from qtable.files import write_atomically
from qtable.jpeg.tables import QTables

To = Annotated[str, typer.Option(help=f"The format: {', '.join(FORMATS)}.")]
File = Annotated[
    Path,
    typer.Argument(
        help="A JPEG, a file in one of the formats of `qtable export`, or what Python prints; - reads standard input."
    ),
]
Form = Annotated[str | None, typer.Option("--format", help=f"{', '.join(FORMATS)}. \\[default: by the content]")]


def export_command(tables: Tables, to: To, output: Output = None) -> None:
    """Write tables in the format of an encoder, and say how it uses them and what it changes."""
    if to not in FORMATS:
        raise ValueError(f"format {to!r} is unknown; allowed: {', '.join(FORMATS)}")
    chosen, parsed = FORMATS[to], QTables.parse(tables)
    content = chosen.write(parsed)
    if output is None and isinstance(content, bytes) and sys.stdout.isatty():
        raise ValueError(f"format {to} is binary; name a file with -o, or redirect the output")
    _write(content if isinstance(content, bytes) else content.encode(), output)
    say("use: " + chosen.use(parsed, "FILE" if output is None else str(output)))
    for caveat in chosen.caveats:
        say(caveat)


def import_command(file: File, form: Form = None, output: Output = None) -> None:
    """Read tables out of a JPEG or an encoder's table file and write them as qtable's JSON."""
    data = read_jpeg_or_tables(file)
    tables, found = read_tables(data, str(file), form)
    say(f"{file}: {found}, {tables.count} {'table' if tables.count == 1 else 'tables'}")
    known = remark(data, found, tables)
    if known is not None:
        say(known)
    _write(str(FORMATS["json"].write(tables)).encode(), output)


def _write(data: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return
    if output.exists():
        raise ValueError(f"{output} exists already; it is not overwritten")
    write_atomically(output, data)
    say(f"wrote {output}")
