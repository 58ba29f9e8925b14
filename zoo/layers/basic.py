"""Scales, norms and paddings that Keras does not have."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any
register = keras.saving.register_keras_serializable(package="zoo")


@register
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a learned number: (..., C) -> (..., C).

    Source: Touvron et al. 2021, arXiv:2103.17239, equation 4.

    Args:
        initial: First value of the numbers.
        **options: Keras' options of a layer.
    """

    def __init__(self, initial: float, **options: Any) -> None:
        super().__init__(**options)
        self.initial = initial

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the numbers (C,)."""
        initializer = keras.initializers.Constant(self.initial)
        self.scale = self.add_weight(
            shape=(input_shape[-1],), initializer=initializer, name="scale"
        )

    def call(self, x: Tensor) -> Tensor:
        """Scales the channels."""
        return x * ops.cast(self.scale, x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "initial": self.initial}


@register
class GlobalResponseNorm(keras.layers.Layer):
    """Lets channels compete by the norm of their maps: (B, H, W, C) -> (B, H, W, C).

    Source: Woo et al. 2023, arXiv:2301.00808, algorithm 1.

    Args:
        epsilon: Added to the mean norm.
        **options: Keras' options of a layer.
    """

    def __init__(self, epsilon: float = 1e-6, **options: Any) -> None:
        super().__init__(**options)
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes scale and shift (C,), which start at nothing."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(shape=shape, initializer="zeros", name="gamma")
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta")

    def call(self, x: Tensor) -> Tensor:
        """Adds the normalised, scaled and shifted maps to the input."""
        wide = ops.cast(x, "float32")  # squares summed over a map pass float16's largest number
        norm = ops.sqrt(ops.sum(ops.square(wide), axis=(1, 2), keepdims=True))  # (B, 1, 1, C)
        share = norm / (ops.mean(norm, axis=-1, keepdims=True) + self.epsilon)
        gamma, beta = ops.cast(self.gamma, x.dtype), ops.cast(self.beta, x.dtype)
        return x + beta + gamma * (x * ops.cast(share, x.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}


@register
class MinimumSize(keras.layers.Layer):
    """Brings a map up to a height and width, as adaptive average pooling does.

    (B, H, W, C) -> (B, max(H, size), max(W, size), C). Value i of n is the mean of the pixels from
    floor(i * H / n) to ceil((i + 1) * H / n).

    Args:
        size: Least height and width.
        **options: Keras' options of a layer.
    """

    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(**options)
        self.size = size

    def call(self, x: Tensor) -> Tensor:
        """Averages along height, then along width."""
        shape = ops.shape(x)
        rows, columns = (self._means(shape[axis], x.dtype) for axis in (1, 2))
        x = ops.einsum("ph,bhwc->bpwc", rows, x)
        return ops.einsum("qw,bpwc->bpqc", columns, x)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape; unknown sides stay unknown."""
        batch, *sides, channels = input_shape
        grown = (None if side is None else max(side, self.size) for side in sides)
        return (batch, *grown, channels)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "size": self.size}

    def _means(self, side: Any, dtype: str) -> Tensor:
        """Returns the weights of each pixel in each mean: (n, side)."""
        count = ops.maximum(side, self.size)
        place, pixel = ops.arange(count), ops.arange(side)
        first = place * side // count
        end = ((place + 1) * side + count - 1) // count  # rounded up
        inside = (pixel[None] >= first[:, None]) & (pixel[None] < end[:, None])
        return ops.cast(inside, dtype) / ops.cast(end - first, dtype)[:, None]


@register
class SamePadding(keras.layers.Layer):
    """Adds the zeros that TensorFlow's SAME would, for maps whose size is not known beforehand.

    (B, H, W, C) -> (B, H', W', C); where their number is odd, there is one more at the end.

    Args:
        kernel: Height and width of the windows that follow.
        stride: Their step, at most the kernel.
        **options: Keras' options of a layer.
    """

    def __init__(self, kernel: int, stride: int, **options: Any) -> None:
        super().__init__(**options)
        self.kernel = kernel
        self.stride = stride

    @staticmethod
    def amounts(side: Any, kernel: int, stride: int) -> tuple[Any, Any]:
        """Returns the zeros before and after a side, an integer or a scalar tensor."""
        total = kernel - 1 - (side - 1) % stride  # stride <= kernel
        return total // 2, total - total // 2

    def call(self, x: Tensor) -> Tensor:
        """Pads."""
        sides = ops.shape(x)[1:3]
        pads = [list(self.amounts(side, self.kernel, self.stride)) for side in sides]
        return ops.pad(x, [[0, 0], *pads, [0, 0]])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape; unknown sides stay unknown."""
        batch, *sides, channels = input_shape
        padded = (
            None if side is None else side + sum(self.amounts(side, self.kernel, self.stride))
            for side in sides
        )
        return (batch, *padded, channels)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "kernel": self.kernel, "stride": self.stride}
