"""Searches of KerasTuner and of this package, made alike and timed alike."""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.tuning_tasks import Task

STOCK, OURS = "KerasTuner", "keras-zoo"
Hook = Callable[[float, Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A tuner of one of the two libraries.

    Attributes:
        library: STOCK or OURS.
        tuner: Name of its class.
        options: Its further arguments.
    """

    library: str
    tuner: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What one search took, and what it found."""

    seconds: float  # from making the tuner to the end of the search
    scores: list[float]  # by trial
    disk_bytes: int  # left when it ended


def run_search(
    contestant: Contestant,
    task: Task,
    *,
    objective: str,
    seed: int = 0,
    values: Sequence[Mapping[str, Any]] | None = None,
    shuffle: bool = True,
    epoch_ended: Hook | None = None,
    prepare: Callable[[Any], None] = lambda _: None,
) -> Search:
    """Runs one search in a folder of its own, which is deleted.

    Args:
        contestant: Who searches.
        task: For what.
        objective: Metric to optimise.
        seed: Of the search.
        values: Values of the trials, in place of what the algorithm would suggest.
        shuffle: Shuffle the training data before each epoch.
        epoch_ended: Called after every epoch with the seconds since the start and its metrics.
        prepare: Called with the tuner before it searches.

    Raises:
        RuntimeError: A trial failed; the measurement would mean nothing.
    """
    folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        gc.collect()
        begin = time.perf_counter()
        tuner = _make(contestant, task, folder, objective, seed)
        if values is not None:
            chosen = values
            tuner.oracle.populate_space = lambda trial: {
                "status": "RUNNING",
                "values": dict(chosen[int(trial)]),
            }
        prepare(tuner)
        watching = {} if epoch_ended is None else _watch(contestant, tuner, begin, epoch_ended)
        tuner.search(
            *task.train,
            validation_data=task.validation,
            epochs=task.epochs,
            batch_size=task.batch_size,
            shuffle=shuffle,
            verbose=0,
            **watching,
        )
        seconds = time.perf_counter() - begin
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return Search(seconds=seconds, scores=_scores(tuner), disk_bytes=size)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(contestant: Contestant, task: Task, folder: Path, objective: str, seed: int) -> Any:
    import keras_tuner

    import tuning

    options: dict[str, Any] = {"directory": str(folder), "project_name": "search", "seed": seed}
    if contestant.tuner != "Hyperband":
        options["max_trials"] = task.trials
    if contestant.tuner in ("Hyperband", "ASHA", "BOHB"):
        options["max_epochs"] = task.epochs
    if contestant.library == STOCK:
        module: Any = keras_tuner
    else:
        module, options["quiet"] = tuning, True
    tuner_class = getattr(module, contestant.tuner)
    return tuner_class(task.build, objective, **(options | dict(contestant.options)))


def _scores(tuner: Any) -> list[float]:
    trials = [tuner.oracle.trials[name] for name in sorted(tuner.oracle.trials, key=int)]
    for trial in trials:
        if trial.status in ("FAILED", "INVALID"):
            raise RuntimeError(f"Trial {trial.trial_id} failed: {trial.message}")
    return [float(trial.score) for trial in trials if trial.score is not None]


def _watch(contestant: Contestant, tuner: Any, begin: float, hook: Hook) -> dict[str, Any]:
    """Calls the hook after each epoch; returns what KerasTuner's search needs for it."""
    if contestant.library == OURS:
        journal = tuner.oracle.journal

        def record(event: Mapping[str, Any]) -> None:
            journal(event)
            if event["event"] == "epoch":
                logs = {**event["logs"], "seconds": event["seconds"]}
                hook(time.perf_counter() - begin, logs)

        tuner.oracle.journal = record
        return {}
    import keras

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras'
            hook(time.perf_counter() - begin, logs or {})

        def __deepcopy__(self, _: Any) -> Watch:  # KerasTuner gives each trial a copy
            return self

    return {"callbacks": [Watch()]}


class Steps:
    """A task's training and validation steps alone: compiled, over batches that are ready.

    Args:
        task: What the steps are of.
    """

    def __init__(self, task: Task) -> None:
        import keras_tuner
        import tensorflow as tf

        self._task = task
        self._model = model = task.build(keras_tuner.HyperParameters())
        few = tuple(part[:2] for part in task.train)
        model.train_on_batch(*few)  # makes the variables of optimizer and metrics
        model.test_on_batch(*few)
        jit = True if model.jit_compile else None
        self._train = tf.function(model.train_step, jit_compile=jit)
        self._test = tf.function(model.test_step, jit_compile=jit)
        self._batches = _batches(task.train, task.batch_size)
        self._held_out = _batches(task.validation, task.batch_size)

    def seconds(self) -> float:
        """Returns the seconds of a trial's steps."""
        self._epoch()  # KerasTuner's `clear_session` in between makes TensorFlow trace anew
        begin = time.perf_counter()
        for _ in range(self._task.epochs):
            self._epoch()
        return time.perf_counter() - begin

    def _epoch(self) -> None:
        for batch in self._batches:
            logs = self._train(batch)
        for batch in self._held_out:
            logs = self._test(batch)
        float(logs["loss"])  # waits for the last step


def _batches(pair: Any, size: int) -> list[Any]:
    import tensorflow as tf

    return [
        tuple(tf.constant(part[first : first + size]) for part in pair)
        for first in range(0, len(pair[0]), size)
    ]
