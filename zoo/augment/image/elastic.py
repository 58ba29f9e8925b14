"""A layer that moves each pixel by a field of its own: images, masks, keypoints and boxes alike.

Source: Simard, Steinkraus and Platt 2003, "Best practices for convolutional neural networks",
section 2; the field as in torchvision.transforms.v2.ElasticTransform, 0.29.
"""

from __future__ import annotations

from typing import Any

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.image import boxes as box
from zoo.augment.image.base import float_type
from zoo.augment.image.geometric import Resampled
from zoo.augment.image.pixels import Kernel, sample_at, unchanged
from zoo.augment.image.program import Step, run
from zoo.augment.layer import Data, Parameters, check_range, register, sizes
from zoo.errors import OptionValueError

_POINTS = 9  # along each edge of a box, whose hull is the box after
_ROUNDS = 5  # in which the place is found from which a point comes


@register
class ElasticTransform(Resampled):
    """Moves pixels by a smooth random field, as seen through moving water.

    The field says for each pixel of the result how far from there its value lies in the image.
    Points go the other way, by the inverse of the field. Differs: torchvision inverts in one step
    and from whole pixels, and takes a box's corners; here the inverse is iterated, fractions stay,
    and a box becomes the hull of its edges.

    Args:
        alpha: Range (low, high) of the field's strength; a number is always that one. Before it is
            smoothed, the field is uniform in (-alpha / 2, alpha / 2) pixels on each axis.
        sigma: Standard deviation of the Gaussian that smooths the field, in pixels, cut off at 4
            sigma; larger ones make the field weaker, to about alpha / (12 sigma) pixels; 0 leaves
            it.
        **options: `interpolation`, `fill`, and those of every image layer, see
            `ImageAugmentation`.

    Raises:
        OptionValueError: An option that breaks its rule, images of unknown size, or a place within
            another layer.
    """

    by_steps = False

    def __init__(self, alpha: Any = 50.0, sigma: float = 5.0, **options: Any) -> None:
        super().__init__(**options)
        if isinstance(alpha, int | float):
            alpha = (alpha, alpha)
        self.alpha = check_range("alpha", alpha, least=0.0)
        if sigma < 0:
            raise OptionValueError(f"`sigma` must not be negative; got sigma={sigma!r}.")
        self.sigma = float(sigma)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws whether each image is changed, and the field (B, H, W, 2): x and y in pixels."""
        height, width = shape[1:3]
        if not (isinstance(height, int) and isinstance(width, int)):
            raise OptionValueError(
                f"{type(self).__name__} needs images of known size; got images of shape "
                f"{tuple(shape)}. Resize or crop them before."
            )
        applied, strength = draws.chance(self.p), draws.uniform(*self.alpha)
        fields = []
        for _ in range(2):
            noise = draws.uniform(-1.0, 1.0, (height, width))
            if self.sigma > 0.0:
                noise = ops.matmul(smoothing(height, self.sigma), noise)
                noise = ops.matmul(noise, ops.transpose(smoothing(width, self.sigma)))
            fields.append(noise)
        field = ops.stack(fields, axis=-1) * (0.5 * strength[:, None, None, None])
        return {"applied": applied, "displacement": field}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Has none that other layers could use.

        Raises:
            OptionValueError: Always, since no matrix says where boxes, masks and keypoints go.
        """
        del parameters, shape
        raise OptionValueError(
            f"{type(self).__name__} cannot be part of another layer, which would leave boxes and "
            "masks where they are; call it before or after that one."
        )

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Moves images, masks, boxes and keypoints by the same field."""
        field = ops.cast(parameters["displacement"], "float32")
        shape = sizes(data["images"])
        if "applied" in parameters:
            field = ops.where(parameters["applied"][:, None, None, None], field, 0.0)
        kernel = displaced(self.interpolation, self.fill)
        step = _step(kernel, field, parameters)
        result = {**data, "images": self._on_values(data["images"], lambda x: run(x, [step]))}
        if "segmentation_masks" in data:
            masks = data["segmentation_masks"]
            step = _step(displaced("nearest", (float(self.mask_fill),)), field, parameters)
            flat = len(masks.shape) == 3
            moved = run(ops.expand_dims(masks, -1) if flat else masks, [step])
            result["segmentation_masks"] = ops.squeeze(moved, -1) if flat else moved
        if "keypoints" in data:
            points = data["keypoints"]
            moved = moved_points(ops.cast(points, "float32"), field)
            result["keypoints"] = ops.cast(moved, float_type(points))
        if "bounding_boxes" in data:
            result["bounding_boxes"] = self._moved_boxes(data["bounding_boxes"], field, shape)
        return result

    def _moved_boxes(self, given: Any, field: Tensor, shape: tuple[Any, ...]) -> Any:
        boxes, rest = box.read(given)
        corners = box.to_corners(boxes, self.box_format, *shape[1:3])
        valid = rest.get("valid")
        valid = ops.ones_like(corners[..., 0]) > 0 if valid is None else ops.cast(valid, "bool")
        count = int(corners.shape[1])
        points = ops.reshape(outlines(corners), (-1, count * 4 * _POINTS, 2))
        points = ops.reshape(moved_points(points, field), (-1, count, 4 * _POINTS, 2))
        hull = ops.concatenate([ops.min(points, axis=2), ops.max(points, axis=2)], axis=-1)
        hull, valid = box.clipped(hull, shape[1:3], valid, self.smallest_share)
        moved = box.from_corners(hull, self.box_format, *shape[1:3])
        moved = ops.cast(moved, float_type(boxes))
        return {**rest, "boxes": moved, "valid": valid} if isinstance(given, dict) else moved

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "alpha": self.alpha, "sigma": self.sigma}


def _step(kernel: Kernel, field: Tensor, parameters: Parameters) -> Step:
    """Returns a step whose numbers are the field; without it where it is not applied."""
    size = int(field.shape[1]) * int(field.shape[2]) * 2
    args = ops.reshape(field, (-1, 1, size))
    if "applied" not in parameters:
        return Step(args=args, kernels=(kernel,))
    index = ops.expand_dims(ops.cast(parameters["applied"], "int32"), 1)
    return Step(args=args, kernels=(unchanged, kernel), index=index)


def displaced(interpolation: str, fill: Any) -> Kernel:
    """Returns a kernel that takes each pixel from as far away as args, x and y in pixels, say.

    Args:
        interpolation: "nearest" or "bilinear".
        fill: Value outside of the image, for all channels or for each, or "edge".
    """

    def move(image: Tensor, args: Tensor) -> Tensor:
        height, width = int(image.shape[0]), int(image.shape[1])
        field = ops.reshape(args, (height, width, 2))
        row = ops.arange(height, dtype="float32")[:, None] + field[..., 1]
        column = ops.arange(width, dtype="float32")[None, :] + field[..., 0]
        return sample_at(image, row, column, interpolation=interpolation, fill=fill)

    return move


def smoothing(size: int, sigma: float) -> Tensor:
    """Returns a Gaussian of sigma pixels, cut off at 4 sigma, as a matrix (size, size).

    What lies beyond an edge is a reflection, as often as needed; the last pixel is the mirror.
    """
    if size == 1:
        return ops.ones((1, 1), dtype="float32")
    half = int(8 * sigma + 1) // 2
    place = ops.arange(size, dtype="float32")
    taps = ops.arange(-half, half + 1, dtype="float32")
    total = ops.sum(ops.exp(-0.5 * (taps / sigma) ** 2))
    inner = ops.cast((place > 0) & (place < size - 1), "float32")[None, :]
    period, matrix = 2 * (size - 1), 0.0
    for turn in range(-(half // period) - 1, half // period + 2):
        for mirrored, share in ((place, 1.0), (-place, inner)):
            distance = place[:, None] - (mirrored[None, :] + float(turn * period))
            weight = ops.exp(-0.5 * (distance / sigma) ** 2) / total
            matrix = matrix + ops.where(ops.abs(distance) <= half, weight, 0.0) * share
    return matrix


def moved_points(points: Tensor, field: Tensor) -> Tensor:
    """Returns where points go when pixels come from as far away as a field says.

    Args:
        points: x, y in pixels: (B, K, 2).
        field: x and y in pixels: (B, H, W, 2).
    """
    place = points
    for _ in range(_ROUNDS):
        place = points - _between(field, place)
    return place


def outlines(corners: Tensor) -> Tensor:
    """Returns points on the edges of boxes: (B, N, 4) to (B, N, 4 * _POINTS, 2)."""
    share = ops.arange(_POINTS, dtype="float32") / (_POINTS - 1.0)
    left, top, right, bottom = (corners[..., i : i + 1] for i in range(4))
    across, down = left + (right - left) * share, top + (bottom - top) * share
    still = ops.zeros_like(across)
    x = ops.concatenate([across, across, left + still, right + still], axis=-1)
    y = ops.concatenate([top + still, bottom + still, down, down], axis=-1)
    return ops.stack([x, y], axis=-1)


def _between(field: Tensor, points: Tensor) -> Tensor:
    """Returns a field at points between its pixels, whose centres are at halves: (B, K, 2)."""
    height, width = int(field.shape[1]), int(field.shape[2])
    flat = ops.reshape(field, (-1, height * width, 2))
    column = ops.clip(points[..., 0:1] - 0.5, 0.0, width - 1.0)
    row = ops.clip(points[..., 1:2] - 0.5, 0.0, height - 1.0)
    left, top = ops.floor(column), ops.floor(row)
    total = 0.0
    for down in (0, 1):
        for right in (0, 1):
            y = ops.minimum(ops.cast(top, "int32") + down, height - 1)
            x = ops.minimum(ops.cast(left, "int32") + right, width - 1)
            weight = ops.abs(1 - down - (row - top)) * ops.abs(1 - right - (column - left))
            total = total + ops.take_along_axis(flat, y * width + x, axis=1) * weight
    return total
