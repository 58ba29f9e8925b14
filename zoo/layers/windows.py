"""Attention within the windows of a map."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from zoo.layers.basic import register

Tensor = Any
LARGEST_SCALE = 100.0
EXTENT = 8.0  # of the coordinates, before their logarithm


@register
class WindowPartition(keras.layers.Layer):
    """Cuts a map into windows: (B, H, W, C) -> (B * n, window area, C), n windows row by row.

    The map is first rolled by the shift, then padded with zeros to whole windows.
    Source: Liu et al. 2021, arXiv:2103.14030, section 3.2.

    Args:
        window: Height and width of a window.
        shift: Rows and columns that the map is rolled up and left by.
        **options: Keras' options of a layer.
    """

    def __init__(self, window: tuple[int, int], shift: tuple[int, int], **options: Any) -> None:
        super().__init__(**options)
        self.window = tuple(window)
        self.shift = tuple(shift)

    def call(self, x: Tensor) -> Tensor:
        """Rolls, pads and cuts."""
        if any(self.shift):
            x = ops.roll(x, [-step for step in self.shift], axis=[1, 2])
        _, height, width, channels = ops.shape(x)
        missing = [
            -side % window for side, window in zip((height, width), self.window, strict=True)
        ]
        x = ops.pad(x, [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]])
        return _cut(x, height + missing[0], width + missing[1], channels, self.window)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns (None, window area, C)."""
        return (None, self.window[0] * self.window[1], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "window": self.window, "shift": self.shift}


