"""What is finished: the rows of the manifest, and the journal of the run that goes on."""

from __future__ import annotations

import errno
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from qtable.compress.label_maps import ALONE, DOUBT
from qtable.compress.lines import copied, open_lines
from qtable.compress.photo import Action, Skip
from qtable.compress.sources import JOURNAL, MANIFEST, CompressError, Item, Version
from qtable.storage import Folder, StorageError, Store

FORMAT: Final = 1
EXCLUDED: Final = "excluded"
"""The reason of files that are copied as a pattern says."""
Outcome = Action | Literal["label map", "list"]


@dataclass(frozen=True)
class Row:
    """A line of the manifest: what became of a file, or (`member` not None) of a member of a tar file.

    Paths are relative; sizes in bytes; digests are hex SHA-256. None where there is nothing.
    """

    source: str
    member: str | None
    target: str | None
    action: Outcome
    bytes_before: int | None = None
    bytes_after: int | None = None
    sha256_before: str | None = None
    sha256_after: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Entry:
    """What became of a source file: size and version when it was listed, and rows, the file's own first."""

    size: int
    version: Version | None
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Summary:
    """Of a whole run and those that it continued.

    photos: how many were written, `renamed` of them to .jpg, `kept` as they were; bytes_before, bytes_after: theirs.
    label_maps: pictures that are no photos and stay as they are, `by_pixels` of them known by what they hold alone.
    doubtful: photos with a label map's name. lists: whose names follow the photos. copied: other files, `excluded` of
    them by a pattern. skipped: reason -> number. left: outputs whose source is gone; they stay, in the manifest, too.
    manifest: its path or address.
    """

    photos: int
    renamed: int
    kept: int
    label_maps: int
    by_pixels: int
    doubtful: int
    lists: int
    copied: int
    excluded: int
    bytes_before: int
    bytes_after: int
    skipped: dict[str, int]
    left: int
    manifest: Path | str


