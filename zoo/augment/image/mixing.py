"""Layers that mix the samples of a batch, and their labels with them.

Each sample is mixed with another one of the batch. Labels may be class numbers (B,) or shares of
classes (B, K); mixed labels are shares, float32.
"""

from __future__ import annotations

from typing import Any

import keras

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.image import boxes as box
from zoo.augment.image.base import ImageAugmentation, float_type
from zoo.augment.layer import Data, Parameters, check_one_of, check_probability, register
from zoo.errors import OptionValueError

MODES = ("elem", "pair", "batch")


class Mixing(ImageAugmentation):
    """Base of mixing layers.

    Args:
        alpha: Of the beta distribution of the share a sample keeps.
        mode: "elem": each sample has a share of its own; "pair": the i-th and the i-th last sample
            are mixed with each other with one share; "batch": one share for all, as in the papers.
        num_classes: Needed where labels are class numbers.
        label_smoothing: Spread over all classes before mixing.
        **options: Of every image layer, see `ImageAugmentation`.
    """

    needs_labels = True

    def __init__(
        self,
        alpha: float = 1.0,
        mode: str = "elem",
        num_classes: int | None = None,
        label_smoothing: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if alpha <= 0:
            raise OptionValueError(f"`alpha` must be positive; got alpha={alpha!r}.")
        self.alpha = alpha
        self.mode = check_one_of("mode", mode, MODES)
        self.num_classes = num_classes
        self.label_smoothing = check_probability("label_smoothing", label_smoothing)

    def partners(self, draws: Draws) -> Tensor:
        """Returns with which sample each is mixed: int32 (B,)."""
        rows = ops.cast(ops.shape(draws.seeds)[0], "int32")
        places = ops.arange(ops.shape(draws.seeds)[0], dtype="int32")
        if self.mode == "pair":
            return rows - 1 - places
        step = 1 + of_batch(draws).integers(ops.maximum(rows - 1, 1))[0]
        return (places + step) % rows

    def shares(self, draws: Draws, alpha: float) -> Tensor:
        """Returns the share that each sample keeps (B,)."""
        if self.mode == "batch":
            return of_batch(draws).beta(alpha, alpha)[0] + ops.zeros_like(draws.uniform())
        share = draws.beta(alpha, alpha)
        if self.mode == "pair":
            rows = ops.shape(share)[0]
            first = ops.arange(rows, dtype="int32") < (rows + 1) // 2
            share = ops.where(first, share, ops.flip(share, axis=0))
        return share

    def chance(self, draws: Draws, p: float) -> Tensor:
        """Returns True with probability p, alike where shares are alike: bool (B,)."""
        applied = draws.chance(p)
        if self.mode == "batch":
            return of_batch(draws).chance(p)[0] | (applied & ~applied)
        if self.mode == "pair":
            rows = ops.shape(applied)[0]
            first = ops.arange(rows, dtype="int32") < (rows + 1) // 2
            applied = ops.where(first, applied, ops.flip(applied, axis=0))
        return applied

    def soft_labels(self, labels: Tensor) -> Tensor:
        """Returns labels as shares of classes: float32 (B, K).

        Raises:
            OptionValueError: They are class numbers, and the number of classes is not known.
        """
        if len(labels.shape) > 1 and labels.shape[-1] != 1:
            soft = ops.cast(labels, "float32")
        else:
            if self.num_classes is None:
                raise OptionValueError(
                    f"{type(self).__name__} must know `num_classes` to mix labels that are class "
                    "numbers; got num_classes=None. Pass it, or labels (B, num_classes)."
                )
            soft = ops.one_hot(
                ops.cast(ops.reshape(labels, (-1,)), "int32"), self.num_classes, dtype="float32"
            )
        smoothing = self.label_smoothing
        return soft * (1.0 - smoothing) + smoothing / soft.shape[-1] if smoothing else soft

    def mixed_labels(self, labels: Tensor, parameters: Parameters, share: Tensor) -> Tensor:
        """Returns labels mixed by the share a sample keeps."""
        soft = self.soft_labels(labels)
        other = ops.take(soft, parameters["partner"], axis=0)
        keep = share[:, None]
        return soft * keep + other * (1.0 - keep)

    def _spec(self, name: str, value: Any) -> Any:
        if name == "labels" and len(value.shape) == 1 and self.num_classes:
            return keras.KerasTensor((value.shape[0], self.num_classes), dtype="float32")
        if name == "labels":
            return keras.KerasTensor(value.shape, dtype="float32")
        return super()._spec(name, value)

    def _batch(self, data: Data) -> tuple[Data, bool]:
        data, single = super()._batch(data)
        if single:
            raise OptionValueError(
                f"{type(self).__name__} mixes the samples of a batch; got one sample of shape "
                f"{tuple(data['images'].shape[1:])}. Call `.batch(...)` before it."
            )
        return data, single

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "mode": self.mode,
            "num_classes": self.num_classes,
            "label_smoothing": self.label_smoothing,
        }


