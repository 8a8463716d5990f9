"""Which quality tables are like, and which encoder wrote a file."""

from __future__ import annotations

import functools
import re
import struct
import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qtable.encoders.parts import is_libjpeg_progression, kind_of
from qtable.jpeg.header import Header
from qtable.jpeg.markers import Quantization
from qtable.jpeg.tables import QTables
from qtable.text import printable

Facts = dict[str, Any]
Table = npt.NDArray[np.int64]


def _at_every_quality(most: int) -> Table:
    """int [2, 100, 8, 8]: Annex K's tables at 1..100, entries up to `most`; jcparam.c, `jpeg_add_quant_table`."""
    quality = np.arange(1, 101)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)[:, None, None]
    return np.clip((QTables.standard(50).values[:, None].astype(np.int64) * percent + 50) // 100, 1, most)


_IJG: Final = np.stack([_at_every_quality(255), _at_every_quality(32767)])  # with and without force_baseline


def likenesses(tables: Sequence[Table]) -> list[Facts]:
    """For each table the IJG quality with the nearest one of Annex K; mean_difference of entries: 0 if equal.

    tables: int [8, 8] each. Of what is equally near, the first table has luma, the others chroma and its quality.
    """
    found: list[Facts] = []
    for table in tables:
        gaps = np.abs(_IJG - table).mean(axis=(3, 4)).min(axis=0)  # [2, 100]: luma and chroma, quality
        luma, chroma = gaps.min(axis=1)
        kind = 0 if luma < chroma or (luma == chroma and not found) else 1
        best = np.flatnonzero(gaps[kind] == gaps[kind].min()) + 1
        quality = found[0]["nearest_quality"] if found and found[0]["nearest_quality"] in best else int(best[0])
        gap = float(gaps[kind, quality - 1])
        found.append({"nearest_quality": quality, "of": ("luma", "chroma")[kind], "mean_difference": gap})
    return found


def overall_quality(tables: QTables, components: int = 3) -> Facts:
    quality, gap = tables.nearest_quality(components)
    return {"nearest_quality": quality, "mean_difference": gap}


def quantization_facts(header: Header, names: Sequence[str]) -> list[Facts]:
    """The definitions of quantization tables: first those that components use, in their order, then the others.

    Components whose slot and table are equal share one row; a table that is defined again unchanged is not repeated.
    """
    rows: dict[tuple[int, bytes], tuple[Quantization, list[str]]] = {}
    for name, use in zip(names, header.uses, strict=True):
        if use is not None:
            q = header.quantizations[use]
            rows.setdefault((q.slot, q.values.tobytes()), (q, []))[1].append(name)
    for q in header.quantizations:
        rows.setdefault((q.slot, q.values.tobytes()), (q, []))
    return [
        {
            "components": users,
            "slot": q.slot,
            "entry_bits": q.bits,
            "defined_before_scan": q.scan + 1,
            **likeness,
            "values": q.values.tolist(),
        }
        for (q, users), likeness in zip(rows.values(), likenesses([q.values for q, _ in rows.values()]), strict=True)
    ]


_SIGNATURES: Final = {
    "Lavc": ("ffmpeg (libavcodec)", False),
    "CREATOR: gd-jpeg": ("gd (PHP), with libjpeg", True),
    "Created with GIMP": ("GIMP, with libjpeg", True),
    "File written by Adobe Photoshop": ("Adobe Photoshop", False),
    "LEAD Technologies": ("LEADTOOLS", False),
    "Optimized by JPEGmini": ("JPEGmini", None),
    "Intel(R) JPEG Library": ("Intel's JPEG library", None),
    "AppleMark": ("Apple's QuickTime", None),
}
"""What the comments of encoders begin with, and whether their tables are IJG's (None: not known)."""


def likely_encoder(header: Header, colour: str, tables: QTables | None, quantization: Sequence[Facts]) -> Facts:
    """{"likely": a name or None, "evidence": [facts]}.

    Every encoding makes tables anew, while programs copy comments and metadata: exact tables are believed before
    metadata, and a comment that contradicts them is told but not believed.
    """
    used = [q for q in quantization if q["components"]]
    by_tables, tables_evidence = _by_tables(tables, used)
    ijg = bool(used) and all(q["mean_difference"] == 0 for q in used)
    comments = [_printable(s.body) for s in header.segments if s.marker == 0xFE]
    signed = [
        name
        for text in comments
        for start, (name, libjpeg) in _SIGNATURES.items()
        if text.startswith(start) and libjpeg in (ijg, None)
    ]
    photoshop, photoshop_evidence = _photoshop(header)
    camera, exif_evidence = _exif(header)
    likely = [*signed, *by_tables, *photoshop, *camera]
    evidence = [*tables_evidence, *(f'comment "{text}"' for text in comments if text), *photoshop_evidence]
    evidence += [*exif_evidence, *_markers(header)]
    if header.progressive:
        libjpeg = is_libjpeg_progression(header, colour)
        evidence.append("libjpeg's default progression" if libjpeg else "a progression that is not libjpeg's default")
    ids = [component.id for component in header.components]
    if ids and ids != list(range(1, len(ids) + 1)):
        evidence.append(f"component ids {', '.join(map(str, ids))}, not 1, 2, ...")
    return {"likely": next(iter(likely), None), "evidence": evidence}


def _by_tables(tables: QTables | None, used: Sequence[Facts]) -> tuple[list[str], list[str]]:
    """What the quantization tables say: (encoders, evidence)."""
    if not used:
        return [], []
    if all(q["mean_difference"] == 0 for q in used):
        qualities = list(dict.fromkeys(q["nearest_quality"] for q in used))
        at = f"quality {qualities[0]}" if len(qualities) == 1 else f"qualities {', '.join(map(str, qualities))}"
        return (
            [f"libjpeg or a program with it (libjpeg-turbo, Pillow, OpenCV ...) at {at}"],
            [f"tables exactly IJG's at {at}"],
        )
    preset = None if tables is None else _presets().get(tables.components().tobytes())
    if preset is not None:
        return [f"mozjpeg with -quant-table {preset[0]} at quality {preset[1]}"], [
            f"tables exactly mozjpeg's preset {preset[0]} at quality {preset[1]}"
        ]
    flat = all(len(np.unique(q["values"])) == 1 for q in used)
    return [], ["flat tables" if flat else "tables that are neither IJG's nor mozjpeg's at any quality"]


@functools.cache
def _presets() -> dict[bytes, tuple[int, int]]:
    """Number and quality of mozjpeg's own presets by their tables (uint8 [3, 8, 8]), but for the flat one."""
    return {
        QTables.preset(f"mozjpeg-{number}", quality).components().tobytes(): (number, quality)
        for quality in range(100, 0, -1)
        for number in range(2, 9)
    }


def _photoshop(header: Header) -> tuple[list[str], list[str]]:
    """What Adobe's segments say: (encoders, evidence)."""
    for segment in header.segments:
        if kind_of(segment) == "APP13 Photoshop":
            # Image resource 0x0406, "JPEG quality": -4..8, which the program shows as 0..12.
            found = re.search(rb"8BIM\x04\x06\0\0\0\0\0.(..)", segment.body, re.DOTALL)
            if found:
                quality = struct.unpack(">h", found[1])[0] + 4
                return [f"Adobe Photoshop at quality {quality} of 12"], ["Photoshop's record of its JPEG quality"]
        if kind_of(segment) == "APP12 Ducky":
            return ["Adobe Photoshop, Save for Web"], ["APP12 Ducky"]
    return [], []


_EXIF_NAMES: Final = {0x010F: "make", 0x0110: "model", 0x0131: "software"}


def _exif(header: Header) -> tuple[list[str], list[str]]:
    """What Exif says of camera and software: (encoders, evidence)."""
    body = next((s.body for s in header.segments if kind_of(s) == "APP1 Exif"), None)
    if body is None:
        return [], []
    from PIL import Image  # most files have no Exif; to import Pillow takes as long as all else here

    exif = Image.Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exif.load(body)
            named = {name: _printable(exif[tag]) for tag, name in _EXIF_NAMES.items() if tag in exif}
        except Exception:  # Pillow raises whatever it likes on damaged Exif; it then says nothing
            return [], []
    camera = " ".join(named[name] for name in ("make", "model") if named.get(name)) or named.get("software")
    evidence = [f'Exif {name} "{text}"' for name, text in named.items() if text]
    return [f"what Exif names: {camera}"] if camera else [], evidence


def _markers(header: Header) -> list[str]:
    evidence = []
    for segment in header.segments:
        kind, body = kind_of(segment), segment.body
        if kind == "APP0 JFIF" and len(body) >= 7:
            evidence.append(f"JFIF {body[5]}.{body[6]:02d}")
        elif kind == "APP14 Adobe" and len(body) >= 12:
            evidence.append(f"Adobe marker, transform {body[11]}")
        elif kind in ("APP13 Photoshop", "APP1 XMP"):
            evidence.append(kind)
    return evidence


def _printable(text: object, most: int = 60) -> str:
    """One line that a terminal can show, of bytes or whatever Pillow made of a tag."""
    words = (text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)).strip(" \0\n")
    return printable(words if len(words) <= most else words[:most] + "...")
