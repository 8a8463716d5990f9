"""Tables as scaling lists of video encoders (experimental)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from qtable.encoders.text import _HASH_COMMENT, _numbers, _rows, _tables
from qtable.jpeg.tables import QTables

_PLANES: Final = ("LUMA", "CHROMAU", "CHROMAV")


def _scaling_list(name: str, entries: Sequence[int]) -> str:
    return f"{name} =\n{_rows(entries)}"


def _x264(tables: QTables) -> str:
    """common/set.c, x264_cqm_parse_file: a list that is not there is flat 16; CHROMAU serves both chroma planes."""
    planes = zip(_PLANES, tables.components().reshape(3, 64).tolist(), strict=True)
    return "".join(_scaling_list(f"INTRA8X8_{plane}", entries) for plane, entries in planes)


def _x265(tables: QTables) -> str:
    """common/scalinglist.cpp, parseScalingList: every list in this order; 16 and 32 repeat each entry of the 8 x 8."""
    lines = []
    for side in (4, 8, 16, 32):
        for kind in ("INTRA", "INTER"):
            for plane, table in zip(_PLANES[: 1 if side == 32 else 3], tables.components(), strict=False):
                entries = table.ravel().tolist() if kind == "INTRA" and side > 4 else [16] * min(64, side * side)
                lines.append(_scaling_list(f"{kind}{side}X{side}_{plane}", entries))
                if side > 8:
                    lines.append(_scaling_list(f"{kind}{side}X{side}_{plane}_DC", entries[:1]))
    return "".join(lines)


def _read_scaling_lists(text: str) -> QTables:
    """The INTRA8X8 lists. Equal ones are one table, unless the heading says that there are more."""
    found = dict(re.findall(r"(INTRA8X8_[A-Z]+)\s*=([0-9,\s]*)", re.sub(_HASH_COMMENT, " ", text)))
    missing = next((plane for plane in _PLANES if f"INTRA8X8_{plane}" not in found), None)
    if missing is not None:
        raise ValueError(f"no list INTRA8X8_{missing}")
    values = _tables([number for plane in _PLANES for number in _numbers(found[f"INTRA8X8_{plane}"])]).values
    luma, cb, cr = values
    different = 3 if not np.array_equal(cb, cr) else 2 if not np.array_equal(luma, cb) else 1
    said = re.search(r"([123]) quantization table", text)
    return QTables(values[: max(different, int(said[1]) if said else 1)])
