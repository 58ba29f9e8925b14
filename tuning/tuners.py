"""The tuner that runs the trials of an oracle, and the names of KerasTuner's own tuners.

`SearchTuner` runs one trial after another in this process. What it adds to KerasTuner's `Tuner`:
trials are seeded, recorded and failed with a reason; a time budget; no checkpoint is kept that
cannot be needed any more.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras_tuner import BayesianOptimization, GridSearch, Hyperband, RandomSearch
from keras_tuner.errors import FailedTrialError, FatalError, FatalValueError

from tuning.hypermodel import CatalogHyperModel
from tuning.oracles import ALGORITHMS, SearchOracle
from tuning.progress import SearchProgress
from tuning.store import PROJECT, RECORD, read_json, write_json
from zoo.errors import OptionValueError, RunError

__all__ = [
    "ALGORITHMS",
    "BayesianOptimization",
    "GridSearch",
    "Hyperband",
    "RandomSearch",
    "SearchTuner",
    "TrialRecord",
]

COMPLETED, STOPPED, FAILED = "completed", "stopped", "failed"  # statuses of a `TrialRecord`
CHECKPOINT = "checkpoint.weights.h5"


@dataclass
class TrialRecord:
    """What a trial leaves besides KerasTuner's own state."""

    status: str = COMPLETED
    reason: str = ""  # why it failed or stopped early
    seconds: float = 0.0
    history: dict[str, list[float]] = field(default_factory=dict)  # metric -> value per epoch

    @property
    def epochs(self) -> int:
        """Number of epochs trained."""
        return max(map(len, self.history.values()), default=0)


