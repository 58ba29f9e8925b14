"""Faster forms of Keras' own layers, for TensorFlow on a CPU; values and files stay theirs.

A layer keeps its class and is saved as that; only the function it calls is another one.

* Keras hands a grouped convolution to XLA, since TensorFlow without oneDNN has no gradient for it;
  where oneDNN is there, TensorFlow's own is faster.
* Keras' batch norm passes over the map once for each of its operations, and twice as often for the
  gradient; TensorFlow's fused one does not, and is merged into a convolution before it.
"""

from __future__ import annotations

import functools
from typing import Any

import keras

Tensor = Any


def quicken(layer: keras.layers.Layer) -> None:
    """Has a layer compute in a faster way, where there is one."""
    if isinstance(layer, keras.layers.Conv2D):
        if layer.groups > 1 and layer.data_format == "channels_last":
            layer.convolution_op = functools.partial(convolve, layer)
    elif isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized:
        layer.call = functools.partial(normalise, layer)


def convolve(layer: keras.layers.Conv2D, inputs: Tensor, kernel: Tensor) -> Tensor:
    """Stands in for `layer.convolution_op`: (B, H, W, C) -> (B, H', W', filters)."""
    if not (inputs.dtype == "float32" and on_cpu() and has_grouped_gradients()):
        return type(layer).convolution_op(layer, inputs, kernel)
    import tensorflow as tf

    return tf.nn.conv2d(
        inputs,
        kernel,
        list(layer.strides),
        layer.padding.upper(),
        dilations=list(layer.dilation_rate),
    )


def normalise(
    layer: keras.layers.BatchNormalization,
    inputs: Tensor,
    training: bool | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Stands in for `layer.call`: (B, H, W, C) -> (B, H, W, C)."""
    plain = mask is None and len(inputs.shape) == 4 and layer.axis in (-1, 3)
    scaled = layer.gamma is not None and layer.beta is not None
    if not (plain and scaled and inputs.dtype == "float32" and on_cpu()):
        return type(layer).call(layer, inputs, training=training, mask=mask)
    import tensorflow as tf

    fused = functools.partial(
        tf.compat.v1.nn.fused_batch_norm, inputs, layer.gamma, layer.beta, epsilon=layer.epsilon
    )
    if not (training and layer.trainable):
        return fused(layer.moving_mean, layer.moving_variance, is_training=False)[0]
    outputs, mean, variance = fused(is_training=True)
    count = tf.cast(tf.size(inputs), mean.dtype) / inputs.shape[-1]  # pixels in the batch
    variance = variance * ((count - 1) / count)  # Keras keeps the batch's own, not the estimate
    for moving, new in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + new * (1.0 - layer.momentum))
    return outputs


def on_cpu() -> bool:
    """Whether TensorFlow runs the model, without a GPU."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


@functools.cache
def has_grouped_gradients() -> bool:
    """Whether TensorFlow has gradients of grouped convolutions here; tries it once."""
    import tensorflow as tf

    with tf.init_scope(), tf.GradientTape() as tape:
        image, kernel = tf.ones((1, 3, 3, 4)), tf.ones((3, 3, 2, 4))
        tape.watch([image, kernel])
        total = tf.reduce_sum(tf.nn.conv2d(image, kernel, 1, "SAME"))
    try:
        with tf.init_scope():
            tape.gradient(total, [image, kernel])
    except tf.errors.InvalidArgumentError:
        return False
    return True
