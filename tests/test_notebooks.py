"""The committed notebooks: run from top to bottom, small, without errors, warnings or what changes from run to run.

`make notebooks` runs them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 600_000


def test_there_are_six() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_is_whole_clean_and_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    notebook: dict[str, Any] = json.loads(text)
    assert len(text.encode()) < MOST_BYTES
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "widgets" not in notebook["metadata"]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    outputs = [output for cell in code for output in cell["outputs"]]
    assert all(output["output_type"] != "error" and output.get("name") != "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not re.search(r"/tmp/|/work/|\.\./shared|https?://", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_begins_with_what_it_shows_and_has_a_fast_mode(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first, setup = cells[0], next(cell for cell in cells if cell["cell_type"] == "code")
    opening = "".join(first["source"])
    assert first["cell_type"] == "markdown"
    assert opening.startswith("# ")
    assert "It takes" in opening
    assert 'os.environ.get("QTABLE_FAST") == "1"' in "".join(setup["source"])
