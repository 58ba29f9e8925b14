"""Stateless building functions used by two or more families. Core Keras layers only.

Tensors are channels-last, (B, H, W, C). A function that makes layers takes their name prefix: layer
names are file format.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from zoo.kernels import quicken

Tensor = Any  # a keras.KerasTensor
Kernel = int | tuple[int, int]  # pixels, (height, width)
Padding = Literal["sym", "same", "end", "valid"]

DENSE_STDDEV = 0.02
LOWEST = -3e38  # about the lowest number of float32 and bfloat16
_DEFER: contextvars.ContextVar[bool] = contextvars.ContextVar("defer", default=False)


@dataclass(frozen=True, kw_only=True)
class NormConfig:
    """BatchNorm constants and padding: they belong to the config, not to a default."""

    epsilon: float = 1e-5
    momentum: float = 0.9  # Keras' sense: 1 - torch's 0.1
    # "sym": k // 2 zeros on both sides; "same": TensorFlow's, as many as needed, more at the end;
    # "end": k // 2 at the end alone, where a convolution has a stride; "valid": none
    padding: Padding = "sym"


@dataclass(frozen=True)
class StageStride:
    """Stride and dilation of one stage; `first_dilation` is that of the map the stage receives."""

    stride: int
    first_dilation: int
    dilation: int


def plan_strides(
    strides: tuple[int, ...], *, start: int, output_stride: int | None
) -> tuple[StageStride, ...]:
    """Turns strides that would pass `output_stride` into dilations, as timm does."""
    plan, total, dilation = [], start, 1
    for stride in strides:
        first = dilation
        if output_stride is not None and total * stride > output_stride:
            dilation, stride = dilation * stride, 1
        total *= stride
        plan.append(StageStride(stride, first, dilation))
    return tuple(plan)


def drop_path_rates(rate: float, blocks: int, *, last: bool) -> list[float]:
    """Linearly growing rates; `last` says whether the last block gets `rate` itself."""
    steps = max(blocks - 1, 1) if last else blocks
    return [rate * i / steps for i in range(blocks)]


def round_width(width: float, divisor: int = 8, limit: float = 0.9) -> int:
    """Rounds to a multiple of `divisor`, never below `limit` of the value."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < limit * width else rounded


class _Zeros(keras.initializers.Initializer):
    """Stands in for an initializer whose values a checkpoint is about to replace."""

    def __call__(self, shape: tuple[int, ...], dtype: Any = None, **_: Any) -> Any:
        return keras.ops.zeros(shape, dtype=dtype)


class _HeUniform(keras.initializers.Initializer):
    """Draws what `kernel_initializer()` would, by numpy: a third of the time for a whole model."""

    def __call__(self, shape: tuple[int, ...], dtype: Any = None, **_: Any) -> Any:
        fan_out = math.prod(shape[:-2]) * shape[-1]
        limit = np.float32(math.sqrt(3 * 2.0 / fan_out))
        seed = random.getrandbits(64)
        values = np.random.Generator(np.random.SFC64(seed)).random(shape, np.float32)
        values *= 2 * limit
        values -= limit
        return keras.ops.convert_to_tensor(values, dtype=dtype)


