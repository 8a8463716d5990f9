"""Tables as Python shows them: Pillow's `print(im.quantization)`, lists, NumPy and torch arrays."""

from __future__ import annotations

import ast
import json
import re
from typing import Any, Final

import numpy as np

from qtable.encoders.text import _HASH_COMMENT, _read_arrays
from qtable.jpeg.tables import QTables

_CODE: Final = re.compile(rb"^qtables\s*=\s*\[", re.MULTILINE)
_MARK: Final = (
    rb"^qtables\s*=\s*\[|\A\s*(?:\w+\s*=\s*)?(?:\{\s*\d+\s*:|\{\s*'values'|[\[(]|(?:\w+\.)?(?:array|tensor)\()"
)
_MEANT: Final = "meant are {0: [64 numbers], 1: [...]} as Pillow prints im.quantization, lists, or a NumPy array"
_BYTES: Final = re.compile(r"\barray\('[bBhHiIlL]',\s*(\[[^\[\]]*\])\)")
"""How Pillow before 8.3 had a table: in zigzag order, as in the file. Later it has lists in natural order."""
_ARRAY: Final = re.compile(r"(?:\b\w+\.)?\b(?:array|tensor)\((\[[\[\]\d\s.,]*\])(?:,\s*dtype=[\w.]+)?\)")
_NUMBER: Final = re.compile(r"\b(?:np|numpy)\.u?int\d+\((\d+)\)")


def _read_pillow(data: bytes) -> QTables:
    """Code that sets `qtables`, or a value that Python printed, with a name before it or without."""
    if _CODE.search(data):
        return _read_arrays("[]", _HASH_COMMENT, "natural")(data)
    try:
        text = re.sub(r"\A\s*\w+\s*=", "", re.sub(_HASH_COMMENT, " ", data.decode("utf-8-sig"))).strip()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    if text.startswith("{") and "'values'" in text:  # QTables.to_dict
        return QTables.from_dict(_evaluated(json.loads, text.replace("'", '"')))
    plain = _NUMBER.sub(r"\1", _ARRAY.sub(r"\1", _BYTES.sub(r"\1", text)))
    if not re.fullmatch(r"[\s\d.,:\[\](){}]*", plain):
        raise ValueError(f"not a Python value of numbers alone; {_MEANT}")
    if re.fullmatch(r"[\s\d.\[\]]*", plain):  # as NumPy prints
        plain = re.sub(r"(?<=[\d.\]])\s+(?=[\d\[])", ", ", plain)
    values = _array(_evaluated(ast.literal_eval, plain))
    in_zigzag = len(_BYTES.findall(text))
    if in_zigzag not in (0, len(values)):
        raise ValueError("some tables are array('B', ...), which Pillow before 8.3 had in zigzag order, and some lists")
    return QTables.from_zigzag(values) if in_zigzag else QTables(values.reshape(-1, 8, 8))


def order_printed(data: bytes) -> str | None:
    """In what order a printed value was read, for people; None for code, which has the order of Pillow's `qtables`."""
    if _CODE.search(data):
        return None
    if b"array('" in data:
        return "zigzag order, as Pillow before 8.3 has them"
    return "natural order (row by row), as Pillow 8.3 and later has them"


def _evaluated(read: Any, text: str) -> Any:
    try:
        return read(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(f"not a whole Python value; {_MEANT}") from None


def _array(value: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """[t, 64], of an array or nested lists or a dict by slots."""
    if isinstance(value, dict):
        if sorted(value) != list(range(len(value))):
            raise ValueError(f"tables in slots {sorted(value)!s:.40}; allowed: 0, 1, 2, from 0 on")
        value = [value[slot] for slot in sorted(value)]
    try:
        array = np.array(value)
    except ValueError:
        raise ValueError(f"lists of unequal lengths; {_MEANT}") from None
    shapes = [(*many, *table) for many in ((), (1,), (2,), (3,)) for table in ((64,), (8, 8))]
    if array.dtype.kind not in "uif" or array.shape not in shapes:
        raise ValueError(f"an array of shape {list(array.shape)}; {_MEANT}")
    return array.reshape(-1, 64)
