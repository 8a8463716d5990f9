"""Do tables and mozjpeg's trellis quantization add up? `python -m benchmarks.trellis`.

Standard and found tables, each written by libjpeg-turbo and by mozjpeg (its defaults: trellis quantization, optimized
progressive scans), on the photos, networks and halves of `benchmarks.tables`. In mozjpeg the tables also weigh the
trellis' distortion by 1 / step^2, so tables for a network give a trellis for that network. Needs ../shared; mozjpeg
comes with jpeglib. What is done is kept in runs/tables. `--page` writes the page and the
picture anew from trellis.json.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import tables
from benchmarks.halves import NETWORKS
from benchmarks.study import compared, run_study, text, write_page
from qtable.encoders.verify import Encoder, find_encoder
from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.tables import QTables
from qtable.report import plot

OUT: Final = Path("results/trellis")
FOUND: Final = "distillation, run-aware"
METRIC: Final = "agreement"
_lock = threading.Lock()  # jpeglib's choice of library belongs to the process


@dataclass(frozen=True)
class Mozjpeg(Codec):
    """The codec with mozjpeg's encoder in the place of libjpeg-turbo's; files are decoded as ever."""

    def encode(self, image: RGB, tables: QTables) -> bytes:
        with _lock:
            return encoder().encode(image, tables, self.subsampling)


def encoder() -> Encoder:
    return find_encoder("mozjpeg")


CODECS: Final = {
    "libjpeg-turbo": Codec(),
    "libjpeg-turbo, progressive": Codec(entropy="progressive"),
    "mozjpeg": Mozjpeg(entropy="progressive"),
}


def study() -> dict[str, Any]:
    """Of each network: the fronts of tables x encoder against standard tables by libjpeg-turbo, and trellis' share."""
    results: dict[str, Any] = {"encoder": encoder().version, "networks": {}}
    for network in NETWORKS:
        rows: dict[str, Any] = {}
        for name, codec in CODECS.items():
            standard, found = tables.standard(codec), tables.found(FOUND, codec, network, (network,))
            for kind, tested in (("standard", standard), ("found", found)):
                rows[f"{kind}, {name}"] = compared(tables.standard(Codec()), tested, network)[METRIC]
            rows[f"found against standard, both {name}"] = compared(standard, found, network)[METRIC]
        results["networks"][network] = rows
    return results


def page(results: dict[str, Any]) -> None:
    networks = results["networks"]
    head = ["| | " + " | ".join(n[13:] for n in networks) + " |", "|---" * (1 + len(networks)) + "|"]

    def row(title: str, key: str) -> str:
        return f"| {title} | " + " | ".join(text(rows[key]) for rows in networks.values()) + " |"

    lines = [
        "# Do tables and mozjpeg's trellis quantization add up?",
        "",
        "500 ImageNet photos (shorter side at most 256), 4:2:0, two networks; the answer stays what it is on the",
        "uncompressed photo (agreement). Change of bytes at equal agreement (BD-rate) with 95% paired intervals over",
        "the photos; every photo is scored with tables made from the other half. Real files of both encoders.",
        "`python -m benchmarks.trellis` remakes this page. Found tables: what `qtable optimize --metric agreement`",
        "makes. mozjpeg:",
        f"{results['encoder']}, with its defaults: trellis quantization and optimized progressive scans.",
        "",
        "![fronts](trellis.png)",
        "",
        "## Against standard tables written by libjpeg-turbo (optimized Huffman tables)",
        "",
        *head,
    ]
    lines += [row(f"{t} tables, {n}", f"{t}, {n}") for n in CODECS for t in ("standard", "found")]
    lines += ["", "## What the found tables bring when both sides have the same encoder", "", *head]
    lines += [row(name, f"found against standard, both {name}") for name in CODECS]
    write_page(OUT, lines)
    picture(results)


def picture(results: dict[str, Any]) -> None:
    figure, panels = plot.new_axes(10, 4.6, columns=2)
    for axes, (network, rows) in zip(panels, results["networks"].items(), strict=True):
        shown = [(t, n) for n in ("libjpeg-turbo", "mozjpeg") for t in ("standard", "found")]
        for i, (kind, name) in enumerate(shown):
            points = [{"bytes": size, "score": score} for size, score in rows[f"{kind}, {name}"]["points"]]
            plot.front(axes, points, f"{kind} tables, {name}", plot.COLOURS[i], "os^D"[i])
        axes.set_title(network, fontsize=9)
        axes.set_ylabel("agreement (%)")
        axes.legend(loc="lower right", fontsize=8)
    figure.savefig(OUT / "trellis.png")


if __name__ == "__main__":
    run_study(OUT / "trellis.json", tables.CACHE, study, page)