def of_batch(draws: Draws) -> Draws:
    """Returns random numbers of the whole batch, as those of its first sample."""
    return Draws(ops.expand_dims(draws.split()[0], 0))


@register
class MixUp(Mixing):
    """Averages each image with another one, by weights that are drawn.

    Boxes are those of both images, twice as many. A mixture of masks is no mask: they are refused.

    Source: Zhang et al. 2017, arXiv:1710.09412; as timm's.

    Args:
        alpha: Of the beta distribution of the share a sample keeps.
        mode: "elem", "pair" or "batch".
        num_classes: Needed where labels are class numbers.
        label_smoothing: Spread over all classes before mixing.
        **options: Of every image layer, see `ImageAugmentation`.

    Raises:
        OptionValueError: An option that breaks its rule, a single sample, labels that are missing,
            or masks.
    """

    def __init__(self, alpha: float = 0.8, **options: Any) -> None:
        super().__init__(alpha, **options)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws partner and share; a share of 1 leaves a sample as it is."""
        del shape
        share = ops.where(self.chance(draws, self.p), self.shares(draws, self.alpha), 1.0)
        return {"partner": self.partners(draws), "share": share}

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Mixes images, labels and boxes."""
        if "segmentation_masks" in data:
            raise OptionValueError(
                "MixUp cannot mix `segmentation_masks`: a mixture of classes is no class. CutMix "
                "can."
            )
        partner, share = parameters["partner"], parameters["share"]

        def mix(images: Tensor) -> Tensor:
            keep = share[:, None, None, None]
            other = ops.cast(ops.take(images, partner, axis=0), "float32")
            mixed = ops.cast(images, "float32") * keep + other * (1.0 - keep)
            if "int" in str(images.dtype):
                return ops.to_uint8(mixed)
            return mixed

        result = {**data, "images": self._on_values(data["images"], mix)}
        if "labels" in data:
            result["labels"] = self.mixed_labels(data["labels"], parameters, share)
        if "bounding_boxes" in data:
            result["bounding_boxes"] = both_boxes(data["bounding_boxes"], partner, share < 1.0)
        return result


