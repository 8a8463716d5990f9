"""JPEGLayer against kornia's differentiable JPEG: time, memory, and pixels equal to libjpeg-turbo's.

`python -m benchmarks.layer [--out results/layer]`: 16 x 3 x 224 x 224, 4:2:0, standard tables of quality 50, forward
and backward with gradients to the photos and to the tables. Both layers run in one process, turn by turn, so that what
else the machine does slows both; peak memory is measured in a fresh process for each (on Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qtable.jpeg.codec import Codec, library_versions
from qtable.jpeg.layer import JPEGLayer
from qtable.jpeg.tables import QTables

SHAPE: Final = (16, 3, 224, 224)
TABLES: Final = QTables.standard(50)
CODEC: Final = Codec("4:2:0")
LAYERS: Final = ("qtable", "kornia")

Step = Callable[[], Tensor]
"""One forward and backward pass; returns decoded pixels, 0..255."""


def photos() -> Tensor:
    """float32 `SHAPE`, integers 0..255: pieces of scikit-image's photographs."""
    from skimage import data

    names = "astronaut", "coffee", "chelsea", "rocket"
    whole: list[np.ndarray] = [getattr(data, name)() for name in names]
    rng = np.random.default_rng(0)
    pieces = []
    for index in range(SHAPE[0]):
        image = whole[index % len(whole)]
        top, left = (rng.integers(0, side - 224) for side in image.shape[:2])
        pieces.append(image[top : top + 224, left : left + 224])
    return torch.from_numpy(np.stack(pieces)).permute(0, 3, 1, 2).float().contiguous()


def qtable_step(batch: Tensor) -> Step:
    layer = JPEGLayer(TABLES, CODEC).to(batch.device)
    rgb, cotangent = batch.clone().requires_grad_(), torch.ones_like(batch)

    def step() -> Tensor:
        rgb.grad = None
        layer.zero_grad()
        pixels, _ = layer(rgb)
        torch.autograd.backward(pixels, cotangent)
        result: Tensor = pixels.detach()
        return result

    return step


def kornia_step(batch: Tensor) -> Step:
    """kornia takes images in 0..1, and tables times its quality scaling: the identity at 50."""
    from kornia.enhance import jpeg_codec_differentiable

    rgb, cotangent = (batch / 255).requires_grad_(), torch.ones_like(batch)
    quality = torch.full((1,), 50.0, device=batch.device)
    luma, chroma = (torch.tensor(t, dtype=torch.float32, device=batch.device) for t in TABLES.values)
    tables = luma.requires_grad_(), chroma.requires_grad_()

    def step() -> Tensor:
        for leaf in (rgb, *tables):
            leaf.grad = None
        pixels: Tensor = jpeg_codec_differentiable(rgb, quality, *tables)
        torch.autograd.backward(pixels, cotangent)
        return pixels.detach() * 255

    return step


STEPS: Final[dict[str, Callable[[Tensor], Step]]] = {"qtable": qtable_step, "kornia": kornia_step}


class Times(NamedTuple):
    """Seconds per forward and backward pass, one list of repeats per layer."""

    qtable: list[float]
    kornia: list[float]

    def summary(self) -> dict[str, float]:
        """Milliseconds: medians, and minima; ratio: the median of the turns' ratios."""
        ratios = [theirs / ours for ours, theirs in zip(self.qtable, self.kornia, strict=True)]
        return {
            **{f"{name}_ms": 1e3 * statistics.median(times) for name, times in zip(LAYERS, self, strict=True)},
            **{f"{name}_least_ms": 1e3 * min(times) for name, times in zip(LAYERS, self, strict=True)},
            "ratio": statistics.median(ratios),
        }


def timed(batch: Tensor, repeats: int) -> Times:
    """Turn by turn: ours, kornia's, ours, kornia's, ..."""
    steps = [STEPS[name](batch) for name in LAYERS]
    times = Times([], [])
    for turn in range(repeats + 2):
        for step, kept in zip(steps, times, strict=True):
            _synchronize(batch)
            start = time.perf_counter()
            step()
            _synchronize(batch)
            if turn >= 2:  # the first two turns warm up
                kept.append(time.perf_counter() - start)
    return times


