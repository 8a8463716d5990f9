"""What `compress` costs beside a bare Pillow loop: `python -m benchmarks.compress`.

The same JPEG photos of 500 x 375 pixels, tables, sampling and entropy coding, turn by turn in one process: `compress`
with one worker (it also hashes, journals, keeps metadata and writes atomically), and Pillow's open and save of each.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import workload
from qtable.codecs.plain import TableCoder
from qtable.compress import compress
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables, as_flat_list

HEIGHT, WIDTH = 375, 500


def write_photos(folder: Path, count: int) -> None:
    """Pieces of scikit-image's photographs at quality 90."""
    from skimage import data

    rng = np.random.default_rng(0)
    sources = [data.astronaut(), data.coffee(), data.rocket()]
    for i in range(count):
        source = sources[i % len(sources)]
        top, left = rng.integers(0, source.shape[0] - HEIGHT), rng.integers(0, source.shape[1] - WIDTH + 1)
        piece = np.ascontiguousarray(source[top : top + HEIGHT, left : left + WIDTH])
        Image.fromarray(piece).save(folder / f"{i:05}.jpg", quality=90)


def bare(source: Path, target: Path, tables: QTables, codec: Codec) -> None:
    """What one would write by hand."""
    target.mkdir()
    flat = as_flat_list(tables)
    for path in sorted(source.iterdir()):
        with Image.open(path) as image:
            image.save(target / path.name, "JPEG", qtables=flat, subsampling=codec.subsampling, optimize=True)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """(on the clock, of this process on its core)."""
    clock, core = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - core


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    tables, codec = QTables.standard(50), Codec()
    coder = TableCoder(tables, codec)
    pillow, ours = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "photos"
        source.mkdir()
        write_photos(source, arguments.photos)
        for turn in range(-1, arguments.repeats):  # the first warms up
            by_hand = seconds(lambda turn=turn: bare(source, folder / f"bare{turn}", tables, codec))  # type: ignore[misc]
            with_us = seconds(lambda turn=turn: compress(source, folder / f"ours{turn}", coder))  # type: ignore[misc]
            if turn >= 0:
                pillow.append(by_hand)
                ours.append(with_us)
    ratios = [[theirs[k] / own[k] for theirs, own in zip(pillow, ours, strict=True)] for k in range(2)]
    rates = {
        "pillow": arguments.photos / statistics.median(clock for clock, _ in pillow),
        "compress": arguments.photos / statistics.median(clock for clock, _ in ours),
    }
    result = workload.save(
        "compress",
        {
            "photos": arguments.photos,
            "size": [WIDTH, HEIGHT],
            "repeats": arguments.repeats,
            "photos_per_s": rates,
            "ratio": statistics.median(ratios[0]),
            "ratio_cpu_time": statistics.median(ratios[1]),
            "codec": codec.to_dict(),
        },
    )
    for title, rate in rates.items():
        print(f"{title}: {rate:.0f} photos per second on one core")
    print(f"ratio: {result['ratio']:.2f} (at least 0.8), of CPU time {result['ratio_cpu_time']:.2f}")


if __name__ == "__main__":
    main()
