"""Layers that change the values of pixels, each image by an amount of its own.

Source: torchvision.transforms.v2, unless a layer says otherwise.
"""

from __future__ import annotations

from typing import Any

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws, folded
from zoo.augment.image import pixels
from zoo.augment.image.base import ImageAugmentation, Sometimes
from zoo.augment.image.program import Step, one
from zoo.augment.layer import Parameters, check_around, check_range, register
from zoo.errors import OptionValueError


class _Factor(Sometimes):
    """Base of layers whose kernel takes one number of a range."""

    kernel: pixels.Kernel

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the factor."""
        del shape
        return {"factor": draws.uniform(*self.factor)}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the kernel with the factor."""
        del shape
        kernel = type(self).kernel
        return [one(kernel, parameters["factor"], applied=parameters.get("applied"))]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "factor": self.factor}

    def __init__(self, factor: Any, *, center: float, least: float, most: float, **options: Any):
        super().__init__(**options)
        self.factor = check_around("factor", factor, center=center, least=least, most=most)


class _Scale(_Factor):
    def __init__(self, factor: Any = 0.4, **options: Any) -> None:
        super().__init__(factor, center=1.0, least=0.0, most=float("inf"), **options)


@register
class RandomBrightness(_Scale):
    """Multiplies all values by a factor.

    Args:
        factor: Range (low, high) of factors; a number f means (1 - f, 1 + f).
        **options: Of every image layer, see `ImageAugmentation`.
    """

    kernel = staticmethod(pixels.brightness)


@register
class RandomContrast(_Scale):
    """Multiplies the distance from the image's mean gray by a factor.

    Args:
        factor: Range (low, high) of factors; a number f means (1 - f, 1 + f).
        **options: Of every image layer, see `ImageAugmentation`.
    """

    kernel = staticmethod(pixels.contrast)


@register
class RandomSaturation(_Scale):
    """Multiplies the distance from gray by a factor.

    Args:
        factor: Range (low, high) of factors; a number f means (1 - f, 1 + f).
        **options: Of every image layer, see `ImageAugmentation`.
    """

    kernel = staticmethod(pixels.saturation)


@register
class RandomSharpness(_Scale):
    """Multiplies the distance from a slightly blurred image by a factor.

    Args:
        factor: Range (low, high) of factors; a number f means (1 - f, 1 + f).
        **options: Of every image layer, see `ImageAugmentation`.
    """

    kernel = staticmethod(pixels.sharpness)


@register
class RandomHue(_Factor):
    """Turns the hue.

    Args:
        factor: Range (low, high) of turns, in circles within [-0.5, 0.5]; a number f means
            (-f, f).
        **options: Of every image layer, see `ImageAugmentation`.
    """

    kernel = staticmethod(pixels.hue)

    def __init__(self, factor: Any = 0.1, **options: Any) -> None:
        super().__init__(factor, center=0.0, least=-0.5, most=0.5, **options)


@register
class RandomGamma(_Factor):
    """Raises values in [0, 1] to a power.

    Args:
        factor: Range (low, high) of powers.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    def __init__(self, factor: Any = (0.7, 1.4), **options: Any) -> None:
        super().__init__(factor, center=1.0, least=0.0, most=float("inf"), **options)

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the kernel with the power."""
        del shape
        power = parameters["factor"]
        applied = parameters.get("applied")
        return [one(pixels.gamma, power, ops.ones_like(power), applied=applied)]


