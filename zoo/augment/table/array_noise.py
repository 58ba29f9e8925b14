"""Noise on arrays of any rank: rows of a table, series, images.

Values of an integer type get whole numbers added, and stay within their type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.layer import (
    Augmentation,
    Data,
    Parameters,
    check_around,
    check_range,
    register,
)
from zoo.errors import OptionValueError


class ArrayAugmentation(Augmentation):
    """Base of layers on features.

    Args:
        **options: `p`, `seed`, `name`.
    """

    main = "features"
    rank = 1
    keys = ("features", "labels")


class ArrayNoise(ArrayAugmentation):
    """Base of layers that change each value by itself.

    Args:
        rank: Axes of one sample: 1 for rows of a table, 2 for series (T, F), 3 for images.
        **options: `p`, `seed`, `name`.

    Raises:
        OptionValueError: An option that breaks its rule.
    """

    def __init__(self, *, rank: int = 1, **options: Any) -> None:
        super().__init__(**options)
        if rank < 1:
            raise OptionValueError(f"`rank` must be at least 1; got rank={rank!r}.")
        self.rank = rank

    def per_sample(self, values: Tensor) -> Tensor:
        """Returns numbers (B,) in a shape that goes with a batch."""
        return ops.reshape(values, (-1, *(1 for _ in range(self.rank))))

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "rank": self.rank}


@register
class GaussianFeatureNoise(ArrayNoise):
    """Adds normal noise, drawn for each value.

    Source: Bishop 1995, "Training with noise is equivalent to Tikhonov regularization".

    Args:
        deviation: Range (low, high) of its standard deviation, of which each sample has one, in
            units of `scale`; a number is always that one.
        scale: Of each column (the last axis), such as its standard deviation; 0 leaves a column
            as it is, such as one of classes. None is 1 for all.
        **options: `rank`, `p`, `seed`, `name`, see `ArrayNoise`.
    """

    def __init__(
        self, deviation: Any = 0.1, scale: Sequence[float] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        if isinstance(deviation, int | float):
            deviation = (deviation, deviation)
        self.deviation = check_range("deviation", deviation, least=0.0)
        self.scale = None if scale is None else tuple(float(value) for value in scale)
        if any(value < 0 or not np.isfinite(value) for value in self.scale or ()):
            raise OptionValueError(f"`scale` must be finite and not negative; got scale={scale!r}.")

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws deviations (B,), 0 where nothing is added, and standard normal noise (B, ...)."""
        deviation = draws.uniform(*self.deviation)
        return {
            "deviation": ops.where(draws.chance(self.p), deviation, 0.0),
            "noise": draws.normal(shape[1:]),
        }

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Adds the noise."""
        noise = parameters["noise"] * self.per_sample(parameters["deviation"])
        if self.scale is not None:
            noise = noise * columns_of("scale", self.scale, noise)
        return {**data, "features": added(data["features"], noise)}

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "deviation": self.deviation, "scale": self.scale}


@register
class AdditiveNoise(ArrayNoise):
    """Adds uniform noise, drawn for each value.

    Args:
        amount: Range (low, high) of the noise in units of the values, or a for (-a, a).
        **options: `rank`, `p`, `seed`, `name`, see `ArrayNoise`.
    """

    def __init__(self, amount: Any = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.amount = check_around("amount", amount, center=0.0, least=float("-inf"))

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the noise (B, ...), 0 for samples that stay."""
        applied = self.per_sample(draws.chance(self.p))
        return {"noise": ops.where(applied, draws.uniform(*self.amount, shape[1:]), 0.0)}

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Adds the noise."""
        return {**data, "features": added(data["features"], parameters["noise"])}

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "amount": self.amount}


@register
class DropoutNoise(ArrayNoise):
    """Sets values to one value; the others are not scaled, unlike in `keras.layers.Dropout`.

    Source: masking noise in Vincent et al. 2010, "Stacked denoising autoencoders", JMLR 11.

    Args:
        rate: Range (low, high) of the share of values that are set, of which each sample has one;
            a number is always that one.
        value: What they are set to.
        shared_axes: Axes of a sample along which values are set together: with (0,) whole columns
            of series (T, F), with (0, 1) whole channels of images (H, W, C).
        **options: `rank`, `p`, `seed`, `name`, see `ArrayNoise`.
    """

    def __init__(
        self,
        rate: Any = 0.1,
        value: float = 0.0,
        shared_axes: Sequence[int] = (),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if isinstance(rate, int | float):
            rate = (rate, rate)
        self.rate = check_range("rate", rate, least=0.0, most=1.0)
        self.value = value
        self.shared_axes = tuple(shared_axes)
        if any(axis not in range(self.rank) for axis in self.shared_axes):
            raise OptionValueError(
                f"`shared_axes` must be axes of a sample, 0 to {self.rank - 1}; got "
                f"shared_axes={shared_axes!r}."
            )

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws which values are set: bool (B, ...), of size 1 along shared axes."""
        sizes = [1 if i in self.shared_axes else size for i, size in enumerate(shape[1:])]
        rate = ops.where(draws.chance(self.p), draws.uniform(*self.rate), 0.0)
        return {"dropped": draws.uniform(shape=sizes) < self.per_sample(rate)}

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Sets values."""
        return {**data, "features": replaced(data["features"], parameters["dropped"], self.value)}

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "rate": self.rate,
            "value": self.value,
            "shared_axes": self.shared_axes,
        }


def added(values: Tensor, noise: Tensor) -> Tensor:
    """Returns values with float32 noise added, in the type of the values."""
    kind = keras.backend.standardize_dtype(values.dtype)
    if "int" not in kind:
        wide = "float64" if kind == "float64" else "float32"
        return ops.cast(ops.cast(values, wide) + ops.cast(noise, wide), values.dtype)
    limits = np.iinfo(kind)
    rough = ops.cast(values, "float32")
    noise = ops.clip(ops.round(noise), float(limits.min) - rough, float(limits.max) - rough)
    noise = ops.cast(ops.clip(noise, -(2.0**31), 2.0**31 - 128.0), "int32")
    return values + ops.cast(noise, values.dtype)  # where that wraps, the sum wraps back


def replaced(values: Tensor, where: Tensor, new: Any) -> Tensor:
    """Returns values with others in some places, in the type of the values."""
    result = ops.where(where, ops.cast(new, values.dtype), values)
    return ops.cast(result, values.dtype)  # on JAX, Keras takes 64 bits for 32 in tf.data too


def columns_of(name: str, value: Any, like: Tensor) -> Tensor:
    """Returns one number, or one per column of the last axis, as float32.

    Raises:
        OptionValueError: There are more or fewer columns.
    """
    count = like.shape[-1]
    if isinstance(value, tuple) and count is not None and len(value) != count:
        raise OptionValueError(
            f"`{name}` must be one number per column, {count}; got {len(value)} of them."
        )
    return ops.convert_to_tensor(value, "float32")
