"""Compiled models that serve more than one trial.

Building a Keras model is cheap, tracing and compiling its training step is not. `CompiledModels`
keeps the models of the last few structures. A trial that builds a model of a known structure gets
the compiled one, with the fresh model's weights and run-time values and all other state reset: the
results are, bit for bit, those of the fresh model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tuning.fingerprint import NotReusableError, fingerprint
from tuning.runtime import RuntimeNumbers
from tuning.sites import bind, optimizers, sites

MOST_STALE = 8  # dropped models whose prepared kernels stay in memory


@dataclass
class CompiledModel:
    """A model whose compiled steps can serve other trials.

    Attributes:
        model: The model.
        numbers: Its run-time values; None if it serves only the trial that built it.
        loop: Place for what else is compiled for it.
    """

    model: keras.Model
    numbers: RuntimeNumbers | None = None
    loop: Any = None
    _slots: list[np.ndarray] = field(default_factory=list)  # the optimizer's first values

    def __post_init__(self) -> None:
        self._compilation = getattr(self.model, "_compile_config", None)
        self._trainable = _trainable(self.model)

    def recompiled(self) -> bool:
        """Returns whether the model was compiled once more, for example to be fine-tuned."""
        return getattr(self.model, "_compile_config", None) is not self._compilation

    def changed(self) -> bool:
        """Returns whether a trial's own code compiled or froze the model, so that it is another."""
        return self.recompiled() or _trainable(self.model) != self._trainable

    def load(self, fresh: keras.Model) -> None:
        """Takes over the weights and run-time values of a fresh model; resets all else."""
        for mine, its in zip(_layers(self.model), _layers(fresh), strict=True):
            for variable, value in zip(_own_variables(mine), _own_variables(its), strict=False):
                variable.assign(value)
        self._load_optimizer(fresh)
        self.model.reset_metrics()
        self.model.stop_training = False
        if self.numbers is not None:
            self.numbers.assign([place.value for place in sites(fresh)])

    def remember_optimizer(self) -> None:
        """Builds the optimizer and notes its first values."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        self._slots = [_compact(np.asarray(v)) for v in optimizer.variables]

    def _load_optimizer(self, fresh: keras.Model) -> None:
        if any(optimizer.use_ema for optimizer in optimizers(fresh)):  # begins with the weights
            fresh.optimizer.build(fresh.trainable_variables)
        for slot, variable in zip(self._slots, self.model.optimizer.variables, strict=True):
            variable.assign(np.broadcast_to(slot, variable.shape))
        for mine, its in zip(optimizers(self.model), optimizers(fresh), strict=True):
            # All, or those that an optimizer has before it is built: the rate and the step.
            for variable, value in zip(mine._variables, its._variables, strict=False):
                variable.assign(value)


class CompiledModels:
    """The compiled models of the structures that were used last.

    Args:
        size: How many to keep; 0 compiles every trial anew.

    Attributes:
        hits: Trials that were given a compiled model.
        misses: Trials that were the first of their structure.
        reasons: Why trials could not take part, each with the number of trials.
    """

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, list[CompiledModel]] = OrderedDict()
        self.hits = 0
        self.misses = 0
        self.reasons: dict[str, int] = {}
        self._gone = 0  # compiled models that were dropped since `is_stale`
        self._added = 0  # compiled models that were kept since `has_grown`

    def is_stale(self) -> bool:
        """Returns whether what TensorFlow prepared for models that are gone should be dropped."""
        stale = self._gone >= MOST_STALE
        if stale:
            self._gone = 0
        return stale

    def has_grown(self) -> bool:
        """Returns whether a model was compiled to be kept since this was asked last."""
        grown, self._added = self._added > 0, 0
        return grown

    def adopt(self, fresh: keras.Model) -> CompiledModel:
        """Returns a compiled model that trains as the fresh one would.

        Args:
            fresh: A built and compiled model, just initialised.
        """
        if not self._size:
            self._gone += 1
            return CompiledModel(fresh)
        try:
            key = fingerprint(fresh)
        except NotReusableError as error:
            self.reasons[str(error)] = self.reasons.get(str(error), 0) + 1
            self._gone += 1
            return CompiledModel(fresh)
        values = [place.value for place in sites(fresh)]
        for known in list(self._entries.get(key, ())):
            if known.changed():
                self._entries[key].remove(known)
            elif known.numbers is not None and known.numbers.fit(values):
                known.load(fresh)
                self._entries.move_to_end(key)
                self.hits += 1
                return known
        self.misses += 1
        return self._add(key, fresh)

    def _add(self, key: Hashable, fresh: keras.Model) -> CompiledModel:
        compiled = CompiledModel(fresh, bind(fresh))
        compiled.remember_optimizer()
        self._added += 1
        self._entries.setdefault(key, []).append(compiled)
        self._entries.move_to_end(key)
        while sum(map(len, self._entries.values())) > self._size:
            oldest = next(iter(self._entries))
            self._entries[oldest].pop(0)
            self._gone += 1
            if not self._entries[oldest]:
                del self._entries[oldest]
        return compiled


def _trainable(model: keras.Model) -> list[bool]:
    return [layer.trainable for layer in _layers(model)]


def _layers(model: keras.Model) -> list[Any]:
    return list(model._flatten_layers())


def _own_variables(layer: Any) -> list[Any]:
    # A fresh dropout of rate 0 has no seed generator; the compiled one's then keeps its state,
    # which changes nothing at rate 0.
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    return [*own, *(generator.state for generator in layer._seed_generators)]


def _compact(array: np.ndarray) -> np.ndarray:
    """Returns one element where all are equal, to hold no second copy of large zeros."""
    first = array.reshape(-1)[:1]
    return first.reshape(()) if array.size and (array == first).all() else array
