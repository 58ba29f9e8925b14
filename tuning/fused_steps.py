"""An epoch of several trials of one structure as one compiled call, on JAX.

`jax.vmap` runs over weights, optimizer state, metrics, seeds, run-time values and the order of the
rows; the rows themselves are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tuning.lockstep import TrialThread
from tuning.loop import Batches
from tuning.runtime import Number, RuntimeNumbers
from tuning.sites import bind

if TYPE_CHECKING:
    from tuning.fused import FusedModels


@dataclass(frozen=True, kw_only=True)
class Job:
    """An epoch of training, or a test, of one trial.

    Attributes:
        model: The trial's model, which holds its state before and after.
        values: Its run-time values.
        training: Whether it is training.
        data: Arrays of n rows each.
        order: Rows in the order in which they are seen (n,).
        batch_size: Rows per step; the last batch may be smaller.
    """

    model: keras.Model
    values: Sequence[Number]
    training: bool
    data: Batches
    order: np.ndarray
    batch_size: int

    @property
    def batches(self) -> list[np.ndarray]:
        """The rows of the full batches (steps, batch_size), and of a smaller last one (1, rest)."""
        full = len(self.order) // self.batch_size * self.batch_size
        parts = (self.order[:full].reshape(-1, self.batch_size), self.order[None, full:])
        return [rows for rows in parts if rows.size]

    @property
    def shapes(self) -> tuple[Any, ...]:
        """What a compiled call depends on."""
        parts = [*keras.tree.flatten(self.data), *self.batches]
        return (self.training, *((tuple(part.shape), str(part.dtype)) for part in parts))

    def variables(self) -> list[list[Any]]:
        """Returns the variables that a step takes and gives back, grouped as Keras has them."""
        model = self.model
        groups = [model.trainable_variables, model.non_trainable_variables]
        groups += [model.optimizer.variables] if self.training else []
        return [list(group) for group in (*groups, model.metrics_variables)]

    def state(self) -> tuple[list[Any], ...]:
        """Returns the values of the variables."""
        return tuple([variable.value for variable in group] for group in self.variables())

    def assign(self, state: Any) -> None:
        """Sets the variables."""
        for group, values in zip(self.variables(), state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)


class FusedSteps:
    """The compiled epochs of one structure, for one trial and for several.

    Args:
        model: A model of the structure. Its code is compiled; its variables are left alone.
        numbers: The model's run-time values.
        report: Told in a line why trials of this structure are not trained together any more.
    """

    def __init__(
        self, model: keras.Model, numbers: RuntimeNumbers, report: Callable[[str], None]
    ) -> None:
        self._model = model
        self._numbers = numbers
        self._report = report
        self._compiled: dict[Any, tuple[Any, int]] = {}
        self._counts: dict[bool, int] = {}  # of the run-time values that a call reads
        self._widths: set[int] = set()  # numbers of trials that are compiled for
        self._measured: set[int] = set()
        self._pays = True

    def fit(self, values: Sequence[Number]) -> bool:
        """Returns whether what is compiled so far is right for a trial's run-time values."""
        return self._numbers.fit(values)

    def run(self, jobs: Sequence[Job]) -> list[Job]:
        """Does some of the jobs, which have equal shapes: all at once, or the first one.

        Returns:
            The jobs that are done. Those that do not `fit` after the call are for other steps; it
            may be all of them.

        Raises:
            Exception: The first one fails; none is done.
        """
        if self._pays and len(jobs) > 1:
            try:
                return self._run_together(jobs)
            except Exception as error:  # noqa: BLE001 - what vmap cannot do, or too much memory
                reason = (str(error).strip() or "no reason given").splitlines()[0]
                self._stop(f"{type(error).__name__}: {reason}")
        first = self._fitting(jobs[:1], width=1)
        for job in first:
            job.assign(self._call([job])[0][0])
        return first

    def _run_together(self, jobs: Sequence[Job]) -> list[Job]:
        # What was compiled for a few more serves as well.
        near = [width for width in self._widths if len(jobs) <= width <= 2 * len(jobs)]
        width = min(near, default=len(jobs))
        done = self._fitting(jobs, width)
        if not done:
            return done
        padded = [*done, *done[:1] * (width - len(done))]
        states, seconds = self._call(padded)
        if done[0].training and width not in self._measured:
            self._measured.add(width)
            self._measure(padded, len(done), seconds)
        for job, state in zip(done, states, strict=False):
            job.assign(state)
        return done

    def _fitting(self, jobs: Sequence[Job], width: int) -> list[Job]:
        """Returns the jobs that fit, once what they need is compiled."""
        fitting = [job for job in jobs if self.fit(job.values)]
        if fitting:
            self._function([*fitting, *fitting[:1] * (width - len(fitting))])
        return [job for job in fitting if self.fit(job.values)]

    def _measure(self, jobs: Sequence[Job], count: int, together: float) -> None:
        """Stops training trials together where one after the other takes less time."""
        single = self._call(jobs[:1])[1]
        if together > count * single:  # something else may have taken the time
            together = min(together, self._call(jobs)[1])
            single = min(single, self._call(jobs[:1])[1])
        if together > count * single:
            self._stop(
                f"an epoch of {count} trials at once takes {1000 * together:.1f} ms, one after "
                f"the other {1000 * count * single:.1f} ms"
            )

    def _stop(self, reason: str) -> None:
        self._pays = False
        self._report(f"trials of one structure go on unfused: {reason}")

    def _call(self, jobs: Sequence[Job]) -> tuple[Any, float]:
        """Returns the states of the jobs afterwards, and the seconds without compiling."""
        import jax

        function, count = self._function(jobs)
        arguments = self._arguments(jobs, count)
        began = perf_counter()
        states = jax.block_until_ready(function(*arguments))
        return states, perf_counter() - began

    def _function(self, jobs: Sequence[Job]) -> tuple[Any, int]:
        """Returns a compiled call, and how many run-time numbers it takes."""
        import jax

        key = (len(jobs), jobs[0].shapes)
        if key not in self._compiled:
            epoch = self._epoch(len(jobs), training=jobs[0].training)
            if jobs[0].training not in self._counts:
                arguments = self._arguments(jobs, 0)
                self._numbers.assign(jobs[0].values)
                with self._numbers.discover():  # traces without compiling
                    jax.eval_shape(epoch, *arguments)
                self._counts[jobs[0].training] = len(self._numbers.arrays())
            count = self._counts[jobs[0].training]
            arguments = self._arguments(jobs, count)
            self._numbers.assign(jobs[0].values)  # which what is traced shall fit
            self._compiled[key] = jax.jit(epoch).lower(*arguments).compile(), count
            self._widths.add(len(jobs))
        return self._compiled[key]

    def _arguments(self, jobs: Sequence[Job], count: int) -> tuple[Any, ...]:
        arrays = []
        for job in jobs:
            self._numbers.assign(job.values)
            arrays.append(self._numbers.arrays()[:count])
        first = jobs[0]
        batches = first.batches
        if first.training:
            batches = [np.stack(rows) for rows in zip(*(job.batches for job in jobs), strict=True)]
        numbers = [np.stack(column) for column in zip(*arrays, strict=True)]
        return [job.state() for job in jobs], numbers, first.data, batches

    def _epoch(self, width: int, *, training: bool) -> Callable[..., Any]:
        """Returns the function of an epoch; its states come and go trial by trial."""
        import jax

        step = self._model.train_step if training else self._model.test_step

        def one(state: Any, numbers: Any, data: Batches, batches: Any) -> Any:
            def body(state: Any, chosen: Any) -> tuple[Any, None]:
                _, state = step(state, keras.tree.map_structure(lambda a: a[chosen], data))
                return state, None

            with self._numbers.as_arguments(numbers):
                for rows in batches:
                    state, _ = jax.lax.scan(body, state, rows)
            return state

        def several(states: Any, numbers: Any, data: Batches, batches: Any) -> Any:
            if width == 1:
                chosen = [rows[0] for rows in batches] if training else batches
                return [one(states[0], [number[0] for number in numbers], data, chosen)]
            axes = (0, 0, None, 0 if training else None)
            stacked = jax.tree.map(lambda *parts: jax.numpy.stack(parts), *states)
            after = jax.vmap(one, axes)(stacked, numbers, data, batches)
            return [jax.tree.map(lambda part, i=i: part[i], after) for i in range(width)]

        return several


