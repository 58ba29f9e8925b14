"""Policies: which of several operations are done to an image is drawn for each image.

Amounts grow with the level. Operations on uint8 images are torchvision's, one after the other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws, as_number
from zoo.augment.image import pixels
from zoo.augment.image.base import ImageAugmentation, check_fill, check_interpolation
from zoo.augment.image.policy_tables import (
    AUGMIX,
    AUTOAUGMENT,
    POLICIES,
    RANDAUGMENT,
    TIMM,
    TRIVIALAUGMENT,
    Operation,
    policy,
)
from zoo.augment.image.program import Step, done, one
from zoo.augment.layer import Parameters, check_one_of, register
from zoo.errors import OptionValueError

MOVEMENTS = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
LEVELS = 30  # of RandAugment and TrivialAugment; AutoAugment has 9
TIMM_LEVELS = 10


class _Policy(ImageAugmentation):
    """Base of policies.

    Args:
        operations: By name.
        interpolation: "nearest" or "bilinear".
        fill: Value of what comes from outside, in [0, 255], one or one per channel.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    moves = True

    def __init__(
        self,
        operations: Mapping[str, Operation],
        *,
        interpolation: str = "nearest",
        fill: Any = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.interpolation = check_interpolation(interpolation)
        self.fill = check_fill(fill)
        self._operations = dict(operations)
        self._names = tuple(operations)

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations; `sample` returns their numbers."""
        return self._names

    def step(self, operation: Tensor, amount: Tensor, shape: tuple[Any, ...]) -> Step:
        """Returns n operations in a row.

        Args:
            operation: Number in `operations`; -1 leaves the image alone: int32 (B, n).
            amount: Its amount, as the kernel takes it (B, n).
            shape: Of the images (B, H, W, C).
        """
        kernels, place = self._kernels()
        matrix = self._movement(operation, amount, shape)
        moved = ops.reshape(matrix, (*_leading(operation), 9))
        is_movement = self._is(operation, *MOVEMENTS)
        plain = ops.stack(
            [amount, ops.zeros_like(amount) + 128.0, *([ops.zeros_like(amount)] * 7)], axis=-1
        )
        args = ops.where(is_movement[..., None], moved, plain)
        places = ops.convert_to_tensor([0, *(place[name] for name in self._names)], "int32")
        index = ops.take(places, ops.cast(operation, "int32") + 1, axis=0)
        total = matrix[:, 0]
        for number in range(1, operation.shape[1]):
            total = ops.matmul(total, matrix[:, number])
        has_movements = any(name in MOVEMENTS for name in self._names)
        return Step(
            args=args, kernels=kernels, index=index, matrix=total if has_movements else None
        )

    def amounts(
        self, operation: Tensor, level: Tensor, sign: Tensor, shape: tuple[Any, ...]
    ) -> Tensor:
        """Returns what levels in [0, 1] mean for operations: (B, n)."""
        height, width = (ops.cast(side, "float32") for side in shape[1:3])
        table = []
        for name, one_of in self._operations.items():
            amount = one_of.low + (one_of.high - one_of.low) * level
            if name == "posterize":
                amount = ops.round(amount)
            if one_of.of_side:
                amount = amount * (width if name.endswith("_x") else height)
            if one_of.signed:
                amount = amount * sign
            if name.startswith("translate"):
                amount = ops.sign(amount) * ops.floor(ops.abs(amount))  # as int() cuts
            table.append(amount + one_of.base)
        every = ops.stack(table, axis=-1)
        chosen = ops.maximum(ops.cast(operation, "int32"), 0)[..., None]
        return ops.squeeze(ops.take_along_axis(every, chosen, axis=-1), -1)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "interpolation": self.interpolation,
            "fill": self.fill,
        }

    def _kernels(self) -> tuple[tuple[pixels.Kernel, ...], dict[str, int]]:
        """Returns the kernels, the first of which changes nothing, and the place of each name."""
        move = pixels.warp(interpolation=self.interpolation, fill=self.fill)
        shift = pixels.shift(self.fill)
        kernels: list[pixels.Kernel] = [pixels.unchanged]
        place = {}
        for name, operation in self._operations.items():
            kernel = operation.kernel or (shift if name.startswith("translate") else move)
            if kernel not in kernels:
                kernels.append(kernel)
            place[name] = kernels.index(kernel)
        return tuple(kernels), place

    def _is(self, operation: Tensor, *names: str) -> Tensor:
        found = [self._names.index(name) for name in names if name in self._names]
        result = operation != operation
        for number in found:
            result = result | (operation == number)
        return result

    def _movement(self, operation: Tensor, amount: Tensor, shape: tuple[Any, ...]) -> Tensor:
        """Returns the matrices of the movements among operations (B, n, 3, 3)."""
        height, width = (ops.cast(side, "float32") for side in shape[1:3])

        def of(name: str) -> Tensor:
            return ops.where(self._is(operation, name), amount, 0.0)

        # Shears leave the upper left corner in its place, as in torchvision.
        shear_x, shear_y = of("shear_x"), of("shear_y")
        angle = of("rotate") * (math.pi / 180.0)
        cos, sin, none = ops.cos(angle), ops.sin(angle), ops.zeros_like(angle)
        rows = (
            (cos, shear_x - sin, shear_x * (0.5 * height) - of("translate_x")),
            (sin + shear_y, cos, shear_y * (0.5 * width) - of("translate_y")),
            (none, none, none + 1.0),
        )
        return ops.stack([ops.stack(row, axis=-1) for row in rows], axis=-2)


@register
class RandAugment(_Policy):
    """A number of operations at one level, drawn anew for every image.

    Source: Cubuk et al. 2019, arXiv:1909.13719; as in torchvision, 14 operations.

    Args:
        num_ops: Operations per image.
        magnitude: Level of 0 to 30.
        magnitude_std: Standard deviation of the level, drawn for each operation.
        **options: `interpolation`, `fill`, and those of every image layer, see
            `ImageAugmentation`.

    Raises:
        OptionValueError: An option that breaks its rule.
    """

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: float = 9.0,
        magnitude_std: float = 0.0,
        **options: Any,
    ) -> None:
        timm = options.pop("timm_operations", False)
        super().__init__(TIMM if timm else RANDAUGMENT, **options)
        if num_ops < 1:
            raise OptionValueError(f"`num_ops` must be at least 1; got num_ops={num_ops!r}.")
        if not 0.0 <= magnitude <= LEVELS:
            raise OptionValueError(
                f"`magnitude` must be in [0, {LEVELS}]; got magnitude={magnitude!r}. A level of "
                "timm's, of 0 to 10, is a third of ours."
            )
        self.num_ops = num_ops
        self.magnitude = float(magnitude)
        self.magnitude_std = magnitude_std
        self.timm_operations = timm

    @classmethod
    def from_string(cls, text: str, **options: Any) -> RandAugment:
        """Returns the policy of timm's string, such as "rand-m9-mstd0.5-inc1" or "rand-m7-n3".

        Raises:
            OptionValueError: A part that is not known.
        """
        name, *parts = text.split("-")
        found: dict[str, float] = {}
        for part in parts:
            match = re.fullmatch(r"(mstd|inc|n|m|p)(\d+(?:\.\d+)?)", part)
            if match is None or name != "rand":
                found.clear()
                break
            found[match[1]] = float(match[2])
        if not found or found.get("inc", 1.0) != 1.0 or "p" in found:
            raise OptionValueError(
                "A policy is written as in timm: rand-m9-mstd0.5-inc1-n2, of m (level of 0 to 10), "
                f"mstd, n and inc1; got {text!r}."
            )
        scale = LEVELS / TIMM_LEVELS
        return cls(
            num_ops=int(found.get("n", 2)),
            magnitude=min(found.get("m", TIMM_LEVELS) * scale, LEVELS),
            magnitude_std=found.get("mstd", 0.0) * scale,
            timm_operations=True,
            **options,
        )

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws operations (B, num_ops) and their amounts."""
        size = (self.num_ops,)
        operation = draws.integers(len(self._names), size)
        applied = draws.chance(self.p)[:, None]
        operation = ops.where(applied, operation, -1)
        level = as_number(self.magnitude) + self.magnitude_std * draws.normal(size)
        level = ops.clip(level, 0.0, LEVELS) / LEVELS
        amount = self.amounts(operation, level, draws.sign(size), shape)
        return {"operation": operation, "amount": amount}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the operations."""
        return [self.step(parameters["operation"], parameters["amount"], shape)]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "num_ops": self.num_ops,
            "magnitude": self.magnitude,
            "magnitude_std": self.magnitude_std,
            "timm_operations": self.timm_operations,
        }


@register
class TrivialAugmentWide(_Policy):
    """One operation at a random level, drawn anew for every image; there is nothing to tune.

    Source: Mueller and Hutter 2021, arXiv:2103.10158.

    Args:
        **options: `interpolation`, `fill`, and those of every image layer, see
            `ImageAugmentation`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(TRIVIALAUGMENT, **options)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the operation (B, 1) and its amount."""
        operation = draws.integers(len(self._names), (1,))
        operation = ops.where(draws.chance(self.p)[:, None], operation, -1)
        level = ops.cast(draws.integers(LEVELS + 1, (1,)), "float32") / LEVELS
        amount = self.amounts(operation, level, draws.sign((1,)), shape)
        return {"operation": operation, "amount": amount}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the operation."""
        return [self.step(parameters["operation"], parameters["amount"], shape)]


@register
class AutoAugment(_Policy):
    """Two operations of a policy that was found by search, one of 25 pairs per image.

    Source: Cubuk et al. 2018, arXiv:1805.09501.

    Args:
        policy: "imagenet", "cifar10" or "svhn".
        **options: `interpolation`, `fill`, and those of every image layer, see
            `ImageAugmentation`.
    """

    def __init__(self, policy: str = "imagenet", **options: Any) -> None:
        super().__init__(AUTOAUGMENT, **options)
        self.policy = check_one_of("policy", policy, tuple(POLICIES))

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws a pair of operations (B, 2) and their amounts."""
        pairs = policy(self.policy)
        number = np.array([[self._names.index(o[0]) for o in pair] for pair in pairs], "int32")
        chance = np.array([[o[1] for o in pair] for pair in pairs], "float32")
        level = np.array([[o[2] / 9.0 for o in pair] for pair in pairs], "float32")
        chosen = draws.integers(len(pairs))
        operation = ops.take(ops.convert_to_tensor(number), chosen, axis=0)
        used = draws.uniform(shape=(2,)) < ops.take(ops.convert_to_tensor(chance), chosen, axis=0)
        used = used & draws.chance(self.p)[:, None]
        operation = ops.where(used, operation, -1)
        levels = ops.take(ops.convert_to_tensor(level), chosen, axis=0)
        amount = self.amounts(operation, levels, draws.sign((2,)), shape)
        return {"operation": operation, "amount": amount}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the operations."""
        return [self.step(parameters["operation"], parameters["amount"], shape)]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "policy": self.policy}


