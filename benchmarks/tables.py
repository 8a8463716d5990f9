"""Whose tables are best for a frozen network? Closed forms, their refinements and published tables on ImageNet photos.

Two-fold cross-fitting, as in `benchmarks.halves`. What is done is kept in runs/tables, so an interrupted run continues.
Needs ../shared. `--page` writes the page and the picture anew from tables.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import halves
from benchmarks.halves import NETWORKS, QUALITIES, classifier, half_of, solver, swept
from benchmarks.study import METRICS, Tested, compared, forest, run_study, text, write_page
from qtable.jpeg.codec import Codec, Subsampling
from qtable.jpeg.tables import QTables
from qtable.measure.sensitivity import Sensitivity, measure
from qtable.report import plot
from search.closed_form import Lagrangian
from search.published import PUBLISHED
from search.refine import Descent
from search.space import TableSpace

CACHE: Final = Path("runs/tables")
OUT: Final = Path("results/imagenet-sample")
MIDDLE: Final = 72
"""The point that is the operating point of statistics at compressed photos: near standard quality 20."""
FEW: Final = 24
"""Photos of the fitting half on whose exact sizes descent goes."""
DISTILLED: Final = "distillation at quality 20"
"""The default statistics for agreement."""
CLOSED: Final = "closed form"
OURS: Final = (CLOSED, "labels", "labels, run-aware", "distillation, run-aware")
"""What stands beside the published methods: the plain closed form, and what `qtable optimize` does by default."""
LEVERS: Final = {
    "one table": "saves the 69 header bytes of the second",
    "three tables": "Cb and Cr apart, 69 header bytes more",
    "labels": "gradient of the labels' likelihood in place of sampled answers",
    "normalized": "each photo's g^2 divided by its sum",
    "at compressed photos": "Fisher information where the middle tables of the closed form leave the photos",
    "distillation": "gradient of the divergence from the clean answer, at those photos",
    "half per frequency": "each g^2 replaced by the mean of itself and its frequency's mean",
    "damped": "a quarter of the cost is squared error with the component's mean g^2",
    "distillation at quality 20": "the same where standard tables of quality 20 leave the photos: one pass less",
    "run-aware rate": "bits by run and size symbols around the solution, solved again",
    "labels, run-aware": "both: what `qtable optimize` does for top-1",
    "distillation, run-aware": "distillation at quality 20 with that rate: what `qtable optimize` does for agreement",
    "descent": "one pass of coordinate descent on exact sizes of 24 photos",
}


@cache
def statistics(half: int, network: str, subsampling: Subsampling, kind: str = "fisher") -> Sensitivity:
    """Of the photos in `half`; kind: see `kinds`."""
    path = CACHE / f"{network}-{subsampling.replace(':', '')}-{kind.replace(' ', '-')}-{half}.npz"
    if path.exists():
        return Sensitivity.load(path)
    kinds: dict[str, dict[str, Any]] = {
        "fisher": {},
        "labels": {"target": "annotations"},
        "normalized": {"normalize": 1.0},
        "at compressed photos": {},
        "distillation": {"target": "distillation"},
        DISTILLED: {"target": "distillation", "at": QTables.standard(20)},
    }
    options = kinds[kind]
    if kind in ("at compressed photos", "distillation"):
        middle = Lagrangian.of(statistics(half, network, subsampling)).path().tables(np.array([MIDDLE]))
        options = options | {"at": middle}
    measured = measure(half_of(half), classifier(network), Codec(subsampling), **options)
    CACHE.mkdir(parents=True, exist_ok=True)
    measured.save(path)
    return measured


def path_of(method: str, half: int, network: str, codec: Codec) -> TableSpace:
    """The method's path from the photos in `half`."""

    def closed(kind: str = "fisher", count: int = 2) -> Lagrangian:
        return Lagrangian.of(statistics(half, network, codec.subsampling, kind), count)

    plain = statistics(half, network, codec.subsampling)
    if method in PUBLISHED:
        return PUBLISHED[method](plain, 2)
    if method == CLOSED:
        return closed().path()
    if method == "half per frequency":
        mean = plain.costs.sum(axis=2) / np.maximum(plain.levels.sum(axis=2), 1)
        halved = 0.5 * plain.costs + 0.5 * mean[..., None] * plain.levels
        return Lagrangian.of(replace(plain, costs=halved)).path()
    if method == "damped":
        mean = plain.costs.sum(axis=(1, 2)) / plain.levels.sum(axis=(1, 2))
        costs = 0.75 * plain.costs + 0.25 * mean[:, None, None] * plain.levels
        return Lagrangian.of(replace(plain, costs=costs)).path()
    if method.endswith(", run-aware"):
        kind = {"labels": "labels", "distillation": DISTILLED}[method.removesuffix(", run-aware")]
        return solver(half_of(half), statistics(half, network, codec.subsampling, kind), codec.subsampling)
    if method in ("one table", "three tables"):
        return closed(count=1 if method == "one table" else 3).path()
    if method == "run-aware rate":
        return solver(half_of(half), plain, codec.subsampling)
    if method == "descent":
        photos = half_of(half)
        scale = 8 * len(photos) / FEW

        def bits(tables: QTables) -> float:
            return scale * sum(len(codec.encode(image, tables)) for image in photos.images[:FEW])

        return Descent(closed(), closed().path(), bits, rounds=1)
    return closed(kind=method).path()


