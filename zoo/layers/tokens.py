"""From maps to sequences of tokens and back."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from zoo.layers.basic import register

Tensor = Any


@register
class TokenEmbedding(keras.layers.Layer):
    """Makes a sequence of a map: (B, H, W, C) -> (B, P + H * W, C), with P learned tokens in front.

    Position embeddings are added, which belong to a grid of `grid` cells. For a map of another size
    they are resampled by Keys' cubic kernel, which is widened where the map is smaller.

    Args:
        grid: Height and width of the map that the position embeddings belong to.
        tokens: Name and number of the learned tokens, in order.
        positions_for_tokens: Whether the learned tokens have position embeddings too.
        **options: Keras' options of a layer.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        tokens: dict[str, int],
        *,
        positions_for_tokens: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.grid = tuple(grid)
        self.tokens = dict(tokens)
        self.positions_for_tokens = positions_for_tokens

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the tokens (1, n, C) and the position embeddings (1, cells, C)."""
        width = input_shape[-1]
        extra = sum(self.tokens.values()) if self.positions_for_tokens else 0
        self._learned = [
            self.add_weight(
                shape=(1, count, width),
                initializer=keras.initializers.RandomNormal(stddev=1e-6),
                name=name,
            )
            for name, count in self.tokens.items()
        ]
        self.pos_embed = self.add_weight(
            shape=(1, self.grid[0] * self.grid[1] + extra, width),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="pos_embed",
        )

    def call(self, x: Tensor) -> Tensor:
        """Adds positions and tokens."""
        shape = ops.shape(x)
        batch, height, width, channels = shape
        extra = sum(self.tokens.values()) if self.positions_for_tokens else 0
        first, cells = self.pos_embed[:, :extra], self.pos_embed[:, extra:]
        cells = ops.cast(self._resampled(cells, height, width), x.dtype)
        x = ops.reshape(x, (-1, height * width, channels)) + cells
        if not self.tokens:
            return x
        learned = ops.concatenate([ops.convert_to_tensor(one) for one in self._learned], axis=1)
        if extra:
            learned = learned + first
        learned = ops.broadcast_to(ops.cast(learned, x.dtype), (batch, *learned.shape[1:]))
        return ops.concatenate([learned, x], axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns (B, P + H * W, C)."""
        batch, height, width, channels = input_shape
        before = sum(self.tokens.values())
        length = None if height is None or width is None else before + height * width
        return (batch, length, channels)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "grid": self.grid,
            "tokens": self.tokens,
            "positions_for_tokens": self.positions_for_tokens,
        }

    def _resampled(self, cells: Tensor, height: Any, width: Any) -> Tensor:
        """Returns the position embeddings of a map: (1, cells, C) -> (1, height * width, C)."""
        known = isinstance(height, int) and isinstance(width, int)
        if known and (height, width) == self.grid:
            return cells
        cells = ops.reshape(cells, (*self.grid, -1))
        rows, columns = (
            cubic_weights(old, new) for old, new in zip(self.grid, (height, width), strict=True)
        )
        cells = ops.einsum("ph,hwc->pwc", rows, ops.cast(cells, "float32"))
        cells = ops.einsum("qw,pwc->pqc", columns, cells)
        return ops.reshape(cells, (1, height * width, -1))


def cubic_weights(old: int, new: Any) -> Tensor:
    """Returns the share of each of `old` values in each of `new` ones: (new, old), float32.

    Source: Keys 1981, "Cubic convolution interpolation", a = -1/2; pixel centres are at halves, and
    shares that fall outside go to the others, as in Pillow and in torch with antialias.
    """
    scale = float(old) / ops.cast(new, "float32")
    spread = ops.maximum(scale, 1.0)
    centre = (ops.cast(ops.arange(new), "float32") + 0.5) * scale
    place = ops.arange(old, dtype="float32") + 0.5
    distance = ops.abs(place[None] - centre[:, None]) / spread
    near = (1.5 * distance - 2.5) * distance**2 + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    weights = ops.where(distance < 1, near, ops.where(distance < 2, far, 0.0))
    return weights / ops.sum(weights, axis=1, keepdims=True)


@register
class TokenMap(keras.layers.Layer):
    """Makes a map of a sequence: (B, P + H * W, C) and a map (B, H, W, ...) -> (B, H, W, C).

    Args:
        tokens: P, the number of tokens in front, which are left out.
        **options: Keras' options of a layer.
    """

    def __init__(self, tokens: int, **options: Any) -> None:
        super().__init__(**options)
        self.tokens = tokens

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Reshapes."""
        sequence, like = inputs
        _, height, width, _ = ops.shape(like)
        return ops.reshape(sequence[:, self.tokens :], (-1, height, width, sequence.shape[-1]))

    def compute_output_shape(
        self, input_shape: list[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        """Returns (B, H, W, C)."""
        sequence, like = input_shape
        return (*like[:3], sequence[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "tokens": self.tokens}


@register
class LatentQuery(keras.layers.Layer):
    """A learned token for every example: (B, N, C) -> (B, 1, C), whatever the input's values."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the token (1, 1, C)."""
        width = input_shape[-1] or 1
        initializer = keras.initializers.TruncatedNormal(stddev=width**-0.5)
        self.latent = self.add_weight(shape=(1, 1, width), initializer=initializer, name="latent")

    def call(self, x: Tensor) -> Tensor:
        """Repeats the token for the batch."""
        return ops.repeat(ops.cast(self.latent, x.dtype), ops.shape(x)[0], axis=0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns (B, 1, C)."""
        return (input_shape[0], 1, input_shape[-1])
