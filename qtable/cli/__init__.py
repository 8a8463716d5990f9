"""The `qtable` command: reads what people type, shows what the library found."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from qtable.cli.common import console, printable
from qtable.cli.compress import compress_command
from qtable.cli.inspect import inspect_command
from qtable.cli.optimize import compare_command, evaluate_command, optimize_command
from qtable.cli.report import report_command
from qtable.cli.tables import export_command, import_command, verify_command
from qtable.cli.train import train_command

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Finds JPEG quantization tables for the network that looks at the photos.",
)
for command in (
    optimize_command,
    compare_command,
    evaluate_command,
    report_command,
    train_command,
    compress_command,
    export_command,
    import_command,
    inspect_command,
    verify_command,
):
    app.command(command.__name__.removesuffix("_command"))(command)


def _version(asked: bool) -> None:
    if asked:
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
