"""Grouped convolutions against those of each group; batch norms against numpy and Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from zoo.blocks import conv
from zoo.kernels import quicken

RNG = np.random.default_rng(0)


def apart(layer: keras.layers.Conv2D, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Convolves each group by itself."""
    kernels = np.split(keras.ops.convert_to_numpy(layer.kernel), layer.groups, axis=-1)
    outputs = [
        keras.ops.conv(
            part, kernel, list(layer.strides), layer.padding, dilation_rate=layer.dilation_rate
        )
        for part, kernel in zip(np.split(x, layer.groups, axis=-1), kernels, strict=True)
    ]
    return np.concatenate([keras.ops.convert_to_numpy(y) for y in outputs], axis=-1)


@pytest.mark.parametrize(
    ("groups", "width", "options"),
    [
        (2, 8, {}),
        (32, 128, {"strides": 2}),
        (9, 216, {"padding": "same"}),
        (63, 1512, {}),
        (4, 16, {"dilation_rate": 2, "padding": "same"}),
    ],
)
def test_values_are_those_of_the_groups(groups: int, width: int, options: dict[str, Any]) -> None:
    layer = keras.layers.Conv2D(width, 3, groups=groups, use_bias=False, **options)
    layer.build((None, None, None, width))
    quicken(layer)
    x = RNG.normal(size=(2, 9, 8, width)).astype("float32")
    y = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(y, apart(layer, x), atol=2e-5 * y.std() * np.sqrt(width / groups))


@pytest.mark.tensorflow
def test_gradients_are_those_of_the_groups() -> None:
    import tensorflow as tf

    layer = keras.layers.Conv2D(6, 3, groups=3, padding="same", use_bias=False)
    layer.build((None, 5, 5, 6))
    quicken(layer)
    x = tf.constant(RNG.normal(size=(2, 5, 5, 6)), tf.float32)
    kernel = layer.kernel.value
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        whole = tf.reduce_sum(layer(x) ** 2)
        parts = [
            tf.nn.conv2d(part, own, 1, "SAME")
            for part, own in zip(tf.split(x, 3, -1), tf.split(kernel, 3, -1), strict=True)
        ]
        split = tf.reduce_sum(tf.concat(parts, -1) ** 2)
    for source in (x, kernel):
        mine, theirs = tape.gradient(whole, source), tape.gradient(split, source)
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_the_layer_is_saved_as_keras_own() -> None:
    inputs = keras.Input((8, 8, 16))
    model = keras.Model(inputs, conv(inputs, 16, 3, name="grouped", groups=4))
    config = keras.saving.serialize_keras_object(model.get_layer("grouped"))
    assert (config["module"], config["class_name"]) == ("keras.layers", "Conv2D")
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    x = RNG.normal(size=(1, 8, 8, 16)).astype("float32")
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(again(x)), keras.ops.convert_to_numpy(model(x)), atol=1e-5
    )


def normed(*, quick: bool, trainable: bool = True) -> keras.layers.BatchNormalization:
    layer = keras.layers.BatchNormalization(epsilon=1e-3, momentum=0.9)
    layer.build((None, None, None, 6))
    layer.gamma.assign(np.linspace(0.5, 2, 6))
    layer.beta.assign(np.linspace(-1, 1, 6))
    layer.moving_mean.assign(np.linspace(-2, 2, 6))
    layer.moving_variance.assign(np.linspace(0.5, 3, 6))
    layer.trainable = trainable
    if quick:
        quicken(layer)
    return layer


@pytest.mark.parametrize(("training", "trainable"), [(True, True), (True, False), (False, True)])
def test_a_batch_norm_is_numpys(training: bool, trainable: bool) -> None:
    x = (RNG.normal(size=(3, 5, 4, 6)) * 3 + 1).astype("float32")
    layer = normed(quick=True, trainable=trainable)
    y = keras.ops.convert_to_numpy(layer(x, training=training))
    mean, variance = np.linspace(-2, 2, 6), np.linspace(0.5, 3, 6)
    kept = (mean, variance)
    if training and trainable:
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        kept = tuple(0.9 * old + 0.1 * new for old, new in zip(kept, (mean, variance), strict=True))
    scale = np.linspace(0.5, 2, 6) / np.sqrt(variance + 1e-3)
    np.testing.assert_allclose(y, (x - mean) * scale + np.linspace(-1, 1, 6), atol=2e-5)
    for variable, expected in zip((layer.moving_mean, layer.moving_variance), kept, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), expected, atol=1e-5)


@pytest.mark.tensorflow
def test_gradients_are_those_of_keras() -> None:
    import tensorflow as tf

    x = tf.constant(RNG.normal(size=(4, 5, 5, 6)), tf.float32)
    weight = tf.constant(RNG.normal(size=(4, 5, 5, 6)), tf.float32)
    found = []
    for quick in (True, False):
        layer = normed(quick=quick)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) * weight)
        found.append(tape.gradient(loss, [x, layer.gamma.value, layer.beta.value]))
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float32"])
def test_what_is_not_plain_is_left_to_keras(dtype: str) -> None:
    layer = keras.layers.BatchNormalization(dtype=dtype, scale=False)
    layer.build((None, 4, 4, 6))
    x = RNG.normal(size=(2, 4, 4, 6)).astype("float32")
    plain = keras.ops.convert_to_numpy(layer(x, training=False))
    quicken(layer)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x, training=False)), plain)
