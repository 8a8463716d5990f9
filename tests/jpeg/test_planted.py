"""The experiment that the lab notebook of April 24 wanted: can a trained table find the frequencies that matter?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from qtable.jpeg.codec import Codec
from qtable.jpeg.dct import coefficients
from qtable.jpeg.layer import JPEGLayer
from qtable.jpeg.proxies import RunLength
from qtable.jpeg.tables import QTables
from tests.jpeg.planted import Planted, planted_photos


def train(component: int, u: int, v: int) -> QTables:
    """Tables Y, Cb, Cr from flat(8), trained on task loss + rate with the network fixed."""
    codec = Codec("4:4:4")
    rgb, labels = planted_photos(u, v, component, amplitude=24, noise=6, count=48, rng=np.random.default_rng(0))
    unquantized = coefficients(rgb, codec.subsampling)
    network = Planted(u, v, component, scale=12, squares=False)
    layer = JPEGLayer(QTables(np.full((3, 8, 8), 8)), codec)
    optimizer, bits = torch.optim.Adam(layer.parameters(), lr=0.1), RunLength(codec)
    for _ in range(60):
        decoded, _ = layer(rgb)
        loss = F.cross_entropy(network(decoded), labels) + 2e-4 * bits(unquantized, layer.steps()).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        assert (network(layer(rgb)[0]).argmax(1) == labels).all()
    return layer.tables()


@pytest.mark.parametrize("component", [0, 1, 2])
@pytest.mark.parametrize(("u", "v"), [(0, 1), (3, 2), (2, 5), (7, 7)])
def test_training_keeps_the_planted_entry_fine_and_drives_the_rest_up(component: int, u: int, v: int) -> None:
    steps = train(component, u, v).values.astype(int)
    planted = steps[component, u, v]
    others = np.delete(steps.ravel(), [64 * component + 8 * u + v, 0, 64, 128])  # DC carries nothing here either way
    assert planted <= 16
    assert others.min() >= 5 * planted