@register
class CutMix(Mixing):
    """Puts a rectangle of another image into each, at the same place.

    Labels are mixed by the areas that are seen. Masks are cut alike. Boxes are those of both
    images, twice as many: the other's cut at the rectangle, its own valid unless it covers them.

    Source: Yun et al. 2019, arXiv:1905.04899, algorithm 1; as timm's.

    Args:
        alpha: Of the beta distribution of the share a sample keeps.
        mode: "elem", "pair" or "batch".
        num_classes: Needed where labels are class numbers.
        label_smoothing: Spread over all classes before mixing.
        **options: Of every image layer, see `ImageAugmentation`.

    Raises:
        OptionValueError: An option that breaks its rule, a single sample, or labels missing.
    """

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws partner and rectangle; an empty one leaves a sample as it is."""
        share = self.shares(draws, self.alpha)
        applied = self.chance(draws, self.p)
        place = of_batch(draws) if self.mode == "batch" else draws
        centre = place.uniform(shape=(2,))
        if self.mode == "pair":
            rows = ops.shape(centre)[0]
            first = (ops.arange(rows, dtype="int32") < (rows + 1) // 2)[:, None]
            centre = ops.where(first, centre, ops.flip(centre, axis=0))
        side = ops.sqrt(1.0 - share)
        result = {"partner": self.partners(draws)}
        for index, (start, length) in enumerate((("top", "height"), ("left", "width"))):
            full = ops.cast(shape[1 + index], "float32")
            half = ops.floor(ops.floor(full * side) / 2.0)
            middle = ops.floor(centre[:, index] * full)
            low, high = ops.clip(middle - half, 0.0, full), ops.clip(middle + half, 0.0, full)
            result[start] = low
            result[length] = ops.where(applied, high - low, 0.0)
        return result

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Mixes images, masks, labels and boxes."""
        partner = parameters["partner"]
        images = data["images"]
        shape = ops.shape(images)
        inside = _inside(parameters, shape[1], shape[2])
        result = {**data, "images": ops.where(inside, ops.take(images, partner, axis=0), images)}
        area = ops.cast(shape[1] * shape[2], "float32")
        cut = ops.cast(parameters["height"] * parameters["width"], "float32")
        share = 1.0 - cut / area
        if "segmentation_masks" in data:
            masks = data["segmentation_masks"]
            here = inside[..., 0] if len(masks.shape) == 3 else inside
            result["segmentation_masks"] = ops.where(here, ops.take(masks, partner, axis=0), masks)
        if "labels" in data:
            result["labels"] = self.mixed_labels(data["labels"], parameters, share)
        if "bounding_boxes" in data:
            result["bounding_boxes"] = self._cut_boxes(data["bounding_boxes"], parameters, shape)
        return result

    def _cut_boxes(self, given: Any, parameters: Parameters, shape: Any) -> Any:
        both = both_boxes(given, parameters["partner"], parameters["width"] > 0)
        boxes, rest = box.read(both)
        corners = box.to_corners(boxes, self.box_format, shape[1], shape[2])
        count = corners.shape[1] // 2
        top, left, tall, wide = (
            ops.cast(parameters[name], "float32")[:, None]
            for name in ("top", "left", "height", "width")
        )
        bottom, right = top + tall, left + wide
        own, other = corners[:, :count], corners[:, count:]
        covered = (
            (own[..., 0] >= left)
            & (own[..., 1] >= top)
            & (own[..., 2] <= right)
            & (own[..., 3] <= bottom)
        )
        cut = ops.stack(
            [
                ops.clip(other[..., 0], left, right),
                ops.clip(other[..., 1], top, bottom),
                ops.clip(other[..., 2], left, right),
                ops.clip(other[..., 3], top, bottom),
            ],
            axis=-1,
        )
        seen = (cut[..., 2] - cut[..., 0]) * (cut[..., 3] - cut[..., 1])
        area = (other[..., 2] - other[..., 0]) * (other[..., 3] - other[..., 1])
        there = (seen > 0) & (seen >= self.smallest_share * area)
        valid = rest["valid"] & ops.concatenate([~covered, there], axis=1)
        corners = ops.where(valid[..., None], ops.concatenate([own, cut], axis=1), 0.0)
        moved = box.from_corners(corners, self.box_format, shape[1], shape[2])
        return {**rest, "boxes": ops.cast(moved, float_type(boxes)), "valid": valid}


