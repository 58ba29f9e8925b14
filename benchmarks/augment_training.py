"""Trainings of the benchmark of augmentation's worth: what is trained on, and how."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.tuning_tasks import Pair, fashion_mnist, noise

NONE, OURS, KERAS = ARMS = ("none", "keras-zoo", "keras.layers")
MODEL = "test_resnet"
OPERATIONS = 2
MAGNITUDE = 0.3  # of the operations' range: level 9 of 30, `factor` of Keras
VALUES = {"optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 0.05, "warmup": 0.1}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one network is trained on."""

    name: str
    about: str
    size: int  # pixels
    rows: int  # training images at most
    epochs: int
    run_s: Mapping[str, float]  # of one run on two cores, by arm, for the estimate
    stem: str = "default"
    batch_size: int = 64


TASKS = {
    "fashion-mnist": Task(
        name="fashion-mnist",
        about="the first 2,000 training images of Fashion-MNIST, all 10,000 test images",
        size=28,
        rows=2_000,
        epochs=25,
        run_s={NONE: 80, OURS: 80, KERAS: 110},
        stem="small",
    ),
    "emoji-base": Task(
        name="emoji-base",
        about="emoji of neutral skin by category, 30 % of each category held out, groups whole",
        size=64,
        rows=3_000,
        epochs=30,
        run_s={NONE: 60, OURS: 60, KERAS: 120},
    ),
}


def tasks(names: Sequence[str], *, smoke: bool) -> list[Task]:
    """Returns the tasks, or ones of noise that take seconds."""
    chosen = [TASKS[name] for name in names]
    if not smoke:
        return chosen
    few: dict[str, Any] = {"rows": 64, "epochs": 1, "size": 16, "batch_size": 32}
    return [replace(task, **few, about="noise", run_s=dict.fromkeys(ARMS, 10.0)) for task in chosen]


def read(task: Task) -> tuple[Pair, Pair]:
    """Returns training and test images, uint8 (B, H, W, 3), with their classes."""
    if task.about == "noise":
        x, y = noise((task.size, task.size, 3), 2 * task.rows, classes=3)
        images = np.clip(x * 60 + 128, 0, 255).astype("uint8")
        return (images[: task.rows], y[: task.rows]), (images[task.rows :], y[task.rows :])
    if task.name == "fashion-mnist":
        (x, y), (x_test, y_test) = fashion_mnist(task.rows, 10_000)
        grey = [np.rint(images * 255).astype("uint8").repeat(3, -1) for images in (x, x_test)]
        return (grey[0], y), (grey[1], y_test)
    from recipes.data import load_image_data, split_data

    split = split_data(load_image_data(task.name, size=task.size, channels=3), seed=0)
    held_out = (split.validation, split.test)
    return (
        (np.asarray(split.train.images)[: task.rows], split.train.targets[: task.rows]),
        (
            np.concatenate([np.asarray(side.images) for side in held_out]),
            np.concatenate([side.targets for side in held_out]),
        ),
    )


def layer_of(arm: str, seed: int) -> Any:
    """Returns the augmentation of an arm, or None."""
    if arm == OURS:
        import zoo

        return zoo.create_augmentation(
            "randaugment", num_ops=OPERATIONS, magnitude=30 * MAGNITUDE, seed=seed
        )
    if arm == KERAS:
        import keras

        return keras.layers.RandAugment(
            (0, 255), OPERATIONS, factor=MAGNITUDE, interpolation="nearest", seed=seed
        )
    return None


def batches(data: Pair, arm: str, seed: int, batch_size: int) -> Any:
    """Returns the training images as a data set that is shuffled and augmented anew each time."""
    import tensorflow as tf

    layer = layer_of(arm, seed)

    def prepared(images: Any, labels: Any) -> Any:
        return tf.cast(images if layer is None else layer(images), "float32"), labels

    rows = tf.data.Dataset.from_tensor_slices(data).shuffle(len(data[0]), seed=seed)
    shuffled = rows.batch(batch_size, drop_remainder=True)
    return shuffled.map(prepared, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def run(task: Mapping[str, Any], arm: str, seed: int) -> dict[str, Any]:
    """Trains and tests one network; all arguments and results are JSON.

    Args:
        task: Fields of a `Task`.
        arm: One of `ARMS`.
        seed: Of weights, order and augmentation.
    """
    import keras

    import zoo
    from tuning.accelerator import jit_compile
    from tuning.optimizers import make_optimizer

    keras.utils.set_random_seed(seed)
    given = Task(**task)
    train, (x_test, y_test) = read(given)
    model = zoo.create_model(
        MODEL,
        num_classes=int(train[1].max()) + 1,
        input_size=given.size,
        stem=given.stem,
        preprocess=True,
    )
    steps = len(train[0]) // given.batch_size
    model.compile(
        make_optimizer(VALUES, total_steps=steps * given.epochs),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_compile(),
    )
    ends = [(time.perf_counter(), time.process_time())]
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: ends.append((time.perf_counter(), time.process_time()))
    )
    history = model.fit(
        batches(train, arm, seed, given.batch_size),
        epochs=given.epochs,
        verbose=0,
        callbacks=[note],
    ).history
    spent = np.diff(np.array(ends), axis=0)[1:] if given.epochs > 1 else np.diff(ends, axis=0)
    _, accuracy = model.evaluate(x_test.astype("float32"), y_test, batch_size=250, verbose=0)
    return {
        "accuracy": float(accuracy),
        "train_accuracy": float(history["accuracy"][-1]),
        "train_loss": float(history["loss"][-1]),
        "epoch_s": float(np.median(spent[:, 0])),  # but for the first, which compiles
        "epoch_cpu_s": float(np.median(spent[:, 1])),
        "total_s": ends[-1][0] - ends[0][0],
        "train_images": len(train[0]),
        "test_images": len(x_test),
        "classes": int(train[1].max()) + 1,
        "params": int(model.count_params()),
    }
