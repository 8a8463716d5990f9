"""Tables out to the formats that encoders take, and back in: `FORMATS`. Needs numpy alone.

A JPEG file is read by `header.read_header`; `reading.read_tables` reads either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from qtable.encoders.code import _c, _v4l2, _vaapi
from qtable.encoders.ffmpeg import _ffmpeg, _read_ffmpeg
from qtable.encoders.python import _MARK, _read_pillow
from qtable.encoders.scaling_lists import _read_scaling_lists, _x264, _x265
from qtable.encoders.segments import _donor, _dqt, _read_donor, _read_dqt
from qtable.encoders.text import (
    _C_COMMENT,
    _HASH,
    _NAMES,
    _SLASHES,
    _STARS,
    _arrays,
    _read_arrays,
    _text,
)
from qtable.encoders.tools import (
    _cjpeg,
    _imagemagick,
    _numpy,
    _read_cjpeg,
    _read_imagemagick,
    _read_json,
    _read_numpy,
)
from qtable.jpeg.tables import MAX_TABLE_FILE_BYTES, QTables


@dataclass(frozen=True)
class Format:
    """One way to hand tables to encoders.

    suffix: of its files. order: of the 64 entries in them. most: how many tables it can hold.
    usage: the command or code that uses a file, exactly; FILE is the file, SLOTS `cjpeg_slots`, LAST the last table's
    index. caveats: what the encoder changes without a word, and what was not tried.
    body, parse: tables to content without its comments, and content (at most `MAX_TABLE_FILE_BYTES`) to tables.
    comment: what stands before, at the start of each line of, and after a comment; None if it has none.
    mark: occurs in the content of such files and no others; None for plain numbers.
    """

    name: str
    suffix: str
    order: Literal["natural", "zigzag"]
    usage: str
    caveats: tuple[str, ...]
    body: Callable[[QTables], str | bytes]
    parse: Callable[[bytes], QTables]
    comment: tuple[str, str, str] | None
    mark: re.Pattern[bytes] | None
    most: int = 3

    def write(self, tables: QTables) -> str | bytes:
        """A file's content, with usage and caveats as its first comments. ValueError if it cannot hold the tables."""
        if tables.count > self.most:
            raise ValueError(f"format {self.name} holds luma and chroma tables; these are 3 (Y, Cb, Cr)")
        content = self.body(tables)
        if isinstance(content, bytes) or self.comment is None:
            return content
        before, each, after = self.comment
        many = "1 quantization table" if tables.count == 1 else f"{tables.count} quantization tables"
        heading = f"{many} ({', '.join(_NAMES[tables.count - 1])}), {self.order} order"
        lines = (heading, "use: " + self.use(tables), *self.caveats)
        return before + "".join(f"{each}{line}\n" for line in lines) + after + content

    def use(self, tables: QTables, file: str = "FILE") -> str:
        """The command or code that uses these tables, written to `file`."""
        slots = ",".join(map(str, cjpeg_slots(tables)))
        return self.usage.replace("SLOTS", slots).replace("LAST", str(tables.count - 1)).replace("FILE", file)

    def read(self, data: bytes) -> QTables:
        """The inverse of `write`; ValueError, in one line, for any other bytes."""
        if len(data) > MAX_TABLE_FILE_BYTES:
            raise ValueError(f"{len(data)} bytes; a table file has at most {MAX_TABLE_FILE_BYTES}")
        return self.parse(data)


def detect(data: bytes) -> Format:
    """The format of a file by its content; cjpeg's, plain numbers, if nothing tells another."""
    start = data[:MAX_TABLE_FILE_BYTES].removeprefix(b"\xef\xbb\xbf")
    return next((f for f in FORMATS.values() if f.mark is not None and f.mark.search(start)), FORMATS["cjpeg"])


def cjpeg_slots(tables: QTables) -> tuple[int, ...]:
    """The argument of `cjpeg -qslots` that gives each component its table."""
    return tuple(range(tables.count))


def to_cjpeg(tables: QTables) -> str:
    """The text file of `cjpeg -qtables`."""
    return str(FORMATS["cjpeg"].write(tables))


