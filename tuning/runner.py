"""What running one trial means, wherever it runs: build, train, go on, report.

`TrialRunner` knows nothing of what is tried next. It is told by a `Task` which trial to run, and
tells a `Listener` what happens.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
import keras_tuner
import numpy as np
from keras_tuner.errors import FailedTrialError, FatalError, FatalTypeError, FatalValueError
from keras_tuner.src.engine import tuner_utils
from keras_tuner.src.engine.objective import DefaultObjective

from tuning.checkpoint import STATE, TrainingState
from tuning.engine import EpochRecorder, TrainingEngine, TrialRun
from tuning.session import begin_trial
from tuning.store import write_json
from zoo.errors import RunError

BUILD_CONFIG = "build_config.json"
MOST_HALVINGS = 10


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run of a trial.

    Attributes:
        trial: Its id.
        hyperparameters: Config of KerasTuner's HyperParameters, with the trial's values.
        epochs: Epoch to stop at; None leaves it to the arguments of `fit`.
        recorded: Epochs that are known of, from which on epochs are reported.
        attempt: How often it was retried.
        parent: Trial whose training it goes on with.
        keep_state: Whether its training may go on after this run.
        stop: Its training is over; it only has to be scored.
    """

    trial: str
    hyperparameters: Mapping[str, Any]
    epochs: int | None = None
    recorded: int = 0
    attempt: int = 0
    parent: str | None = None
    keep_state: bool = False
    stop: bool = False


class Listener(Protocol):
    """Who is told what happens in a trial."""

    def declare(self, hyperparameters: Any) -> None:
        """All hyperparameters of the trial are known; training begins."""

    def epoch(self, epoch: int, logs: Mapping[str, float], seconds: float) -> str | None:
        """An epoch has ended. Returns why to stop now, or None."""

    def rewind(self, epochs: int) -> None:
        """The state after the epochs that were reported is lost; it goes on from this one."""

    def note(self, text: str) -> None:
        """Something the user should know about the trial."""