def _synchronize(batch: Tensor) -> None:
    if batch.is_cuda:
        torch.cuda.synchronize()


def peak_memory(name: str, device: str) -> float:
    """MiB that one forward and backward pass adds to a fresh process (or allocates on the GPU), input not counted."""
    command = [sys.executable, __file__, "--peak", name, "--device", device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(name: str, device: str) -> None:
    """What `peak_memory` runs: a small pass first, so that libraries and their buffers are there; then the real one."""
    torch.set_num_threads(1)
    STEPS[name](torch.zeros(1, 3, 32, 32, device=device))()
    step = STEPS[name](photos().to(device))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        print((torch.cuda.max_memory_allocated() - before) / 2**20)
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is in use
    before = _peak_rss()
    step()
    print((_peak_rss() - before) / 2**10)


def _peak_rss() -> int:
    """KiB; proc_pid_status(5), VmHWM."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def equal_pixels(batch: Tensor, decoded: Tensor) -> float:
    """Share of RGB samples equal to what libjpeg-turbo decodes from the file that it encodes."""
    images = batch.byte().permute(0, 2, 3, 1).cpu().numpy()
    true = np.stack([CODEC.decode(CODEC.encode(np.ascontiguousarray(image), TABLES)) for image in images])
    return float((decoded.round().byte().permute(0, 2, 3, 1).cpu().numpy() == true).mean())


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def measure(device: str, repeats: int) -> dict[str, Any]:
    batch = photos().to(device)
    threads = {"one thread": 1, "all threads": os.cpu_count() or 1} if device == "cpu" else {"GPU": 1}
    times = {}
    for name, count in threads.items():
        torch.set_num_threads(count)
        times[name] = timed(batch, repeats).summary()
    return {
        "machine": machine(device),
        "times": times,
        "peak_memory_mib": {name: peak_memory(name, device) for name in LAYERS},
        "pixels_equal_to_libjpeg_turbo": {name: equal_pixels(batch, STEPS[name](batch)()) for name in LAYERS},
    }


def versions() -> dict[str, str]:
    import kornia

    return {"torch": torch.__version__, "kornia": kornia.__version__, **library_versions()}


def readme(record: dict[str, Any]) -> str:
    """The numbers as a page."""
    lines = [
        "# JPEGLayer against kornia's `jpeg_codec_differentiable`",
        "",
        f"{record['what']} Made by `{record['command']}`;",
        "numbers: `layer.json`.",
        "",
        "| device | threads | qtable, ms | kornia, ms | kornia / qtable |",
        "|---|---|---|---|---|",
    ]
    for device in record["devices"].values():
        for threads, times in device["times"].items():
            cells = f"{times['qtable_ms']:.1f} | {times['kornia_ms']:.1f} | **{times['ratio']:.1f}**"
            lines.append(f"| {device['machine']} | {threads} | {cells} |")
    lines += ["", "| device | | qtable | kornia |", "|---|---|---|---|"]
    for device in record["devices"].values():
        memory, pixels = device["peak_memory_mib"], device["pixels_equal_to_libjpeg_turbo"]
        lines.append(f"| {device['machine']} | peak memory, MiB | {memory['qtable']:.0f} | {memory['kornia']:.0f} |")
        share = " | ".join(f"{100 * pixels[name]:.2f}%" for name in LAYERS)
        lines.append(f"| {device['machine']} | samples equal to libjpeg-turbo's | {share} |")
    lines += [
        "",
        "Times are medians of interleaved repeats; the ratio is the median of the turns' ratios. Memory is what one",
        "pass adds to the peak of a fresh process (GPU: what it allocates), input not counted.",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "results" / "layer")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--peak", choices=LAYERS, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(arguments.peak, arguments.device)
        return
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    record = {
        "what": f"Forward and backward, {' x '.join(map(str, SHAPE))}, {CODEC.subsampling}, tables of quality 50.",
        "command": "python -m benchmarks.layer",
        "repeats": arguments.repeats,
        "versions": versions(),
        "devices": {device: measure(device, arguments.repeats) for device in devices},
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "layer.json").write_text(json.dumps(record, indent=1) + "\n")
    page = readme(record)
    (arguments.out / "README.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
