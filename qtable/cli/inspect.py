"""`qtable inspect`: what a JPEG or table file says of itself, and what can be concluded from it."""

from __future__ import annotations

import functools
import json
import re
import struct
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image

from qtable.cli.common import AsJson, printable, read_jpeg_or_tables
from qtable.codec import Header, JpegError, Quantization, Segment, read_header
from qtable.rate import STANDARD_HUFFMAN
from qtable.tables import QTables
from qtable.verify import read_tables

Facts = dict[str, Any]
Table = npt.NDArray[np.int64]


def inspect_command(
    file: Annotated[Path, typer.Argument(help="A JPEG or a table file.")],
    as_json: AsJson = False,
) -> None:
    """Show a JPEG's tables, quality, coding, sizes, metadata and likely encoder, or the tables of a table file."""
    data = read_jpeg_or_tables(file)
    if data.startswith(b"\xff\xd8"):
        try:
            facts = jpeg_facts(data)
        except JpegError as error:
            raise JpegError(f"{file}: {error}") from None
    else:
        facts = table_facts(*read_tables(data, str(file)))
    facts = {"file": str(file), **facts}
    print(json.dumps(facts) if as_json else _text(facts))


def table_facts(tables: QTables, form: str) -> Facts:
    """What `qtable inspect` says of tables by themselves, from a file of this format; JSON-ready."""
    names = [("all",), ("luma", "chroma"), ("Y", "Cb", "Cr")][tables.count - 1]
    return {
        "format": form,
        "count": tables.count,
        **_overall_quality(tables),
        "quantization": [
            {"components": [name], **likeness, "values": table.tolist()}
            for name, likeness, table in zip(names, _likenesses(list(tables.values)), tables.values, strict=True)
        ],
        "tables": tables.values.tolist(),
    }


def jpeg_facts(data: bytes) -> Facts:
    """Everything that `qtable inspect` says of a JPEG file; JSON-ready. JpegError if it is malformed."""
    header = read_header(data)
    colour = colour_space(header)
    names = component_names(header, colour)
    try:
        tables, note = header.tables, None
    except JpegError as error:
        tables, note = None, f"qtable cannot use these tables: {error}"
    quantization = _quantization(header, names)
    pixels = header.width * header.height
    return {
        "format": "jpeg",
        "bytes": len(data),
        "width": header.width,
        "height": header.height,
        "bits_per_pixel": 8 * len(data) / pixels if pixels else None,
        "precision": header.precision,
        "colour": colour,
        "subsampling": header.subsampling,
        "components": [
            {"name": name, "id": c.id, "horizontal": c.horizontal, "vertical": c.vertical, "slot": c.slot}
            for name, c in zip(names, header.components, strict=True)
        ],
        "mode": header.mode,
        "huffman_tables": huffman_origin(header),
        "restart_interval": header.scans[0].restart_interval if header.scans else 0,
        "scans": [
            {
                "components": list(scan.components),
                "spectrum": list(scan.spectrum),
                "approximation": list(scan.approximation),
                "restart_interval": scan.restart_interval,
                "bytes": scan.bytes,
            }
            for scan in header.scans
        ],
        "libjpeg_progression": is_libjpeg_progression(header, colour) if header.progressive else None,
        "header_bytes": header.header_bytes,
        "scan_bytes": header.scan_bytes,
        "sizes": sizes(header),
        "metadata": {name: _bytes_of(header, kinds) for name, kinds in _METADATA.items()},
        "encoder": likely_encoder(header, colour, tables, quantization),
        "note": note,
        **(_overall_quality(tables, 1 if tables.count == 1 and colour != "YCbCr" else 3) if tables else {}),
        "quantization": quantization,
        "tables": tables.values.tolist() if tables else None,
    }


# ---- colour and coding ----------------------------------------------------------------------------------------


def colour_space(header: Header) -> str:
    """Of a file's samples as libjpeg takes it: jdapimin.c, `default_decompress_parms`."""
    ids = [component.id for component in header.components]
    adobe = next((s.body[11] for s in header.segments if _kind(s) == "APP14 Adobe" and len(s.body) >= 12), None)
    if len(ids) == 3:
        jfif = any(_kind(segment) == "APP0 JFIF" for segment in header.segments)
        rgb = adobe == 0 if adobe is not None else ids == list(b"RGB")
        return "RGB" if rgb and not jfif else "YCbCr"
    if len(ids) == 4:
        return "YCCK" if adobe == 2 else "CMYK"
    return {0: "none", 1: "grey"}.get(len(ids), "unknown")


def component_names(header: Header, colour: str) -> list[str]:
    """A name for each component of the frame, "Y" or "C" ...; its place where the colours are not known."""
    known = {"grey": ("Y",), "YCbCr": ("Y", "Cb", "Cr"), "YCCK": ("Y", "Cb", "Cr", "K")}
    names: Sequence[str] = known.get(colour, tuple(colour))
    if len(names) != len(header.components):
        names = [f"component {i}" for i in range(1, len(header.components) + 1)]
    return list(names)


