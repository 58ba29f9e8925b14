"""The one call of this package: search the hyperparameters of a model, get the best of them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuning.space import Space
from zoo.errors import OptionValueError, did_you_mean

if TYPE_CHECKING:
    import keras
    import keras_tuner
    import pandas as pd

    from tuning.tuners import SearchTuner

ALGORITHM_NAMES = ("random", "grid", "hyperband", "bayesian")  # as in tuners.ALGORITHMS
ENDLESS = ("random", "bayesian")  # algorithms that never end by themselves
COLUMNS = ("rank", "trial", "score", "status", "seconds", "epochs")


class TuningResult:
    """What a search found.

    Attributes:
        objective: Name of the metric that was optimised.
        direction: "min" or "max".
        histories: Per trial, the value of every metric after each epoch.
        failures: Per failed trial, the reason.
        seconds: Time spent in trials, over all sessions of the search.
    """

    def __init__(self, tuner: SearchTuner) -> None:
        self._tuner = tuner
        self._records = tuner.records()
        self.objective: str = tuner.oracle.objective.name
        self.direction: str = tuner.oracle.objective.direction
        self.histories = {name: record.history for name, record in self._records.items()}
        self.failures = {
            name: record.reason
            for name, record in self._records.items()
            if record.status == "failed"
        }
        self.seconds = sum(record.seconds for record in self._records.values())

    @property
    def best_hyperparameters(self) -> dict[str, Any]:
        """The values of the best trial; a parameter that was not active is not there."""
        return _values(self._tuner.ranked()[0])

    def best_model(self) -> keras.Model:
        """Returns the best trial's model, built anew, with the weights of its best epoch.

        Raises:
            RunError: The folder of the search was deleted.
        """
        return self._tuner.load_model(self._tuner.ranked()[0])

    def leaderboard(self) -> pd.DataFrame:
        """Returns one row per trial, the best first and failed trials last.

        Columns: rank (1 is best, missing if failed), trial, score (of the best epoch), status
        ("completed", "stopped" by the time budget, "failed"), seconds, epochs (of this trial; one
        that Hyperband promoted goes on from another's), and one per hyperparameter.
        """
        import pandas as pd

        ranked = self._tuner.ranked()
        failed = [self._tuner.oracle.get_trial(name) for name in self.failures]
        rows = []
        for rank, trial in enumerate([*ranked, *failed], start=1):
            record = self._records[trial.trial_id]
            place = rank if rank <= len(ranked) else None
            shown = (place, trial.trial_id, trial.score, record.status, record.seconds)
            rows.append(dict(zip(COLUMNS, (*shown, record.epochs), strict=True)) | _shown(trial))
        return pd.DataFrame(rows).astype({"rank": "Int64", "score": "float64"})

    def __repr__(self) -> str:
        best = self._tuner.ranked()[0]
        return (
            f"TuningResult({len(self._records)} trials, best {self.objective}={best.score:.4f} "
            f"in trial {best.trial_id}: {self.best_hyperparameters})"
        )


def tune(
    model_or_build: str | Callable[[Any], keras.Model] | keras_tuner.HyperModel,
    train: Any,
    validation: Any,
    space: Space | None = None,
    algorithm: str = "random",
    trials: int | None = 10,
    max_epochs: int = 10,
    time_budget: float | None = None,
    workers: int = 1,
    objective: str | keras_tuner.Objective | None = None,
    directory: str | Path | None = None,
    resume: bool = True,
    seed: int = 0,
    *,
    quiet: bool = False,
) -> TuningResult:
    """Searches the hyperparameters of a model.

    The same seed gives the same trials and, on one machine, the same scores. A trial that fails is
    recorded with its reason and the search goes on. Python's, NumPy's and Keras' random state is
    set anew for every trial.

    Args:
        model_or_build: Name of a catalog model, a function `build(hp)` that returns a compiled
            model, or a `keras_tuner.HyperModel` such as `tuning.CatalogHyperModel`.
        train: Arrays (x, y), a data set in batches, or a function data(batch_size, epoch_seed)
            that returns one; the function is called for every epoch.
        validation: The same for the `val_` metrics.
        space: What is tuned of a catalog model; None takes `tuning.default_space`.
        algorithm: random, grid, hyperband or bayesian.
        trials: Number of trials, earlier sessions included; for Hyperband a promotion is a trial.
            None: until the grid or one sweep of Hyperband is done, or the time is up.
        max_epochs: Epochs of a trial.
        time_budget: Seconds of this session after which no trial and no epoch is begun. The trial
            that runs is scored by the epochs it has.
        workers: Number of processes; 1.
        objective: Name of a metric, or a `keras_tuner.Objective` where its direction is not known;
            None is val_accuracy if a catalog model reports it, else val_loss.
        directory: Folder for the search; None takes a temporary one that goes with the result.
        resume: Go on with a search in `directory`, whose finished trials are not run again;
            otherwise delete it.
        seed: 0 or above.
        quiet: Show no progress.

    Raises:
        OptionValueError: An option has a value that breaks its rule.
        DataError: The data cannot be trained on.
        UnknownModelError: The catalog does not hold the model.
        RunError: All trials failed, or the search in `directory` cannot be resumed.
    """
    _check_options(algorithm, trials, max_epochs, time_budget, workers, seed)
    import numpy as np

    from tuning.data import check_data
    from tuning.hypermodel import CatalogHyperModel, as_hypermodel
    from tuning.progress import SearchProgress
    from tuning.store import open_project
    from tuning.tuners import ALGORITHMS, SearchTuner

    check_data("train", train)
    check_data("validation", validation)
    hypermodel = as_hypermodel(model_or_build, train, space)
    if isinstance(hypermodel, CatalogHyperModel):
        hypermodel.prepare(train, epochs=max_epochs)
    goal = _objective(objective, hypermodel)
    oracle = ALGORITHMS[algorithm].create(
        goal,
        trials=trials,
        max_epochs=max_epochs,
        # Spread over 32 bits: KerasTuner takes 0 for no seed, and neighbours share their draws.
        seed=int(np.random.SeedSequence(seed).generate_state(1)[0]) or 1,
    )
    settings = {
        "model": model_or_build if isinstance(model_or_build, str) else None,
        "space": repr(dict(hypermodel.space)) if hasattr(hypermodel, "space") else None,
        "algorithm": algorithm,
        "objective": [goal.name, goal.direction],
        "max_epochs": max_epochs,
        "seed": seed,
    }
    progress = SearchProgress(goal.name, trials=trials, quiet=quiet)
    folder = _folder(directory, progress)
    open_project(folder, settings, resume=resume)
    tuner = SearchTuner(
        oracle,
        hypermodel,
        directory=folder,
        seed=seed,
        max_epochs=max_epochs,
        progress=progress,
        time_budget=time_budget,
    )
    with progress:
        tuner.run(train, validation)
    return TuningResult(tuner)


def _check_options(
    algorithm: str,
    trials: int | None,
    max_epochs: int,
    time_budget: float | None,
    workers: int,
    seed: int,
) -> None:
    if algorithm not in ALGORITHM_NAMES:
        raise OptionValueError(
            f"`algorithm` must be one of {', '.join(ALGORITHM_NAMES)}; "
            f"got algorithm={algorithm!r}.{did_you_mean(str(algorithm), ALGORITHM_NAMES)}"
        )
    for name, value, least in (
        ("trials", 1 if trials is None else trials, 1),
        ("max_epochs", max_epochs, 1),
        ("seed", seed, 0),
    ):
        if not isinstance(value, int) or value < least:
            raise OptionValueError(
                f"`{name}` must be a whole number of at least {least}; got {name}={value!r}."
            )
    if time_budget is not None and not time_budget > 0:
        raise OptionValueError(
            f"`time_budget` must be above 0 seconds, or None; got time_budget={time_budget}."
        )
    if trials is None and time_budget is None and algorithm in ENDLESS:
        raise OptionValueError(
            f"`trials` must be a number with algorithm={algorithm!r}, which never ends by itself; "
            "got trials=None. Pass trials or time_budget."
        )
    if workers != 1:
        raise OptionValueError(
            f"`workers` must be 1, for trials run in this process; got workers={workers!r}."
        )


def _objective(objective: str | keras_tuner.Objective | None, hypermodel: Any) -> Any:
    import keras_tuner
    from keras_tuner.engine.metrics_tracking import infer_metric_direction

    if isinstance(objective, keras_tuner.Objective) and objective.direction in ("min", "max"):
        return objective
    if objective is None:
        reported = "accuracy" in getattr(hypermodel, "metrics", ())
        objective = "val_accuracy" if reported else "val_loss"
    direction = infer_metric_direction(objective) if isinstance(objective, str) else None
    if direction is None:
        raise OptionValueError(
            "`objective` must be a metric whose direction is known, such as 'val_accuracy', or "
            "keras_tuner.Objective(name, 'min' or 'max'); "
            f"got objective={getattr(objective, 'name', objective)!r}."
        )
    return keras_tuner.Objective(objective, direction)


def _folder(directory: str | Path | None, owner: object) -> Path:
    """Returns the user's folder, or a temporary one that is deleted with its owner."""
    if directory is not None:
        return Path(directory)
    folder = Path(tempfile.mkdtemp(prefix="tuning-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


def _values(trial: Any) -> dict[str, Any]:
    """Returns a trial's values as plain Python, without Hyperband's bookkeeping."""
    values = trial.hyperparameters.values.items()
    return {
        name: value.item() if hasattr(value, "item") else value
        for name, value in values
        if not name.startswith("tuner/")
    }


def _shown(trial: Any) -> dict[str, Any]:
    """Returns a trial's values under names that differ from the leaderboard's own columns."""
    return {
        f"{name} (hyperparameter)" if name in COLUMNS else name: value
        for name, value in _values(trial).items()
    }
