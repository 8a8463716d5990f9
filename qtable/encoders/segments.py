"""Tables as marker segments (ITU-T T.81, annex B): raw DQT, and a donor JPEG."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qtable.encoders.text import _tables
from qtable.jpeg.tables import QTables


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of one segment after the other."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if data[at] != 0xFF or length < 2 or len(body) != length - 2:
            raise ValueError(f"no whole marker segment at byte {at}")
        yield data[at + 1], body
        at += 2 + length


def _dqt(tables: QTables) -> bytes:
    return b"".join(_segment(0xDB, bytes([slot]) + table.tobytes()) for slot, table in enumerate(tables.zigzag()))


def _read_dqt(data: bytes) -> QTables:
    slots: dict[int, list[int]] = {}
    for marker, body in _segments(data):
        if marker != 0xDB:
            raise ValueError(f"marker {marker:#04x} where only DQT segments (0xdb) are read")
        while body:
            slot, size = body[0] & 15, 1 + (body[0] >> 4)
            entries, body = body[1 : 1 + 64 * size], body[1 + 64 * size :]
            if size > 2 or slot in slots or len(entries) != 64 * size:
                raise ValueError(f"a malformed or second table in slot {slot}")
            slots[slot] = np.frombuffer(entries, ">u2" if size == 2 else "u1").tolist()
    if sorted(slots) != list(range(len(slots))):
        raise ValueError(f"tables in slots {sorted(slots)}; allowed: 0, 1, 2")
    return _tables([entry for slot in sorted(slots) for entry in slots[slot]], "zigzag")


def _donor(tables: QTables) -> bytes:
    """8 x 8 grey pixels, baseline, 4:4:4; the Huffman tables have one symbol each: no difference, end of block."""
    frame = b"".join(bytes([i + 1, 0x11, min(i, tables.count - 1)]) for i in range(3))
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
            _dqt(tables),
            _segment(0xC0, b"\x08\0\x08\0\x08\x03" + frame),
            *(_segment(0xC4, bytes([which, 1] + 15 * [0] + [0])) for which in (0x00, 0x10)),
            _segment(0xDA, b"\x03\x01\0\x02\0\x03\0\0\x3f\0"),
            b"\x03\xff\xd9",  # two codes 0 for each of three blocks, filled up with ones
        )
    )


def _read_donor(data: bytes) -> QTables:
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG file (no SOI marker)")
    found = b""
    for marker, body in _segments(data[2:]):
        if marker == 0xDA:
            break
        found += _segment(marker, body) if marker == 0xDB else b""
    return _read_dqt(found)
