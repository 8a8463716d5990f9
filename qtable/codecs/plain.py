"""`TableCoder`: JPEG with given quantization tables through libjpeg-turbo; and coders in table files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from qtable.codecs.base import Coder
from qtable.files import write_atomically
from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.tables import MAX_TABLE_FILE_BYTES, QTables


@dataclass(frozen=True)
class TableCoder(Coder, kind="tables"):
    """Plain JPEG: these tables, rounded levels, and the sampling and entropy coding of `codec`."""

    quantization: QTables
    codec: Codec = field(default_factory=Codec)

    @property
    def name(self) -> str:
        return f"tables, {self.codec.subsampling}, {self.codec.entropy}"

    @property
    def tables(self) -> QTables:
        return self.quantization

    def encode(self, photo: RGB) -> bytes:
        """As `Codec.encode`."""
        return self.codec.encode(photo, self.quantization)

    def to_dict(self) -> dict[str, Any]:
        coding = {"subsampling": self.codec.subsampling, "entropy": self.codec.entropy}
        return {"tables": self.quantization.values.tolist(), **coding}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        tables = QTables.from_dict({"values": data["tables"]})
        return cls(tables, Codec(data["subsampling"], data["entropy"]))


def save_coder(coder: Coder, path: Path) -> None:
    """Write a table file (see `QTables.save`); for coders that are more than tables it also says which coder it is."""
    if isinstance(coder, TableCoder):
        coder.quantization.save(path)
        return
    tables = {} if coder.tables is None else coder.tables.to_dict()
    write_atomically(path, (json.dumps({**tables, "coder": coder.written()}) + "\n").encode())


def open_coder(spec: str, codec: Codec) -> Coder:
    """What a user types for --tables: a file of `save_coder`, or anything that `QTables.parse` takes, with `codec`.

    ValueError, in one line, if it is none of these; OSError if the file cannot be opened.
    """
    path = Path(spec)
    if path.suffix == ".json" and path.is_file() and path.stat().st_size <= MAX_TABLE_FILE_BYTES:
        try:
            data = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            data = None  # `QTables.parse` says what is wrong
        if isinstance(data, dict) and isinstance(data.get("coder"), dict):
            try:
                return Coder.read(data["coder"])
            except (KeyError, TypeError, ValueError) as error:
                reason = f"{type(error).__name__}: {str(error)[:200]}"
                raise ValueError(f"{path}: not a coder that qtable wrote ({reason})") from None
    return TableCoder(QTables.parse(spec), codec)
