"""The one call of this package: search the hyperparameters of a model, get the best of them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuning.space import Space
from zoo.errors import OptionValueError, RunError, did_you_mean

if TYPE_CHECKING:
    import keras
    import keras_tuner
    import pandas as pd

    from tuning.results import SearchSummary, TrialSummary
    from tuning.tuner import EngineTuner

# As in oracles.ALGORITHMS.
ALGORITHM_NAMES = ("random", "grid", "hyperband", "bayesian", "asha", "tpe", "bohb")
ENDLESS = ("random", "bayesian", "asha", "tpe", "bohb")  # that never end by themselves
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

    def __init__(self, tuner: EngineTuner, *, title: str = "", algorithm: str = "") -> None:
        oracle = tuner.oracle
        self._tuner = tuner
        self._title = title
        self._algorithm = algorithm
        self.objective: str = oracle.objective.name
        self.direction: str = oracle.objective.direction
        self._trials = [
            _summary(oracle, name) for name in oracle.trials if _has_ended(oracle, name)
        ]
        self.histories = {trial.trial: trial.history for trial in self._trials}
        self.failures = {t.trial: t.reason for t in self._trials if t.status == "failed"}
        self.seconds = sum(trial.seconds for trial in self._trials)

    @property
    def best_hyperparameters(self) -> dict[str, Any]:
        """The values of the best trial; a parameter that was not active is not there."""
        return dict(self._ranked()[0].values)

    def best_model(self) -> keras.Model:
        """Returns the best trial's model, built anew, with the weights of its best epoch.

        Raises:
            RunError: The folder of the search was deleted.
        """
        return self._tuner.load_model(self._tuner.oracle.get_best_trials(1)[0])

    def summary(self) -> SearchSummary:
        """Returns all that is known of the search, as plain data."""
        from tuning.results import SearchSummary
        from tuning.store import disk_bytes

        tuner = self._tuner
        return SearchSummary(
            title=self._title,
            objective=self.objective,
            direction=self.direction,
            algorithm=self._algorithm,
            seed=tuner.oracle.seed,
            max_epochs=tuner.oracle.max_epochs or 0,
            trials=tuple(self._trials),
            seconds=tuner.oracle.session_seconds,
            workers=tuner.workers,
            disk_bytes=disk_bytes(Path(tuner.project_dir)),
            notes=tuple(tuner.engine_notes()),
        )

    def report(self, path: str | Path = "search.html") -> Path:
        """Writes one HTML page about the search and returns its path.

        It holds the leaderboard, the learning curves, which hyperparameters mattered, what failed
        and what it cost, and needs nothing else to be looked at.
        """
        from tuning.report import write_report

        return write_report(self.summary(), path)

    def hparams(self, folder: str | Path) -> Path:
        """Writes the search for TensorBoard's HParams page and returns the folder."""
        from tuning.report import write_hparams

        return write_hparams(self.summary(), folder)

    def leaderboard(self) -> pd.DataFrame:
        """Returns one row per trial, the best first and failed trials last.

        Columns: rank (1 is best, missing if failed), trial, score (of the best epoch), status
        ("completed", "stopped" by the time budget, "failed"), seconds, epochs (of this trial; one
        that Hyperband promoted goes on from another's), and one per hyperparameter.
        """
        import pandas as pd

        ranked = self._ranked()
        failed = [trial for trial in self._trials if trial.status == "failed"]
        rows = []
        for rank, trial in enumerate([*ranked, *failed], start=1):
            place = rank if rank <= len(ranked) else None
            shown = (place, trial.trial, trial.score, trial.status, trial.seconds, trial.epochs)
            rows.append(dict(zip(COLUMNS, shown, strict=True)) | _shown(trial.values))
        return pd.DataFrame(rows).astype({"rank": "Int64", "score": "float64"})

    def _ranked(self) -> list[TrialSummary]:
        by_name = {trial.trial: trial for trial in self._trials}
        best = self._tuner.oracle.get_best_trials(len(by_name))
        return [by_name[t.trial_id] for t in best if t.status == "COMPLETED"]

    def __repr__(self) -> str:
        best = self._ranked()[0]
        return (
            f"TuningResult({len(self._trials)} trials, best {self.objective}={best.score:.4f} "
            f"in trial {best.trial}: {self.best_hyperparameters})"
        )


