"""What a network feels at each coefficient of one photo: weights for an encoder that looks through the network.

`Sensitivity` says how much an error at each frequency costs over all photos. On one photo it costs more where the
network looks and nothing where it does not. `weights_of` turns the squared gradients of a photo into weights of its
coefficients: per-frequency means, times how much more than usual the network feels in a block, mixed with the squared
gradients themselves, and divided by how much it feels on the whole photo (so that hard photos do not take all bits).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter

from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.frame import Planes
from qtable.jpeg.linear import coefficient_gradient
from qtable.jpeg.modes import Subsampling
from qtable.jpeg.tables import QTables
from qtable.tasks.base import DifferentiableTask, check_finite
from qtable.tasks.gradients import generators, gradient_of, stacked

Squares = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Y, Cb, Cr of one photo, each float32 [block rows, block columns, 8, 8], natural order."""
FLOOR: Final = 1e-12
"""Of a total that is divided by: a photo on which a network feels nothing at all."""


@dataclass(frozen=True)
class Look:
    """How gradients become weights. ValueError for what cannot be.

    quality: gradients are taken at the photo as standard tables of this quality leave it. draws: random directions a
    photo (see `DifferentiableTask.sampled`). mix: the share, 0..1, of the squared gradients themselves beside the
    per-frequency means times the block's saliency. evening: 0..1, the power of a photo's total feeling that is divided
    out. blur: standard deviation in blocks of the Gaussian that smooths saliency. seed: of the draws.
    """

    quality: int = 15
    draws: int = 1
    mix: float = 0.3
    evening: float = 0.85
    blur: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        if not (1 <= self.quality <= 100 and self.draws >= 1 and self.seed >= 0):
            found = f"quality {self.quality}, draws {self.draws}, seed {self.seed}"
            raise ValueError(f"{found}; allowed: 1..100, 1 or more, 0 or more")
        if not (0 <= self.mix <= 1 and 0 <= self.evening <= 1 and 0 <= self.blur <= 100):
            raise ValueError(f"mix {self.mix}, evening {self.evening}, blur {self.blur}; allowed: 0..1, 0..1, 0..100")

    @property
    def tables(self) -> QTables:
        """The operating point's."""
        return QTables.standard(self.quality)


@dataclass(frozen=True)
class Usual:
    """What is usual over many photos. feeling: float64 [3, 64], mean squared gradient of each frequency, in nats^2.

    error: float64 [3, 64], mean squared error that the operating point leaves, at most the coefficient's own square.
    """

    feeling: npt.NDArray[np.float64]
    error: npt.NDArray[np.float64]

    @property
    def total(self) -> npt.NDArray[np.float64]:
        """float64 [3]: what the usual error in a block of each component costs."""
        costs: npt.NDArray[np.float64] = (self.feeling * self.error).sum(axis=1)
        return costs


def squared_gradients(task: DifferentiableTask, photos: Sequence[RGB], codec: Codec, look: Look) -> list[Squares]:
    """Of photos of one size, at their coefficients, in nats^2: the Fisher diagonal, by sampling.

    Each draw samples an answer from what the network says and squares the gradient of its log-likelihood (Martens,
    "New insights and perspectives on the natural gradient method", JMLR 21 (2020), section 5). ModelError if the
    network gives no gradients, or no numbers.
    """
    decoded = [codec.decode(codec.encode(photo, look.tables)) for photo in photos]
    seen = stacked(decoded).to(task.device).requires_grad_(True)
    answers = task.answers(seen)
    check_finite(answers, seen)
    rngs = generators(photos, look.seed)
    total: list[torch.Tensor] | None = None
    for draw in range(look.draws):
        gradient = gradient_of(task.sampled(answers, rngs).sum(), seen, retain=draw + 1 < look.draws)
        squares = [g.square() / look.draws for g in coefficient_gradient(gradient.cpu(), codec.subsampling)]
        total = squares if total is None else [a + b for a, b in zip(total, squares, strict=True)]
    assert total is not None
    y, cb, cr = (plane.numpy() for plane in total)
    return [(y[i], cb[i], cr[i]) for i in range(len(photos))]