class _TruncatedNormal(keras.initializers.Initializer):
    """Draws what `dense_initializer()` would, by numpy: one of 65,536 quantiles."""

    def __call__(self, shape: tuple[int, ...], dtype: Any = None, **_: Any) -> Any:
        size = math.prod(shape)
        words = np.random.SFC64(random.getrandbits(64)).random_raw(-(-size // 4))
        values = _quantiles()[words.view(np.uint16)[:size]].reshape(shape)
        return keras.ops.convert_to_tensor(values, dtype=dtype)


@functools.cache
def _quantiles() -> np.ndarray[Any, np.dtype[np.float32]]:
    """The normal distribution of DENSE_STDDEV, cut at two deviations, in 2**16 equal shares."""
    count = 2**16
    places = np.linspace(-2.0, 2.0, count + 1)
    density = np.exp(-(places**2) / 2)
    share = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    middles = (np.arange(count) + 0.5) / count
    return (DENSE_STDDEV * np.interp(middles, share / share[-1], places)).astype(np.float32)


@contextlib.contextmanager
def deferred_kernels() -> Iterator[None]:
    """Inside, convolution kernels start as zeros, for a checkpoint that fills them anyway.

    The layers keep their real initializer, so configs and re-initialisation are unaffected.
    """
    token = _DEFER.set(True)
    try:
        yield
    finally:
        _DEFER.reset(token)


def kernel_initializer() -> keras.initializers.Initializer:
    """He uniform by fan-out: the variance of torchvision's and timm's start.

    Source: He et al. 2015, arXiv:1502.01852, eq. 14.
    """
    return keras.initializers.VarianceScaling(2.0, "fan_out", "uniform")


def dense_initializer() -> keras.initializers.Initializer:
    """The truncated normal draw that transformers start with.

    Source: Dosovitskiy et al. 2020, arXiv:2010.11929; the deviation as in timm.
    """
    return keras.initializers.TruncatedNormal(stddev=DENSE_STDDEV)


def _call(layer: Any, x: Tensor, drawn: keras.initializers.Initializer) -> Tensor:
    depthwise = hasattr(layer, "depthwise_initializer")
    attribute = "depthwise_initializer" if depthwise else "kernel_initializer"
    real = getattr(layer, attribute)
    setattr(layer, attribute, _Zeros() if _DEFER.get() else drawn)
    y = layer(x)
    setattr(layer, attribute, real)
    return y


def _pad(
    x: Tensor, kernel: int, stride: int, dilation: int, padding: Padding, name: str
) -> tuple[Tensor, str]:
    if padding == "valid":
        return x, "valid"
    if padding == "same" or stride == 1 or kernel == 1:
        return x, "same"  # at stride 1 an odd kernel's SAME is symmetric
    zeros = dilation * (kernel // 2)
    sides = ((0, zeros), (0, zeros)) if padding == "end" else zeros
    return keras.layers.ZeroPadding2D(sides, name=f"{name}_pad")(x), "valid"


def conv(
    x: Tensor,
    width: int,
    kernel: Kernel,
    stride: int = 1,
    *,
    name: str,
    padding: Padding = "sym",
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> Tensor:
    """Convolution: (B, H, W, C) -> (B, H/stride, W/stride, width)."""
    widest = kernel if isinstance(kernel, int) else max(kernel)
    x, mode = _pad(x, widest, stride, dilation, padding, name)
    layer = keras.layers.Conv2D(
        width,
        kernel,
        stride,
        mode,
        dilation_rate=dilation,
        groups=groups,
        use_bias=bias,
        kernel_initializer=kernel_initializer(),
        name=name,
    )
    quicken(layer)
    return _call(layer, x, _HeUniform())


def depthwise_conv(
    x: Tensor,
    kernel: int,
    stride: int = 1,
    *,
    name: str,
    padding: Padding = "sym",
    dilation: int = 1,
    bias: bool = False,
) -> Tensor:
    """Depthwise convolution: (B, H, W, C) -> (B, H/stride, W/stride, C)."""
    x, mode = _pad(x, kernel, stride, dilation, padding, name)
    layer = keras.layers.DepthwiseConv2D(
        kernel,
        stride,
        mode,
        dilation_rate=dilation,
        use_bias=bias,
        depthwise_initializer=kernel_initializer(),
        name=name,
    )
    return _call(layer, x, _HeUniform())


def dense(x: Tensor, width: int, *, name: str, bias: bool = True) -> Tensor:
    """Dense layer over the last axis: (..., C) -> (..., width)."""
    layer = keras.layers.Dense(
        width, use_bias=bias, kernel_initializer=dense_initializer(), name=name
    )
    return _call(layer, x, _TruncatedNormal())


def layer_norm(x: Tensor, epsilon: float, *, name: str) -> Tensor:
    """Layer normalisation over the channels."""
    return keras.layers.LayerNormalization(epsilon=epsilon, name=name)(x)


def batch_norm(x: Tensor, norm: NormConfig, *, name: str, zero_gamma: bool = False) -> Tensor:
    """Batch normalisation over (B, H, W); `zero_gamma` starts a residual branch at nothing."""
    layer = keras.layers.BatchNormalization(
        epsilon=norm.epsilon,
        momentum=norm.momentum,
        gamma_initializer="zeros" if zero_gamma else "ones",
        name=name,
    )
    quicken(layer)
    return layer(x)


def activation(x: Tensor, kind: str | None, *, name: str) -> Tensor:
    """Applies an activation by Keras' name; None is the identity and adds no layer.

    Beside Keras' own there are "gelu_tanh" and "quick_gelu", the two approximations of "gelu" that
    published weights were trained with (arXiv:1606.08415, section 2).
    """
    if kind is None:
        return x
    if kind == "gelu_tanh":
        return keras.ops.gelu(x, approximate=True)
    if kind == "quick_gelu":
        return x * keras.ops.sigmoid(1.702 * x)
    return keras.layers.Activation(kind, name=name)(x)


def conv_norm(
    x: Tensor,
    width: int,
    kernel: int,
    stride: int = 1,
    *,
    name: str,
    norm: NormConfig,
    act: str | None = None,
    dilation: int = 1,
    groups: int = 1,
    suffix: str = "",
    zero_gamma: bool = False,
) -> Tensor:
    """Convolution, batch norm, activation: `{name}_conv{suffix}`, `_bn{suffix}`, `_act{suffix}`."""
    x = conv(
        x,
        width,
        kernel,
        stride,
        name=f"{name}_conv{suffix}",
        padding=norm.padding,
        dilation=dilation,
        groups=groups,
    )
    x = batch_norm(x, norm, name=f"{name}_bn{suffix}", zero_gamma=zero_gamma)
    return activation(x, act, name=f"{name}_act{suffix}")


def drop_path(x: Tensor, rate: float, *, name: str) -> Tensor:
    """Stochastic depth: drops an example's whole branch. Source: arXiv:1603.09382, section 3."""
    if rate == 0:
        return x
    shape = (None, *(1 for _ in x.shape[1:]))
    return keras.layers.Dropout(rate, noise_shape=shape, name=name)(x)


def squeeze_excite(
    x: Tensor, width: int, *, name: str, act: str = "relu", gate: str = "sigmoid"
) -> Tensor:
    """Channel attention: (B, H, W, C) -> (B, H, W, C). Source: arXiv:1709.01507, fig. 3."""
    channels = x.shape[-1]
    s = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)  # (B, 1, 1, C)
    s = conv(s, width, 1, name=f"{name}_reduce", bias=True)
    s = activation(s, act, name=f"{name}_act")
    s = conv(s, channels, 1, name=f"{name}_expand", bias=True)
    s = activation(s, gate, name=f"{name}_gate")
    return keras.layers.Multiply(name=f"{name}_scale")([x, s])


def max_pool(
    x: Tensor,
    kernel: int,
    stride: int,
    *,
    name: str,
    padding: Padding = "sym",
    signed: bool = False,
) -> Tensor:
    """Max pooling; of a map that may be negative, if `signed`: else padding with zeros will do."""
    if signed and padding == "sym":
        side = (kernel // 2, kernel // 2)
        x = keras.ops.pad(x, ((0, 0), side, side, (0, 0)), constant_values=LOWEST)
        return keras.layers.MaxPooling2D(kernel, stride, name=name)(x)
    x, mode = _pad(x, kernel, stride, 1, padding, name)
    return keras.layers.MaxPooling2D(kernel, stride, mode, name=name)(x)


def global_pool(x: Tensor, kind: str | None) -> Tensor:
    """(B, H, W, C) -> (B, C) by "avg" or "max", (B, 2C) by "avgmax"; None keeps the map."""
    if kind is None:
        return x
    average = keras.layers.GlobalAveragePooling2D(name="head_pool")
    if kind in ("avg", "default"):
        return average(x)
    largest = keras.layers.GlobalMaxPooling2D(name="head_pool_max")
    if kind == "max":
        return largest(x)
    return keras.layers.Concatenate(name="head_pool_both")([average(x), largest(x)])


def classifier(
    x: Tensor, *, num_classes: int, dropout: float, activation: str | None, name: str = "head"
) -> Tensor:
    """(B, C) -> (B, num_classes) logits in float32, whatever the policy; 0 classes: x as it is."""
    if dropout:
        x = keras.layers.Dropout(dropout, name=f"{name}_dropout")(x)
    if not num_classes:
        return x
    return keras.layers.Dense(
        num_classes,
        activation=activation,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        dtype="float32",
        name=name,
    )(x)


def linear_head(
    x: Tensor,
    config: Any,  # noqa: ARG001 - part of every head's signature
    *,
    num_classes: int,
    pool: str | None,
    dropout: float,
    activation: str | None,
) -> Tensor:
    """Global pooling and one dense layer: (B, H, W, C) -> (B, num_classes)."""
    x = global_pool(x, pool)
    return classifier(x, num_classes=num_classes, dropout=dropout, activation=activation)
