"""Numbers in text: what the formats of tools and languages share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np

from qtable.jpeg.tables import QTables

_NAMES: Final = (("all components",), ("luma", "chroma"), ("Y", "Cb", "Cr"))
_HASH: Final = ("", "# ", "")
_SLASHES: Final = ("", "// ", "")
_STARS: Final = ("/*\n", " * ", " */\n")


def _text(parse: Callable[[str], QTables]) -> Callable[[bytes], QTables]:
    """A parser of UTF-8 text, as one of bytes."""

    def parse_bytes(data: bytes) -> QTables:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError("not UTF-8 text") from None
        return parse(text)

    return parse_bytes


def _numbers(text: str) -> list[int]:
    """Whole numbers between commas and white space."""
    tokens = text.replace(",", " ").split()
    wrong = next((token for token in tokens if not re.fullmatch("[0-9]{1,5}", token)), None)
    if wrong is not None:
        raise ValueError(f"{wrong[:20]!r} is not a whole number in baseline JPEG's 1..255")
    return [int(token) for token in tokens]


def _tables(numbers: Sequence[int], order: Literal["natural", "zigzag"] = "natural") -> QTables:
    if len(numbers) not in (64, 128, 192):
        raise ValueError(f"{len(numbers)} table entries; allowed: 64 for each of 1 to 3 tables")
    values = np.array(numbers)
    return QTables(values.reshape(-1, 8, 8)) if order == "natural" else QTables.from_zigzag(values.reshape(-1, 64))


def _ordered(tables: QTables, order: Literal["natural", "zigzag"]) -> list[list[int]]:
    """int [t][64]."""
    values: list[list[int]] = (tables.values.reshape(-1, 64) if order == "natural" else tables.zigzag()).tolist()
    return values


def _rows(entries: Sequence[int], indent: str = "") -> str:
    """Eight lines of eight numbers, each followed by a comma."""
    return "".join(
        indent + ", ".join(f"{entry:3d}" for entry in entries[i : i + 8]) + ",\n" for i in range(0, len(entries), 8)
    )


def _arrays(tables: QTables, order: Literal["natural", "zigzag"], brackets: str) -> str:
    """An array of arrays of 64, as C, Go, Rust and Python write them alike but for the brackets."""
    inner = "".join(f"    {brackets[0]}\n{_rows(t, '        ')}    {brackets[1]},\n" for t in _ordered(tables, order))
    return f"{brackets[0]}\n{inner}{brackets[1]}"


def _read_arrays(brackets: str, comment: str, order: Literal["natural", "zigzag"]) -> Callable[[bytes], QTables]:
    """A parser of all numbers that stand in innermost brackets with nothing but numbers, outside comments."""
    comments = re.compile(comment, re.DOTALL)
    opening, closing = map(re.escape, brackets)
    groups = re.compile(rf"{opening}([0-9\s,]*){closing}")

    def parse(text: str) -> QTables:
        return _tables(_numbers(" ".join(groups.findall(comments.sub(" ", text)))), order)

    return _text(parse)


_C_COMMENT: Final = r"/\*.*?(?:\*/|\Z)|//[^\n]*"
_HASH_COMMENT: Final = r"#[^\n]*"
