"""The parts of a JPEG file by name: segments, colours, Huffman tables, progression, and the bytes of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from qtable.jpeg.header import Header
from qtable.jpeg.huffman import STANDARD_HUFFMAN
from qtable.jpeg.markers import Segment


def colour_space(header: Header) -> str:
    """Of a file's samples as libjpeg takes it: jdapimin.c, `default_decompress_parms`."""
    ids = [component.id for component in header.components]
    adobe = next((s.body[11] for s in header.segments if kind_of(s) == "APP14 Adobe" and len(s.body) >= 12), None)
    if len(ids) == 3:
        jfif = any(kind_of(segment) == "APP0 JFIF" for segment in header.segments)
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
METADATA: Final = {"Exif": ("APP1 Exif",), "ICC": ("APP2 ICC",), "XMP": ("APP1 XMP", "APP1 extended XMP")}


def kind_of(segment: Segment) -> str:
    """ "APP1 Exif", "APP7", "COM", ...; "" for what belongs to the coding."""
    if segment.marker == 0xFE:
        return "COM"
    if not 0xE0 <= segment.marker <= 0xEF:
        return ""
    name = f"APP{segment.marker - 0xE0}"
    return next((k for k, start in _KINDS.items() if k.split()[0] == name and segment.body.startswith(start)), name)


def bytes_of(header: Header, kinds: Iterable[str]) -> int:
    return sum(segment.size for segment in header.segments if kind_of(segment) in kinds)


def sizes(header: Header) -> dict[str, int]:
    """Bytes of each part of a file; they add up to the file. Segments are counted with marker and length."""
    kinds = sorted({kind_of(segment) for segment in header.segments} - {""})
    parts = {
        "scan data": header.scan_bytes,
        "quantization tables": sum(s.size for s in header.segments if s.marker == 0xDB),
        "Huffman tables": sum(s.size for s in header.segments if s.marker == 0xC4),
        **{kind: bytes_of(header, [kind]) for kind in kinds},
        "after EOI": header.trailing_bytes,
    }
    return parts | {"other headers": header.header_bytes + header.scan_bytes - sum(parts.values())}
