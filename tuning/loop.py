"""Epochs over arrays, in one compiled call each or batch by batch.

`keras.Model.fit` returns to Python after every batch, which it takes out of a data pipeline. For
arrays in memory a whole epoch, or a whole validation, can be one call: the batches are gathered
inside the graph. The same graph serves calls of one batch, for callbacks that look at every batch.
The steps are the model's own `train_step` and `test_step`, so losses, metrics and updates are those
of `fit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

from tuning.runtime import RuntimeNumbers

Batches: TypeAlias = tuple[Any, ...]  # (x, y) or (x, y, sample_weight), each a tree of tensors


def as_tensors(data: Any) -> Any:
    """Returns a tree of arrays as tensors, floating-point ones in Keras' default precision."""

    def convert(array: Any) -> Any:
        array = np.asarray(array)
        if np.issubdtype(array.dtype, np.floating):
            array = array.astype(keras.config.floatx(), copy=False)
        return keras.ops.convert_to_tensor(array)

    return keras.tree.map_structure(convert, data)


def epoch_loop(model: keras.Model, numbers: RuntimeNumbers | None) -> EpochLoop:
    """Returns the loop of the present backend.

    Args:
        model: A compiled model.
        numbers: Its run-time values, if it has any.
    """
    if keras.backend.backend() == "jax":
        return JaxLoop(model, numbers)
    return TensorFlowLoop(model)


@dataclass(frozen=True, kw_only=True)
class BatchHooks:
    """What is to be done around each batch, as by Keras' callbacks.

    Attributes:
        begin: Called with the number of the batch, counted from 0.
        end: Called with the number and the metrics so far.
        is_over: Returns whether the epoch ends with this batch.
        steps: Batches per call; the numbers are those of its first one and of its last one, which
            may not be there in the last call. So Keras has it.
    """

    begin: Callable[[int], None]
    end: Callable[[int, Mapping[str, float]], None]
    is_over: Callable[[], bool]
    steps: int = 1


class Span(NamedTuple):
    """A part of an epoch's order, cut into batches."""

    start: int
    stop: int
    batch_size: int


class EpochLoop:
    """Epochs of a model.

    Args:
        model: A compiled model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model

    def train(
        self, data: Batches, order: np.ndarray, batch_size: int, hooks: BatchHooks | None = None
    ) -> dict[str, float]:
        """Trains one epoch.

        Args:
            data: Arrays of n rows each.
            order: Rows in the order in which they are seen (n,).
            batch_size: Rows per step; the last batch may be smaller.
            hooks: What is to be done around each batch; None runs them all in one call.

        Returns:
            The metrics.
        """
        return self._epoch(data, order, batch_size, hooks, training=True)

    def test(
        self, data: Batches, batch_size: int, hooks: BatchHooks | None = None
    ) -> dict[str, float]:
        """Evaluates on all rows in their order."""
        order = np.arange(len(keras.tree.flatten(data)[0]), dtype="int32")
        return self._epoch(data, order, batch_size, hooks, training=False)

    def _epoch(
        self,
        data: Batches,
        order: np.ndarray,
        batch_size: int,
        hooks: BatchHooks | None,
        *,
        training: bool,
    ) -> dict[str, float]:
        self._model.reset_metrics()
        rows = len(order)
        if hooks is None:
            return self._run(data, order, Span(0, rows, batch_size), training=training)
        logs: dict[str, float] = {}
        for start in range(0, rows, batch_size * hooks.steps):
            span = Span(start, min(start + batch_size * hooks.steps, rows), batch_size)
            number = start // batch_size
            hooks.begin(number)
            logs = self._run(data, order, span, training=training)
            hooks.end(number + hooks.steps - 1, logs)
            if hooks.is_over():
                break
        return logs

    def _run(
        self, data: Batches, order: np.ndarray, span: Span, *, training: bool
    ) -> dict[str, float]:
        """Runs the batches of a span of the order; returns the metrics since they were reset."""
        raise NotImplementedError


class TensorFlowLoop(EpochLoop):
    """Epochs of a model as two TensorFlow functions, which serve any number and size of batches.

    Args:
        model: A compiled model.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        import tensorflow as tf

        self._train = tf.function(self._loop(model.train_step), reduce_retracing=True)
        self._test = tf.function(self._loop(model.test_step), reduce_retracing=True)
        for function in (self._train, self._test):  # each model has its own
            function._omit_frequent_tracing_warning = True

    def _run(
        self, data: Batches, order: np.ndarray, span: Span, *, training: bool
    ) -> dict[str, float]:
        import tensorflow as tf

        run = self._train if training else self._test
        logs = run(data, tf.constant(order), *map(tf.constant, span))
        return {name: float(value) for name, value in logs.items()}

    def _loop(self, step: Callable[..., Any]) -> Callable[..., Any]:
        import tensorflow as tf

        model = self._model
        compiled = tf.function(step, jit_compile=True) if model.jit_compile else step

        def run(data: Batches, order: Any, start: Any, stop: Any, batch_size: Any) -> Any:
            def body(start: Any) -> tuple[Any]:
                chosen = order[start : tf.minimum(start + batch_size, stop)]
                compiled(keras.tree.map_structure(lambda a: tf.gather(a, chosen), data))
                return (start + batch_size,)

            tf.while_loop(lambda start: start < stop, body, (start,), parallel_iterations=1)
            return model.get_metrics_result()

        unconverted: Callable[..., Any] = tf.autograph.experimental.do_not_convert(run)
        return unconverted


