"""How long the commands take that need no network: `python -m benchmarks.startup`.

Each in a process of its own, as the script `qtable` starts it, on small files and a warm disk; turn by turn with
`import numpy`, which all of them but two need.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import workload
from qtable import Codec, QTables

REPEATS: Final = 10
QTABLE: Final = "import sys; from qtable.cli import main; sys.exit(main())"


def commands(folder: Path) -> dict[str, list[str]]:
    """By name the arguments of the commands; writes the files that they read."""
    photo, tables = folder / "photo.jpg", folder / "tables.txt"
    photo.write_bytes(Codec().encode(workload.photos(1).images[0], QTables.standard(50)))
    started(QTABLE, ["export", "quality:50", "--to", "cjpeg", "--output", str(tables)])
    return {
        "--help": ["--help"],
        "--version": ["--version"],
        "inspect": ["inspect", str(photo)],
        "export": ["export", "quality:50", "--to", "cjpeg"],
        "import": ["import", str(tables)],
    }


def started(code: str, arguments: Sequence[str] = ()) -> tuple[float, float]:
    """Seconds (on the clock, of a core) of Python for code with these arguments. CalledProcessError if it fails."""
    clock, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
    seconds, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        asked = commands(Path(name))
        turns = [
            (started("import numpy"), {command: started(QTABLE, arguments) for command, arguments in asked.items()})
            for _ in range(REPEATS + 1)
        ][1:]  # the first warms the disk
    figures = {
        command: {
            "s": statistics.median(own[command][0] for _, own in turns),
            "core_s": statistics.median(own[command][1] for _, own in turns),
            "ratio": statistics.median(own[command][0] / numpy[0] for numpy, own in turns),
        }
        for command in asked
    }
    numpy = {"s": statistics.median(n[0] for n, _ in turns), "core_s": statistics.median(n[1] for n, _ in turns)}
    workload.save("startup", {"repeats": REPEATS, "numpy": numpy, "commands": figures})
    print(f"import numpy:     {numpy['s']:.2f} s, {numpy['core_s']:.2f} s of a core")
    for command, own in figures.items():
        print(
            f"qtable {command:<9}  {own['s']:.2f} s (at most 0.5 on an idle machine), {own['core_s']:.2f} s of a core,"
            f" {own['ratio']:.2f} x numpy (at most 4)"
        )


if __name__ == "__main__":
    main()
