"""Searches that train several trials of one structure at the same time, on JAX.

A trial runs the code of a single trial, in turns with others. Where it would train or validate for
an epoch it waits; the trials of one structure that wait are then trained in one compiled call.
Recording, resuming and stopping are those of a single trial, and so are its numbers, to the
precision of floats. Which trials are tried at the same time depends on the events of the search
alone, so that a search that was interrupted goes on as it would have.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

import keras

from tuning.engine import TrainingEngine, TrialFit, TrialRun
from tuning.fingerprint import NotReusableError, fingerprint
from tuning.fused_steps import FusedLoop, FusedSteps
from tuning.lockstep import TrialThread
from tuning.reuse import CompiledModel, CompiledModels
from tuning.runtime import Number, RuntimeNumbers
from tuning.sites import sites

if TYPE_CHECKING:
    from tuning.tuner import EngineTuner

# Over several kernels, vmap makes grouped convolutions of a convolution.
SLOW_ON_CPU = tuple(
    getattr(keras.layers, name)
    for name in (
        *(f"Conv{n}D{kind}" for n in (1, 2, 3) for kind in ("", "Transpose")),
        *(f"{kind}Conv{n}D" for n in (1, 2) for kind in ("Depthwise", "Separable")),
        *("RNN", "Bidirectional"),
    )
)


def search_fused(tuner: EngineTuner, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Runs the trials of a tuner, up to `tuner.fused` at a time; if that cannot be, one by one."""
    reason = _refusal(tuner)
    if reason is None:
        _FusedSearch(tuner, args, kwargs).run()
    else:
        tuner.progress.line(f"fused trials are off: {reason}")
    tuner._search_here(args, kwargs)


def _refusal(tuner: EngineTuner) -> str | None:
    """Returns why no trial of a tuner can be fused, or None."""
    if keras.backend.backend() != "jax":
        return f"fused trials need the JAX backend; this is {keras.backend.backend()}"
    rules = {
        "executions_per_trial=1": tuner.executions_per_trial == 1,
        "a tuner without a run_trial of its own": not tuner.has_own_run_trial(),
        "training by keras.Model.fit alone": tuner.runner.plain_fit,
        "whole_epochs=True": tuner.engine_options["whole_epochs"],
        "compiled_models above 0": tuner.engine_options["compiled_models"] > 0,
        "a model on one device": keras.distribution.distribution() is None,
    }
    missing = [rule for rule, holds in rules.items() if not holds]
    return f"fused trials need {missing[0]}" if missing else None


class NotFusedError(BaseException):
    """A trial that must run alone; not for what handles the errors of a training."""


