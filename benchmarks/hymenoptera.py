"""What do found tables save a network that was fitted to 244 photos of ants and bees?

`python -m benchmarks.hymenoptera`: MobileNetV1 0.5/160 with a new last layer is trained on the training photos;
tables come from the same photos and are tested on the 153 validation photos, which neither saw. Beside it, for its
shape alone, stand the published points of the lab notebook. What is trained and tested is kept in runs/hymenoptera, so
an interrupted run continues. Needs ../shared. `--page` writes the page and the picture anew from hymenoptera.json and
the notebook's points.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.halves import QUALITIES, solver, swept
from benchmarks.study import METRICS, SHARED, Tested, kept, run_study, text, weights, write_page
from qtable.codecs.plain import TableCoder
from qtable.files import write_atomically
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.measure.evaluate import Evaluator, Score
from qtable.measure.front import Curve, bd_rate, interval, size_change
from qtable.measure.sensitivity import Sensitivity, measure
from qtable.photos.opening import EXTENSIONS, open_photo, read_photo_file
from qtable.photos.sets import Photos
from qtable.report import plot
from qtable.tasks.classification import Classifier
from qtable.tasks.models import load_model
from search.closed_form import shrinkage_for
from search.methods import DISTILLED_AT

CACHE: Final = Path("runs/hymenoptera")
OUT: Final = Path("results/hymenoptera")
CLASSES: Final = ("ants", "bees")
SIDE: Final = 256
"""Pixels of the shorter side to which photos are scaled."""
HELD: Final = 4
"""One in so many training photos is held back while the recipe is chosen."""
NEAR: Final = (8, 22, 50)
"""Standard qualities at whose score sizes are compared."""
PUBLISHED: Final = ("libjpeg_standard", "libjpeg_sorted", "libjpeg_random", "libjpeg_perturbed")
"""The notebook's files that are drawn."""


@dataclass(frozen=True)
class Recipe:
    """Adam on batches of 32, half of the photos mirrored; what learns, for how many epochs, and at what rate."""

    learns: str
    epochs: int
    rate: float
    seed: int = 0


RECIPES: Final = (Recipe("last layer", 12, 3e-3), Recipe("all layers", 6, 2e-4))


@cache
def photos(split: str) -> Photos:
    """Those of "train" or "val", scaled; annotated with indices of `CLASSES`."""
    folder = SHARED / "data/hymenoptera" / split
    files = [
        (file, label)
        for label, name in enumerate(CLASSES)
        for file in sorted((folder / name).iterdir())
        if file.suffix.lower() in EXTENSIONS
    ]
    images = tuple(open_photo(read_photo_file(file), SIDE)[0] for file, _ in files)
    return Photos(images, np.array([label for _, label in files]), tuple(file.name for file, _ in files))


def labels_of(split: str) -> Tensor:
    """int64 [n]: the annotations of its photos."""
    return torch.from_numpy(np.asarray(photos(split).annotations))


# ---- the network ----------------------------------------------------------------------------------------------


def fresh(seed: int) -> nn.Module:
    """The pretrained network with a new last layer; of its three logits the first is dropped, as the thousand's is."""
    torch.manual_seed(seed)
    model = load_model(f"{SHARED}/models/classifiers.py:mobilenet_v1_050_160")
    net = model.get_submodule("net")
    width = net.get_submodule("head").in_features
    assert isinstance(width, int)
    net.add_module("head", nn.Linear(width, 1 + len(CLASSES)))
    return model


@cache
def inputs() -> Tensor:
    """float [244, 3, 160, 160]: the training photos, cut and scaled as the network gets them."""
    model, seen = fresh(0), list[Tensor]()
    hook = model.get_submodule("net").register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        for image in photos("train").images:
            model(torch.from_numpy(image).permute(2, 0, 1)[None].float())
    hook.remove()
    return torch.cat(seen)


