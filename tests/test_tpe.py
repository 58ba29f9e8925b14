"""The estimator against Optuna driven directly, and on objectives whose optimum is known."""

from __future__ import annotations

import copy
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner
import numpy as np
import optuna
import pytest

from tuning import tpe
from tuning.halving import Observation
from tuning.tpe import suggest

Values = Mapping[str, Any]


def space(**declared: Callable[[Any, str], object]) -> list[Any]:
    hp = keras_tuner.HyperParameters()
    for name, declare in declared.items():
        declare(hp, name)
    return list(hp.space)


def unit(hp: Any, name: str) -> object:
    return hp.Float(name, 0.0, 1.0)


SQUARE = space(x=unit, y=unit)


def random_values(parameters: list[Any], rng: np.random.Generator) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for parameter in parameters:
        if all(condition.is_active(values) for condition in parameter.conditions):
            values[parameter.name] = parameter.prob_to_value(rng.random())
    return values


def random_observations(
    parameters: list[Any], count: int, score: Callable[[Values], float], seed: int = 0
) -> list[Observation]:
    rng = np.random.default_rng(seed)
    drawn = [random_values(parameters, rng) for _ in range(count)]
    return [
        Observation(trial=str(index), values=values, curve=(score(values),))
        for index, values in enumerate(drawn)
    ]


def distance(values: Values, x: float = 0.8, y: float = 0.3) -> float:
    return math.hypot(values["x"] - x, values["y"] - y)


def mean_distance(observations: list[Observation], **optimum: float) -> float:
    found = [distance(suggest(SQUARE, observations, seed=n), **optimum) for n in range(16)]
    return float(np.mean(found))


CHANCE = 0.5  # mean distance of a random point to (0.8, 0.3), about


# Optuna


def optuna_draw(observations: list[Observation], seed: int) -> dict[str, Any]:
    """Draws from a study in which a is continuous, b one of five in order and c one of three."""
    distributions = {
        "a": optuna.distributions.FloatDistribution(0.0, 1.0),
        "b": optuna.distributions.IntDistribution(0, 4),
        "c": optuna.distributions.CategoricalDistribution(("p", "q", "r")),
    }
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    for one in observations:
        trial = optuna.trial.create_trial(
            params=dict(one.values), distributions=distributions, value=one.curve[0]
        )
        study.add_trial(trial)
    return dict(study.ask(distributions).params)


@pytest.mark.parametrize("count", [10, 11, 40, 120])
def test_draws_are_optunas_where_trials_are_equally_long(count: int) -> None:
    parameters = space(
        a=unit,
        b=lambda hp, name: hp.Int(name, 0, 4),
        c=lambda hp, name: hp.Choice(name, ["p", "q", "r"]),
    )
    observations = random_observations(
        parameters, count, lambda v: abs(v["a"] - 0.3) + 0.1 * v["b"] + 0.2 * (v["c"] != "q")
    )
    for seed in range(5):
        expected = optuna_draw(observations, seed)
        assert suggest(parameters, observations, seed=seed) == pytest.approx(expected)


def test_the_first_draws_are_random() -> None:
    observations = random_observations(SQUARE, tpe.STARTUP - 1, distance)
    assert suggest(SQUARE, observations, seed=5) == suggest(SQUARE, [], seed=5)
    observations = random_observations(SQUARE, tpe.STARTUP, distance)
    assert suggest(SQUARE, observations, seed=5) != suggest(SQUARE, [], seed=5)


def test_suggestions_gather_around_the_optimum() -> None:
    assert mean_distance([]) > 0.8 * CHANCE
    assert mean_distance(random_observations(SQUARE, 60, distance)) < 0.5 * CHANCE


def test_nothing_but_the_arguments_counts() -> None:
    observations = random_observations(SQUARE, 30, distance)
    before = copy.deepcopy(observations)
    np.random.seed(0)  # noqa: NPY002 - the state that must not matter
    first = suggest(SQUARE, observations, seed=3)
    np.random.seed(1)  # noqa: NPY002
    assert suggest(SQUARE, observations, seed=3) == first
    assert suggest(SQUARE, observations, seed=4) != first
    assert observations == before


# Fidelity


