"""From photos to a network and its gradients back: what statistics and encoders that ask a network share."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qtable.jpeg.codec import RGB
from qtable.tasks.base import ModelError


def stacked(images: Sequence[RGB]) -> Tensor:
    """float32 [n, 3, h, w], 0..255, of photos of one size."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()


def generators(images: Sequence[RGB], seed: int) -> list[np.random.Generator]:
    """One for each photo, which depends on its pixels and the seed alone."""
    return [np.random.default_rng([seed, zlib.crc32(image.tobytes())]) for image in images]


def gradient_of(objective: Tensor, seen: Tensor, retain: bool = False) -> Tensor:
    """Of a sum over photos at the pixels. ModelError if the model passes no gradients, or none that are numbers."""
    advice = "; methods that need none: --method genetic, mcmc, sorted-random and others"
    try:
        (gradient,) = torch.autograd.grad(objective, seen, retain_graph=retain)
    except RuntimeError as error:
        raise ModelError(f"the model gives no gradients to the pixels ({str(error).splitlines()[0]}){advice}") from None
    if not torch.isfinite(gradient).all():
        raise ModelError(f"the model's gradient to the pixels is NaN or infinite{advice}")
    return gradient
