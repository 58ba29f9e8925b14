"""Pictures of what a layer does: the image, and beside it what the layer made of it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from zoo.augment.catalog import AugmentationInfo, augmentation_info, create_augmentation
from zoo.errors import OptionValueError, SourceError

GAP = 4  # pixels between pictures
SIZED = ("random_crop", "random_resized_crop", "scale_jitter", "iou_crop")


def contact_sheet(
    image: str | os.PathLike[str],
    policy: str = "randaugment",
    *,
    count: int = 15,
    columns: int = 4,
    side: int = 224,
    seed: int | None = 0,
    **options: Any,
) -> Any:
    """Draws an image and what a layer makes of it.

    Args:
        image: A file.
        policy: A name of `zoo.list_augmentations(domain="image")`, or timm's string of a policy.
        count: How many pictures beside the image.
        columns: Pictures in a row.
        side: Longer side of a picture in pixels.
        seed: Of the layer.
        **options: Of the layer.

    Returns:
        A `PIL.Image.Image`.

    Raises:
        UnknownNameError: No such layer.
        OptionValueError: The layer is not one for single images, or `count`, `columns` or `side`
            is not positive.
        SourceError: The file is no image.
    """
    from PIL import Image

    numbers = {"count": count, "columns": columns, "side": side}
    for name, value in numbers.items():
        if value < 1:
            raise OptionValueError(f"`{name}` must be positive; got {name}={value!r}.")
    check_single(policy)
    picture = read(image, side)
    layer = create_augmentation(policy, seed=seed, **sized(policy, picture), **options)
    batch = np.repeat(picture[None], count, axis=0)
    pictures = [picture, *np.asarray(layer(batch))]
    height, width = (max(each.shape[axis] for each in pictures) for axis in (0, 1))
    rows = math.ceil(len(pictures) / columns)
    shape = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3)
    sheet = np.full(shape, 255, "uint8")
    for place, each in enumerate(pictures):
        top, left = place // columns * (height + GAP), place % columns * (width + GAP)
        sheet[top : top + each.shape[0], left : left + each.shape[1]] = each
    return Image.fromarray(sheet)


def read(image: str | os.PathLike[str], side: int) -> np.ndarray:
    """Returns an image file as uint8 (H, W, 3), its longer side of so many pixels.

    Raises:
        SourceError: There is none, or it is no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(Path(image)) as file:
            picture = file.convert("RGB")
    except FileNotFoundError as error:
        raise SourceError(f"There is no image {image}.") from error
    except (UnidentifiedImageError, OSError) as error:
        raise SourceError(f"{image} cannot be read as an image ({error}).") from error
    scale = side / max(picture.size)
    size = [max(1, round(length * scale)) for length in picture.size]
    return np.asarray(picture.resize((size[0], size[1]), Image.Resampling.BICUBIC))


def sized(policy: str, picture: np.ndarray) -> dict[str, Any]:
    """Returns the size of a layer that needs one: a picture's."""
    return {"size": tuple(picture.shape[:2])} if policy in SIZED else {}


def check_single(policy: str) -> AugmentationInfo | None:
    """Returns what a layer is that makes images of single images; None is timm's string.

    Raises:
        OptionValueError: It mixes batches, needs layers, or is not one for images.
    """
    if policy.startswith("rand-"):
        return None
    info = augmentation_info(policy)
    if info.domain != "image" or info.kind in ("mixing", "composition"):
        raise OptionValueError(
            f"A contact sheet shows what becomes of one image; `{policy}` is {info.kind} of "
            f"{info.domain}s. zoo.list_augmentations(domain='image', kind='policy') names some."
        )
    return info