@dataclass
class TrialRunner:
    """Runs trials.

    Attributes:
        build: Returns a trial's compiled model for its HyperParameters.
        fit: Trains it, as `keras_tuner.HyperModel.fit`.
        objective: KerasTuner's objective.
        project: Folder of the search.
        seed: Everything random in trial n depends on it, n, and the number of the training.
        executions: Trainings per trial.
        engine: What trials share.
        batch: Some rows of the data, to build models without an input shape.
        max_model_size: Most parameters of a model; None is no limit.
        clears_session: Reset Keras' names before each build, so that equal models are equal.
    """

    build: Callable[[Any], keras.Model]
    fit: Callable[..., Any]
    objective: Any
    project: Path
    seed: int
    executions: int = 1
    engine: TrainingEngine = field(default_factory=TrainingEngine)
    batch: Any = None
    max_model_size: int | None = None
    plain_fit: bool = True
    policy: Any = field(default_factory=keras.config.dtype_policy)

    def folder(self, trial: str) -> Path:
        """Returns the folder of a trial."""
        return self.project / f"trial_{trial}"

    def run(
        self,
        task: Task,
        listener: Listener,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        hyperparameters: Any = None,
        extra_callbacks: Callable[[], list[Any]] = list,
    ) -> list[Any]:
        """Trains a trial, as often as it is to be trained.

        Args:
            task: The run.
            listener: Is told what happens.
            args: Positional arguments of `fit`.
            kwargs: Keyword arguments of `fit`.
            hyperparameters: The trial's own object, to which building adds; None makes one.
            extra_callbacks: Makes callbacks to add to the user's.

        Returns:
            The results of `fit`, one per training.
        """
        hp = hyperparameters
        if hp is None:
            hp = keras_tuner.HyperParameters.from_config(copy.deepcopy(dict(task.hyperparameters)))
        state = self._state(task, listener)
        results = [_result(stored) for stored in state.results]
        for execution in range(state.execution, self.executions):
            if execution > state.execution:
                state = TrainingState(
                    execution=execution,
                    results=[_stored(result) for result in results],
                    best=state.best,  # the weights of the best epoch of all trainings are kept
                    attempt=task.attempt,
                )
            result, state = self._train(task, listener, state, hp, args, kwargs, extra_callbacks)
            results.append(result)
        return results

    def load_state(self, trial: str) -> TrainingState | None:
        """Returns where a trial's training stands, if that was kept."""
        return TrainingState.read(self.folder(trial) / STATE)

    def _state(self, task: Task, listener: Listener) -> TrainingState:
        """Returns where to begin; brings it in line with what was reported."""
        state = self.load_state(task.trial)
        if state is None or state.attempt != task.attempt:
            state = self._first_state(task)
        if state.execution:  # only the first training's epochs are reported
            return state
        if state.epoch < task.recorded:
            listener.rewind(state.epoch)
        length = max(map(len, state.history.values()), default=0)
        for epoch in range(max(task.recorded, state.epoch - length), state.epoch):
            index = epoch - (state.epoch - length)
            logs = {name: values[index] for name, values in state.history.items()}
            if listener.epoch(epoch, logs, 0.0):
                state.stopped = True
        going_on = task.epochs is not None and state.epoch < task.epochs
        if going_on and not state.ended_early:
            state.stopped = False
        state.stopped = state.stopped or task.stop
        return state

    def _first_state(self, task: Task) -> TrainingState:
        if task.parent is None:
            return TrainingState(attempt=task.attempt)
        parent = self.load_state(task.parent)
        if parent is None:  # lost, or never there: a training loop of the user's own
            return TrainingState(attempt=task.attempt)
        return TrainingState(
            epoch=parent.epoch,
            arrays=parent.arrays,
            callbacks=parent.callbacks,
            attempt=task.attempt,
            halvings=parent.halvings,
        )

    def _train(
        self,
        task: Task,
        listener: Listener,
        state: TrainingState,
        hp: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        extra_callbacks: Callable[[], list[Any]],
    ) -> tuple[Any, TrainingState]:
        first = copy.copy(state)
        for halvings in range(first.halvings, MOST_HALVINGS):
            state = copy.copy(first)
            state.halvings = halvings
            state.history = {name: list(values) for name, values in first.history.items()}
            run = self._trial_run(task, listener, state, hp)
            try:
                return self._train_once(run, task, hp, args, kwargs, extra_callbacks), state
            except Exception as error:
                if not is_out_of_memory(error) or not run.fits:  # no batches to make smaller
                    raise
                listener.note(f"out of memory; tried again with {_share(halvings + 1)} batches")
            if state.epoch > first.epoch:
                listener.rewind(first.epoch)
        raise FailedTrialError("out of memory at the smallest batches too")

    def _trial_run(self, task: Task, listener: Listener, state: TrainingState, hp: Any) -> TrialRun:
        first = int(task.hyperparameters["values"].get("tuner/initial_epoch", 0))

        def report(epoch: int, logs: Mapping[str, float], seconds: float) -> str | None:
            self._check_epoch(logs, epoch)
            if state.execution or epoch < first:  # of a parent's, trained again
                return None
            return listener.epoch(epoch, logs, seconds)

        return TrialRun(
            seed=(self.seed, int(task.trial), state.execution, task.attempt),
            objective=self.objective,
            folder=self.folder(task.trial),
            epochs=task.epochs,
            state=state,
            report=report,
            begin=lambda: listener.declare(hp),
            keep_state=task.keep_state or state.execution + 1 < self.executions,
        )

    def _train_once(
        self,
        run: TrialRun,
        task: Task,
        hp: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        extra_callbacks: Callable[[], list[Any]],
    ) -> Any:
        fresh = self._build(hp, run.seed)
        was_built = fresh.built
        model = self.engine.prepare(fresh, run, self.batch if self.plain_fit else None)
        options = dict(kwargs)
        callbacks = copy_callbacks(options.pop("callbacks", None) or [])
        logs = _tensorboard(callbacks, hp, f"{task.trial}/execution{run.state.execution}")
        options["callbacks"] = [*callbacks, *logs, *extra_callbacks()]
        if not self.plain_fit:  # which may be a loop that calls its callbacks itself
            options["callbacks"].append(EpochRecorder(run, resumable=False))
            options |= {} if task.epochs is None else {"epochs": task.epochs}
        result = self.fit(hp, model, *args, **options)
        if not was_built:
            write_json(self.folder(task.trial) / BUILD_CONFIG, model.get_build_config())
        tuner_utils.validate_trial_results(result, self.objective, "HyperModel.fit()")
        _check_result(result, self.objective)
        return result

    def _build(self, hp: Any, seed: tuple[int, ...]) -> keras.Model:
        compiled = self.engine.compiled
        stale, grown = compiled.is_stale(), compiled.has_grown()
        begin_trial(seed, self.policy, keep_kernels=not stale, grown=grown)
        model = self.build(hp)
        if not isinstance(model, keras.Model):
            raise FatalTypeError(
                "A build function must return a compiled keras.Model; "
                f"got {model!r} of type {type(model).__name__}."
            )
        size = model.count_params() if model.built else 0
        if self.max_model_size and size > self.max_model_size:
            raise FailedTrialError(f"the model has {size} parameters, over max_model_size")
        return model

    def _check_epoch(self, logs: Mapping[str, float], epoch: int) -> None:
        objective = self.objective
        if self.plain_fit and objective is not None and not objective.has_value(logs):
            raise no_objective(objective, logs)
        watched = {"loss": logs.get("loss", 0.0)}
        if objective is not None and objective.has_value(logs):
            watched[objective.name] = float(objective.get_value(logs))
        for name, value in watched.items():
            if not np.isfinite(value):
                raise NotFiniteError(f"{name} is {value} in epoch {epoch + 1}")


