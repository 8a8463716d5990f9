"""Lists that name photos (CSV, JSON lines): the names follow the photos, all else stays byte for byte."""

from __future__ import annotations

import io
import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

COLUMNS: Final = ("path", "file_name", "filename", "filepath", "file_path", "image", "image_path")
"""Columns, and keys of JSON lines, that name photos; `..._file_name` does, too (Hugging Face's image folders)."""
SUFFIXES: Final = (".csv", ".tsv", ".jsonl")
RECORD_BYTES: Final = 1 << 20
"""Longer lines are copied unread."""
RECORD_LINES: Final = 1000
"""A quoted cell goes on for so many lines at most."""
_KEY: Final = "|".join([*COLUMNS, r"\w+_file_name"])
_COLUMN: Final = re.compile(_KEY, re.IGNORECASE)
_PAIR: Final = re.compile(rf'"(?:{_KEY})"\s*:\s*"((?:[^"\\]|\\.)*)"')
_OPEN: Final = re.compile(r'"[^"]*(?:""[^"]*)*\Z')
_END: Final = {mark: re.compile(rf"[{mark}\r\n]|\Z") for mark in ",;\t"}
_QUOTED: Final = {mark: re.compile(rf'"([^"]*(?:""[^"]*)*)"(?=[{mark}\r\n]|\Z)') for mark in ",;\t"}
TargetOf = Callable[[str], tuple[str | None] | None]
"""Where a file of the source lies in the target: (path,), (None,) if it was left out, None if there is no such file."""
_Cells = list[tuple[int, int, str]]
"""Where a record's names are (from, to) and what they say."""


class Follower:
    """A list's records anew, and what happened to them in `counts`.

    named: names of files of the source; changed: names of these that are others now; dropped: records of which a file
    was left out; unknown: records that name no file of the source; unread: not a record of this form.
    """

    def __init__(self, name: str, place: TargetOf) -> None:
        self._name, self._place = name, place
        self.counts: Counter[str] = Counter()

    def __call__(self, file: io.BufferedIOBase) -> Iterator[bytes]:
        """The records of the list; those of anything that is no list as they are."""
        read = self._json_lines if self._name.lower().endswith(".jsonl") else self._table
        for record, cells in read(file):
            anew = self._followed(record, cells)
            if anew is not None:
                yield os.fsencode(anew)

    def note(self) -> str | None:
        """What to say about it."""
        said = (
            ("changed", "{} of its names follow their photos"),
            ("dropped", "{} of its rows left out, as their files are"),
            ("unknown", "{} of its rows name no file here"),
            ("unread", "{} of its rows could not be read and stay"),
        )
        return "; ".join(words.format(self.counts[key]) for key, words in said if self.counts[key]) or None

    def _followed(self, record: str, cells: _Cells) -> str | None:
        """A record with its files' new names; None if one of them was left out."""
        found = [(start, end, name, *self._found(name)) for start, end, name in cells if name]
        named = [(start, end, old, place[0]) for start, end, _, old, place in found if place is not None]
        self.counts["named"] += len(named)
        if any(new is None for *_, new in named):
            self.counts["dropped"] += 1
            return None
        for start, end, old, new in reversed(named):
            if new is not None and new != old:
                record = record[:start] + _renamed(record[start:end], old, new) + record[end:]
                self.counts["changed"] += 1
        self.counts["unknown"] += len(named) < len(found)
        return record

    def _found(self, name: str) -> tuple[str, tuple[str | None] | None]:
        """(path in the source, where it lies now) of what the list names: from its own folder, or from the root."""
        if name and not name.startswith("/"):
            for folder in (posixpath.dirname(self._name), ""):
                path = posixpath.normpath(posixpath.join(folder, name))
                if (place := self._place(path)) is not None:
                    return path, place
        return name, None

    def _table(self, file: io.BufferedIOBase) -> Iterator[tuple[str, _Cells]]:
        lines = _lines(file)
        header, whole = next(lines, ("", True))
        mark = max(",;\t", key=lambda mark: len(_columns(header, mark)))
        columns = _columns(header, mark) if whole else frozenset()
        yield header, []
        for line, whole in lines:
            record, count, cells = line, 1, _split(line, mark) if columns and whole else []
            while cells is None and count < RECORD_LINES and (more := next(lines, None)) is not None:
                record, count = record + more[0], count + 1
                cells = _split(record, mark) if more[1] else None
            if columns and (cells is None or not whole):
                self.counts["unread"] += count
            yield record, [cell for i, cell in enumerate(cells or []) if i in columns]

    def _json_lines(self, file: io.BufferedIOBase) -> Iterator[tuple[str, _Cells]]:
        for line, whole in _lines(file):
            cells: _Cells = []
            self.counts["unread"] += not whole
            for found in _PAIR.finditer(line) if whole else ():
                with suppress(ValueError):  # no JSON
                    cells.append((*found.span(1), json.loads(f'"{found[1]}"')))
            yield line, cells


def _lines(file: io.BufferedIOBase) -> Iterator[tuple[str, bool]]:
    """(line with its end, whether it is a whole one) as file names are decoded; parts of lines above `RECORD_BYTES`."""
    whole = True
    while line := file.readline(RECORD_BYTES):
        ends = line.endswith(b"\n")
        whole = whole and (ends or len(line) < RECORD_BYTES)
        yield os.fsdecode(line), whole
        whole = whole or ends


def _columns(header: str, mark: str) -> frozenset[int]:
    """Which columns of a table name files."""
    cells = _split(header.removeprefix("\ufeff"), mark) or []
    return frozenset(i for i, (_, _, cell) in enumerate(cells) if _COLUMN.fullmatch(cell.strip()))


def _split(record: str, mark: str) -> _Cells | None:
    """The cells of a record (RFC 4180): where they are, without quotes, and what they say. None if a quote is open."""
    cells: _Cells = []
    at = 0
    while True:
        if quoted := _QUOTED[mark].match(record, at):
            cells.append((*quoted.span(1), quoted[1].replace('""', '"')))
            at = quoted.end()
        elif _OPEN.match(record, at):
            return None
        else:
            end = _END[mark].search(record, at)
            assert end is not None
            cells.append((at, end.start(), record[at : end.start()]))
            at = end.start()
        if record[at : at + 1] != mark:
            return cells if not record[at:].strip("\r\n") else []
        at += 1


def _renamed(written: str, old: str, new: str) -> str:
    """A name as it is written in a list (with its escapes), for a file that got another suffix."""
    same = len(posixpath.commonprefix([old, new]))
    return written[: len(written) - (len(old) - same)] + new[same:]
