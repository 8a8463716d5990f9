"""One reader for all commands: what is taken, what is refused, and to which pixels."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, TiffImagePlugin

from qtable.codecs.plain import TableCoder
from qtable.compress.photo import Recipe, Skip
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.photos.metadata import Metadata, orientation
from qtable.photos.opening import open_photo, read_photo
from qtable.photos.samples import PhotoError

RAMP = np.arange(256).repeat(4).reshape(256, 4).T  # [4, 256]
TABLES, CODEC = QTables.flat(1), Codec("4:4:4")
RECIPE = Recipe(TableCoder(TABLES, CODEC))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(samples: npt.NDArray[Any], tags: dict[int, int]) -> bytes:
    """An uncompressed TIFF file of one strip; samples: [h, w] or [h, w, channels], little or big-endian."""
    channels = samples.shape[2] if samples.ndim == 3 else 1
    order, kind = ("MM", ">") if samples.dtype.byteorder == ">" else ("II", "<")
    body = samples.tobytes()
    bits = 8 * samples.dtype.itemsize
    entries = {
        256: samples.shape[1], 257: samples.shape[0], 258: bits, 259: 1, 262: 2 if channels == 3 else 1, 273: 8,
        277: channels, 278: samples.shape[0], 279: len(body), **tags,
    }  # fmt: skip
    at = 8 + len(body)
    wide = at + 2 + 12 * len(entries) + 4
    directory = struct.pack(kind + "H", len(entries))
    for tag, value in sorted(entries.items()):
        if tag == 258 and channels == 3:
            directory += struct.pack(kind + "HHII", tag, 3, 3, wide)
        else:
            directory += struct.pack(kind + "HHI", tag, 4, 1) + struct.pack(kind + "I", value)
    header = order.encode() + struct.pack(kind + "HI", 42, at)
    return header + body + directory + bytes(4) + struct.pack(kind + "HHH", bits, bits, bits)


def png(samples: npt.NDArray[Any], colour: int) -> bytes:
    """A PNG file of 16 bits a sample (PNG specification, 11.2.1: 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA)."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pnm(samples: npt.NDArray[Any], white: int) -> bytes:
    magic = b"P6" if samples.ndim == 3 else b"P5"
    kind = ">u2" if white > 255 else "u1"
    return magic + b"\n%d %d\n%d\n" % (samples.shape[1], samples.shape[0], white) + samples.astype(kind).tobytes()


def channels(samples: npt.NDArray[Any], alpha: int | None = None, colours: int = 3) -> npt.NDArray[Any]:
    planes = [samples] * colours + ([] if alpha is None else [np.full_like(samples, alpha)])
    return np.stack(planes, axis=-1)


