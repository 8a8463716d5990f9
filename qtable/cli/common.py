"""What light commands share: lines for people, files read within bounds."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

from qtable.jpeg.tables import MAX_TABLE_FILE_BYTES
from qtable.text import printable


def say(line: str) -> None:
    """A line for people, on standard error; results go to standard output. Below a progress bar, `console` has it."""
    print(printable(line), file=sys.stderr)


def read_jpeg_or_tables(file: Path) -> bytes:
    """A JPEG whole; of another file as much as a table file may have, and one byte more, for which it is refused.

    file: "-" is standard input.
    """
    with nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as opened:
        data = opened.read(MAX_TABLE_FILE_BYTES + 1)
        return data + opened.read() if data.startswith(b"\xff\xd8") else data
