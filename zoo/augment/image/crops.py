"""Layers that cut out a part of an image, or put it on a larger one.

Source: torchvision.transforms.v2, unless a layer says otherwise.
"""

from __future__ import annotations

import math
from typing import Any

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.image.geometric import Resampled, matrices, where_applied
from zoo.augment.image.program import Step, movement
from zoo.augment.layer import Parameters, check_range, register
from zoo.errors import OptionValueError


class Cropped(Resampled):
    """Base of layers whose result has a size of its own.

    Args:
        size: Height and width of the result; an int is both.
        **options: `interpolation`, `fill`, and those of every image layer.
    """

    def __init__(self, size: Any, **options: Any) -> None:
        super().__init__(**options)
        self.size = check_size(size)

    def output_shape(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the shape with the size of the result."""
        return (shape[0], *self.size, shape[3])

    def cut(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the movement of the rectangle `top left height width` to the whole result."""
        top, left, height, width = (
            ops.cast(parameters[name], "float32") for name in ("top", "left", "height", "width")
        )
        matrix = crop_matrix(top, left, height, width, shape, self.size)
        return [movement(matrix, self.resampling(self.size))]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "size": self.size}


def crop_matrix(
    top: Tensor,
    left: Tensor,
    height: Tensor,
    width: Tensor,
    shape: tuple[Any, ...],
    size: tuple[int, int],
) -> Tensor:
    """Returns where pixels come from when a rectangle becomes an image of another size."""
    full_height, full_width = (ops.cast(side, "float32") for side in shape[1:3])
    x_scale, y_scale = width / float(size[1]), height / float(size[0])
    x = left + 0.5 * width - 0.5 * full_width
    y = top + 0.5 * height - 0.5 * full_height
    return matrices(((x_scale, 0.0, x), (0.0, y_scale, y), (0.0, 0.0, 1.0)))


