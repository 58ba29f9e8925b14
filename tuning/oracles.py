"""Search algorithms: KerasTuner's oracles, with their state made safe to resume."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import keras_tuner
import numpy as np

from tuning.store import write_json
from zoo.errors import OptionValueError


@contextlib.contextmanager
def _known_warnings_off() -> Iterator[None]:
    """Silences what a correct call into a KerasTuner oracle warns of."""
    with warnings.catch_warnings():
        for call in ("currentThread", "getName"):  # its locks use the old names of threading
            warnings.filterwarnings("ignore", rf"{call}\(\) is deprecated", DeprecationWarning)
        # A metric other than the objective may be undefined, and its Gaussian process says so
        # whenever a fit ends at a bound or after its last iteration.
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        warnings.filterwarnings("ignore", module=r"sklearn\.gaussian_process")
        yield


class SearchOracle(keras_tuner.Oracle):
    """Mixin over KerasTuner's oracles: whole files, no lost trial, a first trial of defaults."""

    trials: dict[str, Any]
    defaults_first = False  # the first trial takes the defaults instead of a random draw

    @classmethod
    def create(cls, objective: Any, *, trials: int | None, max_epochs: int, seed: int) -> Self:
        """Returns the oracle of a search; `seed` must not be 0, which KerasTuner takes for none."""
        del max_epochs
        return cls(
            objective=objective,
            max_trials=trials,
            seed=seed,
            max_consecutive_failed_trials=sys.maxsize,
        )

    def create_trial(self, tuner_id: str) -> Any:
        """Returns the next trial, or one whose status is not RUNNING if there is none."""
        with _known_warnings_off():
            return super().create_trial(tuner_id)

    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Any:
        """Stores the metrics of a trial."""
        with _known_warnings_off():
            return super().update_trial(trial_id, metrics, step)

    def end_trial(self, trial: Any) -> None:
        """Scores and stores a finished trial."""
        with _known_warnings_off():
            super().end_trial(trial)

    def save(self) -> None:
        """Saves everything but the trials."""
        write_json(self._get_oracle_fname(), self.get_state())

    def reload(self) -> None:
        """Loads a saved search and brings its trials in line with each other."""
        super().reload()
        # In the order of their numbers, as in a search that was never interrupted.
        self.trials = dict(sorted(self.trials.items(), key=lambda item: int(item[0])))
        for trial_id, trial in list(self.trials.items()):
            self._mend(trial_id, trial)

    def needed_checkpoints(self) -> set[str]:
        """Returns the trials that a later trial may start from."""
        return set()

    def _mend(self, trial_id: str, trial: Any) -> None:
        """Brings a trial in line that was being saved when the search was interrupted."""
        if trial.status in ("COMPLETED", "FAILED"):
            if trial_id in self._retry_queue:
                self._retry_queue.remove(trial_id)
            if trial_id not in self.end_order:
                self.end_order.append(trial_id)
        elif trial_id in self._retry_queue:
            trial.metrics = type(trial.metrics)()  # it starts afresh
        else:
            del self.trials[trial_id]  # not known to the oracle yet, which will draw it again

    def _save_trial(self, trial: Any) -> None:
        write_json(Path(self._get_trial_dir(trial.trial_id)) / "trial.json", trial.get_state())

    def _random_values(self) -> dict[str, Any] | None:
        if self.start_order or not self.defaults_first:
            values: dict[str, Any] | None = super()._random_values()
            return values
        hp = self.get_space()
        hp.values = {}
        for param in hp.space:  # parents come before their conditional children
            if hp.is_active(param):
                hp.values[param.name] = param.default
        return dict(hp.values)


class RandomOracle(SearchOracle, keras_tuner.oracles.RandomSearchOracle):
    """Independent random draws."""


class GridOracle(SearchOracle, keras_tuner.oracles.GridSearchOracle):
    """All combinations; ten values of a range."""

    def reload(self) -> None:
        """Loads a saved search and the place in the grid where it stopped."""
        super().reload()
        # Not part of KerasTuner's saved state: the order of the combinations tried, each being the
        # successor of the one before, and those whose successor is still to be found.
        for trial_id in self.start_order:
            self._ordered_ids.insert(trial_id)
        self._populate_next = list(self.end_order)


class BayesianOracle(SearchOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """A Gaussian process over the scores so far."""

    @classmethod
    def create(cls, objective: Any, *, trials: int | None, max_epochs: int, seed: int) -> Self:
        """Returns the oracle; a third of the trials, up to 20, are random.

        KerasTuner's own rule, three for each hyperparameter, leaves a short search all random.
        """
        oracle = super().create(objective, trials=trials, max_epochs=max_epochs, seed=seed)
        if trials is not None:
            oracle.num_initial_points = min(max(trials // 3, 3), 20)
        return oracle

    def populate_space(self, trial_id: str) -> Any:
        """Returns the values of the next trial."""
        # By trial, so that a resumed search draws what an uninterrupted one would have drawn.
        self._random_state = np.random.default_rng([self.seed, len(self.trials)])
        return super().populate_space(trial_id)


class HyperbandOracle(SearchOracle, keras_tuner.oracles.HyperbandOracle):
    """Many short trials, of which the best go on."""

    @classmethod
    def create(cls, objective: Any, *, trials: int | None, max_epochs: int, seed: int) -> Self:
        """Returns the oracle, which sweeps over its brackets once, or until `trials` are done.

        Raises:
            OptionValueError: `trials` would end the search before anything is promoted to the last
                round.
        """
        oracle = cls(
            objective=objective,
            max_epochs=max_epochs,
            hyperband_iterations=1 if trials is None else None,
            seed=seed,
            max_consecutive_failed_trials=sys.maxsize,
        )
        oracle.max_trials = trials
        bracket = oracle._get_num_brackets() - 1
        least = sum(oracle._get_size(bracket, number) for number in range(bracket + 1))
        if trials is not None and trials < least:
            raise OptionValueError(
                f"`trials` must be at least {least} with algorithm='hyperband' and "
                f"max_epochs={max_epochs}, its first bracket; got trials={trials}. "
                "Pass trials=None for one whole sweep, fewer epochs, or algorithm='random'."
            )
        return oracle

    def needed_checkpoints(self) -> set[str]:
        """Returns the trials of all brackets that are not complete."""
        self._remove_completed_brackets()
        rounds = [trials for bracket in self._brackets for trials in bracket["rounds"]]
        return {trial["id"] for trials in rounds for trial in trials}


ALGORITHMS: Mapping[str, type[SearchOracle]] = {
    "random": RandomOracle,
    "grid": GridOracle,
    "hyperband": HyperbandOracle,
    "bayesian": BayesianOracle,
}
