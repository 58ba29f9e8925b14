"""Image layers: pixels by a program of steps; boxes, masks and keypoints by the same movement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.image import boxes as box
from zoo.augment.image.pixels import warp
from zoo.augment.image.program import Step, run, total_movement
from zoo.augment.layer import Augmentation, Data, Parameters, check_one_of, check_range, sizes

INTERPOLATIONS = ("nearest", "bilinear")


class ImageAugmentation(Augmentation):
    """Base of layers on images.

    They take images (H, W, C) or (B, H, W, C), uint8 or floating point, or a dictionary:

    - `images`;
    - `labels`: only mixing layers change them;
    - `bounding_boxes`: an array (B, N, 4), or a dictionary of `boxes`, what belongs to them, and
      `valid` (B, N), which says which of them are boxes and is added where it is missing;
    - `segmentation_masks`: classes per pixel (B, H, W) or (B, H, W, 1), of any integer type;
    - `keypoints`: x, y in pixels (B, K, 2); they go where the picture goes, also beyond its edge.

    Args:
        value_range: Lowest and highest value of floating-point images; uint8 has 0 and 255.
        box_format: As in Keras: "xyxy", "yxyx", "xywh", "center_xywh", "center_yxhw", and with
            "rel_" before them in widths and heights of the image.
        smallest_share: Boxes of which less than this share is left are no longer valid.
        mask_fill: Class of pixels of a mask that come from outside of the image.
        **options: `p`, `seed`, `name`.

    Raises:
        OptionValueError: An option that breaks its rule.
    """

    keys = ("images", "labels", "bounding_boxes", "segmentation_masks", "keypoints")
    moves = False  # whether pixels change their places
    by_steps = True  # whether `steps` say all that it does

    def __init__(
        self,
        *,
        value_range: Sequence[float] = (0.0, 255.0),
        box_format: str = "xyxy",
        smallest_share: float = 0.0,
        mask_fill: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.value_range = check_range("value_range", value_range)
        self.box_format = check_one_of("box_format", box_format, box.FORMATS)
        self.smallest_share = smallest_share
        self.mask_fill = mask_fill

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns what the parameters mean for images of this shape (B, H, W, C)."""
        raise NotImplementedError

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Does what the parameters say to images and what belongs to them."""
        shape = sizes(data["images"])
        return self.do(data, self.steps(parameters, shape), self.output_shape(shape)[1:3])

    def do(self, data: Data, steps: Sequence[Step], after: tuple[Any, ...]) -> Data:
        """Does steps to images and what belongs to them.

        Args:
            data: A batch.
            steps: What is done.
            after: Height and width of the result.
        """
        images = data["images"]
        shape = sizes(images)
        result = {**data, "images": self._on_values(images, lambda x: run(x, steps))}
        others = [name for name in data if name not in ("images", "labels")]
        matrix = total_movement(steps) if others else None
        if matrix is None:
            return result
        if "bounding_boxes" in data:
            result["bounding_boxes"] = self._boxes(data["bounding_boxes"], matrix, shape, after)
        if "keypoints" in data:
            points = data["keypoints"]
            moved = box.moved_points(ops.cast(points, "float32"), matrix, shape[1:3], after)
            result["keypoints"] = ops.cast(moved, float_type(points))
        if "segmentation_masks" in data:
            result["segmentation_masks"] = self._masks(data["segmentation_masks"], matrix, after)
        return result

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "value_range": self.value_range,
            "box_format": self.box_format,
            "smallest_share": self.smallest_share,
            "mask_fill": self.mask_fill,
        }

    def _on_values(self, images: Tensor, function: Any) -> Tensor:
        """Calls a function on images as uint8, or float32 in [0, 255]; returns the same kind."""
        kind = keras.backend.standardize_dtype(images.dtype)
        if kind == "uint8":
            return ops.stop_gradient(function(images))
        if "int" in kind:
            return ops.cast(function(ops.cast(images, "uint8")), kind)
        low, high = self.value_range
        scaled = (ops.cast(images, "float32") - low) * (255.0 / (high - low))
        result = function(scaled) * ((high - low) / 255.0) + low
        return ops.stop_gradient(ops.cast(result, kind))

    def _boxes(
        self, given: Any, matrix: Tensor, shape: tuple[Any, ...], after: tuple[Any, ...]
    ) -> Any:
        boxes, rest = box.read(given)
        corners = box.to_corners(boxes, self.box_format, *shape[1:3])
        valid = rest.get("valid")
        valid = ops.ones_like(corners[..., 0]) > 0 if valid is None else ops.cast(valid, "bool")
        corners = box.moved_boxes(corners, matrix, shape[1:3], after)
        corners, valid = box.clipped(corners, after, valid, self.smallest_share)
        moved = ops.cast(box.from_corners(corners, self.box_format, *after), float_type(boxes))
        if isinstance(given, dict):
            return {**rest, "boxes": moved, "valid": valid}
        return moved

    def _masks(self, masks: Tensor, matrix: Tensor, after: tuple[Any, ...]) -> Tensor:
        flat = len(masks.shape) == 3
        images = ops.expand_dims(masks, -1) if flat else masks
        kernel = warp((after[0], after[1]), interpolation="nearest", fill=(float(self.mask_fill),))
        step = Step(args=ops.reshape(matrix, (-1, 1, 9)), kernels=(kernel,))
        moved = run(images, [step])
        return ops.squeeze(moved, -1) if flat else moved


class Sometimes(ImageAugmentation):
    """Base of layers of one kernel that is used with probability p."""

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws whether each sample is changed, and how."""
        applied = draws.chance(self.p)
        return {"applied": applied, **self.draw_amounts(draws, shape)}

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws what the kernel takes."""
        del draws, shape
        return {}


def check_fill(fill: Any, *, edge: bool = False) -> Any:
    """Returns a fill value as a tuple of one number, or of one per channel, or "edge".

    Raises:
        OptionValueError: It is none of these.
    """
    if isinstance(fill, str):
        return check_one_of("fill", fill, ("edge",) if edge else ())
    values = (fill,) if isinstance(fill, int | float) else tuple(fill)
    return tuple(float(value) for value in values)


def check_interpolation(value: str) -> str:
    """Returns the name of an interpolation."""
    known: str = check_one_of("interpolation", value, INTERPOLATIONS)
    return known


def float_type(x: Tensor) -> str:
    """Returns the type of moved coordinates: that of x, or float32 if x is of integers."""
    kind = str(keras.backend.standardize_dtype(x.dtype))
    return kind if "float" in kind else "float32"
