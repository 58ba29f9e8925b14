"""Deterministic weights and inputs, the same in any process with numpy and nothing else.

Every tensor is filled by a counter hash seeded with the CRC-32 of its reference name, scaled by
fan-in, with batch-norm statistics, biases and heads away from their neutral values: a golden output
then needs no stored weights, and an untouched zero head cannot make a comparison vacuous.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def hash_uniform(name: str, count: int) -> Array:
    """`count` numbers in [0, 1), a pure function of the name: splitmix64 of (crc32, counter)."""
    seed = np.uint64(zlib.crc32(name.encode())) << np.uint64(32)
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) + seed
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def fill(name: str, shape: tuple[int, ...], gain: float = 1.0) -> Array:
    """The value of a reference tensor, in the reference's (torch) axis order.

    `gain` multiplies the scales of normalisations. With those at 1, what a very deep network makes
    of an input can be chaotic: a change in the last bit moves its logits by more than any bar.
    """
    u = hash_uniform(name, math.prod(shape)).reshape(shape)
    if name.endswith("running_var"):
        return u + np.float32(0.5)
    if len(shape) > 1:
        bound = np.float32(math.sqrt(6 / math.prod(shape[1:])))
        return (u * 2 - 1) * bound
    if name.endswith(("running_mean", "bias")):
        return (u * 2 - 1) * np.float32(0.2)
    return (u * np.float32(0.5) + np.float32(0.5)) * np.float32(gain)  # of normalisations


def noise(shape: tuple[int, ...]) -> Array:
    """An input in [-2, 2)."""
    return hash_uniform("input", math.prod(shape)).reshape(shape) * 4 - 2


def fingerprint(keys: Iterable[tuple[str, tuple[int, ...]]]) -> int:
    """A number that changes when any tensor's name or shape does."""
    lines = sorted(f"{name} {tuple(int(s) for s in shape)}" for name, shape in keys)
    return zlib.crc32("\n".join(lines).encode())
