"""Tables for programs: cjpeg, ImageMagick, NumPy, JSON."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import numpy.typing as npt

from qtable.encoders.text import _HASH_COMMENT, _NAMES, _numbers, _rows, _tables
from qtable.jpeg.tables import QTables, as_flat_list


def _cjpeg(tables: QTables) -> str:
    named = zip(_NAMES[tables.count - 1], as_flat_list(tables), strict=True)
    return "".join(f"# {name}\n{_rows(table).replace(',', '')}" for name, table in named)


def _read_cjpeg(text: str) -> QTables:
    """rdswitch.c, read_quant_tables: numbers between white space, comments from # to the end of the line."""
    return _tables(_numbers(re.sub(_HASH_COMMENT, " ", text)))


def _imagemagick(tables: QTables) -> str:
    slots = ""
    for slot, (name, table) in enumerate(zip(_NAMES[tables.count - 1], as_flat_list(tables), strict=True)):
        levels = _rows(table, "      ").rstrip(",\n")
        slots += (
            f'  <table slot="{slot}" alias="{name.split()[0]}">\n    <description>{name}</description>\n'
            f'    <levels width="8" height="8" divisor="1">\n{levels}\n    </levels>\n  </table>\n'
        )
    return f"<quantization-tables>\n{slots}</quantization-tables>\n"


def _read_imagemagick(text: str) -> QTables:
    """MagickCore/quantization-table.c: a level is its number divided by `divisor`, rounded."""
    if "<!ENTITY" in text:
        raise ValueError("XML entities are not read")
    try:
        elements = ET.fromstring(text).findall("table")
    except (ET.ParseError, ValueError) as error:
        raise ValueError(f"not XML: {error}") from None
    slots: dict[str, list[int]] = {}
    for element in elements:
        slot, levels = element.get("slot", ""), element.find("levels")
        if slot in slots or levels is None:
            raise ValueError(f"slot {slot[:20]!r} is there twice or has no <levels>")
        divisor = _numbers(levels.get("divisor", "1"))
        if len(divisor) != 1 or divisor[0] == 0:
            raise ValueError(f"the divisor of slot {slot[:20]!r} is not a whole number above 0")
        slots[slot] = [(2 * number + divisor[0]) // (2 * divisor[0]) for number in _numbers(levels.text or "")]
    if sorted(slots) != list("012"[: len(slots)]):
        raise ValueError(f"{len(slots)} tables in other slots than 0, 1, 2")
    if any(len(levels) != 64 for levels in slots.values()):
        raise ValueError("a table without 64 levels")
    return _tables([level for slot in sorted(slots) for level in slots[slot]])


def _read_json(text: str) -> QTables:
    try:
        return QTables.from_dict(json.loads(text))
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def _numpy(tables: QTables) -> bytes:
    file = io.BytesIO()
    np.save(file, tables.values)
    return file.getvalue()


def _read_numpy(data: bytes) -> QTables:
    try:
        file = io.BytesIO(data)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, _, _ = read[np.lib.format.read_magic(file)[0]](file)
        if not 64 <= np.prod([float(side) for side in shape]) <= 3 * 64:  # before memory is taken for it
            raise ValueError(shape)
        array: npt.NDArray[np.generic] = np.load(io.BytesIO(data), allow_pickle=False)
        if array.dtype.kind not in "uif":
            raise ValueError(array.dtype)
    except Exception:  # numpy evaluates the header and raises whatever that raises
        raise ValueError("not a .npy file of one array of numbers, 64 to a table, 1 to 3 tables") from None
    return QTables(array)
