"""A user's model from `FILE.py:NAME` or `package.module:NAME`, and `Preprocess` to build one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qtable.task import ModelError

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


class Preprocess(nn.Module):
    """Decoded RGB (float [n, 3, h, w], 0..255, any size) -> what a network was trained on; differentiable.

    Scales the shorter side to `resize` (bilinear with antialiasing; None: leaves it), cuts the central
    `size` x `size` (None: keeps all), divides by 255, subtracts `mean` and divides by `std` (per channel, in 0..1).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        size: int | None = 224,
        resize: int | None = 256,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if size is not None and resize is not None and size > resize:
            raise ValueError(f"size {size} is larger than resize {resize}: the crop would leave the photo")
        self.size, self.resize = size, resize
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def extra_repr(self) -> str:
        return f"size={self.size}, resize={self.resize}"

    def forward(self, rgb: Tensor) -> Tensor:
        h, w = rgb.shape[-2:]
        if self.resize is not None and min(h, w) != self.resize:
            h, w = (round(side * self.resize / min(h, w)) for side in (h, w))
            rgb = F.interpolate(rgb, (h, w), mode="bilinear", antialias=True, align_corners=False)
        if self.size is not None:
            if min(h, w) < self.size:
                raise ValueError(f"a photo of {w} x {h} is smaller than the {self.size} x {self.size} crop; set resize")
            top, left = (h - self.size) // 2, (w - self.size) // 2
            rgb = rgb[..., top : top + self.size, left : left + self.size]
        return (rgb / 255.0 - self.mean) / self.std


def load_model(spec: str | None) -> nn.Module:
    """The model that a user names; None: the embedded task's network.

    spec: `FILE.py:NAME` or `package.module:NAME`, where NAME is a zero-argument callable giving an `nn.Module`.
    Either runs the code that it names. ModelError, in one line, if it cannot be imported, called or used.
    """
    if spec is None:
        from qtable import embedded

        return embedded.network()
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise ModelError(f"model {spec!r} is not FILE.py:NAME or package.module:NAME")
    try:
        module = _import(place)
    except ModelError:
        raise
    except BaseException as error:  # a user's file may raise anything while it is imported, SystemExit included
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ModelError(f"model {spec!r}: importing {place} fails with {type(error).__name__}: {error}") from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ModelError(f"model {spec!r}: {place} has no callable {name!r}")
    try:
        model = factory()
    except Exception as error:
        raise ModelError(f"model {spec!r}: {name}() fails with {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {spec!r}: {name}() gives {type(model).__name__}, not a torch.nn.Module")
    for parameter, value in model.named_parameters():
        if not torch.isfinite(value).all():
            raise ModelError(f"model {spec!r}: its parameter {parameter} holds NaN or infinity")
    return model.eval()


def _import(place: str) -> object:
    path = Path(place)
    folder = str(path.resolve().parent if place.endswith(".py") else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(
            0, folder
        )  # so that what lies beside the user's file can be imported, as Python does for scripts
    if not place.endswith(".py"):
        return importlib.import_module(place)
    if not path.is_file():
        raise ModelError(f"model file {place}: no such file")
    spec = importlib.util.spec_from_file_location(f"_qtable_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ModelError(f"model file {place}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
