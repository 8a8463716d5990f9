"""`Recipe`: how to train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from qtable.jpeg.proxies import PROXIES
from qtable.jpeg.rounding import named

Learn = Literal["both", "tables", "network"]
Loss = Literal["distillation", "annotations"]
WARM_UP: Final = 0.05
"""The part of a run in which the learning rates rise."""


class TrainingError(ValueError):
    """Training cannot begin, go on or be continued; the message says why and what to do."""


@dataclass(frozen=True)
class Recipe:
    """How to train. ValueError, naming the field, for what cannot be.

    learn: "both", "tables" (the network stays) or "network" (the tables stay). loss: "distillation" (divergence of
    the answer from that of the untrained network on the uncompressed photo; needs no more) or "annotations" (their
    likelihood).
    steps, batch: optimizer steps, and photos of each. table_rate: learning rate of log(steps); network_rate: of the
    weights (AdamW, cosine schedules). settle: the last part of the run, in which tables stay. average: decay of the
    moving average of weights and tables that is validated and exported. clip: largest gradient norm of each.
    rate: a name in `rate.PROXIES`. rounding: a name in `rounding.ROUNDINGS`. every: steps between validations on
    `search`. patience: validations without improvement after which the run ends (None: never). crop: side in pixels
    of the random crops (None: the largest that all photos have). flip: mirror half of the photos.
    """

    learn: Learn = "both"
    loss: Loss = "distillation"
    steps: int = 800
    batch: int = 60
    table_rate: float = 0.01
    network_rate: float = 1e-3
    settle: float = 0.3
    average: float = 0.98
    clip: float = 1.0
    rate: str = "run-length"
    rounding: str = "ste"
    every: int = 100
    patience: int | None = None
    crop: int | None = None
    flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.learn not in get_args(Learn):
            raise ValueError(f"learn {self.learn!r} is unknown; allowed: {', '.join(get_args(Learn))}")
        if self.loss not in get_args(Loss):
            raise ValueError(f"loss {self.loss!r} is unknown; allowed: {', '.join(get_args(Loss))}")
        if self.rate not in PROXIES:
            raise ValueError(f"rate {self.rate!r} is unknown; allowed: {', '.join(PROXIES)}")
        named(self.rounding)
        for name in ("steps", "batch", "every", "table_rate", "network_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)}; allowed: above 0")
        for name, low in (("settle", 0.0), ("average", 0.0)):
            if not low <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}; allowed: from 0 to below 1")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience {self.patience}; allowed: 1 or more")
        if self.crop is not None and self.crop < 8:
            raise ValueError(f"crop {self.crop}; allowed: 8 pixels or more")

    @property
    def tables_learn_for(self) -> int:
        """Steps after which the tables stay."""
        return 0 if self.learn == "network" else round(self.steps * (1 - self.settle if self.learn == "both" else 1))

    def rates(self, step: int) -> tuple[float, float]:
        """Learning rates of tables and network at a step: warm-up, then half a cosine; 0 for what stays."""

        def schedule(most: float, steps: int) -> float:
            if step >= steps:
                return 0.0
            return most * min(1.0, (step + 1) / (WARM_UP * steps)) * (1 + math.cos(math.pi * step / steps)) / 2

        network = 0.0 if self.learn == "tables" else schedule(self.network_rate, self.steps)
        return schedule(self.table_rate, self.tables_learn_for), network
