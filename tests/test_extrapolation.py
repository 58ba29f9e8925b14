"""Learning-curve stopping, on curves whose end is known in closed form."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tuning.extrapolation import FEWEST_EPOCHS, hopeless
from zoo.errors import OptionValueError

END = 50
Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]

CURVES: dict[str, Curve] = {  # all end above 0.2
    "power law": lambda t: 0.2 + 0.8 * t**-0.7,
    "fast power law": lambda t: 0.2 + 0.8 * t**-1.5,
    "exponential": lambda t: 0.2 + 0.8 * np.exp(-t / 8),
    "slow exponential": lambda t: 0.2 + 0.8 * np.exp(-t / 20),
    "straight line": lambda t: 1.0 - 0.015 * (t - 1),
    "logarithm": lambda t: 1.0 - 0.2 * np.log(t),
}


def first(curve: Curve, epochs: int, noise: float = 0.0, seed: int = 0) -> list[float]:
    values = curve(np.arange(1.0, epochs + 1))
    return list(values + noise * np.random.default_rng(seed).standard_normal(epochs))


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("epochs", [12, 20, 35])
def test_what_will_get_below_the_best_goes_on(name: str, epochs: int) -> None:
    curve = CURVES[name]
    end = float(curve(np.array([float(END)]))[0])
    assert not hopeless(first(curve, epochs), end + 0.03, END, seed=0)


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_what_will_stay_above_is_stopped(name: str, noise: float) -> None:
    curve = CURVES[name]
    end = float(curve(np.array([float(END)]))[0])
    assert hopeless(first(curve, 30, noise), end - 0.1, END, seed=0)


@pytest.mark.parametrize(
    "curve",
    [
        lambda t: np.full(len(t), 0.5),  # flat
        lambda t: 0.5 + 0.01 * t,  # rising: overfitted from the start
        lambda t: np.where(t < 8, 1.2 - 0.1 * t, 0.5 + 0.02 * (t - 8)),  # rising since epoch 8
    ],
)
def test_what_does_not_fall_is_stopped(curve: Curve) -> None:
    assert hopeless(first(curve, 15), 0.2, END, seed=0)


def test_too_few_epochs_say_nothing() -> None:
    for epochs in range(FEWEST_EPOCHS):
        assert not hopeless([1.0] * epochs, 0.0, END, seed=0)
    assert hopeless([1.0] * FEWEST_EPOCHS, 0.0, END, seed=0)
    assert not hopeless([1.0] * (FEWEST_EPOCHS - 1) + [math.nan, math.inf], 0.0, END, seed=0)


def test_what_was_below_the_best_once_is_never_hopeless() -> None:
    assert not hopeless([0.1, *[1.0] * 20], 0.2, END, seed=0)


def test_at_the_last_epoch_nothing_is_left_to_hope_for() -> None:
    falling = first(CURVES["straight line"], 10)
    assert hopeless(falling, falling[-1] - 1e-6, 10, seed=0)
    assert not hopeless(falling, falling[-1] - 1e-6, 11, seed=0)


def test_epochs_without_a_number_are_passed_over() -> None:
    whole = first(CURVES["power law"], 25, 0.003)
    holed = [math.nan if epoch in (3, 11) else value for epoch, value in enumerate(whole)]
    for goal in (0.05, 0.3):
        assert hopeless(holed, goal, END, seed=0) == hopeless(whole, goal, END, seed=0)


def test_the_scale_does_not_matter() -> None:
    curve = np.array(first(CURVES["exponential"], 15, 0.01))
    for goal in np.linspace(0.0, 0.5, 11):
        asked = hopeless(list(curve), goal, END, seed=1)
        assert hopeless(list(1000 * curve - 300), 1000 * goal - 300, END, seed=1) == asked


def test_the_seed_decides_close_cases() -> None:
    curve = first(CURVES["power law"], 12, 0.03)
    goals = np.linspace(0.0, 0.5, 101)
    answers = [[hopeless(curve, goal, END, seed=seed) for goal in goals] for seed in (0, 0, 1)]
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]


def test_hardly_any_winner_is_called_hopeless_and_most_losers_are() -> None:
    rng = np.random.default_rng(0)
    winners = lost_winners = losers = stopped = 0
    for index in range(800):
        rate = rng.uniform(0.3, 1.5)
        asymptote = rng.uniform(0.0, 0.5)
        epochs = np.arange(1.0, END + 1)
        curve = asymptote + epochs**-rate + 0.01 * rng.standard_normal(END)
        goal, until = 0.3, int(rng.integers(6, 30))
        if curve[:until].min() < goal:
            continue
        is_stopped = hopeless(list(curve[:until]), goal, END, seed=index)
        wins = curve.min() < goal
        winners, losers = winners + wins, losers + (not wins)
        lost_winners, stopped = lost_winners + (wins and is_stopped), stopped + is_stopped
    assert min(winners, losers) > 50
    assert lost_winners < 0.05 * stopped
    assert stopped - lost_winners > 0.5 * losers


def test_it_is_cheap() -> None:
    curve = first(CURVES["power law"], 100, 0.01)
    hopeless(curve, 0.1, 200, seed=0)
    start = time.perf_counter()
    for seed in range(10):
        hopeless(curve, 0.1, 200, seed=seed)
    assert time.perf_counter() - start < 10 * 0.05  # ten times what it takes on a quiet machine


def test_the_end_must_not_have_passed() -> None:
    with pytest.raises(OptionValueError, match="got last_epoch=4 for 5 epochs"):
        hopeless([1.0] * 5, 0.0, 4, seed=0)
