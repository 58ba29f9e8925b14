"""Training of trials: compiled models used again, epochs in one call, a state after every epoch.

`TrainingEngine.prepare` takes the model that a trial built and returns the one to train, whose
`fit` is `TrialFit`. It has the arguments and the results of `keras.Model.fit`; so a trial's code
need not know of it, be it a HyperModel's own `fit` or KerasTuner's.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import keras
import numpy as np

from tuning import checkpoint
from tuning.checkpoint import BEST, STATE, TrainingState
from tuning.data import array_batches, can_rebatch, class_weights, is_rows, smaller_batches
from tuning.loop import BatchHooks, as_tensors, epoch_loop
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
        stopped: Why it was stopped before its last epoch.
        fits: How often `fit` was called, by a HyperModel that trains in parts.
    """

    seed: tuple[int, ...]
    objective: Any = None
    folder: Path | None = None
    epochs: int | None = None
    state: TrainingState = field(default_factory=TrainingState)
    report: Callable[[int, Mapping[str, float], float], str | None] = lambda *_: None
    begin: Callable[[], None] = lambda: None
    keep_state: bool = False
    stopped: str = ""
    fits: int = 0

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
        compiles = keras.backend.backend() in ("tensorflow", "jax")
        self.compiled = CompiledModels(compiled_models if compiles else 0)
        self.loops = compiles  # over arrays, in place of Keras' `fit`
        self.whole_epochs = whole_epochs
        self._tensors: list[tuple[tuple[int, ...], Any, Any]] = []

    def prepare(self, fresh: keras.Model, run: TrialRun, batch: Any = None) -> keras.Model:
        """Returns the model to train in place of one that was just built.

        Args:
            fresh: A compiled model.
            run: The training it is for.
            batch: Some rows of the data, to build a model that has no input shape yet.
        """
        if not fresh.built and batch is not None:
            _build(fresh, keras.tree.map_structure(lambda a: (None, *np.shape(a)[1:]), batch))
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
        class_weight: Mapping[int, float] | None = None,
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
        if self._compiled.recompiled():  # by the HyperModel's own `fit`
            self._compiled = CompiledModel(model)
        train: Any = tuple(part for part in (x, y, sample_weight) if part is not None)
        if validation_split and validation_data is None:
            train, validation_data = _split(train, validation_split)
        if class_weight and len(train) == 2 and is_rows(train):
            train, class_weight = (*train, class_weights(train[1], class_weight)), None
        options |= {"class_weight": class_weight} if class_weight else {}
        seen = {name: len(values) for name, values in run.state.history.items()} if run.fits else {}
        begin, end = self._span(initial_epoch, epochs)
        recorder = EpochRecorder(run, resumable=run.fits == 1, shift=run.state.epoch - begin)
        recorder.callbacks = [c for c in _flat(callbacks) if not isinstance(c, EpochRecorder)]
        shared: dict[str, Any] = {
            "callbacks": [recorder.restorer(), *recorder.callbacks, recorder],
            "epochs": end,
            "initial_epoch": begin,
        }
        size = max(1, (batch_size or 32) >> run.state.halvings)
        plain = not any(options.values()) and validation_freq == 1 and shuffle in (True, False)
        arrays = plain and is_rows(train)
        if begin >= end:
            run.begin()
        elif arrays and self._can_loop(recorder.callbacks, validation_data):
            self._fit_arrays(train, validation_data, size, shuffle=shuffle, **shared)
        else:
            data = self._batches(train, batch_size, size, recorder, shuffle=shuffle, arrays=arrays)
            options |= {"validation_data": validation_data, "validation_freq": validation_freq}
            type(model).fit(model, verbose=0, **data, **options, **shared)
        return self._history(seen)

    def _span(self, initial_epoch: int, epochs: int) -> tuple[int, int]:
        """Returns the first epoch to train and the one to stop before."""
        run = self._run
        run.fits += 1
        if run.fits > 1:
            # A training in parts begins anew after an interruption.
            if run.folder is not None:
                (run.folder / STATE).unlink(missing_ok=True)
            return initial_epoch, initial_epoch if run.stopped else epochs
        begin = max(initial_epoch, run.state.epoch)
        if run.state.stopped:
            return begin, begin
        return begin, epochs if run.epochs is None else run.epochs

    def _batches(
        self,
        train: Any,
        batch_size: int | None,
        size: int,
        recorder: EpochRecorder,
        *,
        shuffle: Any,
        arrays: bool,
    ) -> dict[str, Any]:
        """Returns the training data as arguments of `keras.Model.fit`.

        Args:
            train: Arrays, or a data set.
            batch_size: What the caller of `fit` asked for.
            size: Rows per batch of arrays.
            recorder: Knows the present epoch.
            shuffle: As in `keras.Model.fit`.
            arrays: Whether it is arrays that the trial's seed shuffles.
        """
        run = self._run
        if arrays:
            order = functools.partial(run.order, len(keras.tree.flatten(train)[0]))
            data = array_batches(train, size, order if shuffle else None, recorder)
            return {"x": data, "shuffle": False}
        named = dict(zip(("x", "y", "sample_weight"), train, strict=False))
        if is_rows(train):
            return named | {"batch_size": size, "shuffle": shuffle}
        if run.state.halvings:
            data = smaller_batches(train[0], run.state.halvings)
            return {"x": data, "shuffle": shuffle and not can_rebatch(data)}
        if can_rebatch(train[0]):  # a tf.data.Dataset, which Keras cannot shuffle
            return {"x": train[0], "shuffle": False}
        return named | {"batch_size": batch_size, "shuffle": shuffle}

    def _history(self, seen: Mapping[str, int]) -> keras.callbacks.History:
        """Returns the metrics of all epochs of the trial's training but for those seen before."""
        state, model = self._run.state, self._compiled.model
        history = getattr(model, "history", None) or keras.callbacks.History()
        new = {name: values[seen.get(name, 0) :] for name, values in state.history.items()}
        history.history = {name: values for name, values in new.items() if values}
        history.epoch = list(range(state.epoch - _length(history.history), state.epoch))
        return history

    def _can_loop(self, callbacks: Iterable[Any], validation: Any) -> bool:
        """Returns whether a loop over arrays does all that Keras' `fit` would do with them."""
        model = self._compiled.model
        own_steps = any(
            getattr(type(model), step) is not getattr(keras.Model, step)
            for step in ("train_step", "test_step")  # whose results Keras may take for metrics
        )
        if not self._engine.loops or model.run_eagerly or own_steps:
            return False
        if validation is not None and not is_rows(validation):
            return False
        resumes = any(isinstance(c, keras.callbacks.BackupAndRestore) for c in callbacks)
        return not resumes and not _distributed()

    def _whole_epochs(self, callbacks: Iterable[Any]) -> bool:
        return self._engine.whole_epochs and not any(map(asks_for_batches, callbacks))

    def _fit_arrays(
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
        whole = self._whole_epochs(callbacks)
        train_hooks, test_hooks = (None, None) if whole else batch_hooks(hooks, model)
        model.stop_training = False
        hooks.on_train_begin()
        logs: dict[str, float] = {}
        for epoch in range(initial_epoch, epochs):
            hooks.on_epoch_begin(epoch)
            order = run.order(rows, epoch) if shuffle else np.arange(rows, dtype="int32")
            logs = loop.train(data, order, batch_size, train_hooks)
            if held_out is not None:
                model.stop_evaluating = False
                hooks.on_test_begin()
                tested = loop.test(held_out, batch_size, test_hooks)
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
        resumable: Whether the training can go on from a state of its model; a loop of the
            HyperModel's own cannot.
        shift: Epochs trained before what this training takes for its first one.
    """

    def __init__(self, run: TrialRun, *, resumable: bool = True, shift: int = 0) -> None:
        super().__init__()
        self.run = run
        self.epoch = run.state.epoch
        self.callbacks: list[keras.callbacks.Callback] = []
        self._resumable = resumable
        self._shift = shift
        self._restored = False
        self._began = monotonic()

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras' signature
        """Says that the model is built."""
        self.run.begin()

    def restorer(self) -> keras.callbacks.Callback:
        """Returns a callback, to be the first, that brings the training where it stands.

        When an epoch begins: all callbacks have begun by then, and what one of them does to the
        first epoch is not undone.
        """

        def restore(epoch: int, _: object) -> None:
            self.epoch = epoch
            state = self.run.state
            if self._restored:
                return
            self._restored = True
            if self._resumable and state.arrays:
                checkpoint.load_arrays(self.model, state.arrays)
                checkpoint.load_callbacks(self.callbacks, state)

        return keras.callbacks.LambdaCallback(on_epoch_begin=restore)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Starts the clock."""
        self._began = monotonic()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Records the epoch."""
        run, state = self.run, self.run.state
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        for name, value in numbers.items():
            state.history.setdefault(name, []).append(value)
        number = epoch + self._shift
        state.epoch = number + 1
        state.stopped = state.ended_early = bool(getattr(self.model, "stop_training", False))
        if run.folder is not None and self._improved(numbers):
            checkpoint.write_weights(self.model, run.folder / BEST)
        if self._resumable:
            self._write_state(number)
        began, self._began = self._began, monotonic()
        reason = run.report(number, numbers, self._began - began)
        if reason:
            run.stopped = reason
            state.stopped = True
            self.model.stop_training = True

    def _write_state(self, epoch: int) -> None:
        run, state = self.run, self.run.state
        last = epoch + 1 >= (run.epochs or self.params["epochs"]) or state.stopped
        if run.folder is not None and (run.keep_state or not last):
            state.arrays = checkpoint.read_arrays(self.model)
            checkpoint.write_callbacks(self.callbacks, state)
            state.write(run.folder / STATE)

    def _improved(self, logs: Mapping[str, float]) -> bool:
        objective, state = self.run.objective, self.run.state
        if objective is None or not objective.has_value(logs):
            return True
        value = float(objective.get_value(logs))
        if state.best is not None and not objective.better_than(value, state.best):
            return False
        state.best = value
        return True


def batch_hooks(
    callbacks: keras.callbacks.CallbackList, model: keras.Model
) -> tuple[BatchHooks, BatchHooks]:
    """Returns what callbacks are to hear of each batch of training and of validation."""
    train = BatchHooks(
        begin=callbacks.on_train_batch_begin,
        end=callbacks.on_train_batch_end,
        is_over=lambda: model.stop_training,
        steps=model.steps_per_execution,
    )
    test = BatchHooks(
        begin=callbacks.on_test_batch_begin,
        end=callbacks.on_test_batch_end,
        is_over=lambda: model.stop_evaluating,
        steps=model.steps_per_execution,
    )
    return train, test


def asks_for_batches(callback: Any) -> bool:
    """Returns whether a callback has something to do for every batch."""
    hooks = ("batch_begin", "batch_end")
    names = [f"on_{kind}{hook}" for kind in ("", "train_", "test_") for hook in hooks]
    if isinstance(callback, keras.callbacks.ModelCheckpoint):
        return bool(callback.save_freq != "epoch")
    if isinstance(callback, keras.callbacks.LambdaCallback):
        return any(name in vars(callback) for name in names)
    base = keras.callbacks.Callback
    return any(getattr(type(callback), name) is not getattr(base, name) for name in names)


def _build(model: keras.Model, shapes: Any) -> None:
    """Builds a model for inputs of these shapes, if that can be done without data."""
    if isinstance(model, keras.Sequential):
        model.build(shapes)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*had a build config", UserWarning)
        model.build_from_config({"input_shape": shapes})


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
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    return list(keras.tree.flatten(callbacks)) if callbacks else []


def _length(history: Mapping[str, list[float]]) -> int:
    return max(map(len, history.values()), default=0)
