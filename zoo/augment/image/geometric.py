"""Layers that move pixels, and boxes, masks and keypoints with them.

Each is a matrix that says where the pixels of the result come from, so that several in a row cost
one resampling.

Source: torchvision.transforms.v2, unless a layer says otherwise. Angles turn against the clock.
"""

from __future__ import annotations

import math
from typing import Any

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws, as_number
from zoo.augment.image import pixels
from zoo.augment.image.base import ImageAugmentation, check_fill, check_interpolation
from zoo.augment.image.boxes import inverse
from zoo.augment.image.program import Resampling, Step, movement
from zoo.augment.layer import (
    Parameters,
    check_around,
    check_one_of,
    check_probability,
    check_range,
    register,
)
from zoo.errors import OptionValueError

FLIPS = ("horizontal", "vertical", "both")


def matrices(rows: Any) -> Tensor:
    """Returns matrices (B, 3, 3) of rows of numbers (B,) or plain ones."""
    some = next(n for row in rows for n in row if not isinstance(n, int | float))
    full = [
        ops.stack([ops.zeros_like(some) + ops.cast(n, "float32") for n in row], axis=-1)
        for row in rows
    ]
    return ops.stack(full, axis=-2)


def affine_matrix(
    angle: Tensor,
    shift_x: Tensor,
    shift_y: Tensor,
    scale: Tensor,
    shear_x: Tensor,
    shear_y: Tensor,
) -> Tensor:
    """Returns where pixels come from when an image is sheared, scaled, turned and shifted.

    Args:
        angle: Degrees, with the clock (B,).
        shift_x: Pixels to the right (B,).
        shift_y: Pixels down (B,).
        scale: Larger than 1 magnifies (B,).
        shear_x: Degrees (B,).
        shear_y: Degrees (B,).

    Returns:
        (B, 3, 3), from places in the result to places in the image, in pixels from the centres.
    """
    turn, sx, sy = (a * (math.pi / 180.0) for a in (angle, shear_x, shear_y))
    a = ops.cos(turn - sy) / ops.cos(sy)
    b = -(a * ops.tan(sx) + ops.sin(turn))
    c = ops.sin(turn - sy) / ops.cos(sy)
    d = ops.cos(turn) - c * ops.tan(sx)
    a, b, c, d = d / scale, -b / scale, -c / scale, a / scale
    return matrices(
        (
            (a, b, -a * shift_x - b * shift_y),
            (c, d, -c * shift_x - d * shift_y),
            (0.0, 0.0, 1.0),
        )
    )


def where_applied(applied: Tensor | None, matrix: Tensor) -> Tensor:
    """Returns matrices that are the identity where nothing is to be done."""
    if applied is None:
        return matrix
    return ops.where(applied[:, None, None], matrix, ops.eye(3, dtype="float32"))


