"""Weights that let rare classes count as much as common ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.errors import DataError


def class_weights(labels: Any) -> dict[int, float]:
    """Returns `class_weight` for `keras.Model.fit`: examples / (classes * examples of the class).

    Every class then has the same sum of weights, and the mean weight of an example is 1. These are
    scikit-learn's "balanced" weights.

    Args:
        labels: Integers (N,) or (N, 1), or one-hot (N, K) with K > 1.

    Raises:
        DataError: There are no labels, or they are not whole numbers from 0.
    """
    array = np.asarray(labels)
    if array.ndim == 2:
        array = array.argmax(axis=1) if array.shape[1] > 1 else array[:, 0]
    whole = array.ndim == 1 and array.size and np.issubdtype(array.dtype, np.number)
    if not whole or (array < 0).any() or (array != np.floor(array)).any():
        raise DataError(
            "`labels` must be whole numbers from 0, (N,) or (N, 1), or one-hot (N, K); got "
            f"{array.dtype} {np.shape(labels)}."
        )
    classes, counts = np.unique(array.astype(np.int64), return_counts=True)
    weights = array.size / (len(classes) * counts)
    return {int(c): float(w) for c, w in zip(classes, weights, strict=True)}
