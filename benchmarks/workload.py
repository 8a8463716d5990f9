"""What benchmarks share: 300 photos of ImageNet's usual size, a network of MobileNet's size, files of their results."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from qtable import Preprocess
from qtable.files import write_atomically
from qtable.photos.sets import Photos


def photos(count: int = 300) -> Photos:
    """256 x 341 pieces of scikit-image's photographs; random labels of 1000 classes."""
    from skimage import data

    rng = np.random.default_rng(0)
    sources = [data.astronaut(), data.coffee(), data.rocket()]
    images = []
    for i in range(count):
        source = sources[i % len(sources)]
        top, left = rng.integers(0, source.shape[0] - 256), rng.integers(0, source.shape[1] - 341)
        images.append(np.ascontiguousarray(source[top : top + 256, left : left + 341]))
    return Photos(tuple(images), rng.integers(0, 1000, count), tuple(map(str, range(count))))


def mobilenet() -> nn.Module:
    """MobileNetV1, width 1, input 224 (Howard et al. 2017, table 1), with random weights: 569 million multiply-adds."""
    torch.manual_seed(0)
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    layers: list[nn.Module] = [Preprocess(224, 256), nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU6()]
    width = 32
    for out, stride in plan:
        layers += [
            nn.Conv2d(width, width, 3, stride, 1, groups=width),
            nn.ReLU6(),
            nn.Conv2d(width, out, 1),
            nn.ReLU6(),
        ]
        width = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000)).eval()


def save(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Write results/NAME/NAME.json: these figures, the machine and its load average of one minute; returns all."""
    result = {
        **figures,
        "load_average": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
    }
    folder = Path("results") / name
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{name}.json", (json.dumps(result, indent=1) + "\n").encode())
    return result
