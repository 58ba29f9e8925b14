"""A layer that pastes objects of one image into another.

Source: Ghiasi et al. 2020, arXiv:2012.07177.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.image import boxes as box
from zoo.augment.image.base import float_type
from zoo.augment.image.collage import Collage
from zoo.augment.image.mixing import Mixing, both_boxes
from zoo.augment.layer import Data, Parameters, check_one_of, check_probability, register, sizes
from zoo.errors import OptionValueError

_VALUES = 256  # of masks, for which is drawn


@register
class CopyPaste(Collage):
    """Pastes objects of another image of the batch, cut out by its masks, at the same place.

    Masks of instances hold 0 and, for the object of the i-th box, i + 1. Boxes are then those of
    both images, twice as many. An own box that is partly hidden becomes the hull of the pixels
    that are seen; it is no longer valid if none are, or less than `smallest_share` of what there
    was. The other's boxes are valid where their object was pasted, and the masks number them from
    the count of boxes on. A box that has no pixels in its own mask stays as it is.

    Masks of classes do not say which pixels are of which box: with them all pixels of some classes
    are pasted, and boxes are refused. Labels of whole images stay as they are.

    Source: Ghiasi et al. 2020, arXiv:2012.07177, section 3; jitter sizes before, as there, with
    `ScaleJitter`. Differs: edges are not smoothed, which the paper found to make no difference.

    Args:
        object_p: Probability with which each object, or each class, of the other is pasted.
        masks: "instances" or "classes": what `segmentation_masks` hold.
        background: Values of masks that are never pasted, such as nothing and unknown.
        **options: Of every image layer, see `ImageAugmentation`.

    Raises:
        OptionValueError: An option that breaks its rule, a single sample, no masks, masks of
            instances without boxes or too small a type, boxes with masks of classes, or keypoints.
    """

    _NOT_OURS = ("alpha", "mode", "num_classes", "label_smoothing")

    def __init__(
        self,
        object_p: float = 0.5,
        masks: str = "instances",
        background: Sequence[int] = (0, 255),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.object_p = check_probability("object_p", object_p)
        self.masks = check_one_of("masks", masks, ("instances", "classes"))
        self.background = tuple(int(value) for value in background)
        if not all(0 <= value < _VALUES for value in self.background):
            raise OptionValueError(
                f"`background` must be numbers in [0, {_VALUES - 1}]; got background="
                f"{background!r}."
            )

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the partner, and which values of its mask are pasted: bool (B, 256).

        Values from 256 on are treated as what remains of them after division by 256.
        """
        del shape
        chosen = draws.chance(self.object_p, (_VALUES,)) & draws.chance(self.p)[:, None]
        object_ = [value not in self.background for value in range(_VALUES)]
        return {
            "partner": self.partners(draws),
            "chosen": chosen & ops.convert_to_tensor(object_, "bool"),
        }

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Pastes into images and masks, and finds what is seen of the boxes."""
        self._refuse_keypoints(data)
        self._check_masks(data)
        images, given = data["images"], data["segmentation_masks"]
        masks = given if len(given.shape) == 3 else ops.squeeze(given, -1)
        partner = parameters["partner"]
        other = ops.take(masks, partner, axis=0)
        height, width = sizes(images)[1:3]
        values = ops.reshape(ops.cast(other, "int32") % _VALUES, (-1, height * width))
        chosen = ops.cast(parameters["chosen"], "int32")
        pasted = ops.reshape(ops.take_along_axis(chosen, values, axis=1), (-1, height, width)) > 0
        result = dict(data)
        result["images"] = ops.where(pasted[..., None], ops.take(images, partner, axis=0), images)
        if self.masks == "instances":
            count = int(box.read(data["bounding_boxes"])[0].shape[1])
            other = ops.cast(ops.cast(other, "int32") + count, masks.dtype)
        pieces = ops.where(pasted, other, masks)
        result["segmentation_masks"] = ops.reshape(pieces, ops.shape(given))
        if self.masks == "instances":
            result["bounding_boxes"] = self._seen_boxes(data, masks, pieces, partner)
        return result

    def _seen_boxes(self, data: Data, before: Tensor, after: Tensor, partner: Tensor) -> Any:
        shape = sizes(data["images"])
        boxes, _ = box.read(data["bounding_boxes"])
        count = int(boxes.shape[1])
        whole, _ = extents(before, count)
        other = ops.take(whole, partner, axis=0)
        seen, hull = extents(after, 2 * count)
        both = both_boxes(data["bounding_boxes"], partner, partner >= 0)
        corners = box.to_corners(both["boxes"], self.box_format, *shape[1:3])
        total = ops.concatenate([whole, other], axis=1)
        share = ops.cast(seen, "float32") / ops.maximum(ops.cast(total, "float32"), 1.0)
        unknown = ops.concatenate([whole == 0, other < 0], axis=1)
        there = unknown | ((seen > 0) & (share >= self.smallest_share))
        partly = (seen > 0) & (seen < total)
        corners = ops.where(partly[..., None], hull, corners)
        valid = both["valid"] & there
        corners = ops.where(valid[..., None], corners, 0.0)
        moved = box.from_corners(corners, self.box_format, *shape[1:3])
        return {**both, "boxes": ops.cast(moved, float_type(boxes)), "valid": valid}

    def _check_masks(self, data: Data) -> None:
        if "segmentation_masks" not in data:
            raise OptionValueError(
                "CopyPaste cuts out by masks; call it on a dictionary with the key "
                f"`segmentation_masks`. Got {sorted(data)}. CutMix needs none."
            )
        has_boxes = "bounding_boxes" in data
        if has_boxes != (self.masks == "instances"):
            raise OptionValueError(
                "CopyPaste takes masks of instances together with `bounding_boxes`, and masks of "
                f"classes without; got masks={self.masks!r} and "
                f"{'boxes' if has_boxes else 'no boxes'}."
            )
        if has_boxes:
            kind = keras.backend.standardize_dtype(data["segmentation_masks"].dtype)
            most = 2 * int(box.read(data["bounding_boxes"])[0].shape[1])
            if most > np.iinfo(kind).max:
                raise OptionValueError(
                    f"Masks of {most // 2} instances need values up to {most} after CopyPaste; got "
                    f"masks of type {kind}. Pass them as int32."
                )

    def _spec(self, name: str, value: Any) -> Any:
        return super(Mixing, self)._spec(name, value)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "object_p": self.object_p,
            "masks": self.masks,
            "background": self.background,
        }


def extents(masks: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns how many pixels there are of each instance, and the box around them.

    Args:
        masks: 0, or the instance's number from 1 on: (B, H, W).
        count: Of instances.

    Returns:
        int32 (B, count); left, top, right, bottom in pixels (B, count, 4).
    """

    def found(mask: Tensor) -> tuple[Tensor, Tensor]:
        height, width = int(mask.shape[0]), int(mask.shape[1])
        value = ops.cast(mask, "int32")
        value = ops.where((value < 0) | (value > count), 0, value)
        sides = []
        for axis, size in ((0, height), (1, width)):
            place = ops.expand_dims(ops.arange(size, dtype="int32"), 1 - axis)
            index = ops.reshape(value * size + place, (-1,))
            total = ops.segment_sum(ops.ones_like(index), index, num_segments=(count + 1) * size)
            sides.append(ops.reshape(total, (count + 1, size))[1:])
        here = [ops.cast(side > 0, "int32") for side in sides]
        first = [ops.argmax(h, axis=-1) for h in here]
        last = [h.shape[-1] - ops.cast(ops.argmax(ops.flip(h, 1), -1), "int32") for h in here]
        corners = [ops.cast(c, "float32") for c in (first[1], first[0], last[1], last[0])]
        return ops.cast(ops.sum(sides[0], axis=-1), "int32"), ops.stack(corners, axis=-1)

    # One array, since a map over the batch gives one back.
    def packed(mask: Tensor) -> Tensor:
        number, corners = found(mask)
        return ops.concatenate([ops.cast(number, "float32")[:, None], corners], axis=-1)

    result = ops.map(packed, masks)
    return ops.cast(result[..., 0], "int32"), result[..., 1:]
