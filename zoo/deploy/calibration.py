"""Images that show a quantiser what a model meets: gathered, checked, prepared."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import DataError, OptionValueError
from zoo.preprocessing import Array, ImageLike, Preprocessor

Images = Any  # uint8 (N, H, W, C); a sequence of files and of uint8 (H, W, C); a tf.data.Dataset
FEWEST = 32
BATCH = 32  # images prepared at once


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images as they were given, and their classes if those are known."""

    images: tuple[ImageLike, ...]
    labels: Array | None = None  # int (N,)
    preprocess: Preprocessor

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batch: int = BATCH) -> Iterator[Array]:
        """Yields prepared images (batch, H, W, C), float32; the last ones may be fewer."""
        for first in range(0, len(self.images), batch):
            yield self.preprocess(self.images[first : first + batch])

    def examples(self) -> Iterator[Array]:
        """Yields prepared images one by one, (1, H, W, C)."""
        for prepared in self.batches():
            yield from (prepared[i : i + 1] for i in range(len(prepared)))


def gather(
    images: Images, labels: Any, preprocess: Preprocessor, *, argument: str, limit: int | None
) -> ImageSet:
    """Collects images, and labels where there are some.

    Args:
        images: uint8 (N, H, W, C), a sequence of files and uint8 pixels of any sizes, or a
            `tf.data.Dataset` of pixels or of pairs with labels, in batches or not.
        labels: Class indices (N,), or None.
        preprocess: The model's.
        argument: What the images are called in errors.
        limit: Most images to take; None: all, which a data set without an end has not.

    Raises:
        DataError: There are none, or labels of another number.
        OptionValueError: Labels are given twice, or the images have a type that is not known.
    """
    found: Iterable[tuple[ImageLike, Any]]
    if hasattr(images, "element_spec"):
        if labels is not None:
            raise OptionValueError(
                f"`{argument}` is a data set, whose labels are in its pairs (images, labels); "
                "give no `labels` besides."
            )
        found = _of_dataset(images)
    elif isinstance(images, np.ndarray | Sequence) and not isinstance(images, str | bytes):
        if labels is not None and len(labels) != len(images):
            raise DataError(
                f"`labels` must be one for each image of `{argument}`, of which there are "
                f"{len(images)}; got {len(labels)}."
            )
        found = zip(images, itertools.repeat(None) if labels is None else labels, strict=False)
    else:
        raise OptionValueError(
            f"`{argument}` must be uint8 images (N, H, W, C), a list of files or images, or a "
            f"tf.data.Dataset; got {type(images).__name__}."
        )
    kept = list(itertools.islice(found, limit))
    if not kept:
        raise DataError(f"`{argument}` holds no image.")
    classes = None if kept[0][1] is None else _classes([label for _, label in kept], argument)
    return ImageSet(images=tuple(image for image, _ in kept), labels=classes, preprocess=preprocess)


def _classes(labels: list[Any], argument: str) -> Array:
    classes = np.asarray(labels)
    if classes.ndim != 1 or not np.issubdtype(classes.dtype, np.integer):
        raise DataError(
            f"The labels of `{argument}` must be class indices (N,); got {classes.dtype} "
            f"{classes.shape}."
        )
    return classes.astype(np.int64)


def _of_dataset(dataset: Any) -> Iterator[tuple[ImageLike, Any]]:
    for element in dataset.as_numpy_iterator():
        pixels, labels = element if isinstance(element, tuple) else (element, None)
        if pixels.ndim == 3:
            yield pixels, labels
            continue
        yield from zip(pixels, itertools.repeat(None) if labels is None else labels, strict=False)


def check_representative(calibration: ImageSet) -> None:
    """Refuses images from which no ranges of activations can be learned.

    Raises:
        DataError: They are too few, or all alike; or as the preprocessing.
    """
    if len(calibration) < FEWEST:
        raise DataError(
            f"`calibration` must hold at least {FEWEST} images, some hundreds are better: they "
            f"show what values the activations take; got {len(calibration)}."
        )
    examples = calibration.examples()
    first = next(examples)
    if not any(np.any(other != first) for other in examples):
        raise DataError(
            "`calibration` must hold different images; all of them are alike. Take some from the "
            "data that the model will meet."
        )
