"""The written pages are current, and links, commands, anchors and names in all pages exist."""

from __future__ import annotations

import doctest
import re
import runpy
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import qtable
from qtable.cli import COMMANDS, load
from qtable.encoders.formats import FORMATS
from qtable.jpeg.proxies import PROXIES
from qtable.jpeg.rounding import ROUNDINGS
from qtable.measure.sensitivity import TARGETS
from search.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "write_docs.py"))
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors(path: Path) -> set[str]:
    """Of the headings of a Markdown file, as GitHub makes them: a second equal one gets -1."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text(path)), re.MULTILINE):
        name = SCRIPT["slug"](heading)
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def named(page: str) -> set[str]:
    """What stands in backticks on a page."""
    return set(re.findall(r"`([^`\n]+)`", FENCE.sub("", text(ROOT / "docs" / page))))


def commands(path: Path) -> list[str]:
    """What follows `qtable` in code on a page: in backticks, or in a line of a block of shell commands."""
    page = text(path)
    lines = [
        line for block in re.findall(r"^```(?:sh|console)\n(.*?)^```$", page, re.M | re.S) for line in block.split("\n")
    ]
    inline = re.findall(r"`([^`]+)`", FENCE.sub("", page))
    found = (re.match(r"(?:\$ )?(?:\.venv/bin/)?qtable\s+(.+)", code.strip(), re.DOTALL) for code in (*lines, *inline))
    return [match[1] for match in found if match]


@pytest.mark.parametrize("name", SCRIPT["PAGES"])
def test_written_pages_are_current(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # pages must not depend on the terminal
    monkeypatch.setenv("TERMINAL_WIDTH", "40")
    if text(ROOT / name) != SCRIPT["PAGES"][name]():
        pytest.fail(f"{name} is out of date; remake it with `make docs`")


def test_the_api_page_has_every_name_that_qtable_offers() -> None:
    top = text(ROOT / "docs" / "api.md").partition("\n- ")[0]
    assert set(re.findall(r"\[`(\w+)`\]", top)) == set(qtable.__all__)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text(page))):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    for command in commands(page):
        name, *arguments = shlex.split(command, comments=True)
        if not re.fullmatch("[a-z]+", name):
            continue  # qtable [OPTIONS]
        assert name in COMMANDS, command
        options = {option for parameter in load(name).params for option in (*parameter.opts, *parameter.secondary_opts)}
        asked = {word.partition("=")[0] for word in arguments if re.match("--?[a-z]", word)}
        assert asked <= {*options, "--help"}, command


def test_commands_are_found() -> None:
    """Or the test above would test nothing."""
    assert len(commands(ROOT / "docs" / "faq.md")) >= 8
    assert "compress SRC DST --tables runs/mine/tables/001.json" in commands(ROOT / "docs" / "compress.md")


@pytest.mark.parametrize(
    ("page", "names"),
    [("methods.md", (*METHODS, *PROXIES, *ROUNDINGS, *TARGETS)), ("encoders.md", tuple(FORMATS))],
    ids=["methods.md", "encoders.md"],
)
def test_every_name_that_can_be_typed_is_explained(page: str, names: tuple[str, ...]) -> None:
    assert set(names) <= named(page)


def test_the_index_names_every_page() -> None:
    links = set(re.findall(r"\]\(([\w-]+\.md)\)", text(ROOT / "docs" / "README.md")))
    assert links == {page.name for page in DOCS} - {"README.md"}


def test_sums_in_the_questions_are_right() -> None:
    failed, tried = doctest.testfile(str(ROOT / "docs" / "faq.md"), module_relative=False)
    assert tried
    assert not failed