def tune(
    model_or_build: str | Callable[[Any], keras.Model] | keras_tuner.HyperModel,
    train: Any,
    validation: Any,
    space: Space | None = None,
    algorithm: str = "asha",
    trials: int | None = 20,
    max_epochs: int = 10,
    time_budget: float | None = None,
    workers: int = 1,
    objective: str | keras_tuner.Objective | None = None,
    directory: str | Path | None = None,
    resume: bool = True,
    seed: int = 0,
    *,
    plateau: int | None = None,
    curve_stopping: bool | None = None,
    keep: int | None = 1,
    fused: int = 1,
    quiet: bool = False,
) -> TuningResult:
    """Searches the hyperparameters of a model.

    The same seed gives the same trials and, on one machine, the same scores. A trial that fails is
    recorded with its reason and the search goes on. A search that was interrupted goes on with at
    most one epoch of each running trial lost. Python's, NumPy's and Keras' random state is set
    anew for every trial.

    Args:
        model_or_build: Name of a catalog model, a function `build(hp)` that returns a compiled
            model, or a `keras_tuner.HyperModel` such as `tuning.CatalogHyperModel`.
        train: Arrays (x, y), a data set in batches, or a function data(batch_size, epoch_seed)
            that returns one; the function is called for every epoch.
        validation: The same for the `val_` metrics.
        space: What is tuned of a catalog model; None takes `tuning.default_space`.
        algorithm: random, grid, hyperband, bayesian (KerasTuner's Gaussian process), asha (many
            short trials, of which the best go on), tpe (Optuna's), or bohb (asha with tpe's
            suggestions).
        trials: Number of trials, earlier sessions included; for Hyperband a promotion is a trial.
            None: until the grid or one sweep of Hyperband is done, or the time is up.
        max_epochs: Epochs of a whole trial, where learning-rate schedules end.
        time_budget: Seconds of this session after which no trial and no epoch is begun. The trial
            that runs is scored by the epochs it has.
        workers: Number of processes that run trials; 1 runs them in this one.
        objective: Name of a metric, or a `keras_tuner.Objective` where its direction is not known;
            None is val_accuracy if a catalog model reports it, else val_loss.
        directory: Folder for the search; None takes a temporary one that goes with the result.
        resume: Go on with a search in `directory`, whose finished trials are not run again;
            otherwise delete it.
        seed: 0 or above.
        plateau: Stop after that many trials without a better score; None goes on.
        curve_stopping: End a trial whose learning curve is not expected to reach the best score;
            None does so for bohb only.
        keep: Number of best trials whose weights stay on the disk; None is all.
        fused: On JAX, number of trials of one structure that are trained at once, where that can be
            done and pays; 1 trains them one after the other.
        quiet: Show no progress.

    Raises:
        OptionValueError: An option has a value that breaks its rule.
        DataError: The data cannot be trained on.
        UnknownModelError: The catalog does not hold the model.
        RunError: All trials failed, or the search in `directory` cannot be resumed.
    """
    _check_options(algorithm, trials, max_epochs, time_budget, seed)
    from tuning.data import check_data
    from tuning.hypermodel import CatalogHyperModel, as_hypermodel
    from tuning.oracles import ALGORITHMS
    from tuning.progress import SearchProgress
    from tuning.store import PROJECT
    from tuning.tuner import EngineTuner

    check_data("train", train)
    check_data("validation", validation)
    hypermodel = as_hypermodel(model_or_build, train, space)
    if isinstance(hypermodel, CatalogHyperModel):
        hypermodel.prepare(train, epochs=max_epochs)
    goal = _objective(objective, hypermodel)
    options: dict[str, Any] = {"plateau": plateau}
    if curve_stopping is not None:
        options["curve_stopping"] = curve_stopping
    oracle = ALGORITHMS[algorithm].create(
        goal, trials=trials, max_epochs=max_epochs, seed=seed, **options
    )
    oracle.defaults_first = isinstance(hypermodel, CatalogHyperModel)
    title = model_or_build if isinstance(model_or_build, str) else ""
    progress = SearchProgress(goal.name, trials=trials, quiet=quiet)
    tuner = EngineTuner(
        oracle,
        hypermodel,
        directory=_folder(directory, progress),
        project_name=PROJECT,
        overwrite=not resume,
        workers=workers,
        fused=fused,
        time_budget=time_budget,
        keep=keep,
        progress=progress,
        settings={
            "model": title or None,
            "space": repr(dict(hypermodel.space)) if hasattr(hypermodel, "space") else None,
            "algorithm": algorithm,
            "max_epochs": max_epochs,
            "seed": seed,
        },
    )
    _run(tuner, train, validation)
    return TuningResult(tuner, title=title, algorithm=algorithm)


def _run(tuner: EngineTuner, train: Any, validation: Any) -> None:
    """Searches on the data.

    Raises:
        OptionValueError: No trial can succeed: the model reports no such objective, or what was
            built is no model.
        RunError: All trials failed, or the time was up before one could begin.
    """
    from keras_tuner.errors import FatalError

    try:
        tuner.search(train, validation, epochs=tuner.oracle.max_epochs, seed=tuner.oracle.seed)
    except FatalError as error:
        raise OptionValueError(str(error)) from error
    if tuner.best_score() is not None:
        return
    failed = [t for t in tuner.oracle.trials.values() if t.status == "FAILED"]
    if not failed:
        raise RunError("No trial was begun within `time_budget`; give the search more time.")
    raise RunError(
        f"All {len(failed)} trials failed; trial {failed[0].trial_id}: {failed[0].message}."
    )


def _check_options(
    algorithm: str,
    trials: int | None,
    max_epochs: int,
    time_budget: float | None,
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
    if trials is None and time_budget is None and algorithm in ENDLESS:
        raise OptionValueError(
            f"`trials` must be a number with algorithm={algorithm!r}, which never ends by itself; "
            "got trials=None. Pass trials or time_budget."
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


def _has_ended(oracle: Any, name: str) -> bool:
    return oracle.trials[name].status in ("COMPLETED", "FAILED")


def _summary(oracle: Any, name: str) -> TrialSummary:
    from tuning.results import TrialSummary

    trial = oracle.trials[name]
    stopped = "stopped" if trial.message else "completed"
    values = trial.hyperparameters.values
    return TrialSummary(
        trial=name,
        status="failed" if trial.status == "FAILED" else stopped,
        score=trial.score,
        values=_values(values),
        history=oracle.histories[name],
        seconds=oracle.seconds[name],
        reason="; ".join([*oracle.notes[name], *([trial.message] if trial.message else [])]),
        parent=values.get("tuner/trial_id"),
    )


def _values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values as plain Python, without bookkeeping and without what others are made of."""
    from tuning.parameters import RELATIVE

    return {
        name: value.item() if hasattr(value, "item") else value
        for name, value in values.items()
        if not name.startswith("tuner/")
        and not (name.startswith(RELATIVE) and name.removeprefix(RELATIVE) in values)
    }


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a trial's values under names that differ from the leaderboard's own columns."""
    return {
        f"{name} (hyperparameter)" if name in COLUMNS else name: value
        for name, value in values.items()
    }