DEEP = (RAMP * 257).astype("<u2")
TAKEN: dict[str, Callable[[], bytes]] = {
    "grey TIFF": lambda: tiff(DEEP, {}),
    "big-endian grey TIFF": lambda: tiff(DEEP.astype(">u2"), {}),
    "grey TIFF, 0 is white": lambda: tiff(65535 - DEEP, {262: 0}),
    "grey TIFF of 8 bits, 0 is white": lambda: tiff((255 - RAMP).astype("u1"), {262: 0}),
    "RGB TIFF": lambda: tiff(channels(DEEP), {}),
    "grey PNG": lambda: png(DEEP, 0),
    "RGB PNG": lambda: png(channels(DEEP), 2),
    "grey PNG with opaque alpha": lambda: png(channels(DEEP, 65535, 1), 4),
    "RGBA PNG, opaque": lambda: png(channels(DEEP, 65535), 6),
    "PGM": lambda: pnm(DEEP, 65535),
    "PPM": lambda: pnm(channels(DEEP), 65535),
    "PGM up to 4095": lambda: pnm(np.rint(RAMP * (4095 / 255)), 4095),
    "PPM up to 1023": lambda: pnm(channels(np.rint(RAMP * (1023 / 255))), 1023),
    "PGM of 8 bits": lambda: pnm(RAMP, 255),
}
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "float 0..1": (lambda: tiff((RAMP / 255).astype("<f4"), {339: 3}), "sample type float32 is not read"),
    "float, 0 is white": (lambda: tiff(RAMP.astype("<f4"), {339: 3, 262: 0}), "sample type float32 is not read"),
    "int32": (lambda: tiff(RAMP.astype("<i4"), {339: 2}), "sample type int32 is not read"),
    "int16": (lambda: tiff((RAMP * 128).astype("<i2"), {339: 2}), "sample type int16 is not read"),
    "int8": (lambda: tiff((RAMP - 128).astype("i1"), {339: 2}), "sample type int8 is not read"),
    "uint32": (lambda: tiff(RAMP.astype("<u4"), {}), "sample type uint32 is not read"),
    "12 bits in 16": (lambda: tiff((RAMP * 16).astype("<u2"), {}), "sample type uint16 with values in its lowest"),
    "12 bits in a PNG": (lambda: png(RAMP * 16, 0), "sample type uint16 with values in its lowest quarter"),
    "12 bits of RGB": (lambda: png(channels(RAMP * 16), 2), "sample type uint16 with values in its lowest quarter"),
    "float RGB": (lambda: tiff(channels(RAMP.astype("<f4")), {339: 3}), "sample type float32 is not read"),
    "float64": (lambda: tiff(RAMP.astype("<f8"), {339: 3}), "sample type float64 is not read"),
    "unknown colours": (lambda: tiff(DEEP, {262: 9}), "unreadable: a TIFF file of 1 channel of uint16"),
    "PFM": (lambda: b"Pf\n2 2\n-1.0\n" + bytes(16), "sample type float32 is not read"),
    "16-bit alpha": (lambda: png(channels(DEEP, 40000), 6), "transparency"),
    "CMYK JPEG": (lambda: encoded(Image.new("CMYK", (16, 16)), "JPEG"), "colour mode CMYK"),
    "CMYK TIFF": (lambda: encoded(Image.new("CMYK", (16, 16)), "TIFF"), "colour mode CMYK"),
    "LAB": (lambda: encoded(Image.new("LAB", (16, 16)), "TIFF"), "colour mode LAB"),
    "alpha": (lambda: encoded(Image.new("RGBA", (9, 9), (9, 9, 9, 254)), "PNG"), "transparency"),
    "palette with alpha": (
        lambda: encoded(Image.fromarray(RAMP.astype("u1")).quantize(8), "PNG", transparency=0),
        "transparency",
    ),
    "two frames": (
        lambda: encoded(Image.new("L", (9, 9)), "GIF", save_all=True, append_images=[Image.new("L", (9, 9), 99)]),
        "several pictures",
    ),
    "behind the end": (lambda: encoded(Image.new("L", (9, 9)), "JPEG") + bytes(99), "bytes after the picture's end"),
    "truncated": (lambda: encoded(Image.new("L", (9, 9)), "JPEG")[:-9], "unreadable: "),
    "nothing": (lambda: b"", "empty file"),
    "text": (lambda: b"text", "unreadable: not a photo (JPEG, PNG"),
}  # fmt: skip


def agree(data: bytes) -> npt.NDArray[np.uint8]:
    """The pixels, after `compress` was seen to take the same."""
    pixels, _ = open_photo(data)
    photo = read_photo(data)
    assert np.array_equal(photo.upright, pixels)
    made, action, note = RECIPE(data)
    assert np.array_equal(read_photo(made).pixels, CODEC.decode(CODEC.encode(photo.pixels, TABLES)))
    assert (action, note) == ("compressed", photo.reduced)
    return pixels


