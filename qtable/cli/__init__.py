"""The `qtable` command: reads what people type, shows what the library found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import typer

from qtable.cli.common import console
from qtable.cli.optimize import compare_command, evaluate_command, optimize_command
from qtable.cli.tables import export_command, inspect_command

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Finds JPEG quantization tables for the network that looks at the photos.",
)
for command in (optimize_command, compare_command, evaluate_command, export_command, inspect_command):
    app.command(command.__name__.removesuffix("_command"))(command)


def _fail(message: str, code: int = 1) -> NoReturn:
    console.print(f"qtable: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise SystemExit(code)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: errors that a user can mend become one line on stderr and exit status 1; Ctrl-C is 130."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="qtable")
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except (ValueError, OSError) as error:
        _fail(" ".join(str(error).split()))
