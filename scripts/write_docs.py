"""Writes docs/cli.md from the commands and docs/api.md from the docstrings: `make docs`."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import typer
from typer.cli import get_docs_for_click

from qtable.cli import COMMANDS, app, load
from qtable.files import write_atomically

ROOT: Final = Path(__file__).resolve().parent.parent
MODULES: Final[dict[str, tuple[str, ...] | None]] = {
    "qtable.jpeg.tables": None,
    "qtable.jpeg.codec": None,
    "qtable.jpeg.header": None,
    "qtable.jpeg.markers": ("JpegError", "Component", "Segment", "Quantization", "Huffman", "Scan"),
    "qtable.jpeg.coefficients": None,
    "qtable.jpeg.layer": None,
    "qtable.jpeg.rounding": None,
    "qtable.jpeg.huffman": None,
    "qtable.jpeg.size": None,
    "qtable.jpeg.proxies": None,
    "qtable.jpeg.calibration": None,
    "qtable.jpeg.trellis": None,
    "qtable.encoders.formats": None,
    "qtable.encoders.reading": None,
    "qtable.encoders.verify": None,
    "qtable.photos.sets": None,
    "qtable.photos.opening": None,
    "qtable.tasks.base": None,
    "qtable.tasks.classification": None,
    "qtable.tasks.several": None,
    "qtable.tasks.opening": None,
    "qtable.tasks.preprocess": None,
    "qtable.tasks.models": None,
    "qtable.tasks.programs": None,
    "qtable.codecs.base": ("Coder",),
    "qtable.codecs.plain": None,
    "qtable.codecs.looking": None,
    "qtable.codecs.task_aware": None,
    "qtable.measure.evaluate": None,
    "qtable.measure.sensitivity": None,
    "qtable.measure.estimates": None,
    "qtable.measure.archive": None,
    "qtable.measure.front": None,
    "qtable.measure.noninferiority": None,
    "qtable.compress": (
        "CompressError",
        "Recipe",
        "Sample",
        "Summary",
        "check_apart",
        "compress",
        "processes",
        "sample",
    ),
    "qtable.train.recipe": None,
    "qtable.train.draws": None,
    "qtable.train.joint": None,
    "qtable.train.run": None,
    "qtable.report.run": ("Estimate", "Point", "Run", "Saving"),
    "qtable.report.words": ("headline", "saving_sentence"),
    "qtable.report.plot": None,
    "search.optimize": ("Plan", "Workforce", "optimize"),
    "search.methods": ("METHODS", "Setting"),
    "search.compare": None,
    "search.joint": ("Family", "learn"),
    "search.closed_form": None,
    "search.looking": None,
}
"""What docs/api.md has, and of some modules which names alone."""
CLI_HEAD: Final = """\
# Commands

Written from the program by `make docs`. What the words mean is in [concepts](concepts.md), what the methods do in
[methods](methods.md).

"""
API_HEAD: Final = """\
# Python API

Written from the docstrings by `make docs`. Arrays are given as type and shape: uint8 [h, w, 3] is a photo. What the
words mean is in [concepts](concepts.md).

`import qtable` has """

Definition = ast.FunctionDef | ast.ClassDef


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# ---- commands -------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Every command with its arguments, options and defaults."""
    context = typer.Context(typer.main.get_command(app), info_name="qtable")
    table, sections = ["| command | |", "|---|---|"], []
    for name in COMMANDS:
        command = load(name)
        summary = (command.help or "").partition("\n\n")[0].replace("\n", " ")
        table.append(f"| [`qtable {name}`](#{slug(f'qtable {name}')}) | {summary} |")
        inner = typer.Context(command, info_name=name, parent=context)
        sections.append(get_docs_for_click(obj=command, ctx=inner, indent=1, call_prefix="qtable"))
    return CLI_HEAD + "\n".join(table) + "\n\n" + "".join(sections).rstrip() + "\n"


# ---- docstrings -----------------------------------------------------------------------------------------------


