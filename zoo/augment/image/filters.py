"""Blur and noise, and random numbers inside of kernels.

Source: torchvision.transforms.v2.
"""

from __future__ import annotations

from typing import Any

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws, folded
from zoo.augment.image import pixels
from zoo.augment.image.base import Sometimes
from zoo.augment.image.program import Step, one
from zoo.augment.layer import Parameters, check_range, register
from zoo.errors import OptionValueError


@register
class GaussianBlur(Sometimes):
    """Blurs by a Gaussian.

    Args:
        sigma: Range (low, high) of its deviation in pixels.
        kernel_size: Pixels across, odd, at which it is cut off.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    def __init__(self, sigma: Any = (0.1, 2.0), kernel_size: int = 9, **options: Any) -> None:
        super().__init__(**options)
        if isinstance(sigma, int | float):
            sigma = (sigma, sigma)
        self.sigma = check_range("sigma", sigma, least=1e-3)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise OptionValueError(
                f"`kernel_size` must be odd and positive; got kernel_size={kernel_size!r}."
            )
        self.kernel_size = kernel_size

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the deviation."""
        del shape
        return {"sigma": draws.uniform(*self.sigma)}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the kernel with the deviation."""
        del shape
        kernel = pixels.gaussian_blur(self.kernel_size)
        return [one(kernel, parameters["sigma"], applied=parameters.get("applied"))]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "sigma": self.sigma, "kernel_size": self.kernel_size}


@register
class GaussianNoise(Sometimes):
    """Adds normal noise, of a number of its own for each value.

    Args:
        deviation: Range (low, high) of its standard deviation, in values of 0 to 255; a number is
            always that one.
        mean: Its mean.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    def __init__(self, deviation: Any = (0.0, 25.0), mean: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        if isinstance(deviation, int | float):
            deviation = (deviation, deviation)
        self.deviation = check_range("deviation", deviation, least=0.0)
        self.mean = mean

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the deviation, and the seed of the noise."""
        del shape
        return {"deviation": draws.uniform(*self.deviation), "noise_seed": draws.split()}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the kernel."""
        del shape
        deviation = parameters["deviation"]
        mean = ops.zeros_like(deviation) + self.mean
        halves = seed_halves(parameters["noise_seed"])
        kernel = pixels.gaussian_noise(normal_of_seed)
        return [one(kernel, deviation, mean, *halves, applied=parameters.get("applied"))]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "deviation": self.deviation, "mean": self.mean}


def seed_halves(seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Returns int32 seeds as two numbers that float32 holds exactly."""
    high = ops.right_shift(seeds, 16)
    return ops.cast(high, "float32"), ops.cast(ops.bitwise_and(seeds, 65535), "float32")


def uniform_of_seed(seed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns uniform numbers in [0, 1) of a seed ()."""
    return Draws(ops.reshape(seed, (1,))).uniform(shape=shape)[0]


def normal_of_seed(seed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns normal numbers of a seed ()."""
    return Draws(ops.reshape(folded(seed, 0), (1,))).normal(shape)[0]
