"""A small model and its data, at module level so that worker processes find them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np


def rows(count: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Returns x (count, 4) and labels of 2 classes that x tells."""
    x = np.random.default_rng(0).normal(size=(count, 4)).astype("float32")
    return x, (x[:, 0] > 0).astype("int32")


def build(hp: Any) -> keras.Model:
    """Returns a compiled model, whose number of hyperparameters depends on one of them."""
    layers = [
        keras.layers.Dense(hp.Choice(f"units_{i}", [3, 5]), activation="relu")
        for i in range(hp.Int("depth", 1, 2))
    ]
    rate = hp.Float("dropout", 0.1, 0.5)
    model = keras.Sequential(
        [keras.Input((4,)), *layers, keras.layers.Dropout(rate), keras.layers.Dense(2)]
    )
    model.compile(
        keras.optimizers.Adam(hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


class Killer(keras.callbacks.Callback):
    """Kills its process in an epoch, once, or every time.

    Args:
        marker: File that says that it has done so.
        again: Kill every time.
    """

    def __init__(self, marker: Path, *, again: bool = False) -> None:
        super().__init__()
        self._marker = marker
        self._again = again

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Kills in the third epoch."""
        if epoch == 2 and (self._again or not self._marker.exists()):
            self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Killed(keras_tuner.HyperModel):
    """The model, whose trials of depth 2 kill their process every time."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self._marker = marker

    def build(self, hp: Any) -> keras.Model:
        """Returns the compiled model."""
        return build(hp)

    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Trains it."""
        if hp.get("depth") == 2:
            kwargs["callbacks"] = [Killer(self._marker, again=True)]
        return model.fit(*args, **kwargs)
