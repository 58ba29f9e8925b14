"""Layers that hide parts of an image."""

from __future__ import annotations

import math
from typing import Any

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.image import pixels
from zoo.augment.image.base import ImageAugmentation, check_fill
from zoo.augment.image.filters import seed_halves, uniform_of_seed
from zoo.augment.image.program import Step, one
from zoo.augment.layer import Parameters, check_range, register
from zoo.errors import OptionValueError


@register
class RandomErasing(ImageAugmentation):
    """Fills rectangles with a value or with noise. Boxes and masks stay.

    Source: Zhong et al. 2017, arXiv:1708.04896; ranges as in timm and torchvision. Differs: they
    draw again when a rectangle does not fit; here its longer side is cut.

    Args:
        area: Range of a rectangle's share of the image.
        ratio: Range of its height by its width.
        fill: Value in [0, 255], one or one per channel, or "noise" (uniform, per value).
        count: Rectangles per image.
        p: Probability.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    def __init__(
        self,
        area: Any = (0.02, 1.0 / 3.0),
        ratio: Any = (0.3, 1.0 / 0.3),
        fill: Any = 0.0,
        count: int = 1,
        *,
        p: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(p=p, **options)
        self.area = check_range("area", area, least=0.0, most=1.0)
        self.ratio = check_range("ratio", ratio, least=1e-6)
        self.fill = fill if fill == "noise" else check_fill(fill)
        if count < 1:
            raise OptionValueError(f"`count` must be at least 1; got count={count!r}.")
        self.count = count

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws top, left, height and width in pixels (B, count), and the seeds of the noise."""
        size = (self.count,)
        full_height, full_width = (ops.cast(side, "float32") for side in shape[1:3])
        area = draws.uniform(*self.area, size) * full_height * full_width
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = ops.exp(draws.uniform(low, high, size))
        height = ops.minimum(ops.round(ops.sqrt(area * ratio)), full_height)
        width = ops.minimum(ops.round(ops.sqrt(area / ratio)), full_width)
        return {
            "applied": draws.chance(self.p),
            "top": ops.floor(draws.uniform(shape=size) * (full_height - height + 1.0)),
            "left": ops.floor(draws.uniform(shape=size) * (full_width - width + 1.0)),
            "height": height,
            "width": width,
            "noise_seed": draws.split(),
        }

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns an operation per rectangle."""
        del shape
        result = []
        names = ("top", "left", "height", "width")
        for number in range(self.count):
            numbers = [parameters[name][:, number] for name in names]
            kernel: pixels.Kernel
            if self.fill == "noise":
                numbers.extend(seed_halves(parameters["noise_seed"] + number))
                kernel = pixels.erase_with_noise(uniform_of_seed)
            else:
                kernel = pixels.erase(self.fill)
            result.append(one(kernel, *numbers, applied=parameters.get("applied")))
        return result

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "area": self.area,
            "ratio": self.ratio,
            "fill": self.fill,
            "count": self.count,
        }


@register
class GridMask(ImageAugmentation):
    """Hides squares of a turned grid.

    Source: Chen et al. 2020, arXiv:2001.04086, section 3.

    Args:
        unit: Range of the distance of the squares, as a share of the image's shorter side.
        hidden: Side of a square, as a share of that distance.
        degrees: Range of the grid's angle.
        fill: Value in [0, 255], one or one per channel.
        p: Probability.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    def __init__(
        self,
        unit: Any = (0.25, 0.6),
        hidden: float = 0.5,
        degrees: Any = (0.0, 360.0),
        fill: Any = 0.0,
        *,
        p: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(p=p, **options)
        self.unit = check_range("unit", unit, least=1e-3, most=1.0)
        if not 0.0 < hidden < 1.0:
            raise OptionValueError(f"`hidden` must be in (0, 1); got hidden={hidden!r}.")
        self.hidden = hidden
        self.degrees = check_range("degrees", degrees)
        self.fill = check_fill(fill)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the distance (pixels), the angle (degrees) and the grid's place (shares)."""
        shorter = ops.cast(ops.minimum(shape[1], shape[2]), "float32")
        return {
            "applied": draws.chance(self.p),
            "distance": draws.uniform(*self.unit) * shorter,
            "angle": draws.uniform(*self.degrees),
            "x": draws.uniform(),
            "y": draws.uniform(),
        }

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns one operation."""
        del shape
        hidden, fill = self.hidden, self.fill

        def hide(image: Tensor, args: Tensor) -> Tensor:
            height, width = ops.shape(image)[0], ops.shape(image)[1]
            y = (ops.arange(height, dtype="float32") - 0.5 * ops.cast(height, "float32"))[:, None]
            x = (ops.arange(width, dtype="float32") - 0.5 * ops.cast(width, "float32"))[None, :]
            turn = args[1] * (math.pi / 180.0)
            cos, sin = ops.cos(turn), ops.sin(turn)
            across = (cos * x + sin * y) / args[0] + args[2]
            down = (cos * y - sin * x) / args[0] + args[3]
            across, down = across - ops.floor(across), down - ops.floor(down)
            masked = ((across < hidden) & (down < hidden))[..., None]
            value = ops.cast(ops.convert_to_tensor(fill, "float32"), image.dtype)
            return ops.where(masked, value, image)

        numbers = [parameters[name] for name in ("distance", "angle", "x", "y")]
        return [one(hide, *numbers, applied=parameters.get("applied"))]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "unit": self.unit,
            "hidden": self.hidden,
            "degrees": self.degrees,
            "fill": self.fill,
        }
