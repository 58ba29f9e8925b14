"""Small models for the tests of the training engine, made of a trial's values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tuning.reuse import CompiledModels

ROWS, FEATURES, CLASSES = 22, 6, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, FEATURES)).astype("float32")
Y = RNG.integers(0, CLASSES, ROWS)
ONE_HOT = np.eye(CLASSES, dtype="float32")[Y]
BATCH = 8  # the last batch has 6 rows
EXACT = keras.backend.backend() == "tensorflow"

Make = Callable[[Mapping[str, Any]], keras.Model]


def fresh(make: Make, values: Mapping[str, Any], seed: int = 1) -> keras.Model:
    """A model as a trial builds it."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    return make(values)


def dense(
    optimizer: Any,
    *,
    loss: Any = "categorical_crossentropy",
    layers: Sequence[Any] = (),
    jit_compile: Any = False,
    **options: Any,
) -> keras.Model:
    """A compiled classifier of `X` with layers in its middle."""
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(5, "tanh"),
            *layers,
            keras.layers.Dense(CLASSES, "softmax"),
        ]
    )
    model.compile(optimizer, loss, jit_compile=jit_compile, **options)
    return model


def fitted(
    model: keras.Model, x: Any = X, y: Any = ONE_HOT, *, epochs: int = 2, **options: Any
) -> tuple[dict[str, list[float]], list[np.ndarray]]:
    """The history and the weights after a training by Keras' own fit."""
    options = {"batch_size": BATCH, **options}
    fit = type(model).fit
    history = fit(model, x, y, epochs=epochs, verbose=0, shuffle=False, **options).history
    return history, weights(model)


def weights(model: keras.Model) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(v)) for v in model.weights]


def assert_same(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    """Checks that two trainings are equal: in every bit, on JAX to float's precision."""
    if not EXACT:
        assert_close(one, other)
        return
    (history, arrays), (expected, expected_arrays) = one, other
    assert history == expected
    np.testing.assert_equal(arrays, expected_arrays)


def assert_close(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    """Checks that two trainings are equal to float's precision."""
    (history, arrays), (expected, expected_arrays) = one, other
    assert set(history) == set(expected)
    for name, values in history.items():
        np.testing.assert_allclose(values, expected[name], rtol=2e-5, err_msg=name)
    for array, wanted in zip(arrays, expected_arrays, strict=True):
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-6)


def check_reuse(
    make: Make,
    trials: Sequence[Mapping[str, Any]],
    *,
    hits: int | None = None,
    pool: CompiledModels | None = None,
    **options: Any,
) -> CompiledModels:
    """Checks that trials with compiled models used again equal rebuilt ones, and counts hits."""
    pool = CompiledModels(8) if pool is None else pool
    for seed, values in enumerate(trials):
        reused = fitted(pool.adopt(fresh(make, values, seed)).model, **options)
        assert_same(reused, fitted(fresh(make, values, seed), **options))
    assert pool.hits == (len(trials) - 1 if hits is None else hits), (pool.misses, pool.reasons)
    return pool
