"""Bits of 64-bit words: what one machine instruction does and neither Python nor numba has a name for.

Each function here is its own plain form; numba is given the instruction instead.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qtable.jpeg.kernels import inlined, numba
from qtable.jpeg.tables import ZIGZAG

Whole = int | np.int64
"""What counts in compiled code, which has no other whole numbers."""
_LANES: Final = 16
"""16-bit levels that are compared with zero at a time: a 256-bit register."""


def trailing_zeros(word: np.uint64) -> int:
    """Index of the lowest bit that is set, 0..63. word: not 0."""
    return (int(word) & -int(word)).bit_length() - 1


def bit_length(number: Whole) -> int:
    """Bits of a whole number >= 0: 0 of 0, 1 of 1, 2 of 2 and 3; JPEG's size category of a magnitude."""
    return int(number).bit_length()


def nonzeros(levels: npt.NDArray[np.int16], at: Whole) -> np.uint64:
    """Which of the 64 levels from `at` on are not 0: bit i stands for levels[at + i]."""
    bits = np.packbits(levels[at : at + 64] != 0, bitorder="little")
    return np.uint64(int.from_bytes(bits.tobytes(), "little"))


def _zigzag_words() -> npt.NDArray[np.uint64]:
    """uint64 [8, 256]: the bits of the i-th byte of a word in natural order, at their places along the zigzag."""
    place = np.empty(64, np.int64)
    place[ZIGZAG] = np.arange(64)
    bits = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(np.uint64)
    return np.stack([(bits << place[8 * i : 8 * i + 8].astype(np.uint64)).sum(1, dtype=np.uint64) for i in range(8)])


_ZIGZAG_WORDS: Final = _zigzag_words()
_BYTE: Final = np.uint64(255)


@inlined
def along_zigzag(word: np.uint64) -> np.uint64:
    """The bits of a word in natural order (`nonzeros`), sorted along the zigzag."""
    result: np.uint64 = _ZIGZAG_WORDS[0, word & _BYTE]
    for i in range(1, 8):
        result |= _ZIGZAG_WORDS[i, word >> np.uint64(8 * i) & _BYTE]
    return result


def _teach_numba() -> None:
    """Give numba the instructions: cttz, ctlz, and a comparison of vectors whose result is taken as a number."""
    from llvmlite import ir
    from numba import extending, types

    intrinsic: Any = extending.intrinsic
    overload: Any = extending.overload
    word64, half = ir.IntType(64), ir.IntType(16)

    def count_trailing(context: Any, word: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

        return types.int64(types.uint64), generate

    def count_leading(context: Any, number: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

        return types.int64(types.int64), generate

    def compare(context: Any, levels: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            vector, result = ir.VectorType(half, _LANES), ir.Constant(word64, 0)
            for i in range(0, 64, _LANES):
                at = builder.add(arguments[1], ir.Constant(word64, i))
                place = builder.bitcast(builder.gep(data, [at]), vector.as_pointer())
                lanes = builder.icmp_signed("!=", builder.load(place, align=2), ir.Constant(vector, [0] * _LANES))
                bits = builder.zext(builder.bitcast(lanes, ir.IntType(_LANES)), word64)
                result = builder.or_(result, builder.shl(bits, ir.Constant(word64, i)))
            return result

        return types.uint64(levels, types.int64), generate

    trailing, leading, comparison = (intrinsic(f) for f in (count_trailing, count_leading, compare))
    overload(trailing_zeros, inline="always")(lambda word: lambda word: trailing(word))
    overload(bit_length, inline="always")(lambda number: lambda number: 64 - leading(number))
    overload(nonzeros, inline="always")(lambda levels, at: lambda levels, at: comparison(levels, at))


if numba is not None:
    _teach_numba()
