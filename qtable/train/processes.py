"""Training in several processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import distributed

T = TypeVar("T")


def rank() -> int:
    """Of this process, 0 where there is one."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def by_first(work: Callable[[], T]) -> T:
    """What `work` gives in the first process, in all of them; its error, in all of them as well."""
    if world() == 1:
        return work()
    box: list[Any] = [None]
    if rank() == 0:
        try:
            box = [work()]
        except Exception as error:
            box = [error]
    distributed.broadcast_object_list(box)
    if isinstance(box[0], Exception):
        raise box[0]
    result: T = box[0]
    return result
