"""Tables read out of any file, JPEG or not."""

from __future__ import annotations

from qtable.encoders.formats import FORMATS, detect
from qtable.encoders.python import order_printed
from qtable.jpeg.header import read_header
from qtable.jpeg.tables import QTables


def read_tables(data: bytes, name: str | None = None, form: str | None = None) -> tuple[QTables, str]:
    """Tables of a JPEG or of a file in one of `FORMATS`, and its format's name ("jpeg" for any JPEG).

    name: of the file, for messages. form: the format, else told by the content. ValueError, in one line, for any
    other bytes.
    """
    try:
        if form is not None and form not in FORMATS:
            raise ValueError(f"format {form!r} is unknown; allowed: {', '.join(FORMATS)}")
        if data.startswith(b"\xff\xd8") and form in (None, "donor"):
            return read_header(data).tables, "jpeg"
        chosen = detect(data) if form is None else FORMATS[form]
        try:
            return chosen.read(data), chosen.name
        except ValueError as error:
            unknown = "no format is recognised; " if form is None and chosen.mark is None else ""
            raise ValueError(f"{unknown}as a {chosen.name} file: {error}") from None
    except ValueError as error:
        raise ValueError(" ".join(f"{name or 'table file'}: {error}".split())) from None


def remark(data: bytes, form: str, tables: QTables) -> str | None:
    """What a reader of tables in this format should know of them; None for most."""
    if form == "ffmpeg" and (tables.values[:, 0, 0] != 8).any():
        return "the matrices as they are; in ffmpeg's files the first entry of each table (DC) is 8"
    order = order_printed(data) if form == "pillow" else None
    return order and f"read in {order}"
