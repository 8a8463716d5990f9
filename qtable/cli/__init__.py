"""The `qtable` command: reads what people type, shows what the library found."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from qtable.memory import keep_freed_memory
from qtable.text import printable

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "optimize": (
        "qtable.cli.optimize:optimize_command",
        "Find tables that make smaller files at equal score, and test them on photos that no search has seen.",
    ),
    "compare": (
        "qtable.cli.compare:compare_command",
        "Let search methods compete: hypervolume and BD-rate over several seeds, one table, one picture.",
    ),
    "evaluate": (
        "qtable.cli.evaluate:evaluate_command",
        "Measure tables with real files: mean bytes and score with 95% intervals, and changes against the first.",
    ),
    "report": (
        "qtable.cli.report:report_command",
        "Write one HTML page on a run: what it saves, its tables, whom they hurt, how to use them.",
    ),
    "train": (
        "qtable.cli.train:train_command",
        "Train tables and network together: a set of tables for each operating point, one network for all.",
    ),
    "compress": (
        "qtable.cli.compress:compress_command",
        "Write photos anew with these tables into another folder; the originals stay as they are.",
    ),
    "export": (
        "qtable.cli.tables:export_command",
        "Write tables in the format of an encoder, and say how it uses them and what it changes.",
    ),
    "import": (
        "qtable.cli.tables:import_command",
        "Read tables out of a JPEG or an encoder's table file and write them as qtable's JSON.",
    ),
    "inspect": (
        "qtable.cli.inspect:inspect_command",
        "Show a JPEG's tables, quality, coding, sizes, metadata and likely encoder, or the tables of a table file.",
    ),
    "verify": (
        "qtable.cli.verify:verify_command",
        "Give tables to real encoders and compare those in the files that they write. Status 1 if an entry differs.",
    ),
}
"""By name: where the command is, MODULE:FUNCTION, and its line in `qtable --help`, the first of its docstring."""


def load(name: str) -> TyperCommand:
    """A command of `COMMANDS`, whose module this imports."""
    module, _, function = COMMANDS[name][0].partition(":")
    alone = typer.Typer(add_completion=False)
    alone.command(name)(getattr(import_module(module), function))
    command = typer.main.get_command(alone)
    assert isinstance(command, TyperCommand)
    return command


class _Group(TyperGroup):
    """Holds a name and a line for each command, and loads the one that is called: most need seconds for it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (_, line) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=line))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, TyperCommand | None, list[str]]:
        name, known, rest = super().resolve_command(ctx, args)
        return name, load(known.name) if known is not None and known.name is not None else None, rest


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Finds JPEG quantization tables for the network that looks at the photos.",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # which takes a third of a start

        typer.echo(f"qtable {version('qtable')}")
        raise typer.Exit


@app.callback()
def _main(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is, and stop.")
    ] = False,
) -> None:
    pass


def _fail(message: str, code: int = 1) -> NoReturn:
    from qtable.cli.console import console  # nothing else of a light command needs rich

    console.print(f"qtable: {printable(message)}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise SystemExit(code)


def _flush() -> None:
    """Write out what was printed. OSError if standard output takes no more (a full disk, a closed pipe)."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again at its end
        raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: errors that a user can mend become one line on stderr and exit status 1; Ctrl-C is 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    keep_freed_memory()
    try:
        try:
            app(args=None if arguments is None else list(arguments), prog_name="qtable")
        finally:
            _flush()
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in (errno.ENOSPC, errno.EPIPE):
            error.filename = "standard output"  # what is written elsewhere names its file
        _fail(" ".join(str(error).split()))