_STANDARD: Final = [(i % 2, bytes(table.counts), bytes(table.symbols)) for i, table in enumerate(STANDARD_HUFFMAN)]


def huffman_origin(header: Header) -> str | None:
    """Where the Huffman tables come from; None for arithmetic coding.

    Tables for all photos have a code for each symbol of baseline coding; those made for one lack what it does not need.
    """
    if not header.huffman or not header.components:
        return None
    if not header.huffman_tables:
        return "none in the file"
    own = [t for t in header.huffman_tables if (t.kind, t.counts, t.symbols) not in _STANDARD]
    if not own:
        return "Annex K's"
    if any(not set(_STANDARD[t.kind][2]) <= set(t.symbols) for t in own):
        return "optimized"
    return "an encoder's own, for all photos"


def is_libjpeg_progression(header: Header, colour: str) -> bool:
    """Whether the scans are those of jcparam.c, `jpeg_simple_progression`."""
    every = tuple(component.id for component in header.components)

    def scan(components: Iterable[int], first: int, last: int, before: int, after: int) -> list[tuple[Any, ...]]:
        return [((c,), (first, last), (before, after)) for c in components]

    def dc(before: int, after: int) -> list[tuple[Any, ...]]:
        return [(every, (0, 0), (before, after))] if len(every) <= 4 else scan(every, 0, 0, before, after)

    if colour == "YCbCr":
        y, cb, cr = every
        ac = [*scan([y], 1, 5, 0, 2), *scan([cr, cb], 1, 63, 0, 1), *scan([y], 6, 63, 0, 2), *scan([y], 1, 63, 2, 1)]
        last = scan([cr, cb, y], 1, 63, 1, 0)
    else:
        ac = [*scan(every, 1, 5, 0, 2), *scan(every, 6, 63, 0, 2), *scan(every, 1, 63, 2, 1)]
        last = scan(every, 1, 63, 1, 0)
    return [(s.components, s.spectrum, s.approximation) for s in header.scans] == [*dc(0, 1), *ac, *dc(1, 0), *last]


# ---- sizes and metadata ---------------------------------------------------------------------------------------

_KINDS: Final = {
    "APP0 JFIF": b"JFIF\0",
    "APP0 JFXX": b"JFXX\0",
    "APP1 Exif": b"Exif\0",
    "APP1 XMP": b"http://ns.adobe.com/xap/1.0/\0",
    "APP1 extended XMP": b"http://ns.adobe.com/xmp/extension/\0",
    "APP2 ICC": b"ICC_PROFILE\0",
    "APP2 MPF": b"MPF\0",
    "APP11 JUMBF": b"JP",
    "APP12 Ducky": b"Ducky",
    "APP13 Photoshop": b"Photoshop 3.0\0",
    "APP14 Adobe": b"Adobe",
}
"""What an APPn segment begins with."""
_METADATA: Final = {"Exif": ("APP1 Exif",), "ICC": ("APP2 ICC",), "XMP": ("APP1 XMP", "APP1 extended XMP")}


def _kind(segment: Segment) -> str:
    """ "APP1 Exif", "APP7", "COM", ...; "" for what belongs to the coding."""
    if segment.marker == 0xFE:
        return "COM"
    if not 0xE0 <= segment.marker <= 0xEF:
        return ""
    name = f"APP{segment.marker - 0xE0}"
    return next((k for k, start in _KINDS.items() if k.split()[0] == name and segment.body.startswith(start)), name)


def _bytes_of(header: Header, kinds: Iterable[str]) -> int:
    return sum(segment.size for segment in header.segments if _kind(segment) in kinds)


def sizes(header: Header) -> dict[str, int]:
    """Bytes of each part of a file; they add up to the file. Segments are counted with marker and length."""
    kinds = sorted({_kind(segment) for segment in header.segments} - {""})
    parts = {
        "scan data": header.scan_bytes,
        "quantization tables": sum(s.size for s in header.segments if s.marker == 0xDB),
        "Huffman tables": sum(s.size for s in header.segments if s.marker == 0xC4),
        **{kind: _bytes_of(header, [kind]) for kind in kinds},
        "after EOI": header.trailing_bytes,
    }
    return parts | {"other headers": header.header_bytes + header.scan_bytes - sum(parts.values())}


# ---- quality --------------------------------------------------------------------------------------------------


