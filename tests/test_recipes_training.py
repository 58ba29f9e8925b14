"""Training: a seed repeats it, an interruption costs one epoch at most, divergence is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from recipes.data import ImageData, Split
from recipes.folder import RunFolder
from recipes.training import Plan, TargetScale, Trained, train, training_targets
from zoo.errors import DataError

pytestmark = pytest.mark.tensorflow
VALUES = {"learning_rate": 3e-3, "batch_size": 16, "lr_schedule": "cosine"}


def images(count: int, seed: int, task: str = "classification") -> ImageData:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    pixels = rng.integers(0, 120, (count, 8, 8, 1))
    pixels[np.arange(count), labels * 2 + 1] += 120  # a bright row tells the class
    targets: dict[str, Any] = {
        "classification": labels.astype(np.int64),
        "multi-label": np.eye(3, dtype=np.float32)[labels],
        "regression": labels[:, None].astype(np.float32) * 100 + 1000,
    }
    names = ("level",) if task == "regression" else ("low", "middle", "high")
    return ImageData(
        name="rows",
        images=pixels.astype(np.uint8),
        targets=targets[task],
        task=task,  # type: ignore[arg-type]
        class_names=names,
        size=(8, 8),
        channels=1,
        source="made here",
    )


def split(task: str = "classification") -> Split:
    sides = (images(96, 0, task), images(48, 1, task), images(48, 2, task))
    return Split(train=sides[0], validation=sides[1], test=sides[2])


def small_model(outputs: int = 3) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Flatten()(x))
    x = keras.layers.Dropout(0.2, seed=3)(keras.layers.Dense(16, activation="relu")(x))
    return keras.Model(inputs, keras.layers.Dense(outputs)(x))


def fit(
    folder: Path,
    *,
    epochs: int = 4,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    resume: bool = False,
    **plan: Any,
) -> tuple[keras.Model, Trained]:
    model = small_model()
    chosen = Plan(
        **{"name": "m", "values": VALUES, "epochs": epochs, "seed": 5, "quiet": True, **plan}
    )
    with RunFolder.open(folder, recipe="r", config={}, resume=resume) as run:
        return model, train(model, split(), chosen, run, callbacks)


def weights(model: keras.Model) -> list[Any]:
    return [np.array(keras.ops.convert_to_numpy(v)) for v in model.weights]


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self.where = (epoch, batch)
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if (self.epoch, batch) == self.where:
            raise KeyboardInterrupt


def test_the_same_seed_trains_the_same_model_and_another_does_not(tmp_path: Path) -> None:
    one, first = fit(tmp_path / "a", shift=0.1)
    two, second = fit(tmp_path / "b", shift=0.1)
    other, _ = fit(tmp_path / "c", shift=0.1, seed=6)
    assert first.history == second.history
    for a, b in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(weights(one)[0], weights(other)[0])


def test_an_interrupted_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole, expected = fit(tmp_path / "whole", shift=0.1)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", callbacks=[Interrupt(2, 3)], shift=0.1)
    assert not (tmp_path / "cut" / "metrics.json").exists()
    resumed, found = fit(tmp_path / "cut", resume=True, shift=0.1)
    assert found.history == expected.history
    assert found.best_epoch == expected.best_epoch
    for a, b in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    again, done = fit(tmp_path / "cut", resume=True, shift=0.1)  # nothing is left to do
    assert done.history == expected.history
    np.testing.assert_array_equal(weights(again)[0], weights(whole)[0])


def test_a_torn_state_falls_back_to_what_it_names(tmp_path: Path) -> None:
    """A crash between the weights and the state leaves one file too many, nothing wrong."""
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", callbacks=[Interrupt(2, 3)])
    (tmp_path / "run" / "training" / "m-9.weights.h5").write_bytes(b"half")
    _, found = fit(tmp_path / "run", resume=True)
    assert len(found.history["loss"]) == 4
    kept = sorted(p.name for p in (tmp_path / "run" / "training").iterdir())
    assert "m-9.weights.h5" not in kept
    assert len(kept) <= 3


def test_the_model_keeps_its_best_epoch(tmp_path: Path) -> None:
    model, trained = fit(tmp_path / "run")
    scores = trained.history["val_accuracy"]
    assert trained.best_epoch == int(np.argmax(scores))
    side = split().validation
    logits = model.predict(side.images.astype("float32"), verbose=0)  # type: ignore[union-attr]
    assert (logits.argmax(axis=1) == side.targets).mean() == pytest.approx(max(scores))


def test_divergence_is_one_clear_error(tmp_path: Path) -> None:
    values = {**VALUES, "learning_rate": 1e30, "optimizer": "sgd"}
    with pytest.raises(DataError, match=r"Training `m` diverged in epoch 1.*learning rate"):
        fit(tmp_path / "run", values=values)


def test_a_time_limit_ends_after_the_epoch(tmp_path: Path) -> None:
    _, trained = fit(tmp_path / "run", epochs=50, limit_s=0.0)
    assert len(trained.seconds) == 1


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_other_tasks_learn(tmp_path: Path, task: str) -> None:
    data, scale = training_targets(split(task))
    model = small_model(1 if task == "regression" else 3)
    plan = Plan(name="m", values=VALUES, epochs=30, seed=0, quiet=True)
    with RunFolder.open(tmp_path / "run", recipe="r", config={}, resume=False) as run:
        trained = train(model, data, plan, run)
    assert trained.history["val_loss"][-1] < 0.5 * trained.history["val_loss"][0]
    if scale is None:
        return
    values = scale.attach(model).predict(data.test.images.astype("float32"), verbose=0)  # type: ignore[union-attr]
    assert np.abs(values - split(task).test.targets).mean() < 60  # levels are 100 apart


def test_target_scale_is_that_of_the_training_side() -> None:
    data = split("regression")
    scaled, scale = training_targets(data)
    assert scale is not None
    np.testing.assert_allclose(scale.mean, data.train.targets.mean(axis=0))
    np.testing.assert_allclose(scaled.train.targets.std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(
        scaled.test.targets * scale.std + scale.mean, data.test.targets, rtol=1e-5
    )
    flat = replace(data.train, targets=np.full((96, 1), 7.0, np.float32))
    assert TargetScale.of(flat.targets).std.tolist() == [1.0]
