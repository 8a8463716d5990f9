"""Sampling factors of every kind that T.81 allows, and damage in such files, against libjpeg-turbo's own programs."""

from __future__ import annotations

import io
import shutil
import subprocess
import warnings
from collections import Counter
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from qtable.jpeg import codec
from qtable.jpeg.codec import RGB, decode
from qtable.jpeg.damage import check_entropy
from qtable.jpeg.header import read_header
from qtable.jpeg.kernels import entropy
from qtable.jpeg.markers import JpegError
from qtable.jpeg.tables import QTables
from qtable.photos.metadata import pillow

LAYOUTS = [
    *("1x1", "2x1", "1x2", "2x2", "4x1", "1x4", "2x4", "3x1,1x1,1x1", "1x1,1x1,2x1", "1x1,2x1,2x1"),
    *("2x1,1x1,2x1", "2x1,2x1,2x1", "2x2,1x1,2x2", "2x2,1x2,1x2", "2x2,2x1,2x1", "4x1,2x1,1x1"),
]
CODINGS = {"plain": [], "progressive": ["-progressive"], "restarts": ["-restart", "3B", "-optimize"]}


def made(photo: RGB, layout: str, coding: str, grey: bool = False) -> bytes:
    """The photo through cjpeg."""
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PPM")
    options = ["-sample", layout, *CODINGS[coding], *(["-grayscale"] if grey else [])]
    return ran(["cjpeg", *options], file.getvalue()).stdout


def ran(command: list[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, input=data, capture_output=True)


def djpeg(data: bytes) -> RGB:
    with Image.open(io.BytesIO(ran(["djpeg", "-ppm"], data).stdout)) as image:
        return np.array(image.convert("RGB"))


@pytest.mark.parametrize("route", ["turbojpeg", "simplejpeg"])
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_decodes_to_djpegs_pixels_by_every_library(
    photo: RGB, layout: str, coding: str, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, original = made(photo, layout, coding), codec.decoder
    try:
        original(route)
    except ImportError:
        pytest.skip(f"{route} does not work here")
    monkeypatch.setattr(codec, "decoder", lambda name=None: original(name or route))
    assert np.array_equal(decode(file), djpeg(file))
    header = read_header(file)
    check_entropy(file, header)
    known = {"1x1": "4:4:4", "2x1": "4:2:2", "2x2": "4:2:0"}
    factors = layout if "," in layout else f"{layout},1x1,1x1"
    assert header.subsampling == known.get(layout, factors)


@pytest.mark.parametrize("layout", ["1x2", "2x2", "3x2", "4x4"])
def test_factors_of_grey_files_change_nothing(photo: RGB, layout: str) -> None:
    file = made(photo, layout, "plain", grey=True)
    assert np.array_equal(decode(file), djpeg(file))
    check_entropy(file, read_header(file))


@pytest.mark.parametrize("machine_code", [True, False])
def test_damage_is_seen_wherever_djpeg_warns_of_it(
    photo: RGB, machine_code: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not machine_code:
        for name in ("sequential", "progressive_dc", "progressive_ac"):
            kernel = getattr(entropy, name)
            monkeypatch.setattr(entropy, name, getattr(kernel, "py_func", kernel))
    rng, small = np.random.default_rng(0), photo[:41, :50]
    files = [made(small, layout, coding) for layout in ("2x2", "2x4", "1x1,2x1,2x1") for coding in CODINGS]
    seen: Counter[tuple[bool, bool]] = Counter()
    for _ in range(300 if machine_code else 60):
        data = bytearray(files[rng.integers(len(files))])
        scans = [segment for segment in read_header(bytes(data)).segments if segment.marker == 0xDA]
        scan = scans[rng.integers(len(scans))]
        at = scan.at + scan.size + int(rng.integers(scan.entropy_bytes))
        data[at : at + int(rng.integers(0, 3))] = rng.integers(0, 255, int(rng.integers(0, 3)), np.uint8).tobytes()
        try:
            header = read_header(bytes(data))
        except JpegError:
            continue
        strict = ran(["djpeg", "-strict", "-ppm"], bytes(data))
        taken = True
        try:
            check_entropy(bytes(data), header)
        except JpegError:
            taken = False
        seen[taken, strict.returncode == 0 and not strict.stderr] += 1
    assert seen[True, False] == 0
    assert seen[False, False] > 0.2 * seen.total()
    assert seen[False, True] < 0.1 * seen.total()  # bytes too many, which libjpeg happens to have in its buffer


def test_damaged_files_of_odd_layouts_stay_errors(photo: RGB) -> None:
    file = made(photo, "2x4", "plain")
    scan = file.rindex(b"\xff\xda") + 14
    for damaged in (file[: scan + 200] + file[-2:], file[:-2] + bytes(30) + file[-2:]):
        with pytest.raises(JpegError, match="does not decode"):
            decode(damaged)


def test_fill_bytes_before_a_marker_are_no_damage(photo: RGB) -> None:
    file = made(photo, "2x4", "restarts")
    marker = file.index(b"\xff\xd1", file.rindex(b"\xff\xda"))
    filled = file[:marker] + b"\xff\xff" + file[marker:-2] + b"\xff\xff\xff" + file[-2:]
    assert np.array_equal(decode(filled), decode(file))


def test_arithmetic_coding_with_an_odd_layout_is_refused_by_name(photo: RGB) -> None:
    file = made(photo, "2x4", "plain")
    arithmetic = ran(["jpegtran", "-arithmetic"], file).stdout
    if not arithmetic:
        pytest.skip("this jpegtran has no arithmetic coding")
    with pytest.raises(JpegError, match="sequential arithmetic coding of 8 bits with samples as 2x4,1x1,1x1"):
        decode(arithmetic)


@pytest.mark.parametrize("action", ["ignore", "default"])
def test_damage_is_an_error_whatever_filters_of_warnings_are_set(
    photo: RGB, action: Literal["ignore", "default"]
) -> None:
    good = codec.Codec().encode(photo, QTables.standard(90))
    damaged = good[:1000] + good[1200:]
    codec.decoder.cache_clear()
    with warnings.catch_warnings():  # whoever opens the first photo may be in such a block
        warnings.simplefilter("ignore")
        decode(good)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(JpegError, match="does not decode"):
            decode(damaged)
        with pytest.raises(ValueError, match="does not decode"), pillow():
            decode(damaged)


@pytest.mark.parametrize(
    ("marker", "body"),
    [
        (0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x0f\0\x02\0\0"),
        (0xE2, b"MPF\0MM\0*\0\0\0\x08\0\x01"),
        (0xED, b"Photoshop 3.0\0"),
    ],
    ids=["EXIF", "MPF", "Photoshop"],
)
@pytest.mark.parametrize("rgb", [False, True])
def test_damaged_metadata_around_pixels_says_nothing_by_any_library(
    photo: RGB, marker: int, body: bytes, rgb: bool
) -> None:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", keep_rgb=rgb)
    plain = file.getvalue()
    data = plain[:2] + bytes([0xFF, marker]) + (2 + len(body)).to_bytes(2, "big") + body + plain[2:]
    for name in ("turbojpeg", "pillow"):
        assert np.array_equal(codec.decoder(name)[1](data), djpeg(data))