def seen_blocks(
    task: DifferentiableTask, height: int, width: int, subsampling: Subsampling
) -> list[npt.NDArray[np.bool_]]:
    """For Y, Cb, Cr bool [block rows, block columns]: whether anything in a block can reach the network's answer.

    Found by gradients at a photo of noise: what the network crops away has none. No formula of any model.
    ModelError as for `squared_gradients`.
    """
    noise = np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    seen = stacked([noise]).to(task.device).requires_grad_(True)
    gradient = gradient_of(task.sampled(task.answers(seen), generators([noise], 0)).sum(), seen).cpu()
    planes: Planes = coefficient_gradient(gradient, subsampling)
    return [(plane[0] != 0).any(-1).any(-1).numpy() for plane in planes]


def weights_of(
    squares: Squares, usual: Usual, look: Look, seen: Sequence[npt.NDArray[np.bool_]] | None = None
) -> Squares:
    """Weights of one photo's coefficients in units of the usual feeling of its network (see `Usual.total`).

    seen: blocks that count; others get weight 0.
    """
    every = [np.ones(plane.shape[:2], bool) for plane in squares] if seen is None else seen
    grid = (len(squares[0]), squares[0].shape[1])
    felt = _together([(p.reshape(*p.shape[:2], 64) @ usual.error[c]) for c, p in enumerate(squares)], grid)
    mask = every[0].astype(np.float64)
    expected = _together([np.where(m, usual.total[c], 0.0) for c, m in enumerate(every)], grid)
    saliency = _blurred(felt * mask, look.blur) / np.maximum(_blurred(expected * mask, look.blur), FLOOR)
    found = []
    for c, plane in enumerate(squares):
        mean = usual.feeling[c].reshape(8, 8)
        block = _shrunk(saliency, plane.shape[:2])[..., None, None]
        weight = (1 - look.mix) * mean * block + look.mix * plane
        found.append(weight * every[c][..., None, None])
    costs = sum(float((w.reshape(-1, 64) @ usual.error[c]).sum()) for c, w in enumerate(found))
    blocks = sum(float(usual.total[c] * every[c].sum()) for c in range(3))
    even = max(costs / max(blocks, FLOOR), FLOOR) ** -look.evening / max(float(usual.total.sum()), FLOOR)
    y, cb, cr = ((w * even).astype(np.float32) for w in found)
    return y, cb, cr


def _together(planes: Sequence[npt.NDArray[np.float64]], grid: tuple[int, int]) -> npt.NDArray[np.float64]:
    """What is felt in each luma block, with its share of what is felt in the chroma blocks over it."""
    total = np.zeros(grid)
    for plane in planes:
        high, wide = -(-grid[0] // plane.shape[0]), -(-grid[1] // plane.shape[1])
        spread = plane.repeat(high, 0).repeat(wide, 1)[: grid[0], : grid[1]]
        total += spread / (high * wide)
    return total


def _shrunk(saliency: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Means over the luma blocks that each chroma block covers."""
    high, wide = -(-saliency.shape[0] // shape[0]), -(-saliency.shape[1] // shape[1])
    padded = np.pad(
        saliency, ((0, shape[0] * high - saliency.shape[0]), (0, shape[1] * wide - saliency.shape[1])), "edge"
    )
    means: npt.NDArray[np.float64] = padded.reshape(shape[0], high, shape[1], wide).mean(axis=(1, 3))
    return means


def _blurred(plane: npt.NDArray[np.float64], blur: float) -> npt.NDArray[np.float64]:
    smooth: npt.NDArray[np.float64] = gaussian_filter(plane, blur, mode="constant") if blur else plane
    return smooth
