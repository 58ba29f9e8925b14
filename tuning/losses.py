"""Label smoothing for integer labels, which Keras has for one-hot labels only."""

from __future__ import annotations

from typing import Any

import keras

from zoo.errors import OptionValueError


@keras.saving.register_keras_serializable("tuning.losses")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy of logits (B, K) with integer labels (B,) or (B, 1), smoothed.

    It is `(1 - label_smoothing) * crossentropy + label_smoothing * mean of -log p over classes`,
    which equals the cross-entropy with labels smoothed evenly over all classes. At 0 it has the
    bits of `SparseCategoricalCrossentropy(from_logits=True)`. Source: Szegedy et al. 2015,
    arXiv:1512.00567, section 7.

    A file of a model that is compiled with it opens after `import tuning.losses`, or anywhere with
    `keras.models.load_model(path, compile=False)`.

    Args:
        label_smoothing: Share of a label that is spread over all classes, in [0, 1).
        name: Of the loss.
        reduction: As of any Keras loss.
        dtype: As of any Keras loss.

    Raises:
        OptionValueError: `label_smoothing` is not in [0, 1).
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        *,
        name: str = "smoothed_crossentropy",
        reduction: str = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        _check(label_smoothing)
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each example: (B,)."""
        hard = keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        even = keras.ops.logsumexp(y_pred, axis=-1) - keras.ops.mean(y_pred, axis=-1)
        return (1 - self.label_smoothing) * hard + self.label_smoothing * even

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def smoothed(loss: Any, label_smoothing: float) -> keras.losses.Loss:
    """Returns the loss with its labels smoothed.

    Args:
        loss: `SparseCategoricalCrossentropy` over logits, or a Keras loss that has a
            `label_smoothing` of its own, which this replaces.
        label_smoothing: In [0, 1); 0 changes no bit of the loss.

    Raises:
        OptionValueError: The loss has no labels to smooth, or `label_smoothing` is out of range.
    """
    _check(label_smoothing)
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    if isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
        if loss.from_logits and loss.ignore_class is None:
            return SmoothedCrossentropy(
                label_smoothing, name=loss.name, reduction=loss.reduction, dtype=loss.dtype
            )
    elif "label_smoothing" in config:
        return type(loss).from_config({**config, "label_smoothing": label_smoothing})
    raise OptionValueError(
        "`label_smoothing` needs SparseCategoricalCrossentropy(from_logits=True) without "
        f"ignore_class, or a Keras loss with label_smoothing of its own; got loss={loss!r}. "
        "Leave label_smoothing out of the space."
    )


def _check(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise OptionValueError(
            f"`label_smoothing` must be in [0, 1); got label_smoothing={label_smoothing}."
        )
