"""How long the commands take that need no network: `python -m benchmarks.startup`.

Each in a process of its own, as the script `qtable` starts it, on small files and a warm disk; turn by turn with
`import numpy`, which all of them but two need.
"""

from __future__ import annotations

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


def started(code: str, arguments: Sequence[str] = ()) -> float:
    """Seconds that Python takes for code with these arguments. CalledProcessError if it fails."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    numpy: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        asked = commands(Path(name))
        seconds: dict[str, list[float]] = {command: [] for command in asked}
        for turn in range(-1, REPEATS):  # the first warms the disk
            alone = started("import numpy")
            own = {command: started(QTABLE, arguments) for command, arguments in asked.items()}
            if turn >= 0:
                numpy.append(alone)
                for command in asked:
                    seconds[command].append(own[command])
    ratios = {
        command: statistics.median(own / alone for own, alone in zip(times, numpy, strict=True))
        for command, times in seconds.items()
    }
    result = workload.save(
        "startup",
        {
            "repeats": REPEATS,
            "numpy_s": statistics.median(numpy),
            "commands": {
                command: {"s": statistics.median(times), "ratio": ratios[command]} for command, times in seconds.items()
            },
        },
    )
    print(f"import numpy: {result['numpy_s']:.3f} s")
    for command, figures in result["commands"].items():
        print(f"qtable {command:<9} {figures['s']:.3f} s (at most 0.5), {figures['ratio']:.2f} x numpy (at most 4)")


if __name__ == "__main__":
    main()
