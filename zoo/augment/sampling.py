"""Sampling of data that is scarce or skewed, before or while it is trained on.

Never sample before data is split: copies of a row, or rows made from it, would be on both sides,
and what is measured would be worth nothing. Split first, sample the training part only, and measure
on classes as they are.

Three ways: `resample` for arrays and tables, `class_balanced` for a `tf.data.Dataset`, and
`class_weights` for the loss, which costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.augment.resampling import (
    MissingPackageError,
    class_counts,
    list_samplers,
    resample,
    sampling_summary,
)
from zoo.errors import DataError, OptionValueError

__all__ = [
    "MissingPackageError",
    "class_balanced",
    "class_counts",
    "class_weights",
    "list_samplers",
    "resample",
    "sampling_summary",
]


def class_balanced(
    dataset: Any,
    num_classes: int,
    weights: Sequence[float] | None = None,
    *,
    seed: int = 0,
    label: str | int | Callable[..., Any] | None = None,
) -> Any:
    """Draws the elements of a `tf.data.Dataset` class by class, each class as often as wished.

    The class of each element is drawn; its elements come in the order of the data set and start
    again when they are used up. The result has no end: `.take(n)` it, or give `fit` its
    `steps_per_epoch`. With a data set that always has the same order it is the same each time it
    is gone through; `.shuffle(..., seed=...)` before or after it for more.

    Cost: the data set is gone through once now, to count; then once per class at the same time,
    each keeping its own. An element of a class that makes up 1 % of the data is found by reading
    100. So put what is expensive, such as decoding, after this, and `.cache()` before it.

    Never before a split: see the top of this module.

    Args:
        dataset: Single elements, not batches: tuples (x, y, ...) or dictionaries. It must end.
        num_classes: Labels are numbers below it, or one-hot (num_classes,).
        weights: How often each class is drawn, one per class; they need not sum to 1. None: all
            alike. A class of weight 0 is left out.
        seed: With the same seed the classes are the same.
        label: Where the label is: the key of a dictionary, the place in a tuple, or a function of
            an element's parts; None is `labels`, or the second of a tuple.

    Raises:
        OptionValueError: An option that breaks its rule, a data set of batches or without an end.
        DataError: A class that is missing, or a label that is none of the classes.
    """
    import tensorflow as tf

    shares = _shares(weights, num_classes)
    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise OptionValueError(
            "`dataset` must end, so that its classes can be counted; got one without an end. Call "
            "`.repeat()` after class_balanced; its result needs none."
        )

    @tf.autograph.experimental.do_not_convert  # it would wrap our errors in its own
    def number(*element: Any) -> Any:
        return _class_number(tf, _label(element, label), num_classes)

    counts = _counted(tf, dataset, number, num_classes)
    check_all_there([n if share else 1 for n, share in zip(counts, shares, strict=True)])
    parts = [
        dataset.filter(lambda *element, wanted=wanted: tf.equal(number(*element), wanted)).repeat()
        for wanted, share in enumerate(shares)
        if share
    ]
    drawn = [share for share in shares if share]
    return tf.data.Dataset.sample_from_datasets(parts, drawn, seed=seed)


def class_weights(
    y: Any, method: str = "balanced", *, beta: float = 0.999, num_classes: int | None = None
) -> dict[Any, float]:
    """Returns a weight per class, as `model.fit(class_weight=...)` takes them.

    Source: "effective": Cui et al. 2019, arXiv:1901.05555, proposition 1 and section 4, scaled to a
    mean of 1 over classes as there.

    Args:
        y: Classes (N,), or shares of classes (N, K).
        method: "balanced": N / (K * rows of the class); "effective": by the effective number of
            samples, (1 - beta^n) / (1 - beta).
        beta: In [0, 1); 0 weighs all classes alike, 0.9999 nearly as "balanced".
        num_classes: Classes are the numbers below it, and each must be there; None takes those
            that are there.

    Raises:
        OptionValueError: An option that breaks its rule.
        DataError: No labels, or a class that is missing.
    """
    if method not in ("balanced", "effective"):
        raise OptionValueError(
            f"`method` must be 'balanced' or 'effective'; got method={method!r}."
        )
    if not 0.0 <= beta < 1.0:
        raise OptionValueError(f"`beta` must be in [0, 1); got beta={beta!r}.")
    counts = class_counts(y)
    if not counts:
        raise DataError("Class weights need labels; got none.")
    if num_classes is not None:
        check_all_there([counts.get(number, 0) for number in range(num_classes)])
        if set(counts) - set(range(num_classes)):
            raise DataError(f"Classes must be 0 to {num_classes - 1}; got {sorted(counts)}.")
    if method == "balanced":
        total = sum(counts.values())
        return {name: total / (len(counts) * count) for name, count in counts.items()}
    raw = {name: (1.0 - beta) / (1.0 - beta**count) for name, count in counts.items()}
    mean = sum(raw.values()) / len(raw)
    return {name: weight / mean for name, weight in raw.items()}


def _shares(weights: Sequence[float] | None, num_classes: int) -> list[float]:
    given = [1.0] * num_classes if weights is None else [float(weight) for weight in weights]
    fit = len(given) == num_classes and all(w >= 0 and math.isfinite(w) for w in given)
    if not fit or not sum(given) > 0:
        raise OptionValueError(
            f"`weights` must be {num_classes} numbers of 0 or more, one per class, not all 0; got "
            f"weights={weights!r}."
        )
    return [weight / sum(given) for weight in given]


def _label(element: tuple[Any, ...], label: Any) -> Any:
    if callable(label):
        return label(*element)
    parts = element[0] if len(element) == 1 else element
    if label is None:
        label = "labels" if isinstance(parts, Mapping) else 1
    try:
        return parts[label]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        found = sorted(parts) if isinstance(parts, Mapping) else f"{len(element)} part(s)"
        raise OptionValueError(
            f"`label` must say where the label is; got label={label!r} for elements of {found}."
        ) from error


def _class_number(tf: Any, label: Any, num_classes: int) -> Any:
    """Returns the class of a label: int64 (); -1 for what is no class."""
    shape = label.shape.as_list()
    if shape == [num_classes] and num_classes > 1:
        return tf.argmax(label, output_type=tf.int64)
    if shape not in ([], [1]):
        raise OptionValueError(
            f"Labels must be class numbers or one-hot ({num_classes},); got shape {shape}. Call "
            "`.unbatch()` on a data set of batches."
        )
    label = tf.cast(tf.reshape(label, []), tf.int64)
    return tf.where((label >= 0) & (label < num_classes), label, tf.constant(-1, tf.int64))


def _counted(tf: Any, dataset: Any, number: Callable[..., Any], num_classes: int) -> list[int]:
    start = np.zeros(num_classes + 1, "int64")
    counts = dataset.map(number).reduce(
        start,
        lambda total, at: (
            total + tf.one_hot(at % (num_classes + 1), num_classes + 1, dtype=tf.int64)
        ),
    )
    *inside, outside = counts.numpy().tolist()
    if outside:
        raise DataError(
            f"Labels must be 0 to {num_classes - 1}; {outside} of {sum(inside) + outside} are not."
        )
    return list(inside)


def check_all_there(counts: Sequence[int]) -> None:
    missing = [str(number) for number, count in enumerate(counts) if count == 0]
    if missing:
        raise DataError(
            f"Each of the {len(counts)} classes must be there; missing: {', '.join(missing)}."
        )
