"""Search algorithms: what to try next, given what became of the trials so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import TrialStatus
from numpy.typing import NDArray

from tuning import halving, tpe
from tuning.gaussian import ranked_points
from tuning.halving import Observation
from tuning.hyperband import HyperbandOracle
from tuning.oracle import SearchOracle
from tuning.state import Values, derived_seed, name_of
from zoo.errors import OptionValueError

__all__ = [
    "ALGORITHMS",
    "AshaOracle",
    "BayesianOracle",
    "BohbOracle",
    "GridOracle",
    "HyperbandOracle",
    "RandomOracle",
    "SearchOracle",
    "TpeOracle",
]

MOST_TRIED = 50  # of the points that a Gaussian process ranks, before a random draw


class RandomOracle(SearchOracle, keras_tuner.oracles.RandomSearchOracle):
    """Independent random draws."""


class GridOracle(SearchOracle, keras_tuner.oracles.GridSearchOracle):
    """All combinations, ten values of a range: each trial takes the successor of the one before."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the next combination of the space as it is known now."""
        number = int(trial_id)
        if number == 0:
            return self._suggestion(self._complete({}))
        before = self.values[name_of(number - 1)]
        values = self._get_next_combination(self._complete(before))
        if values is None and self.ongoing_trials:  # which may find more hyperparameters
            return {"status": TrialStatus.IDLE}
        return self._suggestion(values)


