"""The base of all search algorithms: commands that make events, and random search.

Every command makes an event, hands it to `journal` and then applies it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from tuning.state import SearchState, Values, derived_seed, known_warnings_off, name_of, offset
from zoo.errors import OptionValueError


class SearchOracle(SearchState):
    """Random search, and what all algorithms share.

    What is suggested depends on nothing but the seed and the events so far. Only one thread may
    use an oracle; several trials may run at once.

    Args:
        objective: As in KerasTuner.
        curve_stopping: `report` stops trials whose learning curve will not reach the best score.
        plateau: The search ends when that many finished runs in a row brought no better score.
        max_epochs: Epochs of a whole trial; None if only the caller knows.
        **options: Arguments of `SearchState`.

    Attributes:
        defaults_first: The first trial takes the defaults instead of a random draw.
        interrupted: Trials to be handed out first; see `requeue`.
        stop_reason: Why the search ended before `max_trials`.

    Raises:
        OptionValueError: `plateau` is out of its range.
    """

    defaults_first = False
    continues = False  # whether a trial's training may go on after its run has ended
    max_epochs: int | None = None

    def __init__(
        self,
        objective: Any = None,
        *,
        curve_stopping: bool = False,
        plateau: int | None = None,
        max_epochs: int | None = None,
        **options: Any,
    ) -> None:
        if plateau is not None and plateau < 1:
            raise OptionValueError(
                f"`plateau` must be at least 1 trial, or None; got plateau={plateau!r}."
            )
        super().__init__(objective, **options)
        self.curve_stopping = curve_stopping
        self.plateau = plateau
        if max_epochs is not None:  # or else what KerasTuner's class sets
            self.max_epochs = max_epochs
        self.interrupted: list[str] = []
        self.stop_reason: str | None = None
        self._failures = 0  # in a row, in this session

    @classmethod
    def create(
        cls, objective: Any, *, trials: int | None, max_epochs: int, seed: int, **options: Any
    ) -> Self:
        """Returns the oracle of a search that no number of failed trials ends.

        Args:
            objective: As in KerasTuner.
            trials: Number of trials; None is no limit.
            max_epochs: Epochs of a whole trial.
            seed: In [0, 2**32).
            **options: More arguments of the constructor.
        """
        options = {"max_consecutive_failed_trials": sys.maxsize} | options
        oracle = cls(objective, max_epochs=max_epochs, seed=seed, **options)
        oracle.max_trials = trials
        return oracle

    def create_trial(self, tuner_id: str) -> Any:  # noqa: ARG002 - KerasTuner's signature
        """Returns the trial to run next, which may be one that ran before and goes on.

        Its status is RUNNING; IDLE if a running trial must end first; STOPPED if there is none.
        `tuner_id` is a label and changes nothing.
        """
        if self.interrupted:
            return self.trials[self.interrupted.pop(0)]
        if self._retry_queue:
            trial_id = self._retry_queue[0]
            first = offset(self.trials[trial_id])
            return self._start(trial_id, None, (first, self._spans[trial_id][1]))
        trial_id = name_of(len(self.trials))
        response = self._respond(trial_id)
        if response["status"] != TrialStatus.RUNNING:
            return Trial(self._space({}), trial_id, response["status"])
        epochs = response.get("epochs", (0, self.max_epochs))
        return self._start(response.get("trial", trial_id), response.get("values"), epochs)

    def declare(self, trial_id: str, hyperparameters: Any) -> None:
        """Takes in what a trial's model turned out to have for hyperparameters.

        To be called as soon as they are known, so that the next suggestion does not depend on when
        the trial ends.

        Args:
            trial_id: A running trial.
            hyperparameters: Those that its model was built with.

        Raises:
            RuntimeError: There are new ones and `allow_new_entries` is False.
        """
        self.update_space(hyperparameters)
        values = _active_values(hyperparameters)
        if values != self.values[trial_id]:
            self._emit("declare", trial=trial_id, values=values)

    def update_space(self, hyperparameters: Any) -> None:
        """Adds hyperparameters to the space that it does not hold yet.

        Raises:
            RuntimeError: There are new ones and `allow_new_entries` is False.
        """
        new = [
            param
            for param in hyperparameters.space
            if not self.hyperparameters._exists(param.name, param.conditions)
        ]
        if new and not self.allow_new_entries:
            raise RuntimeError(
                "The model must have no other hyperparameters than `hyperparameters`, because of "
                f"allow_new_entries=False; got {new}."
            )
        if new and self.tune_new_entries:
            added = keras_tuner.HyperParameters()
            added.merge(new)
            config = {"space": added.get_config()["space"], "values": {}}
            self._emit("space", hyperparameters=config)

    def report(
        self, trial_id: str, epoch: int, logs: Mapping[str, float], seconds: float = 0.0
    ) -> str | None:
        """Records an epoch and returns the reason to stop the trial now, or None.

        Args:
            trial_id: A running trial.
            epoch: Counted from 0. What was recorded of this epoch and later ones is replaced.
            logs: Metrics after the epoch.
            seconds: Time that the epoch took.
        """
        logs = {name: float(value) for name, value in logs.items()}
        self._emit("epoch", trial=trial_id, epoch=epoch, logs=logs, seconds=seconds)
        return self.judge(trial_id)

    def judge(self, trial_id: str) -> str | None:
        """Returns the reason to stop a trial after what was reported of it so far, or None.

        A trial that is handed out again after an interruption may have one already.
        """
        epoch, last = self.epochs_of(self.trials[trial_id])
        curve = self._curves[trial_id]
        if not self.curve_stopping or not curve or last is None or epoch >= last:
            return None
        if math.isinf(self._best_loss):  # nothing to compare with
            return None
        from tuning.extrapolation import hopeless

        goal = self.max_epochs or last
        seed = derived_seed(self.seed, int(trial_id), epoch)
        if not hopeless(curve, self._best_loss, goal, seed=seed):
            return None
        return f"not expected to reach the best score by epoch {goal}"

    def rewind(self, trial_id: str, epochs: int) -> None:
        """Forgets what a trial did after an epoch, because the state saved since then is lost.

        Args:
            trial_id: A running trial.
            epochs: Number of epochs that its state has seen, those of a parent's included.
        """
        self._emit("rewind", trial=trial_id, epochs=epochs)

    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Any:
        """Stores a trial's metrics at a step, for `end_trial` to score and to record.

        Raises:
            ValueError: The objective is not among them.
        """
        trial = self.trials[trial_id]
        metrics = dict(metrics)
        self._check_objective_found(metrics)
        metrics.setdefault(self.objective.name, self.objective.get_value(metrics))
        for name, value in metrics.items():
            self._track(trial.metrics, name, value, step)
        return trial

    def end_trial(
        self,
        trial: Any,
        *,
        reason: str | None = None,
        seconds: float = 0.0,
        notes: Sequence[str] = (),
    ) -> None:
        """Ends a trial's run, or has it run again if its result is no number.

        Args:
            trial: Status COMPLETED, FAILED, or INVALID, which is retried as often as
                `max_retries_per_trial` allows.
            reason: Why it failed or stopped early; None takes the last line of `trial.message`.
            seconds: Time of the run that was not reported with an epoch.
            notes: What else should be known of it.

        Raises:
            RuntimeError: `max_consecutive_failed_trials` failed in a row in this session.
        """
        trial_id, message = trial.trial_id, trial.message or ""
        reason = reason or next(reversed(message.strip().splitlines()), None)
        self.declare(trial_id, trial.hyperparameters)
        status = self._outcome(self.trials[trial_id], trial.status)
        if status != trial.status:
            reason = reason or f"{self.objective.name} is not a number"
        fields = {"trial": trial_id, "reason": reason, "seconds": seconds}
        fields |= {"notes": list(notes)} if notes else {}
        if status == TrialStatus.INVALID:
            self._emit("retry", **fields)
            return
        self._emit("end", **fields, status=status, **self._result(trial_id, status))
        self._failures = self._failures + 1 if status == TrialStatus.FAILED else 0
        if self._failures == self.max_consecutive_failed_trials:
            raise RuntimeError(
                f"{self._failures} trials in a row have failed, which is the limit set by "
                f"`max_consecutive_failed_trials`; the last one:\n{message or reason}"
            )

    def end_session(self, seconds: float) -> None:
        """Records that a session of the search came to its end after some seconds."""
        self._emit("session", seconds=seconds)

    def requeue(self) -> None:
        """Has the trials that were running when the events ended handed out again, by id."""
        self.interrupted = sorted(self.ongoing_trials, key=int)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the status and values of a new trial, as KerasTuner's oracles do.

        The key "epochs" may hold the first and last epoch, and "trial" an old trial to go on with.
        """
        return self._suggestion(self._draw(trial_id))

    def needed_states(self) -> set[str]:
        """Returns the trials whose training may be continued from where it is."""
        return set(self.ongoing_trials)

    def needed_models(self, keep: int) -> set[str]:
        """Returns the best `keep` trials."""
        best = self.get_best_trials(keep)
        return {trial.trial_id for trial in best if trial.status == TrialStatus.COMPLETED}

    def _start(self, trial_id: str, values: Values | None, epochs: tuple[int, int | None]) -> Any:
        if values is None:  # it ran before
            values = self.values[trial_id]
        # A drawn seed must outlive this session.
        seed = {} if self.trials else {"seed": self.seed}
        span = None if epochs == (0, None) else list(epochs)
        self._emit("start", trial=trial_id, values=dict(values), epochs=span, **seed)
        return self.trials[trial_id]

    def _outcome(self, trial: Any, status: str) -> str:
        """Returns a run's status after scoring it; INVALID only if the trial is to be retried."""
        if status == TrialStatus.COMPLETED:
            with known_warnings_off():
                self.score_trial(trial)
            if np.isnan(trial.score):
                status = TrialStatus.INVALID
        if status == TrialStatus.INVALID:
            exhausted = self.retries.get(trial.trial_id, 0) >= self.max_retries_per_trial
            return str(TrialStatus.FAILED if exhausted else status)
        return status

    def _result(self, trial_id: str, status: str) -> dict[str, Any]:
        trial = self.trials[trial_id]
        if status != TrialStatus.COMPLETED:
            return {"score": None, "step": 0, "metrics": {}}
        metrics = {
            name: [[seen.step, float(seen.mean())] for seen in history.get_history()]
            for name, history in trial.metrics.metrics.items()
        }
        return {"score": float(trial.score), "step": trial.best_step, "metrics": metrics}

    def _respond(self, trial_id: str) -> dict[str, Any]:
        if self.plateau is not None and self._without_gain >= self.plateau:
            self.stop_reason = f"no better score in {self._without_gain} trials"
            return {"status": TrialStatus.STOPPED}
        return self._next(trial_id)

    def _next(self, trial_id: str) -> dict[str, Any]:
        if self.max_trials and len(self.trials) >= self.max_trials:
            return {"status": TrialStatus.STOPPED}
        return self.populate_space(trial_id)

    def _suggestion(self, values: Values | None) -> dict[str, Any]:
        if values is None:
            self.stop_reason = "no untried values are left"
            return {"status": TrialStatus.STOPPED, "values": None}
        return {"status": TrialStatus.RUNNING, "values": values}

    def _untried(self, values: Values, trial_id: str) -> Values | None:
        return self._draw(trial_id) if self._duplicate(values) else values

    def _draw(self, trial_id: str) -> Values | None:
        """Returns random values, or None if only values were drawn that have been tried."""
        if self.defaults_first and int(trial_id) == 0:
            return self._complete({})
        for attempt in range(self._max_collisions + 1):
            random = np.random.default_rng([self.seed, int(trial_id), attempt]).random
            values = self._active(lambda param: param.prob_to_value(random()))  # noqa: B023
            if not self._duplicate(values):
                return values
        return None

    def _complete(self, values: Mapping[str, Any]) -> Values:
        """Returns values without those that are not active, and defaults for those missing."""
        known = {param.name for param in self.hyperparameters.space}
        others = {name: value for name, value in values.items() if name not in known}
        return others | self._active(lambda param: values.get(param.name, param.default))

    def _active(self, pick: Callable[[Any], Any]) -> Values:
        hp = keras_tuner.HyperParameters()
        for param in self.hyperparameters.space:  # parents come before their children
            if hp.is_active(param):
                hp.values[param.name] = pick(param)
        return dict(hp.values)


def _active_values(hp: Any) -> Values:
    known = {param.name for param in hp.space}
    return {
        name: value for name, value in hp.values.items() if name not in known or hp.is_active(name)
    }
