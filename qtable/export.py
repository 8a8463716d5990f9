"""Tables out to the formats that encoders take. Needs numpy alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from qtable.tables import QTables, as_flat_list


def to_cjpeg(tables: QTables) -> str:
    """The text file of `cjpeg -qtables` (libjpeg-turbo, mozjpeg, jpegli): natural order, `#` comments."""
    slots = ",".join(str(slot) for slot in cjpeg_slots(tables))
    lines = [f"# cjpeg -qtables THIS_FILE -qslots {slots} -sample 2x2 -optimize -outfile OUT.jpg IN.ppm  (no -quality)"]
    names = [["all components"], ["luma", "chroma"], ["Y", "Cb", "Cr"]][tables.count - 1]
    for name, table in zip(names, tables.values.tolist(), strict=True):
        lines.append(f"# {name}")
        lines += [" ".join(f"{entry:3d}" for entry in row) for row in table]
    return "\n".join(lines) + "\n"


def cjpeg_slots(tables: QTables) -> tuple[int, ...]:
    """The argument of `cjpeg -qslots` that gives each component its table."""
    return ((0,), (0, 1), (0, 1, 2))[tables.count - 1]


def to_json(tables: QTables) -> str:
    """The JSON that `QTables.load` reads."""
    return json.dumps(tables.to_dict()) + "\n"


def to_pillow(tables: QTables) -> str:
    """A Python snippet for Pillow. Never pass `quality` as well: it would scale the tables."""
    rows = ",\n    ".join(str(table) for table in as_flat_list(tables))
    return (
        f"qtables = [\n    {rows},\n]\n"
        '# image.save("out.jpg", "JPEG", qtables=qtables, subsampling="4:2:0", optimize=True)  # no quality=\n'
    )


FORMATS: Final[dict[str, Callable[[QTables], str]]] = {"cjpeg": to_cjpeg, "json": to_json, "pillow": to_pillow}
