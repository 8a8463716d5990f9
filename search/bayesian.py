"""Bayesian optimization by Optuna: tree-structured Parzen estimators, Gaussian processes, or a Sobol sequence."""

from __future__ import annotations

import contextlib
import warnings
from typing import Final, Literal

import numpy as np
import optuna

from search.base import Box, Losses, Points, checked, checked_start

Sampler = Literal["tpe", "gp", "qmc"]


class Bayesian:
    """An Optuna study of both losses, meant for at most 16 dimensions; `batch` points an `ask`.

    - "tpe": multiobjective tree-structured Parzen estimator (Ozaki, Tanigaki, Watanabe and Onishi, GECCO 2020), with
      one joint density over all sides, which is faster here than one per side and gains more from a start;
    - "gp": Gaussian processes, expected hypervolume improvement (Daulton, Balandat and Bakshy, NeurIPS 2020), at most
      64 dimensions. It takes half a second and more for a point. Sides of more than 16 values are continuous to it, and
      rounded: Optuna's search along integers takes ten times as long;
    - "qmc": a scrambled Sobol sequence (Sobol' 1967, Owen 1998); learns nothing.

    A batch is not `batch` times the same guess: those not told yet count as bad ("tpe") or as predicted ("gp").

    `storage` is the URL of a database, "sqlite:///study.db", that optuna-dashboard opens. There the study is named
    after sampler and seed and replaces one of that name: a run that is replayed has one study, with each trial once.
    """

    LARGEST_GP: Final = 64
    FEW: Final = 16

    def __init__(
        self,
        box: Box,
        rng: np.random.Generator,
        *,
        start: Points | None = None,
        sampler: Sampler = "tpe",
        batch: int = 1,
        storage: str | None = None,
    ) -> None:
        if sampler == "gp" and box.dimension > self.LARGEST_GP:
            raise ValueError(f"Gaussian process in {box.dimension} dimensions; allowed: at most {self.LARGEST_GP}")
        self.box, self.batch = box, batch
        few = np.inf if sampler != "gp" else self.FEW
        self._sides: dict[str, optuna.distributions.BaseDistribution] = {
            f"x{i:03}": optuna.distributions.IntDistribution(low, high)
            if high - low < few
            else optuna.distributions.FloatDistribution(low - 0.5, high + 0.5)
            for i, (low, high) in enumerate(zip(box.low.tolist(), box.high.tolist(), strict=True))
        }
        seed = int(rng.integers(2**32))
        self._study = _study(f"{sampler}-{seed}", _sampler(sampler, seed), storage)
        for point in checked_start(box, start).tolist():
            self._study.enqueue_trial(dict(zip(self._sides, point, strict=True)))
        self._asked: list[optuna.Trial] = []

    def ask(self) -> Points:
        self._asked = [self._study.ask(self._sides) for _ in range(self.batch)]
        asked = np.array([[trial.params[side] for side in self._sides] for trial in self._asked])
        points: Points = np.clip(np.rint(asked).astype(np.int64), self.box.low, self.box.high)
        return points

    def tell(self, points: Points, losses: Losses) -> None:
        for trial, row in zip(self._asked, checked(points, losses).tolist(), strict=True):
            self._study.tell(trial, row)


def _sampler(name: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                return optuna.samplers.TPESampler(seed=seed, multivariate=True)
            case "gp":
                return optuna.samplers.GPSampler(seed=seed)
            case "qmc":
                return optuna.samplers.QMCSampler(scramble=True, seed=seed)


def _study(name: str, sampler: optuna.samplers.BaseSampler, storage: str | None) -> optuna.Study:
    """An empty study of that name, without a word on stderr."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if storage is not None:
        with contextlib.suppress(KeyError):
            optuna.delete_study(study_name=name, storage=storage)
    return optuna.create_study(study_name=name, sampler=sampler, storage=storage, directions=["minimize", "minimize"])