def misleading(count: int, promoted: int, running: bool = False) -> list[Observation]:
    """Returns trials that are best near (0.2, 0.7) after an epoch, near (0.8, 0.3) after three."""
    short = random_observations(SQUARE, count, lambda v: distance(v, 0.2, 0.7))
    return [
        Observation(
            trial=one.trial,
            values=one.values,
            curve=(one.curve[0] + 2, one.curve[0] + 2, distance(one.values))
            if index < promoted
            else (one.curve[0] + 2,),
            running=running,
        )
        for index, one in enumerate(short)
    ]


def test_the_latest_epoch_that_enough_trials_reached_is_modelled() -> None:
    observations = misleading(60, 3 * tpe.ENOUGH)
    assert mean_distance(observations) < 0.75 * CHANCE
    assert mean_distance(observations) < 0.8 * mean_distance(observations, x=0.2, y=0.7)


def test_running_trials_that_reached_it_count() -> None:
    finished = misleading(60, 0)
    ahead = misleading(60, 3 * tpe.ENOUGH, running=True)[: 3 * tpe.ENOUGH]
    observations = [*ahead, *finished[len(ahead) :]]
    assert mean_distance([*observations, *misleading(61, 61)[60:]]) < 0.75 * CHANCE


def test_the_earliest_stop_is_not_modelled_once_there_is_a_later_one() -> None:
    assert suggest(SQUARE, misleading(60, 0), seed=1) != suggest(SQUARE, [], seed=1)
    few = misleading(60, tpe.ENOUGH - 1)
    assert all(suggest(SQUARE, few, seed=n) == suggest(SQUARE, [], seed=n) for n in range(10))


def test_every_third_draw_is_random_where_trials_stop_at_different_epochs() -> None:
    observations = misleading(60, 20)
    same = [
        suggest(SQUARE, observations, seed=n) == suggest(SQUARE, [], seed=n) for n in range(120)
    ]
    assert 0.23 < np.mean(same) < 0.43


@pytest.mark.parametrize("state", ["running", "failed"])
def test_running_and_failed_trials_are_kept_away_from(state: str) -> None:
    finished = random_observations(SQUARE, 40, distance)
    rng = np.random.default_rng(0)
    others = [
        Observation(
            trial=str(100 + n),
            values={"x": 0.8 + 0.05 * rng.standard_normal(), "y": 0.3},
            curve=(),
            running=state == "running",
            failed=state == "failed",
        )
        for n in range(20)
    ]
    assert mean_distance([*finished, *others]) > 1.3 * mean_distance(finished)


def test_curves_without_a_number_are_the_worst() -> None:
    observations = random_observations(
        SQUARE, 60, lambda v: math.nan if v["x"] < 0.5 else distance(v)
    )
    assert mean_distance(observations) < 0.5 * CHANCE


# Spaces


def mixed() -> list[Any]:
    hp = keras_tuner.HyperParameters()
    hp.Float("rate", 1e-4, 1e-1, sampling="log")
    hp.Float("reverse", 1.0, 100.0, sampling="reverse_log")
    hp.Float("stepped", 0.0, 1.0, step=0.1)
    hp.Float("decades", 1e-3, 10.0, step=10, sampling="log")
    hp.Int("count", 3, 9)
    hp.Int("odd", 1, 100_000, step=2)
    hp.Int("units", 16, 512, sampling="log")
    hp.Int("powers", 2, 64, step=2, sampling="log")
    hp.Int("backwards", 2, 64, step=2, sampling="reverse_log")
    hp.Int("point", 4, 4)
    hp.Choice("size", [32, 64, 128])
    hp.Choice("name", ["a", "b"])
    hp.Boolean("flag")
    hp.Fixed("fixed", 7)
    with hp.conditional_scope("name", ["b"]):
        hp.Float("b_only", 0.0, 1.0)
        hp.Boolean("deeper")
        with hp.conditional_scope("deeper", [True]):
            hp.Int("depth", 1, 3)
            hp.Int("shared", 1, 3)
    with hp.conditional_scope("name", ["a"]):
        hp.Int("shared", 10, 30)  # the same name means another parameter here
    return list(hp.space)


TYPES = {"Float": float, "Int": int, "Boolean": bool, "Fixed": int}


