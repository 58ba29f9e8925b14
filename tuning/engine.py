"""Training of trials: compiled models used again, epochs in one call, a state after every epoch.

`TrainingEngine.prepare` takes the model that a trial built and returns the one to train, whose
`fit` is `TrialFit`. It has the arguments and the results of `keras.Model.fit`; so a trial's code
need not know of it, be it a HyperModel's own `fit` or KerasTuner's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import keras
import numpy as np

from tuning import checkpoint
from tuning.checkpoint import BEST, STATE, TrainingState
from tuning.data import array_batches, is_rows, smaller_batches
from tuning.loop import as_tensors, epoch_loop
from tuning.reuse import CompiledModel, CompiledModels


@dataclass
class TrialRun:
    """One training of a trial: where it stands, what it reports, what it is told.

    Attributes:
        seed: Order of the data in each epoch, with the epoch's number.
        objective: KerasTuner's objective; None keeps the weights of the last epoch.
        folder: Where the state and the best weights are kept; None keeps neither.
        epochs: Epoch to stop at; None leaves it to the caller of `fit`.
        state: Where to go on; its epoch is 0 for a new training.
        report: Called after each epoch with (epoch, logs, seconds); returns why to stop, or None.
        keep_state: Whether the state after the last epoch may be needed.
        halvings: How often the batch size is halved, because memory ran out.
        stopped: Why it was stopped before its last epoch.
    """

    seed: tuple[int, ...]
    objective: Any = None
    folder: Path | None = None
    epochs: int | None = None
    state: TrainingState = field(default_factory=TrainingState)
    report: Callable[[int, Mapping[str, float], float], str | None] = lambda *_: None
    begin: Callable[[], None] = lambda: None
    keep_state: bool = False
    halvings: int = 0
    stopped: str = ""

    def order(self, rows: int, epoch: int) -> np.ndarray:
        """Returns the order in which an epoch sees the rows of its arrays: (rows,)."""
        generator = np.random.default_rng([*self.seed, epoch])
        return generator.permutation(rows).astype("int32")


class TrainingEngine:
    """What trials share: the compiled models, and the data as tensors.

    Args:
        compiled_models: Number of compiled models to keep; 0 compiles every trial anew.
        whole_epochs: Run epochs over arrays in one call where nothing asks for single batches.
    """

    def __init__(self, *, compiled_models: int = 16, whole_epochs: bool = True) -> None:
        self.compiled = CompiledModels(compiled_models)
        self.whole_epochs = whole_epochs and keras.backend.backend() in ("tensorflow", "jax")
        self._tensors: list[tuple[tuple[int, ...], Any, Any]] = []

    def prepare(self, fresh: keras.Model, run: TrialRun, batch: Any = None) -> keras.Model:
        """Returns the model to train in place of one that was just built.

        Args:
            fresh: A compiled model.
            run: The training it is for.
            batch: Some rows of the data, to build a model that has no input shape yet.
        """
        if not fresh.built and batch is not None:
            fresh.build(keras.tree.map_structure(lambda a: (None, *np.shape(a)[1:]), batch))
        usable = fresh.built and getattr(fresh, "compiled", False) and fresh.optimizer is not None
        compiled = self.compiled.adopt(fresh) if usable else CompiledModel(fresh)
        compiled.model.fit = TrialFit(self, compiled, run)
        return compiled.model

    def tensors(self, data: Any) -> Any:
        """Returns arrays as tensors, the same ones whenever the same arrays come."""
        key = tuple(map(id, keras.tree.flatten(data)))
        for known, _, tensors in self._tensors:
            if known == key:
                return tensors
        tensors = as_tensors(data)
        self._tensors = [*self._tensors[-3:], (key, data, tensors)]  # `data` keeps the ids alive
        return tensors


class TrialFit:
    """`fit` of a trial's model.

    Args:
        engine: What trials share.
        compiled: The model.
        run: The training.
    """

    def __init__(self, engine: TrainingEngine, compiled: CompiledModel, run: TrialRun) -> None:
        self._engine = engine
        self._compiled = compiled
        self._run = run

    def __call__(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = 0,
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: Any = True,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        validation_freq: int = 1,
        **options: Any,
    ) -> keras.callbacks.History:
        """Trains the model. Arguments, result and errors are those of `keras.Model.fit`.

        Arrays are shuffled by the trial's seed and the epoch's number, so that a training that
        goes on sees what it would have seen.
        """
        del verbose  # the search shows its own progress
        run, model = self._run, self._compiled.model
        train: Any = tuple(part for part in (x, y, sample_weight) if part is not None)
        if validation_split and validation_data is None:
            train, validation_data = _split(train, validation_split)
        recorder = EpochRecorder(run)
        recorder.callbacks = _flat(callbacks)
        begin = max(initial_epoch, run.state.epoch)
        shared = {
            "callbacks": [*recorder.callbacks, recorder],
            "epochs": epochs if run.epochs is None else run.epochs,
            "initial_epoch": begin,
        }
        size = max(1, (batch_size or 32) >> run.halvings)
        plain = not any(options.get(name) for name in options) and validation_freq == 1
        arrays = plain and shuffle in (True, False) and is_rows(train)
        if run.state.stopped or begin >= shared["epochs"]:
            run.begin()
        elif arrays and self._whole_epochs(recorder.callbacks, validation_data):
            self._fit_whole_epochs(train, validation_data, size, shuffle=shuffle, **shared)
        else:
            if arrays:
                order = functools.partial(run.order, len(keras.tree.flatten(train)[0]))
                x = array_batches(train, size, order if shuffle else None, recorder)
                train, shuffle, size = (x,), False, None
            elif run.halvings and not is_rows(train):
                train, size = (smaller_batches(train[0], run.halvings),), None
            elif not is_rows(train):
                size = batch_size
            weight = {} if len(train) < 3 else {"sample_weight": train[2]}
            type(model).fit(
                model,
                *train[:2],
                batch_size=size,
                verbose=0,
                validation_data=validation_data,
                shuffle=shuffle,
                validation_freq=validation_freq,
                **weight,
                **options,
                **shared,
            )
        history = keras.callbacks.History() if model.history is None else model.history
        history.history = {name: list(values) for name, values in run.state.history.items()}
        history.epoch = list(range(run.state.epoch - _length(history.history), run.state.epoch))
        return history

    def _whole_epochs(self, callbacks: Iterable[Any], validation: Any) -> bool:
        if not self._engine.whole_epochs or self._compiled.model.run_eagerly:
            return False
        if validation is not None and not is_rows(validation):
            return False
        return not any(map(asks_for_batches, callbacks)) and not _distributed()

    def _fit_whole_epochs(
        self,
        train: Any,
        validation: Any,
        batch_size: int,
        *,
        shuffle: bool,
        callbacks: list[Any],
        epochs: int,
        initial_epoch: int,
    ) -> None:
        run, model = self._run, self._compiled.model
        rows = len(keras.tree.flatten(train)[0])
        data = self._engine.tensors(train)
        held_out = None if validation is None else self._engine.tensors(tuple(validation))
        model._symbolic_build(data_batch=keras.tree.map_structure(lambda a: a[:2], data))
        if self._compiled.loop is None:
            self._compiled.loop = epoch_loop(model, self._compiled.numbers)
        loop = self._compiled.loop
        hooks = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            verbose=0,
            epochs=epochs,
            steps=math.ceil(rows / batch_size),
            model=model,
        )
        model.stop_training = False
        hooks.on_train_begin()
        logs: dict[str, float] = {}
        for epoch in range(initial_epoch, epochs):
            hooks.on_epoch_begin(epoch)
            order = run.order(rows, epoch) if shuffle else np.arange(rows, dtype="int32")
            logs = loop.train(data, order, batch_size)
            if held_out is not None:
                hooks.on_test_begin()
                tested = loop.test(held_out, batch_size)
                hooks.on_test_end(tested)
                logs |= {f"val_{name}": value for name, value in tested.items()}
            hooks.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        model.optimizer.finalize_variable_values(model.trainable_weights)
        hooks.on_train_end(logs)


class EpochRecorder(keras.callbacks.Callback):
    """Keeps a training's state, best weights and curves; the last callback of a training.

    Args:
        run: The training.
    """

    def __init__(self, run: TrialRun) -> None:
        super().__init__()
        self.run = run
        self.epoch = run.state.epoch
        self.callbacks: list[keras.callbacks.Callback] = []
        self._restored = False
        self._began = monotonic()

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras' signature
        """Says that the model is built."""
        self.run.begin()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Goes on where the training stands, once all else has begun."""
        self.epoch = epoch
        self._began = monotonic()
        state = self.run.state
        if self._restored:
            return
        self._restored = True
        if state.arrays:
            checkpoint.load_arrays(self.model, state.arrays)
        checkpoint.load_callbacks(self.callbacks, state)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Records the epoch."""
        run, state = self.run, self.run.state
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        for name, value in numbers.items():
            state.history.setdefault(name, []).append(value)
        state.epoch = epoch + 1
        state.stopped = state.ended_early = bool(self.model.stop_training)
        if run.folder is not None and self._improved(numbers):
            checkpoint.write_weights(self.model, run.folder / BEST)
        last = epoch + 1 >= (run.epochs or self.params["epochs"]) or state.stopped
        if run.folder is not None and (run.keep_state or not last):
            state.arrays = checkpoint.read_arrays(self.model)
            checkpoint.write_callbacks(self.callbacks, state)
            state.write(run.folder / STATE)
        reason = run.report(epoch, numbers, monotonic() - self._began)
        if reason:
            run.stopped = reason
            state.stopped = True
            self.model.stop_training = True

    def _improved(self, logs: Mapping[str, float]) -> bool:
        objective, state = self.run.objective, self.run.state
        if objective is None or not objective.has_value(logs):
            return True
        value = float(objective.get_value(logs))
        if state.best is not None and not objective.better_than(value, state.best):
            return False
        state.best = value
        return True


def asks_for_batches(callback: Any) -> bool:
    """Returns whether a callback has something to do for every batch."""
    hooks = ("batch_begin", "batch_end")
    names = [f"on_{kind}{hook}" for kind in ("", "train_", "test_") for hook in hooks]
    if isinstance(callback, keras.callbacks.ModelCheckpoint):
        return callback.save_freq != "epoch"
    if isinstance(callback, keras.callbacks.LambdaCallback):
        return any(name in vars(callback) for name in names)
    base = keras.callbacks.Callback
    return any(getattr(type(callback), name) is not getattr(base, name) for name in names)


def _split(train: Any, share: float) -> tuple[Any, Any]:
    """Splits the last share of the rows off, as Keras does."""
    rows = len(keras.tree.flatten(train)[0])
    kept = math.floor(rows * (1.0 - share))
    return (
        keras.tree.map_structure(lambda a: a[:kept], train),
        keras.tree.map_structure(lambda a: a[kept:], train),
    )


def _distributed() -> bool:
    if keras.backend.backend() != "tensorflow":
        return keras.distribution.distribution() is not None
    import tensorflow as tf

    return bool(tf.distribute.has_strategy())


def _flat(callbacks: Any) -> list[Any]:
    return list(keras.tree.flatten(callbacks)) if callbacks else []


def _length(history: Mapping[str, list[float]]) -> int:
    return max(map(len, history.values()), default=0)