class BayesianOracle(SearchOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """A Gaussian process over the scores so far."""

    @classmethod
    def create(
        cls, objective: Any, *, trials: int | None, max_epochs: int, seed: int, **options: Any
    ) -> Self:
        """Returns the oracle; a third of the trials, up to 20, are random.

        KerasTuner's own rule, three for each hyperparameter, leaves a short search all random.
        """
        if trials is not None:
            options = {"num_initial_points": min(max(trials // 3, 3), 20)} | options
        return super().create(objective, trials=trials, max_epochs=max_epochs, seed=seed, **options)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values that the process finds most promising."""
        completed = [t for t in self.trials.values() if t.status == TrialStatus.COMPLETED]
        if len(completed) < (
            self.num_initial_points or max(3 * len(self.hyperparameters.space), 3)
        ):
            return super().populate_space(trial_id)
        if not self._nonfixed_space():
            return self._suggestion(self._draw(trial_id))
        # Anew for every trial, so that it depends on nothing else.
        random = np.random.default_rng([self.seed, int(trial_id)])
        points, losses = self._evidence(completed)
        ranked = ranked_points(points, losses, alpha=self.alpha, beta=self.beta, random=random)
        for point in ranked[:MOST_TRIED]:
            values = self._complete(_plain(self._vector_to_values(point)))
            if not self._duplicate(values):
                return self._suggestion(values)
        return self._suggestion(self._draw(trial_id))

    def _evidence(self, completed: list[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns points in the unit cube and their losses, with the worst for running trials."""
        scored = halving.thinned([(self._loss(trial.score), trial) for trial in completed])
        finite = [loss for loss, _ in scored if math.isfinite(loss)] or [0.0]
        scored += [(max(finite), trial) for trial in self.ongoing_trials.values()]
        points = [self._vector(trial) for _, trial in scored]
        return np.array(points), np.clip([loss for loss, _ in scored], min(finite), max(finite))

    def _vector(self, trial: Any) -> list[float]:
        hp = trial.hyperparameters
        return [
            param.value_to_prob(
                hp.values.get(param.name, param.default) if hp.is_active(param) else param.default
            )
            for param in self._nonfixed_space()
        ]


def _plain(values: Mapping[str, Any]) -> Values:
    """Returns values without numpy's types, which JSON does not know."""
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}


class TpeOracle(SearchOracle):
    """Optuna's tree-structured Parzen estimator over the scores so far."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values that the estimator finds most promising."""
        if int(trial_id) == 0:
            return super().populate_space(trial_id)
        seed = derived_seed(self.seed, int(trial_id))
        values = tpe.suggest(self.hyperparameters.space, self.observations(), seed=seed)
        return self._suggestion(self._untried(values, trial_id))

    def _observation(self, trial: Any) -> Observation:
        seen = super()._observation(trial)
        if self.continues or trial.score is None:
            return seen
        # Compared by score, however long the trials were.
        return replace(seen, curve=(self._loss(trial.score),))


class AshaOracle(SearchOracle):
    """Random draws trained for few epochs, of which the best go on: the same trial, further.

    At the end of the trials the best one is trained to its last epoch, whether it earned it or not.

    Args:
        objective: As in KerasTuner.
        max_trials: Number of configurations; None is no limit.
        max_epochs: Epochs of the trials that get furthest.
        factor: One of so many trials goes on from each rung.
        first: Epochs of the first rung; None is 2, or 1 of 1.
        growth: How many times more epochs the next rung has. The paper has `factor`, and 1 first;
            with these the best was found sooner on LCBench.
        **options: Arguments of `SearchOracle`.

    Raises:
        OptionValueError: `factor` is below 2, or `first` is not in 1..max_epochs.
    """

    continues = True

    def __init__(
        self,
        objective: Any = None,
        *,
        max_trials: int | None = 10,
        max_epochs: int = 100,
        factor: int = 3,
        first: int | None = None,
        growth: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(objective, max_trials=max_trials, max_epochs=max_epochs, **options)
        if factor < 2:
            raise OptionValueError(f"`factor` must be at least 2; got factor={factor}.")
        self.factor = factor
        first = min(2, max_epochs) if first is None else first
        self.rungs = halving.rungs(max_epochs, factor=growth, first=first)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns a new trial up to the first rung."""
        return super().populate_space(trial_id) | {"epochs": (0, self.rungs[0])}

    def needed_states(self) -> set[str]:
        """Returns the running trials and those that may still be promoted."""
        # More trials can only lower a rank: one that is too low for `max_trials` stays there.
        places = max(self.max_trials // self.factor, 1) if self.max_trials else None
        contenders = halving.contenders(self.observations(), self.rungs, places=places)
        return super().needed_states() | contenders

    def _next(self, trial_id: str) -> dict[str, Any]:
        promoted = halving.promotion(self.observations(), self.rungs, factor=self.factor)
        if promoted is not None:
            return self._promotion(*promoted)
        response = super()._next(trial_id)
        if response["status"] != TrialStatus.STOPPED:
            return response
        if self.ongoing_trials:
            return {"status": TrialStatus.IDLE}  # a promotion may come of them
        last = halving.completion(self.observations(), self.rungs)
        return response if last is None else self._promotion(*last)

    def _promotion(self, trial_id: str, epochs: int) -> dict[str, Any]:
        first = self._spans[trial_id][1]
        return {"status": TrialStatus.RUNNING, "trial": trial_id, "epochs": (first, epochs)}

    def _observation(self, trial: Any) -> Observation:
        seen = super()._observation(trial)
        last = self._spans[trial.trial_id][1]
        stopped_short = not seen.running and last is not None and len(seen.curve) < last
        return replace(seen, final=True) if stopped_short else seen


class BohbOracle(AshaOracle, TpeOracle):
    """ASHA over the estimator's suggestions; hopeless learning curves are stopped.

    Args:
        objective: As in KerasTuner.
        curve_stopping: As in `SearchOracle`.
        **options: Arguments of `AshaOracle`.
    """

    def __init__(
        self, objective: Any = None, *, curve_stopping: bool = True, **options: Any
    ) -> None:
        super().__init__(objective, curve_stopping=curve_stopping, **options)


ALGORITHMS: Mapping[str, type[SearchOracle]] = {
    "random": RandomOracle,
    "grid": GridOracle,
    "hyperband": HyperbandOracle,
    "bayesian": BayesianOracle,
    "asha": AshaOracle,
    "tpe": TpeOracle,
    "bohb": BohbOracle,
}
