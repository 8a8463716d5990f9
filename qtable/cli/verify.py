"""`qtable verify`: tables given to real encoders."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qtable.cli.common import say
from qtable.cli.options import AsJson, SubsamplingOption, Tables
from qtable.encoders.verify import ENCODERS, Encoder, EncoderError, Verdict, find_encoder, sample_photo, verify
from qtable.jpeg.codec import RGB
from qtable.jpeg.tables import QTables
from qtable.photos.opening import open_photo

EncoderNames = Annotated[list[str] | None, typer.Option("--encoder", help=f"{', '.join(ENCODERS)}; repeatable.")]
Every = Annotated[bool, typer.Option("--all", help="Every encoder that is installed here.")]
Photo = Annotated[Path | None, typer.Option("--image", help="A photo. \\[default: one of scikit-image's]")]


def verify_command(
    tables: Tables,
    encoder: EncoderNames = None,
    every: Every = False,
    subsampling: SubsamplingOption = "4:2:0",
    image: Photo = None,
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
            say(str(error))
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
            say(str(error))
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
