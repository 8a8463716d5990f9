"""Published ways from statistics to tables, as baselines: each a one-parameter family of tables, none of them searched.

All of them get the statistics of `qtable.sensitivity` and are swept along their own parameter. Where a publication
makes tables per photo, here one set serves all photos, as everywhere in this project. The coefficients' mean is taken
as zero, which for DC makes no difference to any formula used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from qtable.jpeg.tables import PRESETS, QTables
from qtable.measure.estimates import STEPS, Floats, distortion, entropy_bits
from qtable.measure.sensitivity import BINS, RESOLUTION, Sensitivity
from search.closed_form import FIRST_COMPONENTS, Lagrangian, Path

_VALUES: Final = np.arange(BINS) / RESOLUTION


def _sums(statistics: Sensitivity) -> tuple[Floats, Floats, Floats]:
    """float64 [3, 64] each: number of coefficients, sum of |F|, sum of F^2."""
    levels = statistics.levels
    return levels.sum(axis=2), levels @ _VALUES, levels @ np.square(_VALUES)


def _over_components(per_component: Floats, count: int) -> Floats:
    """[3, 64] summed over the components that share a table: [count, 64]."""
    return np.add.reduceat(per_component, FIRST_COMPONENTS[count - 1], axis=0)


def _tables(steps: Floats) -> QTables:
    """The nearest valid tables of real steps [count, 64]."""
    return QTables(np.clip(np.rint(steps), 1, 255).reshape(-1, 8, 8))


def _scaled(tables: QTables, log_factor: float) -> QTables:
    return _tables(tables.values.reshape(-1, 64) * math.exp(log_factor))


def rd_opt(statistics: Sensitivity, count: int) -> Path:
    """Squared error against entropy under one multiplier (Ratnakar and Livny, RD-OPT, DCC 1995)."""
    return Lagrangian(distortion(statistics.levels), entropy_bits(statistics), count).path()


def rd_opt_per_frequency(statistics: Sensitivity, count: int) -> Path:
    """RD-OPT with each frequency's squared error weighted by its mean g^2: OptS's distortion with RD-OPT's solver."""
    mean = statistics.costs.sum(axis=2) / np.maximum(statistics.levels.sum(axis=2), 1)
    return Lagrangian(mean[..., None] * distortion(statistics.levels), entropy_bits(statistics), count).path()


def deepn_jpeg(statistics: Sensitivity, count: int) -> Path:
    """Steps fall with a frequency's standard deviation (Liu et al., DeepN-JPEG, DAC 2018, section 3, its constants).

    The publication has one table; its front here is that table scaled.
    """
    number, _, squares = _sums(statistics)
    deviation = np.sqrt(_over_components(squares, count) / np.maximum(_over_components(number, count), 1))
    steps = np.where(
        deviation <= 20, 255 - 9.75 * deviation, np.where(deviation <= 60, 80 - deviation, 240 - 3 * deviation)
    )
    tables = _tables(np.maximum(steps, 5))
    return _path(lambda x: _scaled(tables, x), -6.0, 6.0, statistics, count)


def grace(statistics: Sensitivity, count: int) -> Path:
    """A bound on the loss shared out evenly: g q / 2 per frequency, at most g |F| (Xie and Kim, GRACE, MobiCom 2019).

    g and |F| are norms over all coefficients of a frequency. Frequencies too weak to use up their share are zeroed,
    and what they leave is shared out among the rest.
    """
    _, _, squares = _sums(statistics)
    gradient = np.sqrt(_over_components(statistics.costs.sum(axis=2), count)).ravel()
    most = gradient * np.sqrt(_over_components(squares, count)).ravel()
    order = np.argsort(most, kind="stable")
    rising = most[order]
    left_below = np.concatenate([[0.0], np.cumsum(rising)[:-1]])
    budgets_to_zero = left_below + rising * np.arange(len(rising), 0, -1)
    """The budget from which on each frequency, weakest first, is zeroed."""

    def family(x: float) -> QTables:
        budget = math.exp(x)
        zeroed = min(int(np.searchsorted(budgets_to_zero, budget)), len(rising) - 1)
        share = (budget - left_below[zeroed]) / (len(rising) - zeroed)
        steps = np.full(len(rising), 255.0)
        kept = order[zeroed:]
        steps[kept] = 2 * share / np.maximum(gradient[kept], 1e-300)
        return _tables(steps.reshape(count, 64))

    top = math.log(max(float(most.sum()), 1e-300))
    return _path(family, top - 25.0, top + 5.0, statistics, count)


