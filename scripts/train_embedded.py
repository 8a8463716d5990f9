"""Remake `qtable/tasks/weights/embedded.safetensors`: train the embedded task's network on its clean fit crops.

    python scripts/train_embedded.py [--epochs 12] [--seed 0] [--out FILE]

About four minutes on one free core. Prints accuracy and mean bytes of every split, clean and at the standard tables.
The augmentation is light (mirroring, contrast, a little white noise) and contains no JPEG.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.photos.embedded import MEAN, RGB, Crops, Split, crops
from qtable.tasks.embedded import WEIGHTS, Net

QUALITIES = (95, 75, 50, 30, 20, 10, 5)
SPLITS: tuple[Split, ...] = ("fit", "search", "test")
BATCH = 64
RATE = 3e-3
NOISE = 8.0
"""Largest standard deviation of the white noise added in training; without it even quality 75 costs several points."""


def pixels(images: list[RGB]) -> Tensor:
    """Float 0..255, N x 3 x 64 x 64."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()


def augment(batch: Tensor) -> Tensor:
    """Half of the crops mirrored left to right; contrast times exp(N(0, 0.1)); white noise of 0..`NOISE` added."""
    one = (len(batch), 1, 1, 1)
    mirrored = torch.where(torch.rand(one) < 0.5, batch.flip(3), batch)
    contrast = torch.exp(0.1 * torch.randn(one))
    noise = NOISE * torch.rand(one) * torch.randn_like(batch)
    return ((mirrored - MEAN) * contrast + MEAN + noise).clamp(0, 255)


def train(data: Crops, epochs: int, seed: int) -> Net:
    """A network trained on these crops with AdamW and a one-cycle schedule, in evaluation mode."""
    torch.manual_seed(seed)
    net = Net(len(data.classes))
    inputs, labels = pixels(data.images), torch.tensor(data.labels)
    steps = len(inputs) // BATCH
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps)
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(inputs))[: steps * BATCH].view(steps, BATCH):
            loss = F.cross_entropy(net(augment(inputs[chosen])), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.3f}", flush=True)
    return net.eval()


def accuracy(net: Net, images: list[RGB], labels: list[int]) -> float:
    """Top-1 accuracy in 0..1."""
    with torch.no_grad():
        answers = torch.cat(
            [net(part).argmax(1) for part in torch.tensor_split(pixels(images), 1 + len(images) // 256)]
        )
    return (answers == torch.tensor(labels)).float().mean().item()


def report(net: Net, split: Split) -> None:
    """Print accuracy and mean file size, clean and at the standard tables (4:2:0, optimized Huffman tables)."""
    data, codec = crops(split), Codec()
    print(f"{split}: {len(data.images)} crops, clean {accuracy(net, data.images, data.labels):.1%}")
    for quality in QUALITIES:
        files = [codec.encode(image, QTables.standard(quality)) for image in data.images]
        score = accuracy(net, [codec.decode(file) for file in files], data.labels)
        print(f"  quality {quality:2d}: {score:6.1%}  {np.mean([len(file) for file in files]):5.0f} bytes", flush=True)


def main() -> None:
    """Train, save, report."""
    parser = argparse.ArgumentParser(description="Remake the embedded task's weights.")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="another number can change the last bits of the weights")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    net = train(crops("fit"), arguments.epochs, arguments.seed)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, arguments.out)
    for split in SPLITS:
        report(net, split)


if __name__ == "__main__":
    main()
