"""Layers that change the values of pixels, each image by an amount of its own.

Source: torchvision.transforms.v2, unless a layer says otherwise.
"""

from __future__ import annotations

from typing import Any

from zoo.augment import backend as ops
from zoo.augment.draws import Draws
from zoo.augment.image import pixels
from zoo.augment.image.base import Sometimes
from zoo.augment.image.program import Step, one
from zoo.augment.layer import Parameters, check_around, check_range, register


class _Factor(Sometimes):
    """Base of layers whose kernel takes one number of a range."""

    kernel: pixels.Kernel

    def __init__(self, factor: Any, *, center: float, least: float, most: float, **options: Any):
        super().__init__(**options)
        self.factor = check_around("factor", factor, center=center, least=least, most=most)

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

    kernel = staticmethod(pixels.gamma)

    def __init__(self, factor: Any = (0.7, 1.4), **options: Any) -> None:
        super().__init__(factor, center=1.0, least=0.0, most=float("inf"), **options)


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
