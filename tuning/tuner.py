"""The tuner that runs the trials of an oracle, in this process or in several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import keras
import keras_tuner
from keras_tuner.errors import FatalError
from keras_tuner.src.engine import tuner_utils

from tuning import checkpoint
from tuning.checkpoint import BEST, STATE
from tuning.data import is_rows
from tuning.engine import TrainingEngine
from tuning.oracle import SearchOracle
from tuning.progress import SearchProgress
from tuning.runner import BUILD_CONFIG, Task, TrialRunner, failure, score
from tuning.session import trials
from tuning.store import locked, open_project, read_json
from zoo.errors import OptionValueError


class EngineTuner(keras_tuner.Tuner):
    """Runs the trials of an oracle.

    Args:
        oracle: What to try next.
        hypermodel: Build function or HyperModel, as in KerasTuner.
        max_model_size: Most parameters of a model; a larger one fails its trial.
        optimizer: Replaces the optimizer that models are compiled with.
        loss: Replaces the loss that models are compiled with.
        metrics: Replaces the metrics that models are compiled with.
        distribution_strategy: A `tf.distribute.Strategy` to build and train under.
        directory: Folder of projects; None is the current one.
        project_name: Folder of this search in it.
        overwrite: Delete a search that is there; otherwise go on with it.
        executions_per_trial: Trainings per trial, whose results are averaged.
        workers: Number of processes that run trials; 1 runs them in this one.
        fused: On JAX, number of trials of one structure that are trained at once, in one compiled
            call; 1 trains them one after the other. Where it cannot be or does not pay, it is not
            done.
        time_budget: Seconds of this session after which no trial and no epoch is begun.
        keep: Number of best trials whose weights stay on the disk; None is all.
        compiled_models: How many compiled models to keep for trials of the same structure; 0
            compiles each trial anew.
        whole_epochs: Run epochs over arrays in one compiled call where no callback asks for single
            batches.
        quiet: Show no progress.
        settings: What else must be the same for the search to be resumed.
        **options: KerasTuner's other arguments, such as `tuner_id` and `logger`.

    Raises:
        OptionValueError: An option is out of its range.
        RunError: The project cannot be gone on with.
    """

    def __init__(
        self,
        oracle: SearchOracle,
        hypermodel: Any = None,
        *,
        directory: str | Path | None = None,
        project_name: str | None = None,
        overwrite: bool = False,
        executions_per_trial: int = 1,
        workers: int = 1,
        fused: int = 1,
        time_budget: float | None = None,
        keep: int | None = 10,
        compiled_models: int = 16,
        whole_epochs: bool = True,
        quiet: bool = False,
        progress: SearchProgress | None = None,
        settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        _check_options(workers, fused, time_budget, keep)
        if hypermodel is None and not self.has_own_run_trial():
            raise OptionValueError(
                "`hypermodel` must be a build function or a HyperModel where the tuner has no "
                "run_trial of its own; got hypermodel=None."
            )
        self._opened = False
        super().__init__(
            oracle,
            hypermodel,
            directory=None if directory is None else str(directory),
            project_name=project_name,
            executions_per_trial=executions_per_trial,
            **options,
        )
        self.workers, self.fused = workers, fused
        self.time_budget = time_budget
        self.keep = keep
        goal = oracle.objective
        self.progress = progress or SearchProgress(goal.name, trials=oracle.max_trials, quiet=quiet)
        self.notes: dict[str, list[str]] = {}
        self.engine_options: dict[str, Any] = {
            "compiled_models": compiled_models,
            "whole_epochs": whole_epochs,
        }
        self.worker_counts: dict[int, tuple[int, int, Mapping[str, int]]] = {}
        self._began = monotonic()
        self._spent: dict[str, float] = {}  # by running trials, before this run
        self._reasons: dict[str, str] = {}  # why running trials were told to stop
        about = {
            "tuner": type(self).__name__,
            "objective": [goal.name, goal.direction],
            "executions_per_trial": executions_per_trial,
            **(settings or {}),
        }
        project = Path(self.project_dir)
        journal, events = open_project(project, about, resume=not overwrite)
        for event in events:
            oracle.apply(event)
        oracle.requeue()
        oracle.journal = journal.append
        self._journal = journal
        # Trials with files.
        self._stored = {path.name.removeprefix("trial_") for path in project.glob("trial_*")}
        for unfinished in project.glob("trial_*/.*"):
            unfinished.unlink()
        self._opened = True
        if not oracle.trials:
            self._populate_initial_space()
        self.runner = TrialRunner(
            build=self._build_hypermodel,
            fit=self._fit,
            objective=goal,
            project=project,
            seed=oracle.seed,
            executions=executions_per_trial,
            engine=TrainingEngine(**self.engine_options),
            max_model_size=self.max_model_size,
            plain_fit=_fits_plainly(self.hypermodel),
        )

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Runs trials until the oracle has no more or the time is up.

        Args:
            *args: Passed to `fit`, for example x and y.
            **kwargs: Passed to `fit`, for example epochs and validation_data; verbose=0 shows no
                progress.

        Raises:
            RunError: Another process runs this search, or it cannot be saved.
        """
        if kwargs.pop("verbose", None) == 0:
            self.progress.silence()
        self._began = monotonic()
        self.runner.batch = _some_rows(args, kwargs)
        records = self.oracle.seconds
        finished = {int(name) + 1: records[name] for name in self.oracle.end_order}
        with locked(Path(self.project_dir)), self.progress, trials():
            self.progress.resume(finished, self.best_score())
            self.on_search_begin()
            if self.workers > 1:
                from tuning.workers import search_with_workers

                search_with_workers(self, args, kwargs)
            elif self.fused > 1:
                from tuning.fused import search_fused

                search_fused(self, args, kwargs)
            else:
                self._search_here(args, kwargs)
            self.on_search_end()
            self._delete_files()
            self.oracle.end_session(monotonic() - self._began)
            for line in self.engine_notes():
                self.progress.line(line)

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        """Trains a trial's model; returns the results of `fit`, one per training."""
        extra: Callable[[], list[Any]] = list
        if self._has_hooks():
            extra = lambda: [tuner_utils.TunerCallback(self, trial)]  # noqa: E731
        return self.runner.run(
            self.task(trial),
            _Here(self, trial),
            args,
            kwargs,
            hyperparameters=trial.hyperparameters,
            extra_callbacks=extra,
        )

    def has_own_run_trial(self) -> bool:
        """Returns whether a subclass runs trials in its own way."""
        return type(self).run_trial is not EngineTuner.run_trial

    def task(self, trial: Any) -> Task:
        """Returns the run of a trial that the oracle handed out."""
        first, last = self.oracle.epochs_of(trial)
        return Task(
            trial=trial.trial_id,
            hyperparameters=trial.hyperparameters.get_config(),
            epochs=last,
            recorded=first,
            attempt=self.oracle.retries.get(trial.trial_id, 0),
            parent=trial.hyperparameters.values.get("tuner/trial_id"),
            keep_state=self.oracle.continues and last != self.oracle.max_epochs,
            stop=first > 0 and self.oracle.judge(trial.trial_id) is not None,
        )

    def epoch_ended(
        self, trial: Any, epoch: int, logs: Mapping[str, float], seconds: float
    ) -> str | None:
        """Records an epoch of a trial; returns why it must stop now, or None."""
        reason: str | None = self.oracle.report(trial.trial_id, epoch, logs, seconds)
        objective = self.oracle.objective
        score = float(objective.get_value(logs)) if objective.has_value(logs) else None
        self.progress.epoch_end(int(trial.trial_id) + 1, epoch + 1, score)
        if reason is None and self.out_of_time():
            last = self.oracle.epochs_of(trial)[1]
            if last is None or epoch + 1 < last:
                reason = f"out of time after epoch {epoch + 1}"
        return reason

    def trial_began(self, trial: Any) -> None:
        """Announces a trial."""
        self._stored.add(trial.trial_id)
        self._spent[trial.trial_id] = self.oracle.seconds[trial.trial_id]
        first, last = self.oracle.epochs_of(trial)
        self.progress.trial_begin(int(trial.trial_id) + 1, last, first)
        self.on_trial_begin(trial)

    def trial_succeeded(self, trial: Any, metrics: Mapping[str, float], step: int) -> None:
        """Scores a trial."""
        self.oracle.update_trial(trial.trial_id, metrics, step)
        trial.status = "COMPLETED"

    def trial_ended(self, trial: Any, seconds: float, reason: str | None = None) -> None:
        """Records that a trial's run has ended, and deletes what is not needed any more."""
        spent = self.oracle.seconds[trial.trial_id] - self._spent.pop(trial.trial_id, 0.0)
        notes = self.notes.pop(trial.trial_id, [])
        try:
            self.oracle.end_trial(
                trial, reason=reason, seconds=max(0.0, seconds - spent), notes=notes
            )
        finally:
            ended = self.oracle.get_trial(trial.trial_id)
            self.progress.trial_end(
                int(trial.trial_id) + 1,
                score=ended.score,
                best=self.best_score(),
                seconds=seconds,
                reason="; ".join([*notes, *([ended.message] if ended.message else [])]),
            )
            self._delete_files()
        self.on_trial_end(ended)

    def out_of_time(self) -> bool:
        """Returns whether the time budget of this session is used up."""
        return self.time_budget is not None and monotonic() - self._began >= self.time_budget

    def best_score(self) -> float | None:
        """Returns the best score so far."""
        best = self.oracle.get_best_trials(1)
        return best[0].score if best and best[0].status == "COMPLETED" else None

    def engine_notes(self) -> list[str]:
        """Returns what the engine did: models compiled, models used again, and why not."""
        compiled = self.runner.engine.compiled
        counts = [(compiled.hits, compiled.misses, compiled.reasons), *self.worker_counts.values()]
        hits, misses = sum(count[0] for count in counts), sum(count[1] for count in counts)
        reasons: dict[str, int] = {}
        for count in counts:
            for reason, runs in count[2].items():
                reasons[reason] = reasons.get(reason, 0) + runs
        lines = []
        if hits:
            lines.append(f"{hits} of {hits + misses} runs took a model that was compiled before")
        for reason, runs in reasons.items():
            lines.append(f"{runs} runs compiled their model anew: {reason}")
        return lines

    def load_model(self, trial: Any) -> keras.Model:
        """Returns a trial's model, built anew, with the weights of its best epoch.

        A catalog's model is without augmentation, which only its training needs.

        Raises:
            RunError: The weights were deleted, since only those of the best trials are kept.
        """
        build: Any = getattr(self.hypermodel, "build_to_keep", self._build_hypermodel)
        model = build(trial.hyperparameters.copy())
        folder = self.runner.folder(trial.trial_id)
        if not model.built:
            model.build_from_config(read_json(folder / BUILD_CONFIG))
        checkpoint.load_weights(model, folder / BEST)
        return model

    def save(self) -> None:
        """Does nothing: every event is saved as it happens."""

    def reload(self) -> None:
        """Does nothing: a search is read when its tuner is made."""

    def _search_here(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        while not self.out_of_time():
            self.pre_create_trial()
            trial = self.oracle.create_trial(self.tuner_id)
            if trial.status != "RUNNING":
                break
            self.trial_began(trial)
            self._settle(trial, lambda: self.run_trial(trial, *args, **kwargs))  # noqa: B023
        if self.oracle.stop_reason:
            self.progress.line(f"stopped: {self.oracle.stop_reason}")

    def _settle(self, trial: Any, train: Callable[[], Any], seconds: float | None = None) -> None:
        began = monotonic()
        self._reasons.pop(trial.trial_id, None)
        try:
            self.trial_succeeded(trial, *score(train(), self.oracle.objective))
            reason = self._reasons.get(trial.trial_id)
        except FatalError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever fails a trial is its result
            trial.status, trial.message, reason = failure(error)
        self.trial_ended(trial, monotonic() - began if seconds is None else seconds, reason)

    def on_trial_end(self, trial: Any) -> None:
        """Called when a trial has ended; for subclasses."""

    def _fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        return self.hypermodel.fit(hp, model, *args, **kwargs)

    def _populate_initial_space(self) -> None:
        if not self._opened or self.hypermodel is None:
            return
        declared = getattr(self.hypermodel, "declares_all", False)
        if declared:  # known without building a model
            hp = self.oracle.get_space()
            self.hypermodel.declare_hyperparameters(hp)
            self.oracle.update_space(hp)
        else:
            super()._populate_initial_space()

    def _get_tuner_fname(self) -> str:
        # Never there: it keeps KerasTuner from reloading a state that is none of its own.
        return str(Path(self.project_dir) / f"{self.tuner_id}.none")

    def _has_hooks(self) -> bool:
        hooks = ("on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end")
        return any(getattr(type(self), n) is not getattr(keras_tuner.Tuner, n) for n in hooks)

    def _delete_files(self) -> None:
        states = self.oracle.needed_states()
        keep = len(self.oracle.trials) if self.keep is None else self.keep
        models = states | self.oracle.needed_models(keep)
        for name in list(self._stored - (states & models)):
            folder = self.runner.folder(name)
            if name not in states:
                (folder / STATE).unlink(missing_ok=True)
            if name not in models:
                (folder / BEST).unlink(missing_ok=True)
                (folder / BUILD_CONFIG).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # not there, or files of the user's in it
                    folder.rmdir()
                self._stored.discard(name)


class _Here:
    """Hears of a trial that runs in this process."""

    def __init__(self, tuner: EngineTuner, trial: Any) -> None:
        self._tuner = tuner
        self._trial = trial

    def declare(self, hyperparameters: Any) -> None:
        self._tuner.oracle.declare(self._trial.trial_id, hyperparameters)

    def epoch(self, epoch: int, logs: Mapping[str, float], seconds: float) -> str | None:
        reason = self._tuner.epoch_ended(self._trial, epoch, logs, seconds)
        if reason:
            self._tuner._reasons[self._trial.trial_id] = reason
        return reason

    def rewind(self, epochs: int) -> None:
        self._tuner.oracle.rewind(self._trial.trial_id, epochs)

    def note(self, text: str) -> None:
        self._tuner.notes.setdefault(self._trial.trial_id, []).append(text)


def _check_options(workers: int, fused: int, time_budget: float | None, keep: int | None) -> None:
    if not isinstance(workers, int) or workers < 1:
        raise OptionValueError(
            f"`workers` must be a number of processes of at least 1; got workers={workers!r}."
        )
    if not isinstance(fused, int) or fused < 1 or (fused > 1 and workers > 1):
        raise OptionValueError(
            "`fused` must be a number of trials of at least 1, and 1 where `workers` is above 1; "
            f"got fused={fused!r}, workers={workers}."
        )
    if time_budget is not None and not time_budget > 0:
        raise OptionValueError(
            f"`time_budget` must be above 0 seconds, or None; got time_budget={time_budget}."
        )
    if keep is not None and keep < 0:
        raise OptionValueError(f"`keep` must be at least 0, or None for all; got keep={keep}.")


def _fits_plainly(hypermodel: Any) -> bool:
    """Returns whether training is `keras.Model.fit`, so that every epoch reports all metrics."""
    plain = getattr(hypermodel, "plain_fit", None)
    if plain is not None:
        return bool(plain)
    return getattr(type(hypermodel), "fit", None) is keras_tuner.HyperModel.fit


def _some_rows(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Returns two rows of the inputs, if they are arrays."""
    x = args[0] if args else kwargs.get("x")
    if isinstance(x, tuple | list) and len(args) == 2 and is_rows(args[0]) and "x" not in kwargs:
        x = x[0] if len(x) in (2, 3) else x
    if x is None or not is_rows(x):
        return None
    return keras.tree.map_structure(lambda array: array[:2], x)