class SearchTuner(keras_tuner.Tuner):
    """Runs the trials of an oracle, one after another.

    Args:
        oracle: What to try next.
        hypermodel: Builds and trains a trial's model.
        directory: Folder that holds the project folder, which `store.open_project` made.
        seed: Trial n is seeded by (seed, n).
        max_epochs: Epochs of a trial, where the oracle says nothing else.
        progress: Told of every trial and epoch.
        time_budget: Seconds after which no epoch is begun; None is no limit.

    Raises:
        RunError: The state in the project folder cannot be read.
    """

    def __init__(
        self,
        oracle: SearchOracle,
        hypermodel: Any,
        *,
        directory: Path,
        seed: int,
        max_epochs: int,
        progress: SearchProgress,
        time_budget: float | None = None,
    ) -> None:
        oracle.verbose = 0
        oracle.defaults_first = isinstance(hypermodel, CatalogHyperModel)
        # An id of our own keeps the constructor from reloading by itself, which it announces with
        # a print.
        super().__init__(
            oracle=oracle,
            hypermodel=hypermodel,
            directory=str(directory),
            project_name=PROJECT,
            tuner_id="search",
        )
        self.seed = seed
        self.max_epochs = max_epochs
        self.progress = progress
        self.time_budget = time_budget
        self._policy = keras.config.dtype_policy()
        self._began = monotonic()
        self._trial_began = monotonic()
        self._record = TrialRecord()
        self._number = 0
        if Path(self._get_tuner_fname()).exists():
            self.reload()

    def reload(self) -> None:
        """Loads a saved search."""
        try:
            super().reload()
        except (KeyError, TypeError, RuntimeError) as error:
            raise RunError(
                f"The search in {self.project_dir} cannot go on: its state is not complete "
                f"({error!r}). Pass resume=False to start again."
            ) from error

    def save(self) -> None:
        """Saves the search."""
        self.oracle.save()
        write_json(self._get_tuner_fname(), self.get_state())

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Runs trials until the oracle has no more or the time is up.

        Args:
            *args: Passed to the hypermodel's `fit`.
            **kwargs: Passed to the hypermodel's `fit`.
        """
        self._began = monotonic()
        self.save()  # from here on, there is something to resume
        self.progress.resume([record.seconds for record in self.records().values()], self._best())
        while not self._out_of_time():
            trial = self.oracle.create_trial(self.tuner_id)
            if trial.status != "RUNNING":
                break
            self.on_trial_begin(trial)
            self._try_run_and_update_trial(trial, *args, **kwargs)
            self.on_trial_end(trial)
        self._delete_checkpoints()

    def run(self, train: Any, validation: Any) -> None:
        """Searches on the data.

        Raises:
            OptionValueError: No trial can succeed: the model reports no such objective, or what
                was built is no model.
            RunError: All trials failed, or the time was up before one could begin.
        """
        try:
            self.search(train, validation, seed=self.seed, verbose=0)
        except FatalError as error:
            raise OptionValueError(str(error)) from error
        if self.ranked():
            return
        records = self.records()
        if not records:
            raise RunError("No trial was begun within `time_budget`; give the search more time.")
        first = min(records, key=int)
        raise RunError(f"All {len(records)} trials failed; trial {first}: {records[first].reason}.")

    def ranked(self) -> list[Any]:
        """Returns the trials with a score, the best first and equals in the order they ran."""
        sign = -1 if self.oracle.objective.direction == "max" else 1
        scored = [trial for trial in self.oracle.trials.values() if trial.status == "COMPLETED"]
        return sorted(scored, key=lambda trial: (sign * trial.score, int(trial.trial_id)))

    def records(self) -> dict[str, TrialRecord]:
        """Returns the records of the finished trials, by trial id."""
        return {
            trial_id: TrialRecord(**read_json(Path(self.get_trial_dir(trial_id)) / RECORD))
            for trial_id, trial in self.oracle.trials.items()
            if trial.status in ("COMPLETED", "FAILED")
        }

    def load_model(self, trial: Any) -> keras.Model:
        """Returns a trial's model with the weights of its best epoch.

        Raises:
            RunError: The checkpoint was deleted.
        """
        model = self.hypermodel.build(trial.hyperparameters.copy())
        self._load_weights(model, trial.trial_id)
        return model

    def on_trial_begin(self, trial: Any) -> None:
        """Starts the record of a trial."""
        self._trial_began = monotonic()
        self._record = TrialRecord()
        self._number = int(trial.trial_id)
        first, last = self._epochs_of(trial)
        self.progress.trial_begin(self._number + 1, last, first)

    def on_epoch_end(
        self, trial: Any, model: keras.Model, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Records an epoch, fails a trial that diverged, stops one that is out of time."""
        logs = {name: float(value) for name, value in (logs or {}).items()}
        for name, value in logs.items():
            self._record.history.setdefault(name, []).append(value)
        self._check_epoch(logs, epoch)
        self.progress.epoch_end(epoch + 1, logs.get(self.oracle.objective.name))
        if self._out_of_time() and epoch + 1 < self._epochs_of(trial)[1]:
            model.stop_training = True
            self._record.status = STOPPED
            self._record.reason = f"out of time after epoch {epoch + 1}"

    def on_trial_end(self, trial: Any) -> None:
        """Stores the record and drops the checkpoints that are not needed any more."""
        if trial.status == "FAILED":
            self._record.status = FAILED
        self._record.seconds = monotonic() - self._trial_began
        # Before KerasTuner's state: a trial that counts as finished always has its record.
        write_json(Path(self.get_trial_dir(trial.trial_id)) / RECORD, asdict(self._record))
        super().on_trial_end(trial)
        self._delete_checkpoints()
        self.progress.trial_end(
            self._number + 1,
            score=self.oracle.get_trial(trial.trial_id).score,
            best=self._best(),
            seconds=self._record.seconds,
            reason=self._record.reason,
        )

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        """Trains a trial's model and returns what the hypermodel's `fit` returned."""
        first, last = self._epochs_of(trial)
        kwargs["epochs"] = last
        if first:
            kwargs["initial_epoch"] = first
        (result,) = super().run_trial(trial, *args, **kwargs)
        self._check_result(result)
        return result

    def _populate_initial_space(self) -> None:
        if isinstance(self.hypermodel, CatalogHyperModel):  # known without building a model
            hp = self.oracle.get_space()
            self.hypermodel.declare_hyperparameters(hp)
            self.oracle.update_space(hp)
        else:
            super()._populate_initial_space()

    def _try_run_and_update_trial(self, trial: Any, *args: Any, **kwargs: Any) -> None:
        try:
            self._run_and_update_trial(trial, *args, **kwargs)
        except FatalError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever fails a trial is its result
            trial.status = "FAILED"
            trial.message = traceback.format_exc()
            self._record.reason = _reason(error)
        else:
            trial.status = "COMPLETED"

    def _build_hypermodel(self, hp: Any) -> keras.Model:
        # Keras' session was just cleared, which takes seeds and mixed precision with it.
        keras.config.set_dtype_policy(self._policy)
        state = np.random.SeedSequence([self.seed, self._number]).generate_state(1)
        keras.utils.set_random_seed(int(state[0]))
        model = super()._build_hypermodel(hp)
        if "tuner/trial_id" in hp.values:  # promoted by Hyperband
            self._load_weights(model, hp.values["tuner/trial_id"])
        return model

    def _configure_tensorboard_dir(
        self, callbacks: list[Any], trial: Any, execution: int = 0
    ) -> None:
        """Keeps KerasTuner from importing TensorBoard, of which no callback is here."""

    def _load_weights(self, model: keras.Model, trial_id: str) -> None:
        folder = Path(self.get_trial_dir(trial_id))
        if not (folder / CHECKPOINT).exists():
            raise RunError(f"The weights of trial {trial_id} are gone: no {folder / CHECKPOINT}.")
        if not model.built:
            model.build_from_config(read_json(folder / "build_config.json"))
        if getattr(model, "optimizer", None) is not None:  # its state is in the checkpoint too
            model.optimizer.build(model.trainable_variables)
        model.load_weights(folder / CHECKPOINT)

    def _check_epoch(self, logs: Mapping[str, float], epoch: int) -> None:
        goal = self.oracle.objective.name
        if goal not in logs and self.hypermodel.plain_fit:
            raise FatalValueError(_no_objective(goal, logs))
        for name in ("loss", goal):
            if not np.isfinite(logs.get(name, 0.0)):
                raise FailedTrialError(f"{name} is {logs[name]} in epoch {epoch + 1}")

    def _check_result(self, result: Any) -> None:
        goal = self.oracle.objective.name
        metrics = getattr(result, "history", result)
        if isinstance(metrics, Mapping):
            if goal not in metrics:
                raise FatalValueError(_no_objective(goal, metrics))
            metrics = metrics[goal]
        if not np.all(np.isfinite(metrics)):
            raise FailedTrialError(f"{goal} is {metrics}")

    def _epochs_of(self, trial: Any) -> tuple[int, int]:
        values = trial.hyperparameters.values
        return values.get("tuner/initial_epoch", 0), values.get("tuner/epochs", self.max_epochs)

    def _out_of_time(self) -> bool:
        return self.time_budget is not None and monotonic() - self._began >= self.time_budget

    def _best(self) -> float | None:
        ranked = self.ranked()
        return ranked[0].score if ranked else None

    def _delete_checkpoints(self) -> None:
        kept = self.oracle.needed_checkpoints() | {t.trial_id for t in self.ranked()[:1]}
        for path in Path(self.project_dir).glob(f"trial_*/{CHECKPOINT}"):
            if path.parent.name.removeprefix("trial_") not in kept:
                path.unlink()


def _no_objective(goal: str, metrics: Mapping[str, Any]) -> str:
    return f"`objective` must be one of {', '.join(sorted(metrics))}; got objective={goal!r}."


def _reason(error: Exception) -> str:
    first_line = next(iter(str(error).splitlines()), "")[:300]
    if isinstance(error, FailedTrialError):
        return first_line
    return f"{type(error).__name__}: {first_line}"
