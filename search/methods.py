"""What `qtable optimize --method NAME` means: a space and a searcher in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from search.base import Searcher
from search.random_search import RandomSearch
from search.space import Full, Sorted, Space

Method = Callable[[int, np.random.Generator], tuple[Space, Searcher]]
"""(number of tables, seeded generator) -> where to search and how."""


def _random(count: int, rng: np.random.Generator) -> tuple[Space, Searcher]:
    space = Full(count)
    return space, RandomSearch(space.box, rng)


def _sorted_random(count: int, rng: np.random.Generator) -> tuple[Space, Searcher]:
    space = Sorted(count)
    return space, RandomSearch(space.box, rng)


METHODS: Final[dict[str, Method]] = {"sorted-random": _sorted_random, "random": _random}