def check(parameters: list[Any], values: Values) -> None:
    active: dict[str, Any] = {}
    for parameter in parameters:
        if not all(condition.is_active(active) for condition in parameter.conditions):
            continue
        value = active[parameter.name] = values[parameter.name]
        kind = type(parameter).__name__
        assert type(value) is TYPES.get(kind, type(parameter.default))
        if hasattr(parameter, "sampling"):
            assert parameter.min_value <= value <= parameter.max_value
        if getattr(parameter, "step", 1) is not None:
            assert any(value == pytest.approx(offered) for offered in parameter.values)
    assert list(values) == list(active)


@pytest.mark.parametrize("seed", range(8))
def test_values_are_active_valid_and_of_their_types(seed: int) -> None:
    parameters = mixed()
    observations = random_observations(parameters, 40, lambda values: values["stepped"])
    for found in (suggest(parameters, [], seed=seed), suggest(parameters, observations, seed=seed)):
        check(parameters, found)
        assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("parameter", mixed(), ids=lambda parameter: str(parameter.name))
def test_the_only_good_value_is_suggested_again(parameter: Any) -> None:
    parameter.conditions = []
    rng = np.random.default_rng(0)
    good = parameter.prob_to_value(0.9)
    others = [parameter.prob_to_value(rng.random()) for _ in range(40)]
    draws = [good, good, *(value for value in others if value != good)]
    observations = [
        Observation(trial=str(n), values={parameter.name: value}, curve=(float(n > 1),))
        for n, value in enumerate(draws[:20])
    ]
    found = [suggest([parameter], observations, seed=n)[parameter.name] for n in range(9)]
    gaps = [abs(parameter.value_to_prob(one) - parameter.value_to_prob(good)) for one in found]
    assert np.median(gaps) < 0.1


@pytest.mark.parametrize("parameter", mixed(), ids=lambda parameter: str(parameter.name))
def test_places_and_values_are_one_to_one(parameter: Any) -> None:
    count = tpe._count(parameter)
    for index in range(min(count or 0, 100)):
        value = parameter.prob_to_value((index + 0.5) / (count or 1))
        if not hasattr(parameter, "sampling"):
            value = parameter.values[index]
        assert tpe._place(parameter, value) == index


def test_conditional_parameters_learn_within_their_branch() -> None:
    hp = keras_tuner.HyperParameters()
    hp.Choice("kind", ["a", "b"])
    for kind, name in (("a", "p"), ("b", "q")):
        with hp.conditional_scope("kind", [kind]):
            hp.Float(name, 0.0, 1.0)
    observations = random_observations(
        hp.space, 60, lambda v: abs(v["p"] - 0.9) if v["kind"] == "a" else 1 + v["q"]
    )
    found = [suggest(hp.space, observations, seed=n) for n in range(20)]
    inside = [one["p"] for one in found if one["kind"] == "a"]
    assert len(inside) > 12
    assert np.median(np.abs(np.array(inside) - 0.9)) < 0.1


def test_observations_of_another_space_are_used_for_what_they_have() -> None:
    observations = random_observations(space(x=unit), 40, lambda v: abs(v["x"] - 0.8))
    strange = [Observation(trial="s", values={"x": 3.0, "c": "gone"}, curve=(9.0,))]
    wider = space(x=unit, c=lambda hp, name: hp.Choice(name, ["p", "q"]))
    found = [suggest(wider, [*observations, *strange], seed=n) for n in range(20)]
    for one in found:
        check(wider, one)
    assert np.median([abs(one["x"] - 0.8) for one in found]) < 0.15


def test_an_empty_space_has_nothing_to_suggest() -> None:
    assert suggest([], [], seed=0) == {}


# Cost and quiet


def test_ten_thousand_observations_are_thinned() -> None:
    observations = random_observations(SQUARE, 10_000, distance)
    suggest(SQUARE, observations, seed=0)
    start = time.perf_counter()
    values = [suggest(SQUARE, observations, seed=n) for n in range(5)]
    assert time.perf_counter() - start < 5 * 0.5  # ten times what it takes on a quiet machine
    assert np.mean([distance(one) for one in values]) < 0.1


def test_optuna_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    observations = random_observations(SQUARE, 20, distance)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        suggest(SQUARE, observations, seed=0)
    assert not caught
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
