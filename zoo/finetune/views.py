"""Test-time augmentation: a prediction from several views of every image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from zoo.errors import OptionValueError, did_you_mean
from zoo.record import get_record

Array = np.ndarray[Any, np.dtype[Any]]
View = Callable[[Array], Array]
VIEWS: Mapping[str, View] = {  # of images (B, H, W, C)
    "identity": lambda images: images,
    "flip": lambda images: images[:, :, ::-1],
    "flip_vertical": lambda images: images[:, ::-1],
    "rotate_180": lambda images: images[:, ::-1, ::-1],
}


def tta(
    model_or_predict: keras.Model | Callable[[Array], Any],
    views: Sequence[str | View] = ("identity", "flip"),
    *,
    average: Literal["probabilities", "logits"] = "probabilities",
) -> Callable[[Array], Array]:
    """Returns a function from images (B, H, W, C) to predictions averaged over views (B, K).

    Args:
        model_or_predict: A model, or a function such as `zoo.deploy.predictor(...)` that gives
            logits (B, K).
        views: Names of `VIEWS`, or functions from images to images. Take those under which the
            classes stay what they are: a flipped arrow is another one.
        average: "probabilities": softmax of every view, then the mean; of a multi-label model or a
            single output the logistic function. "logits": the mean of the outputs as they are,
            also for a regression.

    Raises:
        OptionValueError: No views, an unknown view, or another average.
    """
    if average not in ("probabilities", "logits"):
        raise OptionValueError(
            f"`average` must be 'probabilities' or 'logits'; got average={average!r}."
        )
    if not views:
        raise OptionValueError("`views` must name at least one view; got none.")
    functions = [_view(view) for view in views]
    predict = _predict(model_or_predict)
    activate = _activation(model_or_predict) if average == "probabilities" else None

    def averaged(images: Array) -> Array:
        outputs = []
        for view in functions:
            seen = np.ascontiguousarray(view(np.asarray(images)))
            values = np.asarray(predict(seen), np.float32)
            outputs.append(activate(values) if activate else values)
        return np.asarray(np.mean(outputs, axis=0, dtype=np.float32))

    return averaged


def _view(view: str | View) -> View:
    if callable(view):
        return view
    if view not in VIEWS:
        raise OptionValueError(
            f"`views` must be among {', '.join(VIEWS)}, or functions; got {view!r}."
            f"{did_you_mean(view, VIEWS)}"
        )
    return VIEWS[view]


def _predict(model_or_predict: Any) -> Callable[[Array], Any]:
    if isinstance(model_or_predict, keras.Model):
        return lambda images: model_or_predict.predict(images, verbose=0)
    found: Callable[[Array], Any] = model_or_predict
    return found


def _activation(model_or_predict: Any) -> Callable[[Array], Array] | None:
    """Returns what makes probabilities of a model's outputs; None where they are already."""
    record = getattr(model_or_predict, "record", None) or get_record(model_or_predict)
    if record is not None:
        if record.options.get("classifier_activation") not in (None, "linear"):
            return None
        if record.task == "multi-label":
            return _logistic
    return lambda outputs: _logistic(outputs) if outputs.shape[1] == 1 else _softmax(outputs)


def _logistic(outputs: Array) -> Array:
    return np.asarray((1 + np.tanh(outputs / 2)) / 2, np.float32)  # cannot overflow


def _softmax(outputs: Array) -> Array:
    shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)
