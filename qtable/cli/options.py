"""Options and arguments that several commands have, each once with its words. Needs the names of codings alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from qtable.jpeg.modes import Entropy, Subsampling


def bytes_of(text: str | int) -> int:
    """2000000000 from "2GB", "2000MB", "1.9GiB" or "2000000000". ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?)(i?)B?", str(text), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is no size such as 2GB or 500MB")
    number, prefix, binary = match.groups()
    unit: int = (1024 if binary else 1000) ** " kmgt".index(prefix.lower() or " ")
    return round(float(number) * unit)


# ---- photos and model -----------------------------------------------------------------------------------------

Data = Annotated[
    str | None,
    typer.Option(
        help="Photos: a folder of class folders, or of photos alone (no labels); a list (path,label) as CSV or JSON"
        " lines, or a folder with labels.csv or metadata.csv; Parquet; tar shards; here or at s3://, gs://, az://,"
        " https://. \\[default: embedded]"
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(help="File that numbers the classes: a name a line, that of index 0 first, or JSON."),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="FILE.py:NAME or package.module:NAME, with @WEIGHTS.safetensors or .pth behind it if need be; FILE.pt2"
        " (torch.export); FILE.ts (TorchScript); FILE.onnx (no gradients). All but ONNX executes code of the file: take"
        " models only from people whom you trust. \\[default: the embedded task's network]"
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="FILE.py:NAME or package.module:NAME, with @WEIGHTS.safetensors or .pth behind it if need be; FILE.pt2"
        " (torch.export); FILE.ts (TorchScript); FILE.onnx (no gradients). Repeatable: the first is scored, tables and"
        " files are made for all. All but ONNX executes code of the file: take models only from people whom you trust."
        " \\[default: the embedded task's network]",
    ),
]
Judges = Annotated[
    list[str] | None,
    typer.Option(
        "--judge",
        help="A network that nothing is chosen by, named like --model: it looks at the tested files, too; repeatable.",
    ),
]
SeveralModels = Annotated[
    list[str] | None,
    typer.Option(help="A network that task-aware files are made for, named as elsewhere; repeatable. Its code is run."),
]
Through = Annotated[
    list[str] | None,
    typer.Option(
        "--through",
        help="A network that task-aware files were made for, if it is not the one that --model names; repeatable."
        " Its code is run.",
    ),
]
Resize = Annotated[int | None, typer.Option(help="Scale photos: pixels of the shorter side.")]
Limit = Annotated[int | None, typer.Option(help="Use at most this many photos.")]
Memory = Annotated[
    int,
    typer.Option(
        parser=bytes_of,
        metavar="SIZE",
        show_default="1GB",
        help="Decoded pixels that are kept; other photos are opened anew whenever they are looked at.",
    ),
]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1 ...")]

# ---- tables and coding ----------------------------------------------------------------------------------------

_SPEC: Final = "JSON file, quality:Q, flat:STEP or preset[:Q]"
Tables = Annotated[str, typer.Argument(help=f"{_SPEC}.")]
TablesOption = Annotated[str, typer.Option(help=f"{_SPEC}.")]
SeveralTables = Annotated[list[str], typer.Option(help=f"{_SPEC}; repeatable.")]
Count = Annotated[int, typer.Option(help="1: one table; 2: luma, chroma; 3: Y, Cb, Cr.")]
SubsamplingOption = Annotated[Subsampling, typer.Option(help="Chroma subsampling.")]
SubsamplingOrAuto = Annotated[
    Literal["4:4:4", "4:2:2", "4:2:0", "auto"],
    typer.Option(help="Chroma subsampling; auto: 4:2:0 and 4:4:4 with their own tables."),
]
EntropyOption = Annotated[Entropy, typer.Option(help="Entropy coding.")]

# ---- work and results -----------------------------------------------------------------------------------------

Budget = Annotated[int, typer.Option(help="Evaluations of different tables on the search photos, in each run.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.")]
Cluster = Annotated[str | None, typer.Option(help="Work on a Dask cluster that sees the same files: tcp://HOST:PORT.")]
Out = Annotated[Path, typer.Option(help="Folder of the results; the same command with the same folder continues.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File to write; never one that exists. \\[default: standard output]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
