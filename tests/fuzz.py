"""Seeded mutation of valid inputs, and what every parser must keep to on them.

A parser may refuse an input with the exceptions that it documents, in one line. Nothing else may come out: no other
exception, no warning, no hang, no memory far beyond the input.
"""

from __future__ import annotations

import copy
import json
import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

import numpy as np

MOST_SECONDS: Final = 10
"""Processor time of one input; hundreds of times what the slowest takes."""
MOST_MEMORY: Final = 256
"""Bytes that a parser may hold for each byte of its input."""
MOST_WORDS: Final = 1000
"""Characters of a message."""
MEMORY_EVERY: Final = 61
"""Every so many inputs memory is traced, which is slow."""
DRAWS: Final = 42
"""Random numbers, 0..2^30 - 1, that one input is made from."""


class FuzzError(AssertionError):
    """A parser did what it must not; the message has the input or its beginning, and the numbers that remake it."""


@dataclass(frozen=True)
class Target:
    """A parser under test.

    parse: takes one input. seeds: valid inputs. errors: the exceptions that it documents. words: bytes that mean
    something to it. mutate: (`DRAWS` random numbers, seeds, words) -> a new input. inputs: how many are quickly tried.
    memory: bytes that it may hold for any input, beside `MOST_MEMORY` for each byte of it.
    """

    name: str
    parse: Callable[[Any], object]
    seeds: Sequence[Any]
    errors: tuple[type[Exception], ...]
    words: Sequence[bytes] = ()
    mutate: Callable[[Sequence[int], Sequence[Any], Sequence[bytes]], Any] = field(default_factory=lambda: mutate_bytes)
    inputs: int = 20_000
    memory: int = 1 << 22


@dataclass
class Count:
    """How many inputs ran, and how many of them were valid."""

    ran: int = 0
    valid: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.ran:,} inputs in {self.seconds:.0f} s, {self.valid:,} of them valid"


def fuzz(target: Target, inputs: int, seed: int = 0, seconds: float = float("inf")) -> Count:
    """Parse mutated inputs until there were so many or the time is over. FuzzError with the first that shows a bug."""
    count, start = Count(), time.monotonic()
    with watchdog() as restart:
        for draws in _draws(np.random.default_rng(seed), inputs):
            data = target.mutate(draws, target.seeds, target.words)
            restart()
            try:
                count.valid += _parse(target, data, traced=count.ran % MEMORY_EVERY == 0)
            except (Exception, _HangError) as error:
                words = f"{type(error).__name__}: {str(error)[:500]}"
                raise FuzzError(f"{target.name}, seed {seed}, input {count.ran}: {words}: {data!r:.3000}") from error
            count.ran += 1
            count.seconds = time.monotonic() - start
            if count.seconds > seconds:
                break
    return count


def _draws(rng: np.random.Generator, inputs: int) -> Iterator[list[int]]:
    for begin in range(0, inputs, 500):
        yield from rng.integers(0, 1 << 30, (min(500, inputs - begin), DRAWS)).tolist()


def _parse(target: Target, data: Any, traced: bool) -> bool:
    """Whether the input is valid; raises what must not come out."""
    try:
        if traced:
            _traced(target, data)
        else:
            target.parse(data)
    except target.errors as error:
        words = str(error)
        if "\n" in words or len(words) > MOST_WORDS:
            raise RuntimeError(f"a message of {len(words)} characters and {words.count(chr(10)) + 1} lines") from error
        return False
    return True


def _traced(target: Target, data: Any, looks: int = 3) -> None:
    """Parse and look at memory. What is counted is that of all threads here: too much is what is so in every look."""
    size = len(data) if isinstance(data, bytes) else len(repr(data))
    tracemalloc.start()
    try:
        target.parse(data)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        if peak > target.memory + MOST_MEMORY * size:
            if looks == 1:
                raise MemoryError(f"{peak} bytes for an input of {size}")
            _traced(target, data, looks - 1)


class _HangError(BaseException):
    pass


