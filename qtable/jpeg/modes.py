"""How a file may be coded, by name: chroma subsampling and entropy coding."""

from __future__ import annotations

from typing import Final, Literal, get_args

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]
Entropy = Literal["standard", "optimized", "progressive"]
SUBSAMPLINGS: Final[tuple[Subsampling, ...]] = get_args(Subsampling)
ENTROPIES: Final[tuple[Entropy, ...]] = get_args(Entropy)