_EXPERIMENTAL: Final = (
    "experimental: at QP 28 the step is 16 x entry / 16 = entry, as in JPEG; --ipratio 1 keeps I frames at that QP",
    "the encoder predicts first and quantizes what is left, so steps are JPEG's but pictures, sizes and gains are not",
)
FORMATS: Final[dict[str, Format]] = {
    entry.name: entry
    for entry in (
        Format(
            "cjpeg",
            ".txt",
            "natural",
            "cjpeg -qtables FILE -qslots SLOTS -sample 2x2 -optimize -outfile OUT.jpg IN.ppm",
            (
                "no -quality: it multiplies the tables (50 is the identity; 100 makes every entry 1)",
                "without -qslots a single table leaves chroma with Annex K's, and a third table is not used",
                "mozjpeg's cjpeg zeroes more coefficients with the same tables (trellis) unless -notrellis is given",
                "jpegli (cjpeg linked with its libjpeg) quantizes adaptively; cjpegli itself takes no tables",
            ),
            _cjpeg,
            _text(_read_cjpeg),
            _HASH,
            None,
        ),
        Format(
            "json",
            ".json",
            "natural",
            "qtable evaluate --tables FILE",
            ("no encoder reads it: it is what qtable itself reads and writes",),
            lambda tables: json.dumps(tables.to_dict()) + "\n",
            _text(_read_json),
            None,
            re.compile(rb"\A\s*\{(?!\s*(?:\d+\s*:|'values'))"),
        ),
        Format(
            "pillow",
            ".py",
            "natural",
            'image.save("OUT.jpg", "JPEG", qtables=qtables, subsampling="4:2:0", optimize=True)',
            (
                "no quality: it multiplies the tables (and Pillow before 11.3 scales by another rule than later ones)",
                "into a BytesIO, optimize and progressive can fail on detailed photos: save to a file",
            ),
            lambda tables: f"qtables = {_arrays(tables, 'natural', '[]')}\n",
            _read_pillow,
            _HASH,
            re.compile(_MARK, re.MULTILINE),
        ),
        Format(
            "imagemagick",
            ".xml",
            "natural",
            "convert IN.png -quality 50 -define jpeg:q-table=FILE -define jpeg:dct-method=islow"
            " -sampling-factor 4:2:0 OUT.jpg",
            (
                "ImageMagick 7: magick instead of convert",
                "-quality 50 must stand there: the default (92, or what a JPEG input had) multiplies the tables",
                "without dct-method=islow a faster, less exact DCT gives other coefficients",
                "photos without colour become grey files; GraphicsMagick ignores q-table without a word",
            ),
            _imagemagick,
            _text(_read_imagemagick),
            ('<?xml version="1.0" encoding="UTF-8"?>\n<!--\n', "  ", "-->\n"),
            re.compile(rb"<quantization-tables"),
        ),
        Format(
            "ffmpeg",
            ".txt",
            "natural",
            "ffmpeg -i IN.png $(grep -v '^#' FILE) -pix_fmt yuvj420p -frames:v 1 -update 1 OUT.jpg",
            (
                "DC IS LOST: the mjpeg encoder always quantizes DC by 8, whatever the first entry of a table is",
                "another -q:v than 8 multiplies the other entries by q/8",
                "it rounds more coefficients to 0 than libjpeg does with the same tables",
                "without -pix_fmt the encoder chooses the chroma subsampling",
            ),
            _ffmpeg,
            _text(_read_ffmpeg),
            _HASH,
            re.compile(rb"-(?:chroma_)?intra_matrix(?::[vV0:]+)?\s"),
            most=2,
        ),
        Format(
            "c",
            ".h",
            "natural",
            '#include <jpeglib.h>, then "FILE"; qtable_set(&cinfo) between jpeg_set_defaults and jpeg_start_compress',
            (
                "for libjpeg, libjpeg-turbo, mozjpeg and jpegli; YCbCr or grey",
                "jpeg_set_quality after it replaces the tables, jpeg_set_colorspace undoes quant_tbl_no",
                "mozjpeg (trellis) and jpegli (adaptive) zero more coefficients with the same tables",
            ),
            _c,
            _read_arrays("{}", _C_COMMENT, "natural"),
            _STARS,
            re.compile(rb"\bjpeg_add_quant_table\b"),
        ),
        Format(
            "v4l2",
            ".h",
            "zigzag",
            '#include <linux/videodev2.h>, then "FILE"; qtable_controls(control), then ioctl VIDIOC_S_EXT_CTRLS',
            (
                "not run: mainline Linux has no such controls, only kernels of vendors (ChromeOS, Rockchip, Amlogic)",
                "check a frame of the device: qtable inspect FRAME.jpg",
            ),
            _v4l2,
            _read_arrays("{}", _C_COMMENT, "zigzag"),
            _STARS,
            re.compile(rb"\bV4L2_CID_JPEG_LUMA_QUANTIZATION\b"),
            most=2,
        ),
        Format(
            "vaapi",
            ".h",
            "zigzag",
            '#include <va/va.h>, <va/va_enc_jpeg.h>, then "FILE"; qtable_fill(&matrix) fills the buffer of type'
            " VAQMatrixBufferType",
            (
                "not run: set quality 50 in VAEncPictureParameterBufferJPEG, drivers multiply the tables by it",
                "some drivers ignore the buffer: check a frame of the device with qtable inspect FRAME.jpg",
            ),
            _vaapi,
            _read_arrays("{}", _C_COMMENT, "zigzag"),
            _STARS,
            re.compile(rb"\bVAQMatrixBufferJPEG\b"),
            most=2,
        ),
        Format(
            "donor",
            ".jpg",
            "zigzag",
            "nvjpegJpegStreamParse of FILE, then nvjpegEncoderParamsCopyQuantizationTables",
            (
                "not run with nvJPEG: no nvjpegEncoderParamsSetQuality after it; check with qtable inspect OUT.jpg",
                "serves any tool that copies tables from a JPEG file; three tables only where the tool has three",
            ),
            _donor,
            _read_donor,
            None,
            re.compile(rb"\A\xff\xd8"),
        ),
        Format(
            "rust",
            ".rs",
            "natural",
            "encoder.set_quantization_tables(QuantizationTableType::Custom(Box::new(QTABLES[0])),"
            " QuantizationTableType::Custom(Box::new(QTABLES[LAST])))",
            (
                "for the crate jpeg-encoder; call set_sampling_factor too, or the quality chooses it",
                "its chroma downsampling is simpler than libjpeg's: other chroma coefficients",
            ),
            lambda tables: f"pub static QTABLES: [[u16; 64]; {tables.count}] = {_arrays(tables, 'natural', '[]')};\n",
            _read_arrays("[]", _C_COMMENT, "natural"),
            _SLASHES,
            re.compile(rb"\[\[u16; 64\]"),
            most=2,
        ),
        Format(
            "go",
            ".go",
            "zigzag",
            "var unscaledQuant = [nQuantIndex][blockSize]byte{qtableZigzag[0], qtableZigzag[LAST]}",
            (
                "image/jpeg has no table parameter: replace unscaledQuant in a copy of its package by the line above",
                "encode with &Options{Quality: 50}: any other, and the default of 75, multiplies the tables",
            ),
            lambda tables: (
                f"package jpeg\n\nvar qtableZigzag = [{tables.count}][64]byte{_arrays(tables, 'zigzag', '{}')}\n"
            ),
            _read_arrays("{}", _C_COMMENT, "zigzag"),
            _SLASHES,
            re.compile(rb"\[64\](?:byte|uint8)\s*\{"),
            most=2,
        ),
        Format(
            "dqt",
            ".bin",
            "zigzag",
            "put FILE where the DQT segments stand in the header that your encoder writes",
            (
                "one DQT segment a table, slots from 0 on: FF DB 00 43, slot, 64 entries",
                "in a finished file it changes the picture: coefficients must be quantized with the same tables",
            ),
            _dqt,
            _read_dqt,
            None,
            re.compile(rb"\A\xff\xdb"),
        ),
        Format(
            "numpy",
            ".npy",
            "natural",
            'QTables(numpy.load("FILE"))',
            ("no encoder reads it: uint8 [t, 8, 8]",),
            _numpy,
            _read_numpy,
            None,
            re.compile(rb"\A\x93NUMPY"),
        ),
        Format(
            "x265",
            ".txt",
            "natural",
            "x265 --qp 28 --ipratio 1 --keyint 1 --scaling-list FILE -o OUT.265 IN.y4m",
            (
                *_EXPERIMENTAL,
                "transforms of 16 x 16 and 32 x 32 take each entry for 2 x 2 and 4 x 4 frequencies; 4 x 4 stay at 16",
            ),
            _x265,
            _text(_read_scaling_lists),
            _HASH,
            re.compile(rb"\bINTRA16X16_LUMA\b"),
        ),
        Format(
            "x264",
            ".txt",
            "natural",
            "x264 --qp 28 --ipratio 1 --keyint 1 --no-psy --output-csp i444 --cqmfile FILE -o OUT.264 IN.y4m",
            (
                *_EXPERIMENTAL,
                "only 8 x 8 transforms take the lists, chroma's only in 4:4:4; blocks coded in 4 x 4 stay at 16",
            ),
            _x264,
            _text(_read_scaling_lists),
            _HASH,
            re.compile(rb"\bINTRA8X8_LUMA\b"),
            most=2,
        ),
    )
}
"""Ways to hand tables to encoders, by name."""
