"""`qtable export`, `import` and `verify`: tables by themselves, in files of every kind."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qtable.cli.common import AsJson, SubsamplingOption, console, printable, read_jpeg_or_tables
from qtable.encoders.formats import FORMATS
from qtable.encoders.verify import (
    ENCODERS,
    Encoder,
    EncoderError,
    Verdict,
    find_encoder,
    read_tables,
    sample_photo,
    verify,
)
from qtable.files import write_atomically
from qtable.jpeg.codec import RGB
from qtable.jpeg.tables import QTables
from qtable.photos.opening import open_photo

Tables = Annotated[str, typer.Argument(help="JSON file, quality:Q, flat:STEP or preset[:Q].")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File to write; never one that exists. \\[default: standard output]"),
]


def export_command(
    tables: Tables,
    to: Annotated[str, typer.Option(help=f"The format: {', '.join(FORMATS)}.")],
    output: Output = None,
) -> None:
    """Write tables in the format of an encoder, and say how it uses them and what it changes."""
    if to not in FORMATS:
        raise ValueError(f"format {to!r} is unknown; allowed: {', '.join(FORMATS)}")
    chosen, parsed = FORMATS[to], QTables.parse(tables)
    content = chosen.write(parsed)
    if output is None and isinstance(content, bytes) and sys.stdout.isatty():
        raise ValueError(f"format {to} is binary; name a file with -o, or redirect the output")
    _write(content if isinstance(content, bytes) else content.encode(), output)
    _say("use: " + chosen.use(parsed, "FILE" if output is None else str(output)))
    for caveat in chosen.caveats:
        _say(caveat)


def import_command(
    file: Annotated[Path, typer.Argument(help="A JPEG, or a file in one of the formats of `qtable export`.")],
    form: Annotated[
        str | None, typer.Option("--format", help=f"{', '.join(FORMATS)}. \\[default: by the content]")
    ] = None,
    output: Output = None,
) -> None:
    """Read tables out of a JPEG or an encoder's table file and write them as qtable's JSON."""
    data = read_jpeg_or_tables(file)
    tables, found = read_tables(data, str(file), form)
    _say(f"{file}: {found}, {tables.count} {'table' if tables.count == 1 else 'tables'}")
    _write(str(FORMATS["json"].write(tables)).encode(), output)


def verify_command(
    tables: Tables,
    encoder: Annotated[list[str] | None, typer.Option(help=f"{', '.join(ENCODERS)}; repeatable.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every encoder that is installed here.")] = False,
    subsampling: SubsamplingOption = "4:2:0",
    image: Annotated[Path | None, typer.Option(help="A photo. \\[default: one of scikit-image's]")] = None,
    as_json: AsJson = False,
) -> None:
    """Give tables to real encoders and compare those in the files that they write. Status 1 if an entry differs."""
    if every == bool(encoder):
        raise ValueError(f"name an --encoder ({', '.join(ENCODERS)}) or give --all")
    wanted = QTables.parse(tables)
    photo = sample_photo() if image is None else _photo(image)
    verdicts, failed = [], []
    for found in _installed() if encoder is None else [find_encoder(name) for name in encoder]:
        try:
            verdict = verify(found, wanted, photo, subsampling)
        except EncoderError as error:
            _say(str(error))
            failed.append(found.name)
            continue
        verdicts.append(verdict)
        if verdict.differences or verdict.subsampling != subsampling:
            failed.append(found.name)
        if not as_json:
            _show(verdict, subsampling)
    if as_json:
        print(json.dumps([asdict(verdict) for verdict in verdicts]))
    if failed:
        raise ValueError(f"not what was asked for: {', '.join(failed)}")


def _installed() -> list[Encoder]:
    found = []
    for name in ENCODERS:
        try:
            found.append(find_encoder(name))
        except EncoderError as error:
            _say(str(error))
    return found


def _show(verdict: Verdict, subsampling: str) -> None:
    print(f"{verdict.encoder}: {verdict.version}")
    total = f"{len(verdict.differences)} entries differ" if verdict.differences else "tables equal"
    sampling = verdict.subsampling + (f", not {subsampling}" if verdict.subsampling != subsampling else "")
    change = verdict.bytes / verdict.own_bytes - 1
    print(f"  {total}; {sampling}; {verdict.bytes:,} bytes, {change:+.1%} against qtable's own codec")
    for d in verdict.differences:
        print(f"  {('Y', 'Cb', 'Cr')[d.component]} row {d.row} column {d.column}: wanted {d.wanted}, got {d.got}")


def _photo(file: Path) -> RGB:
    data = file.read_bytes()
    try:
        return open_photo(data)[0]
    except Exception as error:  # Pillow's plugins raise whatever they like on damaged files
        raise ValueError(f"{file}: not a photo that can be read ({type(error).__name__})") from None


def _write(data: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return
    if output.exists():
        raise ValueError(f"{output} exists already; it is not overwritten")
    write_atomically(output, data)
    _say(f"wrote {output}")


def _say(line: str) -> None:
    """To people, on stderr."""
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
