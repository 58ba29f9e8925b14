"""A layer whose cut depends on the boxes of an image."""

from __future__ import annotations

from typing import Any

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.image import boxes as box
from zoo.augment.image.crops import Cropped
from zoo.augment.image.program import Step
from zoo.augment.layer import Data, Parameters, check_range, register, sizes
from zoo.errors import OptionValueError

_OPTIONS = 5  # shares that are tried for a sample


@register
class IoUCrop(Cropped):
    """Cuts out a rectangle that overlaps a box by at least a share, and resizes it.

    The share is one of several, drawn for each image. Boxes whose centre is cut off are no longer
    valid. Some images stay whole: where the share is 1, and where no rectangle was found.

    Source: Liu et al. 2016, arXiv:1512.02325, section 2.2, as in torchvision. Differs: the result
    has one size, and after five shares without a rectangle the image stays whole.

    Args:
        size: Height and width of the result; an int is both.
        scale: Range of the rectangle's height and width, in those of the image.
        ratio: Range of its width by its height.
        least_iou: Shares of intersection by union with a box; 1 and more leaves the image whole.
        trials: Rectangles tried for a share.
        **options: `interpolation`, `fill`, and those of every image layer, see
            `ImageAugmentation`.

    Raises:
        OptionValueError: An option that breaks its rule, no `bounding_boxes`, or a place within
            another layer.
    """

    by_steps = False

    def __init__(
        self,
        size: Any,
        scale: Any = (0.3, 1.0),
        ratio: Any = (0.5, 2.0),
        least_iou: Any = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        trials: int = 40,
        **options: Any,
    ) -> None:
        options.setdefault("fill", "edge")
        super().__init__(size, **options)
        self.scale = check_range("scale", scale, least=1e-6, most=1.0)
        self.ratio = check_range("ratio", ratio, least=1e-6)
        self.least_iou = tuple(float(share) for share in least_iou)
        if not self.least_iou or min(self.least_iou) < 0.0:
            raise OptionValueError(
                f"`least_iou` must be one or more numbers from 0 on; got least_iou={least_iou!r}."
            )
        if trials < 1:
            raise OptionValueError(f"`trials` must be at least 1; got trials={trials!r}.")
        self.trials = trials

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws rectangles in pixels, and what each must overlap: (B, 5 * trials)."""
        count = (_OPTIONS * self.trials,)
        full_height, full_width = (ops.cast(side, "float32") for side in shape[1:3])
        least = ops.take(
            ops.convert_to_tensor(self.least_iou, "float32"),
            draws.integers(len(self.least_iou), (_OPTIONS,)),
            axis=0,
        )
        width = ops.floor(full_width * draws.uniform(*self.scale, count))
        height = ops.floor(full_height * draws.uniform(*self.scale, count))
        return {
            "applied": draws.chance(self.p),
            "least_iou": ops.repeat(least, self.trials, axis=1),
            "top": ops.floor((full_height - height) * draws.uniform(shape=count)),
            "left": ops.floor((full_width - width) * draws.uniform(shape=count)),
            "height": height,
            "width": width,
        }

    def chosen(self, data: Data, parameters: Parameters) -> Parameters:
        """Returns the rectangle of each image: the first that fits, else the whole (B,)."""
        shape = sizes(data["images"])
        boxes, rest = box.read(data["bounding_boxes"])
        corners = box.to_corners(boxes, self.box_format, *shape[1:3])[:, None]  # (B, 1, N, 4)
        top, left, height, width = (
            ops.cast(parameters[name], "float32")[..., None]
            for name in ("top", "left", "height", "width")
        )
        inside = centres_inside(corners, top, left, height, width)
        if "valid" in rest:
            inside = inside & ops.cast(rest["valid"], "bool")[:, None]
        across = _overlap(corners[..., 0], corners[..., 2], left, left + width)
        down = _overlap(corners[..., 1], corners[..., 3], top, top + height)
        sides = corners[..., 2:] - corners[..., :2]
        union = sides[..., 0] * sides[..., 1] + height * width - across * down
        iou = ops.where(inside, across * down / ops.maximum(union, 1e-6), 0.0)
        least = parameters["least_iou"]
        ratio = width[..., 0] / ops.maximum(height[..., 0], 1e-6)
        fits = (ratio >= self.ratio[0]) & (ratio <= self.ratio[1])
        fits = fits & (width[..., 0] >= 1.0) & (height[..., 0] >= 1.0)
        fits = fits & ops.any(inside, axis=-1) & (ops.max(iou, axis=-1) >= least)
        whole = least >= 1.0
        taken = fits | whole
        first = ops.cast(ops.argmax(ops.cast(taken, "int32"), axis=-1), "int32")[:, None]
        cut = _at(taken & ~whole, first)
        if "applied" in parameters:
            cut = cut & parameters["applied"]
        result = {"cut": cut}
        for name, whole_one in (("top", 0), ("left", 0), ("height", shape[1]), ("width", shape[2])):
            place = ops.cast(_at(parameters[name], first), "float32")
            result[name] = ops.where(cut, place, ops.cast(whole_one, "float32"))
        return result

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Cuts images and what belongs to them."""
        if "bounding_boxes" not in data:
            raise OptionValueError(
                f"{type(self).__name__} cuts by boxes; call it on a dictionary with the key "
                f"`bounding_boxes`. Got {sorted(data)}. RandomResizedCrop needs none."
            )
        shape = sizes(data["images"])
        place = self.chosen(data, parameters)
        result = self.do(data, self.cut(place, shape), self.size)
        boxes, _ = box.read(data["bounding_boxes"])
        corners = box.to_corners(boxes, self.box_format, *shape[1:3])
        names = ("top", "left", "height", "width")
        inside = centres_inside(corners, *(place[name][:, None] for name in names))
        stays = inside | ~place["cut"][:, None]
        moved, rest = box.read(result["bounding_boxes"])
        moved = ops.where(stays[..., None], moved, ops.zeros_like(moved))
        if isinstance(result["bounding_boxes"], dict):
            valid = rest["valid"] & stays
            result["bounding_boxes"] = {**rest, "boxes": moved, "valid": valid}
        else:
            result["bounding_boxes"] = moved
        return result

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Has none that other layers could use.

        Raises:
            OptionValueError: Always, since the rectangle depends on boxes.
        """
        del parameters, shape
        raise OptionValueError(
            f"{type(self).__name__} cannot be part of another layer, which does not show it the "
            "boxes; call it before or after that one."
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "scale": self.scale,
            "ratio": self.ratio,
            "least_iou": self.least_iou,
            "trials": self.trials,
        }


def centres_inside(
    corners: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor
) -> Tensor:
    """Returns whether the centres of boxes (..., 4) lie in a rectangle."""
    x = 0.5 * (corners[..., 0] + corners[..., 2])
    y = 0.5 * (corners[..., 1] + corners[..., 3])
    return (x > left) & (x < left + width) & (y > top) & (y < top + height)


def _overlap(low: Tensor, high: Tensor, other_low: Tensor, other_high: Tensor) -> Tensor:
    return ops.maximum(ops.minimum(high, other_high) - ops.maximum(low, other_low), 0.0)


def _at(values: Tensor, place: Tensor) -> Tensor:
    """Returns the value of each row at its place: (B, K) and (B, 1) to (B,)."""
    return ops.take_along_axis(values, place, axis=1)[:, 0]
