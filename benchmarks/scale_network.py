"""A network that costs little, so that a benchmark measures what is around it: 64 x 64 pixels, ten answers."""

from __future__ import annotations

import torch
from torch import nn

from qtable import Preprocess


def small() -> nn.Module:
    """Random weights, always the same: what it answers means nothing."""
    torch.manual_seed(0)
    return nn.Sequential(
        Preprocess(64, 64),
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()