def trained(recipe: Recipe, at: npt.NDArray[np.intp]) -> nn.Module:
    """A network trained on the training photos `at`."""
    model = fresh(recipe.seed)
    net = model.get_submodule("net")
    learning = net if recipe.learns == "all layers" else net.get_submodule("head")
    net.requires_grad_(False)
    learning.requires_grad_(True)
    adam = torch.optim.Adam(learning.parameters(), lr=recipe.rate)
    labels = labels_of("train")
    rng = np.random.default_rng(recipe.seed)
    for _ in range(recipe.epochs):
        for batch in np.array_split(rng.permutation(at), -(-len(at) // 32)):
            x = inputs()[batch]
            mirrored = torch.from_numpy(rng.random(len(batch)) < 0.5)
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
            loss = F.cross_entropy(net(x)[:, 1:], labels[batch])
            adam.zero_grad()
            torch.autograd.backward([loss])
            adam.step()
    return model


def validated(model: nn.Module, at: npt.NDArray[np.intp]) -> dict[str, float]:
    """Accuracy and cross-entropy (nats) on the training photos `at`."""
    with torch.no_grad():
        logits = model.get_submodule("net")(inputs()[at])[:, 1:]
    labels = labels_of("train")[at]
    right = (logits.argmax(1) == labels).double().mean()
    return {"accuracy": float(right), "cross_entropy": float(F.cross_entropy(logits, labels))}


def choose() -> dict[str, Any]:
    """Every recipe's figures on the training photos held back, the lowest cross-entropy first; kept in a file."""
    file = CACHE / "chosen.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    order = np.random.default_rng(0).permutation(len(photos("train")))
    held, rest = order[::HELD], np.setdiff1d(order, order[::HELD])
    tried = [{**asdict(recipe), **validated(trained(recipe, rest), held)} for recipe in RECIPES]
    chosen = {"held_back": len(held), "recipes": sorted(tried, key=lambda entry: entry["cross_entropy"])}
    write_atomically(file, json.dumps(chosen).encode())
    return chosen


@cache
def network(learns: str) -> Classifier:
    """Trained with the recipe chosen, on all training photos."""
    (recipe,) = (r for r in RECIPES if r.learns == learns)
    file = CACHE / "network.safetensors"
    if not file.exists():
        save_file(trained(recipe, np.arange(len(photos("train")))).state_dict(), file)
    model = fresh(recipe.seed)
    model.load_state_dict(load_file(file))
    return Classifier(model)


# ---- tables ---------------------------------------------------------------------------------------------------


def statistics(metric: str, task: Classifier) -> Sensitivity:
    """Of the training photos; what `qtable optimize` takes for this metric."""
    file = CACHE / f"statistics-{metric}.npz"
    if not file.exists():
        if metric == "top-1":
            measured = measure(photos("train"), task, Codec(), target="annotations")
        else:
            measured = measure(photos("train"), task, Codec(), target="distillation", at=DISTILLED_AT)
        measured.save(file)
    return Sensitivity.load(file)


def made_for(metric: str, task: Classifier) -> list[QTables]:
    train = photos("train")
    return swept(solver(train, statistics(metric, task), "4:2:0", shrinkage_for(len(train))))


def measured(name: str, task: Classifier, made: Callable[[], Sequence[QTables]]) -> Tested:
    """Tables on the validation photos; kept in a file."""

    def scored() -> list[list[Score]]:
        with Evaluator(photos("val"), task) as evaluator:
            return [evaluator.many([TableCoder(tables) for tables in made()])]

    return kept(CACHE / f"tested-{name}.npz", [""], scored)


def points(tested: Tested, metric: str) -> list[dict[str, Any]]:
    """Mean bytes and score of each table, with the score's interval."""
    scores = weights(tested.sizes.shape[1]) @ tested.scores("", metric).T
    sizes = tested.sizes.mean(axis=1)
    return [
        {"bytes": float(b), "score": float(s[0]), "score_ci": interval(s[1:])}
        for b, s in zip(sizes, scores.T, strict=True)
    ]


def study() -> dict[str, Any]:
    torch.set_num_threads(1)  # with more of them the sums of a training depend on the machine's load
    chosen = choose()
    task = network(chosen["recipes"][0]["learns"])
    val = photos("val")
    standard = measured("standard", task, lambda: [QTables.standard(q) for q in QUALITIES])
    with Evaluator(val, task) as evaluator:
        clean = evaluator.clean().score()
    result: dict[str, Any] = {
        "network": chosen,
        "photos": {"train": len(photos("train")), "val": len(val)},
        "clean": clean,
        "raw_bytes": float(np.mean([image.size for image in val.images])),
        "qualities": QUALITIES,
    }
    for metric in METRICS:

        def made(metric: str = metric) -> list[QTables]:
            return made_for(metric, task)

        ours = measured(metric, task, made)
        pairs = list(zip(standard.curves("", metric), ours.curves("", metric), strict=True))
        rates = [bd_rate(a, b) for a, b in pairs]
        result[metric] = {
            "bd_rate": rates[0],
            "bd_rate_ci": interval(rates[1:]),
            "standard": points(standard, metric),
            "found": points(ours, metric),
            "at": {str(q): at_quality(q, standard, pairs) for q in NEAR},
        }
        print(f"{metric}: {text(result[metric])}", flush=True)
    return result


def at_quality(quality: int, standard: Tested, pairs: Sequence[tuple[Curve, Curve]]) -> dict[str, Any]:
    """Change of size at the score that the curve of standard tables has at the bytes of `quality`.

    None where found tables do not reach that score in more than 5% of the resamples.
    """
    sizes = weights(standard.sizes.shape[1]) @ standard.sizes[QUALITIES.index(quality)]
    scores = [float(np.interp(np.log(b), a.log_sizes, a.scores)) for b, (a, _) in zip(sizes, pairs, strict=True)]
    changes = [size_change(a, b, score) for (a, b), score in zip(pairs, scores, strict=True)]
    known = np.isfinite(changes).mean() > 0.95
    return {
        "score": scores[0],
        "change": changes[0] if known else None,
        "change_ci": interval(changes[1:]) if known else None,
    }


# ---- the page -------------------------------------------------------------------------------------------------


def published(name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Compression rates and accuracies of one of the notebook's files."""
    with (SHARED / f"data/jpegnn_curves/{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    return np.array([float(r["Comp Rate"]) for r in rows]), np.array([float(r["Acc"]) for r in rows])


def page(found: dict[str, Any]) -> None:
    if not SHARED.is_dir():
        sys.exit(f"benchmarks.hymenoptera: {SHARED} is not here; skipped")
    best, other = found["network"]["recipes"]
    lines = [
        "# What do found tables save a network that was fitted to 244 photos of ants and bees?",
        "",
        (
            f"At equal agreement the bytes change by {text(found['agreement'])}, at equal top-1 accuracy by"
            f" {text(found['top-1'])}, against standard tables. {found['photos']['val']} photos decide little: the"
            " intervals are wide."
        ),
        "",
        f"MobileNetV1 0.5/160 with a new last layer, trained on {found['photos']['train']} photos (mirrored at",
        "random), tables from the same photos; everything below is measured on the",
        f"{found['photos']['val']} validation photos, on which nothing was chosen. Photos scaled to a shorter side of",
        f"{SIDE}, 4:2:0, real files of libjpeg-turbo, {len(found['agreement']['found'])} points per curve, 95% paired",
        "bootstrap intervals over photos (not over trainings: there is one). Of the 397 photos 268 are JPEG files, 129",
        "lossless WebP.",
        "`python -m benchmarks.hymenoptera` remakes this page.",
        "",
        (
            f"Training {best['learns']} was taken: on {found['network']['held_back']} training photos held back it had"
            f" {best['accuracy']:.1%} and {best['cross_entropy']:.3f} nats, training {other['learns']}"
            f" {other['accuracy']:.1%} and {other['cross_entropy']:.3f}. The network was then trained on all of them;"
            f" on the uncompressed validation photos it has {found['clean']:.1%}."
        ),
        "",
        "![fronts, and the notebook's published points](hymenoptera.png)",
        "",
        "## Bytes at equal score against standard tables",
        "",
        "| score | over the curve (BD-rate) | " + " | ".join(f"at standard quality {q}" for q in NEAR) + " |",
        "|---" * (2 + len(NEAR)) + "|",
    ]
    for metric in METRICS:
        cells = [text(found[metric]), *(change(found[metric]["at"][str(q)]) for q in NEAR)]
        lines.append(f"| {metric} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "In brackets behind: the score. Not decided: in 5% of the resamples or more one curve misses it.",
    ]
    lines += ["", "## Standard tables", ""]
    lines += ["| quality | mean bytes | top-1 | agreement |", "|---" * 4 + "|"]
    rows = zip(found["qualities"], found["top-1"]["standard"], found["agreement"]["standard"], strict=True)
    lines += [f"| {q} | {a['bytes']:.0f} | {scored(a)} | {scored(b)} |" for q, a, b in rows]
    lines += ["", "## Found tables", "", "Made for the metric of the same column.", ""]
    lines += ["| mean bytes | top-1 | mean bytes | agreement |", "|---" * 4 + "|"]
    pairs = zip(found["top-1"]["found"], found["agreement"]["found"], strict=True)
    lines += [f"| {a['bytes']:.0f} | {scored(a)} | {b['bytes']:.0f} | {scored(b)} |" for a, b in pairs]
    write_page(OUT, lines)
    picture(found)


def scored(point: Mapping[str, Any]) -> str:
    low, high = point["score_ci"]
    return f"{point['score']:.1%} [{low:.1%}, {high:.1%}]"


def change(entry: Mapping[str, Any]) -> str:
    if entry["change"] is None:
        return f"not decided ({entry['score']:.1%})"
    low, high = entry["change_ci"]
    return f"{entry['change']:+.1%} [{low:+.1%}, {high:+.1%}] ({entry['score']:.1%})"


def picture(found: Mapping[str, Any]) -> None:
    """Left and middle: the fronts of both metrics. Right: accuracy against compression rate, with the notebook's."""
    figure, panels = plot.new_axes(13, 4.4, columns=3)
    for axes, metric in zip(panels, METRICS, strict=False):
        plot.front(axes, found[metric]["standard"], "standard tables", plot.STANDARD_COLOUR, "s")
        plot.front(axes, found[metric]["found"], "found tables", plot.FOUND_COLOUR, "o")
        axes.set_ylabel(f"{metric} (%)")
        axes.legend(loc="lower right", fontsize=8)
        axes.set_title(f"{found['photos']['val']} validation photos", fontsize=9)
    axes = panels[-1]
    for i, name in enumerate(PUBLISHED[1:]):
        rates, scores = published(name)
        axes.plot(
            rates, 100 * scores, ".", color=plot.COLOURS[i + 2], markersize=2, alpha=0.5, label=f"notebook: {name}"
        )
    rates, scores = published(PUBLISHED[0])
    axes.plot(rates, 100 * scores, "x--", color="black", markersize=4, linewidth=1, label=f"notebook: {PUBLISHED[0]}")
    for side, colour, marker in (("standard", plot.STANDARD_COLOUR, "s"), ("found", plot.FOUND_COLOUR, "o")):
        sizes, ours = (np.array([p[key] for p in found["top-1"][side]]) for key in ("bytes", "score"))
        axes.plot(
            found["raw_bytes"] / sizes,
            100 * ours,
            marker=marker,
            color=colour,
            label=f"{side} tables, here",
            markersize=4,
        )
    axes.set_xlabel("compression rate (uncompressed bytes over file bytes)", fontsize=8)
    axes.set_ylabel("top-1 (%)")
    axes.set_title("beside the notebook's: other photos, another network", fontsize=9)
    axes.grid(True, alpha=0.25)
    axes.legend(fontsize=6)
    figure.savefig(OUT / "hymenoptera.png")


if __name__ == "__main__":
    run_study(OUT / "hymenoptera.json", CACHE, study, page, SHARED / "data/hymenoptera")
