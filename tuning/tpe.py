"""Tree-structured Parzen estimator: Optuna's sampler as a pure function of what was observed.

Source: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"; the choice of the
epoch to model as in Falkner et al. 2018, "BOHB", arXiv:1807.01774, section 4.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tuning.halving import Observation, thinned

STARTUP = 10  # random draws before the first model, as Optuna has it
ENOUGH = 11  # observations that make an epoch worth modelling: Optuna takes two of them for good
RANDOM_SHARE = 1 / 3  # as in BOHB, where trials stop at different epochs: early ranks may mislead
MOST_AVOIDED = 25


def suggest(
    parameters: Sequence[Any], observations: Sequence[Observation], *, seed: int
) -> dict[str, Any]:
    """Returns values for the active parameters of a new trial.

    The model is of the latest epoch that enough trials have reached, each judged by its best epoch
    until then. Where trials stop at different epochs, the earliest stop is not modelled, since
    what learns fastest is seldom what ends best, and every third draw is random.

    Args:
        parameters: KerasTuner hyperparameters, parents before their conditional children.
        observations: What is known, oldest first. Failed trials are kept away from, as are running
            ones that have not come to the modelled epoch yet.
        seed: Of the draw; the same arguments give the same values.
    """
    compared, avoided = _compared(observations, seed)
    with _quiet():
        study = _study(parameters, compared, avoided, seed)
        trial = study.ask()
        values: dict[str, Any] = {}
        for index, parameter in enumerate(parameters):
            if _is_active(parameter, values):
                values[parameter.name] = _draw(parameter, trial, _key(index, parameter))
    return values


def _compared(
    observations: Sequence[Observation], seed: int
) -> tuple[list[tuple[float, Observation]], list[Observation]]:
    """Returns what to model with its scores, nothing for a random draw, and what to keep off."""
    seen = [one for one in observations if one.curve and not one.failed]
    stops = {len(one.curve) for one in seen if not one.running}
    if len(stops) > 1:
        epoch = heapq.nlargest(ENOUGH, (len(one.curve) for one in seen))[-1]
        is_random = epoch <= min(stops) or np.random.default_rng(seed).random() < RANDOM_SHARE
    else:
        epoch = max(stops, default=1)
        is_random = False
    reached = [one for one in seen if len(one.curve) >= epoch]
    if is_random or len(seen) < STARTUP:
        return [], []
    scored = [(one.lowest[epoch - 1], one) for one in reached]
    avoided = [
        one for one in observations if one.failed or (one.running and len(one.curve) < epoch)
    ]
    return thinned(scored), avoided[-MOST_AVOIDED:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Optuna, which announces every study and warns that `group` is experimental."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _study(
    parameters: Sequence[Any],
    compared: Sequence[tuple[float, Observation]],
    avoided: Sequence[Observation],
    seed: int,
) -> Any:
    import optuna
    from optuna.trial import TrialState, create_trial

    sampler = optuna.samplers.TPESampler(
        seed=seed,
        group=True,  # conditional parameters are modelled together with those of their branch
        n_startup_trials=1,
    )
    study = optuna.create_study(sampler=sampler)
    distributions = [_distribution(parameter) for parameter in parameters]
    for score, one in [*compared, *((None, one) for one in avoided)]:
        places = _places(parameters, one.values)
        trial = create_trial(
            # Optuna counts what runs among the bad, and what failed not at all.
            state=TrialState.RUNNING if score is None else TrialState.COMPLETE,
            value=score,
            params={_key(index, parameters[index]): place for index, place in places.items()},
            distributions={_key(i, parameters[i]): distributions[i] for i in places},
        )
        study.add_trial(trial)
    return study


def _key(index: int, parameter: Any) -> str:
    # KerasTuner allows parameters of one name under different conditions.
    return f"{parameter.name}/{index}"


def _is_active(parameter: Any, values: Mapping[str, Any]) -> bool:
    return all(condition.is_active(values) for condition in parameter.conditions)


def _places(parameters: Sequence[Any], values: Mapping[str, Any]) -> dict[int, float]:
    """Returns by index where the values lie in the ranges of the active parameters."""
    found = {}
    for index, parameter in enumerate(parameters):
        if parameter.name in values and _is_active(parameter, values):
            place = _place(parameter, values[parameter.name])
            if place is not None:
                found[index] = place
    return found


def _place(parameter: Any, value: Any) -> float | None:
    """Returns the number of a value among its alternatives, or its share of a continuous range."""
    if not hasattr(parameter, "sampling"):
        offered = list(parameter.values)
        return offered.index(value) if value in offered else None
    if (count := _count(parameter)) is None:
        return float(min(max(parameter.value_to_prob(value), 0.0), 1.0))
    if parameter.sampling == "linear":
        value += parameter.step / 2  # KerasTuner rounds down
    place = round(float(parameter.value_to_prob(value)) * count - 0.5)
    return min(max(place, 0), count - 1)


def _count(parameter: Any) -> int | None:
    """Returns the number of values, or None for a continuous range."""
    if not hasattr(parameter, "sampling"):
        return len(parameter.values)
    return None if parameter.step is None else int(parameter._get_n_values())


def _distribution(parameter: Any) -> Any:
    from optuna import distributions

    if (count := _count(parameter)) is None:
        return distributions.FloatDistribution(0.0, 1.0)
    if hasattr(parameter, "sampling") or getattr(parameter, "ordered", False):
        return distributions.IntDistribution(0, count - 1)
    return distributions.CategoricalDistribution(tuple(range(count)))


def _draw(parameter: Any, trial: Any, key: str) -> Any:
    count = _count(parameter)
    if count is None:
        share = trial.suggest_float(key, 0.0, 1.0)
        value = parameter.prob_to_value(min(share, math.nextafter(1.0, 0.0)))
        return min(max(value, parameter.min_value), parameter.max_value)  # rounding
    if hasattr(parameter, "sampling"):
        return parameter.prob_to_value((trial.suggest_int(key, 0, count - 1) + 0.5) / count)
    if getattr(parameter, "ordered", False):
        return parameter.values[trial.suggest_int(key, 0, count - 1)]
    return parameter.values[trial.suggest_categorical(key, tuple(range(count)))]