class NotFiniteError(ValueError):
    """A training that diverged."""


def failure(error: Exception) -> tuple[str, str, str]:
    """Returns the status, message and reason of a trial that raised an error."""
    final = isinstance(error, FailedTrialError)
    own = isinstance(error, FailedTrialError | NotFiniteError | RunError)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if not own:
        reason = f"{type(error).__name__}: {reason}"
    return ("FAILED" if final else "INVALID"), traceback.format_exc(), reason


def score(results: Any, objective: Any) -> tuple[dict[str, float], int]:
    """Returns the metrics of a trial's best epoch, and the epoch, from what `fit` returned."""
    tuner_utils.validate_trial_results(results, objective, "Tuner.run_trial()")
    metrics = tuner_utils.convert_to_metrics_dict(results, objective)
    return metrics, tuner_utils.get_best_step(results, objective)


def no_objective(objective: Any, metrics: Mapping[str, Any]) -> FatalError:
    """Returns the error of metrics that do not hold the objective."""
    names = ", ".join(sorted(metrics))
    if isinstance(objective, DefaultObjective):
        return FatalTypeError(
            f"`objective` must be one of {names}, unless HyperModel.fit or run_trial returns a "
            "single float when `objective` is left unspecified."
        )
    return FatalValueError(f"`objective` must be one of {names}; got objective={objective.name!r}.")


def copy_callbacks(callbacks: Any) -> list[Any]:
    """Returns copies of callbacks, for one training each.

    Raises:
        FatalValueError: One cannot be copied.
    """
    try:
        return list(copy.deepcopy(callbacks))
    except Exception as error:
        raise FatalValueError(
            "Callbacks of a search must be copyable by copy.deepcopy, since every training gets "
            f"its own; got {callbacks!r} ({error})."
        ) from error


def _tensorboard(callbacks: list[Any], hp: Any, name: str) -> list[Any]:
    """Gives each TensorBoard callback a folder for this training.

    Returns:
        Callbacks that note the hyperparameters there, for TensorBoard's HParams page.
    """
    found = [c for c in callbacks if isinstance(c, keras.callbacks.TensorBoard)]
    if not found:
        return []
    from tensorboard.plugins.hparams import api

    for callback in found:
        callback.log_dir = str(Path(callback.log_dir) / name)
    values = tuner_utils.convert_hyperparams_to_hparams(hp, api)
    return [api.KerasCallback(callback.log_dir, values, trial_id=name) for callback in found]


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error of Python or a backend says that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()


def _share(halvings: int) -> str:
    return "half the" if halvings == 1 else f"1/{2**halvings} of the"


def _check_result(result: Any, objective: Any) -> None:
    if objective is None:
        return
    metrics = getattr(result, "history", result)
    if isinstance(metrics, Mapping) and not objective.has_value(metrics):
        raise no_objective(objective, metrics)


def _stored(result: Any) -> Any:
    """Returns a result of `fit` as JSON."""
    if isinstance(result, keras.callbacks.History):
        return {"history": result.history}
    if isinstance(result, Mapping):
        return {"metrics": {name: float(value) for name, value in result.items()}}
    return {"value": float(result)}


def _result(stored: Mapping[str, Any]) -> Any:
    if "history" in stored:
        history = keras.callbacks.History()
        history.history = stored["history"]
        return history
    return stored.get("metrics", stored.get("value"))
