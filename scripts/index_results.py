"""Writes results/README.md from the figures beside it: `python scripts/index_results.py` (part of `make results`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).resolve().parent.parent / "results"
IMAGENET: Final = "--data ../shared/data/imagenet --model ../shared/models/classifiers.py:{} --metric agreement"
RUNS: Final = {
    "embedded": ("closed form, embedded task, top-1", ""),
    "embedded/sorted-random": ("sorted random, 100 evaluations, embedded task", "--method sorted-random --budget 100"),
} | {
    f"imagenet-sample/{network}-{sampling.replace(':', '')}": (
        f"closed form, ImageNet photos, {network}, {sampling}, agreement",
        f"{IMAGENET.format(network)} --subsampling {sampling}",
    )
    for network in ("mobilenet_v1_050_160", "mobilenet_v1_075_192")
    for sampling in ("4:2:0", "4:4:4")
}
HEAD: Final = """\
# Results

Each figure is the change of bytes at equal score against standard tables (BD-rate) on `test` photos that nothing was chosen on,
with its paired 95% interval. Real files of libjpeg-turbo, same sampling and entropy coding on both sides. `make results` remakes
the runs (seed 0; half an hour on two cores), `make bench` the benchmarks.

| question | bytes at equal score | | command |
|---|---|---|---|
"""
TAIL: Final = """\

The embedded task is for trying the tool. On ImageNet the photos are 500, of which 203 are in `test`: intervals are wide, and the
networks are small ones (top-1 68% and 78% on clean photos). "agreement" is the share of photos whose top answer stays what it is on the
uncompressed photo.

| benchmark | | command |
|---|---|---|
| the JPEG layer against kornia's: time, memory, equal pixels | [layer](layer/README.md) | `python -m benchmarks.layer` |
| seven rate estimates against real bytes over 200 table sets | [rate](rate/README.md) | `python -m benchmarks.rate` |
| what evaluating, statistics and solving cost beside inference | [evaluate](evaluate/evaluate.json) | `python -m benchmarks.evaluate` |
"""


def row(run: str) -> str:
    """One line of the table: question, figure with interval, picture, command."""
    question, options = RUNS[run]
    summary = json.loads((RESULTS / run / "summary.json").read_text())
    low, high = summary["bd_rate_ci"]
    command = f"qtable optimize {options}".strip()
    figure = f"{summary['bd_rate']:+.1%} [{low:+.1%}, {high:+.1%}]"
    return f"| {question} | {figure} | [picture]({run}/front.png) | `{command}` |"


def main() -> None:
    rows = [row(run) for run in RUNS if (RESULTS / run / "summary.json").exists()]
    (RESULTS / "README.md").write_text(HEAD + "\n".join(rows) + "\n" + TAIL, encoding="utf-8")


if __name__ == "__main__":
    main()
