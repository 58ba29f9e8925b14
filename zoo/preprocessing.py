"""From image files or uint8 pixels to what a model takes, as its weights were trained."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from zoo.catalog import find_variant, resolve_name, weights_info
from zoo.errors import DataError, OptionValueError, SourceError
from zoo.pixels import DECODE_ERRORS, convert
from zoo.record import get_record
from zoo.spec import Preprocessing

Array = np.ndarray[Any, np.dtype[Any]]
ImageLike = str | os.PathLike[str] | Array

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@functools.cache
def class_list(name: str) -> tuple[str, ...]:
    """The class names of a published label set, such as "imagenet1k"; empty if unknown."""
    path = Path(__file__).parent / "weights" / f"{name}.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))) if name and path.is_file() else ()


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """Resize the short side, crop the centre, normalise: as the weights' evaluation does.

    Calling it maps uint8 pixels, (H, W, C) or (B, H, W, C), or a list of images of any sizes and
    of files, to a float32 batch (B, h, w, C).
    """

    size: tuple[int, int]  # pixels, (h, w)
    channels: int
    preprocessing: Preprocessing
    normalise: bool  # False where the model's graph normalises

    def __call__(self, images: ImageLike | Sequence[ImageLike]) -> Array:
        """Preprocesses a batch.

        Raises:
            SourceError: A file that does not exist.
            DataError: A file that is no image, or pixels that are not uint8 (H, W, C).
        """
        if isinstance(images, str | os.PathLike):
            batch: Sequence[ImageLike] = [images]
        elif isinstance(images, np.ndarray) and images.ndim == 3:
            batch = [images]
        else:
            batch = list(images)
        if not batch:
            raise DataError("There is no image in the batch.")
        x = np.stack([self._one(image) for image in batch]).astype(np.float32)
        if not self.normalise:
            return x
        cycle = np.arange(self.channels)
        mean = np.asarray(self.preprocessing.mean, np.float32)[cycle % len(self.preprocessing.mean)]
        std = np.asarray(self.preprocessing.std, np.float32)[cycle % len(self.preprocessing.std)]
        return np.asarray((x / np.float32(255) - mean) / std, np.float32)

    def _one(self, image: ImageLike) -> Array:
        pixels = read_image(image, self.channels) if isinstance(image, str | os.PathLike) else image
        shape = pixels.shape
        if pixels.dtype != np.uint8 or len(shape) != 3 or shape[-1] != self.channels or 0 in shape:
            raise DataError(
                f"An image must be uint8 (H, W, {self.channels}); "
                f"got {pixels.dtype} {tuple(shape)}."
            )
        return self._crop(self._resize(pixels))

    def _resize(self, pixels: Array) -> Array:
        height, width = pixels.shape[:2]
        scale = max(
            math.floor(side / self.preprocessing.crop) / actual
            for side, actual in zip(self.size, (height, width), strict=True)
        )
        target = (max(int(width * scale + 1e-6), 1), max(int(height * scale + 1e-6), 1))
        if target == (width, height):
            return pixels
        chosen = _FILTERS[self.preprocessing.interpolation]
        planes = [
            np.asarray(Image.fromarray(pixels[..., c]).resize(target, chosen))
            for c in range(self.channels)
        ]
        return np.stack(planes, axis=-1)

    def _crop(self, pixels: Array) -> Array:
        (height, width), (h, w) = pixels.shape[:2], self.size
        top, left = round((height - h) / 2), round((width - w) / 2)
        return pixels[top : top + h, left : left + w]


def read_image(path: str | os.PathLike[str], channels: int = 3) -> Array:
    """Decodes a file to uint8 (H, W, channels); alpha is composited on white.

    Raises:
        SourceError: There is no such file.
        DataError: It is no image, it is truncated, or `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise DataError(
            f"An image file has 1 or 3 channels; the model takes {channels}: pass arrays."
        )
    try:
        with Image.open(path) as image:
            pixels = np.asarray(convert(image, channels))
    except FileNotFoundError as error:
        raise SourceError(f"There is no image file at `{os.fspath(path)}`.") from error
    except DECODE_ERRORS as error:
        raise DataError(f"`{os.fspath(path)}` cannot be read as an image: {error}.") from error
    return pixels[..., None] if channels == 1 else pixels


def preprocessor(model_or_name: keras.Model | str) -> Preprocessor:
    """Returns the preprocessing that belongs to a model's weights.

    Args:
        model_or_name: A model of `zoo.create_model`, or a catalog name, `arch` or `arch.tag`.

    Returns:
        A callable: uint8 images or files in, a model input batch out.

    Raises:
        UnknownModelError: No such model.
        OptionValueError: A model that zoo did not make.
    """
    if isinstance(model_or_name, str):
        arch, tag = resolve_name(model_or_name)
        prep = weights_info(arch, tag).preprocessing if tag else _family_preprocessing(arch)
        return Preprocessor(size=prep.input_size, channels=3, preprocessing=prep, normalise=True)
    record = get_record(model_or_name)
    if record is None:
        raise OptionValueError(
            f"`{model_or_name.name}` was not made by zoo, so its preprocessing is unknown; "
            "build zoo.preprocessing.Preprocessor yourself."
        )
    prep = (
        record.weights.preprocessing
        if record.weights
        else _family_preprocessing(record.architecture)
    )
    _, height, width, channels = model_or_name.input_shape
    size = (height or prep.input_size[0], width or prep.input_size[1])
    return Preprocessor(
        size=size,
        channels=channels,
        preprocessing=prep,
        normalise=not record.options.get("preprocess", False),
    )


def _family_preprocessing(arch: str) -> Preprocessing:
    family, variant = find_variant(arch)
    side = variant.input_size
    return Preprocessing(mean=family.mean, std=family.std, input_size=(side, side))
