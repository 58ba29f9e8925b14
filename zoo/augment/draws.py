"""Random numbers that depend on a seed and on nothing else: not on order, threads or backend.

A hash of 32-bit integers, counted instead of stepped: the n-th number of a sample is known without
those before it. TensorFlow, JAX and torch compute the same bits.

Source: the hash is "lowbias32", Wellons 2018, https://nullprogram.com/blog/2018/07/31/.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor

_GOLDEN = -1640531527  # 2^32 / golden ratio, as int32
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - (1 << 32)


def hashed(x: Tensor) -> Tensor:
    """Returns int32 numbers scrambled: each bit of the result depends on all bits of x."""
    x = (x ^ _shifted(x, 16)) * _FIRST
    x = (x ^ _shifted(x, 15)) * _SECOND
    return x ^ _shifted(x, 16)


def folded(seeds: Tensor, number: Tensor | int) -> Tensor:
    """Returns new seeds, one per seed and number.

    Args:
        seeds: int32.
        number: int32, of a shape that goes with the seeds'.
    """
    if isinstance(number, int):
        number = int(np.uint32(number & 0xFFFFFFFF).view(np.int32))
        number = ops.convert_to_tensor(number, "int32")
    return hashed(hashed(seeds + _GOLDEN) ^ (number * _GOLDEN + _FIRST))


def stream(text: str) -> int:
    """Returns a number for a name."""
    return zlib.crc32(text.encode())


def as_number(value: Any) -> Any:
    """Returns a plain number as it is, and what stands for one as a tensor: float32."""
    if isinstance(value, int | float):
        return value
    return ops.convert_to_tensor(value, "float32")


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shifts to the right, filling with zeros."""
    return ops.bitwise_and(ops.right_shift(x, bits), (1 << (32 - bits)) - 1)


class Draws:
    """Random numbers of a batch: one independent series per sample.

    Args:
        seeds: int32 (B,).
    """

    def __init__(self, seeds: Tensor) -> None:
        self.seeds = seeds
        self._drawn = 0

    def split(self) -> Tensor:
        """Returns seeds (B,) that no other draw uses."""
        self._drawn += 1
        return folded(self.seeds, self._drawn)

    def uniform(
        self,
        low: float | Tensor = 0.0,
        high: float | Tensor = 1.0,
        shape: Sequence[int] = (),
    ) -> Tensor:
        """Returns float32 numbers in [low, high): (B, *shape)."""
        low, high = as_number(low), as_number(high)
        return low + (high - low) * self._unit(tuple(shape))

    def normal(self, shape: Sequence[int] = ()) -> Tensor:
        """Returns float32 numbers of a standard normal distribution: (B, *shape)."""
        radius = ops.sqrt(-2.0 * ops.log(1.0 - self._unit(tuple(shape))))
        return radius * ops.cos(2.0 * math.pi * self._unit(tuple(shape)))

    def integers(self, high: int | Tensor, shape: Sequence[int] = ()) -> Tensor:
        """Returns int32 numbers in [0, high): (B, *shape)."""
        unit = self._unit(tuple(shape))
        number = ops.cast(ops.floor(unit * ops.cast(high, "float32")), "int32")
        return ops.minimum(number, ops.cast(high, "int32") - 1)

    def chance(self, p: float | Tensor, shape: Sequence[int] = ()) -> Tensor:
        """Returns True with probability p: bool (B, *shape)."""
        return self._unit(tuple(shape)) < as_number(p)

    def sign(self, shape: Sequence[int] = ()) -> Tensor:
        """Returns -1.0 or 1.0: (B, *shape)."""
        return ops.where(self._unit(tuple(shape)) < 0.5, -1.0, 1.0)

    def choice(self, weights: Sequence[float], shape: Sequence[int] = ()) -> Tensor:
        """Returns int32 indices drawn by their weights: (B, *shape)."""
        ends = np.cumsum(np.asarray(weights, "float64") / np.sum(weights))[:-1].astype("float32")
        unit = ops.expand_dims(self._unit(tuple(shape)), -1)
        return ops.sum(ops.cast(unit >= ends, "int32"), axis=-1)

    def permutation(self, size: int) -> Tensor:
        """Returns the numbers below `size` in random order: int32 (B, size)."""
        return ops.cast(ops.argsort(self._unit((size,)), axis=-1), "int32")

    def gamma(self, shape_parameter: float) -> Tensor:
        """Returns float32 numbers of a gamma distribution of scale 1: (B,).

        Source: Marsaglia and Tsang 2000, section 2; of 16 proposals the first accepted is taken,
        which fails less than once in 10^20 draws.
        """
        boost = shape_parameter < 1.0
        d = (shape_parameter + 1.0 if boost else shape_parameter) - 1.0 / 3.0
        x = self.normal((16,))
        v = (1.0 + x / math.sqrt(9.0 * d)) ** 3
        safe = ops.maximum(v, 1e-30)
        u = ops.maximum(self._unit((16,)), 1e-30)
        accepted = (v > 0) & (ops.log(u) < 0.5 * x * x + d - d * v + d * ops.log(safe))
        first = ops.argmax(ops.cast(accepted, "int32"), axis=-1)
        chosen = ops.cast(ops.arange(16), "int32") == ops.expand_dims(ops.cast(first, "int32"), -1)
        value = d * ops.sum(ops.where(chosen, safe, 0.0), axis=-1)
        if boost:
            value = value * ops.maximum(self._unit(()), 1e-30) ** (1.0 / shape_parameter)
        return value

    def beta(self, a: float, b: float) -> Tensor:
        """Returns float32 numbers of a beta distribution: (B,)."""
        first, second = self.gamma(a), self.gamma(b)
        return first / ops.maximum(first + second, 1e-30)

    def _unit(self, shape: tuple[int, ...]) -> Tensor:
        """Returns multiples of 2^-24 in [0, 1): (B, *shape)."""
        seeds = self.split()
        if shape:
            numbers = ops.reshape(ops.arange(math.prod(shape), dtype="int32"), (1, *shape))
            seeds = ops.reshape(seeds, (-1, *(1 for _ in shape)))
            seeds = folded(seeds, numbers)
        return ops.cast(_shifted(seeds, 8), "float32") * 2.0**-24