class Journal:
    """What became of each source file: since the last whole run in a journal, before that in the manifest.

    The journal's first line holds the options' identity: CompressError, naming the difference, if it is another.
    Each entry is written with one call; a line that a killed run left half-written is dropped.
    """

    def __init__(self, folder: Store, identity: dict[str, Any]) -> None:
        self._folder = folder
        self._places: dict[str, tuple[int, int, int]] = {}  # source -> descriptor, offset, length
        self._manifest: int | None = None
        self._lines = open_lines(folder)
        self._header = _line({"qtable compress": FORMAT, "identity": identity})
        try:
            self._open(identity)
        except BaseException:
            self.close()
            raise

    def _open(self, identity: dict[str, Any]) -> None:
        self._manifest = copied(self._folder, MANIFEST)
        if self._manifest is not None:
            for offset, line in _lines(self._manifest):
                source = _parsed(self._folder, line, "source")
                descriptor, start, length = self._places.get(source, (self._manifest, offset, 0))
                self._places[source] = descriptor, start, length + len(line)
        self._end = 0
        for offset, line in _lines(self._lines.descriptor):
            if not offset:
                _check_identity(self._folder, _parsed(self._folder, line, "identity"), identity)
            else:
                source = _parsed(self._folder, line, "rows", 0, "source")
                self._places[source] = self._lines.descriptor, offset, len(line)
            self._end = offset + len(line)
        self._lines.cut(self._end)
        if not self._end:
            self._append(self._header)

    def find(self, source: str) -> Entry | None:
        """What became of a file in this run or before."""
        if source not in self._places:
            return None
        descriptor, offset, length = self._places[source]
        lines = os.pread(descriptor, length, offset).splitlines()
        if descriptor == self._lines.descriptor:
            data = json.loads(lines[0])
            version = data["version"] if "version" in data else data["mtime_ns"]
            return Entry(data["size"], version, tuple(Row(**row) for row in data["rows"]))
        rows = tuple(Row(**json.loads(line)) for line in lines)
        return Entry(rows[0].bytes_before or 0, None, rows)

    def place(self, source: str) -> tuple[str | None] | None:
        """(path of a file's output,), (None,) if it was left out, None if there is no such file."""
        entry = self.find(source)
        return None if entry is None else (entry.rows[0].target,)

    def add(self, entry: Entry) -> None:
        """CompressError if it cannot be written (a full disk)."""
        version = {"version" if isinstance(entry.version, str) else "mtime_ns": entry.version}
        line = _line({"size": entry.size, **version, "rows": [vars(row) for row in entry.rows]})
        start = self._end
        self._append(line)
        self._places[entry.rows[0].source] = self._lines.descriptor, start, len(line)

    def _append(self, line: bytes) -> None:
        try:
            self._lines.append(line, self._end)
        except OSError as error:
            raise write_error(self._folder, JOURNAL, error) from None
        self._end += len(line)

    def finish(self, items: Sequence[Item]) -> Summary:
        """Write the manifest, sorted by path, and empty the journal: its first line stays."""
        present, targets = {item.source for item in items}, {item.target for item in items}
        counts: Counter[str] = Counter()
        skipped: Counter[str] = Counter()
        try:
            with output(self._folder, MANIFEST) as file:
                for source in sorted(self._places, key=os.fsencode):
                    entry = self.find(source)
                    assert entry is not None
                    if source not in present:
                        if entry.rows[0].target is None or entry.rows[0].target in targets:
                            continue
                        counts["left"] += 1
                    for row in sorted(entry.rows, key=lambda row: os.fsencode(row.member or "")):
                        file.write(_line(vars(row)))
                        counts[row.action] += 1
                        counts["alone"] += row.reason == ALONE
                        counts["excluded"] += row.reason == EXCLUDED
                        if row.action == "skipped":
                            skipped[(row.reason or "").partition(":")[0]] += 1
                        elif row.action in ("compressed", "kept"):
                            counts["doubt"] += DOUBT in (row.reason or "")
                            counts["renamed"] += row.target != (row.source if row.member is None else row.member)
                            counts["before"] += row.bytes_before or 0
                            counts["after"] += row.bytes_after or 0
            self._lines.cut(len(self._header))
        except OSError as error:
            raise write_error(self._folder, MANIFEST, error) from None
        return Summary(
            photos=counts["compressed"] + counts["kept"],
            renamed=counts["renamed"],
            kept=counts["kept"],
            label_maps=counts["label map"],
            by_pixels=counts["alone"],
            doubtful=counts["doubt"],
            lists=counts["list"],
            copied=counts["copied"],
            excluded=counts["excluded"],
            bytes_before=counts["before"],
            bytes_after=counts["after"],
            skipped=dict(sorted(skipped.items())),
            left=counts["left"],
            manifest=self._folder.root / MANIFEST if isinstance(self._folder, Folder) else f"{self._folder}/{MANIFEST}",
        )

    def close(self) -> None:
        with suppress(OSError, CompressError):  # what is not saved is made again
            self._lines.save()
        self._lines.close()
        if self._manifest is not None:
            os.close(self._manifest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def _line(data: dict[str, Any]) -> bytes:
    """JSON in ASCII: names that are no UTF-8 are escaped as Python's surrogates."""
    return (_encode(data) + "\n").encode()


def _lines(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of the lines that end in a newline."""
    offset = 0
    with open(descriptor, "rb", closefd=False) as file:
        for line in file:
            if line.endswith(b"\n"):
                yield offset, line
            offset += len(line)


def _parsed(folder: Store, line: bytes, *keys: str | int) -> Any:
    """The value at `keys` of a line. CompressError if there is none."""
    try:
        value = json.loads(line)
        for key in keys:
            value = value[key]
    except (ValueError, LookupError, TypeError):
        raise CompressError(f"{folder}: its {JOURNAL} or {MANIFEST} was not written by qtable compress") from None
    return value


def _check_identity(folder: Store, old: dict[str, Any], new: dict[str, Any]) -> None:
    for key in sorted({*old, *new}):
        was, is_now = old.get(key), new.get(key)
        if was != is_now:
            raise CompressError(
                f"{folder} holds another run: its {key} is {was!r}, now {is_now!r}; choose another folder"
            )


@contextmanager
def output(folder: Store, target: str) -> Iterator[io.BufferedIOBase]:
    """A new file that is there when it is finished, and not at all if it is not. Skip if no file can have its name."""
    with naming(), folder.create(target) as file:
        yield file


@contextmanager
def naming() -> Iterator[None]:
    """Skip if no file can have the name that the body writes to."""
    try:
        yield
    except OSError as error:
        if (reason := _NAMES.get(error.errno or 0)) is not None:
            raise Skip(reason) from None
        raise


_NAMES: Final = {errno.ENAMETOOLONG: "name too long", errno.EILSEQ: "name that is no UTF-8"}


def write_error(folder: Store, name: str, error: OSError) -> CompressError:
    """What to say where a file of the target cannot be written (a full disk), or a storage not be reached."""
    said = str(error) if isinstance(error, StorageError) else f"{folder}/{name}: {error.strerror or error}"
    return CompressError(f"{said}; what was written before is whole, and the same command continues")
