"""Trees and tars of photos written anew: nothing lost, nothing half-written, the originals untouched."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from qtable import compress as module
from qtable.cli import main
from qtable.cli.console import console
from qtable.codecs.plain import TableCoder
from qtable.compress import (
    JOURNAL,
    MANIFEST,
    PART,
    CompressError,
    Entry,
    Job,
    Journal,
    Recipe,
    Row,
    Skip,
    Summary,
    compress,
    processes,
    sample,
    target_names,
)
from qtable.compress.journal import output
from qtable.compress.sources import Place, tells_case
from qtable.jpeg.codec import RGB, Codec, decode
from qtable.jpeg.header import read_header
from qtable.jpeg.tables import QTables
from qtable.photos.metadata import Metadata, read_metadata, upright, with_metadata
from qtable.photos.opening import MAX_PIXELS
from qtable.storage import Folder, Store

TABLES, CODEC = QTables.standard(40), Codec("4:2:2", "standard")
CODER = TableCoder(TABLES, CODEC)
RECIPE = Recipe(CODER)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif_of(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Maker"
    return exif.tobytes()


def noise(seed: int, height: int = 40, width: int = 56) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(128, 40, (height // 4, width // 4, 3)).repeat(4, 0).repeat(4, 1)
    return Image.fromarray((coarse + rng.normal(0, 6, coarse.shape)).clip(0, 255).astype(np.uint8))


def files(folder: Path) -> dict[str, bytes]:
    """Every plain file below a folder by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / MANIFEST).read_bytes().splitlines()]