@register
class MixUpOrCutMix(Mixing):
    """Does MixUp to some samples of a batch and CutMix to the others.

    Source: timm's `Mixup`, used by Touvron et al. 2020, arXiv:2012.12877.

    Args:
        alpha: Of MixUp.
        cutmix_alpha: Of CutMix.
        switch_p: Probability of CutMix.
        **options: `mode`, `num_classes`, `label_smoothing`, and those of every image layer, see
            `ImageAugmentation`.
    """

    def __init__(
        self, alpha: float = 0.8, cutmix_alpha: float = 1.0, switch_p: float = 0.5, **options: Any
    ) -> None:
        super().__init__(alpha, **options)
        self.cutmix_alpha = cutmix_alpha
        self.switch_p = check_probability("switch_p", switch_p)
        shared = {"mode": self.mode, "num_classes": self.num_classes, "seed": self.seed}
        self._mixup = MixUp(alpha, label_smoothing=self.label_smoothing, **shared)
        self._cutmix = CutMix(cutmix_alpha, label_smoothing=self.label_smoothing, **shared)

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws what both draw, and keeps of each what is used."""
        applied = self.chance(draws, self.p)
        cut = self.chance(draws, self.switch_p)
        first, second = self._mixup.draw(draws, shape), self._cutmix.draw(draws, shape)
        return {
            **second,
            "share": ops.where(applied & ~cut, first["share"], 1.0),
            "height": ops.where(applied & cut, second["height"], 0.0),
            "width": ops.where(applied & cut, second["width"], 0.0),
        }

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Mixes images and labels.

        Raises:
            OptionValueError: Boxes or masks, which only one of the two can mix.
        """
        unfit = [name for name in ("bounding_boxes", "segmentation_masks") if name in data]
        if unfit:
            raise OptionValueError(
                f"MixUpOrCutMix mixes images and labels only; got `{unfit[0]}`. CutMix mixes them."
            )
        images = data["images"]
        shape = ops.shape(images)
        inside = _inside(parameters, shape[1], shape[2])
        keep = parameters["share"][:, None, None, None]
        partner = parameters["partner"]

        def mix(images: Tensor) -> Tensor:
            other = ops.take(images, partner, axis=0)
            mean = ops.cast(images, "float32") * keep + ops.cast(other, "float32") * (1.0 - keep)
            if "int" in str(images.dtype):
                mean = ops.to_uint8(mean)
            return ops.where(inside, other, mean)

        result = {**data, "images": self._on_values(images, mix)}
        if "labels" in data:
            area = ops.cast(shape[1] * shape[2], "float32")
            cut = parameters["height"] * parameters["width"] / area
            share = parameters["share"] - cut
            result["labels"] = self.mixed_labels(data["labels"], parameters, share)
        return result

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "cutmix_alpha": self.cutmix_alpha,
            "switch_p": self.switch_p,
        }


def _inside(parameters: Parameters, height: Any, width: Any) -> Tensor:
    """Returns whether pixels lie in the rectangle of their image: (B, H, W, 1)."""
    row = ops.arange(height, dtype="float32")[None, :, None, None]
    column = ops.arange(width, dtype="float32")[None, None, :, None]
    top, left, tall, wide = (
        ops.cast(parameters[name], "float32")[:, None, None, None]
        for name in ("top", "left", "height", "width")
    )
    return (row >= top) & (row < top + tall) & (column >= left) & (column < left + wide)


def both_boxes(given: Any, partner: Tensor, mixed: Tensor) -> dict[str, Tensor]:
    """Returns the boxes of each image and of its partner, and which of them there are."""
    boxes, rest = box.read(given)
    if "valid" not in rest:
        rest = {**rest, "valid": ops.ones_like(ops.cast(boxes[..., 0], "int32")) > 0}
    own = {"boxes": boxes, **rest}
    own["valid"] = ops.cast(own["valid"], "bool")
    other = {name: ops.take(value, partner, axis=0) for name, value in own.items()}
    other["valid"] = other["valid"] & mixed[:, None]
    return {name: ops.concatenate([own[name], other[name]], axis=1) for name in own}