def _at_every_quality(most: int) -> Table:
    """int [2, 100, 8, 8]: Annex K's tables at 1..100, entries up to `most`; jcparam.c, `jpeg_add_quant_table`."""
    quality = np.arange(1, 101)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)[:, None, None]
    return np.clip((QTables.standard(50).values[:, None].astype(np.int64) * percent + 50) // 100, 1, most)


_IJG: Final = np.stack([_at_every_quality(255), _at_every_quality(32767)])  # with and without force_baseline


def _likenesses(tables: Sequence[Table]) -> list[Facts]:
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


def _overall_quality(tables: QTables, components: int = 3) -> Facts:
    quality, gap = tables.nearest_quality(components)
    return {"nearest_quality": quality, "mean_difference": gap}


def _quantization(header: Header, names: Sequence[str]) -> list[Facts]:
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
        for (q, users), likeness in zip(rows.values(), _likenesses([q.values for q, _ in rows.values()]), strict=True)
    ]


# ---- encoder --------------------------------------------------------------------------------------------------

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
        if _kind(segment) == "APP13 Photoshop":
            # Image resource 0x0406, "JPEG quality": -4..8, which the program shows as 0..12.
            found = re.search(rb"8BIM\x04\x06\0\0\0\0\0.(..)", segment.body, re.DOTALL)
            if found:
                quality = struct.unpack(">h", found[1])[0] + 4
                return [f"Adobe Photoshop at quality {quality} of 12"], ["Photoshop's record of its JPEG quality"]
        if _kind(segment) == "APP12 Ducky":
            return ["Adobe Photoshop, Save for Web"], ["APP12 Ducky"]
    return [], []


_EXIF_NAMES: Final = {0x010F: "make", 0x0110: "model", 0x0131: "software"}


def _exif(header: Header) -> tuple[list[str], list[str]]:
    """What Exif says of camera and software: (encoders, evidence)."""
    body = next((s.body for s in header.segments if _kind(s) == "APP1 Exif"), None)
    if body is None:
        return [], []
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
        kind, body = _kind(segment), segment.body
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


# ---- for people -----------------------------------------------------------------------------------------------


def _text(facts: Facts) -> str:
    lines = [
        ("file", printable(facts["file"])),
        *(_jpeg_lines(facts) if facts["format"] == "jpeg" else _file_lines(facts)),
    ]
    blocks = [f"{name:10} {text}".rstrip() for name, text in lines]
    for row in facts["quantization"]:
        width = max(3, len(str(np.max(row["values"]))))
        matrix = "\n".join("  " + " ".join(f"{x:{width}d}" for x in entries) for entries in row["values"])
        blocks.append(f"\n{_title(row)}\n{matrix}")
    return "\n".join(blocks)


def _file_lines(facts: Facts) -> list[tuple[str, str]]:
    return [("format", facts["format"]), ("tables", str(facts["count"])), ("quality", _quality(facts))]


def _jpeg_lines(facts: Facts) -> list[tuple[str, str]]:
    scans = len(facts["scans"])
    coding = [facts["mode"], f"{scans} scan{'s' * (scans != 1)}"]
    if facts["huffman_tables"]:
        coding.append(f"Huffman tables: {facts['huffman_tables']}")
    coding.append(f"restart every {facts['restart_interval']} MCUs" if facts["restart_interval"] else "no restarts")
    lines = [("coding", ", ".join(coding))]
    size = f"{facts['bytes']:,} bytes"
    if facts["components"]:
        sampling = "" if facts["colour"] == "grey" else f" {facts['subsampling']}"
        photo = f"{facts['width']} x {facts['height']} pixels, {facts['colour']}{sampling}"
        lines.insert(0, ("photo", f"{photo}, {facts['precision']} bits a sample"))
        size += f", {facts['bits_per_pixel']:.3f} bits a pixel"
    lines.append(("size", size))
    parts = {part: count for part, count in facts["sizes"].items() if count}
    lines += [("", f"{part:20}{count:>12,}  {count / facts['bytes']:6.1%}") for part, count in parts.items()]
    metadata = ", ".join(f"{name} {count:,} bytes" for name, count in facts["metadata"].items() if count)
    lines.append(("metadata", metadata or "no Exif, ICC or XMP"))
    if "nearest_quality" in facts:
        lines.append(("quality", _quality(facts)))
    likely = facts["encoder"]["likely"]
    lines.append(("encoder", f"likely {likely}" if likely else "not known"))
    lines += [("", f"- {fact}") for fact in facts["encoder"]["evidence"]]
    return lines + ([("note", facts["note"])] if facts["note"] else [])


def _quality(facts: Facts) -> str:
    gap = facts["mean_difference"]
    exactness = "exactly" if gap == 0 else f"mean difference of entries {gap:.1f}: a guess"
    return f"IJG quality {facts['nearest_quality']}, {exactness}"


def _title(row: Facts) -> str:
    users = ", ".join(row["components"]) or "no component"
    slot = f" (slot {row['slot']}, {row['entry_bits']} bits)" if "slot" in row else ""
    later = f", defined before scan {row['defined_before_scan']}" if row.get("defined_before_scan", 1) > 1 else ""
    return f"{users}{slot}{later}: {row['of']} at {_quality(row)}"
