"""What an image layer does to a batch, as data: steps, each with its numbers per sample.

Every image layer translates its parameters into steps. A pipeline of layers is the steps of all of
them: neighbours that only move pixels become one movement, and each image goes through all steps
while it is in the cache. What differs from sample to sample, such as which operation is done, is a
number; so a batch needs one compiled program, and a sample pays only for what is done to it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.image.pixels import Fill, Kernel, unchanged, warp


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How a movement takes its pixels.

    Attributes:
        interpolation: "nearest" or "bilinear".
        fill: Value outside of the image, for all channels or for each, or "edge".
        size: Height and width of the result; None keeps the image's.
    """

    interpolation: str = "bilinear"
    fill: Fill = (0.0,)
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation on each image of a batch, or n in a row.

    Attributes:
        args: Numbers for the kernels (B, n, A).
        kernels: What may be done; with one and no index, it is done to all.
        index: Which kernel is used: int32 (B, n).
        matrix: Where the pixels come from, as in `pixels.warp` (B, 3, 3); None: they stay.
        resampling: The step is a movement by its matrix, and this is how.
        joins: The movement may be made part of a neighbour's.
    """

    args: Tensor
    kernels: tuple[Kernel, ...]
    index: Tensor | None = None
    matrix: Tensor | None = None
    resampling: Resampling | None = None
    joins: bool = False


def one(kernel: Kernel, *numbers: Tensor, applied: Tensor | None = None) -> Step:
    """Returns a step of one kernel.

    Args:
        kernel: The kernel.
        *numbers: Its args, each (B,).
        applied: Whether it is used: bool (B,); None is always.
    """
    args = stacked(numbers)
    if applied is None:
        return Step(args=args, kernels=(kernel,))
    index = ops.expand_dims(ops.cast(applied, "int32"), 1)
    return Step(args=args, kernels=(unchanged, kernel), index=index)


def movement(matrix: Tensor, resampling: Resampling) -> Step:
    """Returns a step that moves pixels by a matrix (B, 3, 3)."""
    return Step(
        args=ops.reshape(matrix, (-1, 1, 9)),
        kernels=(
            warp(
                resampling.size,
                interpolation=resampling.interpolation,
                fill=resampling.fill,
            ),
        ),
        matrix=matrix,
        resampling=resampling,
        joins=True,
    )


def stacked(numbers: Sequence[Tensor]) -> Tensor:
    """Returns numbers (B,) as args of one operation: (B, 1, A)."""
    return ops.expand_dims(ops.stack([ops.cast(n, "float32") for n in numbers], axis=-1), 1)


def planned(steps: Sequence[Step]) -> list[Step]:
    """Returns equal steps in which neighbouring movements are one."""
    plan: list[Step] = []
    for step in steps:
        joined = _joined(plan[-1], step) if plan else None
        if joined is None:
            plan.append(step)
        else:
            plan[-1] = joined
    return plan


def _joined(first: Step, second: Step) -> Step | None:
    if not (first.joins and second.joins):
        return None
    one_way, other = first.resampling, second.resampling
    if one_way is None and other is None:  # two flips cost less than a movement
        return None
    if one_way is not None and other is not None:
        if replace(one_way, size=None) != replace(other, size=None):
            return None
        how = replace(one_way, size=other.size or one_way.size)
    else:
        how = one_way or other or Resampling()
    return movement(ops.matmul(first.matrix, second.matrix), how)


def total_movement(steps: Sequence[Step]) -> Tensor | None:
    """Returns the matrix of all steps together (B, 3, 3), or None if all pixels stay."""
    matrices = [step.matrix for step in steps if step.matrix is not None]
    if not matrices:
        return None
    return functools.reduce(ops.matmul, matrices)


def run(images: Tensor, steps: Sequence[Step]) -> Tensor:
    """Does the steps to a batch (B, H, W, C)."""
    steps = planned(steps)
    if not steps:
        return images
    args = tuple(step.args for step in steps)
    indices = tuple(step.index for step in steps if step.index is not None)

    def through(packed: Any) -> Tensor:
        image, args, indices = packed
        rest = list(indices)
        for step, numbers in zip(steps, args, strict=True):
            index = None if step.index is None else rest.pop(0)
            image = done(step, image, numbers, index)
        return image

    return _over_batch(through, (images, args, indices))


def done(step: Step, image: Tensor, args: Tensor, index: Tensor | None) -> Tensor:
    """Does a step to one image.

    Args:
        step: The step.
        image: (H, W, C).
        args: The step's numbers for it (n, A).
        index: The kernels that are used (n,), if the step has an index.
    """
    if index is None:
        for number in range(args.shape[0]):
            image = step.kernels[0](image, args[number])
        return image
    count = index.shape[0]
    if count == 1:
        return _switch(index[0], step.kernels, image, args[0])

    def body(i: Tensor, image: Tensor) -> Tensor:
        chosen = ops.take(index, i, axis=0)
        return _switch(chosen, step.kernels, image, ops.take(args, i, axis=0))

    return ops.fori_loop(0, count, body, image)


def _switch(index: Tensor, kernels: Sequence[Kernel], image: Tensor, args: Tensor) -> Tensor:
    if ops.backend() == "torch":
        return kernels[int(index)](image, args)
    return ops.switch(index, list(kernels), image, args)


def _over_batch(function: Any, packed: Any) -> Tensor:
    kind = ops.backend()
    if kind == "torch":
        images, args, indices = packed
        rows = range(images.shape[0])
        return ops.stack(
            [
                function((images[i], tuple(a[i] for a in args), tuple(n[i] for n in indices)))
                for i in rows
            ]
        )
    if kind == "jax":
        import jax

        if jax.default_backend() != "cpu":  # where branches cost less than one after the other
            return ops.vectorized_map(function, packed)
    return ops.map(function, packed)
