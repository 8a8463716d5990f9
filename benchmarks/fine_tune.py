"""Tables and a small ImageNet network, trained together on 151 photos: `python -m benchmarks.fine_tune`.

The 2 x 2 of `benchmarks.joint` for MobileNetV1 0.25/128 on the photos of ../shared, with three seeds: trained on `fit`,
validated on `search`, tested with real files of `test`. Runs are kept in runs/fine-tune, so an interrupted study
continues. Needs ../shared. `--page` writes the page and the picture anew from fine-tune.json.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.joint import CELLS, Cell, picture, trained_in, two_by_two, two_by_two_lines
from benchmarks.study import SHARED, run_study, write_page
from qtable.photos.sets import ImageSet
from qtable.train.recipe import Recipe
from search.joint import Family

RUNS: Final = Path("runs/fine-tune")
OUT: Final = Path("results/fine-tune")
NETWORK: Final = "mobilenet_v1_025_128"
FAMILY: Final = Family(points=5, largest=50, smallest=8)
RECIPE: Final = Recipe(steps=80, batch=50, table_rate=0.005, network_rate=3e-5, every=10, patience=3)


def study() -> dict[str, Any]:
    images = ImageSet.open(SHARED / "data/imagenet")

    def made(out: Path, cell: Cell, seed: int) -> dict[str, Any]:
        learns, start, count = cell
        family, recipe = replace(FAMILY, start=start), replace(RECIPE, learn=learns, seed=seed)
        model = f"{SHARED}/models/classifiers.py:{NETWORK}"
        return trained_in(out, images, model, "agreement", family, recipe, count)

    cells = {name: cell for name, cell in CELLS.items() if cell[2] == 2}
    photos = {split: len(images[split]) for split in ("fit", "search", "test")}
    return {"photos": photos, **two_by_two(RUNS, cells, made)}


def page(found: dict[str, Any]) -> None:
    photos = found["photos"]
    lines = [
        "# Tables and a small ImageNet network, trained together",
        "",
        f"MobileNetV1 0.25/128, ImageNet photos (shorter side at most 256): trained on {photos['fit']}, validated on",
        f"{photos['search']}, tested on {photos['test']}; 4:2:0, real files of libjpeg-turbo, headers counted.",
        f"One network for {FAMILY.points} operating points, distilled from the untrained network's answers on the",
        f"uncompressed photos. At most {RECIPE.steps} steps of {RECIPE.batch} crops, the end after {RECIPE.patience}",
        f"validations ({RECIPE.every} steps apart) without gain, and the best of them taken; so with each cell. Change",
        "of bytes at equal agreement (with the untrained network's answer on the uncompressed photo), BD-rate, mean",
        "over the seeds, with 95% paired intervals over the photos. `python -m benchmarks.fine_tune` remakes this",
        "page.",
        "",
        *two_by_two_lines(found),
    ]
    write_page(OUT, lines)
    picture(found, OUT, "agreement", f"ImageNet photos, {NETWORK}, seed 0")


if __name__ == "__main__":
    run_study(OUT / "fine-tune.json", RUNS, study, page)
