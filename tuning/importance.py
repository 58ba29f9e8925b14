"""Which hyperparameters made the difference, and which cannot be told from chance."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuning.page.scales import Scale, scale
from tuning.results import SearchSummary
from zoo.errors import DataError

EVALUATOR = "PED-ANOVA"  # Watanabe et al. 2023, arXiv:2304.10255; conditional since Optuna 5
MIN_TRIALS = 8  # with fewer, even one hyperparameter that decides alone is missed half the time
# Optuna's tenth, but up to a third where a tenth is less than 15 trials: with 5 of 40, what decided
# most of the score was told from chance in 5 of 16 searches; with 13, in all of them.
_TOP_SHARE, _TOP_TRIALS, _TOP_LIMIT = 0.1, 15, 1 / 3
_SHUFFLES = 40
_CHANCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much a hyperparameter decides whether a trial is among the best."""

    name: str
    share: float  # of all importance, in [0, 1]
    chance: float  # 95 % of searches with shuffled scores have every share below its chance
    trials: int  # in which it was active

    @property
    def stands_out(self) -> bool:
        """Whether it is more than chance."""
        return self.share > self.chance


def top_share(trials: int) -> float:
    """Returns the share of the trials that counts as the best."""
    return max(_TOP_SHARE, min(_TOP_LIMIT, _TOP_TRIALS / trials))


def importances(summary: SearchSummary) -> list[Importance]:
    """Returns the hyperparameters that took more than one value, the most important first.

    Failed trials are left out, and those that another one continued; a conditional hyperparameter
    counts where it was active.

    Raises:
        DataError: There is nothing to tell: too few trials, equal scores, constant values.
    """
    trials = summary.configurations()
    scores = np.array([trial.ranked_score for trial in trials], np.float64)
    _check(scores)
    scales = {
        name: scale([trial.values.get(name) for trial in trials])
        for name in summary.hyperparameters
    }
    varied = {name: found for name, found in scales.items() if len(found.distinct) > 1}
    if not varied:
        raise DataError("No hyperparameter took more than one value.")
    losses = -scores if summary.maximize else scores
    real, *shuffled = _evaluate(varied, losses)
    total = sum(real.values())
    if not total > 0:
        raise DataError("Too many trials share the best score to tell what they have in common.")
    chances = _chances(list(varied), shuffled)
    found = [
        Importance(
            name=name,
            share=real[name] / total,
            chance=chances[name] / total,
            trials=int(np.isfinite(values.places).sum()),
        )
        for name, values in varied.items()
    ]
    return sorted(found, key=lambda one: (-one.share, one.name))


def _chances(names: list[str], shuffled: list[dict[str, float]]) -> dict[str, float]:
    """Returns the importances that together only 5 % of the shuffles exceed anywhere."""
    values = np.array([[one[name] for name in names] for one in shuffled])
    usual = np.maximum(values.mean(axis=0), np.finfo(np.float64).tiny)
    factor = np.quantile((values / usual).max(axis=1), _CHANCE)
    return dict(zip(names, map(float, factor * usual), strict=True))


def _check(scores: npt.NDArray[np.float64]) -> None:
    if len(scores) < MIN_TRIALS:
        raise DataError(
            f"Importance needs at least {MIN_TRIALS} trials with a score; there are {len(scores)}."
        )
    if scores.min() == scores.max():
        raise DataError(f"All {len(scores)} trials have the same score.")


def _evaluate(scales: dict[str, Scale], losses: npt.NDArray[np.float64]) -> list[dict[str, float]]:
    """Returns the importances, then those of shuffled scores."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    random = np.random.default_rng(0)
    evaluator = PedAnovaImportanceEvaluator(target_quantile=top_share(len(losses)))
    orders = [losses, *(random.permutation(losses) for _ in range(_SHUFFLES))]
    with _quiet():
        study = _study(scales, len(losses))
        return [
            get_param_importances(
                study, evaluator=evaluator, target=_target(order), normalize=False
            )
            for order in orders
        ]


def _target(losses: npt.NDArray[np.float64]) -> Callable[[Any], float]:
    return lambda trial: float(losses[trial.number])


def _study(scales: dict[str, Scale], trials: int) -> Any:
    import optuna

    distributions = {name: _distribution(found) for name, found in scales.items()}
    study = optuna.create_study()
    for number in range(trials):
        active = {n: s.places[number] for n, s in scales.items() if np.isfinite(s.places[number])}
        values = {
            name: int(place) if scales[name].names else float(place)
            for name, place in active.items()
        }
        study.add_trial(
            optuna.trial.create_trial(
                params=values, distributions={name: distributions[name] for name in values}, value=0
            )
        )
    return study


def _distribution(found: Scale) -> Any:
    from optuna import distributions

    if found.names:
        return distributions.CategoricalDistribution(range(len(found.names)))
    low, high = found.distinct[[0, -1]]
    return distributions.FloatDistribution(float(low), float(high), log=found.log)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna from announcing its study and from warning of what is meant here."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `normalize`
            warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes")
            warnings.filterwarnings("ignore", message="Some regimes for parameter")
            warnings.filterwarnings("ignore", message="Target and region quantiles")
            yield
    finally:
        optuna.logging.set_verbosity(level)