@register
class WindowMerge(keras.layers.Layer):
    """Undoes `WindowPartition`: (B * n, area, C) and the map (B, H, W, ...) -> (B, H, W, C).

    Args:
        window: Height and width of a window.
        shift: Rows and columns that the map was rolled by.
        **options: Keras' options of a layer.
    """

    def __init__(self, window: tuple[int, int], shift: tuple[int, int], **options: Any) -> None:
        super().__init__(**options)
        self.window = tuple(window)
        self.shift = tuple(shift)

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Puts the windows together, cuts the padding off and rolls back."""
        windows, like = inputs
        _, height, width, _ = ops.shape(like)
        rows, columns = (
            -(-side // window) for side, window in zip((height, width), self.window, strict=True)
        )
        channels = windows.shape[-1]
        x = ops.reshape(windows, (-1, rows, columns, *self.window, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        x = ops.reshape(x, (-1, rows * self.window[0], columns * self.window[1], channels))
        x = x[:, :height, :width]
        return ops.roll(x, list(self.shift), axis=[1, 2]) if any(self.shift) else x

    def compute_output_shape(
        self, input_shape: list[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        """Returns (B, H, W, C)."""
        windows, like = input_shape
        return (*like[:3], windows[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "window": self.window, "shift": self.shift}


@register
class WindowAttention(keras.layers.Layer):
    """Attention within windows, with a bias for each relative position.

    Queries, keys and values (B * n, area, 3C) and the map (B, H, W, ...) -> (B * n, area, C). What
    a shift brought together from opposite sides of the map does not see each other.
    Source: Liu et al. 2021, arXiv:2103.14030, equation 4 and figure 4.

    Args:
        heads: Number of heads.
        window: Height and width of a window.
        shift: Rows and columns that the map was rolled by.
        **options: Keras' options of a layer.
    """

    def __init__(
        self, heads: int, window: tuple[int, int], shift: tuple[int, int], **options: Any
    ) -> None:
        super().__init__(**options)
        self.heads = heads
        self.window = tuple(window)
        self.shift = tuple(shift)

    def build(self, input_shape: Any) -> None:  # noqa: ARG002 - Keras' signature
        """Makes the bias of every relative position and head."""
        height, width = self.window
        self.relative_position_bias_table = self.add_weight(
            shape=((2 * height - 1) * (2 * width - 1), self.heads),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="relative_position_bias_table",
        )

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Attends."""
        qkv, like = inputs[:2]
        area, width = qkv.shape[1], qkv.shape[-1] // 3
        head = width // self.heads
        qkv = ops.reshape(qkv, (-1, area, 3, self.heads, head))
        q, k, v = ops.unstack(
            ops.transpose(qkv, (2, 0, 3, 1, 4)), axis=0
        )  # (B * n, heads, area, c)
        scores = self.scores(q, k)
        bias = ops.take(self.table(inputs), relative_places(*self.window), axis=0)
        scores = scores + ops.cast(ops.transpose(bias, (2, 0, 1)), scores.dtype)
        if any(self.shift):
            mask = ops.cast(self._mask(*ops.shape(like)[1:3]), scores.dtype)  # (n, area, area)
            windows = ops.reshape(scores, (-1, ops.shape(mask)[0], self.heads, area, area))
            scores = ops.reshape(windows + mask[None, :, None], (-1, self.heads, area, area))
        y = ops.matmul(ops.softmax(scores, axis=-1), v)
        return ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (-1, area, width))

    def table(self, inputs: list[Tensor]) -> Tensor:  # noqa: ARG002 - a subclass looks at them
        """Returns the biases (relative positions, heads)."""
        return self.relative_position_bias_table

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Returns how much each query asks for each key: (B * n, heads, area, area)."""
        return ops.matmul(q * q.shape[-1] ** -0.5, ops.swapaxes(k, -1, -2))

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> Any:
        """Returns (None, area, C)."""
        windows, area, width = input_shape[0]
        return (windows, area, (width or 0) // 3)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        shape = {"heads": self.heads, "window": self.window, "shift": self.shift}
        return {**super().get_config(), **shape}

    def _mask(self, height: Any, width: Any) -> Tensor:
        """Returns -100 for pairs from different sides of the map, else 0: (n, area, area)."""
        regions, sides = [], []
        for side, window, shift in zip((height, width), self.window, self.shift, strict=True):
            padded = side + -side % window
            place = ops.arange(padded)
            later = ops.cast(place >= padded - window, "int32")
            regions.append(later + ops.cast(place >= padded - shift, "int32"))
            sides.append(padded)
        region = regions[0][:, None] * 3 + regions[1][None]
        rows, columns = sides
        cut = _cut(region[None, :, :, None], rows, columns, 1, self.window)[..., 0]
        return ops.where(cut[:, :, None] == cut[:, None], 0.0, -100.0)


def relative_places(height: int, width: int) -> Any:
    """Returns where in the table of biases each pair of places in a window is: (area, area)."""
    rows, columns = (side.reshape(-1) for side in np.indices((height, width)))
    down = rows[:, None] - rows[None] + height - 1
    right = columns[:, None] - columns[None] + width - 1
    return (down * (2 * width - 1) + right).astype("int32")


def _cut(x: Tensor, height: Any, width: Any, channels: int, window: tuple[int, ...]) -> Tensor:
    """Cuts a map of whole windows: (B, H, W, C) -> (B * n, area, C)."""
    rows, columns = height // window[0], width // window[1]
    x = ops.reshape(x, (-1, rows, window[0], columns, window[1], channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, window[0] * window[1], channels))


@register
class RelativeCoordinates(keras.layers.Layer):
    """Logarithmic coordinates of all relative positions in a window: (..., C) -> (positions, 2).

    Source: equation 4.

    Args:
        window: Height and width of a window.
        unit: Height and width of the window whose largest distance counts as 1.
        **options: Keras' options of a layer.
    """

    def __init__(self, window: tuple[int, int], unit: tuple[int, int], **options: Any) -> None:
        super().__init__(**options)
        self.window = tuple(window)
        self.unit = tuple(unit)

    def call(self, x: Tensor) -> Tensor:
        """Returns the coordinates, whatever the input."""
        sides = [
            np.arange(1.0 - window, window) * (EXTENT / max(unit - 1, 1))
            for window, unit in zip(self.window, self.unit, strict=True)
        ]
        sides = [np.sign(side) * np.log2(np.abs(side) + 1.0) / math.log2(EXTENT) for side in sides]
        places = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2)
        return ops.convert_to_tensor(places, dtype=x.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int, int]:
        """Returns (positions, 2)."""
        del input_shape
        return (math.prod(2 * window - 1 for window in self.window), 2)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "window": self.window, "unit": self.unit}


@register
class CosineWindowAttention(WindowAttention):
    """Attention by the angle of queries and keys; the biases are a third input (positions, heads).

    Source: equation 2.
    """

    def build(self, input_shape: Any) -> None:
        """Makes a scale per head, and biases of queries and values."""
        width = input_shape[0][-1] // 3
        logarithm = keras.initializers.Constant(math.log(10))
        self.logit_scale = self.add_weight(
            shape=(self.heads, 1, 1), initializer=logarithm, name="logit_scale"
        )
        self.q_bias, self.v_bias = (
            self.add_weight(shape=(width,), initializer="zeros", name=name)
            for name in ("q_bias", "v_bias")
        )

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Attends."""
        qkv, *others = inputs
        none = ops.zeros_like(self.q_bias)
        biases = ops.concatenate([ops.convert_to_tensor(self.q_bias), none, self.v_bias])
        return super().call([qkv + ops.cast(biases, qkv.dtype), *others])

    def table(self, inputs: list[Tensor]) -> Tensor:
        """Returns the biases that the network gives."""
        return inputs[2]

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Returns the scaled cosines: (B * n, heads, area, area)."""
        q, k = (ops.normalize(t, axis=-1, epsilon=1e-12) for t in (q, k))
        scale = ops.exp(ops.minimum(self.logit_scale, math.log(LARGEST_SCALE)))
        return ops.matmul(q, ops.swapaxes(k, -1, -2)) * ops.cast(scale, q.dtype)
