"""The house is as it is drawn: every room has a floor and says what it is for, and no part of it is too long."""

from __future__ import annotations

import ast
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "draw_architecture.py"))
ROOMS: Final[list[str]] = [room for floor in SCRIPT["floors"]() for room in floor]
MODULES: Final = sorted(path for package in ("qtable", "search") for path in (ROOT / package).rglob("*.py"))
MOST_LINES: Final = 350
MOST_LINES_OF_A_FUNCTION: Final = 60


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` or its first decorator to the end."""
    begin = min(node.lineno for node in (function, *function.decorator_list))
    return (function.end_lineno or begin) - begin + 1


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_are_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MOST_LINES
    long = {each.name: length(each) for each in functions(ast.parse(source))}
    assert not {name: lines for name, lines in long.items() if lines > MOST_LINES_OF_A_FUNCTION}


def test_length_counts_decorators_and_methods() -> None:
    tree = ast.parse("class A:\n    @b(\n        1\n    )\n    def c(self):\n        return 1\n")
    assert [length(function) for function in functions(tree)] == [5]


def test_every_module_is_in_a_room_with_a_floor() -> None:
    inside = {f"{path.relative_to(ROOT).with_suffix('')}".replace("/", ".") for path in MODULES} - {"qtable.__init__"}
    assert {module for module in inside if not SCRIPT["room_of"](module, set(ROOMS))} == set()


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_in_one_line_what_it_is_for(room: str) -> None:
    line = SCRIPT["purpose"](room)
    assert line.endswith(".")
    assert 20 < len(line) <= 117


def test_the_picture_is_current() -> None:
    if (ROOT / SCRIPT["SVG"]).read_text(encoding="utf-8") != SCRIPT["picture"]():
        pytest.fail(f"{SCRIPT['SVG']} is out of date; remake it with `make docs`")


def test_the_picture_has_every_room_and_only_arrows_downwards() -> None:
    floor = {room: i for i, rooms in enumerate(SCRIPT["floors"]()) for room in rooms}
    edges = SCRIPT["imports"](SCRIPT["floors"]())
    assert {room for edge in edges for room in edge} == set(ROOMS)
    assert all(floor[upper] < floor[lower] for upper, lower in edges)


def test_arrows_leave_out_what_longer_paths_imply() -> None:
    edges = {("a", "b"), ("b", "c"), ("a", "c"), ("a", "d"), ("c", "d"), ("e", "d")}
    assert SCRIPT["reduced"](edges) == {("a", "b"), ("b", "c"), ("c", "d"), ("e", "d")}
