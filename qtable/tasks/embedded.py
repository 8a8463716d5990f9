"""The embedded task's network: a small texture classifier, trained by `scripts/train_embedded.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from torch import Tensor, nn

from qtable.photos.embedded import MEAN

WEIGHTS: Final = Path(__file__).parent / "weights" / "embedded.safetensors"


class Net(nn.Module):
    """A small texture classifier: RGB float 0..255, N x 3 x H x W (H, W >= 16) -> logits N x classes.

    Four convolutions (batch norm, ReLU), then the mean over all places: it answers what texture is seen, not where.
    """

    def __init__(self, classes: int = 21, widths: tuple[int, int, int, int] = (32, 48, 64, 64)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.features = nn.Sequential(
            *_convolution(3, a, 5, stride=2),
            *_convolution(a, b, 3),
            nn.MaxPool2d(2),
            *_convolution(b, c, 3),
            *_convolution(c, d, 3),
        )
        self.head = nn.Linear(d, classes)

    def forward(self, rgb: Tensor) -> Tensor:
        """rgb: float 0..255, N x 3 x H x W. Returns logits, N x classes."""
        features = self.features((rgb - MEAN) / 32)
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def network() -> Net:
    """The trained network, in evaluation mode; `scripts/train_embedded.py` remakes its weights."""
    from safetensors.torch import load_file

    net = Net()
    net.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return net.eval()
