"""Tables out to the formats that encoders take, and back in: `FORMATS`. Needs numpy alone.

A JPEG file is read by `codec.read_header`; `verify.read_tables` reads either.
"""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from qtable.tables import MAX_TABLE_FILE_BYTES, QTables, as_flat_list

_NAMES: Final = (("all components",), ("luma", "chroma"), ("Y", "Cb", "Cr"))
_HASH: Final = ("", "# ", "")
_SLASHES: Final = ("", "// ", "")
_STARS: Final = ("/*\n", " * ", " */\n")


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


# ---- numbers in text ------------------------------------------------------------------------------------------


def _text(parse: Callable[[str], QTables]) -> Callable[[bytes], QTables]:
    """A parser of UTF-8 text, as one of bytes."""

    def parse_bytes(data: bytes) -> QTables:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError("not UTF-8 text") from None
        return parse(text)

    return parse_bytes


def _numbers(text: str) -> list[int]:
    """Whole numbers between commas and white space."""
    tokens = text.replace(",", " ").split()
    wrong = next((token for token in tokens if not re.fullmatch("[0-9]{1,5}", token)), None)
    if wrong is not None:
        raise ValueError(f"{wrong[:20]!r} is not a whole number in baseline JPEG's 1..255")
    return [int(token) for token in tokens]


def _tables(numbers: Sequence[int], order: Literal["natural", "zigzag"] = "natural") -> QTables:
    if len(numbers) not in (64, 128, 192):
        raise ValueError(f"{len(numbers)} table entries; allowed: 64 for each of 1 to 3 tables")
    values = np.array(numbers)
    return QTables(values.reshape(-1, 8, 8)) if order == "natural" else QTables.from_zigzag(values.reshape(-1, 64))


def _ordered(tables: QTables, order: Literal["natural", "zigzag"]) -> list[list[int]]:
    """int [t][64]."""
    values: list[list[int]] = (tables.values.reshape(-1, 64) if order == "natural" else tables.zigzag()).tolist()
    return values


def _rows(entries: Sequence[int], indent: str = "") -> str:
    """Eight lines of eight numbers, each followed by a comma."""
    return "".join(
        indent + ", ".join(f"{entry:3d}" for entry in entries[i : i + 8]) + ",\n" for i in range(0, len(entries), 8)
    )


def _arrays(tables: QTables, order: Literal["natural", "zigzag"], brackets: str) -> str:
    """An array of arrays of 64, as C, Go, Rust and Python write them alike but for the brackets."""
    inner = "".join(f"    {brackets[0]}\n{_rows(t, '        ')}    {brackets[1]},\n" for t in _ordered(tables, order))
    return f"{brackets[0]}\n{inner}{brackets[1]}"


def _read_arrays(brackets: str, comment: str, order: Literal["natural", "zigzag"]) -> Callable[[bytes], QTables]:
    """A parser of all numbers that stand in innermost brackets with nothing but numbers, outside comments."""
    comments = re.compile(comment, re.DOTALL)
    opening, closing = map(re.escape, brackets)
    groups = re.compile(rf"{opening}([0-9\s,]*){closing}")

    def parse(text: str) -> QTables:
        return _tables(_numbers(" ".join(groups.findall(comments.sub(" ", text)))), order)

    return _text(parse)


_C_COMMENT: Final = r"/\*.*?(?:\*/|\Z)|//[^\n]*"
_HASH_COMMENT: Final = r"#[^\n]*"


# ---- tools ----------------------------------------------------------------------------------------------------


def _cjpeg(tables: QTables) -> str:
    named = zip(_NAMES[tables.count - 1], as_flat_list(tables), strict=True)
    return "".join(f"# {name}\n{_rows(table).replace(',', '')}" for name, table in named)


def _read_cjpeg(text: str) -> QTables:
    """rdswitch.c, read_quant_tables: numbers between white space, comments from # to the end of the line."""
    return _tables(_numbers(re.sub(_HASH_COMMENT, " ", text)))


def _imagemagick(tables: QTables) -> str:
    slots = ""
    for slot, (name, table) in enumerate(zip(_NAMES[tables.count - 1], as_flat_list(tables), strict=True)):
        levels = _rows(table, "      ").rstrip(",\n")
        slots += (
            f'  <table slot="{slot}" alias="{name.split()[0]}">\n    <description>{name}</description>\n'
            f'    <levels width="8" height="8" divisor="1">\n{levels}\n    </levels>\n  </table>\n'
        )
    return f"<quantization-tables>\n{slots}</quantization-tables>\n"


