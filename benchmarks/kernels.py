"""Exact sizes and trellis quantization from coefficients, against what they stand for: `python -m benchmarks.kernels`.

One photo of 256 x 341 pixels (scikit-image's coffee, made smaller), 4:2:0, one thread, one process, turn by turn. Exact
size against Pillow's encoding with optimized Huffman tables; a trellis of two iterations against the same, and, where
../shared has it, against one forward pass of a network.
"""

from __future__ import annotations

import importlib
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from benchmarks import workload
from qtable.codecs.looking import Look, seen_blocks, squared_gradients, weights_of
from qtable.codecs.task_aware import Network, TaskAware
from qtable.jpeg.codec import RGB, Codec, Subsampling
from qtable.jpeg.coefficients import exact_size, write_coefficients
from qtable.jpeg.dct import coefficients
from qtable.jpeg.tables import QTables, as_flat_list
from qtable.jpeg.trellis import rounded, trellis
from qtable.measure.estimates import usual_of
from qtable.measure.sensitivity import measure as measure_sensitivity
from qtable.photos.sets import Photos
from qtable.tasks.gradients import stacked
from qtable.tasks.opening import TaskSpec

SUBSAMPLING: Final[Subsampling] = "4:2:0"
HEIGHT, WIDTH = 256, 341
QUALITIES: Final = (10, 30, 50, 75)
TRELLIS_QUALITIES: Final = (10, 50, 75)
PRICE: Final = 0.1
"""The trellis' multiplier in squares of the mean luma step: with weights 1, what a bit is about worth."""
REPEATS: Final = 300
NETWORK: Final = "mobilenet_v1_050_160"


def photo() -> RGB:
    from skimage import data

    image = Image.fromarray(data.coffee()).resize((384, HEIGHT), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(image)[:, :WIDTH])


def network(image: RGB) -> Callable[[], object] | None:
    """One forward pass of the photo; None where ../shared is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "models"
    if not (folder / "classifiers.py").exists():
        return None
    sys.path.insert(0, str(folder))
    model = getattr(importlib.import_module("classifiers"), NETWORK)()
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].float()

    def forward() -> object:
        with torch.no_grad():
            return model(batch)

    return forward


def milliseconds(works: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """Of each work, turn by turn; the first tenth of the turns warms up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + repeats // 10):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn >= repeats // 10:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def encoding(image: RGB, tables: QTables) -> Callable[[], object]:
    """Pillow, into memory."""
    picture, flat = Image.fromarray(image), as_flat_list(tables)

    def encode() -> bytes:
        file = io.BytesIO()
        picture.save(file, "JPEG", qtables=flat, subsampling=SUBSAMPLING, optimize=True)
        return file.getvalue()

    return encode


