"""All that a search knows, changed by nothing but events.

A search resumes by applying the stored events to a new oracle.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import heapq
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import keras_tuner
import numpy as np
from keras_tuner.engine.metrics_tracking import infer_metric_direction
from keras_tuner.engine.trial import Trial, TrialStatus

from tuning.halving import Observation
from zoo.errors import OptionValueError, RunError

Event: TypeAlias = dict[str, Any]
Values: TypeAlias = dict[str, Any]

BOOKKEEPING = "tuner/"  # prefix of values that are no hyperparameters


@contextlib.contextmanager
def known_warnings_off() -> Iterator[None]:
    """Silences what a correct call into KerasTuner warns of."""
    with warnings.catch_warnings():
        # A metric other than the objective may be undefined.
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        yield


class SearchState(keras_tuner.Oracle):
    """The trials of a search and what became of them.

    Args:
        objective: As in KerasTuner.
        seed: In [0, 2**32); None draws one.
        hyperparameters: The space, or what is known of it.
        **options: KerasTuner's arguments of the same oracle.

    Attributes:
        journal: Called with every event before it is applied.
        values: Per trial, its values; KerasTuner's trials hold copies for models to add to.
        histories: Per trial, the value of every metric after each epoch; NaN where it was missing.
        seconds: Per trial, the time it took over all its runs.
        retries: Per trial that was retried, how often.
        notes: Per trial, what else should be known of it.
        session_seconds: Time of all sessions that came to their end.

    Raises:
        OptionValueError: `seed` is out of its range.
    """

    trials: dict[str, Any]

    def __init__(
        self,
        objective: Any = None,
        *,
        seed: int | None = None,
        hyperparameters: Any = None,
        **options: Any,
    ) -> None:
        if seed is not None and not 0 <= seed < 2**32:
            raise OptionValueError(f"`seed` must be in [0, 2**32), or None; got seed={seed!r}.")
        if hyperparameters is not None:  # it grows, and the caller's must not
            hyperparameters = hyperparameters.copy()
        super().__init__(objective=objective, seed=seed, hyperparameters=hyperparameters, **options)
        # KerasTuner takes 0 for none.
        self.seed: int = derived_seed() if seed is None else seed
        self.journal: Callable[[Event], object] = lambda _: None
        self.values: dict[str, Values] = {}
        self.histories: dict[str, dict[str, list[float]]] = {}
        self.seconds: dict[str, float] = {}
        self.retries: dict[str, int] = {}
        self.notes: dict[str, list[str]] = {}
        self.session_seconds = 0.0
        self._curves: dict[str, list[float]] = {}  # losses by epoch: lower is better
        self._spans: dict[str, tuple[int, int | None]] = {}  # first and last epoch of the run
        self._observations: dict[str | None, Observation] = {}  # those that are still true
        self._best_loss = math.inf
        self._without_gain = 0  # runs ended since the best score improved

    def apply(self, event: Mapping[str, Any]) -> None:
        """Changes the state by one event.

        Raises:
            RunError: There is no such event.
        """
        change = getattr(self, f"_on_{event.get('event')}", None)
        if change is None:
            raise RunError(
                f"The search cannot go on: its journal holds an unknown event, {event!r}. "
                "It was written by another version."
            )
        self._observations.pop(event.get("trial"), None)
        change(event)

    def save(self) -> None:
        """Does nothing: the events are the state."""

    def reload(self) -> None:
        """Does nothing: see `apply`."""

    def epochs_of(self, trial: Any) -> tuple[int, int | None]:
        """Returns the epochs of a trial's run, from the first one that is missing.

        The last one is None where the algorithm has no say.
        """
        first, last = self._spans[trial.trial_id]
        return max(first, offset(trial) + self._recorded(trial.trial_id)), last

    def get_best_trials(self, num_trials: int = 1) -> list[Any]:
        """Returns the best trials, of equals the first, and if there are too few the others."""
        completed = [t for t in self.trials.values() if t.status == TrialStatus.COMPLETED]
        best = heapq.nsmallest(num_trials, completed, key=self._rank)
        if len(best) < num_trials:
            best += [t for t in self.trials.values() if t.status != TrialStatus.COMPLETED]
        return best[:num_trials]

    def observations(self) -> list[Observation]:
        """Returns what is known of all trials, in the order of their creation."""
        for trial_id, trial in self.trials.items():
            if trial_id not in self._observations:
                self._observations[trial_id] = self._observation(trial)
        return [self._observations[trial_id] for trial_id in self.trials]

    def _emit(self, name: str, **fields: Any) -> None:
        event = {"event": name, **fields}
        self.journal(event)
        self.apply(event)

    def _on_session(self, event: Mapping[str, Any]) -> None:
        self.session_seconds += event["seconds"]

    def _on_space(self, event: Mapping[str, Any]) -> None:
        config = copy.deepcopy(event["hyperparameters"])  # KerasTuner changes what it reads
        new = keras_tuner.HyperParameters.from_config(config)
        self.hyperparameters.merge(new, overwrite=False)

    def _on_start(self, event: Mapping[str, Any]) -> None:
        trial_id = event["trial"]
        self.seed = event.get("seed", self.seed)
        self.values[trial_id] = dict(event["values"])
        if trial_id not in self.trials:
            self.trials[trial_id] = Trial(self._space(event["values"]), trial_id)
            self.start_order.append(trial_id)
            self._tried_so_far.add(self._compute_values_hash(event["values"]))
            self.histories[trial_id], self._curves[trial_id] = {}, []
            self.seconds[trial_id] = 0.0
        trial = self.trials[trial_id]
        for queue in (self.end_order, self._retry_queue):
            if trial.status != TrialStatus.RUNNING and trial_id in queue:
                queue.remove(trial_id)
        trial.status = TrialStatus.RUNNING
        trial.message = None
        first, last = event["epochs"] or (0, None)
        self._spans[trial_id] = first, last
        self.ongoing_trials[trial_id] = trial

    def _on_declare(self, event: Mapping[str, Any]) -> None:
        self.values[event["trial"]] = dict(event["values"])
        self.trials[event["trial"]].hyperparameters = self._space(event["values"])
        # The values it began with stay tried: without `tune_new_entries` they are drawn again.
        self._tried_so_far.add(self._compute_values_hash(event["values"]))

    def _on_epoch(self, event: Mapping[str, Any]) -> None:
        trial_id, logs = event["trial"], event["logs"]
        history, curve = self.histories[trial_id], self._curves[trial_id]
        index = event["epoch"] - offset(self.trials[trial_id])
        self._cut(trial_id, index)
        for name, value in logs.items():
            values = history.setdefault(name, [])
            values += [math.nan] * (index - len(values))
            values.append(value)
        curve += [math.inf] * (index - len(curve))
        loss = curve[-1] if curve else math.inf  # of an epoch without validation
        if self.objective.has_value(logs):
            loss = self._loss(self.objective.get_value(logs))
        curve.append(loss)
        self.seconds[trial_id] += event["seconds"]

    def _on_rewind(self, event: Mapping[str, Any]) -> None:
        trial_id, epochs = event["trial"], event["epochs"]
        first, last = self._spans[trial_id]
        self._spans[trial_id] = min(first, epochs), last
        self._cut(trial_id, epochs - offset(self.trials[trial_id]))

    def _on_retry(self, event: Mapping[str, Any]) -> None:
        trial = self._close(event, TrialStatus.INVALID)
        trial.metrics, trial.score = type(trial.metrics)(), None
        self._cut(trial.trial_id, 0)
        self.retries[trial.trial_id] = self.retries.get(trial.trial_id, 0) + 1
        self._retry_queue.append(trial.trial_id)

    def _on_end(self, event: Mapping[str, Any]) -> None:
        trial = self._close(event, event["status"])
        self.end_order.append(trial.trial_id)
        trial.score, trial.best_step = event["score"], event["step"]
        trial.metrics = type(trial.metrics)()
        for name, observations in event["metrics"].items():
            for step, value in observations:
                self._track(trial.metrics, name, value, step)
        loss = math.inf if trial.score is None else self._loss(trial.score)
        self._without_gain = 0 if loss < self._best_loss else self._without_gain + 1
        self._best_loss = min(loss, self._best_loss)

    def _close(self, event: Mapping[str, Any], status: str) -> Any:
        trial = self.ongoing_trials.pop(event["trial"])
        trial.status, trial.message = status, event["reason"]
        self.seconds[trial.trial_id] += event["seconds"]
        self.notes.setdefault(trial.trial_id, []).extend(event.get("notes", ()))
        return trial

    def _cut(self, trial_id: str, epochs: int) -> None:
        for series in (*self.histories[trial_id].values(), self._curves[trial_id]):
            del series[max(epochs, 0) :]

    def _track(self, tracker: Any, name: str, value: float, step: int) -> None:
        if not tracker.exists(name):
            goals = (self.objective, *getattr(self.objective, "objectives", ()))
            known = {goal.name: goal.direction for goal in goals}
            tracker.register(name, direction=known.get(name) or _inferred_direction(name))
        with known_warnings_off():
            tracker.update(name, value, step=step)

    def _observation(self, trial: Any) -> Observation:
        curve = self._curves[trial.trial_id]
        if trial.status == TrialStatus.COMPLETED and min(curve, default=math.inf) == math.inf:
            # Its epochs were not reported, or without the objective.
            epochs = self._spans[trial.trial_id][1] or len(curve) or 1
            curve = [self._loss(trial.score)] * epochs
        return Observation(
            trial=trial.trial_id,
            values=self.values[trial.trial_id],
            curve=tuple(curve),
            running=trial.status in (TrialStatus.RUNNING, TrialStatus.INVALID),
            failed=trial.status == TrialStatus.FAILED,
        )

    def _recorded(self, trial_id: str) -> int:
        return max(map(len, self.histories[trial_id].values()), default=0)

    def _loss(self, score: float) -> float:
        loss = -score if self.objective.direction == "max" else score
        return math.inf if math.isnan(loss) else loss

    def _rank(self, trial: Any) -> tuple[float, int]:
        return self._loss(trial.score), int(trial.trial_id)

    def _space(self, values: Mapping[str, Any]) -> Any:
        hp = self.get_space()
        hp.values = dict(values)
        return hp

    def _compute_values_hash(self, values: Mapping[str, Any]) -> str:
        tuned = {n: value for n, value in values.items() if not n.startswith(BOOKKEEPING)}
        return str(super()._compute_values_hash(tuned))


@functools.cache  # KerasTuner builds a metric, with its variables, to find out
def _inferred_direction(metric: str) -> str:
    return infer_metric_direction(metric) or "min"


def derived_seed(*parts: int) -> int:
    """Returns a 32-bit seed that depends on all parts; without any, one from the system."""
    return int(np.random.SeedSequence(parts or None).generate_state(1)[0])


def name_of(number: int) -> str:
    """Returns a trial's id, which stays the same whatever `max_trials` becomes."""
    return f"{number:04d}"


def offset(trial: Any) -> int:
    """Returns the epoch that a trial's history begins with; above 0 it goes on from a parent's."""
    return int(trial.hyperparameters.values.get(f"{BOOKKEEPING}initial_epoch", 0))