def _read_imagemagick(text: str) -> QTables:
    """MagickCore/quantization-table.c: a level is its number divided by `divisor`, rounded."""
    if "<!ENTITY" in text:
        raise ValueError("XML entities are not read")
    try:
        elements = ET.fromstring(text).findall("table")
    except (ET.ParseError, ValueError) as error:
        raise ValueError(f"not XML: {error}") from None
    slots: dict[str, list[int]] = {}
    for element in elements:
        slot, levels = element.get("slot", ""), element.find("levels")
        if slot in slots or levels is None:
            raise ValueError(f"slot {slot[:20]!r} is there twice or has no <levels>")
        divisor = _numbers(levels.get("divisor", "1"))
        if len(divisor) != 1 or divisor[0] == 0:
            raise ValueError(f"the divisor of slot {slot[:20]!r} is not a whole number above 0")
        slots[slot] = [(2 * number + divisor[0]) // (2 * divisor[0]) for number in _numbers(levels.text or "")]
    if sorted(slots) != list("012"[: len(slots)]):
        raise ValueError(f"{len(slots)} tables in other slots than 0, 1, 2")
    if any(len(levels) != 64 for levels in slots.values()):
        raise ValueError("a table without 64 levels")
    return _tables([level for slot in sorted(slots) for level in slots[slot]])


def _ffmpeg(tables: QTables) -> str:
    lists = [",".join(map(str, table)) for table in as_flat_list(tables)]
    options = zip(("-intra_matrix", "-chroma_intra_matrix"), lists, strict=False)
    return " ".join(["-q:v 8", *(f"{option} {numbers}" for option, numbers in options)]) + "\n"


def _read_ffmpeg(text: str) -> QTables:
    words = re.sub(_HASH_COMMENT, " ", text).replace('"', "").replace("'", "").split()
    options = dict(pairwise(words))
    scale = options.get("-q:v", options.get("-qscale:v", "8"))
    if scale != "8":
        raise ValueError(f"-q:v {scale[:20]} multiplies the matrices by q/8; only -q:v 8 is read")
    names = [name for name in ("-intra_matrix", "-chroma_intra_matrix") if name in options]
    return _tables([number for name in names for number in _numbers(options[name])])


def _read_json(text: str) -> QTables:
    try:
        return QTables.from_dict(json.loads(text))
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def _numpy(tables: QTables) -> bytes:
    file = io.BytesIO()
    np.save(file, tables.values)
    return file.getvalue()


def _read_numpy(data: bytes) -> QTables:
    try:
        file = io.BytesIO(data)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, _, _ = read[np.lib.format.read_magic(file)[0]](file)
        if not 64 <= np.prod([float(side) for side in shape]) <= 3 * 64:  # before memory is taken for it
            raise ValueError(shape)
        array: npt.NDArray[np.generic] = np.load(io.BytesIO(data), allow_pickle=False)
        if array.dtype.kind not in "uif":
            raise ValueError(array.dtype)
    except Exception:  # numpy evaluates the header and raises whatever that raises
        raise ValueError("not a .npy file of one array of numbers, 64 to a table, 1 to 3 tables") from None
    return QTables(array)


# ---- marker segments (ITU-T T.81, annex B) --------------------------------------------------------------------


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of one segment after the other."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if data[at] != 0xFF or length < 2 or len(body) != length - 2:
            raise ValueError(f"no whole marker segment at byte {at}")
        yield data[at + 1], body
        at += 2 + length


def _dqt(tables: QTables) -> bytes:
    return b"".join(_segment(0xDB, bytes([slot]) + table.tobytes()) for slot, table in enumerate(tables.zigzag()))


def _read_dqt(data: bytes) -> QTables:
    slots: dict[int, list[int]] = {}
    for marker, body in _segments(data):
        if marker != 0xDB:
            raise ValueError(f"marker {marker:#04x} where only DQT segments (0xdb) are read")
        while body:
            slot, size = body[0] & 15, 1 + (body[0] >> 4)
            entries, body = body[1 : 1 + 64 * size], body[1 + 64 * size :]
            if size > 2 or slot in slots or len(entries) != 64 * size:
                raise ValueError(f"a malformed or second table in slot {slot}")
            slots[slot] = np.frombuffer(entries, ">u2" if size == 2 else "u1").tolist()
    if sorted(slots) != list(range(len(slots))):
        raise ValueError(f"tables in slots {sorted(slots)}; allowed: 0, 1, 2")
    return _tables([entry for slot in sorted(slots) for entry in slots[slot]], "zigzag")


def _donor(tables: QTables) -> bytes:
    """8 x 8 grey pixels, baseline, 4:4:4; the Huffman tables have one symbol each: no difference, end of block."""
    frame = b"".join(bytes([i + 1, 0x11, min(i, tables.count - 1)]) for i in range(3))
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
            _dqt(tables),
            _segment(0xC0, b"\x08\0\x08\0\x08\x03" + frame),
            *(_segment(0xC4, bytes([which, 1] + 15 * [0] + [0])) for which in (0x00, 0x10)),
            _segment(0xDA, b"\x03\x01\0\x02\0\x03\0\0\x3f\0"),
            b"\x03\xff\xd9",  # two codes 0 for each of three blocks, filled up with ones
        )
    )


def _read_donor(data: bytes) -> QTables:
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG file (no SOI marker)")
    found = b""
    for marker, body in _segments(data[2:]):
        if marker == 0xDA:
            break
        found += _segment(marker, body) if marker == 0xDB else b""
    return _read_dqt(found)


