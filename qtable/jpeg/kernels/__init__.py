"""Loops over blocks and symbols, compiled by numba; without it they run as plain Python, with equal results.

Nothing here checks its arguments: the modules of `qtable.jpeg` do. A plane of levels or coefficients is one contiguous
array [64 * blocks], blocks row by row, each in natural order. Machine code is kept on disk: beside the source, or in
the user's cache folder where that cannot be written.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final, TypeVar


def _import_numba() -> Any:
    try:
        return importlib.import_module("numba")
    except ImportError:
        return None


numba: Final = _import_numba()
"""The module; None where it is missing."""

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function as machine code, made at its first call: IEEE arithmetic as written, without the GIL."""
    if numba is None:
        return function
    try:
        kept: Function = numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # no folder to keep it in
        kept = numba.njit(function, nogil=True)
    return kept


def inlined(function: Function) -> Function:
    """The function as part of each compiled one that calls it: no call, no counting of references to arrays."""
    if numba is None:
        return function
    part: Function = numba.njit(function, inline="always")
    return part