def kept_as(name: str, codec: Codec, networks: tuple[str, ...]) -> Path:
    return CACHE / f"tested-{hashlib.sha256(f'{name} {codec} {networks}'.encode()).hexdigest()[:12]}.npz"


def standard(codec: Codec) -> Tested:
    file = kept_as("standard", codec, NETWORKS)
    return halves.tested(file, half_of, codec, NETWORKS, lambda _: [QTables.standard(q) for q in QUALITIES])


def found(method: str, codec: Codec, network: str, on: tuple[str, ...]) -> Tested:
    file = kept_as(f"{method} {network}", codec, on)
    return halves.tested(file, half_of, codec, on, lambda half: swept(path_of(method, half, network, codec)))


MODEL_FREE: Final = ("rd-opt", "deepn-jpeg", "optd", *(f"mozjpeg-{n}" for n in range(1, 9)))


def study() -> dict[str, Any]:
    """Every comparison that can be made; the order is that of their weight."""
    results: dict[str, Any] = {}

    def add(name: str, network: str, codec: Codec, other: Tested, anchor: Codec, extra: Tested | None = None) -> None:
        key = f"{name} | {network} | {codec.subsampling} {codec.entropy}"
        results[key] = compared(standard(anchor), other, network, extra)
        print(f"{key}: {text(results[key]['agreement'])}", flush=True)

    def published(codec: Codec) -> None:
        for network in NETWORKS:
            add(CLOSED, network, codec, found(CLOSED, codec, network, NETWORKS), codec)
        for method in ("rd-opt-per-frequency", "grace", "opts"):
            for network in NETWORKS:
                add(method, network, codec, found(method, codec, network, (network,)), codec)
        for network, other in (NETWORKS, NETWORKS[::-1]):
            add(f"{CLOSED} of the other network", network, codec, found(CLOSED, codec, other, NETWORKS), codec)

    def model_free(codec: Codec) -> None:
        for method in MODEL_FREE:
            both = found(method, codec, NETWORKS[0], NETWORKS)
            for network in NETWORKS:
                add(method, network, codec, both, codec)

    usual = Codec()
    published(usual)
    model_free(usual)

    def levers(names: Sequence[str]) -> None:
        for lever in names:
            for network in NETWORKS:
                plain = found(CLOSED, usual, network, NETWORKS)
                add(lever, network, usual, found(lever, usual, network, (network,)), usual, plain)

    levers(list(LEVERS)[:-1])
    progressive = replace(usual, entropy="progressive")
    for network in NETWORKS:
        add(CLOSED, network, progressive, found(CLOSED, progressive, network, (network,)), progressive)
    full = Codec("4:4:4")
    published(full)
    for network in NETWORKS:
        add(f"{CLOSED}, 4:4:4 against 4:2:0", network, full, found(CLOSED, full, network, NETWORKS), usual)
        add("standard, 4:4:4 against 4:2:0", network, full, standard(full), usual)
    model_free(full)
    levers(list(LEVERS)[-1:])  # the slowest last
    return results


