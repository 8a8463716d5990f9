"""Every figure of the README is one of results/, and every command and link in it exists."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

from qtable.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROSE = " ".join(README.split())
INDEX = (ROOT / "results" / "README.md").read_text(encoding="utf-8")


def load(name: str) -> Any:
    return json.loads((ROOT / "results" / name).read_text())


def test_the_demos_figures_are_those_of_its_results() -> None:
    summary = load("embedded/summary.json")
    low, high = summary["bd_rate_ci"]
    assert f"by **{summary['bd_rate']:+.1%}** at equal accuracy (95% interval [{low:+.1%}, {high:+.1%}]" in PROSE
    assert f"{summary['n_test']} held-out photos" in PROSE


def imagenet_columns() -> list[tuple[float, list[float]]]:
    """Of each network and metric the BD-rate of what `qtable optimize` makes, and those of mozjpeg's tables."""
    table, columns = load("imagenet-sample/tables.json"), []
    for network in ("mobilenet_v1_050_160", "mobilenet_v1_075_192"):
        for metric, ours in (("top-1", "labels, run-aware"), ("agreement", "distillation, run-aware")):
            names = (ours, *(f"mozjpeg-{i}" for i in range(1, 9)))
            first, *others = (table[f"{n} | {network} | 4:2:0 optimized"][metric]["bd_rate"] for n in names)
            columns.append((first, others))
    return columns


def behind_ours() -> float:
    """Points of BD-rate that the best of mozjpeg's tables is behind ours; the worst column."""
    gaps = [100 * (min(others) - ours) for ours, others in imagenet_columns()]
    assert min(gaps) > 0
    return float(max(gaps))


def measured() -> set[str]:
    """Every figure that the README may give, made from results/; 95% is the confidence of all intervals."""
    demo, layer = load("embedded/summary.json"), load("layer/layer.json")["devices"]["cpu"]
    joint = load("joint/joint.json")["two by two"]["against (standard, frozen)"]
    together = joint["learned, fine-tuned, one table"]
    rates = [demo["bd_rate"], *demo["bd_rate_ci"], together["bd_rate"], *together["bd_rate_ci"]]
    ours = [rate for rate, _ in imagenet_columns()]
    rates += [min(ours), max(ours)]
    rates += [joint[cell]["bd_rate"] for cell in ("learned, frozen", "standard, fine-tuned", "learned, fine-tuned")]
    aware = load("task-aware/task-aware.json")["rows"]
    for network in ("mobilenet_v1_075_192", "efficientnet_lite0"):
        not_asked = aware["photo, MobileNet"][network]["agreement"]
        rates += [not_asked["bd_rate"], *not_asked["bd_rate_ci"], aware["AVIF"][network]["agreement"]["bd_rate"]]
    rates.append(aware["tables, MobileNet"]["efficientnet_lite0"]["agreement"]["bd_rate"])
    tuned = load("fine-tune/fine-tune.json")["against (standard, frozen)"]
    both = tuned["learned, fine-tuned"]
    rates += [both["bd_rate"], *both["bd_rate_ci"], tuned["learned, frozen"]["bd_rate"]]
    return {
        "95%",
        *(f"{rate:+.1%}" for rate in rates),
        f"{layer['times']['one thread']['ratio']:.0f} times",
        f"{layer['pixels_equal_to_libjpeg_turbo']['kornia']:.0%}",
        f"{behind_ours():.0f} points",
        f"{max(run['spent'][-1] for run in load('embedded/contest-cold/compare.json')['runs']):.0f} of",
    }


def test_every_figure_is_a_measured_one() -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", README, flags=re.DOTALL)
    figures = re.findall(r"[-+]?\d[\d.,]*(?:%| times| points| of )", " ".join(prose.split()))
    assert len(figures) >= 8
    assert {figure.strip() for figure in figures} <= measured()


def test_the_index_of_results_is_made_from_the_figures_beside_it() -> None:
    """If it fails: `python scripts/index_results.py`."""
    assert runpy.run_path(str(ROOT / "scripts" / "index_results.py"))["page"]() == INDEX


def test_every_folder_of_results_is_in_the_index() -> None:
    for file in (ROOT / "results").rglob("*.json"):
        folder = file.parent.relative_to(ROOT / "results")
        assert f"]({folder}/" in INDEX, folder


def test_the_layers_figures_are_those_of_its_results() -> None:
    cpu = load("layer/layer.json")["devices"]["cpu"]
    assert f"{cpu['times']['one thread']['ratio']:.0f} times faster than kornia's" in PROSE
    assert cpu["pixels_equal_to_libjpeg_turbo"]["qtable"] == 1.0


def test_links_lead_somewhere() -> None:
    for text, folder in ((README, ROOT), (INDEX, ROOT / "results")):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("http") or (folder / target).exists(), target


def test_commands_in_the_readme_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^\.venv/bin/qtable (.+)$", README, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        name, *arguments = shlex.split(command, comments=True)
        with pytest.raises(SystemExit):
            main([name, "--help"])
        shown = capsys.readouterr().out
        for option in (a for a in arguments if a.startswith("--")):
            assert option in shown, command
