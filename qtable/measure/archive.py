"""`Archive`: the append-only record of every evaluation, one JSON line each, with its coder.

The first line says what made the rest: command, versions, commit, data, codec, seed. A line that a killed run left
half-written is dropped. Each record is written with one call and synced, so at most the evaluation in flight is lost.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from qtable.codecs.base import Coder
from qtable.measure.changes import changes
from qtable.measure.evaluate import Score
from qtable.photos.sets import SPLITS, Split
from qtable.tasks.base import Outcomes

FORMAT: Final = 2


class ArchiveError(ValueError):
    """An archive that cannot be read or continued; the message says why and what to do."""


@dataclass(frozen=True)
class Record:
    """One evaluation: a score of `score.coder` on a split, and its origin (e.g. "sorted-random", "standard")."""

    split: Split
    origin: str
    score: Score

    def to_dict(self) -> dict[str, Any]:
        """What its line in the file holds."""
        return {
            "split": self.split,
            "origin": self.origin,
            "coder": self.score.coder.written(),
            "bytes": self.score.bytes,
            "score": self.score.score,
            "photo_bytes": self.score.photo_bytes.tolist(),
            "outcomes": self.score.outcomes.written(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of `to_dict`. ValueError, KeyError, TypeError or OverflowError for anything else."""
        photo_bytes = np.array(data["photo_bytes"], dtype=np.int64)
        if photo_bytes.ndim != 1 or not len(photo_bytes):
            raise ValueError(f"photo_bytes of shape {list(photo_bytes.shape)}; allowed: [n]")
        score = Score(Coder.read(data["coder"]), photo_bytes, Outcomes.read(data["outcomes"], len(photo_bytes)))
        if data["split"] not in SPLITS:
            raise ValueError(f"split {data['split']!r:.40} is unknown; allowed: {', '.join(SPLITS)}")
        if not math.isclose(score.score, data["score"], abs_tol=1e-6):
            raise ValueError(f"its score is {data['score']!r:.40}, its outcomes make {score.score:.6f}")
        return cls(data["split"], str(data["origin"]), score)


class Archive:
    """Records by (split, coder), kept in memory and in a JSONL file.

    Opening a file that exists continues it: ArchiveError if its `identity` (what must be equal for its evaluations to
    mean the same: data, model, codec, metric ...) differs, naming the difference.
    """

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any] | None = None) -> None:
        """header: {"identity": {...}, ...} written as the first line of a new file; None opens for reading only."""
        self.path = Path(path)
        self._records: dict[tuple[Split, Coder], Record] = {}
        self._descriptor: int | None = None
        if header is not None:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._read(header)
        except BaseException:
            self.close()
            raise

    def _read(self, header: Mapping[str, Any] | None) -> None:
        if self._descriptor is not None:
            _lock(self._descriptor, self.path)
        lines, complete = _whole_lines(self.path)
        if header is None and not lines:
            raise ArchiveError(f"{self.path}: no archive there")
        if lines:
            self.header = _parse_header(self.path, lines[0])
            if header is not None:
                _check_identity(self.path, self.header, header)
            for number, line in enumerate(lines[1:], start=2):
                self._remember(_parse_record(self.path, number, line))
        if header is not None and self._descriptor is not None:
            os.ftruncate(self._descriptor, complete)
            if not lines:
                self.header = {"qtable": FORMAT, **header}
                self._write(self.header)

    def append(self, record: Record) -> None:
        """Add a record to the file, then to memory. OSError if it cannot be written (a full disk)."""
        self._write(record.to_dict())
        self._remember(record)

    def find(self, split: Split, coder: Coder) -> Record | None:
        """The record of this coder on this split, if it was evaluated before."""
        return self._records.get((split, coder))

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def records(self, split: Split, *, without: str | None = None) -> list[Record]:
        """Records of all photos of one split in the order in which they were made, leaving out an origin.

        Records of a part of the photos (of candidates that lost a race) are left out: `partial` has them.
        """
        every = [r for r in self if r.split == split]
        photos = max((len(r.score.photo_bytes) for r in every), default=0)
        return [r for r in every if len(r.score.photo_bytes) == photos and r.origin != without]

    def partial(self, split: Split) -> list[Record]:
        """Records of a part of the photos of one split."""
        whole = {id(r) for r in self.records(split)}
        return [r for r in self if r.split == split and id(r) not in whole]

    def close(self) -> None:
        """Close the file, so that another process may write it; what is in memory can still be read."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _remember(self, record: Record) -> None:
        self._records.setdefault((record.split, record.score.coder), record)

    def _write(self, data: Mapping[str, Any]) -> None:
        if self._descriptor is None:
            raise ArchiveError(f"{self.path} was opened for reading only")
        line = (json.dumps(data, separators=(",", ":")) + "\n").encode()
        size = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):
                os.ftruncate(self._descriptor, size)
                raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes could be written; is the disk full?")
            os.fsync(self._descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None


def _lock(descriptor: int, path: Path) -> None:
    """Keep other processes from writing; the lock goes with the descriptor, also when the process is killed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ArchiveError(f"another run is writing {path}; wait for it or choose another --out") from None


def _whole_lines(path: Path) -> tuple[list[bytes], int]:
    """The lines that end in a newline, and how many bytes they take."""
    if not path.exists():
        return [], 0
    data = path.read_bytes()
    complete = data.rfind(b"\n") + 1
    return data[:complete].splitlines(), complete


def _parse_header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
        if not isinstance(header, dict) or header.get("qtable") != FORMAT:
            raise ValueError("its first line is not the header of an archive of this version of qtable")
        if not isinstance(header.get("identity", {}), dict):
            raise ValueError("the identity in its first line is not an object")
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{path}: {error}") from None
    return header


def _parse_record(path: Path, number: int, line: bytes) -> Record:
    try:
        return Record.from_dict(json.loads(line))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise ArchiveError(f"{path}, line {number}: not an evaluation record ({reason})") from None


def _check_identity(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differences = changes(old, new)
    if differences:
        raise ArchiveError(f"{path.parent} holds another run: {'; '.join(differences)}; choose another --out")
