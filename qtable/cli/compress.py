"""`qtable compress`: a folder or tar of photos written anew with given tables."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
import typer

from qtable.cli.common import say
from qtable.cli.console import progress_watch
from qtable.cli.lending import models_to_lend
from qtable.cli.options import (
    AsJson,
    Cluster,
    Device,
    EntropyOption,
    Seed,
    SeveralModels,
    SubsamplingOption,
    TablesOption,
)
from qtable.codecs.plain import open_coder
from qtable.compress import MetadataPolicy, Recipe, Selection, Summary, check_apart, compress, processes, sample
from qtable.jpeg.codec import Codec
from qtable.measure.cluster import ClusterError, connect
from qtable.measure.front import interval, resamples
from qtable.measure.summary import RESAMPLES, percent
from qtable.photos.opening import MAX_PIXELS
from qtable.text import printable

Source = Annotated[
    str,
    typer.Argument(metavar="SRC", help="Folder of photos and .tar files, or a .tar file; a path or address (s3://)."),
]
Target = Annotated[
    str, typer.Argument(metavar="DST", help="Folder to write, a path or address; the same command continues.")
]
Metadata = Annotated[
    MetadataPolicy, typer.Option(help="keep: copy EXIF, ICC profile, XMP; strip: copy none, turn photos upright.")
]
SkipLarger = Annotated[
    bool, typer.Option("--skip-larger", help="Keep a JPEG as it is where it would not become smaller.")
]
MaxPixels = Annotated[int, typer.Option(help="Skip photos with more pixels.")]
Include = Annotated[
    list[str] | None, typer.Option(metavar="PATTERN", help="Compress only photos whose path matches; may be repeated.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Copy what matches as it is; may be repeated."),
]
Workers = Annotated[int | None, typer.Option(help="Processes. \\[default: one for each core]")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Estimate from a sample what would be saved.")]
SampleSize = Annotated[int, typer.Option("--sample", help="Photos that --dry-run tries.")]


def compress_command(
    source: Source,
    target: Target,
    tables: TablesOption,
    model: SeveralModels = None,
    device: Device = "cpu",
    subsampling: SubsamplingOption = "4:2:0",
    entropy: EntropyOption = "optimized",
    metadata: Metadata = "keep",
    skip_larger: SkipLarger = False,
    max_pixels: MaxPixels = MAX_PIXELS,
    include: Include = None,
    exclude: Exclude = None,
    workers: Workers = None,
    cluster: Cluster = None,
    dry_run: DryRun = False,
    sample_size: SampleSize = 100,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write photos anew with these tables into another folder; the originals stay as they are."""
    coder = open_coder(tables, Codec(subsampling, entropy))
    selection = Selection(tuple(include or ()), tuple(exclude or ()))
    if dry_run:
        check_apart(source, target)
        models_to_lend([coder], model, device, "--model")
        _estimate(source, Recipe(coder, metadata, skip_larger, max_pixels), selection, sample_size, seed, as_json)
        return
    if workers is not None and cluster is not None:
        raise ValueError("--cluster has its own workers; leave --workers out")
    try:
        with ExitStack() as stack:
            executor, count = None, (os.cpu_count() or 1) if workers is None else workers
            if cluster is not None:
                executor, count = stack.enter_context(_cluster(cluster))
            elif count > 1:
                executor = stack.enter_context(processes(count))
            models = models_to_lend([coder], model, device, "--model")  # no network computes before there are workers
            watch = stack.enter_context(progress_watch())
            summary = compress(
                source,
                target,
                coder,
                models=models,
                metadata=metadata,
                skip_larger=skip_larger,
                max_pixels=max_pixels,
                selection=selection,
                workers=count,
                executor=executor,
                progress=lambda done, total: watch("compressing files", done, total, ""),
            )
    except KeyboardInterrupt:
        say(f"qtable: interrupted; what is in {target} is whole, and the same command continues")
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(asdict(summary) | {"manifest": str(summary.manifest), "change": _change(summary)}))
    else:
        print(_sentence(summary))