class _FusedSearch:
    """Asks for trials, lets them run in turns, and trains together those that wait alike."""

    def __init__(self, tuner: EngineTuner, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._tuner = tuner
        self._train: Callable[[Any], Any] = lambda trial: tuner.run_trial(trial, *args, **kwargs)
        self._threads: list[TrialThread] = []
        self._refused = False
        if not isinstance(tuner.runner.engine, FusedEngine):
            tuner.runner.engine = FusedEngine(tuner.progress.line, **tuner.engine_options)

    def run(self) -> None:
        """Runs until there is no trial any more, the time is up, or a model cannot be fused."""
        try:
            while not self._refused:
                self._ask()
                if not self._threads:
                    return
                self._settle()
                while self._threads:
                    self._serve()
                    self._settle()
        finally:
            for thread in self._threads:
                thread.cancel()

    def _ask(self) -> None:
        """Asks for trials and lets each run to where it would train."""
        tuner, oracle = self._tuner, self._tuner.oracle
        most = tuner.fused
        if oracle.interrupted and not self._was_asking():
            most = min(most, len(oracle.interrupted))
        while len(self._threads) < most and not self._refused and not tuner.out_of_time():
            tuner.pre_create_trial()
            trial = oracle.create_trial(tuner.tuner_id)
            if trial.status != "RUNNING":
                return
            tuner.trial_began(trial)
            thread = TrialThread(trial, functools.partial(self._train, trial))
            self._threads.append(thread)
            thread.resume()  # the next suggestion may depend on the space its model declares
            if isinstance(thread.error, NotFusedError):
                self._refused = True
                tuner.progress.line(f"fused trials are off: {thread.error}")

    def _was_asking(self) -> bool:
        """Returns whether the search was interrupted when it had asked for a part of the trials."""
        asked = 0
        for event in self._tuner._journal.read():
            if event["event"] == "start":
                asked += 1
            elif event["event"] not in ("declare", "space"):
                asked = 0
        return 0 < asked < self._tuner.fused

    def _settle(self) -> None:
        """Records the trials that have ended, and runs those that must run alone."""
        for thread in [thread for thread in self._threads if thread.request is None]:
            self._threads.remove(thread)
            if isinstance(thread.error, NotFusedError):
                self._tuner._settle(thread.trial, functools.partial(self._train, thread.trial))
            else:
                self._tuner._settle(thread.trial, thread.result, thread.seconds)

    def _serve(self) -> None:
        """Trains or tests the first trial, and those that wait for the same."""
        kind, first = self._kind(self._threads[0]), self._threads[0]
        alike = {id(t.request): t for t in self._threads if self._kind(t) == kind}
        steps = first.loop.steps
        keras.config.set_dtype_policy(self._tuner.runner.policy)  # building models sets it back
        began = monotonic()
        try:
            jobs = steps.run([thread.request for thread in alike.values()])
        except Exception as error:  # noqa: BLE001 - it is the trial's
            first.resume(error)
            return
        for thread in alike.values():
            if not steps.fit(thread.request.values):
                thread.loop.choose()
        share = (monotonic() - began) / max(len(jobs), 1)
        for job in jobs:
            thread = alike[id(job)]
            thread.seconds += share
            thread.resume()

    def _kind(self, thread: TrialThread) -> tuple[Any, ...]:
        span = self._tuner.oracle._spans[thread.trial.trial_id]
        return id(thread.loop.steps), span, thread.request.shapes


class FusedModels(CompiledModels):
    """The compiled epochs of the structures that were used last; for trials alone, as its base."""

    def __init__(self, size: int, report: Callable[[str], None]) -> None:
        super().__init__(size)
        self._report = report
        self._steps: OrderedDict[Hashable, list[FusedSteps]] = OrderedDict()
        self._models: list[tuple[Hashable, CompiledModel]] = []

    def adopt(self, fresh: keras.Model) -> CompiledModel:
        """Returns the model itself with a loop of its own, if a `TrialThread` asks."""
        thread = threading.current_thread()
        if not isinstance(thread, TrialThread):
            return super().adopt(fresh)
        _check_layers(fresh)
        try:
            key = fingerprint(fresh)
        except NotReusableError as error:
            raise NotFusedError(f"the model cannot be fused: {error}") from error
        values = [place.value for place in sites(fresh)]
        compiled = self._model(fresh, (key, *map(bool, values)))
        thread.loop = FusedLoop(
            thread=thread,
            model=compiled.model,
            values=values,
            key=key,
            models=self,
            numbers=compiled.numbers,
        )
        compiled.loop = thread.loop
        return compiled

    def _model(self, fresh: keras.Model, kind: Hashable) -> CompiledModel:
        """Returns the model of an ended trial, in the fresh one's state, or else the fresh one.

        What Keras makes for a model's first training takes longer than a small model's epoch.

        Args:
            fresh: The model of a trial.
            kind: What equal models share; what is 0 too, on which an optimizer's variables depend.
        """
        for known, compiled in self._models:
            if known == kind and not compiled.loop.thread.is_alive() and not compiled.changed():
                compiled.numbers = compiled.loop.numbers
                compiled.load(fresh)
                return compiled
        compiled = CompiledModel(fresh)
        compiled.remember_optimizer()
        free = [entry for entry in self._models if not entry[1].loop.thread.is_alive()]
        for entry in free[: max(0, len(self._models) + 1 - self._size)]:
            self._models.remove(entry)
        self._models.append((kind, compiled))
        return compiled

    def steps(
        self, key: Hashable, values: Sequence[Number], model: keras.Model, numbers: RuntimeNumbers
    ) -> FusedSteps:
        """Returns the compiled epochs that are right for a trial, if need be of its own model."""
        known = self._steps.setdefault(key, [])
        self._steps.move_to_end(key)
        for steps in known:
            if steps.fit(values):
                self.hits += 1
                return steps
        self.misses += 1
        known.append(FusedSteps(model, numbers, self._report))
        while sum(map(len, self._steps.values())) > self._size:
            oldest = next(iter(self._steps))
            self._steps[oldest].pop(0)
            if not self._steps[oldest]:
                del self._steps[oldest]
        return known[-1]


class FusedEngine(TrainingEngine):
    """What trials share, those in turns and those alone.

    Args:
        report: Told, in a line, why trials are not fused any more.
        **options: As of `TrainingEngine`.
    """

    def __init__(self, report: Callable[[str], None], **options: Any) -> None:
        super().__init__(**options)
        self.compiled = FusedModels(options["compiled_models"], report)

    def prepare(self, fresh: keras.Model, run: TrialRun, batch: Any = None) -> keras.Model:
        """Returns the model to train in place of one that was just built."""
        model = super().prepare(fresh, run, batch)
        thread = threading.current_thread()
        if isinstance(thread, TrialThread):
            if thread.loop is None:
                raise NotFusedError("fused trials need compiled models of a known input shape")
            report = run.report
            run.report = lambda epoch, logs, _: report(epoch, logs, thread.lap())
            model.fit = FusedFit(self, model.fit._compiled, run)
        return model


class FusedFit(TrialFit):
    """`fit` of a trial that trains whole epochs, or alone."""

    def _batches(self, *_: Any, **__: Any) -> dict[str, Any]:
        raise NotFusedError("the data of the training comes in batches")

    def _whole_epochs(self, callbacks: Iterable[Any]) -> bool:
        if not super()._whole_epochs(callbacks):
            raise NotFusedError("a callback of the training asks for single batches")
        return True


def _check_layers(model: keras.Model) -> None:
    import jax

    slow = [layer for layer in model._flatten_layers() if isinstance(layer, SLOW_ON_CPU)]
    if slow and jax.default_backend() == "cpu":
        kind = type(slow[0]).__name__
        raise NotFusedError(f"on a CPU, several models with a {kind} at once are slower than one")
