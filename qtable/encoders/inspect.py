"""What there is to say of a JPEG file or of tables: coding, colours, sizes, metadata."""

from __future__ import annotations

from qtable.encoders.identify import Facts, likely_encoder, likenesses, overall_quality, quantization_facts
from qtable.encoders.parts import (
    METADATA,
    bytes_of,
    colour_space,
    component_names,
    huffman_origin,
    is_libjpeg_progression,
    sizes,
)
from qtable.jpeg.header import read_header
from qtable.jpeg.markers import JpegError
from qtable.jpeg.tables import QTables


def table_facts(tables: QTables, form: str) -> Facts:
    """What `qtable inspect` says of tables by themselves, from a file of this format; JSON-ready."""
    names = [("all",), ("luma", "chroma"), ("Y", "Cb", "Cr")][tables.count - 1]
    return {
        "format": form,
        "count": tables.count,
        **overall_quality(tables),
        "quantization": [
            {"components": [name], **likeness, "values": table.tolist()}
            for name, likeness, table in zip(names, likenesses(list(tables.values)), tables.values, strict=True)
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
    quantization = quantization_facts(header, names)
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
        "metadata": {name: bytes_of(header, kinds) for name, kinds in METADATA.items()},
        "encoder": likely_encoder(header, colour, tables, quantization),
        "note": note,
        **(overall_quality(tables, 1 if tables.count == 1 and colour != "YCbCr" else 3) if tables else {}),
        "quantization": quantization,
        "tables": tables.values.tolist() if tables else None,
    }
