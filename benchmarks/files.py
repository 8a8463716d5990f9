"""What found tables do to single files, to photos that were JPEG before, and with other entropy coding.

`python -m benchmarks.files`: how the saving is spread over photos at equal mean agreement; whether it survives where
the photos were stored as JPEG first; and what it is with libjpeg's default Huffman tables, with optimized ones and with
progressive files. ImageNet photos, MobileNetV1 0.5/160, agreement, 4:2:0, two-fold cross-fitting as in
`benchmarks.tables`. What is tested is kept in runs, so an interrupted run continues. Needs ../shared. `--page` writes
the page and the picture anew from files.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from benchmarks import tables
from benchmarks.halves import QUALITIES, halves, swept
from benchmarks.study import Floats, Tested, compared, forest, run_study, text, weights, write_page
from benchmarks.transfer import MIDDLE as NETWORK
from benchmarks.transfer import Place, standard, used
from qtable.jpeg.codec import ENTROPIES, Codec, Entropy
from qtable.jpeg.tables import QTables
from qtable.measure.front import bd_rate, interval
from qtable.photos.sets import Photos
from qtable.report import plot

CACHE: Final = Path("runs/files")
OUT: Final = Path("results/files")
METHOD: Final = "distillation, run-aware"
"""The default statistics and solver, without the shrinkage, which is 3% for 250 photos."""
NEAR: Final = (22, 50)
"""Standard qualities at whose agreement single files are compared."""
PERCENTILES: Final = (5, 25, 50, 75, 95)

# ---- how the saving is spread ---------------------------------------------------------------------------------


def found() -> Tested:
    return tables.found(METHOD, Codec(), NETWORK, (NETWORK,))


def size_ratios(ours: Tested, theirs: Tested, level: int) -> tuple[Floats, list[float]]:
    """Per photo our bytes over those of the standard tables `level`, at the mean agreement of those.

    Our mean size at that agreement lies between two tables of the path; each photo's bytes are interpolated between
    its two files (in logarithms). Returns float64 [resamples + 1, photos], the match being made anew in each resample,
    and the agreement there.
    """
    logs = np.log(ours.sizes[::-1])  # by rising size
    ratios, scores = [], []
    for w, our, their in zip(weights(logs.shape[1]), ours.curves(NETWORK), theirs.curves(NETWORK), strict=True):
        log_size = np.log(theirs.sizes[level] @ w)
        score = float(np.interp(log_size, their.log_sizes, their.scores))
        means = np.log(ours.sizes[::-1] @ w)
        at = float(np.interp(np.interp(score, our.scores, our.log_sizes), means, np.arange(len(means))))
        below = min(int(at), len(means) - 2)
        each = (1 - (at - below)) * logs[below] + (at - below) * logs[below + 1]
        ratios.append(np.exp(each) / theirs.sizes[level])
        scores.append(score)
    return np.array(ratios), scores


def spread() -> dict[str, Any]:
    """How our bytes over standard ones are distributed over the photos, at each quality of `NEAR`."""
    result = {}
    ours, theirs = found(), tables.standard(Codec())
    for quality in NEAR:
        level = QUALITIES.index(quality)
        ratios, scores = size_ratios(ours, theirs, level)
        counts = np.rint(weights(ratios.shape[1]) * ratios.shape[1]).astype(np.int64)
        drawn = [np.repeat(row, count) for row, count in zip(ratios, counts, strict=True)]
        sizes = [np.repeat(theirs.sizes[level], count) for count in counts]
        measures = {
            "all bytes": [float((r * s).sum() / s.sum()) for r, s in zip(drawn, sizes, strict=True)],
            "mean": [float(r.mean()) for r in drawn],
            **{f"{p}%": [float(np.percentile(r, p)) for r in drawn] for p in PERCENTILES},
            "share that grows": [float((r > 1).mean()) for r in drawn],
        }
        result[str(quality)] = {
            "agreement": scores[0],
            "standard_bytes": float(theirs.sizes[level].mean()),
            "measures": {name: {"value": values[0], "ci": interval(values[1:])} for name, values in measures.items()},
            "rank_correlation_with_standard_bytes": float(spearmanr(ratios[0], theirs.sizes[level]).statistic),
            "ratios": np.sort(ratios[0]).round(4).tolist(),
        }
    return result


# ---- second compression ---------------------------------------------------------------------------------------


def decoded_from(half: int, quality: int) -> Photos:
    """The photos as JPEG files of this quality, 4:2:0, leave them."""
    photos, codec, first = halves()[half], Codec(), QTables.standard(quality)
    return replace(photos, images=tuple(codec.decode(codec.encode(image, first)) for image in photos.images))


@cache
def stored_90(half: int) -> Photos:
    return decoded_from(half, 90)


@cache
def stored_75(half: int) -> Photos:
    return decoded_from(half, 75)


def second_compression() -> dict[str, Any]:
    """BD-rates where the photos are as they are, and where they come from JPEG files."""
    usual = Place()
    cases = {
        "never": (usual, usual),
        **{
            f"quality {quality}, statistics from {whose}": (made, replace(usual, photos=photos))
            for quality, photos in ((90, stored_90), (75, stored_75))
            for whose, made in (("the same photos", replace(usual, photos=photos)), ("the pristine photos", usual))
        },
    }
    result = {}
    for name, (made, at) in cases.items():
        own = None if made == at else used(at, at)
        result[name] = compared(standard(at), used(made, at), NETWORK, own)["agreement"]
        del result[name]["size_change_at"]
        print(f"{name}: {text(result[name])}", flush=True)
    return result


# ---- entropy coding -------------------------------------------------------------------------------------------


def sizes_of(entropy: Entropy, name: str, made: Sequence[Sequence[QTables]]) -> npt.NDArray[np.int64]:
    """int64 [tables, photos], photos in the order of `Tested`: `made`[half] on the other half; kept in a file."""
    file = CACHE / f"sizes-{name}-{entropy}.npy"
    if not file.exists():
        codec = Codec("4:2:0", entropy)
        rows = [
            np.array([[len(codec.encode(image, t)) for image in halves()[1 - half].images] for t in made[half]])
            for half in (0, 1)
        ]
        part = file.with_suffix(".part.npy")
        np.save(part, np.hstack(rows))
        part.replace(file)
    sizes: npt.NDArray[np.int64] = np.load(file)
    return sizes


def entropy_coding() -> dict[str, Any]:
    """Found against standard tables under each entropy coding, and each coding against optimized Huffman tables.

    Entropy coding is lossless: files of the same tables decode to the same pixels, so sizes alone are measured anew.
    """
    each = [[QTables.standard(q) for q in QUALITIES]] * 2
    ours = [swept(tables.path_of(METHOD, half, NETWORK, Codec())) for half in (0, 1)]
    kinds = {"standard": (tables.standard(Codec()), each), "found": (found(), ours)}
    coded = {
        name: {e: measured if e == "optimized" else replace(measured, sizes=sizes_of(e, name, made)) for e in ENTROPIES}
        for name, (measured, made) in kinds.items()
    }
    rates = {e: changes(coded["standard"][e], coded["found"][e]) for e in ENTROPIES}
    result: dict[str, Any] = {
        "found against standard": {
            entropy: {
                "bd_rate": float(each_[0]),
                "bd_rate_ci": interval(each_[1:]),
                "difference": float((each_ - rates["optimized"])[0]),
                "difference_ci": interval((each_ - rates["optimized"])[1:]),
            }
            for entropy, each_ in rates.items()
        }
    }
    for name, by_entropy in coded.items():
        result[f"{name} tables, against optimized"] = {
            entropy: worth(by_entropy["optimized"], by_entropy[entropy])
            for entropy in ENTROPIES
            if entropy != "optimized"
        }
    return result


def changes(anchor: Tested, other: Tested) -> Floats:
    """BD-rate of all photos and of each resample, float64 [resamples + 1]."""
    return np.array([bd_rate(a, b) for a, b in zip(anchor.curves(NETWORK), other.curves(NETWORK), strict=True)])


def worth(anchor: Tested, other: Tested) -> dict[str, Any]:
    """Change of bytes of the same tables: over the curve, and in the smallest and the largest of the files."""
    rates = changes(anchor, other)
    result: dict[str, Any] = {"bd_rate": float(rates[0]), "bd_rate_ci": interval(rates[1:])}
    order, w = np.argsort(anchor.sizes.mean(axis=1)), weights(anchor.sizes.shape[1])
    for name, at in (("smallest", order[0]), ("largest", order[-1])):
        means = (w @ other.sizes[at]) / (w @ anchor.sizes[at]) - 1
        result |= {name: float(means[0]), f"{name}_ci": interval(means[1:])}
    return result


# ---- the page -------------------------------------------------------------------------------------------------


def study() -> dict[str, Any]:
    return {
        "entropy coding": entropy_coding(),
        "spread": spread(),
        "second compression": second_compression(),
    }


def answer(found_: Mapping[str, Any]) -> list[str]:
    """One sentence for each of the three questions."""
    grows = found_["spread"][str(NEAR[0])]["measures"]["share that grows"]
    middle = found_["spread"][str(NEAR[0])]["measures"]
    second = found_["second compression"]
    coding = found_["entropy coding"]["found against standard"]
    return [
        (
            f"- At the agreement of standard quality {NEAR[0]} a file is {ranged(middle['mean'], '.3f')} times as large"
            f" on average, {middle['5%']['value']:.2f} to {middle['95%']['value']:.2f} times for the middle 90% of the"
            f" photos; {ranged(grows, '.1%')} of the photos grow."
        ),
        "- Stored as JPEG before: " + "; ".join(f"{name}: {text(e)}" for name, e in second.items()) + ".",
        "- Entropy coding: " + "; ".join(f"{CODINGS[e]}: {text(coding[e])}" for e in ENTROPIES) + ".",
    ]


CODINGS: Final[dict[str, str]] = {
    "standard": "libjpeg's default Huffman tables",
    "optimized": "optimized Huffman tables",
    "progressive": "progressive files",
}


def page(found_: dict[str, Any]) -> None:
    lines = ["# What do found tables do to single files, to second compression, and with other entropy coding?", ""]
    lines += answer(found_)
    lines += [
        "",
        "500 ImageNet photos (shorter side at most 256), MobileNetV1 0.5/160, agreement, 4:2:0, real files of",
        "libjpeg-turbo. Two-fold cross-fitting: every photo is compressed with tables made from the other 250. 95%",
        "paired bootstrap intervals over photos. `python -m benchmarks.files` remakes this page.",
        "",
        "![spread of the saving, and the gain in each case](files.png)",
        "",
        "## How the saving is spread over photos",
        "",
        "Bytes with found tables over bytes with standard tables, photo by photo, where both have the same mean",
        "agreement. That point lies between two found tables; a photo's bytes are interpolated between its two files.",
        "",
    ]
    spread_ = found_["spread"]
    lines += [
        "| | " + " | ".join(f"at standard quality {q}" for q in spread_) + " |",
        "|---" * (1 + len(spread_)) + "|",
    ]
    lines.append("| agreement | " + " | ".join(f"{entry['agreement']:.1%}" for entry in spread_.values()) + " |")
    for name in spread_[str(NEAR[0])]["measures"]:
        share = name == "share that grows"
        cells = [ranged(entry["measures"][name], ".1%" if share else ".3f") for entry in spread_.values()]
        shown = {"all bytes": "all bytes together", "mean": "mean of the photos' ratios"}.get(name, name)
        lines.append(
            f"| {f'ratio, percentile {name[:-1]}' if name[-1] == '%' else shown} | " + " | ".join(cells) + " |"
        )
    cells = [f"{entry['rank_correlation_with_standard_bytes']:+.2f}" for entry in spread_.values()]
    lines.append("| rank correlation of the ratio with the standard file's bytes | " + " | ".join(cells) + " |")
    lines += ["", "## Photos that were JPEG before", ""]
    lines += [
        "Stored at quality 90 or 75 (libjpeg's tables, 4:2:0) and decoded; that is the clean photo, on which the",
        "network's answer must stay. Then compressed with standard (8 points) and with found tables (5 points).",
        "",
        "| stored as JPEG before | against standard tables | against tables from the same photos |",
        "|---" * 3 + "|",
    ]
    for name, entry in found_["second compression"].items():
        lines.append(f"| {name} | {text(entry)} | {text(entry, 'against_plain')} |")
    coding = found_["entropy coding"]
    lines += [
        "",
        "## Entropy coding",
        "",
        "Found against standard tables, both written the same way (9 points per curve):",
    ]
    lines += [
        "",
        "| written with | against standard tables | difference to optimized Huffman tables |",
        "|---" * 3 + "|",
    ]
    for entropy, entry in coding["found against standard"].items():
        gap = "-" if entropy == "optimized" else text(entry, "difference")
        lines.append(f"| {CODINGS[entropy]} | {text(entry)} | {gap} |")
    lines += ["", "What the way of writing is worth for the same tables, against optimized Huffman tables:", ""]
    lines += ["| tables | written with | over the curve | smallest files | largest files |", "|---" * 5 + "|"]
    for name in ("standard", "found"):
        for entropy, entry in coding[f"{name} tables, against optimized"].items():
            cells = [text(entry, key) for key in ("bd_rate", "smallest", "largest")]
            lines.append(f"| {name} | {CODINGS[entropy]} | " + " | ".join(cells) + " |")
    write_page(OUT, lines)
    picture(found_)


def ranged(entry: Mapping[str, Any], form: str) -> str:
    low, high = entry["ci"]
    return f"{entry['value']:{form}} [{low:{form}}, {high:{form}}]"


def picture(found_: Mapping[str, Any]) -> None:
    """Left: the share of photos below each ratio. Right: the gain in each case of the other two questions."""
    figure, (left, right) = plot.new_axes(10, 4.2, columns=2)
    for i, (quality, entry) in enumerate(found_["spread"].items()):
        ratios = np.array(entry["ratios"])
        shares = 100 * np.arange(1, len(ratios) + 1) / len(ratios)
        left.plot(ratios, shares, ("-", "--")[i], color=plot.COLOURS[i], label=f"at standard quality {quality}")
    left.axvline(1, color=plot.STANDARD_COLOUR, linewidth=0.8)
    left.set_xlabel("bytes with found over bytes with standard tables, equal mean agreement", fontsize=8)
    left.set_ylabel("share of photos below (%)")
    left.grid(True, alpha=0.25)
    left.legend(fontsize=8)
    rows = [(f"JPEG before: {name}", entry, 0) for name, entry in found_["second compression"].items()]
    coding = found_["entropy coding"]["found against standard"]
    rows += [(CODINGS[entropy], entry, 1) for entropy, entry in coding.items()]
    forest(right, rows, "bytes at equal agreement against standard tables (%)", size=7)
    figure.savefig(OUT / "files.png")


if __name__ == "__main__":
    run_study(OUT / "files.json", CACHE, study, page)