@register
class AugMix(_Policy):
    """Mixes an image with the mixture of three chains of operations on it.

    Boxes, masks and keypoints stay, since the image itself is part of the mixture.

    Source: Hendrycks et al. 2019, arXiv:1912.02781, algorithm 1.

    Args:
        severity: Highest level of an operation, of 0 to 10.
        width: Chains.
        depth: Operations per chain; -1 draws 1 to 3.
        alpha: Of the Dirichlet and beta distributions of the weights.
        **options: `interpolation`, `fill`, and those of every image layer, see
            `ImageAugmentation`.
    """

    moves = False

    def __init__(
        self,
        severity: float = 3.0,
        width: int = 3,
        depth: int = -1,
        alpha: float = 1.0,
        **options: Any,
    ) -> None:
        options.setdefault("interpolation", "bilinear")
        super().__init__(AUGMIX, **options)
        if not 0.0 < severity <= TIMM_LEVELS:
            raise OptionValueError(f"`severity` must be in (0, 10]; got severity={severity!r}.")
        if width < 1 or depth == 0 or depth < -1 or alpha <= 0:
            raise OptionValueError(
                "`width` and `depth` must be at least 1 (or depth=-1) and `alpha` positive; got "
                f"width={width!r}, depth={depth!r}, alpha={alpha!r}."
            )
        self.severity, self.width, self.depth, self.alpha = severity, width, depth, alpha

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws operations and amounts (B, width * longest), weights (B, width), a share (B,)."""
        longest = self._longest
        size = (self.width * longest,)
        operation = draws.integers(len(self._names), size)
        if self.depth == -1:
            depth = 1 + draws.integers(longest, (self.width,))
            place = ops.arange(longest, dtype="int32")[None, None, :]
            used = ops.reshape(place < depth[:, :, None], (-1, *size))
            operation = ops.where(used, operation, -1)
        operation = ops.where(draws.chance(self.p)[:, None], operation, -1)
        level = draws.uniform(0.1, self.severity, size) / TIMM_LEVELS
        amount = self.amounts(operation, level, draws.sign(size), shape)
        parts = ops.stack([draws.gamma(self.alpha) for _ in range(self.width)], axis=-1)
        return {
            "operation": operation,
            "amount": amount,
            "weights": parts / ops.sum(parts, axis=-1, keepdims=True),
            "share": draws.beta(self.alpha, self.alpha),
        }

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns one operation that holds the chains."""
        chains = self.step(parameters["operation"], parameters["amount"], shape)
        count = self.width * self._longest
        kernels = chains.kernels
        width, longest = self.width, self._longest

        def mix(image: Tensor, args: Tensor) -> Tensor:
            numbers = ops.reshape(args[: 9 * count], (count, 9))
            index = ops.cast(args[9 * count : 10 * count], "int32")
            weights, share = args[10 * count : 10 * count + width], args[10 * count + width]
            x = ops.cast(image, "float32")
            total = (1.0 - share) * x
            for chain in range(width):
                step = Step(args=numbers[None], kernels=kernels, index=index[None])
                part = slice(chain * longest, (chain + 1) * longest)
                changed = done(step, image, numbers[part], index[part])
                total = total + share * weights[chain] * ops.cast(changed, "float32")
            return ops.to_uint8(total) if "int" in str(image.dtype) else total

        args = ops.concatenate(
            [
                ops.reshape(chains.args, (-1, 9 * count)),
                ops.cast(chains.index, "float32"),
                parameters["weights"],
                parameters["share"][:, None],
            ],
            axis=-1,
        )
        return [Step(args=args[:, None, :], kernels=(mix,))]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "severity": self.severity,
            "width": self.width,
            "depth": self.depth,
            "alpha": self.alpha,
        }

    @property
    def _longest(self) -> int:
        return 3 if self.depth == -1 else self.depth


