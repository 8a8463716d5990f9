from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import optuna
import pytest

from search.base import Box
from search.bayesian import Bayesian
from tests.search.conformance import Bowls, global_states, rounds, spend, volume

BOX = Box(np.array([-30, 0, 0]), np.array([30, 40, 5]))


def test_the_study_is_stored_and_holds_each_trial_once(tmp_path: Path) -> None:
    storage, start = f"sqlite:///{tmp_path}/study.db", np.array([[-30, 40, 0], [0, 0, 5]])
    for _ in range(2):  # the second time as a replay
        searcher = Bayesian(BOX, np.random.default_rng(1), start=start, batch=3, storage=storage)
        points, losses = spend(searcher, Bowls(BOX), 12)
    [name] = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    assert name.startswith("tpe-")
    assert study.directions == [optuna.study.StudyDirection.MINIMIZE] * 2
    np.testing.assert_array_equal([trial.values for trial in study.trials], losses)
    np.testing.assert_array_equal([list(trial.params.values()) for trial in study.trials], points)
    np.testing.assert_array_equal(points[:2], start)


def test_two_seeds_are_two_studies(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    for seed in range(2):
        rounds(Bayesian(BOX, np.random.default_rng(seed), sampler="qmc", storage=storage), Bowls(BOX), 2)
    assert len(optuna.get_all_study_names(storage)) == 2


def test_stored_and_not_stored_ask_for_the_same_points(tmp_path: Path) -> None:
    stored = Bayesian(BOX, np.random.default_rng(1), storage=f"sqlite:///{tmp_path}/study.db")
    np.testing.assert_array_equal(
        spend(stored, Bowls(BOX), 14)[0], spend(Bayesian(BOX, np.random.default_rng(1)), Bowls(BOX), 14)[0]
    )


def test_gaussian_process_learns_from_few_points() -> None:
    """What the conformance suite asks of the others, in as many points as the time allows."""
    start, before = np.array([[0, 20, 2]]), global_states()
    first, second = (
        spend(Bayesian(BOX, np.random.default_rng(2), start=start, sampler="gp", batch=2), Bowls(BOX), 16)
        for _ in range(2)
    )
    assert global_states() == before
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[0][:1], start)
    assert BOX.contains(first[0]).all()
    assert first[0].dtype == np.int64
    points, losses = spend(Bayesian(BOX, np.random.default_rng(2), sampler="gp"), Bowls(BOX), 22)
    assert len(np.unique(points, axis=0)) == 22
    assert volume(losses) - volume(losses[:10]) > 0.002
    assert Bowls(BOX)(points[10:]).sum(axis=1).mean() < 0.8 * losses[:10].sum(axis=1).mean()


def test_sobol_points_fill_every_side_evenly() -> None:
    box = Box(np.zeros(4, np.int64), np.full(4, 63))
    points, _ = spend(Bayesian(box, np.random.default_rng(0), sampler="qmc"), Bowls(box), 65)
    for side in points[1:].T:  # Optuna draws its first point independently
        counts = np.bincount(side // 16, minlength=4)
        assert counts.min() >= 15


def test_optuna_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("optuna")
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    try:
        for sampler in ("tpe", "gp", "qmc"):
            spend(Bayesian(BOX, np.random.default_rng(0), sampler=sampler), Bowls(BOX), 12)
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records


def test_a_gaussian_process_in_too_many_dimensions_is_refused() -> None:
    box = Box(np.zeros(65, np.int64), np.ones(65, np.int64))
    with pytest.raises(ValueError, match="65 dimensions; allowed: at most 64"):
        Bayesian(box, np.random.default_rng(0), sampler="gp")
