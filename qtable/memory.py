"""How this process handles memory that it has freed."""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # glibc's malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
LARGEST: Final = 32 << 20
"""glibc takes no greater threshold: what is larger always goes back to the system."""
KEPT: Final = 256 << 20
BATCHES: Final = 64
"""Of photos; between two calls of `give_back` while many are looked at."""


def keep_freed_memory() -> None:
    """Let freed arrays of up to `LARGEST` bytes be used again by any thread, `KEPT` bytes at most at the heap's end.

    By itself glibc asks the system for large arrays of a batch and gives them back, and the system clears their pages
    anew each time. And it has a heap for each thread: pixels that make way for those of another split leave holes in
    one while another grows. For the command, whose process is its own. Does nothing where there is no glibc.
    """
    for parameter, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, LARGEST), (_M_TRIM_THRESHOLD, KEPT)):
        _glibc("mallopt", parameter, value)


def give_back() -> None:
    """Give the free pages of all heaps back to the system (glibc's malloc_trim).

    Small results that live on stand where large arrays were, so that the next array does not fit there and the heap
    grows by holes. To be called every `BATCHES` batches. Does nothing where there is no glibc.
    """
    _glibc("malloc_trim", 0)


def _glibc(name: str, *arguments: int) -> None:
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return
    function(*arguments)