@register
class ThreeAugment(ImageAugmentation):
    """One of gray, inverted from the middle on, or blurred, for every image.

    Source: Touvron et al. 2022, arXiv:2204.07118, section 3.3 (with flip, crop and ColorJitter
    beside it).

    Args:
        sigma: Range of the blur's deviation in pixels.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    def __init__(self, sigma: tuple[float, float] = (0.1, 2.0), **options: Any) -> None:
        super().__init__(**options)
        self.sigma = sigma

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the operation: 0 gray, 1 inverted, 2 blurred, -1 none; and the deviation."""
        del shape
        operation = ops.where(draws.chance(self.p), draws.integers(3), -1)
        return {"operation": operation, "sigma": draws.uniform(*self.sigma)}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns one of three operations."""
        del shape
        operation, sigma = parameters["operation"], parameters["sigma"]
        amount = ops.where(operation == 1, 128.0, sigma)
        kernels = (
            pixels.unchanged,
            pixels.grayscale,
            pixels.solarize,
            pixels.gaussian_blur(9),
        )
        step = one(pixels.unchanged, amount)
        index = (ops.cast(operation, "int32") + 1)[:, None]
        return [Step(args=step.args, kernels=kernels, index=index)]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "sigma": self.sigma}


def _leading(x: Tensor) -> Sequence[int]:
    return (-1, int(x.shape[1]))