HEAD: Final = """\
# Tables for two frozen networks: closed forms, published tables, and what each refinement adds

500 ImageNet photos (shorter side at most 256), MobileNetV1 0.5/160 and 0.75/192. Change of bytes at equal score against
standard tables of the same sampling and entropy coding (BD-rate over the scores that both reach; negative is smaller),
with 95% paired bootstrap intervals. Real files of libjpeg-turbo. Two-fold cross-fitting: every photo is scored with
tables that were made from the other 250 photos, nothing is selected. `python -m benchmarks.tables` remakes this page.

agreement: the top answer is what it is on the uncompressed photo. top-1: it is the label.

![all methods, 4:2:0, agreement](tables.png)
"""


def page(results: dict[str, Any]) -> None:
    """README.md: the methods, the levers, transfer and chroma."""

    def cell(name: str, network: str, coding: str, metric: str, key: str = "bd_rate") -> str:
        entry = results.get(f"{name} | {network} | {coding}")
        return text(None if entry is None else entry[metric], key)

    lines = HEAD.split("\n")
    for coding in ("4:2:0 optimized", "4:4:4 optimized"):
        lines += [f"## Methods, {coding.split()[0]}", ""]
        columns = [(network, metric) for network in NETWORKS for metric in METRICS]
        lines += ["| tables | " + " | ".join(f"{n[13:]}, {m}" for n, m in columns) + " |", "|---" * 5 + "|"]
        names = [*OURS, f"{CLOSED} of the other network", *PUBLISHED]
        rows = [(name, [cell(name, n, coding, m) for n, m in columns]) for name in names if name != "mozjpeg-0"]
        shown = {name: f"{CLOSED}: {name}" for name in OURS[1:]}
        lines += [f"| {shown.get(n, n)} | " + " | ".join(cells) + " |" for n, cells in rows if set(cells) != {"-"}]
        lines.append("")
    lines += ["## What each refinement adds to the closed form (4:2:0, agreement)", ""]
    lines += [
        "| refinement | what it is | " + " | ".join(f"{n[13:]}: total, and against plain" for n in NETWORKS) + " |"
    ]
    lines += ["|---" * 4 + "|"]
    for lever, what in LEVERS.items():
        cells = [
            f"{cell(lever, n, '4:2:0 optimized', 'agreement')}; "
            f"{cell(lever, n, '4:2:0 optimized', 'agreement', 'against_plain')}"
            for n in NETWORKS
        ]
        lines.append(f"| {lever} | {what} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## Entropy coding and chroma (agreement)",
        "",
        "| question | " + " | ".join(n[13:] for n in NETWORKS),
    ]
    lines[-1] += " |"
    lines.append("|---" * 3 + "|")
    questions = {
        "closed form, both sides progressive": (CLOSED, "4:2:0 progressive"),
        "closed form in 4:4:4 against standard 4:2:0": (f"{CLOSED}, 4:4:4 against 4:2:0", "4:4:4 optimized"),
        "standard 4:4:4 against standard 4:2:0": ("standard, 4:4:4 against 4:2:0", "4:4:4 optimized"),
    }
    for question, (name, coding) in questions.items():
        lines.append(f"| {question} | " + " | ".join(cell(name, n, coding, "agreement") for n in NETWORKS) + " |")
    write_page(OUT, lines)
    picture(results)


def picture(results: dict[str, Any]) -> None:
    """Every method's BD-rate with its interval, a panel per network."""
    figure, panels = plot.new_axes(10, 5.6, columns=2)
    names = [CLOSED, *LEVERS, f"{CLOSED} of the other network", *(n for n in PUBLISHED if n != "mozjpeg-0")]
    for axes, network in zip(panels, NETWORKS, strict=True):
        entries = {n: results.get(f"{n} | {network} | 4:2:0 optimized") for n in names}
        groups = {CLOSED: 0, **dict.fromkeys(PUBLISHED, 1)}
        rows = [(name, entry["agreement"], groups.get(name, 2)) for name, entry in entries.items() if entry is not None]
        forest(axes, rows, "bytes at equal score against standard tables (%)", size=7)
        axes.set_title(f"{network}, 4:2:0, agreement", fontsize=9)
    figure.savefig(OUT / "tables.png")


if __name__ == "__main__":
    run_study(OUT / "tables.json", CACHE, study, page)