@register
class RandomPosterize(Sometimes):
    """Keeps the highest bits of each value.

    Args:
        bits: Range (fewest, most) of bits kept, of 0 to 8; an int is always that many.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    def __init__(self, bits: Any = (4, 8), **options: Any) -> None:
        super().__init__(**options)
        bits = (bits, bits) if isinstance(bits, int) else bits
        low, high = check_range("bits", bits, least=0, most=8)
        self.bits = int(low), int(high)

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the number of bits."""
        del shape
        low, high = self.bits
        return {"bits": low + draws.integers(high - low + 1)}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the kernel with the bits."""
        del shape
        return [one(pixels.posterize, parameters["bits"], applied=parameters.get("applied"))]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "bits": self.bits}


@register
class RandomSolarize(Sometimes):
    """Inverts the values from a threshold on, after adding to those below it.

    Args:
        threshold: Range (low, high) of thresholds in [0, 255]; a number is always that one.
        addition: Range (low, high) of what is added to values below the threshold.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    def __init__(
        self, threshold: Any = (0.0, 255.0), addition: Any = (0.0, 0.0), **options: Any
    ) -> None:
        super().__init__(**options)
        if isinstance(threshold, int | float):
            threshold = (threshold, threshold)
        if isinstance(addition, int | float):
            addition = (addition, addition)
        self.threshold = check_range("threshold", threshold, least=0.0, most=256.0)
        self.addition = check_range("addition", addition, least=-255.0, most=255.0)

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws threshold and addition."""
        del shape
        return {
            "threshold": draws.uniform(*self.threshold),
            "addition": draws.uniform(*self.addition),
        }

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the kernels."""
        del shape
        threshold, applied = parameters["threshold"], parameters.get("applied")
        result = []
        if self.addition != (0.0, 0.0):
            addition = parameters["addition"]
            result.append(one(pixels.solarize_add, addition, threshold, applied=applied))
        return [*result, one(pixels.solarize, threshold, applied=applied)]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "threshold": self.threshold, "addition": self.addition}


