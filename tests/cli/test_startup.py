"""What starts at once stays light: commands and names are imported when they are asked for, and not before."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import qtable
from qtable.cli import COMMANDS, load, main
from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.tables import QTables

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "scipy", "matplotlib", "optuna", "deap", "PIL", "skimage", "jpeglib", "numba", "search"}


def loaded(code: str, *arguments: str | Path) -> set[str]:
    """The packages that a fresh process has after code, which gets the arguments."""
    after = "import atexit, sys; atexit.register(lambda: print('\\nloaded', *sys.modules, file=sys.stderr)); "
    command = [sys.executable, "-c", after + code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()[1:]}


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        ("--help", HEAVY | {"numpy"}),
        ("--version", HEAVY | {"numpy", "rich"}),
        ("inspect {0}/photo.jpg", HEAVY | {"rich"}),
        ("inspect {0}/tables.txt", HEAVY | {"rich"}),
        ("export quality:50 --to x265", HEAVY | {"rich"}),
        ("import {0}/photo.jpg", HEAVY | {"rich"}),
        ("import {0}/tables.txt", HEAVY | {"rich"}),
    ],
)
def test_commands_load_what_they_use(tmp_path: Path, photo: RGB, arguments: str, unneeded: set[str]) -> None:
    (tmp_path / "photo.jpg").write_bytes(Codec().encode(photo, QTables.standard()))
    (tmp_path / "tables.txt").write_text("16\n" * 64)
    asked = [word.format(tmp_path) for word in arguments.split()]
    assert not loaded("from qtable.cli import main; main()", *asked) & unneeded


def test_to_import_qtable_imports_nothing_else() -> None:
    assert not loaded("import qtable") & (HEAVY | {"numpy"})
    assert "torch" not in loaded("from qtable import Codec, QTables")


def test_names_of_the_package_are_where_type_checkers_see_them() -> None:
    tree = ast.parse(Path(qtable.__file__).read_text())
    seen = {
        alias.name: str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("qtable.")
        for alias in node.names
    }
    assert seen == qtable._HOMES
    assert sorted(seen) == qtable.__all__
    assert set(seen) <= set(dir(qtable))
    for name, module in seen.items():
        assert getattr(qtable, name).__module__ == module
    with pytest.raises(AttributeError, match="module 'qtable' has no attribute 'Tables'"):
        _ = qtable.Tables


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_of_a_command_what_it_says_of_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = COMMANDS[name][1]
    assert (load(name).help or "").partition("\n")[0] == line
    with pytest.raises(SystemExit) as status:
        main(["--help"])
    assert status.value.code == 0
    assert f"{name} {line}" in re.sub(r"[\s│]+", " ", capsys.readouterr().out)


def test_a_command_that_is_nearly_right_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as status:
        main(["inspct"])
    assert status.value.code == 2
    assert "Did you mean 'inspect'?" in capsys.readouterr().err


def test_words_of_options_stand_once() -> None:
    """Options that several commands have are in qtable/cli/options.py."""
    calls = [
        node
        for file in (ROOT / "qtable" / "cli").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Option", "typer.Argument")
    ]
    words = Counter(ast.unparse(keyword.value) for node in calls for keyword in node.keywords if keyword.arg == "help")
    assert len(words) > 50
    assert {text for text, count in words.items() if count > 1} <= {"f'{_SPEC}.'"}  # an argument here, an option there


@pytest.mark.parametrize("name", COMMANDS)
def test_square_brackets_in_help_are_no_markup(name: str) -> None:
    """Rich takes [default: ...] for a style and shows nothing of it."""
    texts = [getattr(parameter, "help", None) or "" for parameter in load(name).params]
    assert any(texts)
    assert not [text for text in texts if re.search(r"(?<!\\)\[[a-z]", text)]