def run(source: Place, target: Place, **options: Any) -> Summary:
    return compress(source, target, CODER, **options)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A tree with photos in several formats, other files, and one photo of each kind that cannot be kept."""
    root = tmp_path / "src"
    for name in ("train/cat", "train/dog", "test"):
        (root / name).mkdir(parents=True)
    noise(0).save(root / "train/cat/0.jpg", quality=90)
    noise(1).save(root / "train/cat/1.png")
    noise(2).convert("L").save(root / "train/dog/2.webp", lossless=True)
    noise(3).save(root / "train/dog/3.JPEG", "JPEG")
    noise(4).save(root / "test/4.bmp")
    (root / "labels.csv").write_text("path,label\ntrain/cat/1.png,0\n")
    (root / "test/notes.json").write_text("{}")
    (root / "test/cut.jpg").write_bytes(encoded(noise(5), "JPEG")[:300])
    (root / "test/empty.png").write_bytes(b"")
    return root


# ---- metadata -------------------------------------------------------------------------------------------------


def test_metadata_is_read_back_by_pillow_and_changes_no_pixel(photo: RGB) -> None:
    profile = SRGB + bytes(range(256)) * 600  # three segments
    bare = CODEC.encode(photo, TABLES)
    jpeg = with_metadata(bare, Metadata(exif_of(8).removeprefix(b"Exif\0\0"), profile, b"<x:xmpmeta/>"))
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.getexif()[ExifTags.Base.Make] == "Maker"
        assert image.getexif()[ExifTags.Base.Orientation] == 8
        assert image.info["icc_profile"] == profile
        assert image.info["xmp"] == b"<x:xmpmeta/>"
        assert jpeg[2:4] == b"\xff\xe0"  # the JFIF header is still the first segment
    assert np.array_equal(decode(jpeg), decode(bare))
    assert read_header(jpeg).tables == TABLES
    assert with_metadata(bare, Metadata()) == bare


@pytest.mark.parametrize("size", [0, 1, 65519, 65520, 3 * 65519])
def test_metadata_round_trips(photo: RGB, size: int) -> None:
    metadata = Metadata(b"II*\0" + bytes(20), bytes(i % 251 for i in range(size)), b"<xmp/>")
    jpeg = with_metadata(CODEC.encode(photo, TABLES), metadata)
    assert read_metadata(jpeg) == metadata
    assert jpeg.count(b"ICC_PROFILE\0") == -(-size // 65519)


def test_a_profile_without_one_of_its_chunks_is_none(photo: RGB) -> None:
    jpeg = with_metadata(CODEC.encode(photo, TABLES), Metadata(icc=bytes(70000)))
    second = jpeg.index(b"ICC_PROFILE\0\x02\x02") - 4
    assert read_metadata(jpeg[:second] + jpeg[second + 18 + 70000 - 65519 :]).icc == b""


@pytest.mark.parametrize(
    "metadata", [Metadata(exif=bytes(65528)), Metadata(xmp=bytes(65505)), Metadata(icc=bytes(1 << 25))]
)
def test_metadata_that_does_not_fit_is_refused(photo: RGB, metadata: Metadata) -> None:
    with pytest.raises(ValueError, match="bytes; a"):
        with_metadata(CODEC.encode(photo, TABLES), metadata)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_pillows_transposition(photo: RGB, orientation: int) -> None:
    image = Image.fromarray(photo)
    image.getexif()[ExifTags.Base.Orientation] = orientation
    assert np.array_equal(upright(photo, orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_keep_carries_metadata_over_and_leaves_the_pixels_as_stored(kind: str) -> None:
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>")
    data = encoded(noise(0), kind, exif=exif_of(6), icc_profile=SRGB, xmp=b"<x:xmpmeta/>", **options)
    made, action, note = RECIPE(data)
    assert (action, note) == ("compressed", None)
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(made)) as after:
        before.load()
        assert after.info["icc_profile"] == SRGB
        assert after.getexif()[ExifTags.Base.Make] == "Maker"
        if kind != "TIFF":  # Pillow's reader turns those upright
            assert after.getexif()[ExifTags.Base.Orientation] == 6
            assert after.info["xmp"] == b"<x:xmpmeta/>"
        shown = [np.asarray(ImageOps.exif_transpose(image)) for image in (before, after)]
        expected = CODEC.decode(CODEC.encode(np.asarray(before), TABLES))
        assert np.array_equal(np.asarray(after), expected)
        assert shown[0].shape == shown[1].shape


def test_a_tiffs_own_tags_become_exif() -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = "Maker"
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "2020:02:02 20:20:20"}
    tags[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    made, _, _ = RECIPE(encoded(noise(0), "TIFF", exif=tags.tobytes()))
    with Image.open(io.BytesIO(made)) as image:
        exif = image.getexif()
        assert set(exif) == {ExifTags.Base.Make, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
        assert exif.get_ifd(ExifTags.IFD.Exif) == {ExifTags.Base.DateTimeOriginal: "2020:02:02 20:20:20"}
        assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLatitudeRef: "N"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_strip_drops_metadata_and_the_photo_looks_the_same(kind: str) -> None:
    data = encoded(noise(0), kind, exif=exif_of(6), icc_profile=SRGB)
    made, _, _ = Recipe(CODER, metadata="strip")(data)
    assert read_metadata(made) == Metadata()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        seen = np.asarray(ImageOps.exif_transpose(image))
    assert seen.shape == (56, 40, 3)
    assert np.array_equal(decode(made), CODEC.decode(CODEC.encode(seen, TABLES)))


def test_a_grey_profile_is_left_out_and_the_manifest_says_so() -> None:
    grey = SRGB[:16] + b"GRAY" + SRGB[20:]
    made, action, note = RECIPE(encoded(noise(0).convert("L"), "JPEG", icc_profile=grey))
    assert action == "compressed"
    assert note is not None
    assert note.startswith("without its ICC")
    assert read_metadata(made).icc == b""


# ---- one photo ------------------------------------------------------------------------------------------------


def test_a_jpeg_is_requantized_from_its_pixels() -> None:
    data = encoded(noise(0), "JPEG", quality=95)
    made, _, _ = RECIPE(data)
    assert made == CODEC.encode(decode(data), TABLES)
    assert read_header(made).tables == TABLES
    assert read_header(made).subsampling == "4:2:2"


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA"])
def test_opaque_pictures_of_every_mode_are_kept(mode: str) -> None:
    image = noise(0).convert(mode)
    made, _, _ = RECIPE(encoded(image, "PNG"))
    assert made == CODEC.encode(np.asarray(image.convert("RGB")), TABLES)


def two_pictures(kind: str) -> bytes:
    return encoded(noise(0), kind, save_all=True, append_images=[noise(1)])


def transparent(mode: str) -> bytes:
    image = noise(0).convert("RGBA")
    image.putpixel((3, 4), (1, 2, 3, 254))
    return encoded(image.convert(mode), "PNG")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", "empty file"),
        (lambda: b"no photo", "unreadable: not a photo (JPEG, PNG, WEBP, BMP, TIFF, PPM, GIF)"),
        (lambda: encoded(noise(0), "JPEG")[:-20], "unreadable: a truncated JPEG file"),
        (lambda: encoded(noise(0), "JPEG")[:30], "unreadable: segment 0xdb at byte 21 has length 67"),
        (lambda: encoded(noise(0), "PNG")[:400], "unreadable: "),
        (lambda: encoded(noise(0), "JPEG") + bytes(100), "bytes after the picture's end"),
        (lambda: encoded(noise(0).convert("CMYK"), "JPEG"), "colour mode CMYK"),
        (lambda: encoded(noise(0).convert("CMYK"), "TIFF"), "colour mode CMYK"),
        (lambda: encoded(Image.new("LAB", (8, 8)), "TIFF"), "colour mode LAB"),
        (lambda: transparent("RGBA"), "transparency"),
        (lambda: transparent("LA"), "transparency"),
        (lambda: encoded(noise(0).quantize(8), "PNG", transparency=0), "transparency"),
        (lambda: encoded(noise(0), "PNG", transparency=noise(0).getpixel((0, 0))), "transparency"),
        (lambda: encoded(Image.new("F", (8, 8)), "TIFF"), "sample type float32 is not read"),
        (lambda: encoded(Image.new("I", (8, 8)), "TIFF"), "sample type int32 is not read"),
        (lambda: two_pictures("PNG"), "several pictures"),
        (lambda: two_pictures("WEBP"), "several pictures"),
        (lambda: two_pictures("TIFF"), "several pictures"),
        (lambda: two_pictures("GIF"), "several pictures"),
        (lambda: two_pictures("MPO"), "several pictures"),
        (lambda: encoded(Image.new("1", (65501, 1)), "PNG"), "too large: 65501 x 1 pixels"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unreadable: not a photo"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_faithfully_is_skipped_with_its_reason(make: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(Skip) as skip:
        RECIPE(make())
    assert str(skip.value).startswith(reason)
    assert " at 0x" not in str(skip.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_limit_of_pixels_is_inclusive(kind: str) -> None:
    data = encoded(noise(0), kind)
    assert Recipe(CODER, max_pixels=40 * 56)(data)
    with pytest.raises(Skip, match="too large: 56 x 40 pixels"):
        Recipe(CODER, max_pixels=40 * 56 - 1)(data)


def test_a_limit_above_pillows_own_works_and_pillow_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert RECIPE(encoded(noise(0), "PNG"))
    assert Image.MAX_IMAGE_PIXELS == 100


def test_skip_larger_keeps_a_jpeg_that_would_grow() -> None:
    recipe = Recipe(TableCoder(QTables.standard(95), CODEC), skip_larger=True)
    coarse = encoded(noise(0), "JPEG", quality=10)
    assert recipe(coarse) == (coarse, "kept", None)
    assert recipe(encoded(noise(0), "PNG"))[1] == "compressed"
    assert Recipe(TableCoder(QTables.standard(95), CODEC))(coarse)[1] == "compressed"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metadata": "some"}, "metadata 'some' is unknown; allowed: keep, strip"),
        ({"max_pixels": 0}, "at most 0 pixels; allowed: 1 or more"),
        ({"skip_larger": True, "metadata": "strip"}, "skip-larger or strip, not both"),
    ],
)
def test_recipes_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(CODER, **options)


# ---- names and trees ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.png", "b.jpeg", "c.JPG", "d.csv"], ["a.jpg", "b.jpeg", "c.JPG", "d.csv"]),
        (["x/a.bmp", "x/a.png", "y/a.png"], ["x/a.jpg", "x/a.png.jpg", "y/a.jpg"]),
        (["a.bmp", "a.jpg"], ["a.bmp.jpg", "a.jpg"]),  # JPEG files keep their names
        (["a.bmp", "a.jpg", "a.bmp.jpg"], ["a.bmp.jpg.jpg", "a.jpg", "a.bmp.jpg"]),
        (["a.jpg/b.png", "a.png"], ["a.jpg/b.jpg", "a.png.jpg"]),  # a folder has the name
        (["./a.png", "a.jpg"], ["./a.png.jpg", "a.jpg"]),
        ([".png", "a.b.TIFF"], [".png", "a.b.jpg"]),
    ],
)
def test_target_names(names: list[str], expected: list[str]) -> None:
    assert target_names(names) == dict(zip(names, expected, strict=True))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_tree_is_written_anew_and_the_originals_stay(small: Path, tmp_path: Path, workers: int) -> None:
    before = files(small)
    seen: list[tuple[int, int]] = []
    summary = run(small, tmp_path / "dst", workers=workers, progress=lambda *now: seen.append(now))
    assert files(small) == before
    made = files(tmp_path / "dst")
    assert set(made) == {
        "train/cat/0.jpg", "train/cat/1.jpg", "train/dog/2.jpg", "train/dog/3.JPEG", "test/4.jpg",
        "labels.csv", "test/notes.json", MANIFEST, JOURNAL,
    }  # fmt: skip
    assert made["labels.csv"] == b"path,label\ntrain/cat/1.jpg,0\n"
    assert made["train/cat/0.jpg"] == RECIPE(before["train/cat/0.jpg"])[0]
    assert seen[-1] == (9, 9)
    listed = rows(tmp_path / "dst")
    assert [row["source"] for row in listed] == sorted(before)
    for row in listed:
        assert row["sha256_before"] == hashlib.sha256(before[row["source"]]).hexdigest()
        assert row["bytes_before"] == len(before[row["source"]])
        if row["action"] == "skipped":
            assert row["target"] is row["bytes_after"] is row["sha256_after"] is None
        else:
            assert row["sha256_after"] == hashlib.sha256(made[row["target"]]).hexdigest()
            assert row["bytes_after"] == len(made[row["target"]])
    photos = [row for row in listed if row["action"] == "compressed"]
    assert summary == Summary(
        photos=5,
        renamed=3,
        kept=0,
        label_maps=0,
        by_pixels=0,
        doubtful=0,
        lists=1,
        copied=1,
        excluded=0,
        bytes_before=sum(row["bytes_before"] for row in photos),
        bytes_after=sum(row["bytes_after"] for row in photos),
        skipped={"empty file": 1, "unreadable": 1},
        left=0,
        manifest=tmp_path / "dst" / MANIFEST,
    )


def test_links_pipes_and_odd_names(small: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    noise(9).save(tmp_path / "outside/secret.png")
    (small / "link.png").symlink_to(tmp_path / "outside/secret.png")
    (small / "folder").symlink_to(tmp_path / "outside")
    os.mkfifo(small / "pipe.png")
    (small / MANIFEST).write_text("theirs")
    (small / f"{PART}x.png").write_bytes(b"")
    odd = os.fsdecode(b"train/caf\xe9 \n.png")
    (small / odd).write_bytes((small / "train/cat/1.png").read_bytes())
    summary = run(small, tmp_path / "dst", workers=2)
    made = files(tmp_path / "dst")
    assert made[odd.removesuffix("png") + "jpg"] == made["train/cat/1.jpg"]
    assert not {name for name in made if "secret" in name or "link" in name}
    assert {k: v for k, v in summary.skipped.items() if k not in ("empty file", "unreadable")} == {
        "link": 2,
        "not a plain file": 1,
        "name needed by qtable": 2,
    }
    assert odd in [row["source"] for row in rows(tmp_path / "dst")]
    (tmp_path / "dst" / MANIFEST).read_bytes().decode("ascii")


@pytest.mark.parametrize("target", ["src", "src/deep/er", ".", "way"])
def test_source_and_target_lie_apart(small: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "way").symlink_to(small / "train")
    before = files(tmp_path)
    with pytest.raises(CompressError, match="must lie apart: the originals are never overwritten"):
        run(small, tmp_path / target)
    assert files(tmp_path) == before


def test_names_that_the_target_does_not_keep_apart_are_refused(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(0).save(small / "test/É.png")
    noise(1).save(small / "test/e\u0301.bmp")
    assert run(small, tmp_path / "apart").photos == 7
    assert tells_case(tmp_path)
    assert list(tmp_path.glob(PART + "*")) == []
    monkeypatch.setattr("qtable.compress.sources.tells_case", lambda folder: False)
    with pytest.raises(CompressError, match=r"dst does not tell 'test/e\u0301\.jpg' from 'test/É\.jpg'; choose"):
        run(small, tmp_path / "dst")
    (small / "test/É.png").unlink()
    assert run(small, tmp_path / "other").photos == 6


def test_a_target_with_other_files_is_refused(small: Path, tmp_path: Path) -> None:
    (tmp_path / "dst").mkdir()
    (tmp_path / "dst" / "mine.txt").write_text("mine")
    with pytest.raises(CompressError, match="holds other files"):
        run(small, tmp_path / "dst")
    with pytest.raises(CompressError, match="exists and is no folder"):
        run(small, tmp_path / "dst" / "mine.txt")
    assert files(tmp_path / "dst") == {"mine.txt": b"mine"}


@pytest.mark.parametrize("options", [{"metadata": "strip"}, {"skip_larger": True}, {"max_pixels": 9}])
def test_other_options_on_the_same_target_are_refused(small: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    run(small, tmp_path / "dst")
    before = files(tmp_path / "dst")
    with pytest.raises(CompressError, match=f"holds another run: its {next(iter(options))} is .*, now "):
        run(small, tmp_path / "dst", **options)
    with pytest.raises(CompressError, match=r"holds another run: its tables is '.*', now '.*'; choose another"):
        compress(small, tmp_path / "dst", TableCoder(QTables.standard(41), CODEC))
    with pytest.raises(CompressError, match="holds another run: its entropy is 'standard', now 'progressive'"):
        compress(small, tmp_path / "dst", TableCoder(TABLES, Codec("4:2:2", "progressive")))
    assert files(tmp_path / "dst") == before


def test_what_makes_a_run_another_is_written_as_ever(small: Path, tmp_path: Path) -> None:
    """So that the same command continues runs that earlier versions began."""
    run(small, tmp_path / "dst")
    identity = json.loads((tmp_path / "dst" / JOURNAL).read_bytes().splitlines()[0])["identity"]
    options = {"metadata": "keep", "skip_larger": False, "max_pixels": MAX_PIXELS}
    assert identity == {"tables": TABLES.digest()[:16], **CODEC.to_dict(), **options}


@pytest.mark.parametrize(
    ("source", "message"),
    [("nowhere", "no such folder or .tar file"), ("some", "no photos"), ("some/a.txt", "no such folder or .tar file")],
)
def test_sources_that_are_none(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "a.txt").write_text("text")
    with pytest.raises(CompressError, match=message):
        run(tmp_path / source, tmp_path / "dst")
    assert not (tmp_path / "dst").exists()


# ---- interruptions --------------------------------------------------------------------------------------------


def started(arguments: Sequence[str], at: int, then: Callable[[], object], words: str | Path = os.devnull) -> int:
    """The `qtable` command in a forked process group of its own; its id.

    It does `then` when it journals the file number `at`, while its workers go on. Both outputs go to the file `words`.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            for stream in (1, 2):
                os.dup2(os.open(words, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
            sys.stdout, sys.stderr = io.TextIOWrapper(io.FileIO(1, "w")), io.TextIOWrapper(io.FileIO(2, "w"))
            console.file = sys.stderr
            add, numbers = Journal.add, itertools.count(1)
            Journal.add = lambda self, entry: (next(numbers) == at and then(), add(self, entry))  # type: ignore[assignment, method-assign]
            main(arguments)
        except SystemExit as status:
            code = int(status.code or 0)
            sys.stderr.flush()
        finally:
            os._exit(code)
    return pid


def exit_code(pid: int) -> int:
    """Negative: the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 photos in five formats, some of them in a tar file, and 20 other files."""
    root = tmp_path_factory.mktemp("many")
    kinds = [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("bmp", "BMP"), ("tif", "TIFF")]
    photos = {kind: [encoded(noise(i), kind) for i in range(8)] for _, kind in kinds}
    for i in range(480):
        suffix, kind = kinds[i % 5]
        folder = root / f"{i % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"{i:03}.{suffix}").write_bytes(photos[kind][i % 8])
        if i % 24 == 0:
            (folder / f"{i:03}.txt").write_text(str(i))
    with tarfile.open(root / "shard.tar", "w") as tar:
        for i in range(20):
            member = tarfile.TarInfo(f"{i:03}.png")
            member.size = len(photos["PNG"][i % 8])
            tar.addfile(member, io.BytesIO(photos["PNG"][i % 8]))
    return root


OPTIONS = ("--tables", "quality:40", "--subsampling", "4:2:2", "--entropy", "standard")


@pytest.fixture(scope="module")
def whole(many: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run on the 500 photos leaves."""
    target = tmp_path_factory.mktemp("undisturbed") / "dst"
    assert run(many, target, workers=2).photos == 500
    return files(target)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_sigkill_at_any_moment_then_again_is_an_undisturbed_run(
    many: Path, whole: dict[str, bytes], tmp_path: Path, seed: int
) -> None:
    before, target = files(many), tmp_path / "dst"
    command = ["compress", str(many), str(target), *OPTIONS, "--workers", "2"]
    journaled = 0
    for goal in np.random.default_rng(seed).integers(1, 150, 3):
        pid = started(command, goal, lambda: os.killpg(0, signal.SIGKILL))
        assert exit_code(pid) == -signal.SIGKILL
        left = files(target)
        assert left.pop(JOURNAL).count(b"\n") >= journaled + goal
        journaled += goal - 1
        for name in left:
            assert name.startswith(PART) or left[name] == whole[name], name
    assert exit_code(started(command, 0, print)) == 0
    assert files(target) == whole
    assert files(many) == before


def test_no_worker_outlives_a_killed_parent(many: Path, tmp_path: Path) -> None:
    command = ["compress", str(many), str(tmp_path / "dst"), *OPTIONS, "--workers", "2"]
    pid = started(command, 40, lambda: os.kill(os.getpid(), signal.SIGKILL))  # it alone
    assert exit_code(pid) == -signal.SIGKILL

    def group() -> list[str]:
        stats = (path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat"))
        return [stat[0] for stat in stats if stat[2] == str(pid) and stat[0] != "Z"]

    until(lambda: not group(), 20)


def test_ctrl_c_says_that_the_same_command_continues(many: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    command = ["compress", str(many), str(tmp_path / "dst"), *OPTIONS, "--workers", "2"]
    pid = started(command, 40, lambda: os.killpg(0, signal.SIGINT), tmp_path / "words")  # as a terminal: workers, too
    assert exit_code(pid) == 130
    words = (tmp_path / "words").read_text()
    sentence = f"qtable: interrupted; what is in {tmp_path}/dst is whole, and the same command continues"
    assert words.splitlines()[-1] == sentence
    assert "Traceback" not in words
    run(many, tmp_path / "dst", workers=2)
    assert files(tmp_path / "dst") == whole


def test_a_worker_that_dies_ends_the_run_and_the_next_completes_it(
    many: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    def kill(done: int, total: int) -> None:
        if children := multiprocessing.active_children():
            os.kill(children[0].pid or 0, signal.SIGKILL)

    with pytest.raises(CompressError, match=r"a worker died \(out of memory\?\); what is in .* is whole, and the same"):
        run(many, tmp_path / "dst", workers=2, progress=kill)
    assert not multiprocessing.active_children()
    for name, data in files(tmp_path / "dst").items():
        assert name == JOURNAL or data == whole[name]
    run(many, tmp_path / "dst", workers=2)
    assert files(tmp_path / "dst") == whole


def test_when_a_worker_fails_the_others_end_before_what_is_unfinished_is_removed(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the workers are the caller's, and go on."""

    @contextmanager
    def slow(folder: Store, target: str) -> Iterator[io.BufferedIOBase]:
        if target == "1/001.jpg":
            time.sleep(0.2)
            raise OSError(errno.ENOSPC, "No space left on device")
        with output(folder, target) as file:
            yield file
            file.flush()
            time.sleep(0.02)

    monkeypatch.setattr("qtable.compress.worker.output", slow)
    with processes(2) as pool:
        with pytest.raises(CompressError, match="No space left on device"):
            run(many, tmp_path / "dst", workers=2, executor=pool)
        left = set(files(tmp_path / "dst"))
        time.sleep(0.2)
        assert set(files(tmp_path / "dst")) == left
        assert not any(PART in name for name in left)


def test_ctrl_c_is_for_the_parent_alone() -> None:
    with processes(2) as pool:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGINT)
        time.sleep(0.05)
        assert list(pool.map(abs, range(-9, 0))) == list(range(9, 0, -1))


def test_a_journal_on_a_full_disk(tmp_path: Path) -> None:
    with Journal(Folder(tmp_path), {}) as journal:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, journal._lines.descriptor)
        os.close(full)
        with pytest.raises(CompressError, match="No space left on device; what was written before is whole, and"):
            journal.add(Entry(1, 1, (Row("a", None, None, "skipped"),)))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root and the right to mount")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_or_read_only_disk(
    many: Path, whole: dict[str, bytes], disk: Path, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compress", str(many), str(disk / "dst"), *OPTIONS, "--workers", workers]
    for remount, message in (("ro", "Read-only file system"), ("rw", "No space left on device")):
        subprocess.run(["mount", "-o", f"remount,{remount}", disk], check=True)
        with pytest.raises(SystemExit) as status:
            main(command)
        assert status.value.code == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qtable: ")]
        assert len(lines) == 1
        assert message in lines[0]
    assert re.match(rf"qtable: {disk}/dst/(\d/\d{{3}}\.\w+|{JOURNAL}): ", lines[0])
    assert lines[0].endswith("; what was written before is whole, and the same command continues")
    left = {name: data for name, data in files(disk / "dst").items() if name != JOURNAL}
    assert 20 < len(left) < len(whole)
    assert all(data == whole[name] for name, data in left.items())
    subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
    succeeds(command)
    assert files(disk / "dst") == whole


def succeeds(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as status:
        main(arguments)
    assert status.value.code == 0


def test_a_second_run_at_the_same_time_is_refused(many: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()

    def tell_and_wait() -> None:
        os.write(writer, b"!")
        signal.pause()

    pid = started(["compress", str(many), str(tmp_path / "dst"), *OPTIONS, "--workers", "2"], 1, tell_and_wait)
    assert os.read(reader, 1) == b"!"
    try:
        with pytest.raises(CompressError, match="another run is writing"):
            run(many, tmp_path / "dst")
    finally:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("kept", [1, 3])
def test_a_torn_journal_continues(small: Path, tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run(small, tmp_path / "whole")
    monkeypatch.setattr(module, "CHUNK_PHOTOS", 1)
    with pytest.raises(KeyboardInterrupt):
        run(small, tmp_path / "dst", progress=interrupt_at(6))
    journal = tmp_path / "dst" / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 7
    journal.write_bytes(b"".join(lines[:kept]) + lines[kept][:-9])
    (tmp_path / "dst" / f"{PART}0123").write_bytes(b"half")
    run(small, tmp_path / "dst")
    assert files(tmp_path / "dst") == files(tmp_path / "whole")


@pytest.mark.parametrize("moment", ["rename", "journal"])
def test_a_run_that_ends_while_it_writes_its_manifest(
    small: Path, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(small, tmp_path / "whole")
    replace, truncate = Path.replace, os.ftruncate

    def rename(self: Path, target: Path) -> Path:
        if target.name == MANIFEST:
            raise KeyboardInterrupt
        return replace(self, target)

    def shorten(file: int, size: int) -> None:
        if os.fstat(file).st_size > size:
            raise KeyboardInterrupt
        truncate(file, size)

    with monkeypatch.context() as patch:
        if moment == "rename":
            patch.setattr(Path, "replace", rename)
        else:
            patch.setattr(os, "ftruncate", shorten)
        with pytest.raises(KeyboardInterrupt):
            run(small, tmp_path / "dst")
    assert (tmp_path / "dst" / JOURNAL).read_bytes().count(b"\n") == 10
    assert (tmp_path / "dst" / MANIFEST).exists() == (moment == "journal")
    run(small, tmp_path / "dst")
    assert files(tmp_path / "dst") == files(tmp_path / "whole")


def interrupt_at(count: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= count:
            raise KeyboardInterrupt

    return progress


def test_a_journal_of_something_else_is_named(small: Path, tmp_path: Path) -> None:
    run(small, tmp_path / "dst")
    for name, text in ((JOURNAL, "[]\n"), (JOURNAL, "x\n"), (MANIFEST, "{}\n")):
        before = (tmp_path / "dst" / name).read_bytes()
        (tmp_path / "dst" / name).write_text(text)
        with pytest.raises(CompressError, match="was not written by qtable compress"):
            run(small, tmp_path / "dst")
        (tmp_path / "dst" / name).write_bytes(before)


# ---- sources that change --------------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [True, False])
def test_changed_sources_are_redone_and_nothing_else(
    small: Path, tmp_path: Path, finished: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "dst"
    if finished:
        run(small, target)
    else:
        monkeypatch.setattr(module, "CHUNK_PHOTOS", 1)
        with pytest.raises(KeyboardInterrupt):
            run(small, target, progress=interrupt_at(9))
        assert not (target / MANIFEST).exists()
    times = {path: path.stat().st_mtime_ns for path in target.rglob("*.jpg")}
    flipped = np.asarray(noise(4))[::-1]
    Image.fromarray(np.ascontiguousarray(flipped)).save(small / "test/4.bmp")  # the same size
    (small / "train/cat/1.png").write_bytes(b"not a photo any more")
    (small / "test/empty.png").write_bytes(encoded(noise(7), "PNG"))
    (small / "labels.csv").write_text("path,label\ntrain/cat/0.png,1\n")  # the same size
    run(small, target)
    run(small, tmp_path / "fresh")
    assert files(target) == files(tmp_path / "fresh")
    unchanged = [path for path in times if path.exists() and path.stat().st_mtime_ns == times[path]]
    assert sorted(path.name for path in unchanged) == ["0.jpg", "2.jpg"]


@pytest.mark.parametrize(
    ("damage", "finished"),
    [("gone", True), ("cut", True), ("changed", True), ("gone", False), ("cut", False)],  # a run goes by sizes alone
)
def test_damaged_outputs_are_made_again(small: Path, tmp_path: Path, damage: str, finished: bool) -> None:
    run(small, tmp_path / "whole")
    before = files(tmp_path / "whole")
    if finished:
        run(small, tmp_path / "dst")
    else:
        with pytest.raises(KeyboardInterrupt):
            run(small, tmp_path / "dst", progress=interrupt_at(9))
    for name in ("train/cat/0.jpg", "labels.csv"):
        path = tmp_path / "dst" / name
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1] + b"!" * (damage == "changed"))
    run(small, tmp_path / "dst")
    assert files(tmp_path / "dst") == before


def test_a_photo_that_vanishes_is_skipped_and_counted(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_PHOTOS", 1)
    summary = run(small, tmp_path / "dst", progress=lambda *_: (small / "train/dog/3.JPEG").unlink(missing_ok=True))
    assert summary.skipped["vanished"] == 1
    assert summary.photos == 4
    assert [row["source"] for row in rows(tmp_path / "dst") if row["reason"] == "vanished"] == ["train/dog/3.JPEG"]


def test_names_that_become_too_long_are_skipped(small: Path, tmp_path: Path) -> None:
    for suffix in ("bmp", "png"):
        noise(0).save(small / f"{'x' * 250}.{suffix}")
    for _ in range(2):
        assert run(small, tmp_path / "dst").skipped["name too long"] == 1
    assert (tmp_path / "dst" / f"{'x' * 250}.jpg").exists()


def test_names_that_shift_leave_nothing_behind(small: Path, tmp_path: Path) -> None:
    noise(11).save(small / "test/4.png")  # takes the second name
    run(small, tmp_path / "dst")
    assert (tmp_path / "dst/test/4.png.jpg").exists()
    (small / "test/4.bmp").unlink()
    noise(12).save(small / "test/4.tif")
    summary = run(small, tmp_path / "dst")
    run(small, tmp_path / "fresh")
    assert files(tmp_path / "dst") == files(tmp_path / "fresh")
    assert summary.left == 0


def test_outputs_whose_source_is_gone_stay_and_are_counted(small: Path, tmp_path: Path) -> None:
    run(small, tmp_path / "dst")
    (small / "train/cat/0.jpg").unlink()
    for _ in range(2):
        assert run(small, tmp_path / "dst").left == 1
    assert (tmp_path / "dst/train/cat/0.jpg").exists()
    assert "train/cat/0.jpg" in [row["source"] for row in rows(tmp_path / "dst")]


# ---- tar files ------------------------------------------------------------------------------------------------


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mtime, info.mode = len(data), kind, 1234567890, 0o640
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> None:
    with tarfile.open(path, "w", format=form, errors="surrogateescape") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))


LONG = "long/" + "x" * 150 + "é.png"
ODD = os.fsdecode(b"caf\xe9.png")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("alone", [True, False])
def test_a_shard_is_written_anew_in_its_order(tmp_path: Path, form: int, alone: bool) -> None:
    png, jpeg = encoded(noise(0), "PNG"), encoded(noise(1), "JPEG")
    (tmp_path / "src").mkdir()
    shard = tmp_path / "src" / "000.tar"
    write_tar(
        shard,
        member("b/1.png", png, mtime=1234567890.25, uid=7, gid=8, uname="ann", gname="bob"),
        member("b/1.json", b'{"label": 3}'),
        member("b", kind=tarfile.DIRTYPE, mode=0o755),
        member("a/0.jpeg", jpeg),
        member(LONG, png),
        member(ODD, png),
        member("a/0.png", png),
        member("a/cut.jpg", jpeg[:200]),
        member("pictures.png", kind=tarfile.DIRTYPE),
        form=form,
    )
    summary = run(shard if alone else tmp_path / "src", tmp_path / "dst")
    assert set(files(tmp_path / "dst")) == {"000.tar", MANIFEST, JOURNAL}
    with tarfile.open(tmp_path / "dst" / "000.tar", errors="surrogateescape") as tar:
        found = tar.getmembers()
        expected = {
            "b/1.jpg": RECIPE(png)[0],
            "b/1.json": b'{"label": 3}',
            "b": None,
            "a/0.jpeg": RECIPE(jpeg)[0],
            LONG.replace("png", "jpg"): RECIPE(png)[0],
            ODD.replace("png", "jpg"): RECIPE(png)[0],
            "a/0.jpg": RECIPE(png)[0],
            "pictures.png": None,
        }
        assert [info.name for info in found] == list(expected)
        for info in found:
            content = tar.extractfile(info)
            assert (content.read() if content else None) == expected[info.name]
        first = found[0]
        assert first.mtime == (1234567890.25 if form == tarfile.PAX_FORMAT else 1234567890)
        assert (first.mode, first.uid, first.gid, first.uname, first.gname) == (0o640, 7, 8, "ann", "bob")
        assert found[2].mode == 0o755
    assert (summary.photos, summary.copied, summary.skipped) == (5, 1, {"unreadable": 1})
    listed = rows(tmp_path / "dst")
    assert [row["action"] for row in listed[:1]] == ["shard"]
    assert {row["member"]: row["target"] for row in listed[1:]}["a/cut.jpg"] is None
    assert [row["member"] for row in listed[1:]] == sorted((row["member"] for row in listed[1:]), key=os.fsencode)


def test_hostile_members_are_dropped_and_nothing_is_unpacked(tmp_path: Path) -> None:
    png = encoded(noise(0), "PNG")
    (tmp_path / "src").mkdir()
    write_tar(
        tmp_path / "src" / "bad.tar",
        member("/etc/x.png", png),
        member("../../x.png", png),
        member("a/../../x.txt", b"x"),
        member("..", kind=tarfile.DIRTYPE),
        member("link.png", kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("hard.png", kind=tarfile.LNKTYPE, linkname="good.png"),
        member("null.png", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("pipe.png", kind=tarfile.FIFOTYPE),
        member("good.png", png),
    )
    everything = set(tmp_path.parent.rglob("*"))
    summary = run(tmp_path / "src", tmp_path / "dst")
    made = set(tmp_path.parent.rglob("*")) - everything
    assert made == {tmp_path / "dst", *(tmp_path / "dst" / name for name in ("bad.tar", MANIFEST, JOURNAL))}
    with tarfile.open(tmp_path / "dst" / "bad.tar") as tar:
        assert tar.getnames() == ["good.jpg"]
    assert summary.skipped == {"unsafe name in a tar file": 4, "link": 2, "not a plain file": 2}


def test_two_tars_of_the_same_source_are_the_same_bytes(many: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    run(many / "shard.tar", tmp_path / "dst")
    assert (tmp_path / "dst" / "shard.tar").read_bytes() == whole["shard.tar"]


@pytest.mark.parametrize("cut", [100, 700, 1024, 1300])
def test_a_damaged_tar_is_skipped_whole(tmp_path: Path, cut: int) -> None:
    (tmp_path / "src").mkdir()
    write_tar(tmp_path / "src" / "good.tar", member("a.bmp", encoded(noise(0), "BMP")))
    data = bytearray((tmp_path / "src" / "good.tar").read_bytes())
    write_tar(tmp_path / "src" / "a.tar", member("a.txt", bytes(500)), member("b.txt", bytes(500)))
    data = bytearray((tmp_path / "src" / "a.tar").read_bytes())
    if cut == 1024:
        data[1024 + 100] ^= 255  # the second header; tarfile would take it for the end
    else:
        del data[cut:]
    (tmp_path / "src" / "a.tar").write_bytes(data)
    summary = run(tmp_path / "src", tmp_path / "dst")
    assert summary.skipped == {"damaged tar": 1}
    assert set(files(tmp_path / "dst")) == {"good.tar", MANIFEST, JOURNAL}


def test_a_changed_shard_is_redone(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    shard = tmp_path / "src" / "a.tar"
    write_tar(shard, member("a.png", encoded(noise(0), "PNG")))
    run(shard, tmp_path / "dst")
    first = (tmp_path / "dst" / "a.tar").stat()
    run(shard, tmp_path / "dst")
    assert (tmp_path / "dst" / "a.tar").stat().st_ino == first.st_ino
    write_tar(shard, member("a.png", encoded(noise(1), "PNG")))
    run(shard, tmp_path / "dst")
    run(shard, tmp_path / "fresh")
    assert files(tmp_path / "dst") == files(tmp_path / "fresh")


# ---- clusters -------------------------------------------------------------------------------------------------


def test_the_same_work_over_dask(many: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra qtable[cluster]")
    with distributed.Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None, set_as_default=False
    ) as client:
        run(many, tmp_path / "dst", executor=client.get_executor(pure=False), workers=2)
    assert files(tmp_path / "dst") == whole


@pytest.mark.slow
def test_the_command_over_a_cluster(many: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs the extra qtable[cluster]")
    from qtable.measure.cluster import connect

    with connect(workers=2) as client:
        succeeds(
            ["compress", str(many), str(tmp_path / "dst"), *OPTIONS, "--cluster", client.scheduler_info()["address"]]
        )
    assert files(tmp_path / "dst") == whole


class Elsewhere(ThreadPoolExecutor):
    """Workers that see other files than the driver, or have another codec."""

    def __init__(self, change: Callable[[Job], Job]) -> None:
        super().__init__(1)
        self._change = change

    def submit(self, work: Callable[..., Any], job: Any = None, *rest: Any, **more: Any) -> Future[Any]:  # type: ignore[override]
        return super().submit(work, self._change(job), *rest, **more)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda job: replace(job, root=Folder(Path("/nowhere"))), "a worker does not see test/4.bmp in .*src"),
        (lambda job: replace(job, target=Folder(Path("/nowhere"))), "worker on .*: its /nowhere is not the driver's"),
        (lambda job: replace(job, versions={"encoder": "x"}), "worker on .*: its codec is .*; the driver's x"),
    ],
)
def test_workers_that_see_something_else_are_refused(
    small: Path, tmp_path: Path, change: Callable[[Job], Job], message: str
) -> None:
    with Elsewhere(change) as executor, pytest.raises(CompressError, match=message):
        run(small, tmp_path / "dst", executor=executor)


# ---- the command ----------------------------------------------------------------------------------------------


def test_a_dry_run_estimates_and_writes_nothing(
    many: Path, whole: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compress", str(many), str(tmp_path / "dst"), *OPTIONS, "--dry-run", "--sample", "60"]
    succeeds([*command, "--json"])
    estimate = json.loads(capsys.readouterr().out)
    listed = [json.loads(line) for line in whole[MANIFEST].splitlines()]
    photos = [row for row in listed if row["action"] == "compressed"]
    before, after = (sum(row[key] for row in photos) for key in ("bytes_before", "bytes_after"))
    assert estimate["estimate"] is True
    assert (estimate["photos"], estimate["bytes_before"], estimate["sample"]) == (500, before, 60)
    assert estimate["change_ci"][0] < after / before - 1 < estimate["change_ci"][1]
    assert estimate["change_ci"][0] < estimate["change"] < estimate["change_ci"][1]
    succeeds(command)
    assert capsys.readouterr().out.startswith("An estimate from 60 photos: 500 photos, ")
    succeeds([*command, "--json", "--seed", "1"])
    assert json.loads(capsys.readouterr().out)["change"] != estimate["change"]
    assert list(tmp_path.iterdir()) == []


def test_a_sample_of_all_photos_is_exact(small: Path, tmp_path: Path) -> None:
    drawn = sample(small, RECIPE, 100, np.random.default_rng(0))
    summary = run(small, tmp_path / "dst")
    assert (drawn.before.sum(), drawn.after.sum()) == (summary.bytes_before, summary.bytes_after)
    assert (drawn.photos, drawn.skipped) == (7, summary.skipped)


def test_the_command_says_what_it_did(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compress", str(small), str(tmp_path / "dst"), *OPTIONS, "--workers", "1"]
    succeeds(command)
    sentence = capsys.readouterr().out
    assert sentence.startswith("5 photos: ")
    parts = ("3 of them renamed to .jpg", "the names in 1 list follow the photos", "1 other file copied", "skipped 1 (")
    assert "%); " + "; ".join(parts) + "empty file), 1 (unreadable)." in sentence
    assert sentence.endswith(f" Manifest: {tmp_path}/dst/{MANIFEST}\n")
    succeeds([*command, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert (result["photos"], result["skipped"]) == (5, {"empty file": 1, "unreadable": 1})
    assert result["change"] == result["bytes_after"] / result["bytes_before"] - 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tables", "quality:0"], "quality 0 is outside"),
        (["--workers", "0"], "0 workers; allowed: 1 or more"),
        (["--max-pixels", "0"], "at most 0 pixels"),
        (["--skip-larger", "--metadata", "strip"], "skip-larger or strip, not both"),
        (["--workers", "2", "--cluster", "tcp://127.0.0.1:1"], "--cluster has its own workers"),
        (["--dry-run", "--sample", "0"], "a sample of 0 photos"),
    ],
)
def test_mistakes_get_one_clear_line(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as status:
        main(["compress", str(small), str(tmp_path / "dst"), *OPTIONS, *more])
    assert status.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qtable: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "dst").exists()