@pytest.mark.parametrize("name", TAKEN)
def test_samples_are_read_by_their_stated_meaning_for_every_command(name: str) -> None:
    data = TAKEN[name]()
    assert np.array_equal(agree(data), np.repeat(RAMP[..., None], 3, axis=2))
    reduced = read_photo(data).reduced
    assert (reduced is None) == ("8 bits" in name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_by_name_for_every_command(name: str) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(PhotoError) as error:
        open_photo(make())
    assert str(error.value).startswith(reason)
    assert "\n" not in str(error.value)
    with pytest.raises(Skip) as skip:
        RECIPE(make())
    assert str(skip.value) == str(error.value)


def test_grey_samples_are_rounded_and_high_bytes_of_colour_are_at_most_a_step_off() -> None:
    every = np.arange(65536).reshape(256, 256)
    expected = np.rint(every / 257).astype(int)
    for data in (png(every, 0), tiff(every.astype("<u2"), {}), pnm(every, 65535)):
        assert np.array_equal(agree(data)[..., 1], expected)
    assert np.abs(agree(png(channels(every), 2))[..., 1] - expected).max() == 1
    assert np.array_equal(agree(pnm(channels(every), 65535))[..., 1], expected)
    twelve = np.arange(4096).reshape(64, 64)
    assert np.array_equal(agree(pnm(twelve, 4095))[..., 1], np.rint(twelve * 255 / 4095))


def test_black_photos_of_16_bits_are_read() -> None:
    assert not agree(png(np.zeros((3, 4)), 0)).any()
    assert not agree(png(np.zeros((3, 4, 3)), 2)).any()


def test_the_shared_samples(shared: Path) -> None:
    if not (shared / "cases" / "samples").is_dir():
        pytest.skip(f"{shared}/cases/samples is not there")
    for file in sorted((shared / "cases" / "samples").iterdir()):
        data = file.read_bytes()
        if file.stem in ("float01", "float255", "int32_0_255", "grey12in16"):
            with pytest.raises(PhotoError, match="sample type "):
                open_photo(data)
            with pytest.raises(Skip, match="sample type "):
                RECIPE(data)
        else:
            assert (agree(data) == np.arange(256)[None, :, None]).all(), file.name


# ---- orientation in XMP ---------------------------------------------------------------------------------------

ATTRIBUTE = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>"""
ELEMENT = ATTRIBUTE.replace(b' tiff:Orientation="%d"/>', b"><tiff:Orientation>%d</tiff:Orientation></rdf:Description>")


def tagged(kind: str, xmp: bytes, tags: dict[int, int] | None = None, **options: Any) -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 20, 3), np.uint8))
    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    elif kind == "TIFF":
        options["tiffinfo"] = TiffImagePlugin.ImageFileDirectory_v2()
        for tag, value in {700: xmp, **(tags or {})}.items():
            options["tiffinfo"][tag] = value
    else:
        options["xmp"] = xmp
    return encoded(image, kind, **options, **({"lossless": True} if kind == "WEBP" else {}))


@pytest.mark.parametrize("form", [ATTRIBUTE, ELEMENT], ids=["attribute", "element"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_in_xmp_alone_turns_the_photo_as_pillow_does(kind: str, form: bytes) -> None:
    for value in range(1, 9):
        data = tagged(kind, form % value)
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert np.array_equal(open_photo(data)[0], expected)
        stripped = Recipe(RECIPE.coder, metadata="strip")(data)[0]
        assert np.array_equal(stripped, CODEC.encode(expected, TABLES))
        kept = RECIPE(data)[0]
        if kind != "TIFF":
            assert read_photo(kept).metadata.xmp == form % value
        assert np.array_equal(open_photo(kept)[0].shape, expected.shape)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_wins_where_both_name_an_orientation(kind: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    own = {int(ExifTags.Base.Orientation): 1} if kind == "TIFF" else {}
    data = tagged(kind, ATTRIBUTE % 6, own, exif=exif.tobytes())
    assert open_photo(data)[0].shape == (8, 20, 3)
    assert open_photo(RECIPE(data)[0])[0].shape == (8, 20, 3)


@pytest.mark.parametrize(
    ("xmp", "expected"),
    [
        (ATTRIBUTE.replace(b"tiff:", b"t:").replace(b":tiff", b":t") % 6, 6),
        (ATTRIBUTE.replace(b'"%d"', b"' 8 '"), 8),
        (ATTRIBUTE.replace(b"http://ns.adobe.com/tiff/1.0/", b"http://example.org/") % 6, 1),
        (ATTRIBUTE % 9, 1),
        (ATTRIBUTE.replace(b'"%d"', b'"' + b"6" * 10_000 + b'"'), 1),
        (b'<!DOCTYPE x [<!ENTITY a "' + b"6" * 99 + b'">]>' + ELEMENT.replace(b"%d", b"&a;"), 1),
        (b"\xff\xfe<" * 1000, 1),
        (b"", 1),
    ],
)
def test_xmp_of_strangers(xmp: bytes, expected: int) -> None:
    assert orientation(Metadata(xmp=xmp)) == expected


def test_a_photo_whose_xmp_is_too_long_for_a_jpeg_is_turned_upright() -> None:
    made, _, note = RECIPE(tagged("PNG", ATTRIBUTE % 6 + b" " * 70_000))
    assert open_photo(made)[0].shape == (20, 8, 3)
    assert note is not None
    assert note.startswith("without its XMP: ")


def test_what_pillow_warns_of_is_read() -> None:
    cut = b"Exif\0\0II*\0\x08\0\0\0\x03\0\x12\x01\x03\0"  # "Corrupt EXIF data"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("JPEG", "PNG", "WEBP"):
            assert open_photo(encoded(Image.new("RGB", (9, 8)), kind, exif=cut))[0].shape == (8, 9, 3)
