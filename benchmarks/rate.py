"""Every rate proxy against real bytes over 200 table sets, and how fast exact sizes are: makes results/rate/.

    python -m benchmarks.rate [--photos FOLDER] [--count 48] [--seed 0] [--out results/rate]

FOLDER defaults to ../shared/data/imagenet where that is present, else pieces of scikit-image's photographs are used.
Takes about six minutes on one core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.ticker import FixedLocator, NullFormatter
from PIL import Image
from scipy.stats import kendalltau
from torch import Tensor

from qtable.jpeg.calibration import calibrated
from qtable.jpeg.codec import RGB, Codec, Entropy
from qtable.jpeg.dct import coefficients, quantize
from qtable.jpeg.frame import Planes
from qtable.jpeg.header import read_header
from qtable.jpeg.proxies import PROXIES, WINDOW, Proxy, RunLength
from qtable.jpeg.size import exact_bytes
from qtable.jpeg.tables import QTables

Floats = npt.NDArray[np.float64]
HEIGHT, WIDTH = 256, 341
BAND = 0.16
"""Half-width of the band of sizes around the median in which proxies have to rank tables."""
ENTROPIES: tuple[Entropy, ...] = ("optimized", "standard")
COLOURS = {"Annex K": "k", "sorted": "C0", "perturbed": "C2", "flat": "C1", "jagged": "C3"}


# ---- photos and tables ----------------------------------------------------------------------------------------


def photos_of(folder: Path | None, count: int) -> list[RGB]:
    """The first `count` photos of WIDTH x HEIGHT in a folder, or as many pieces of scikit-image's photographs."""
    if folder is not None:
        opened = (Image.open(path) for path in sorted(folder.glob("*.webp")))
        fitting = (np.asarray(photo.convert("RGB")) for photo in opened if photo.size == (WIDTH, HEIGHT))
        return list(itertools.islice(fitting, count))
    from skimage import data

    whole = [getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket", "retina")]
    pieces = [
        np.ascontiguousarray(photo[y : y + HEIGHT, x : x + WIDTH])
        for photo in whole
        for y in range(0, photo.shape[0] - HEIGHT + 1, 40)
        for x in range(0, photo.shape[1] - WIDTH + 1, 80)
    ]
    return pieces[:: max(1, len(pieces) // count)][:count]


def sorted_random(rng: np.random.Generator) -> QTables:
    """One table for all components, as Li, De Sa & Sampson draw them (ReCoML 2020; cucapra/ImageNetV2, ratio.py)."""
    t = np.sort(np.abs(rng.standard_normal(64)))
    low, high = rng.integers(0, 35), rng.integers(50, 150)
    steps = np.clip(np.round(t / t.max() * (high - low) + low), low, high)
    return QTables.from_zigzag(np.clip(np.round(steps * rng.uniform(0.5, 1.5)), 1, 255)[None])


def perturbed(rng: np.random.Generator) -> QTables:
    """Annex K of quality 15..89 times log-normal noise, sigma 0.5."""
    values = QTables.standard(int(rng.integers(15, 90))).values
    return QTables(np.clip(np.round(values * np.exp(rng.normal(0, 0.5, values.shape))), 1, 255))


def jagged(rng: np.random.Generator) -> QTables:
    """Two tables of unsorted |N(0, 1)|, the largest entry 40..255."""
    t = np.abs(rng.standard_normal((2, 8, 8)))
    return QTables(np.clip(np.round(t / t.max((1, 2), keepdims=True) * rng.uniform(40, 255)), 1, 255))


def family(rng: np.random.Generator) -> list[tuple[str, QTables]]:
    """(kind, tables): 200 sets, as many of each kind as in the measurement that methods.md quotes."""
    return [
        *(("Annex K", QTables.standard(quality)) for quality in range(8, 97, 5)),
        *(("sorted", sorted_random(rng)) for _ in range(80)),
        *(("perturbed", perturbed(rng)) for _ in range(60)),
        *(("flat", QTables.flat(step)) for step in (4, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50, 64)),
        *(("jagged", jagged(rng)) for _ in range(30)),
    ]


def steps_of(tables: QTables) -> Tensor:
    """float [3, 8, 8]."""
    return torch.from_numpy(tables.components()).float()


# ---- measurements ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """Of a proxy with real bytes over the family, after one affine fit to all of it; errors relative, in percent."""

    r2: float
    tau_in_band: float
    mean_error: float
    worst_error: float
    mean_error_log: float  # after a log-log fit


def agreement(proxy: Proxy, estimates: Floats, real: Floats) -> Agreement:
    """estimates, real: [k] means over the photos."""
    predicted = calibrated(proxy, estimates, real).to_bytes(torch.from_numpy(estimates)).numpy()
    logarithmic = calibrated(proxy, estimates, real, log=True).to_bytes(torch.from_numpy(estimates)).numpy()
    band = np.abs(real / np.median(real) - 1) <= BAND
    error = np.abs(predicted / real - 1)
    return Agreement(
        r2=float(1 - ((predicted - real) ** 2).sum() / ((real - real.mean()) ** 2).sum()),
        tau_in_band=float(kendalltau(estimates[band], real[band]).statistic),
        mean_error=float(100 * error.mean()),
        worst_error=float(100 * error.max()),
        mean_error_log=float(100 * np.abs(logarithmic / real - 1).mean()),
    )


def real_bytes(photos: list[RGB], tables: QTables, codec: Codec) -> tuple[float, float]:
    """Mean bytes of whole files, and of their scans alone."""
    files = [codec.encode(photo, tables) for photo in photos]
    return float(np.mean([len(f) for f in files])), float(np.mean([read_header(f).scan_bytes for f in files]))


def slopes_of_real_bytes(photos: list[RGB], tables: QTables, codec: Codec) -> Floats:
    """Mean bytes per change of log q, [128]: central differences of 12% in each luma and each chroma step."""
    base = tables.values.astype(int)
    slopes = np.zeros(base.shape)
    for index in np.ndindex(base.shape):
        ends = []
        for sign in (-1, 1):
            moved = base.copy()
            step = int(base[index])
            moved[index] = min(255, max(1, step + sign * max(1, round(step * 0.12))))
            ends.append((real_bytes(photos, QTables(moved), codec)[0], np.log(moved[index])))
        slopes[index] = (ends[1][0] - ends[0][0]) / (ends[1][1] - ends[0][1])
    return slopes.ravel()


def slopes_of(proxy: Proxy, planes: Planes, tables: QTables) -> Floats:
    """The proxy's gradient with respect to log q, / 8, [128]."""
    logs = torch.tensor(tables.values, dtype=torch.float32).log().requires_grad_()
    (gradient,) = torch.autograd.grad(proxy(planes, logs.exp()[[0, 1, 1]]).mean() / 8, logs)
    return gradient.double().numpy().ravel()


def cosine(a: Floats, b: Floats) -> float:
    """Of the angle between two gradients."""
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def per_second(work: Callable[[], object], photos: int, repeats: int = 5) -> float:
    """Photos per second of processor time in the fastest of `repeats` runs."""
    work()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return photos / min(spent)


def speeds(photos: list[RGB]) -> list[dict[str, object]]:
    """Photos per second on one thread, batches of 16, 4:2:0: exact sizes, libjpeg-turbo's encoder, RunLength."""
    photos = photos[:16]
    planes = coefficients(torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2), "4:2:0")
    rows: list[dict[str, object]] = []
    for quality in (15, 50, 90):
        tables = QTables.standard(quality)
        levels = quantize(planes, tables)
        for entropy in ENTROPIES:
            codec = Codec("4:2:0", entropy)
            proxy = RunLength(codec)
            jobs: dict[str, Callable[[], object]] = {
                "exact_bytes": lambda levels=levels, codec=codec: exact_bytes(levels, codec),  # type: ignore[misc]
                "Codec.encode": lambda tables=tables, codec=codec: real_bytes(photos, tables, codec),  # type: ignore[misc]
                "RunLength with gradient": lambda proxy=proxy, tables=tables: slopes_of(proxy, planes, tables),  # type: ignore[misc]
            }
            row: dict[str, object] = {"quality": quality, "entropy": entropy}
            rows.append(row | {name: round(per_second(job, len(photos))) for name, job in jobs.items()})
    return rows


# ---- report ---------------------------------------------------------------------------------------------------


def scatter(
    kinds: list[str], estimates: dict[str, Floats], real: Floats, results: dict[str, Agreement], path: Path
) -> None:
    """One panel a proxy: calibrated estimate against real bytes, by kind of table."""
    figure, panels = plt.subplots(2, 4, figsize=(15, 7.6), layout="constrained", sharex=True, sharey=True)
    span = real.min() * 0.7 / 1000, real.max() * 1.4 / 1000
    for panel, (name, x) in zip(panels.flat, estimates.items(), strict=False):
        predicted = calibrated(PROXIES[name], x, real).to_bytes(torch.from_numpy(x)).numpy() / 1000
        for kind, colour in COLOURS.items():
            own = np.array([k == kind for k in kinds])
            panel.scatter(real[own] / 1000, predicted[own], s=12, c=colour, label=kind, alpha=0.7, linewidths=0)
        panel.plot(span, span, c="0.6", lw=0.8, zorder=0)
        a = results[name]
        panel.set_title(f"{name}\nR² {a.r2:.5f}, τ {a.tau_in_band:.3f}, error {a.mean_error:.2f}%", fontsize=10)
        panel.set(xscale="log", yscale="log", xlim=span, ylim=span)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(FixedLocator([5, 10, 20, 40]))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        panel.tick_params(labelbottom=True, labelleft=True)
    panels.flat[-1].axis("off")
    panels.flat[-1].legend(*panels.flat[0].get_legend_handles_labels(), title="tables", loc="center", markerscale=2)
    figure.supxlabel("real file, mean kB")
    figure.supylabel("affine fit of the proxy, kB")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def markdown(rows: list[list[str]]) -> str:
    """A table; the first row is its head."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    shared = Path(__file__).resolve().parents[2] / "shared" / "data" / "imagenet"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=shared if shared.is_dir() else None)
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/rate"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)

    photos = photos_of(arguments.photos, arguments.count)
    planes = coefficients(torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2), "4:2:0")
    few = Planes(*(plane[:16] for plane in planes))
    rng = np.random.default_rng(arguments.seed)
    kinds, tables = (list(column) for column in zip(*family(rng), strict=True))
    probes = {"Annex K, q50": QTables.standard(), "flat 40": QTables(np.full((2, 8, 8), 40)), "jagged": jagged(rng)}

    def over_family(proxy: Proxy) -> Floats:
        return np.array([proxy(planes, steps_of(t)).mean().item() for t in tables])

    shape_free = {name: over_family(proxy) for name, proxy in PROXIES.items() if name != "run-length"}
    text, record = [INTRODUCTION.format(n=len(photos), k=len(tables), window=WINDOW, band=BAND)], []
    for entropy in ENTROPIES:
        codec = Codec("4:2:0", entropy)
        proxies: dict[str, Proxy] = PROXIES | {"run-length": RunLength(codec)}
        estimates = shape_free | {"run-length": over_family(proxies["run-length"])}
        files, scans = np.array([real_bytes(photos, t, codec) for t in tables]).T
        whole = {name: agreement(proxies[name], x, files) for name, x in estimates.items()}
        alone = {name: agreement(proxies[name], x, scans) for name, x in estimates.items()}
        truth = {name: slopes_of_real_bytes(photos[:16], t, codec) for name, t in probes.items()}
        angles = {
            name: {probe: cosine(slopes_of(proxy, few, probes[probe]), slope) for probe, slope in truth.items()}
            for name, proxy in proxies.items()
        }
        scatter(kinds, estimates, files, whole, arguments.out / f"{entropy}.png")
        rows = [
            ["proxy", "R²", "τ in band", "mean error", "worst", "log-log fit", "scan: R²", "τ", "mean error", *probes]
        ]
        for name, a in whole.items():
            s = alone[name]
            rows.append([name, f"{a.r2:.5f}", f"{a.tau_in_band:.3f}", f"{a.mean_error:.2f}%", f"{a.worst_error:.1f}%"])
            rows[-1] += [f"{a.mean_error_log:.2f}%", f"{s.r2:.5f}", f"{s.tau_in_band:.3f}", f"{s.mean_error:.2f}%"]
            rows[-1] += [f"{angle:.3f}" for angle in angles[name].values()]
        in_band = int((np.abs(files / np.median(files) - 1) <= BAND).sum())
        text.append(
            f"\n## {entropy.capitalize()} Huffman tables: {files.min():.0f} to {files.max():.0f} bytes a file\n"
        )
        text.append(f"{in_band} table sets lie in the band around {np.median(files):.0f} bytes.\n\n{markdown(rows)}")
        text.append(f"\n![{entropy}]({entropy}.png)\n")
        record.append(
            {
                "codec": codec.to_dict(),
                "file_bytes": files.round(2).tolist(),
                "scan_bytes": scans.round(2).tolist(),
                "estimates": {name: [float(f"{v:.7g}") for v in x] for name, x in estimates.items()},
                "agreement_file": {name: asdict(a) for name, a in whole.items()},
                "agreement_scan": {name: asdict(a) for name, a in alone.items()},
                "gradient_cosine": angles,
            }
        )
    pace = speeds(photos)
    text.append("\n## Photos per second, one thread\n\n")
    text.append(f"{WIDTH} x {HEIGHT}, 4:2:0, batches of 16, processor time on a shared machine.\n\n")
    text.append(markdown([list(pace[0]), *([str(value) for value in row.values()] for row in pace)]))
    (arguments.out / "README.md").write_text("".join(text), encoding="utf-8")
    source = "scikit-image" if arguments.photos is None else arguments.photos.name
    setting = {"command": "python -m benchmarks.rate", "photos": source, "count": len(photos), "seed": arguments.seed}
    sets = [{"kind": kind, "digest": t.digest()[:16], "count": t.count} for kind, t in zip(kinds, tables, strict=True)]
    result = {**setting, "size": [HEIGHT, WIDTH], "window": WINDOW, "tables": sets, "results": record, "speed": pace}
    (arguments.out / "rate.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    print("".join(text))


INTRODUCTION = """# Rate proxies against real bytes

Made by `python -m benchmarks.rate`: {n} photos of 341 x 256, 4:2:0, {k} table sets (18 Annex K qualities, 80 sorted
random, 60 perturbed Annex K, 12 flat, 30 jagged random). Real bytes are means over the photos of files that
libjpeg-turbo wrote; a proxy's estimate is its mean over the same photos. Each proxy has **one** affine fit for the
whole family (the column "log-log fit" has the mean error of a logarithmic one instead). Errors are relative. τ is
Kendall's, among the sets within {band:.0%} of the median size: can the proxy rank tables of equal size? Whole files
first, then scans alone. Sorted and flat sets have one table, the others two: 69 bytes of a file that no proxy sees.

The last three columns: cosine between the proxy's gradient over the 128 log steps and central differences of real bytes
(16 photos, steps moved by 12%) at three table sets. 1/L1 is the lab notebook's regularizer, L1 its plot of April 12.
`run-length` measures its statistics anew at each set, as training does at each step; window {window}.
"""

if __name__ == "__main__":
    main()