# ---- code -----------------------------------------------------------------------------------------------------


def _c(tables: QTables) -> str:
    n = tables.count
    return (
        f"static const unsigned int qtable_natural[{n}][64] = {_arrays(tables, 'natural', '{}')};\n"
        "#ifdef JPEGLIB_H\n"
        "static void qtable_set(j_compress_ptr cinfo)\n"
        "{\n"
        "    int i;\n"
        f"    for (i = 0; i < {n}; i++)\n"
        "        jpeg_add_quant_table(cinfo, i, qtable_natural[i], 100, TRUE);\n"
        "    for (i = 0; i < cinfo->num_components; i++)\n"
        f"        cinfo->comp_info[i].quant_tbl_no = i < {n} ? i : {n - 1};\n"
        "}\n"
        "#endif\n"
    )


def _v4l2(tables: QTables) -> str:
    return (
        f"static unsigned char qtable_zigzag[{tables.count}][64] = {_arrays(tables, 'zigzag', '{}')};\n"
        "#ifdef V4L2_CID_JPEG_LUMA_QUANTIZATION\n"
        "static void qtable_controls(struct v4l2_ext_control control[2])\n"
        "{\n"
        "    control[0].id = V4L2_CID_JPEG_LUMA_QUANTIZATION;\n"
        "    control[0].ptr = qtable_zigzag[0];\n"
        "    control[1].id = V4L2_CID_JPEG_CHROMA_QUANTIZATION;\n"
        f"    control[1].ptr = qtable_zigzag[{tables.count - 1}];\n"
        "    control[0].size = control[1].size = 64;\n"
        "}\n"
        "#endif\n"
    )


def _vaapi(tables: QTables) -> str:
    return (
        f"static const unsigned char qtable_zigzag[{tables.count}][64] = {_arrays(tables, 'zigzag', '{}')};\n"
        "#ifdef VA_ENC_JPEG_H\n"
        "static void qtable_fill(VAQMatrixBufferJPEG *matrix)\n"
        "{\n"
        "    int i;\n"
        "    matrix->load_lum_quantiser_matrix = matrix->load_chroma_quantiser_matrix = 1;\n"
        "    for (i = 0; i < 64; i++) {\n"
        "        matrix->lum_quantiser_matrix[i] = qtable_zigzag[0][i];\n"
        f"        matrix->chroma_quantiser_matrix[i] = qtable_zigzag[{tables.count - 1}][i];\n"
        "    }\n"
        "}\n"
        "#endif\n"
    )


# ---- scaling lists of video encoders ----------------------------------------------------------------------------

_PLANES: Final = ("LUMA", "CHROMAU", "CHROMAV")


def _scaling_list(name: str, entries: Sequence[int]) -> str:
    return f"{name} =\n{_rows(entries)}"


def _x264(tables: QTables) -> str:
    """common/set.c, x264_cqm_parse_file: a list that is not there is flat 16; CHROMAU serves both chroma planes."""
    planes = zip(_PLANES, tables.components().reshape(3, 64).tolist(), strict=True)
    return "".join(_scaling_list(f"INTRA8X8_{plane}", entries) for plane, entries in planes)


def _x265(tables: QTables) -> str:
    """common/scalinglist.cpp, parseScalingList: every list in this order; 16 and 32 repeat each entry of the 8 x 8."""
    lines = []
    for side in (4, 8, 16, 32):
        for kind in ("INTRA", "INTER"):
            for plane, table in zip(_PLANES[: 1 if side == 32 else 3], tables.components(), strict=False):
                entries = table.ravel().tolist() if kind == "INTRA" and side > 4 else [16] * min(64, side * side)
                lines.append(_scaling_list(f"{kind}{side}X{side}_{plane}", entries))
                if side > 8:
                    lines.append(_scaling_list(f"{kind}{side}X{side}_{plane}_DC", entries[:1]))
    return "".join(lines)


def _read_scaling_lists(text: str) -> QTables:
    """The INTRA8X8 lists. Equal ones are one table, unless the heading says that there are more."""
    found = dict(re.findall(r"(INTRA8X8_[A-Z]+)\s*=([0-9,\s]*)", re.sub(_HASH_COMMENT, " ", text)))
    missing = next((plane for plane in _PLANES if f"INTRA8X8_{plane}" not in found), None)
    if missing is not None:
        raise ValueError(f"no list INTRA8X8_{missing}")
    values = _tables([number for plane in _PLANES for number in _numbers(found[f"INTRA8X8_{plane}"])]).values
    luma, cb, cr = values
    different = 3 if not np.array_equal(cb, cr) else 2 if not np.array_equal(luma, cb) else 1
    said = re.search(r"([123]) quantization table", text)
    return QTables(values[: max(different, int(said[1]) if said else 1)])


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
            re.compile(rb"\A\s*\{"),
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
            _read_arrays("[]", _HASH_COMMENT, "natural"),
            _HASH,
            re.compile(rb"^qtables\s*=", re.MULTILINE),
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
            re.compile(rb"-intra_matrix\s"),
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
