"""A picture's samples as 8-bit RGB, by what the file says that they mean."""

from __future__ import annotations

import io
import re
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from qtable.jpeg.codec import RGB

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
"""What a photo file may be, whatever its name says; for others Pillow would start programs (EPS: Ghostscript)."""
_MODES: Final = frozenset(["1", "L", "P", "RGB", "RGBX", "YCbCr", "LA", "PA", "RGBA"])
_KINDS: Final = {1: "uint", 2: "int", 3: "float", 4: "uint", 5: "complex int", 6: "complex float"}
"""TIFF 6.0, SampleFormat; 4, undefined, is to be read as unsigned."""
_FULL: Final = 65535
_QUARTER: Final = 16384


class PhotoError(ValueError):
    """A photo that is not read; the message is "reason" or "reason: detail", in one line."""


class Samples(NamedTuple):
    """What a file's header says of its samples.

    white: the largest value, 2^bits - 1 or a PNM file's own. falling: 0 is white, and Pillow leaves it so.
    """

    kind: str
    bits: int
    white: int
    falling: bool = False


def stated(image: ImageFile.ImageFile) -> Samples:
    """Of a picture that was opened and not loaded."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        samples = _of_tags(image.tag_v2)
        return samples._replace(falling=samples.falling and image.mode.startswith("I;"))
    if image.mode == "F":
        return Samples("float", 32, 1)
    codings = [tile.args for tile in image.tile]
    if image.format == "PPM" and codings and isinstance(codings[0], tuple):
        white = int(codings[0][1])  # (mode, maxval)
        return Samples("uint", max(8, white.bit_length()), white)
    deep = any(re.search(r";16B?$", coding) for coding in codings if isinstance(coding, str))
    return Samples("uint", 16, _FULL) if deep else Samples("uint", 8, 255)


def _of_tags(tags: TiffImagePlugin.ImageFileDirectory_v2) -> Samples:
    bits = int(max(tags.get(ExifTags.Base.BitsPerSample, (1,))))
    kind = _KINDS.get(max(tags.get(ExifTags.Base.SampleFormat, (1,))), "unknown")
    return Samples(kind, bits, (1 << min(bits, 64)) - 1, tags.get(ExifTags.Base.PhotometricInterpretation, 0) == 0)


def check_type(samples: Samples) -> None:
    """PhotoError for types that have no stated white, or more bits than are read."""
    if samples.kind != "uint" or samples.bits > 16:
        raise PhotoError(f"sample type {samples.kind}{samples.bits} is not read; allowed are uint1 to uint16")


def why_unknown(data: bytes) -> PhotoError:
    """What to say of a file that Pillow does not open: a TIFF is named by its samples."""
    if data[:4] in (b"II*\0", b"MM\0*"):
        try:
            tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
            file = io.BytesIO(data)
            file.seek(tags.next)
            tags.load(file)
            samples, channels = _of_tags(tags), int(tags.get(ExifTags.Base.SamplesPerPixel, 1))
            check_type(samples)
            what = f"{channels} channel{'s' * (channels != 1)} of {samples.kind}{samples.bits}"
            photometric = tags.get(ExifTags.Base.PhotometricInterpretation)
            return PhotoError(f"unreadable: a TIFF file of {what}, PhotometricInterpretation {photometric!s:.20}")
        except PhotoError as error:
            return error
        except Exception:  # Pillow raises whatever it likes on damaged files
            return PhotoError("unreadable: a damaged TIFF file")
    return PhotoError(f"unreadable: not a photo ({', '.join(FORMATS)})")


def rgb(image: ImageFile.ImageFile) -> tuple[RGB, str | None]:
    """uint8 [h, w, 3] of an opened picture, and what was reduced. PhotoError for what is not read; Pillow's errors.

    Unsigned samples of up to 16 bits are scaled so that the largest value that the file states (TIFF: BitsPerSample;
    PNM: maxval) becomes 255, to the nearest whole; where TIFF's PhotometricInterpretation says that 0 is white, they
    are turned round. Of 16-bit colour in PNG and TIFF Pillow decodes the high bytes alone: at most one step from that.
    Signed and floating-point samples, which state no white, are refused by name; so are 16-bit samples that all lie in
    the lowest quarter: they are 12 or 14 bits without a word where white is. Palettes, grey and opaque alpha become RGB
    as Pillow's `convert` makes it; transparency, CMYK and LAB are refused, as is a transparent grey of a PNG
    file of 1, 2, 4 or 16 bits whether it is used or not: Pillow does not compare it with the samples that it makes.
    """
    samples = stated(image)
    check_type(samples)
    grey = image.mode == "I" or image.mode.startswith("I;")
    if not grey and image.mode not in _MODES:
        raise PhotoError(f"colour mode {image.mode}")
    packed = image.format == "PNG" and any(tile.args in ("1", "L;2", "L;4") for tile in image.tile)
    image.load()
    if "transparency" in image.info and (grey or packed):
        raise PhotoError("transparency")
    if grey:
        pixels = np.repeat(_grey(np.asarray(image).astype(np.int64), samples)[..., None], 3, axis=2)
    else:
        pixels = _colour(image)
        if samples.bits == 16 and samples.white == _FULL:
            _check_range(pixels, _QUARTER >> 8)
    return pixels, f"{samples.bits} bits a sample reduced to 8" if samples.bits > 8 else None


def _grey(values: npt.NDArray[np.int64], samples: Samples) -> npt.NDArray[np.uint8]:
    """uint8 of the values that Pillow gives for deep grey: a file's own, but a PNM file's scaled up to 16 bits."""
    if samples.white == _FULL:
        _check_range(values, _QUARTER)
    elif values.max(initial=0) > samples.white:
        values = np.rint(values * (samples.white / _FULL)).astype(np.int64)
    if samples.falling:
        values = samples.white - values
    return np.rint(values * 255 / samples.white).clip(0, 255).astype(np.uint8)


def _check_range(values: npt.NDArray[np.integer], quarter: int) -> None:
    most = int(values.max(initial=0))
    if 0 < most < quarter:
        raise PhotoError(
            "sample type uint16 with values in its lowest quarter alone is not read: where white is not said"
        )


def _colour(image: Image.Image) -> RGB:
    if not image.has_transparency_data:
        return np.array(image.convert("RGB"))
    opaque = image.convert("RGBA")
    if opaque.getchannel("A").getextrema()[0] != 255:
        raise PhotoError("transparency")
    return np.array(opaque.convert("RGB"))