class JaxLoop(EpochLoop):
    """Epochs of a model as JAX functions: one scan over the full batches, one step for the rest.

    They are compiled once per batch size. The state of the model stays in its variables between
    two calls.

    Args:
        model: A compiled model.
        numbers: Its run-time values, if it has any.
    """

    def __init__(self, model: keras.Model, numbers: RuntimeNumbers | None) -> None:
        super().__init__(model)
        self._numbers = numbers or RuntimeNumbers([])
        self._functions: dict[bool, tuple[Any, int]] = {}

    def _run(
        self, data: Batches, order: np.ndarray, span: Span, *, training: bool
    ) -> dict[str, float]:
        model = self._model
        variables = self._variables(training=training)
        state = tuple([v.value for v in group] for group in variables)
        start, stop, size = span
        full = stop - (stop - start) % size
        for rows in (order[start:full].reshape(-1, size), order[full:stop].reshape(1, -1)):
            if rows.size:
                function, count = self._function(state, data, rows, training=training)
                state = function(state, self._numbers.arrays()[:count], data, rows)
        for group, values in zip(variables, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        logs: Mapping[str, Any] = model.get_metrics_result()
        return {name: float(value) for name, value in logs.items()}

    def _variables(self, *, training: bool) -> tuple[list[Any], ...]:
        model = self._model
        groups = [model.trainable_variables, model.non_trainable_variables]
        if training:
            groups.append(model.optimizer.variables)
        return (*(list(group) for group in groups), list(model.metrics_variables))

    def _function(
        self, state: Any, data: Batches, rows: np.ndarray, *, training: bool
    ) -> tuple[Any, int]:
        """Returns the function, and how many of the run-time values it takes."""
        import jax

        if training not in self._functions:
            run = self._scan(training=training)
            with self._numbers.discover():  # traces without compiling
                jax.eval_shape(run, state, [], data, rows)
            count = len(self._numbers.arrays())
            self._functions[training] = jax.jit(run, donate_argnums=0), count
        return self._functions[training]

    def _scan(self, *, training: bool) -> Callable[..., Any]:
        import jax

        model = self._model
        step = model.train_step if training else model.test_step

        def run(state: Any, arrays: Any, data: Batches, rows: Any) -> Any:
            def body(state: Any, chosen: Any) -> tuple[Any, None]:
                batch = keras.tree.map_structure(lambda a: a[chosen], data)
                _, state = step(state, batch)
                return state, None

            with self._numbers.as_arguments(arrays):
                return jax.lax.scan(body, state, rows)[0]

        return run
