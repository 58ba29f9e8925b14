"""Layers that put together images of a batch, with their boxes and masks.

Source: each layer names its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.image import boxes as box
from zoo.augment.image.base import float_type
from zoo.augment.image.mixing import Mixing, of_batch
from zoo.augment.image.program import one, run
from zoo.augment.layer import Data, Parameters, check_range, register, sizes
from zoo.errors import OptionError, OptionValueError


class Collage(Mixing):
    """Base of layers that put images together.

    Args:
        **options: `num_classes`, `label_smoothing`, and those of every image layer.
    """

    _NOT_OURS: tuple[str, ...] = ("alpha", "mode")

    def __init__(self, **options: Any) -> None:
        for name in self._NOT_OURS:
            if name in options:
                raise OptionError(
                    f"{type(self).__name__} has no option `{name}`; see its docstring."
                )
        super().__init__(**options)

    def _known(
        self, inputs: Any, labels: Any, *, to_apply: bool = True
    ) -> tuple[Data, dict[str, Any]]:
        # Where there are boxes or masks, images need no labels beside them.
        others = ("bounding_boxes", "segmentation_masks")
        enough = isinstance(inputs, Mapping) and any(name in inputs for name in others)
        return super()._known(inputs, labels, to_apply=to_apply and not enough)

    def _refuse_keypoints(self, data: Data) -> None:
        if "keypoints" in data:
            raise OptionValueError(
                f"{type(self).__name__} cannot say which `keypoints` are hidden after it; take "
                "them out of the dictionary."
            )

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        config = super().get_config()
        return {name: value for name, value in config.items() if name not in self._NOT_OURS}


@register
class Mosaic(Collage):
    """Puts four images of the batch around a point, each with a corner at it.

    The result has the size of the images, of each of which a part is seen, at its scale; zoom out
    before to see more of them. Labels are mixed by the areas that are seen. Boxes are those of all
    four, four times as many, the own first: moved, cut, and not valid where nothing is left.

    Source: Bochkovskiy et al. 2020, arXiv:2004.10934, section 3.3; places as in YOLOv5. Differs:
    the own image is at any of the four places, not always the upper left.

    Args:
        centre: Range of the point, in widths and heights of the image.
        num_classes: Needed where labels are class numbers.
        label_smoothing: Spread over all classes before mixing.
        **options: Of every image layer, see `ImageAugmentation`.

    Raises:
        OptionValueError: An option that breaks its rule, a single sample, nothing beside the images
            (labels, boxes or masks), or keypoints.
    """

    def __init__(self, centre: Any = (0.25, 0.75), **options: Any) -> None:
        super().__init__(**options)
        self.centre = check_range("centre", centre, least=0.0, most=1.0)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws three partners (B, 3), the point in pixels, and the place of the own image.

        Places are 0 to 3: upper left, upper right, lower left, lower right; the partners follow
        the own image in this order. A point at 0, 0 leaves a sample as it is.
        """
        applied = draws.chance(self.p)
        place = draws.integers(4)
        result = {"partner": three_partners(draws), "place": ops.where(applied, place, 3)}
        for name, size in (("x", shape[2]), ("y", shape[1])):
            point = ops.round(draws.uniform(*self.centre) * ops.cast(size, "float32"))
            result[name] = ops.where(applied, ops.cast(point, "int32"), 0)
        return result

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Puts together images, masks, labels and boxes."""
        self._refuse_keypoints(data)
        shape = sizes(data["images"])
        four = quarters(parameters)
        result = {**data, "images": tiled(data["images"], four, parameters)}
        if "segmentation_masks" in data:
            masks = data["segmentation_masks"]
            if len(masks.shape) == 3:
                tiles = tiled(ops.expand_dims(masks, -1), four, parameters)
                result["segmentation_masks"] = ops.squeeze(tiles, -1)
            else:
                result["segmentation_masks"] = tiled(masks, four, parameters)
        if "labels" in data:
            soft, total = self.soft_labels(data["labels"]), 0.0
            area = ops.cast(shape[1] * shape[2], "float32")
            for sample, (left, top, right, bottom) in zip(
                four, areas(parameters, shape), strict=True
            ):
                share = (right - left) * (bottom - top) / area
                total = total + ops.take(soft, sample, axis=0) * share[:, None]
            result["labels"] = total
        if "bounding_boxes" in data:
            result["bounding_boxes"] = self._tiled_boxes(data["bounding_boxes"], parameters, shape)
        return result

    def _tiled_boxes(self, given: Any, parameters: Parameters, shape: tuple[Any, ...]) -> Any:
        boxes, own = with_valid(given)
        corners = box.to_corners(boxes, self.box_format, *shape[1:3])
        sides = [ops.stack(area, axis=-1) for area in areas(parameters, shape)]
        every = ops.stack(sides, axis=1)  # (B, 4, 4)
        height, width = (ops.cast(side, "float32") for side in shape[1:3])
        parts = []
        for number in range(4):
            quarter = (parameters["place"] + number) % 4
            sample = samples(parameters)[number]
            area = ops.take_along_axis(every, quarter[:, None, None], axis=1)  # (B, 1, 4)
            x = ops.cast(parameters["x"], "float32") - ops.where(quarter % 2 == 0, width, 0.0)
            y = ops.cast(parameters["y"], "float32") - ops.where(quarter // 2 == 0, height, 0.0)
            step = ops.stack([x, y, x, y], axis=-1)[:, None]
            part = {name: ops.take(value, sample, axis=0) for name, value in own.items()}
            moved = ops.take(corners, sample, axis=0) + step
            moved, part["valid"] = clipped_to(moved, area, part["valid"], self.smallest_share)
            part["boxes"] = moved
            parts.append(part)
        whole = {name: ops.concatenate([p[name] for p in parts], axis=1) for name in parts[0]}
        moved = box.from_corners(whole["boxes"], self.box_format, *shape[1:3])
        return {**whole, "boxes": ops.cast(moved, float_type(boxes))}

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "centre": self.centre}


# --- tiles --------------------------------------------------------------------------------------


def three_partners(draws: Draws) -> Tensor:
    """Returns three other samples for each, of a batch of four different ones: int32 (B, 3).

    Each sample of a batch is as often a partner as any other.
    """
    rows = ops.cast(ops.shape(draws.seeds)[0], "int32")
    batch = of_batch(draws)
    first, second, third = (batch.integers(ops.maximum(rows - gone, 1))[0] for gone in (1, 2, 3))
    second = second + ops.cast(second >= first, "int32")
    low, high = ops.minimum(first, second), ops.maximum(first, second)
    third = third + ops.cast(third >= low, "int32")
    third = third + ops.cast(third >= high, "int32")
    steps = 1 + ops.stack([first, second, third])
    places = ops.arange(ops.shape(draws.seeds)[0], dtype="int32")
    return (places[:, None] + steps[None, :]) % rows


def samples(parameters: Parameters) -> list[Tensor]:
    """Returns the own number of each sample, and those of its partners: four of (B,)."""
    partner = parameters["partner"]
    own = ops.arange(ops.shape(partner)[0], dtype="int32")
    return [own, *(ops.cast(partner[:, i], "int32") for i in range(3))]


def quarters(parameters: Parameters) -> list[Tensor]:
    """Returns which sample is upper left, upper right, lower left and lower right: (B,) each."""
    four = ops.stack(samples(parameters), axis=1)
    return [
        ops.take_along_axis(four, ((i - parameters["place"]) % 4)[:, None], axis=1)[:, 0]
        for i in range(4)
    ]


def areas(parameters: Parameters, shape: tuple[Any, ...]) -> list[tuple[Tensor, ...]]:
    """Returns left, top, right and bottom of the four parts, in pixels: (B,) each."""
    x, y = (ops.cast(parameters[name], "float32") for name in ("x", "y"))
    zero = ops.zeros_like(x)
    height, width = (zero + ops.cast(side, "float32") for side in shape[1:3])
    return [
        (zero, zero, x, y),
        (x, zero, width, y),
        (zero, y, x, height),
        (x, y, width, height),
    ]


def tiled(images: Tensor, four: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """Returns images put together of four: (B, H, W, C).

    A tile is an image rolled until its corner is at the point; so rows are taken in their new
    order, left and right are joined, and columns are rolled.
    """
    _, height, width, channels = sizes(images)
    rows = ops.reshape(images, (-1, width * channels))
    y = ops.cast(parameters["y"], "int32")[:, None]
    row = ops.arange(height, dtype="int32")[None, :]
    source = (row - y) % height
    left, right = (
        ops.take(rows, ops.where(row < y, above[:, None], below[:, None]) * height + source, axis=0)
        for above, below in ((four[0], four[2]), (four[1], four[3]))
    )  # (B, H, W * C)
    x = ops.cast(parameters["x"], "int32")
    column = ops.arange(width * channels, dtype="int32")[None, None, :]
    joined = ops.where(column >= (width - x[:, None, None]) * channels, left, right)

    def roll(image: Tensor, args: Tensor) -> Tensor:
        return ops.roll(image, ops.cast(args[0], "int32") * channels, axis=1)

    return ops.reshape(run(joined, [one(roll, x)]), (-1, height, width, channels))


def with_valid(given: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns boxes (B, N, 4), and what stands beside them, with `valid` (B, N)."""
    boxes, rest = box.read(given)
    valid = rest.get("valid")
    valid = ops.ones_like(boxes[..., 0]) > 0 if valid is None else ops.cast(valid, "bool")
    return boxes, {**rest, "valid": valid}


def clipped_to(
    corners: Tensor, area: Tensor, valid: Tensor, smallest_share: float
) -> tuple[Tensor, Tensor]:
    """Returns boxes (B, N, 4) cut at a rectangle (B, 1, 4), and which are still there."""
    low = ops.concatenate([area[..., :2], area[..., :2]], axis=-1)
    high = ops.concatenate([area[..., 2:], area[..., 2:]], axis=-1)
    cut = ops.minimum(ops.maximum(corners, low), high)
    seen = (cut[..., 2] - cut[..., 0]) * (cut[..., 3] - cut[..., 1])
    whole = (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])
    valid = valid & (seen > 0) & (seen >= smallest_share * whole)
    return ops.where(valid[..., None], cut, 0.0), valid