def check_size(size: Any) -> tuple[int, int]:
    """Returns height and width.

    Raises:
        OptionValueError: They are not two positive whole numbers.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise OptionValueError(
            f"`size` must be a positive int or two of them (height, width); got size={size!r}."
        )
    return (pair[0], pair[1])


@register
class RandomCrop(Cropped):
    """Cuts out a rectangle at a place of its own for each image.

    Args:
        size: Height and width of the result; an int is both.
        padding: Pixels by which the image is continued at each edge before, with `fill`. An
            image that is still too small is continued as far as needed.
        **options: `interpolation`, `fill`, and those of every image layer, see
            `ImageAugmentation`.
    """

    def __init__(self, size: Any, padding: int = 0, **options: Any) -> None:
        options.setdefault("interpolation", "nearest")  # places are whole pixels
        super().__init__(size, **options)
        if padding < 0:
            raise OptionValueError(f"`padding` must not be negative; got padding={padding!r}.")
        self.padding = padding

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws top and left, in pixels of the image."""
        result = {}
        for name, side, wanted in (
            ("top", shape[1], self.size[0]),
            ("left", shape[2], self.size[1]),
        ):
            room = ops.cast(side, "int32") + 2 * self.padding - wanted
            spread = ops.abs(room) + 1
            place = draws.integers(spread)
            result[name] = ops.where(room >= 0, place, place + room) - self.padding
        return result

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns a movement by whole pixels."""
        none = ops.cast(ops.zeros_like(parameters["top"]), "float32")
        rectangle = {"height": none + self.size[0], "width": none + self.size[1]}
        return self.cut({**parameters, **rectangle}, shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "padding": self.padding}


@register
class RandomResizedCrop(Cropped):
    """Cuts out a rectangle of random area and shape and resizes it.

    Differs: torchvision tries ten rectangles and falls back to the middle; here a shape that does
    not fit is narrowed until it does. Pixels at its edge are mixed with those beyond. It is not
    antialiased: images more than twice as large should be resized before.

    Args:
        size: Height and width of the result; an int is both.
        scale: Range of the rectangle's share of the image's area.
        ratio: Range of its width by its height.
        **options: `interpolation`, `fill`, and those of every image layer, see
            `ImageAugmentation`.
    """

    def __init__(
        self,
        size: Any,
        scale: Any = (0.08, 1.0),
        ratio: Any = (3.0 / 4.0, 4.0 / 3.0),
        **options: Any,
    ) -> None:
        options.setdefault("fill", "edge")
        super().__init__(size, **options)
        self.scale = check_range("scale", scale, least=1e-6, most=1.0)
        self.ratio = check_range("ratio", ratio, least=1e-6)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the rectangle: top, left, height, width in whole pixels."""
        full_height, full_width = (ops.cast(side, "float32") for side in shape[1:3])
        area = draws.uniform(*self.scale) * full_height * full_width
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = ops.exp(draws.uniform(low, high))
        width = ops.clip(ops.round(ops.sqrt(area * ratio)), 1.0, full_width)
        height = ops.clip(ops.round(ops.sqrt(area / ratio)), 1.0, full_height)
        top = ops.floor(draws.uniform() * (full_height - height + 1.0))
        left = ops.floor(draws.uniform() * (full_width - width + 1.0))
        return {"top": top, "left": left, "height": height, "width": width}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns a movement."""
        return self.cut(parameters, shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "scale": self.scale, "ratio": self.ratio}


@register
class RandomZoomOut(Resampled):
    """Makes the image smaller and puts it somewhere on an empty one of the same size.

    Source: Liu et al. 2016, arXiv:1512.02325, section 3.6. Differs: there the canvas grows, here
    the image shrinks, so that batches keep their size.

    Args:
        factor: Range of how many times smaller.
        p: Probability.
        **options: `interpolation`, `fill`, and those of every image layer, see
            `ImageAugmentation`.
    """

    def __init__(self, factor: Any = (1.0, 4.0), *, p: float = 0.5, **options: Any) -> None:
        super().__init__(p=p, **options)
        self.factor = check_range("factor", factor, least=1.0)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws how many times smaller, and where, as shares of the room there is."""
        del shape
        return {
            "applied": draws.chance(self.p),
            "factor": draws.uniform(*self.factor),
            "x": draws.uniform(),
            "y": draws.uniform(),
        }

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns a movement."""
        height, width = (ops.cast(side, "float32") for side in shape[1:3])
        factor = parameters["factor"]
        x = -(parameters["x"] - 0.5) * (factor - 1.0) * width
        y = -(parameters["y"] - 0.5) * (factor - 1.0) * height
        matrix = matrices(((factor, 0.0, x), (0.0, factor, y), (0.0, 0.0, 1.0)))
        matrix = where_applied(parameters.get("applied"), matrix)
        return [movement(matrix, self.resampling())]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "factor": self.factor}


@register
class ScaleJitter(Cropped):
    """Resizes by a random factor and cuts out or continues to a fixed size.

    Source: Ghiasi et al. 2020, arXiv:2012.07177, section 3 (large scale jittering).

    Args:
        size: Height and width of the result; an int is both.
        scale: Range of the image's size, in sizes of the result.
        **options: `interpolation`, `fill`, and those of every image layer, see
            `ImageAugmentation`.
    """

    def __init__(self, size: Any, scale: Any = (0.1, 2.0), **options: Any) -> None:
        super().__init__(size, **options)
        self.scale = check_range("scale", scale, least=1e-6)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the rectangle of the image that becomes the result; it may be larger."""
        full_height, full_width = (ops.cast(side, "float32") for side in shape[1:3])
        fit = ops.minimum(self.size[0] / full_height, self.size[1] / full_width)
        factor = fit * draws.uniform(*self.scale)
        height, width = self.size[0] / factor, self.size[1] / factor
        # A larger image is cut at random; a smaller one lies at the top left.
        top = draws.uniform() * ops.maximum(full_height - height, 0.0)
        left = draws.uniform() * ops.maximum(full_width - width, 0.0)
        return {"top": top, "left": left, "height": height, "width": width}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns a movement."""
        return self.cut(parameters, shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "scale": self.scale}
