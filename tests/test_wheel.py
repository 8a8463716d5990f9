"""What is handed out: the wheel and the source archive, installed where the repository is not."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and the source archive that it was built from."""
    out = tmp_path_factory.mktemp("dist")
    options = ["--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run([sys.executable, "-m", "build", *options], check=True, capture_output=True)
    return out


def test_the_wheel_has_everything_that_the_packages_have_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = {
        str(file.relative_to(ROOT))
        for package in ("qtable", "search")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert names == ours
    assert {"qtable/py.typed", "search/py.typed", "qtable/tasks/weights/embedded.safetensors"} < names


def test_the_source_archive_has_the_tests_and_no_runs(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        top = {name.split("/")[1] for name in file.getnames() if "/" in name}
    assert {"qtable", "search", "tests", "README.md", "LICENSE", "pyproject.toml"} <= top
    assert not top & {"runs", ".venv", "dist"}


@pytest.mark.slow
def test_installed_in_a_clean_environment_it_does_the_main_job(built: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    bin_ = tmp_path / "venv" / "bin"
    (wheel,) = built.glob("*.whl")
    install: list[str | Path] = [bin_ / "python", "-m", "pip", "install", "--quiet"]
    install += ["--constraint", ROOT / "constraints.txt"]
    subprocess.run([*install, "torch==2.13.0"], check=True, cwd=tmp_path)
    subprocess.run([*install, wheel], check=True, cwd=tmp_path)

    def qtable(*arguments: str) -> str:
        done = subprocess.run([bin_ / "qtable", *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "optimize" in qtable("--help")
    qtable("optimize", "--budget", "5", "--out", "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["front"]
    assert "wrote" in qtable("report", "run").lower() or (tmp_path / "run" / "report.html").exists()
