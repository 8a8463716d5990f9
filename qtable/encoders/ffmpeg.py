"""Tables as command lines of ffmpeg's mjpeg encoder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from qtable.encoders.text import _HASH_COMMENT, _numbers
from qtable.jpeg.tables import QTables, as_flat_list

_OPTION: Final = re.compile(r"-(\w+)(?::(?!a|s|d|t)(\S+))?")
"""An option and its stream; those of sound, subtitles, data and attachments are none."""
_NAMES: Final = {"qscale": "q", "vcodec": "codec", "c": "codec"}
_READ: Final = ("q", "qmin", "qmax", "global_quality", "intra_matrix", "chroma_intra_matrix", "codec")
_DC: Final = 8
_ENTRY: Final = 65535


def _ffmpeg(tables: QTables) -> str:
    lists = [",".join(map(str, table)) for table in as_flat_list(tables)]
    options = zip(("-intra_matrix", "-chroma_intra_matrix"), lists, strict=False)
    return " ".join(["-q:v 8", *(f"{option} {numbers}" for option, numbers in options)]) + "\n"


def _read_ffmpeg(text: str) -> QTables:
    """The tables in the file that a command line makes: mpegvideo_enc.c, `encode_picture`.

    An entry becomes matrix x q / 8, rounded down, at most 255, and DC is 8. At q 8 the matrices are taken as they are,
    DC too, so that what was exported comes back.
    """
    options = _options(re.sub(_HASH_COMMENT, " ", text))
    if options.get("codec", "mjpeg") != "mjpeg":
        raise ValueError(
            f"the encoder is {options['codec'][:20]!r}, not mjpeg: other encoders scale matrices otherwise"
        )
    matrices = [_matrix(name, options[name]) for name in ("intra_matrix", "chroma_intra_matrix") if name in options]
    if "intra_matrix" not in options:
        raise ValueError("no -intra_matrix, so that luma has ffmpeg's own: make a file and import that")
    q = _scale(options)
    scaled = np.minimum(np.array(matrices) * q // 8, 255)
    if not scaled.all():
        matrix, at = np.argwhere(scaled == 0)[0]
        raise ValueError(
            f"entry {at + 1} of a matrix is {matrices[matrix][at]}; at q {q} ffmpeg takes {-(-8 // q)} to {_ENTRY}"
        )
    if q != 8:
        scaled[:, 0] = _DC
    return QTables(scaled.reshape(-1, 8, 8))


def _options(text: str) -> dict[str, str]:
    """Values of the options in `_READ`, by their longest common name. ValueError for one with two values."""
    options: dict[str, str] = {}
    words = text.replace("\\\n", " ").replace('"', "").replace("'", "").split()
    for word, value in pairwise(words):
        option = _OPTION.fullmatch(word)
        name = _NAMES.get(option[1], option[1]) if option else ""
        if option is None or name not in _READ:
            continue
        if option[2] not in (None, "v", "V", "0", "v:0", "V:0"):
            raise ValueError(f"{word[:40]}: only options of the first video stream are read, such as -{option[1]}:v")
        if options.setdefault(name, value) != value:
            raise ValueError(f"-{name} is there twice, {options[name][:20]} and {value[:20]}: one picture, one value")
    return options


def _matrix(name: str, text: str) -> Sequence[int]:
    numbers = _numbers(text)
    if len(numbers) != 64:
        raise ValueError(f"-{name} has {len(numbers)} table entries, not 64")
    wrong = next((number for number in numbers if not 1 <= number <= _ENTRY), None)
    if wrong is not None:
        raise ValueError(f"-{name}: {wrong} is outside ffmpeg's 1..{_ENTRY}")
    return numbers


def _scale(options: dict[str, str]) -> int:
    """The q of a picture: that of -q, kept between -qmin and -qmax. ValueError where ffmpeg would choose one itself."""
    if "global_quality" in options:
        raise ValueError(
            "-global_quality is not read (alone it does nothing, with -flags qscale it is 118 q): say -q:v"
        )
    low, high = _whole("qmin", options.get("qmin", "2")), _whole("qmax", options.get("qmax", "31"))
    if low > high:
        raise ValueError(f"-qmin {low} is above -qmax {high}")
    if "q" in options:
        return min(max(_whole("q:v", options["q"], least=0), low), high)
    if low != high:
        raise ValueError("no -q:v, so that ffmpeg chooses q itself, and q multiplies the matrices by q/8: say -q:v 8")
    return low


def _whole(name: str, value: str, least: int = 1) -> int:
    if not re.fullmatch("[0-9]{1,2}", value) or not least <= int(value) <= 69:
        raise ValueError(f"-{name} {value[:20]} is not a whole number {least}..69")
    return int(value)
