"""Several changes of colour, one after the other, in random order or not.

Source: torchvision.transforms.v2.
"""

from __future__ import annotations

from typing import Any

from zoo.augment import backend as ops
from zoo.augment.draws import Draws
from zoo.augment.image import pixels
from zoo.augment.image.base import ImageAugmentation
from zoo.augment.image.program import Step, one
from zoo.augment.layer import Parameters, check_around, register


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
