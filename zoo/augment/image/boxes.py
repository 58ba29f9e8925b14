"""Boxes and points that go along with an image.

Boxes keep their number and their format; those that leave the image are marked in `valid`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.errors import OptionValueError

FORMATS = (
    "xyxy",
    "yxyx",
    "xywh",
    "center_xywh",
    "center_yxhw",
    "rel_xyxy",
    "rel_yxyx",
    "rel_xywh",
    "rel_center_xywh",
)


def to_corners(boxes: Tensor, box_format: str, height: Tensor, width: Tensor) -> Tensor:
    """Returns boxes as left, top, right, bottom in pixels, float32.

    Args:
        boxes: (..., 4).
        box_format: One of FORMATS; `rel_` counts in widths and heights of the image.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
    """
    a, b, c, d = (ops.cast(boxes[..., i], "float32") for i in range(4))
    kind = box_format.removeprefix("rel_")
    if kind in ("yxyx", "center_yxhw"):
        a, b, c, d = b, a, d, c
    if kind == "xywh":
        c, d = a + c, b + d
    elif kind.startswith("center"):
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if box_format.startswith("rel_"):
        h, w = ops.cast(height, "float32"), ops.cast(width, "float32")
        a, b, c, d = a * w, b * h, c * w, d * h
    return ops.stack([a, b, c, d], axis=-1)


def from_corners(boxes: Tensor, box_format: str, height: Tensor, width: Tensor) -> Tensor:
    """Returns boxes of left, top, right, bottom in pixels in another format."""
    a, b, c, d = (boxes[..., i] for i in range(4))
    if box_format.startswith("rel_"):
        h, w = ops.cast(height, "float32"), ops.cast(width, "float32")
        a, b, c, d = a / w, b / h, c / w, d / h
    kind = box_format.removeprefix("rel_")
    if kind == "xywh":
        c, d = c - a, d - b
    elif kind.startswith("center"):
        a, b, c, d = (a + c) / 2, (b + d) / 2, c - a, d - b
    if kind in ("yxyx", "center_yxhw"):
        a, b, c, d = b, a, d, c
    return ops.stack([a, b, c, d], axis=-1)


def inverse(matrix: Tensor) -> Tensor:
    """Returns the inverses of matrices (B, 3, 3)."""
    m = [[matrix[:, i, j] for j in range(3)] for i in range(3)]

    def minor(i: int, j: int) -> Tensor:
        a, b = (k for k in range(3) if k != i)
        c, d = (k for k in range(3) if k != j)
        return m[a][c] * m[b][d] - m[a][d] * m[b][c]

    adjugate = [[(-1) ** (i + j) * minor(j, i) for j in range(3)] for i in range(3)]
    determinant = m[0][0] * minor(0, 0) - m[0][1] * minor(0, 1) + m[0][2] * minor(0, 2)
    rows = ops.stack([ops.stack(row, axis=-1) for row in adjugate], axis=-2)
    return rows / determinant[:, None, None]


def moved_points(
    points: Tensor, matrix: Tensor, before: tuple[Any, Any], after: tuple[Any, Any]
) -> Tensor:
    """Returns where points go when an image is moved.

    Args:
        points: x, y in pixels: (B, K, 2).
        matrix: Where pixels come from (B, 3, 3), as in `pixels.warp`.
        before: Height and width of the image.
        after: Height and width of the result.
    """
    forward = inverse(matrix)
    x = points[..., 0] - 0.5 * ops.cast(before[1], "float32")
    y = points[..., 1] - 0.5 * ops.cast(before[0], "float32")
    row = [forward[:, i, 0:1] * x + forward[:, i, 1:2] * y + forward[:, i, 2:3] for i in range(3)]
    x = row[0] / row[2] + 0.5 * ops.cast(after[1], "float32")
    y = row[1] / row[2] + 0.5 * ops.cast(after[0], "float32")
    return ops.stack([x, y], axis=-1)


def moved_boxes(
    corners: Tensor, matrix: Tensor, before: tuple[Any, Any], after: tuple[Any, Any]
) -> Tensor:
    """Returns the boxes around what boxes become when an image is moved: (B, N, 4)."""
    left, top, right, bottom = (corners[..., i] for i in range(4))
    xs = ops.stack([left, right, right, left], axis=-1)
    ys = ops.stack([top, top, bottom, bottom], axis=-1)
    count = ops.shape(corners)[1]
    points = ops.reshape(ops.stack([xs, ys], axis=-1), (-1, count * 4, 2))
    points = ops.reshape(moved_points(points, matrix, before, after), (-1, count, 4, 2))
    least, most = ops.min(points, axis=2), ops.max(points, axis=2)
    return ops.concatenate([least, most], axis=-1)


def clipped(
    corners: Tensor, size: tuple[Any, Any], valid: Tensor, smallest_share: float
) -> tuple[Tensor, Tensor]:
    """Returns boxes cut at the edge of an image, and which of them are still there.

    Args:
        corners: (B, N, 4).
        size: Height and width of the image.
        valid: Which boxes there were: bool (B, N).
        smallest_share: A box of which less than this share of its area is left is gone.
    """
    height, width = (ops.cast(side, "float32") for side in size)
    left, right = (ops.clip(corners[..., i], 0.0, width) for i in (0, 2))
    top, bottom = (ops.clip(corners[..., i], 0.0, height) for i in (1, 3))
    area = (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])
    seen = (right - left) * (bottom - top)
    valid = valid & (seen > 0) & (seen >= smallest_share * area)
    cut = ops.stack([left, top, right, bottom], axis=-1)
    return ops.where(valid[..., None], cut, 0.0), valid


def read(boxes: Any) -> tuple[Tensor, dict[str, Any]]:
    """Returns the array of boxes (B, N, 4), and what stands beside it: labels and `valid`.

    Raises:
        OptionValueError: They are neither an array nor a dictionary with `boxes`.
    """
    if isinstance(boxes, Mapping):
        if "boxes" not in boxes:
            raise OptionValueError(
                "`bounding_boxes` must be an array (B, N, 4) or a dictionary with the key `boxes`; "
                f"got the keys {sorted(boxes)}."
            )
        rest = {name: value for name, value in boxes.items() if name != "boxes"}
        return boxes["boxes"], rest
    return boxes, {}