@dataclass(kw_only=True)
class FusedLoop:
    """The epochs of one trial among several, in place of a `tuning.loop.JaxLoop`.

    Attributes:
        thread: The trial's thread.
        model: Its model, which holds its state between two epochs.
        values: Its run-time values.
        key: The fingerprint of its model.
        models: The compiled epochs of all structures.
        numbers: The model's run-time numbers; None before its first epoch.
        steps: The compiled epochs that are right for it; None before its first epoch.
    """

    thread: TrialThread
    model: keras.Model
    values: list[Number]
    key: Hashable
    models: FusedModels
    numbers: RuntimeNumbers | None = None
    steps: FusedSteps | None = None

    def choose(self) -> None:
        """Takes the compiled epochs that are right for the trial's values."""
        if self.numbers is None:
            # Not before its first epoch: a tracing of Keras' own would pin the values.
            self.numbers = bind(self.model)
        model = self.model
        # An optimizer without momentum has fewer variables.
        shapes = [tuple(v.shape) for v in (*model.variables, *model.optimizer.variables)]
        self.steps = self.models.steps((self.key, *shapes), self.values, model, self.numbers)

    def train(
        self, data: Batches, order: np.ndarray, batch_size: int, _: None = None
    ) -> dict[str, float]:
        """Trains one epoch, as `JaxLoop.train`; there are no hooks around batches."""
        if self.steps is None:
            self.choose()
        return self._wait(training=True, data=data, order=order, batch_size=batch_size)

    def test(self, data: Batches, batch_size: int, _: None = None) -> dict[str, float]:
        """Evaluates on all rows in their order, as `JaxLoop.test`."""
        order = np.arange(len(keras.tree.flatten(data)[0]), dtype="int32")
        return self._wait(training=False, data=data, order=order, batch_size=batch_size)

    def _wait(self, **request: Any) -> dict[str, float]:
        self.model.reset_metrics()
        self.thread.wait_for(Job(model=self.model, values=self.values, **request))
        logs: Mapping[str, Any] = self.model.get_metrics_result()
        return {name: float(value) for name, value in logs.items()}