class _Plain(Sometimes):
    """Base of layers whose kernel takes no number."""

    kernel: pixels.Kernel

    def __init__(self, *, p: float = 0.5, **options: Any) -> None:
        super().__init__(p=p, **options)

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the kernel."""
        del shape
        applied = parameters["applied"]
        return [one(type(self).kernel, ops.cast(applied, "float32"), applied=applied)]


@register
class RandomInvert(_Plain):
    """Inverts all values with probability p.

    Args:
        **options: Of every image layer, see `ImageAugmentation`.
    """

    kernel = staticmethod(pixels.invert)


@register
class RandomAutoContrast(_Plain):
    """Stretches each channel to the whole range with probability p.

    Args:
        **options: Of every image layer, see `ImageAugmentation`.
    """

    kernel = staticmethod(pixels.autocontrast)


@register
class RandomEqualize(_Plain):
    """Equalizes the histogram of each channel of each image with probability p.

    Args:
        **options: Of every image layer, see `ImageAugmentation`.
    """

    kernel = staticmethod(pixels.equalize)


@register
class RandomGrayscale(_Plain):
    """Makes an image gray, with as many channels as before, with probability p.

    Args:
        **options: Of every image layer, see `ImageAugmentation`.
    """

    kernel = staticmethod(pixels.grayscale)

    def __init__(self, *, p: float = 0.1, **options: Any) -> None:
        super().__init__(p=p, **options)


@register
class RandomChannelShuffle(Sometimes):
    """Puts the channels in random order with probability p.

    Args:
        **options: Of every image layer, see `ImageAugmentation`.
    """

    def __init__(self, *, p: float = 0.5, **options: Any) -> None:
        super().__init__(p=p, **options)

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the order (B, C)."""
        return {"order": draws.permutation(int(shape[-1]))}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the kernel with the order."""
        order = [parameters["order"][:, i] for i in range(int(shape[-1]))]
        return [one(pixels.channel_shuffle, *order, applied=parameters.get("applied"))]


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


@register
class ColorJitter(ImageAugmentation):
    """Changes brightness, contrast, saturation and hue, in an order that is drawn too.

    Args:
        brightness: Range of factors, or f for (1 - f, 1 + f); 0 leaves it.
        contrast: As brightness.
        saturation: As brightness.
        hue: Range of turns in circles within [-0.5, 0.5], or f for (-f, f).
        **options: Of every image layer, see `ImageAugmentation`.
    """

    _KERNELS = (pixels.brightness, pixels.contrast, pixels.saturation, pixels.hue)

    def __init__(
        self,
        brightness: Any = 0.4,
        contrast: Any = 0.4,
        saturation: Any = 0.4,
        hue: Any = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.brightness = check_around("brightness", brightness, center=1.0, least=0.0)
        self.contrast = check_around("contrast", contrast, center=1.0, least=0.0)
        self.saturation = check_around("saturation", saturation, center=1.0, least=0.0)
        self.hue = check_around("hue", hue, center=0.0, least=-0.5, most=0.5)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws four amounts, and the order in which they are used (B, 4)."""
        del shape
        return {
            "applied": draws.chance(self.p),
            "order": draws.permutation(4),
            "brightness": draws.uniform(*self.brightness),
            "contrast": draws.uniform(*self.contrast),
            "saturation": draws.uniform(*self.saturation),
            "hue": draws.uniform(*self.hue),
        }

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns four operations in a row."""
        del shape
        names = ("brightness", "contrast", "saturation", "hue")
        unused = [getattr(self, name) in ((1.0, 1.0), (0.0, 0.0)) for name in names]
        order = parameters["order"]
        amounts = ops.stack([parameters[name] for name in names], axis=-1)
        args = ops.expand_dims(ops.take_along_axis(amounts, order, axis=1), -1)
        table = ops.convert_to_tensor(
            [0 if skip else i + 1 for i, skip in enumerate(unused)], "int32"
        )
        index = ops.take(table, order, axis=0)
        if "applied" in parameters:
            index = ops.where(parameters["applied"][:, None], index, 0)
        return [Step(args=args, kernels=(pixels.unchanged, *self._KERNELS), index=index)]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "brightness": self.brightness,
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue": self.hue,
        }


@register
class RandomPhotometricDistort(ImageAugmentation):
    """Changes brightness, contrast, saturation, hue and the order of channels, each or not.

    Contrast comes before or after saturation and hue.

    Source: Liu et al. 2016, arXiv:1512.02325, section 2.2; ranges as in torchvision.

    Args:
        p: Probability of each of the changes.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    def __init__(self, *, p: float = 0.5, **options: Any) -> None:
        super().__init__(p=p, **options)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws what is changed, and how."""
        channels = int(shape[-1])
        return {
            "brightness": draws.uniform(0.875, 1.125),
            "contrast": draws.uniform(0.5, 1.5),
            "saturation": draws.uniform(0.5, 1.5),
            "hue": draws.uniform(-0.05, 0.05),
            "order": draws.permutation(channels),
            "contrast_first": draws.chance(0.5),
            "changed": draws.chance(self.p, (5,)),
        }

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns six operations, some of which leave an image alone."""
        changed, first = parameters["changed"], parameters["contrast_first"]
        order = [parameters["order"][:, i] for i in range(int(shape[-1]))]
        contrast = parameters["contrast"]
        return [
            one(pixels.brightness, parameters["brightness"], applied=changed[:, 0]),
            one(pixels.contrast, contrast, applied=changed[:, 1] & first),
            one(pixels.saturation, parameters["saturation"], applied=changed[:, 2]),
            one(pixels.hue, parameters["hue"], applied=changed[:, 3]),
            one(pixels.contrast, contrast, applied=changed[:, 1] & ~first),
            one(pixels.channel_shuffle, *order, applied=changed[:, 4]),
        ]


# --- noise inside of kernels --------------------------------------------------------------------


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


__all__ = [
    "ColorJitter",
    "GaussianBlur",
    "GaussianNoise",
    "RandomAutoContrast",
    "RandomBrightness",
    "RandomChannelShuffle",
    "RandomContrast",
    "RandomEqualize",
    "RandomGamma",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPhotometricDistort",
    "RandomPosterize",
    "RandomSaturation",
    "RandomSharpness",
    "RandomSolarize",
]
