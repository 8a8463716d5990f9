from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qtable.codec import RGB, read_header
from qtable.export import FORMATS, cjpeg_slots, to_cjpeg, to_pillow
from qtable.tables import QTables


@pytest.mark.parametrize("sample", ["1x1", "2x1", "2x2"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_systems_cjpeg_writes_the_exported_tables(
    tmp_path: Path, photo: RGB, asymmetric: QTables, count: int, sample: str
) -> None:
    cjpeg = shutil.which("cjpeg")
    if cjpeg is None:
        pytest.skip("cjpeg is not installed (Debian: libjpeg-turbo-progs)")
    tables = QTables(np.stack([*asymmetric.values, asymmetric.values[0].T])[:count])
    (tmp_path / "tables.txt").write_text(to_cjpeg(tables))
    Image.fromarray(photo).save(tmp_path / "photo.ppm")
    slots = ",".join(map(str, cjpeg_slots(tables)))
    options = ["-qtables", "tables.txt", "-qslots", slots, "-sample", sample, "-optimize", "-outfile", "out.jpg"]
    subprocess.run([cjpeg, *options, "photo.ppm"], cwd=tmp_path, check=True)
    assert read_header((tmp_path / "out.jpg").read_bytes()).tables == tables


def test_the_pillow_snippet_writes_the_exported_tables(photo: RGB, asymmetric: QTables) -> None:
    names: dict[str, list[list[int]]] = {}
    exec(to_pillow(asymmetric), names)
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", qtables=names["qtables"])
    assert read_header(file.getvalue()).tables == asymmetric


def test_json_reads_back(asymmetric: QTables) -> None:
    assert QTables.from_dict(json.loads(FORMATS["json"](asymmetric))) == asymmetric
