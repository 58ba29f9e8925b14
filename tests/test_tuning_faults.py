"""Trials that diverge, run out of memory or raise, in real training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

import tuning
from tuning import TuningResult, tune
from tuning.data import class_weights
from tuning.runner import is_out_of_memory

pytestmark = pytest.mark.tensorflow

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("int64")
DATA = {"x": X, "y": Y, "validation_data": (X, Y), "verbose": 0}


def build(hp: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
    optimizer = keras.optimizers.SGD(hp.Choice("lr", [0.01, 0.02, 0.04]))
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    return model


class Callback(keras.callbacks.Callback):
    """Calls a function at the end of each epoch; the same one for all trainings."""

    def __init__(self, at: Any) -> None:
        super().__init__()
        self.at = (at,)

    def __deepcopy__(self, memo: object) -> Callback:
        return self

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.at[0](self, epoch, logs)


def tuner_of(tmp_path: Path, **options: Any) -> Any:
    options = {"max_trials": 2, "seed": 1, "directory": tmp_path} | options
    return tuning.RandomSearch(build, "val_loss", **options)


# --- numbers that are none --------------------------------------------------------------------


def test_a_diverged_training_fails_with_its_reason(tmp_path: Path) -> None:
    x = X.copy()
    x[3, 1] = np.nan
    tuner = tuner_of(tmp_path)
    tuner.search(x, Y, validation_data=(X, Y), epochs=3, verbose=0)
    for trial in tuner.oracle.trials.values():
        assert trial.status == "FAILED"
        assert trial.message == "loss is nan in epoch 1"


def test_a_retry_begins_anew_with_another_seed(tmp_path: Path) -> None:
    firsts: list[np.ndarray] = []

    class Begins(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            firsts.append(self.model.get_weights()[0])

    def once(callback: Any, epoch: int, logs: Any) -> None:
        if len(firsts) == 1 and epoch == 1:
            logs["val_loss"] = float("nan")

    tuner = tuner_of(tmp_path, max_trials=1, max_retries_per_trial=1)
    tuner.search(**DATA, epochs=3, callbacks=[Begins(once)])
    (trial,) = tuner.oracle.trials.values()
    assert (trial.status, trial.message) == ("COMPLETED", None)
    assert tuner.oracle.retries == {"0000": 1}
    assert len(firsts) == 2
    assert not np.array_equal(firsts[0], firsts[1])
    assert len(tuner.oracle.histories["0000"]["val_loss"]) == 3
    assert np.isfinite(trial.score)


def test_an_exception_of_the_user_s_fails_its_trial_alone(tmp_path: Path) -> None:
    calls: list[int] = []

    def raises(callback: Any, epoch: int, logs: Any) -> None:
        calls.append(epoch)
        if len(calls) == 2:
            raise ZeroDivisionError("of my own")

    tuner = tuner_of(tmp_path, max_trials=3)
    tuner.search(**DATA, epochs=2, callbacks=[Callback(raises)])
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    assert statuses == ["FAILED", "COMPLETED", "COMPLETED"]
    assert tuner.oracle.trials["0000"].message == "ZeroDivisionError: of my own"
    assert "0000" not in {trial.trial_id for trial in tuner.oracle.get_best_trials(2)}


# --- memory -----------------------------------------------------------------------------------


def exhausted(callback: Any, epoch: int, logs: Any) -> None:
    """Has room for eight rows at a time."""
    if callback.params["steps"] < len(X) / 8:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


class Sized(keras_tuner.HyperModel):
    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def build(self, hp: Any) -> keras.Model:
        hp.Fixed("batch_size", 32)
        return build(hp)

    def fit(self, hp: Any, model: keras.Model, *args: Any, **options: Any) -> Any:
        def raises(callback: Any, epoch: int, logs: Any) -> None:
            if epoch == 1 and callback.params["steps"] < len(X) / self.room:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

        options["callbacks"] = [*options["callbacks"], Callback(raises)]
        return model.fit(*args, batch_size=hp.get("batch_size"), **options)


def found(room: int, data: Any = None) -> TuningResult:
    data = (X, Y) if data is None else data
    return tune(Sized(room), data, (X, Y), trials=2, max_epochs=3, algorithm="random", quiet=True)


def test_batches_are_halved_until_they_fit(tmp_path: Path) -> None:
    tuner = tuner_of(tmp_path)
    tuner.search(**DATA, epochs=2, batch_size=32, callbacks=[Callback(exhausted)])
    notes = [
        f"out of memory; tried again with {share} batches" for share in ("half the", "1/4 of the")
    ]
    for name, trial in tuner.oracle.trials.items():
        assert (trial.status, trial.message) == ("COMPLETED", None)
        assert tuner.oracle.notes[name] == notes
        assert len(tuner.oracle.histories[name]["val_loss"]) == 2
    again = tuner_of(tmp_path)
    assert again.oracle.notes == tuner.oracle.notes


def test_an_interrupted_trial_goes_on_with_the_batches_that_fit(tmp_path: Path) -> None:
    steps: list[int] = []

    def watched(callback: Any, epoch: int, logs: Any) -> None:
        steps.append(callback.params["steps"])
        exhausted(callback, epoch, logs)

    def interrupts(callback: Any, epoch: int, logs: Any) -> None:
        exhausted(callback, epoch, logs)
        if epoch == 2:
            raise KeyboardInterrupt

    options = {**DATA, "epochs": 4, "batch_size": 32}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = tuner_of(whole, max_trials=1)
    expected.search(**options, callbacks=[Callback(exhausted)])
    with pytest.raises(KeyboardInterrupt):
        tuner_of(cut, max_trials=1).search(**options, callbacks=[Callback(interrupts)])
    tuner = tuner_of(cut, max_trials=1)
    tuner.search(**options, callbacks=[Callback(watched)])
    assert steps == [len(X) // 8] * 2  # the third and the fourth epoch, at once in small batches
    assert tuner.oracle.histories == expected.oracle.histories


@pytest.mark.parametrize("kind", ["arrays", "data set"])
def test_a_halved_trial_equals_one_of_half_the_batch(kind: str) -> None:
    data: Any = None
    if kind == "data set":
        data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
    halved = found(16, data)
    assert list(halved.leaderboard().status) == ["completed"] * 2
    assert halved.summary().trials[0].reason == "out of memory; tried again with half the batches"

    class Small(Sized):
        def build(self, hp: Any) -> keras.Model:
            hp.Fixed("batch_size", 16)
            return build(hp)

    small = tune(Small(16), (X, Y), (X, Y), trials=2, max_epochs=3, algorithm="random", quiet=True)
    if kind == "arrays":
        assert halved.histories == small.histories
    lengths = {len(curve) for history in halved.histories.values() for curve in history.values()}
    assert lengths == {3}


def test_a_loop_of_one_s_own_has_no_batches_to_halve() -> None:
    built: list[bool] = []

    class Loop(keras_tuner.HyperModel):
        def build(self, hp: Any) -> keras.Model:
            built.append(True)
            return build(hp)

        def fit(self, hp: Any, model: keras.Model, *args: Any, **options: Any) -> float:
            if len(built) < 3:
                raise MemoryError("too large")
            return 1.0

    result = tune(Loop(), (X, Y), None, trials=3, algorithm="random", quiet=True)
    assert set(result.failures.values()) <= {"MemoryError: too large"}
    assert len(built) <= 4  # once per trial, and once to learn of the space


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (tf.errors.ResourceExhaustedError(None, None, "x"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"), True),
        (RuntimeError("CUDA out of memory"), True),
        (ValueError("shapes do not match"), False),
    ],
)
def test_what_is_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


# --- class weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [Y, Y[:, None], np.eye(2)[Y], Y.astype("float32")], ids=str)
def test_class_weights_are_those_of_keras(labels: Any) -> None:
    weights = class_weights(labels, {1: 3.0})
    np.testing.assert_array_equal(weights, np.where(Y == 1, 3.0, 1.0))


def test_class_weight_trains_as_in_keras(tmp_path: Path) -> None:
    """One step over all rows, so that no order matters."""
    tuner = tuner_of(tmp_path, max_trials=1)
    firsts: list[Any] = []

    class Begins(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            firsts.append(self.model.get_weights())

    weights = {0: 1.0, 1: 5.0}
    tuner.search(**DATA, epochs=1, batch_size=32, class_weight=weights, callbacks=[Begins()])
    model = build(tuner.get_best_hyperparameters()[0])
    model.set_weights(firsts[0])
    model.fit(X, Y, batch_size=32, class_weight=weights, verbose=0)
    trained = tuner.get_best_models()[0]
    for mine, its in zip(trained.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-6)
