"""`QTables`, the value that everything in qtable passes: one to three JPEG quantization tables.

Row-major ("natural") order everywhere: row = vertical frequency, column = horizontal frequency.
Zigzag order exists only at the borders that need it (`QTables.zigzag`, `QTables.from_zigzag`).
Needs numpy alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qtable.files import write_atomically

TableArray = npt.NDArray[np.uint8]
MAX_TABLE_FILE_BYTES: Final = 1 << 20
"""A table file holds at most 192 numbers; anything above this size is something else."""


def _zigzag_order() -> npt.NDArray[np.intp]:
    """Natural index of the k-th coefficient along the zigzag (ITU-T T.81, figure A.6)."""
    walk = sorted(
        ((u, v) for u in range(8) for v in range(8)),
        key=lambda p: (p[0] + p[1], p[0] if (p[0] + p[1]) % 2 else p[1]),
    )
    return np.array([8 * u + v for u, v in walk], dtype=np.intp)


ZIGZAG: Final = _zigzag_order()
"""int [64]: `natural.reshape(64)[ZIGZAG]` is in zigzag order (libjpeg's `jpeg_natural_order`)."""


def _table(text: str) -> npt.NDArray[np.int64]:
    return np.array(text.split(), dtype=np.int64).reshape(8, 8)


# ITU-T T.81, tables K.1 and K.2.
_ANNEX_K_LUMA = _table("""
 16  11  10  16  24  40  51  61   12  12  14  19  26  58  60  55   14  13  16  24  40  57  69  56
 14  17  22  29  51  87  80  62   18  22  37  56  68 109 103  77   24  35  55  64  81 104 113  92
 49  64  78  87 103 121 120 101   72  92  95  98 112 100 103  99""")
_ANNEX_K_CHROMA = _table("""
 17  18  24  47  99  99  99  99   18  21  26  66  99  99  99  99   24  26  56  99  99  99  99  99
 47  66  99  99  99  99  99  99   99  99  99  99  99  99  99  99   99  99  99  99  99  99  99  99
 99  99  99  99  99  99  99  99   99  99  99  99  99  99  99  99""")
# The tables that mozjpeg offers as `-quant-table N`, at quality 50; one table = the same for chroma.
_MOZJPEG: Final[tuple[tuple[npt.NDArray[np.int64], ...], ...]] = (
    (_ANNEX_K_LUMA, _ANNEX_K_CHROMA),  # 0: Annex K
    (np.full((8, 8), 16),),  # 1: flat
    (  # 2: MS-SSIM on the Kodak photos
        _table("""
 12  17  20  21  30  34  56  63   18  20  20  26  28  51  61  55   19  20  21  26  33  58  69  55
 26  26  26  30  46  87  86  66   31  33  36  40  46  96 100  73   40  35  46  62  81 100 111  91
 46  66  76  86 102 121 120 101   68  90  90  96 113 102 105 103"""),
        _table("""
  8  12  15  15  86  96  96  98   13  13  15  26  90  96  99  98   12  15  18  96  99  99  99  99
 17  16  90  96  99  99  99  99   96  96  99  99  99  99  99  99   99  99  99  99  99  99  99  99
 99  99  99  99  99  99  99  99   99  99  99  99  99  99  99  99"""),
    ),
    (  # 3: N. Robidoux for ImageMagick; mozjpeg's default
        _table("""
 16  16  16  18  25  37  56  85   16  17  20  27  34  40  53  75   16  20  24  31  43  62  91 135
 18  27  31  40  53  74 106 156   25  34  43  53  69  94 131 189   37  40  62  74  94 124 169 238
 56  53  91 106 131 169 226 311   85  75 135 156 189 238 311 418"""),
    ),
    (  # 4: PSNR-HVS on the Kodak photos
        _table("""
  9  10  12  14  27  32  51  62   11  12  14  19  27  44  59  73   12  14  18  25  42  59  79  78
 17  18  25  42  61  92  87  92   23  28  42  75  79 112 112  99   40  42  59  84  88 124 132 111
 42  64  78  95 105 126 125  99   70  75 100 102 116 100 107  98"""),
        _table("""
  9  10  17  19  62  89  91  97   12  13  18  29  84  91  88  98   14  19  29  93  95  95  98  97
 20  26  84  88  95  95  98  94   26  86  91  93  97  99  98  99   99 100  98  99  99  99  99  99
 99  99  99  99  99  99  99  99   97  97  99  99  99  99  97  99"""),
    ),
    (  # 5: Klein, Silverstein, Carney 1992
        _table("""
 10  12  14  19  26  38  57  86   12  18  21  28  35  41  54  76   14  21  25  32  44  63  92 136
 19  28  32  41  54  75 107 157   26  35  44  54  70  95 132 190   38  41  63  75  95 125 170 239
 57  54  92 107 132 170 227 312   86  76 136 157 190 239 312 419"""),
    ),
    (  # 6: Watson, Taylor, Borthwick 1997 (DCTune on dental X-rays)
        _table("""
  7   8  10  14  23  44  95 241    8   8  11  15  25  47 102 255   10  11  13  19  31  58 127 255
 14  15  19  27  44  83 181 255   23  25  31  44  72 136 255 255   44  47  58  83 136 255 255 255
 95 102 127 181 255 255 255 255  241 255 255 255 255 255 255 255"""),
    ),
    (  # 7: Ahumada, Watson, Peterson 1993
        _table("""
 15  11  11  12  15  19  25  32   11  13  10  10  12  15  19  24   11  10  14  14  16  18  22  27
 12  10  14  18  21  24  28  33   15  12  16  21  26  31  36  42   19  15  18  24  31  38  45  53
 25  19  22  28  36  45  55  65   32  24  27  33  42  53  65  77"""),
    ),
    (  # 8: Peterson, Ahumada, Watson 1993
        _table("""
 14  10  11  14  19  25  34  45   10  11  11  12  15  20  26  33   11  11  15  18  21  25  31  38
 14  12  18  24  28  33  39  47   19  15  21  28  36  43  51  59   25  20  25  33  43  54  64  74
 34  26  31  39  51  64  77  91   45  33  38  47  59  74  91 108"""),
    ),
)
PRESETS: Final[tuple[str, ...]] = ("annex-k", "flat", *(f"mozjpeg-{n}" for n in range(9)))
"""Names of the published tables that `QTables.preset` makes."""


def scale(table: npt.NDArray[np.int64], quality: int) -> TableArray:
    """A quality-50 table at another IJG quality; jcparam.c, `jpeg_quality_scaling` and `jpeg_add_quant_table`.

    table: int [8, 8] or [t, 8, 8]. quality: 1..100, ValueError for others. Returns uint8 of the same shape, 1..255
    (baseline).
    """
    if isinstance(quality, bool) or quality != int(quality) or not 1 <= quality <= 100:
        raise ValueError(f"quality {quality} is outside libjpeg's 1..100")
    percent = 5000 // int(quality) if quality < 50 else 200 - 2 * int(quality)
    return np.clip((table * percent + 50) // 100, 1, 255).astype(np.uint8)


def _checked(values: npt.ArrayLike) -> TableArray:
    """uint8 [t, 8, 8] or ValueError naming the first entry that is not an integer in 1..255."""
    try:
        array = np.asarray(values)
        array = array if array.dtype.kind in "iu" else array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("quantization tables must be numbers of shape [t, 8, 8] with t = 1, 2 or 3") from None
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[1:] != (8, 8) or not 1 <= array.shape[0] <= 3:
        raise ValueError(f"quantization tables have shape {list(np.shape(values))}; allowed: [t, 8, 8], t = 1, 2 or 3")
    bad = np.argwhere(~((array >= 1) & (array <= 255) & (array == np.floor(array))))
    if len(bad):
        t, u, v = bad[0]
        raise ValueError(f"entry [{t},{u},{v}] = {array[t, u, v]} is not an integer in baseline JPEG's 1..255")
    return array.astype(np.uint8)


def _numbers_alone(values: Any, depth: int) -> bool:
    """Whether a JSON value is numbers, in lists nested no deeper. NumPy takes "1" for 1 and pads texts."""
    if isinstance(values, list):
        return depth > 0 and all(_numbers_alone(value, depth - 1) for value in values)
    return isinstance(values, int | float) and not isinstance(values, bool)


@dataclass(frozen=True, eq=False, repr=False)
class QTables:
    """One to three quantization tables; immutable, equal and hashed by content.

    values: uint8 [t, 8, 8], entries 1..255, row-major (row = vertical frequency).
    t = 1: one table for all components; 2: luma, chroma; 3: Y, Cb, Cr.
    A single [8, 8] table is taken as t = 1.

    Raises ValueError naming the entry for anything else (0, 256, NaN, fractions, wrong shapes).
    """

    values: npt.NDArray[Any]

    def __post_init__(self) -> None:
        values = _checked(self.values).copy()
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    @classmethod
    def standard(cls, quality: int = 50) -> QTables:
        """Annex K's luma and chroma tables exactly as libjpeg-turbo writes them at `quality` 1..100.

        ValueError for other qualities.
        """
        return cls.preset("annex-k", quality)

    @classmethod
    def preset(cls, name: str, quality: int = 50) -> QTables:
        """A published table by name, one of `PRESETS`, scaled to an IJG `quality` (1..100; 50 = as published).

        ValueError for other names and qualities.
        """
        if name not in PRESETS:
            raise ValueError(f"preset {name!r} is unknown; allowed: {', '.join(PRESETS)}")
        index = {"annex-k": 0, "flat": 1}.get(name, -1)
        tables = _MOZJPEG[index if index >= 0 else int(name.rsplit("-", 1)[1])]
        return cls(scale(np.stack(tables), quality))

    @classmethod
    def flat(cls, step: int) -> QTables:
        """Every entry of every component equal to `step` (1..255, ValueError for others)."""
        return cls(np.full((1, 8, 8), step))

    @classmethod
    def from_zigzag(cls, values: npt.ArrayLike) -> QTables:
        """From int [t, 64] (or [64]) in zigzag order, as a file's DQT segment has it.

        ValueError for other shapes and entries.
        """
        try:
            array = np.atleast_2d(np.asarray(values))
        except ValueError:
            raise ValueError("zigzag tables must be numbers of shape [t, 64] with t = 1, 2 or 3") from None
        if array.ndim != 2 or array.shape[1] != 64:
            raise ValueError(f"zigzag tables have shape {list(array.shape)}; allowed: [t, 64]")
        natural = np.empty_like(array)
        natural[:, ZIGZAG] = array
        return cls(natural.reshape(len(array), 8, 8))

    def zigzag(self) -> TableArray:
        """uint8 [t, 64] in zigzag order."""
        return self.values.reshape(-1, 64)[:, ZIGZAG]

    @property
    def count(self) -> int:
        """Number of tables, 1 to 3."""
        return len(self.values)

    def components(self) -> TableArray:
        """uint8 [3, 8, 8]: the table that each of Y, Cb, Cr uses."""
        return self.values[[0, min(1, self.count - 1), self.count - 1]]

    def to_dict(self) -> dict[str, Any]:
        """What a table file holds: `values`, int [t][8][8], and their `order`, natural."""
        return {"values": self.values.tolist(), "order": "natural"}

    @classmethod
    def from_dict(cls, data: Any) -> QTables:
        """The inverse of `to_dict`; `"order": "zigzag"` is read as well. ValueError on anything else."""
        if not isinstance(data, dict) or "values" not in data:
            raise ValueError('a table file is a JSON object {"values": [[[...]]], "order": "natural"}')
        order = data.get("order", "natural")
        if order not in ("natural", "zigzag"):
            raise ValueError(f"table order {order!r:.40} is unknown; allowed: natural, zigzag")
        if not _numbers_alone(data["values"], depth=3):
            raise ValueError("quantization tables must be numbers of shape [t, 8, 8] with t = 1, 2 or 3")
        return cls(data["values"]) if order == "natural" else cls.from_zigzag(data["values"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON with one matrix row per line; replaced atomically."""
        tables = ",\n".join("  [" + ",\n   ".join(json.dumps(row) for row in t) + "]" for t in self.values.tolist())
        text = f'{{"order": "natural", "values": [\n{tables}\n]}}\n'
        write_atomically(Path(path), text.encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> QTables:
        """Read a JSON table file. ValueError naming the file and the fault; OSError if it cannot be opened."""
        path = Path(path)
        with path.open("rb") as file:
            data = file.read(MAX_TABLE_FILE_BYTES + 1)
        try:
            if len(data) > MAX_TABLE_FILE_BYTES:
                raise ValueError(f"larger than {MAX_TABLE_FILE_BYTES} bytes, not a table file")
            return cls.from_dict(json.loads(data))
        except RecursionError:
            raise ValueError(f"{path}: JSON nested too deeply") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            if re.match(rb'\s*\{\s*["}]', data):
                raise ValueError(f"{path}: not a JSON table file: {error}") from None
            raise ValueError(
                f"{path}: not a JSON table file; qtable import {path} -o TABLES.json reads JPEG files, the files of"
                " encoders and what Python prints"
            ) from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def parse(cls, spec: str) -> QTables:
        """Tables from what a user types: a JSON file, `quality:Q`, `flat:STEP`, `PRESET` or `PRESET:QUALITY`.

        ValueError if it is none of these; OSError if the file cannot be opened.
        """
        name, _, number = spec.partition(":")
        if number and not re.fullmatch(r"\d{1,3}", number) and name in ("quality", *PRESETS):
            raise ValueError(f"tables {spec!r:.200}: {number!r:.40} is not a whole number")
        if name == "quality" and number:
            return cls.standard(int(number))
        if name == "flat" and number:
            return cls.flat(int(number))
        if name in PRESETS:
            return cls.preset(name, int(number or 50))
        if not Path(spec).is_file():
            raise ValueError(
                f"tables {spec!r:.200}: no such file; allowed: a JSON file, quality:Q, flat:STEP, or one of"
                f" {', '.join(PRESETS)} with an optional :QUALITY"
            )
        return cls.load(spec)

    def nearest_quality(self, components: int = 3) -> tuple[int, float]:
        """The IJG quality with the nearest standard tables, and the mean absolute difference of entries (0 = equal).

        components: 3, or 1 for a grey file, which has luma alone.
        """
        ours = self.components()[:components].astype(np.float64)
        gaps = [float(np.abs(ours - QTables.standard(q).components()[:components]).mean()) for q in range(1, 101)]
        best = int(np.argmin(gaps))
        return best + 1, gaps[best]

    @property
    def name(self) -> str:
        """A short content-derived name, e.g. `q50` for standard tables, else eight hex digits."""
        quality, gap = self.nearest_quality()
        return f"q{quality}" if gap == 0 and self.count == 2 else self.digest()[:8]

    def digest(self) -> str:
        """Hex SHA-256 of the content; the same on every machine."""
        import hashlib

        return hashlib.sha256(bytes([self.count]) + self.values.tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QTables) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash(self.values.tobytes())

    def __repr__(self) -> str:
        names = [("all",), ("luma", "chroma"), ("Y", "Cb", "Cr")][self.count - 1]
        blocks = []
        for name, table in zip(names, self.values, strict=True):
            rows = "\n".join("  " + " ".join(f"{x:3d}" for x in row) for row in table.tolist())
            blocks.append(f" {name}\n{rows}")
        return f"QTables({self.name})\n" + "\n".join(blocks)


def as_flat_list(tables: QTables) -> Sequence[list[int]]:
    """One list of 64 natural-order ints per table: what Pillow and cjpeg take."""
    flat: list[list[int]] = tables.values.reshape(-1, 64).tolist()
    return flat