def api_page() -> str:
    """Every public name with signature and docstring, by module, under a table of contents."""
    contents, sections = [], []
    for module, names in MODULES.items():
        texts = [file.read_text(encoding="utf-8") for file in _files(module)]
        entries = (entry for text in texts for entry in _entries(text))
        found = [entry for entry in entries if names is None or entry[0].partition(".")[0] in names]
        links = [f"[`{name}`](#{slug(_heading(module, name))})" for name, _, _ in found if "." not in name]
        contents.append(f"- [{module}](#{slug(module)}): {', '.join(links)}")
        sections.append(f"## {module}\n\n{_prose(ast.get_docstring(ast.parse(texts[0])) or '')}\n")
        for name, code, words in found:
            level = "####" if "." in name else "###"
            sections.append(
                f"{level} `{_heading(module, name)}`\n\n```python\n{code}\n```\n\n{_prose(words)}".rstrip() + "\n"
            )
    offered = ", ".join(f"[`{name}`](#{slug(_heading(module, name))})" for name, module in _offered())
    return f"{API_HEAD}{offered}.\n\n" + "\n".join(contents) + "\n\n" + "\n".join(sections)


def _files(module: str) -> list[Path]:
    """Where the source of a module is; of a package all its modules, its own first."""
    place = ROOT / module.replace(".", "/")
    return sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


def _heading(module: str, name: str) -> str:
    return f"{module.partition('.')[2]}.{name}"


def _offered() -> Iterator[tuple[str, str]]:
    """(name, module) of what `import qtable` has."""
    for node in ast.walk(ast.parse((ROOT / "qtable" / "__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("qtable."):
            yield from ((alias.name, str(node.module)) for alias in node.names)


def _entries(source: str) -> Iterator[tuple[str, str, str]]:
    """(name, code, docstring) of public functions, classes and their methods, type aliases and things by name."""
    body = ast.parse(source).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node.name, _code(node, source), ast.get_docstring(node) or ""
            for method in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(method, ast.FunctionDef) and _is_shown(method):
                    yield f"{node.name}.{method.name}", _code(method, source), ast.get_docstring(method) or ""
        elif (name := _constant(node)) and (words := _text(following)):
            several = isinstance(node, ast.AnnAssign) and node.end_lineno != node.lineno
            code = ast.unparse(node).partition(" = ")[0] if several else ast.unparse(node)
            yield name, code, inspect.cleandoc(words)


def _is_shown(method: ast.FunctionDef) -> bool:
    """Public methods, and special ones that say something of themselves."""
    special = method.name.startswith("__") and ast.get_docstring(method) is not None
    return special or method.name == "__init__" or not method.name.startswith(("_", "extra_repr"))


def _constant(node: ast.stmt) -> str:
    """The name of a type alias or of a public collection (`Final[...]`); "" for other statements."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
    elif isinstance(node, ast.AnnAssign) and isinstance(node.annotation, ast.Subscript):
        name = ast.unparse(node.target)
    else:
        name = ""
    return "" if name.startswith("_") else name


def _text(node: ast.stmt | None) -> str:
    """The string that a statement is, as docstrings of constants are; "" for other statements."""
    value = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else ""
    return value if isinstance(value, str) else ""


def _code(node: Definition, source: str) -> str:
    """Decorators and signature as the source has them; of a class its public fields, too."""
    lines, first = source.splitlines(), node.body[0]
    begin = min(part.lineno for part in (node, *node.decorator_list))
    head = [*lines[begin - 1 : first.lineno - 1], lines[first.lineno - 1][: first.col_offset]]
    signature = re.sub(r":\s*(#.*)?$", "", textwrap.dedent("\n".join(head)).rstrip())
    fields = (
        [field for field in node.body if isinstance(field, ast.AnnAssign)] if isinstance(node, ast.ClassDef) else []
    )
    shown = [f for f in fields if not ast.unparse(f.target).startswith("_")]
    return "\n".join([signature + ":" * bool(shown), *("\n".join(lines[f.lineno - 1 : f.end_lineno]) for f in shown)])


def _prose(docstring: str) -> str:
    """A docstring as Markdown: outside code, what would be emphasis or HTML is text."""
    parts = re.split(r"(`[^`\n]*`|^ {4}.*$)", docstring, flags=re.MULTILINE)
    return "".join(
        part if i % 2 else re.sub(r"<|(?<!\w)_|_(?!\w)|\*(?=\S)|(?<=\S)\*", r"\\\g<0>", part)
        for i, part in enumerate(parts)
    )


PAGES: Final = {"docs/cli.md": cli_page, "docs/api.md": api_page}


def main() -> None:
    for name, page in PAGES.items():
        write_atomically(ROOT / name, page().encode())


if __name__ == "__main__":
    main()
