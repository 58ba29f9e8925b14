"""What lies between two trials: garbage, and what is set aside from looking for it."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import keras
import numpy as np

import tuning
from tuning.reuse import MOST_STALE
from tuning.session import begin_trial, trials


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def begin(*, keep_kernels: bool = True, grown: bool = False) -> None:
    begin_trial([0], keras.config.dtype_policy(), keep_kernels=keep_kernels, grown=grown)


def test_what_a_kept_model_holds_is_not_looked_at_again() -> None:
    with trials():
        begin()
        kept = [Cycle() for _ in range(1000)]
        begin()
        before = len(gc.get_objects())
        begin(grown=True)
        assert len(gc.get_objects()) < before - len(kept)
    assert len(gc.get_objects()) > before  # all is looked at once the search is over


def test_what_is_gone_is_freed_though_it_was_set_aside() -> None:
    with trials():
        kept = [Cycle()]
        gone = weakref.ref(kept[0])
        begin(grown=True)
        kept.clear()
        begin()
        assert gone() is not None
        begin(keep_kernels=False)
        assert gone() is None


def test_dropped_models_are_freed_during_a_search(tmp_path: Path) -> None:
    models: list[weakref.ref[keras.Model]] = []

    def build(hp: tuning.HyperParameters) -> keras.Model:
        units = hp.Int("units", 1, 30)  # each a structure of its own
        layers = [keras.Input((2,)), keras.layers.Dense(units), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile("sgd", "mse")
        models.append(weakref.ref(model))
        return model

    tuner = tuning.GridSearch(
        build, "loss", max_trials=3 * MOST_STALE, directory=tmp_path, compiled_models=1, quiet=True
    )
    tuner.search(np.ones((4, 2)), np.ones((4, 1)), epochs=1)
    assert len(models) > 3 * MOST_STALE
    assert sum(model() is not None for model in models) < 2 * MOST_STALE
