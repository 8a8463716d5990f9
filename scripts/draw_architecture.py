"""Draws docs/architecture.svg from the imports and from the floors in pyproject.toml: part of `make docs`.

A box is a room with the first line of its docstring. An arrow is an import between rooms that no chain of other arrows
implies (the transitive reduction); the last line in a box names all rooms that it imports.
"""

from __future__ import annotations

import ast
import itertools
import textwrap
import tomllib
from pathlib import Path
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

import grimp

from qtable.files import write_atomically

ROOT: Final = Path(__file__).resolve().parent.parent
SVG: Final = "docs/architecture.svg"
Floors = list[list[str]]
"""Names of rooms by floor, highest floor first."""
Edge = tuple[str, str]
"""(importing room, imported room)."""

WIDTH: Final = 520  # of the picture; on a phone of 360 points the small print is then 9 points high
MARGIN: Final = 30  # at both sides of the boxes, for arrows that pass floors
GUTTER: Final = 14  # between the boxes of a floor
STOREY: Final = 30  # between floors
PAD: Final = 12
LANE: Final = 9  # between arrows at a side
PORT: Final = 14  # from a corner of a box to where they leave or enter its side
TITLE, WORDS, SMALL = 17, 14, 13
LETTER: Final = 0.56  # mean width of a letter of these fonts in ems, generously


class Box(NamedTuple):
    """A room's place in the picture and its text."""

    x: float
    y: float
    width: float
    height: float
    title: str
    words: list[str]
    uses: list[str]

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def touches(self, side: int) -> bool:
        """Whether no other box is between this one and the left (0) or right (1) edge."""
        return self.right > WIDTH - MARGIN - 1 if side else self.x < MARGIN + 1


# ---- what is drawn --------------------------------------------------------------------------------------------


def floors() -> Floors:
    """The rooms as pyproject.toml's first contract has them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    return [[room.strip() for room in floor.split("|")] for floor in contracts[0]["layers"]]


def imports(names: Floors) -> set[Edge]:
    """Which room imports which, anywhere in its modules."""
    rooms = set(itertools.chain(*names))
    graph = grimp.build_graph("qtable", "search", cache_dir=None)
    found = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            edge = room_of(module, rooms), room_of(imported, rooms)
            if all(edge) and edge[0] != edge[1]:
                found.add(edge)
    return found


def room_of(module: str, rooms: set[str]) -> str:
    """The room that a module is in; "" for `qtable` itself, which only passes on what the rooms offer."""
    parts = module.split(".")
    return next((name for i in range(len(parts), 0, -1) if (name := ".".join(parts[:i])) in rooms), "")


def reduced(edges: set[Edge]) -> set[Edge]:
    """The edges that no longer path implies; edges without a circle."""
    below: dict[str, set[str]] = {}
    for upper, lower in edges:
        below.setdefault(upper, set()).add(lower)

    def reach(room: str) -> set[str]:
        return set().union(*({lower} | reach(lower) for lower in below.get(room, ())))

    return {(upper, lower) for upper, lower in edges if not any(lower in reach(other) for other in below[upper])}


def purpose(room: str) -> str:
    """The first line of a room's docstring; "" if it has none."""
    place = ROOT / room.replace(".", "/")
    source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").partition("\n")[0]


# ---- where it is drawn ----------------------------------------------------------------------------------------


def arranged(names: Floors, edges: set[Edge]) -> Floors:
    """The rooms of each floor in the order that keeps arrows short and at the sides; the first such order."""
    level = {room: i for i, floor in enumerate(names) for room in floor}

    def cost(order: Floors) -> float:
        middle = {room: (i + 0.5) / len(floor) for floor in order for i, room in enumerate(floor)}
        sides = {side: {floor[side] for floor in order} for side in (0, -1)}
        total = 0.0
        for upper, lower in sorted(edges):  # sums depend on their order
            long = level[lower] - level[upper] > 1
            total += abs(middle[upper] - middle[lower])
            total += 3 * (long and not any({upper, lower} <= side for side in sides.values()))
        return total

    orders = itertools.product(*(map(list, itertools.permutations(floor)) for floor in names))
    return min(([*order] for order in orders), key=cost)


def placed(order: Floors, edges: set[Edge]) -> dict[str, Box]:
    """The boxes by room; those of a floor are of one size."""
    boxes, y = {}, float(MARGIN)
    for floor in order:
        width = (WIDTH - 2 * MARGIN - GUTTER * (len(floor) - 1)) / len(floor)
        texts = [_texts(room, width - 2 * PAD, order, edges) for room in floor]
        height = max(_height(words, uses) for words, uses in texts)
        for i, (room, (words, uses)) in enumerate(zip(floor, texts, strict=True)):
            boxes[room] = Box(MARGIN + i * (width + GUTTER), y, width, height, _short(room), words, uses)
        y += height + STOREY
    return boxes


def _short(room: str) -> str:
    return room.removeprefix("qtable.")


def _texts(room: str, width: float, order: Floors, edges: set[Edge]) -> tuple[list[str], list[str]]:
    used = [other for floor in order for other in sorted(floor) if (room, other) in edges]
    uses = f"uses {', '.join(map(_short, used))}" if used else ""
    return _wrapped(purpose(room).replace("`", ""), width, WORDS), _wrapped(uses, width, SMALL)


def _wrapped(text: str, width: float, size: int) -> list[str]:
    return textwrap.wrap(text, int(width / (size * LETTER)), break_long_words=False)


def _height(words: list[str], uses: list[str]) -> float:
    return 2 * PAD + TITLE + 1.3 * WORDS * len(words) + (1.3 * SMALL * len(uses) + 5 if uses else 0)


