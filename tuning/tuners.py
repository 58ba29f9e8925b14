"""KerasTuner's tuners, by name and arguments, over this package's engine and oracles.

A script for KerasTuner runs with the import changed. Every tuner takes the arguments of
`tuning.tuner.EngineTuner` too, such as `workers`, `time_budget` and `keep`, and the oracles'
`plateau` (trials without a better score after which to stop) and `curve_stopping` (end trials whose
learning curve is not expected to reach the best score).
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from tuning.hyperband import HyperbandOracle
from tuning.oracle import SearchOracle
from tuning.oracles import (
    AshaOracle,
    BayesianOracle,
    BohbOracle,
    GridOracle,
    RandomOracle,
    TpeOracle,
)
from tuning.tuner import EngineTuner

__all__ = [
    "ASHA",
    "BOHB",
    "TPE",
    "BayesianOptimization",
    "GridSearch",
    "Hyperband",
    "RandomSearch",
    "Tuner",
]

Tuner = EngineTuner  # as KerasTuner calls it


class _NamedTuner(EngineTuner):
    """A tuner that makes its own oracle.

    Args:
        hypermodel: Build function or `keras_tuner.HyperModel`.
        objective: Metric, `keras_tuner.Objective`, or a list of them, as in KerasTuner.
        **options: Arguments of the oracle and of `EngineTuner`.
    """

    oracle_class: ClassVar[type[SearchOracle]]

    def __init__(self, hypermodel: Any = None, objective: Any = None, **options: Any) -> None:
        names = _arguments(self.oracle_class)
        mine = {name: options.pop(name) for name in list(options) if name in names}
        super().__init__(self.oracle_class(objective, **mine), hypermodel, **options)


class RandomSearch(_NamedTuner):
    """Independent random draws.

    Args:
        hypermodel: Build function or `keras_tuner.HyperModel`.
        objective: Metric, `keras_tuner.Objective`, or a list of them.
        max_trials: Number of trials.
        seed: In [0, 2**32); the same seed gives the same search. None draws one.
        **options: KerasTuner's other arguments and those of `EngineTuner`.
    """

    oracle_class = RandomOracle

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_trials: int = 10,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(hypermodel, objective, max_trials=max_trials, seed=seed, **options)


class GridSearch(_NamedTuner):
    """All combinations of values; ten values of a range without steps.

    Args:
        hypermodel: Build function or `keras_tuner.HyperModel`.
        objective: Metric, `keras_tuner.Objective`, or a list of them.
        max_trials: Most trials; None is the whole grid.
        seed: In [0, 2**32), of the models and the data's order. None draws one.
        **options: KerasTuner's other arguments and those of `EngineTuner`.
    """

    oracle_class = GridOracle

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_trials: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(hypermodel, objective, max_trials=max_trials, seed=seed, **options)


class BayesianOptimization(_NamedTuner):
    """KerasTuner's Gaussian process over the scores so far.

    Args:
        hypermodel: Build function or `keras_tuner.HyperModel`.
        objective: Metric, `keras_tuner.Objective`, or a list of them.
        max_trials: Number of trials.
        num_initial_points: Random trials to begin with; None is KerasTuner's three per
            hyperparameter.
        alpha: Variance of the noise in the scores.
        beta: Weight of exploring against exploiting.
        seed: In [0, 2**32); the same seed gives the same search. None draws one.
        **options: KerasTuner's other arguments and those of `EngineTuner`.
    """

    oracle_class = BayesianOracle

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_trials: int = 10,
        num_initial_points: int | None = None,
        alpha: float = 1e-4,
        beta: float = 2.6,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        points = {"num_initial_points": num_initial_points, "alpha": alpha, "beta": beta}
        options |= points
        super().__init__(hypermodel, objective, max_trials=max_trials, seed=seed, **options)


class Hyperband(_NamedTuner):
    """Brackets of many short trials, of which the best go on from where they stopped.

    A promotion is a trial of its own, which goes on with its parent's weights and optimizer.

    Args:
        hypermodel: Build function or `keras_tuner.HyperModel`.
        objective: Metric, `keras_tuner.Objective`, or a list of them.
        max_epochs: Epochs of the longest trial.
        factor: One in `factor` trials goes on.
        hyperband_iterations: Sweeps over all brackets.
        seed: In [0, 2**32); the same seed gives the same search. None draws one.
        **options: KerasTuner's other arguments and those of `EngineTuner`.
    """

    oracle_class = HyperbandOracle

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_epochs: int = 100,
        factor: int = 3,
        hyperband_iterations: int = 1,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        options |= {"factor": factor, "hyperband_iterations": hyperband_iterations}
        super().__init__(hypermodel, objective, max_epochs=max_epochs, seed=seed, **options)


class ASHA(_NamedTuner):
    """Asynchronous successive halving: a trial that is among the best of its rung goes on.

    Source: Li et al. 2018, arXiv:1810.05934, algorithm 2. Differs: a trial goes on from where it
    stopped, with its weights, optimizer and data order.

    Args:
        hypermodel: Build function or `keras_tuner.HyperModel`.
        objective: Metric, `keras_tuner.Objective`, or a list of them.
        max_trials: Number of configurations.
        max_epochs: Epochs of a trial that is never stopped. Learning-rate schedules should end
            here.
        factor: One in `factor` trials goes on.
        first: Epochs of the first rung, 2 if not given; each following one has `growth` times as
            many, twice if not given.
        seed: In [0, 2**32); the same seed gives the same search. None draws one.
        **options: KerasTuner's other arguments and those of `EngineTuner`.
    """

    oracle_class: ClassVar[type[SearchOracle]] = AshaOracle

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_trials: int = 10,
        max_epochs: int = 100,
        factor: int = 3,
        first: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        options |= {"max_epochs": max_epochs, "factor": factor, "first": first}
        super().__init__(hypermodel, objective, max_trials=max_trials, seed=seed, **options)


class BOHB(ASHA):
    """ASHA whose configurations are suggested by TPE, and whose hopeless trials end early.

    Source: Falkner et al. 2018, arXiv:1807.01774. Differs: asynchronous, with resume, and with
    Optuna's TPE. Arguments are those of `ASHA`.
    """

    oracle_class = BohbOracle


class TPE(_NamedTuner):
    """Optuna's tree-structured Parzen estimator over whole trials.

    Source: Bergstra et al. 2011, NeurIPS, section 4; Watanabe 2023, arXiv:2304.11127.

    Args:
        hypermodel: Build function or `keras_tuner.HyperModel`.
        objective: Metric, `keras_tuner.Objective`, or a list of them.
        max_trials: Number of trials.
        seed: In [0, 2**32); the same seed gives the same search. None draws one.
        **options: KerasTuner's other arguments and those of `EngineTuner`.
    """

    oracle_class = TpeOracle

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_trials: int = 10,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(hypermodel, objective, max_trials=max_trials, seed=seed, **options)


def _arguments(oracle: type[SearchOracle]) -> frozenset[str]:
    """Returns the names of an oracle's arguments, its base classes' included."""
    names: set[str] = set()
    for kind in oracle.__mro__:
        if "__init__" in vars(kind):
            names |= set(inspect.signature(vars(kind)["__init__"]).parameters)
    return frozenset(names - {"self", "objective", "options", "args", "kwargs"})
