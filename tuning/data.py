"""The three kinds of training data a search takes, as arguments of `keras.Model.fit`.

* arrays `(x, y)` or `(x, y, sample_weight)`: batched and shuffled by Keras,
* a data set that comes in batches, such as `tf.data.Dataset`: taken as it is,
* a factory `data(batch_size, epoch_seed) -> data set`: called for every epoch with another seed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
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

    def __init__(self, data: Factory, batch_size: int, seed: int) -> None:
        super().__init__()
        self._data = data
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0
        self._clock = self
        self._length = steps_per_epoch(data, batch_size)
        self._batches: Iterator[Any] = iter(())

    @property
    def num_batches(self) -> int:
        """Batches in one epoch."""
        return self._length

    def __getitem__(self, index: int) -> Any:
        # Keras reads in order, but begins twice in the first epoch: once to learn the shapes.
        if index == 0:
            self._batches = iter(self._data(self._batch_size, self._seed + self._clock._epoch))
        return next(self._batches)

    def halved(self, halvings: int) -> EpochBatches:
        """Returns the same data in batches of a half, a quarter ... of the size."""
        smaller = EpochBatches(self._data, max(1, self._batch_size >> halvings), self._seed)
        smaller._clock = self  # it is this one that is told of the epochs
        return smaller

    def follow(self) -> keras.callbacks.Callback:
        """Returns a callback that moves on to the data of each epoch as it begins.

        Keras calls a PyDataset's own hooks once more than there are epochs.
        """

        def move(epoch: int, _: object) -> None:
            self._epoch = epoch

        return keras.callbacks.LambdaCallback(on_epoch_begin=move)


class ShuffledArrays(keras.utils.PyDataset):
    """Batches of arrays in an order that depends on the epoch.

    Args:
        arrays: A tree of arrays of n rows each.
        batch_size: Rows per batch; the last may be smaller.
        order: Called with the epoch; returns the rows in their order (n,). None keeps the order.
        clock: Its `epoch` is the present epoch.
    """

    def __init__(
        self,
        arrays: Any,
        batch_size: int,
        order: Callable[[int], np.ndarray] | None,
        clock: Any,
    ) -> None:
        super().__init__()
        self._arrays = keras.tree.map_structure(np.asarray, arrays)
        self._rows = len(keras.tree.flatten(self._arrays)[0])
        self._batch_size = batch_size
        self._order = order
        self._clock = clock
        self._known = (-1, np.arange(self._rows))

    @property
    def num_batches(self) -> int:
        """Batches in one epoch."""
        return -(-self._rows // self._batch_size)

    def __getitem__(self, index: int) -> Any:
        if self._order is not None and self._known[0] != self._clock.epoch:
            self._known = (self._clock.epoch, self._order(self._clock.epoch))
        begin = index * self._batch_size
        rows = self._known[1][begin : begin + self._batch_size]
        return keras.tree.map_structure(lambda array: array[rows], self._arrays)


def array_batches(
    arrays: Any, batch_size: int, order: Callable[[int], np.ndarray] | None, clock: Any
) -> Any:
    """Returns the batches of arrays as data for `keras.Model.fit`, in an order of each epoch.

    Args:
        arrays: A tree of arrays of n rows each.
        batch_size: Rows per batch; the last may be smaller.
        order: Called with the epoch; returns the rows in their order (n,). None keeps the order.
        clock: Its `epoch` is the present epoch.
    """
    if keras.backend.backend() != "tensorflow":
        return ShuffledArrays(arrays, batch_size, order, clock)
    import tensorflow as tf

    tensors = keras.tree.map_structure(_as_tensor, arrays)
    rows = len(keras.tree.flatten(arrays)[0])

    def indices() -> Iterator[np.ndarray]:
        yield np.arange(rows, dtype="int32") if order is None else order(clock.epoch)

    batches = (
        tf.data.Dataset.from_generator(indices, output_signature=tf.TensorSpec((rows,), tf.int32))
        .flat_map(lambda chosen: tf.data.Dataset.from_tensor_slices(chosen).batch(batch_size))
        .map(
            lambda chosen: keras.tree.map_structure(lambda a: tf.gather(a, chosen), tensors),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    )
    length = tf.data.experimental.assert_cardinality(-(-rows // batch_size))
    return batches.apply(length).prefetch(tf.data.AUTOTUNE)


def class_weights(labels: Any, weights: Mapping[int, float]) -> np.ndarray:
    """Returns the weight of each row's class, as `class_weight` of `keras.Model.fit` means it.

    Args:
        labels: Integers (B,) or (B, 1), or one-hot (B, classes).
        weights: Class -> weight; a class that is missing weighs 1.
    """
    labels = np.asarray(labels)
    if labels.ndim > 1:
        labels = labels.argmax(axis=-1) if labels.shape[-1] != 1 else labels[..., 0]
    classes, places = np.unique(np.round(labels).astype("int64"), return_inverse=True)
    by_class = np.array([weights.get(int(c), 1.0) for c in classes], keras.config.floatx())
    found: np.ndarray = by_class[places.reshape(labels.shape)]
    return found


def _as_tensor(array: Any) -> Any:
    array = np.asarray(array)
    kind = keras.config.floatx() if np.issubdtype(array.dtype, np.floating) else None
    return keras.ops.convert_to_tensor(array, kind)


def smaller_batches(data: Data, halvings: int) -> Data:
    """Returns a data set whose batches are a half, a quarter ... of the size they had.

    Raises:
        DataError: The data set cannot be batched anew.
    """
    if isinstance(data, EpochBatches):
        return data.halved(halvings)
    if can_rebatch(data):
        return rebatched(data, max(1, _batch_rows(data) >> halvings))
    raise DataError(
        f"A {type(data).__name__} cannot be given in smaller batches after memory ran out; pass "
        "arrays, a tf.data.Dataset or a function data(batch_size, epoch_seed)."
    )


def _batch_rows(data: Data) -> int:
    return len(keras.tree.flatten(next(iter(data)))[0])


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


def is_rows(data: Data) -> bool:
    """Returns whether the data is an array, or a tree of arrays, with one row per example."""
    leaves = keras.tree.flatten(data)
    return bool(leaves) and all(_is_array(leaf) for leaf in leaves)


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray):
        return leaf.ndim > 0 and leaf.dtype.kind in "biuf"
    return bool(keras.ops.is_tensor(leaf)) and len(leaf.shape) > 0


def is_batched(data: Data) -> bool:
    """Returns whether the data comes in batches of a size of its own."""
    return not isinstance(data, tuple | list) and not callable(data)


def can_rebatch(data: Data) -> bool:
    """Returns whether the data comes in batches that can be cut anew: a `tf.data.Dataset`."""
    return is_batched(data) and hasattr(data, "rebatch") and hasattr(data, "element_spec")


def rebatched(data: Data, batch_size: int) -> Data:
    """Returns the rows of a `tf.data.Dataset` in their order, in batches of another size.

    Args:
        data: It must know its length; to count its rows it is read once.
        batch_size: Rows per batch; the last may be smaller.

    Raises:
        DataError: The data set does not know its length.
    """
    import tensorflow as tf

    length = -(-_count_rows(data) // batch_size)
    return data.rebatch(batch_size).apply(tf.data.experimental.assert_cardinality(length))


@functools.lru_cache(maxsize=4)
def _count_rows(data: Data) -> int:
    steps_per_epoch(data, 1)  # an endless one is refused
    return sum(len(keras.tree.flatten(batch)[0]) for batch in data)


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
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns positional and keyword arguments for `keras.Model.fit`.

    Args:
        train: Training data.
        validation: Data for the `val_` metrics, or None.
        batch_size: Examples per step; None leaves it to Keras or the data set. A
            `tf.data.Dataset` is batched anew, other data sets ignore it.
        seed: Order and augmentation of a factory's data.
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
        batches = EpochBatches(train, size, seed)
        options["callbacks"].insert(0, batches.follow())
        return (batches,), options | {"shuffle": False}
    if batch_size and can_rebatch(train):
        return (rebatched(train, batch_size),), options
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