# ---- how it is drawn ------------------------------------------------------------------------------------------

STYLE: Final = """
    text { font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2933 }
    .paper { fill: #f6f4ef } .box { fill: #ffffff; stroke: #b9b2a3; stroke-width: 1 }
    .title { font-weight: 700; fill: #14507a } .uses { fill: #6a6455 }
    .arrow { fill: none; stroke: #a5531a; stroke-width: 1.8 } .head { fill: #a5531a }
    .bridge { fill: none; stroke: #f6f4ef; stroke-width: 6 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e4e7eb } .paper { fill: #171b21 } .box { fill: #232a33; stroke: #4a5563 }
      .title { fill: #8cc7f2 } .uses { fill: #a3adb9 } .arrow { stroke: #e39a5f } .head { fill: #e39a5f }
      .bridge { stroke: #171b21 }
    }"""
HEAD: Final = (
    '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" orient="auto">'
    '<path class="head" d="M0 0 8 4 0 8z"/></marker>'
)
"""Of an arrow."""


def picture() -> str:
    """The SVG."""
    names = floors()
    edges = imports(names)
    arrows = reduced(edges)
    order = arranged(names, arrows)
    boxes = placed(order, edges)
    height = max(box.bottom for box in boxes.values()) + MARGIN
    size = f'width="{WIDTH}" height="{height:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" {size} role="img">',
            "  <title>The rooms of qtable by floor; each imports only from floors below.</title>",
            f"  <style>{STYLE}\n  </style>",
            f"  <defs>{HEAD}</defs>",
            f'  <rect class="paper" {size} rx="12"/>',
            *(
                f'  <path class="bridge" d="{path}"/>\n  <path class="arrow" marker-end="url(#head)" d="{path}"/>'
                for path in _paths(order, boxes, arrows)
            ),
            *(_drawn(box) for box in boxes.values()),
            "</svg>\n",
        ]
    )


def _drawn(box: Box) -> str:
    """A box with its title and text."""
    x, y = box.x + PAD, box.y + PAD + TITLE * 0.8
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    lines = [
        f'  <rect class="box" {place} rx="7"/>',
        f'  <text class="title" x="{x:.1f}" y="{y:.1f}" font-size="{TITLE}">{escape(box.title)}</text>',
    ]
    y += 0.25 * TITLE
    for line in box.words:
        y += 1.3 * WORDS
        lines.append(f'  <text x="{x:.1f}" y="{y:.1f}" font-size="{WORDS}">{escape(line)}</text>')
    y = box.bottom - PAD + 2 - 1.3 * SMALL * len(box.uses)
    for line in box.uses:
        y += 1.3 * SMALL
        lines.append(f'  <text class="uses" x="{x:.1f}" y="{y - 4:.1f}" font-size="{SMALL}">{escape(line)}</text>')
    return "\n".join(lines)


def _paths(order: Floors, boxes: dict[str, Box], arrows: set[Edge]) -> list[str]:
    """Arrows to the next floor through the space between, longer ones round the boxes at a side."""
    level = {room: i for i, floor in enumerate(order) for room in floor}
    lanes: dict[int, list[list[tuple[float, float]]]] = {0: [], 1: []}  # by side: the spans that each lane has
    paths = []
    for upper, lower in sorted(arrows, key=lambda edge: (level[edge[1]] - level[edge[0]], level[edge[0]], edge)):
        a, b = boxes[upper], boxes[lower]
        if level[lower] - level[upper] == 1:
            paths.append(_next_floor(a, b))
        else:
            side = min((0, 1), key=lambda side: (2 - a.touches(side) - b.touches(side), len(lanes[side]), side))
            lane = _lane(lanes[side], (a.bottom - PORT, b.y + PORT))
            paths.append(_round(a, b, side, WIDTH - MARGIN + LANE * (lane + 1) if side else MARGIN - LANE * (lane + 1)))
    return paths


def _next_floor(a: Box, b: Box) -> str:
    low, high = max(a.x, b.x), min(a.right, b.right)
    if low < high:
        return f"M{(low + high) / 2:.1f} {a.bottom:.1f}V{b.y:.1f}"
    start, end = (a.right - 24, b.x + 24) if a.x < b.x else (a.x + 24, b.right - 24)
    middle = (a.bottom + b.y) / 2
    return f"M{start:.1f} {a.bottom:.1f}C{start:.1f} {middle:.1f} {end:.1f} {middle:.1f} {end:.1f} {b.y:.1f}"


def _lane(lanes: list[list[tuple[float, float]]], span: tuple[float, float]) -> int:
    """The innermost lane where a span is free; takes it."""
    for i, taken in enumerate(lanes):
        if all(span[1] <= top or bottom <= span[0] for top, bottom in taken):
            taken.append(span)
            return i
    lanes.append([span])
    return len(lanes) - 1


def _round(a: Box, b: Box, side: int, x: float) -> str:
    """Down a lane: from the side of `a` where nothing is between, else from below it; likewise into `b`."""
    begin = (
        f"M{a.right if side else a.x:.1f} {a.bottom - PORT:.1f}H{x:.1f}"
        if a.touches(side)
        else f"M{a.x + a.width / 2:.1f} {a.bottom:.1f}v{STOREY / 3:.1f}H{x:.1f}"
    )
    end = (
        f"V{b.y + PORT:.1f}H{b.right if side else b.x:.1f}"
        if b.touches(side)
        else f"V{b.y - STOREY / 2:.1f}H{b.x + b.width / 2:.1f}V{b.y:.1f}"
    )
    return begin + end


def main() -> None:
    write_atomically(ROOT / SVG, picture().encode())


if __name__ == "__main__":
    main()
