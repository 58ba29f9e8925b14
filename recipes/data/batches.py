"""Batches for `fit`, in an order that a resumed run repeats."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from recipes.data.decoding import decode_images
from recipes.data.image_data import ImageData
from zoo.errors import OptionValueError

Batch = tuple[NDArray[Any], NDArray[Any]]


class ImageBatches(keras.utils.PyDataset):
    """Yields (images, targets): images (B, H, W, C) in 0 .. 255, class targets int32 (B,).

    The order of a pass depends on `seed` and on how many passes were ended before it, nothing
    else. Keras ends one before the first pass of every `fit`; so one `fit` from `start_epoch=e`
    with `initial_epoch=e` sees what an uninterrupted `fit` sees from epoch e on. Call `fit` with
    `shuffle=False`, or Keras shuffles the batches once more by a generator of its own, and
    without `steps_per_epoch`, which ends Keras' epochs inside ours. The last, smaller batch is
    kept.

    With `shift`, each image is moved by up to that share of its sides, its border repeated; how far
    depends on seed, pass and place in the order alone.

    Files are decoded as their batch is asked for, by threads of ours: Keras' own workers may
    repeat batches of an interrupted pass. A file that has become unreadable raises DataError.
    """

    def __init__(
        self,
        data: ImageData,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        start_epoch: int = 0,
        shift: float = 0.0,
        dtype: Literal["float32", "uint8"] = "float32",
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise OptionValueError(f"`batch_size` must be at least 1; got batch_size={batch_size}.")
        if not 0 <= shift < 0.5:
            raise OptionValueError(f"`shift` must be in [0, 0.5); got shift={shift}.")
        if dtype not in ("float32", "uint8"):
            raise OptionValueError(f"`dtype` must be float32 or uint8; got dtype={dtype}.")
        self.data = data
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = start_epoch
        self.shift = shift
        self.dtype = dtype
        self._order = self._order_of(start_epoch)

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        targets = self.data.targets[chosen]
        if self.data.task == "classification":
            targets = targets.astype(np.int32)
        images = self._images(chosen)
        if self.shift:
            rng = np.random.default_rng([self.seed, self.epoch, index])
            images = random_shift(images, self.shift, rng)
        return images.astype(self.dtype, copy=False), targets

    def on_epoch_end(self) -> None:
        """Moves on to the next epoch's order."""
        self.epoch += 1
        self._order = self._order_of(self.epoch)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(len(self.data))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.data))

    def _images(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = self.data.images
        if isinstance(images, np.ndarray):
            return images[chosen]
        return decode_images([images[i] for i in chosen], self.data.size, self.data.channels)


def random_shift(
    images: NDArray[np.uint8], share: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Moves each image (B, H, W, C) by up to `share` of its sides and repeats its border."""
    count, height, width, _ = images.shape
    reach = (round(share * height), round(share * width))
    padded = np.pad(images, ((0, 0), (reach[0],) * 2, (reach[1],) * 2, (0, 0)), mode="edge")
    tops, lefts = (rng.integers(0, 2 * r + 1, count) for r in reach)
    moved = np.empty_like(images)
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        moved[i] = padded[i, top : top + height, left : left + width]
    return moved