@contextmanager
def _cluster(address: str) -> Iterator[tuple[Executor, int]]:
    """An executor on a Dask cluster, and how many threads it has."""
    with connect(address) as client:
        from distributed import KilledWorker

        try:
            yield client.get_executor(pure=False), max(1, sum(client.nthreads().values()))
        except KilledWorker as error:
            raise ClusterError(f"several workers died during the same work: {str(error).splitlines()[0]}") from None


def _change(summary: Summary) -> float | None:
    """Of the bytes, as a fraction: -0.2 = 20% fewer."""
    return summary.bytes_after / summary.bytes_before - 1 if summary.bytes_before else None


def _sentence(summary: Summary) -> str:
    """What was done, for people."""
    change = _change(summary)
    parts = [
        f"{_count(summary.photos, 'photo')}: {_size(summary.bytes_before)} -> {_size(summary.bytes_after)}"
        + (f" ({percent(change)})" if change is not None else "")
    ]
    if summary.renamed:
        parts.append(f"{summary.renamed:,} of them renamed to .jpg")
    if summary.kept:
        parts.append(f"{summary.kept:,} of them kept as they were")
    if summary.doubtful:
        parts.append(f"{summary.doubtful:,} of them named like label maps, with the pixels of photos")
    if summary.label_maps:
        alone = f" ({summary.by_pixels:,} known by their pixels alone)" if summary.by_pixels else ""
        parts.append(f"kept as label maps: {summary.label_maps:,}{alone}")
    if summary.lists:
        parts.append(f"the names in {_count(summary.lists, 'list')} follow the photos")
    if summary.copied:
        excluded = f" ({summary.excluded:,} excluded)" if summary.excluded else ""
        parts.append(f"{_count(summary.copied, 'other file')} copied{excluded}")
    if summary.skipped:
        parts.append(f"skipped {_reasons(summary.skipped)}")
    if summary.left:
        parts.append(f"{_count(summary.left, 'output')} left whose source is gone")
    return "; ".join(parts) + f". Manifest: {printable(str(summary.manifest))}"


def _estimate(source: str, recipe: Recipe, selection: Selection, count: int, seed: int, as_json: bool) -> None:
    """Say what a sample lets expect: the ratio of the sums of bytes, with a bootstrap interval."""
    rng = np.random.default_rng(seed)
    with progress_watch() as watch:
        drawn = sample(
            source, recipe, count, rng, lambda done, total: watch("trying photos", done, total, ""), selection
        )
    others = "".join(
        [
            f"; of the sample would stay as label maps: {drawn.label_maps:,}" if drawn.label_maps else "",
            f"; of the sample would be skipped {_reasons(drawn.skipped)}" if drawn.skipped else "",
        ]
    )
    if not len(drawn.before):
        raise ValueError(f"{source}: nothing to estimate from{others}")
    draws = np.array(list(resamples(len(drawn.before), RESAMPLES, rng)))
    change = float(drawn.after.sum() / drawn.before.sum() - 1)
    low, high = interval(drawn.after[draws].sum(axis=1) / drawn.before[draws].sum(axis=1) - 1)
    result: dict[str, Any] = {
        "estimate": True,
        "photos": drawn.photos,
        "bytes_before": drawn.bytes,
        "bytes_after": round(drawn.bytes * (1 + change)),
        "change": change,
        "change_ci": [low, high],
        "sample": len(drawn.before),
        "label_maps": drawn.label_maps,
        "skipped": drawn.skipped,
    }
    if as_json:
        print(json.dumps(result))
        return
    print(
        f"An estimate from {_count(len(drawn.before), 'photo')}: {_count(drawn.photos, 'photo')},"
        f" {_size(drawn.bytes)} -> about {_size(result['bytes_after'])},"
        f" {percent(change)} [95% interval {percent(low)}, {percent(high)}]"
        f"{others}. Nothing was written."
    )


def _reasons(skipped: dict[str, int]) -> str:
    return ", ".join(f"{number:,} ({reason})" for reason, number in skipped.items())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _size(number: float) -> str:
    """Decimal units: 12.3 MB."""
    units = iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while number >= 999.95 and unit != "TB":
        number, unit = number / 1000, next(units)
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
