from __future__ import annotations

import math

import numpy as np
import pytest

from qtable.measure.noninferiority import Change, is_non_inferior, last_non_inferior, photos_needed, score_statistic


def simulate(n: int, lost: float, gained: float, runs: int, rng: np.random.Generator) -> list[Change]:
    counts = rng.multinomial(n, [lost, gained, 1 - lost - gained], size=runs)
    return [Change(n, int(b), int(c)) for b, c, _ in counts]


@pytest.mark.parametrize("n", [200, 1000, 10_000])
@pytest.mark.parametrize(("max_drop", "gained"), [(0.005, 0.01), (0.01, 0.03), (0.02, 0.0), (0.05, 0.1)])
def test_a_truly_worse_table_is_accepted_at_most_5_percent_of_the_time(n: int, max_drop: float, gained: float) -> None:
    """At the edge of the null hypothesis: the true drop is exactly the maximal one."""
    runs = 4000
    changes = simulate(n, gained + max_drop, gained, runs, np.random.default_rng(0))
    accepted = sum(is_non_inferior(change, max_drop) for change in changes) / runs
    assert accepted <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


def test_of_a_whole_front_a_worse_table_is_chosen_at_most_5_percent_of_the_time() -> None:
    """Ten candidates of rising drop, tested in order: the chance that any with a drop of 1% or more is chosen."""
    rng, runs, wrong = np.random.default_rng(1), 2000, 0
    drops = np.linspace(0.001, 0.019, 10)
    for _ in range(runs):
        changes = [simulate(2000, 0.02 + drop, 0.02, 1, rng)[0] for drop in drops]
        last = last_non_inferior(changes, 0.01)
        wrong += last is not None and drops[last] >= 0.01
    assert wrong / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


def test_a_truly_equal_table_is_accepted_with_the_planned_power() -> None:
    rate, max_drop = 0.03, 0.01
    n = photos_needed(Change(10_000, 300, 300), max_drop)
    assert n is not None
    accepted = [is_non_inferior(c, max_drop) for c in simulate(n, rate, rate, 3000, np.random.default_rng(0))]
    assert np.mean(accepted) == pytest.approx(0.8, abs=0.05)


def test_the_constrained_estimate_maximizes_the_likelihood() -> None:
    """The statistic's variance against brute force over the rate of gained photos."""
    n, lost, gained, drop = 500, 20, 12, 0.03
    b, c = lost + 1, gained
    x = np.linspace(1e-6, (1 - drop) / 2 - 1e-6, 200_001)
    likelihood = b * np.log(x + drop) + c * np.log(x) + (n - b - c) * np.log(1 - 2 * x - drop)
    best = x[likelihood.argmax()]
    expected = (b - c - n * drop) / math.sqrt(n * (2 * best + drop - drop**2))
    assert score_statistic(Change(n, lost, gained), drop) == pytest.approx(expected, abs=1e-3)


def test_change_counts_pairs() -> None:
    change = Change.between(np.array([1.0, 1, 0, 0, 1]), np.array([0.0, 1, 1, 0, 0]))
    assert change == Change(5, 2, 1)
    assert change.drop == pytest.approx(0.2)


def test_too_few_photos_say_how_many() -> None:
    few = Change(100, 0, 0)
    assert not is_non_inferior(few, 0.005)
    assert (photos_needed(few, 0.005) or 0) > 100
    assert photos_needed(Change(100, 10, 0), 0.05) is None


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, float("nan")])
def test_impossible_margins_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        is_non_inferior(Change(10, 0, 0), bad)


def test_outcomes_must_be_right_or_wrong() -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        Change.between(np.array([0.5]), np.array([1.0]))
    with pytest.raises(ValueError, match="one shape"):
        Change.between(np.array([1.0]), np.array([1.0, 0.0]))


def test_a_change_that_fails_always_needs_more_photos() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        n = int(rng.integers(20, 3000))
        change = Change(n, int(rng.integers(0, 1 + n // 20)), int(rng.integers(0, 1 + n // 20)))
        max_drop = float(rng.choice([0.005, 0.01, 0.05]))
        needed = photos_needed(change, max_drop)
        if not is_non_inferior(change, max_drop) and needed is not None:
            assert needed > n