class Resampled(ImageAugmentation):
    """Base of layers that resample.

    Args:
        interpolation: "bilinear" or "nearest".
        fill: Value of what comes from outside, in [0, 255], one or one per channel, or "edge",
            that of the nearest pixel.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    moves = True

    def __init__(self, *, interpolation: str = "bilinear", fill: Any = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.interpolation = check_interpolation(interpolation)
        self.fill = check_fill(fill, edge=True)

    def resampling(self, size: tuple[int, int] | None = None) -> Resampling:
        """Returns how pixels are taken."""
        return Resampling(interpolation=self.interpolation, fill=self.fill, size=size)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "interpolation": self.interpolation,
            "fill": self.fill,
        }


@register
class RandomFlip(ImageAugmentation):
    """Mirrors with probability p, left and right, top and bottom, or each on its own.

    Args:
        mode: "horizontal", "vertical" or "both" (each axis is drawn by itself).
        **options: Of every image layer, see `ImageAugmentation`.
    """

    moves = True

    def __init__(self, mode: str = "horizontal", *, p: float = 0.5, **options: Any) -> None:
        super().__init__(p=p, **options)
        self.mode = check_one_of("mode", mode, FLIPS)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws which way each image is mirrored."""
        del shape
        both = draws.chance(self.p), draws.chance(self.p)
        never = both[0] & ~both[0]
        return {
            "horizontal": both[0] if self.mode != "vertical" else never,
            "vertical": both[1] if self.mode != "horizontal" else never,
        }

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns a step per axis."""
        del shape
        kernels = {"horizontal": pixels.flip_horizontal, "vertical": pixels.flip_vertical}
        result = []
        for axis, kernel in kernels.items():
            if self.mode not in (axis, "both"):
                continue
            flipped = parameters[axis]
            sign = ops.where(flipped, -1.0, 1.0)
            x, y = (sign, 1.0) if axis == "horizontal" else (1.0, sign)
            matrix = matrices(((x, 0.0, 0.0), (0.0, y, 0.0), (0.0, 0.0, 1.0)))
            result.append(
                Step(
                    args=sign[:, None, None],
                    kernels=(pixels.unchanged, kernel),
                    index=ops.cast(flipped, "int32")[:, None],
                    matrix=matrix,
                    joins=True,
                )
            )
        return result

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "mode": self.mode}


@register
class RandomD4(ImageAugmentation):
    """Turns by right angles and mirrors: the eight positions of a square, equally often.

    Args:
        **options: Of every image layer, see `ImageAugmentation`. Images must be square.
    """

    moves = True

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws quarter turns against the clock, and whether it is mirrored before."""
        del shape
        applied = draws.chance(self.p)
        return {
            "turns": ops.where(applied, draws.integers(4), 0),
            "flipped": applied & draws.chance(0.5),
        }

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns one step of eight kernels."""
        if isinstance(shape[1], int) and isinstance(shape[2], int) and shape[1] != shape[2]:
            raise OptionValueError(
                f"RandomD4 needs square images; got {shape[1]} x {shape[2]}. RandomFlip and "
                "RandomRotation take others."
            )
        turns, flipped = parameters["turns"], parameters["flipped"]
        kernels = tuple(pixels.dihedral(t, f) for f in (False, True) for t in range(4))
        angle = ops.cast(turns, "float32") * (math.pi / 2.0)
        cos, sin = ops.round(ops.cos(angle)), ops.round(ops.sin(angle))
        sign = ops.where(flipped, -1.0, 1.0)
        # Back from the result: turned with the clock, then mirrored.
        matrix = matrices(((sign * cos, -sign * sin, 0.0), (sin, cos, 0.0), (0.0, 0.0, 1.0)))
        index = ops.cast(turns, "int32") + 4 * ops.cast(flipped, "int32")
        return [
            Step(
                args=sign[:, None, None],
                kernels=kernels,
                index=index[:, None],
                matrix=matrix,
                joins=True,
            )
        ]


@register
class RandomAffine(Resampled):
    """Turns, shifts, scales and shears about the centre.

    Args:
        degrees: Range of angles, or d for (-d, d).
        translate: Largest shift, as shares (of the width, of the height).
        scale: Range of magnifications.
        shear: Range of shears along x, in degrees, or s for (-s, s).
        shear_y: The same along y.
        strength: All amounts are multiplied by it: 0 leaves images as they are.
        **options: `interpolation`, `fill`, and those of every image layer, see
            `ImageAugmentation`.
    """

    def __init__(
        self,
        degrees: Any = 0.0,
        translate: tuple[float, float] = (0.0, 0.0),
        scale: Any = (1.0, 1.0),
        shear: Any = 0.0,
        shear_y: Any = 0.0,
        *,
        strength: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.degrees = check_around("degrees", degrees, center=0.0, least=-float("inf"))
        x, y = translate
        if not (0.0 <= x <= 1.0 and 0.0 <= y <= 1.0):
            raise OptionValueError(
                f"`translate` must be two shares in [0, 1]; got translate={translate!r}."
            )
        self.translate = (x, y)
        self.scale = check_range("scale", scale, least=1e-6)
        self.shear = check_around("shear", shear, center=0.0, least=-89.0, most=89.0)
        self.shear_y = check_around("shear_y", shear_y, center=0.0, least=-89.0, most=89.0)
        self.strength = check_probability("strength", strength)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws angle (degrees), shifts (whole pixels), scale and shears (degrees)."""
        height, width = (ops.cast(side, "float32") for side in shape[1:3])
        x, y = self.translate
        strength = as_number(self.strength)
        return {
            "applied": draws.chance(self.p),
            "angle": draws.uniform(*self.degrees) * strength,
            "shift_x": ops.round(draws.uniform(-x, x) * strength * width),
            "shift_y": ops.round(draws.uniform(-y, y) * strength * height),
            "scale": 1.0 + (draws.uniform(*self.scale) - 1.0) * strength,
            "shear_x": draws.uniform(*self.shear) * strength,
            "shear_y": draws.uniform(*self.shear_y) * strength,
        }

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns a movement."""
        del shape
        names = ("angle", "shift_x", "shift_y", "scale", "shear_x", "shear_y")
        matrix = affine_matrix(*(parameters[name] for name in names))
        matrix = where_applied(parameters.get("applied"), matrix)
        return [movement(matrix, self.resampling())]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "degrees": self.degrees,
            "translate": self.translate,
            "scale": self.scale,
            "shear": self.shear,
            "shear_y": self.shear_y,
            "strength": self.strength,
        }


@register
class RandomRotation(Resampled):
    """Turns about the centre.

    Args:
        degrees: Range of angles against the clock, or d for (-d, d).
        **options: `interpolation`, `fill`, and those of every image layer, see
            `ImageAugmentation`.
    """

    def __init__(self, degrees: Any = 15.0, **options: Any) -> None:
        super().__init__(**options)
        self.degrees = check_around("degrees", degrees, center=0.0, least=-float("inf"))

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the angle in degrees."""
        del shape
        return {"applied": draws.chance(self.p), "angle": draws.uniform(*self.degrees)}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns a movement."""
        del shape
        angle = parameters["angle"]
        none = ops.zeros_like(angle)
        matrix = affine_matrix(-angle, none, none, none + 1.0, none, none)
        matrix = where_applied(parameters.get("applied"), matrix)
        return [movement(matrix, self.resampling())]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "degrees": self.degrees}


@register
class RandomPerspective(Resampled):
    """Looks at the image from another place: its corners move inwards.

    Args:
        distortion: How far corners may move, as a share of half the width and height.
        p: Probability.
        **options: `interpolation`, `fill`, and those of every image layer, see
            `ImageAugmentation`.
    """

    def __init__(self, distortion: float = 0.5, *, p: float = 0.5, **options: Any) -> None:
        super().__init__(p=p, **options)
        if not 0.0 <= distortion < 1.0:
            raise OptionValueError(
                f"`distortion` must be in [0, 1); got distortion={distortion!r}."
            )
        self.distortion = distortion

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws where the corners go: (B, 4, 2), x and y in pixels, clockwise from top left."""
        height, width = (ops.cast(side, "float32") for side in shape[1:3])
        inwards = draws.uniform(0.0, self.distortion, (4, 2))
        scale = ops.stack([width, height]) * 0.5
        corners = ops.convert_to_tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        place = corners * ops.stack([width - 1.0, height - 1.0])
        sign = 1.0 - 2.0 * corners
        moved = place + sign * ops.floor(inwards * scale)
        return {"applied": draws.chance(self.p), "corners": moved}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns a movement."""
        height, width = (ops.cast(side, "float32") for side in shape[1:3])
        corners = ops.cast(parameters["corners"], "float32")
        none = ops.zeros_like(corners[:, 0, 0])
        right, bottom = none + width - 1.0, none + height - 1.0
        start = [(none, none), (right, none), (right, bottom), (none, bottom)]
        end = [(corners[:, i, 0], corners[:, i, 1]) for i in range(4)]
        middle = (0.5 * width, 0.5 * height)
        to_start = _square_to(start, middle)
        to_end = _square_to(end, middle)
        matrix = ops.matmul(to_start, inverse(to_end))
        matrix = matrix / matrix[:, 2:3, 2:3]
        matrix = where_applied(parameters.get("applied"), matrix)
        return [movement(matrix, self.resampling())]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "distortion": self.distortion}


def _square_to(corners: list[tuple[Tensor, Tensor]], middle: tuple[Tensor, Tensor]) -> Tensor:
    """Returns the projection of the unit square to a quadrangle (B, 3, 3).

    Source: Heckbert 1989, Fundamentals of Texture Mapping, section 2.2.3.
    """
    x = [corner[0] - middle[0] for corner in corners]
    y = [corner[1] - middle[1] for corner in corners]
    dx1, dx2, dx3 = x[1] - x[2], x[3] - x[2], x[0] - x[1] + x[2] - x[3]
    dy1, dy2, dy3 = y[1] - y[2], y[3] - y[2], y[0] - y[1] + y[2] - y[3]
    below = dx1 * dy2 - dx2 * dy1
    g = (dx3 * dy2 - dx2 * dy3) / below
    h = (dx1 * dy3 - dx3 * dy1) / below
    return matrices(
        (
            (x[1] - x[0] + g * x[1], x[3] - x[0] + h * x[3], x[0]),
            (y[1] - y[0] + g * y[1], y[3] - y[0] + h * y[3], y[0]),
            (g, h, 1.0),
        )
    )
