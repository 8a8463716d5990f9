"""Damage in Huffman-coded data, found without decoding: what libjpeg warns of and Pillow does not pass on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from qtable.jpeg.header import Header
from qtable.jpeg.kernels import entropy
from qtable.jpeg.markers import Huffman, JpegError, Segment, read_dht, unpack

_RESTART: Final = re.compile(rb"\xff+([\xd0-\xd7])")
_STUFFED: Final = re.compile(rb"\xff+\x00")
_WORDS: Final = {
    entropy.BAD_CODE: "a code that no Huffman table has",
    entropy.SHORT: "a premature end",
    entropy.LONG: "bytes too many",
}
_Tables = dict[tuple[int, int], Huffman]


def check_entropy(data: bytes, header: Header) -> None:
    """JpegError for the first scan whose bits are not what its header says; `header` is that of `data`.

    8-bit DCT coding with Huffman tables alone, sequential or progressive; JpegError for the others.
    """
    if header.lossless or header.hierarchical or not header.huffman or header.precision != 8:
        raise JpegError(f"{header.mode} coding of {header.precision} bits with samples as {header.subsampling}")
    tables: _Tables = {}
    interval = 0
    nonzero = {c.id: np.zeros(64 * _blocks(header, c.id), np.uint8) for c in header.components}
    for segment in header.segments:
        if segment.marker == 0xC4:
            tables |= {(table.kind, table.slot): table for table in read_dht(segment)}
        elif segment.marker == 0xDD:
            (interval,) = unpack(">H", segment)
        elif segment.marker == 0xDA:
            _check_scan(data, header, segment, tables, interval, nonzero)


def _check_scan(
    data: bytes,
    header: Header,
    segment: Segment,
    tables: _Tables,
    interval: int,
    nonzero: dict[int, npt.NDArray[np.uint8]],
) -> None:
    body = segment.body
    components, slots, (first, last, bits) = body[1:-3:2], body[2:-3:2], body[-3:]
    if header.progressive and first and (len(components) != 1 or not first <= last <= 63):
        raise JpegError(f"a scan at byte {segment.at} of {len(components)} components, coefficients {first} to {last}")
    single = len(components) == 1
    factors = {c.id: 1 if single else c.horizontal * c.vertical for c in header.components}
    mcus = _blocks(header, components[0]) if single else _mcus(header)
    coded = [_lookup(tables.get((kind, slot >> 4 if kind == 0 else slot & 15))) for slot in slots for kind in (0, 1)]
    stacked = np.stack(coded)
    dc = np.repeat(np.arange(0, len(coded), 2), [factors[component] for component in components])
    done = 0
    for number, (marker, piece) in enumerate(_pieces(data, segment)):
        here = min(interval or mcus, mcus - done)
        if here <= 0 or (number and marker != (number - 1) % 8):
            raise JpegError(f"restart marker {number} of the scan at byte {segment.at} is not in its place")
        if not header.progressive:
            found = entropy.sequential(piece, stacked, dc, dc + 1, here)
        elif first == 0:
            found = entropy.progressive_dc(piece, stacked, dc, here, bits > 15)
        else:
            seen = nonzero[components[0]][64 * done :]
            found = entropy.progressive_ac(piece, stacked[1], here, first, last, bits > 15, seen)
        if found != entropy.WHOLE:
            raise JpegError(f"{_WORDS[found]} in the data of the scan at byte {segment.at}")
        done += here
    if done < mcus:
        raise JpegError(f"{_WORDS[entropy.SHORT]} in the data of the scan at byte {segment.at}")


def _pieces(data: bytes, segment: Segment) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """(number of the restart marker before it, bytes without stuffing and four more) of what lies between them."""
    begin = segment.at + segment.size
    parts = _RESTART.split(data[begin : begin + segment.entropy_bytes])
    for marker, part in zip([b"\xd0", *parts[1::2]], parts[::2], strict=True):
        yield marker[0] - 0xD0, np.frombuffer(_STUFFED.sub(b"\xff", part.rstrip(b"\xff")) + bytes(4), np.uint8)


def _lookup(table: Huffman | None) -> npt.NDArray[np.int32]:
    """int32 [65536], by the next 16 bits: 256 * the length of the code + its symbol; 0 where there is no code."""
    found = np.zeros(1 << 16, np.int32)
    if table is None:
        return found
    code, at = 0, 0
    for length, count in enumerate(table.counts, start=1):
        for symbol in table.symbols[at : at + count]:
            found[code << (16 - length) : (code + 1) << (16 - length)] = length << 8 | symbol
            code += 1
        at += count
        code <<= 1
    return found


def _mcus(header: Header) -> int:
    wide, high = _largest_factors(header)
    return -(-header.width // (8 * wide)) * -(-header.height // (8 * high))


def _blocks(header: Header, component: int) -> int:
    """Of one component without those that fill up MCUs (T.81, A.2.2)."""
    own = next(c for c in header.components if c.id == component)
    wide, high = _largest_factors(header)
    columns, rows = -(-header.width * own.horizontal // wide), -(-header.height * own.vertical // high)
    return -(-columns // 8) * -(-rows // 8)


def _largest_factors(header: Header) -> tuple[int, int]:
    return max(c.horizontal for c in header.components), max(c.vertical for c in header.components)
