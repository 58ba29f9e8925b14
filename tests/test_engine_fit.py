"""`fit` of a trial's model: whole epochs in one call, callbacks, and going on where it stopped."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

from tests.engine_models import (
    BATCH,
    FEATURES,
    ONE_HOT,
    RNG,
    ROWS,
    X,
    Y,
    assert_close,
    assert_same,
    dense,
    fitted,
    fresh,
    weights,
)
from tuning.checkpoint import BEST, STATE, TrainingState, load_weights
from tuning.engine import TrainingEngine, TrialRun, asks_for_batches

L, O = keras.layers, keras.optimizers  # noqa: E741
Values = Mapping[str, Any]
ENGINES = {"whole epochs": True, "batches": False}
BATCHES = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, **__: None)


def run_of(folder: Path | None = None, **options: Any) -> TrialRun:
    objective = keras_tuner.Objective("val_loss", "min")
    return TrialRun(seed=(3, 1), folder=folder, objective=objective, **options)


def trained(
    model: keras.Model,
    run: TrialRun | None = None,
    engine: TrainingEngine | None = None,
    x: Any = X,
    y: Any = ONE_HOT,
    **options: Any,
) -> tuple[dict[str, list[float]], list[np.ndarray]]:
    """The history and the weights after a training by the engine."""
    engine = TrainingEngine(compiled_models=0) if engine is None else engine
    model = engine.prepare(model, run_of() if run is None else run)
    options = {"batch_size": BATCH, "epochs": 2, **options}
    return model.fit(x, y, **options).history, weights(model)


def noisy(values: Values) -> keras.Model:
    layers = [L.BatchNormalization(), L.Dropout(values["dropout"])]
    return dense(O.AdamW(values["rate"], weight_decay=0.01), layers=layers, metrics=["accuracy"])


# --- whole epochs against Keras' fit ------------------------------------------------------------


def two_inputs(values: Values) -> keras.Model:
    image = keras.Input((4, 4, 1), dtype="uint8", name="image")
    table = keras.Input((FEATURES,), name="table")
    x = L.Flatten()(L.Conv2D(2, 3)(L.Rescaling(1 / 255)(image)))
    shared = L.Dense(4, "relu")
    x = L.Concatenate()([shared(x), L.Dropout(0.3)(shared(L.Dense(8)(table)))])
    outputs = {"kind": L.Dense(3, name="kind")(x), "size": L.Dense(1, name="size")(x)}
    model = keras.Model({"image": image, "table": table}, outputs)
    model.compile(
        O.Adam(values["rate"]),
        {"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"},
        loss_weights={"kind": 1.0, "size": 0.5},
        metrics={"kind": ["accuracy"]},
        weighted_metrics={"size": ["mae"]},
        jit_compile=False,
    )
    return model


TABLES = {
    "image": RNG.integers(0, 255, (ROWS, 4, 4, 1)).astype("uint8"),
    "table": RNG.normal(size=(ROWS, FEATURES)),  # float64
}
TARGETS = {"kind": Y, "size": RNG.normal(size=(ROWS, 1))}


def test_whole_epochs_of_several_inputs_and_outputs_equal_keras() -> None:
    options: dict[str, Any] = {"x": TABLES, "y": TARGETS, "validation_data": (TABLES, TARGETS)}
    expected = fitted(fresh(two_inputs, {"rate": 0.01}), **options)
    assert "val_size_mae" in expected[0]
    assert_close(trained(fresh(two_inputs, {"rate": 0.01}), shuffle=False, **options), expected)


@pytest.mark.parametrize("size", [BATCH, ROWS, 100], ids=str)
def test_whole_epochs_with_weights_of_rows_equal_keras(size: int) -> None:
    weight = RNG.uniform(size=ROWS)
    options: dict[str, Any] = {"sample_weight": weight, "batch_size": size}
    options["validation_data"] = (X[:13], ONE_HOT[:13], weight[:13])
    values = {"rate": 0.01, "dropout": 0.3}
    expected = fitted(fresh(noisy, values), x=X.astype("float64"), **options)
    ours = trained(fresh(noisy, values), x=X.astype("float64"), shuffle=False, **options)
    assert_close(ours, expected)


def test_a_validation_split_is_that_of_keras() -> None:
    values = {"rate": 0.01, "dropout": 0.3}
    expected = fitted(fresh(noisy, values), validation_split=0.3)
    assert_close(trained(fresh(noisy, values), shuffle=False, validation_split=0.3), expected)


class Heard(keras.callbacks.Callback):
    """Notes what it is told of batches; ends the second epoch after its second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, int]] = []
        self.losses: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.told.append(("train begins", batch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.told.append(("train ends", batch))
        self.losses.append(float(logs["loss"]))
        if [name for name, _ in self.told].count("validation begins") and batch >= 1:
            self.model.stop_training = True

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.told.append(("validation begins", batch))

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.told.append(("validation ends", batch))
        self.losses.append(float(logs["loss"]))


@pytest.mark.parametrize("steps", [1, 3])
def test_callbacks_hear_of_batches_what_keras_tells_them(steps: int) -> None:
    values = {"rate": 0.01, "dropout": 0.3}
    heard, results = [], []
    for train in (fitted, functools.partial(trained, shuffle=False)):
        model, callback = fresh(noisy, values), Heard()
        model.steps_per_execution = steps
        options: dict[str, Any] = {"validation_data": (X[:21], ONE_HOT[:21]), "epochs": 4}
        results.append(train(model, callbacks=[callback], **options))
        heard.append(callback)
    assert heard[1].told == heard[0].told
    assert ("train ends", steps - 1) in heard[0].told
    np.testing.assert_allclose(heard[1].losses, heard[0].losses, rtol=1e-5)
    assert_close(results[1], results[0])


def test_a_backup_of_keras_is_left_to_keras(tmp_path: Path) -> None:
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    values = {"rate": 0.01, "dropout": 0.3}
    history, _ = trained(fresh(noisy, values), callbacks=[backup], epochs=2)
    assert len(history["loss"]) == 2
    again = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    history, _ = trained(fresh(noisy, values), callbacks=[again], epochs=3)
    assert len(history["loss"]) == 1  # the two epochs of before are not trained again


@pytest.mark.tensorflow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_equals_keras(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        engine = TrainingEngine(compiled_models=4)
        for rate in (0.01, 0.003, 0.01):
            values = {"rate": rate, "dropout": rate * 30}
            make = noisy
            expected = fitted(fresh_policy(make, values, policy))
            model = fresh_policy(make, values, policy)
            assert_same(trained(model, engine=engine, shuffle=False), expected)
        assert engine.compiled.hits == 2, engine.compiled.reasons
    finally:
        keras.config.set_dtype_policy("float32")


def fresh_policy(make: Callable[[Values], keras.Model], values: Values, policy: str) -> keras.Model:
    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(2)
    return make(values)


# --- compiled models used again -----------------------------------------------------------------


def test_reuse_and_whole_epochs_give_what_rebuilding_gives() -> None:
    engine, plain = TrainingEngine(), TrainingEngine(compiled_models=0)
    options: dict[str, Any] = {"validation_data": (X, ONE_HOT)}
    for seed, (rate, dropout) in enumerate([(0.01, 0.3), (0.003, 0.0), (0.1, 0.123)]):
        values = {"rate": rate, "dropout": dropout}
        one = trained(fresh(noisy, values, seed), engine=engine, **options)
        assert_same(one, trained(fresh(noisy, values, seed), engine=plain, **options))
    assert (engine.compiled.hits, engine.compiled.misses) == (2, 1)


def nested(values: Values) -> keras.Model:
    inner = keras.Sequential([keras.Input((5,)), L.Dense(4, "relu"), L.BatchNormalization()])
    inner.layers[0].trainable = values["trains"]
    return dense(O.Adam(0.01), layers=[inner, L.Dropout(values["dropout"])])


def test_nested_and_frozen_layers() -> None:
    engine = TrainingEngine()
    for trains, dropout in [(True, 0.1), (False, 0.2), (True, 0.3), (False, 0.0)]:
        values = {"trains": trains, "dropout": dropout}
        ours = trained(fresh(nested, values), engine=engine, shuffle=False, epochs=1)
        assert_same(ours, fitted(fresh(nested, values), epochs=1))
    assert (engine.compiled.hits, engine.compiled.misses) == (2, 2)


# --- callbacks ----------------------------------------------------------------------------------


def callbacks() -> list[keras.callbacks.Callback]:
    return [
        keras.callbacks.LearningRateScheduler(lambda _, rate: rate * 0.9),
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=0, factor=0.5, min_delta=0.03),
        keras.callbacks.EarlyStopping(
            "val_loss", patience=2, restore_best_weights=True, min_delta=0.05
        ),
    ]


EPOCHS = 8
CALLED: dict[str, Any] = {"epochs": EPOCHS, "validation_data": (X[::-1], ONE_HOT)}


def test_callbacks_do_what_they_do_in_keras() -> None:
    values = {"rate": 0.05, "dropout": 0.3}
    model = fresh(noisy, values)
    expected = fitted(model, **CALLED, callbacks=callbacks())
    assert 2 < len(expected[0]["loss"]) < EPOCHS  # EarlyStopping stopped it
    rate = model.optimizer.learning_rate
    assert len(set(expected[0]["learning_rate"])) == len(expected[0]["loss"])
    for more in ([], [BATCHES]):
        model = fresh(noisy, values)
        ours = trained(model, shuffle=False, **CALLED, callbacks=[*callbacks(), *more])
        assert_close(ours, expected)
        assert float(model.optimizer.learning_rate) == pytest.approx(float(rate))


def test_who_asks_for_batches() -> None:
    ask = asks_for_batches
    assert ask(BATCHES)
    assert ask(keras.callbacks.ModelCheckpoint("a.keras", save_freq=3))
    assert not ask(keras.callbacks.ModelCheckpoint("a.keras"))
    assert not any(map(ask, callbacks()))


# --- going on -----------------------------------------------------------------------------------


class StopError(Exception):
    """Ends a training as a kill would."""


def interrupted(folder: Path, after: int, engine: TrainingEngine, seed: int = 1) -> None:
    def report(epoch: int, logs: Any, seconds: float) -> None:
        if epoch + 1 == after:
            raise StopError

    run = run_of(folder, report=report, epochs=EPOCHS)
    with pytest.raises(StopError):
        trained(fresh(noisy, VALUES, seed), run, engine, **CALLED, callbacks=callbacks())


VALUES = {"rate": 0.05, "dropout": 0.3}


@pytest.mark.parametrize("whole", ENGINES.values(), ids=ENGINES)
def test_a_training_goes_on_after_any_epoch(whole: bool, tmp_path: Path) -> None:
    engine = TrainingEngine(whole_epochs=whole)
    run = run_of(tmp_path / "all", epochs=EPOCHS)
    expected = trained(fresh(noisy, VALUES), run, engine, **CALLED, callbacks=callbacks())
    length = len(expected[0]["loss"])
    assert 2 < length < EPOCHS
    for after in range(1, length):
        folder = tmp_path / str(after)
        interrupted(folder, after, engine)
        state = TrainingState.read(folder / STATE)
        assert state is not None
        assert state.epoch == after
        again = run_of(folder, state=state, epochs=EPOCHS)
        other = fresh(noisy, VALUES, seed=9)  # its own weights and seeds do not matter
        ours = trained(other, again, engine, **CALLED, callbacks=callbacks())
        assert_same(ours, expected)
        assert again.state.best == run.state.best
        for one, two in zip(best(folder), best(tmp_path / "all"), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert engine.compiled.misses == 1


def best(folder: Path) -> list[np.ndarray]:
    model = fresh(noisy, VALUES)
    load_weights(model, folder / BEST)
    return weights(model)


def test_both_ways_to_train_see_the_same_rows(tmp_path: Path) -> None:
    one, other = (
        trained(fresh(noisy, VALUES), engine=TrainingEngine(whole_epochs=whole), **CALLED)
        for whole in ENGINES.values()
    )
    assert_close(one, other)


def test_the_best_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    seen: list[tuple[float, list[np.ndarray]]] = []
    model = fresh(noisy, {"rate": 0.3, "dropout": 0.3})
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda _, logs: seen.append((logs["val_loss"], weights(model)))
    )
    history, _ = trained(model, run_of(tmp_path), **CALLED, callbacks=[note])
    losses = history["val_loss"]
    index = int(np.argmin(losses))
    assert index < EPOCHS - 1
    np.testing.assert_equal(best(tmp_path), seen[index][1])


@pytest.mark.parametrize("damage", ["missing", "torn", "empty"])
def test_without_a_whole_state_a_training_starts_again(damage: str, tmp_path: Path) -> None:
    engine = TrainingEngine()
    interrupted(tmp_path, 2, engine)
    path = tmp_path / STATE
    if damage == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage == "torn" else b"")
    assert TrainingState.read(path) is None


def test_a_stopped_training_is_not_trained_further(tmp_path: Path) -> None:
    state = TrainingState(epoch=2, history={"loss": [1.0, 0.5]}, stopped=True)
    begun: list[bool] = []
    run = run_of(tmp_path, state=state, begin=lambda: begun.append(True))
    history, _ = trained(fresh(noisy, VALUES), run)
    assert history == {"loss": [1.0, 0.5]}
    assert begun == [True]