def measure(image: RGB, quality: int, forward: Callable[[], object] | None) -> dict[str, Any]:
    """Medians, and medians of the turns' ratios."""
    tables = QTables.standard(quality)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    y, cb, cr = (np.ascontiguousarray(plane[0].numpy()) for plane in coefficients(batch, SUBSAMPLING))
    planes, weights = (y, cb, cr), (np.ones_like(y), np.ones_like(cb), np.ones_like(cr))
    levels, price = rounded(planes, tables), PRICE * float(tables.values[0].mean()) ** 2
    encode = encoding(image, tables)
    times = milliseconds(
        {
            "encode": encode,
            "size": lambda: exact_size(levels, tables.count, SUBSAMPLING),
            "file": lambda: write_coefficients(levels, tables, HEIGHT, WIDTH, SUBSAMPLING),
        }
    )
    chosen = trellis(planes, weights, tables, price, SUBSAMPLING)
    if quality in TRELLIS_QUALITIES:
        works = {"encode again": encode, "trellis": lambda: trellis(planes, weights, tables, price, SUBSAMPLING)}
        times |= milliseconds(works if forward is None else {**works, "forward": forward}, REPEATS // 3)
    ratios = {
        f"{over}_to_{under.partition(' ')[0]}": statistics.median(
            a / b for a, b in zip(times[over], times[under], strict=True)
        )
        for over, under in (("encode", "size"), ("encode", "file"), ("trellis", "encode again"), ("trellis", "forward"))
        if over in times and under in times
    }
    return {
        "bytes": exact_size(levels, tables.count, SUBSAMPLING),
        "trellis_bytes": exact_size(chosen, tables.count, SUBSAMPLING),
        **{f"{name}_ms": statistics.median(values) for name, values in times.items() if name != "encode again"},
        **ratios,
    }


def looking_through(image: RGB) -> dict[str, Any] | None:
    """What a task-aware file of the photo costs, in forward passes of its network, and where the time goes."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "models"
    if not (folder / "classifiers.py").exists():
        return None
    spec, look = TaskSpec(f"{folder / 'classifiers.py'}:{NETWORK}", "agreement"), Look()
    task, codec = spec.open(), Codec()
    usual = usual_of(measure_sensitivity(Photos((image,), None, ("photo",)), task, codec, at=look.tables), look.tables)
    coder = TaskAware(QTables.standard(20), 1e-3, (Network.of(spec, task, usual),), look=look)
    (prepared,) = coder.prepared([image])
    (squares,), seen = squared_gradients(task, [image], codec, look), seen_blocks(task, HEIGHT, WIDTH, SUBSAMPLING)
    levels, batch = coder.levels(prepared), stacked([image])

    def forward() -> None:
        with torch.no_grad():
            task.answers(batch)

    works: dict[str, Callable[[], object]] = {
        "forward pass": forward,
        "whole file": lambda: write_coefficients(
            coder.levels(coder.prepare([image])[0]), coder.quantization, HEIGHT, WIDTH, SUBSAMPLING
        ),
        "gradients": lambda: squared_gradients(task, [image], codec, look),
        "weights": lambda: weights_of(squares, usual, look, seen),
        "trellis": lambda: coder.levels(prepared),
        "file": lambda: write_coefficients(levels, coder.quantization, HEIGHT, WIDTH, SUBSAMPLING),
    }
    times = milliseconds(works, REPEATS // 3)
    return {
        "ms": {name: statistics.median(values) for name, values in times.items()},
        "forward_passes": {
            name: statistics.median(a / b for a, b in zip(values, times["forward pass"], strict=True))
            for name, values in times.items()
        },
    }


def main() -> None:
    torch.set_num_threads(1)
    image = photo()
    forward = network(image)
    rows = {str(quality): measure(image, quality, forward) for quality in QUALITIES}
    through = looking_through(image)
    figures = {"photo": [HEIGHT, WIDTH], "network": NETWORK if forward else None, "qualities": rows}
    workload.save("kernels", {**figures, "looking through a network": through})
    print("| quality | bytes | encode, ms | exact size, ms | ratio | file, ms | trellis, ms | to encode | to forward |")
    print("|---|---|---|---|---|---|---|---|---|")
    for quality, row in rows.items():
        cells = [f"{row[f'{name}_ms']:.3f}" if f"{name}_ms" in row else "" for name in ("file", "trellis")]
        shares = [f"{row[name]:.2f}" if name in row else "" for name in ("trellis_to_encode", "trellis_to_forward")]
        print(
            f"| {quality} | {row['bytes']} | {row['encode_ms']:.3f} | {row['size_ms']:.3f}"
            f" | {row['encode_to_size']:.1f} | {' | '.join(cells + shares)} |"
        )
    for name, passes in (through or {"forward_passes": {}})["forward_passes"].items():
        print(f"looking through {NETWORK}: {name} {passes:.2f} forward passes")
    print("exact size: at least 5 times faster than encoding at qualities 10 to 50; trellis: at most 3 ms")


if __name__ == "__main__":
    main()
