"""What does `qtable optimize` need for many photos? `python -m benchmarks.scale`.

Photos are cut out of the shared ones at random places, every other one mirrored, and written as JPEG files of quality
92 (in runs/scale, kept): in a flat folder or in tar shards of 1,000. `qtable optimize --budget 34 --metric agreement`
looks at them with a network that costs little; its peak of memory is set against that of a process which opens the
same network and looks at one batch. results/scale/scale.json gets a row for each run.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import workload
from qtable.files import write_atomically
from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.tables import QTables
from qtable.photos.opening import open_photo

ROOT = Path("runs/scale")
SHARED = Path("../shared/data")
SHARD = 1000
MODEL = "benchmarks/scale_network.py:small"
BUDGET = 34
RUNS = [(1000, "160x120"), (50_000, "160x120"), (2500, "500x375")]
"""Of the page: photos and their size."""
KIB = 1024 / 1e6
"""MB."""


def sources(width: int, height: int) -> list[RGB]:
    """The shared photos that are larger."""
    paths = sorted([*SHARED.glob("coco/images/*.jpg"), *SHARED.glob("hymenoptera/*/*/*.jpg")])
    images = [open_photo(path.read_bytes())[0] for path in paths]
    found = [image for image in images if image.shape[0] > height and image.shape[1] > width]
    if not found:
        raise SystemExit(f"{SHARED} is not there: this benchmark needs its photos")
    return found


def files(count: int, width: int, height: int) -> Iterator[tuple[str, bytes]]:
    """(name, JPEG file) of each photo; the same ones each time, and the first of more are those of fewer."""
    images, tables, codec = sources(width, height), QTables.standard(92), Codec(entropy="standard")

    def made(i: int) -> tuple[str, bytes]:
        rng = np.random.default_rng(i)
        image = images[i % len(images)]
        top, left = rng.integers(0, image.shape[0] - height), rng.integers(0, image.shape[1] - width)
        crop = image[top : top + height, left : left + width]
        return f"{i:06d}.jpg", codec.encode(np.ascontiguousarray(crop[:, ::-1] if i % 2 else crop), tables)

    with ThreadPoolExecutor() as pool:
        for start in range(0, count, SHARD):
            yield from pool.map(made, range(start, min(start + SHARD, count)))


def written(count: int, width: int, height: int, layout: str) -> Path:
    """The folder of so many photos, made if it is not there."""
    folder = ROOT / f"{count}-{width}x{height}-{layout}"
    part = folder.with_suffix(".part")
    if folder.exists():
        return folder
    part.mkdir(parents=True, exist_ok=True)
    if layout == "folder":
        for name, data in files(count, width, height):
            (part / name).write_bytes(data)
    else:
        many = files(count, width, height)
        for start in range(0, count, SHARD):
            with tarfile.open(part / f"{start // SHARD:05d}.tar", "w") as tar:
                for name, data in (next(many) for _ in range(min(SHARD, count - start))):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    part.rename(folder)
    return folder


def peak_mb(pid: int) -> float:
    """The most memory that a process has had so far, in MB (VmHWM)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * KIB for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0.0


def model_mb(width: int, height: int) -> float:
    """The peak of a process that opens the network and looks at one batch."""
    code = (
        "import resource, torch; from qtable import Classifier; from qtable.tasks.models import load_model;"
        f"task = Classifier(load_model('{MODEL}'), 'agreement');"
        f"task.answers(torch.zeros(11, 3, {height}, {width}));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout) * KIB


def run(folder: Path, memory: str) -> dict[str, Any]:
    """Seconds and memory of one run of `qtable optimize`."""
    out = ROOT / f"run-{folder.name}-{time.time_ns()}"
    command = [sys.executable, "-m", "qtable.cli", "optimize", "--data", str(folder), "--model", MODEL]
    command += ["--metric", "agreement", "--budget", str(BUDGET), "--memory", memory, "--out", str(out)]
    start, first, peak, before = time.monotonic(), float("nan"), 0.0, _cpu_seconds()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, peak_mb(process.pid))
        archive = out / "archive.jsonl"
        if np.isnan(first) and archive.exists() and archive.read_bytes().count(b"\n") > 1:
            first = time.monotonic() - start
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    summary = json.loads((out / "summary.json").read_text())
    return {
        "seconds": time.monotonic() - start,
        "first_evaluation_s": first,
        "peak_mb": peak,
        "cpu_s": _cpu_seconds() - before,
        "bd_rate": summary["bd_rate"],
    }


def _cpu_seconds() -> float:
    """Of the processes that this one has started and waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def page(rows: list[dict[str, Any]]) -> str:
    """results/scale/README.md."""
    headings = (
        "photos",
        "size",
        "stored in",
        "`--memory`",
        "all pixels, GB",
        "peak above the model, GB",
        "to the first evaluation, s",
        "whole run, s",
        "of the processor, s",
        "of the processor, ms a photo",
    )
    lines = [
        "# What does `qtable optimize` need for many photos?",
        "",
        f"`qtable optimize --budget {BUDGET} --metric agreement` with a network that costs little (64 x 64 pixels,",
        "random weights: the figures are about what is around it). Photos are cut out of shared ones, stored as JPEG.",
        "Memory is the peak of the process, above that of one which opens the network and looks at one batch.",
        "Seconds are of whole runs; where other work shared the machine, those of the processor tell more.",
        "`python -m benchmarks.scale` remakes the figures.",
        "",
        "| " + " | ".join(headings) + " |",
        "|---" * len(headings) + "|",
    ]
    for row in sorted(rows, key=lambda row: (row["size"], row["layout"], row["photos"])):
        width, height = map(int, row["size"].split("x"))
        cells = [
            f"{row['photos']:,}",
            row["size"],
            row["layout"],
            row["memory"],
            f"{3e-9 * width * height * row['photos']:.1f}",
            f"{row['above_model_mb'] / 1000:.2f}",
            f"{row['first_evaluation_s']:.0f}",
            f"{row['seconds']:,.0f}",
            f"{row['cpu_s']:,.0f}",
            f"{1000 * row['cpu_s'] / row['photos']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, nargs="*", help="instead of those of the page")
    parser.add_argument("--size", default="160x120", help="WIDTHxHEIGHT of the photos")
    parser.add_argument("--layout", nargs="+", default=["folder", "shards"])
    parser.add_argument("--memory", default="1GB")
    arguments = parser.parse_args()
    runs = RUNS if arguments.photos is None else [(count, arguments.size) for count in arguments.photos]
    path = Path("results/scale/scale.json")
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for count, size in runs:
        width, height = map(int, size.split("x"))
        for layout in arguments.layout:
            folder = written(count, width, height, layout)
            row = {"photos": count, "size": size, "layout": layout, "memory": arguments.memory}
            row["model_mb"] = model_mb(width, height)
            row |= run(folder, arguments.memory)
            row["above_model_mb"] = row["peak_mb"] - row["model_mb"]
            row["photos_per_s"] = count / row["seconds"]
            same = ("photos", "size", "layout", "memory")
            rows = [old for old in rows if any(old[key] != row[key] for key in same)] + [row]
            workload.save("scale", {"budget": BUDGET, "rows": rows})
            print(json.dumps(row), flush=True)
    write_atomically(path.with_name("README.md"), page(rows).encode())


if __name__ == "__main__":
    main()