@contextmanager
def watchdog() -> Iterator[Callable[[], None]]:
    """Yields what begins the time of one input anew."""

    def stop(*_: int | FrameType | None) -> None:
        raise _HangError(f"more than {MOST_SECONDS} s of processor time")

    def restart() -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        yield restart
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


# ---- mutation -------------------------------------------------------------------------------------------------


_NOISE: Final = np.random.default_rng(0).bytes(1 << 12)
_LENGTHS: Final = tuple(n.to_bytes(2, "big") for n in (0, 1, 2, 3, 8, 11, 17, 67, 132, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF))


def mutate_bytes(draws: Sequence[int], seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """A seed after one to four changes: bits, bytes, lengths, cuts, repetitions, splices, words; seldom noise alone."""
    if draws[1] % 64 == 0:
        return _NOISE[draws[2] % len(_NOISE) :][: draws[3] % 200]
    data = bytearray(seeds[draws[0] % len(seeds)])
    for change in range(1 + draws[1] % 4):
        kind, at, size, value = draws[2 + 4 * change : 6 + 4 * change]
        at %= len(data) + 1
        size = 1 + (size % 4 if size % 3 else size % 100)  # short ones mostly
        match kind % 12:
            case 0 | 1 if at < len(data):
                data[at] ^= 1 << value % 8
            case 2 if at < len(data):
                data[at] = value % 256
            case 3:
                after = data.find(b"\xff", at) + 2  # the length of a marker segment, in a JPEG file
                data[after : after + 2] = _LENGTHS[value % len(_LENGTHS)]
            case 4:
                del data[at : at + size]
            case 5:
                data[at:at] = data[at : at + size]
            case 6:
                data[at:at] = data[value % (len(data) + 1) :][:size]
            case 7:
                other = seeds[value % len(seeds)]
                data[at:] = other[size * len(other) // 100 :]
            case 8 if words:
                data[at:at] = words[value % len(words)]
            case 9 if words:
                data[at : at + size] = words[value % len(words)]
            case 10:
                data[at : at + size] = _NOISE[value % len(_NOISE) :][:size]
            case 11 if value % 4 == 0:
                del data[at:]
    return bytes(data)


_VALUES: Final = (
    *b"null true false 0 1 -1 255 256 1.5 1e300 NaN Infinity 9007199254740992 9223372036854775808".split(),
    *rb'''"" "1" "x" "\ud800" [] [[]] {} [0] {"values":1} "natural" "zigzag" "search" "test"'''.split(),
    *(b"18446744073709551616", b"1" + 400 * b"0", b'"' + 9999 * b"9" + b'"', b"[" + 63 * b"1," + b"1]"),
    *(b"[" + 7 * row + row[:-1] + b"]" for row in (b"1.5,", b"[1,1,1,1,1,1,1,1],")),
)
"""JSON."""


def mutate_value(draws: Sequence[int], seeds: Sequence[str], words: Sequence[bytes] = ()) -> Any:
    """A value, given as JSON, after one to three changes: something replaced, left out, repeated, wrapped or moved."""
    root = [json.loads(seeds[draws[0] % len(seeds)])]
    for change in range(1 + draws[1] % 3):
        kind, value, *path = draws[2 + 13 * change : 15 + 13 * change]
        parent, key = _place(root, path)
        match kind % 6:
            case 0 | 1:
                parent[key] = json.loads(_VALUES[value % len(_VALUES)])
            case 2 if parent is not root:
                del parent[key]
            case 3 if isinstance(parent, list) and parent is not root:
                parent[key:key] = parent[key : key + 1] * (1 + value % 3)
            case 4:
                parent[key] = [parent[key]]
            case 5:
                other, at = _place(root, path[::-1])
                parent[key] = copy.deepcopy(other[at])
            case _:
                break
    return root[0]


def _place(root: list[Any], path: Sequence[int]) -> tuple[Any, Any]:
    """A container in `root` and a key of it, the end of a walk that stops by chance."""
    parent: Any = root
    key: Any = 0
    for step in path:
        inner = parent[key]
        if not isinstance(inner, list | dict) or not inner or step % 5 == 0:
            break
        parent, key = inner, list(inner)[step % len(inner)] if isinstance(inner, dict) else step % len(inner)
    return parent, key