def _laplacian_distortion(scale: Floats) -> Floats:
    """float64 [..., 255]: mean squared error of a Laplacian of mean |F| `scale` at steps 1..255 (OptD, equation 8).

    With the dead zone of the entropy-constrained quantizer, as published.
    """
    b, q = np.maximum(scale, 1e-3)[..., None], STEPS.astype(float)
    ratio = np.minimum(q / b, 500.0)
    threshold = q - b + q / np.expm1(ratio)
    error = 2 * b * b - 2 * q * (b + threshold - q / 2) * np.exp(-np.minimum(threshold / b, 500.0)) / -np.expm1(-ratio)
    return np.clip(error, 0.0, 2 * b * b)


def _water_filling(weights: Floats, statistics: Sensitivity, count: int) -> Path:
    """Every frequency's weighted distortion is raised to one water level, or to all it can have.

    weights: float64 [3, 64] of the squared error. A table's step is the smallest that any of its components asks for.
    """
    number, absolute, squares = _sums(statistics)
    number = np.maximum(number, 1)
    variance = weights * squares / number
    errors = weights[..., None] * _laplacian_distortion(absolute / number)

    def family(x: float) -> QTables:
        level = math.exp(x)
        steps = np.maximum((errors <= level).sum(axis=2), 1).astype(float)
        steps[:, 0] = np.sqrt(12 * level / np.maximum(weights[:, 0], 1e-300))
        steps[variance < level] = 255
        return _tables(np.minimum.reduceat(steps, FIRST_COMPONENTS[count - 1], axis=0))

    top = math.log(max(float(variance.max()), 1e-300))
    return _path(family, top - 25.0, top + 1.0, statistics, count)


def opt_d(statistics: Sensitivity, count: int) -> Path:
    """Reverse water-filling of squared error (Yang, Sun and Meng, OptD, IEEE TIP 23(11), 2014)."""
    return _water_filling(np.ones((3, 64)), statistics, count)


def opt_s(statistics: Sensitivity, count: int) -> Path:
    """Water-filling of squared error weighted by each frequency's g^2 per photo (Salamah et al., OptS, ICIP 2023)."""
    return _water_filling(statistics.costs.sum(axis=2) / max(statistics.photos, 1), statistics, count)


def preset(name: str) -> Callable[[Sensitivity, int], Path]:
    """A published table scaled, e.g. `mozjpeg-3`."""

    def path(statistics: Sensitivity, count: int) -> Path:
        tables = QTables(QTables.preset(name).components()[list(FIRST_COMPONENTS[count - 1])])
        return _path(lambda x: _scaled(tables, x), -6.0, 6.0, statistics, count)

    return path


def _path(family: Callable[[float], QTables], low: float, high: float, statistics: Sensitivity, count: int) -> Path:
    return Path(family, low, high, Lagrangian.of(statistics, count).bits_of)


PUBLISHED: Final[dict[str, Callable[[Sensitivity, int], Path]]] = {
    "rd-opt": rd_opt,
    "rd-opt-per-frequency": rd_opt_per_frequency,
    "deepn-jpeg": deepn_jpeg,
    "grace": grace,
    "opts": opt_s,
    "optd": opt_d,
    **{name: preset(name) for name in PRESETS if name.startswith("mozjpeg")},
}
"""The baselines by name."""
