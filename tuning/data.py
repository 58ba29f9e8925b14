"""The three kinds of training data a search takes, as arguments of `keras.Model.fit`.

* arrays `(x, y)` or `(x, y, sample_weight)`: batched and shuffled by Keras,
* a data set that comes in batches, such as `tf.data.Dataset`: taken as it is,
* a factory `data(batch_size, epoch_seed) -> data set`: called for every epoch with another seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np

from zoo.errors import DataError

Data: TypeAlias = Any  # arrays, a data set or a factory; see above
Factory: TypeAlias = Callable[[int, int], Any]


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """What a classifier must know of its data."""

    height: int
    width: int
    channels: int
    classes: int
    one_hot: bool  # labels are (B, classes) instead of integers (B,)


class EpochBatches(keras.utils.PyDataset):
    """The batches of a factory's data sets, one data set per epoch.

    Epoch e is `data(batch_size, seed + e)`, so that its order and augmentation depend on nothing
    but the seed and e, also where training goes on from a later epoch.
    """

    def __init__(self, data: Factory, batch_size: int, seed: int, first_epoch: int) -> None:
        super().__init__()
        self._data = data
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = first_epoch
        self._length = steps_per_epoch(data, batch_size)
        self._batches: Iterator[Any] = iter(())

    @property
    def num_batches(self) -> int:
        """Batches in one epoch."""
        return self._length

    def __getitem__(self, index: int) -> Any:
        # Keras reads in order, but begins twice in the first epoch: once to learn the shapes.
        if index == 0:
            self._batches = iter(self._data(self._batch_size, self._seed + self._epoch))
        return next(self._batches)

    def follow(self) -> keras.callbacks.Callback:
        """Returns a callback that moves on to the data of each epoch as it begins.

        Keras calls a PyDataset's own hooks once more than there are epochs.
        """

        def move(epoch: int, _: object) -> None:
            self._epoch = epoch

        return keras.callbacks.LambdaCallback(on_epoch_begin=move)


def check_data(name: str, data: Data) -> None:
    """Raises DataError where arrays do not fit together."""
    if not isinstance(data, tuple | list):
        return
    if len(data) not in (2, 3):
        raise DataError(
            f"`{name}` must be (x, y) or (x, y, sample_weight), a data set, or a function "
            f"data(batch_size, epoch_seed); got a {type(data).__name__} of {len(data)}."
        )
    lengths = [len(part) for part in data]
    if lengths[0] == 0 or len(set(lengths)) > 1:
        raise DataError(f"The arrays of `{name}` must have equally many rows; got {lengths}.")


def is_batched(data: Data) -> bool:
    """Returns whether the data has a batch size of its own, which no trial can change."""
    return not isinstance(data, tuple | list) and not callable(data)


def steps_per_epoch(data: Data, batch_size: int) -> int:
    """Returns the number of optimizer steps in one epoch; the last batch may be smaller.

    Raises:
        DataError: The data set does not know its length.
    """
    if isinstance(data, tuple | list):
        return -(-len(data[0]) // batch_size)
    batches = data(batch_size, 0) if callable(data) else data
    try:
        return len(batches)
    except TypeError as error:
        raise DataError(
            "A data set must know its number of batches, for learning-rate schedules end with the "
            f"training; got a {type(batches).__name__} without length. For tf.data, apply "
            "tf.data.experimental.assert_cardinality(batches) and do not repeat()."
        ) from error


def fit_arguments(
    train: Data,
    validation: Data,
    *,
    batch_size: int | None,
    seed: int,
    first_epoch: int = 0,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns positional and keyword arguments for `keras.Model.fit`.

    Args:
        train: Training data.
        validation: Data for the `val_` metrics, or None.
        batch_size: Images per step, or None to leave it to Keras; data sets ignore it.
        seed: Order and augmentation of a factory's data.
        first_epoch: Epoch that the training starts or goes on with.
        callbacks: Callbacks of the training.
    """
    size = batch_size or 32  # 32 is Keras' own default
    if callable(validation):
        validation = validation(size, seed)
    options: dict[str, Any] = {"callbacks": list(callbacks)}
    if validation is not None:
        options["validation_data"] = validation
    if isinstance(train, tuple | list):
        return tuple(train), options | ({"batch_size": batch_size} if batch_size else {})
    if callable(train):
        batches = EpochBatches(train, size, seed, first_epoch)
        options["callbacks"].insert(0, batches.follow())
        return (batches,), options | {"shuffle": False}
    return (train,), options


def describe_images(data: Data) -> ImageData:
    """Reads image size, channels and classes off arrays (B, H, W, C) and labels.

    Raises:
        DataError: The images are not (B, H, W, C), or the labels do not tell the classes.
    """
    sample = data if isinstance(data, tuple | list) else _first_batch(data)
    image_shape, label_shape = np.shape(sample[0]), np.shape(sample[1])
    if len(image_shape) != 4:
        raise DataError(f"Images must be (B, H, W, C); got {image_shape}.")
    one_hot = len(label_shape) == 2 and label_shape[1] != 1
    return ImageData(
        height=image_shape[1],
        width=image_shape[2],
        channels=image_shape[3],
        classes=label_shape[1] if one_hot else _count_classes(data),
        one_hot=one_hot,
    )


def _first_batch(data: Data) -> Any:
    batch = next(iter(data(1, 0) if callable(data) else data), None)
    if batch is None:
        raise DataError("The training data holds no batch.")
    return batch


def _count_classes(data: Data) -> int:
    if not isinstance(data, tuple | list):
        raise DataError(
            "Integer labels in a data set do not tell the number of classes. Pass a "
            "CatalogHyperModel over zoo.create_model(name, num_classes=...), arrays, or one-hot "
            "labels."
        )
    labels = np.asarray(data[1])
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise DataError(
            "Labels must be integers from 0, or one-hot; "
            f"got {labels.dtype} from {labels.min()} to {labels.max()}."
        )
    return int(labels.max()) + 1
