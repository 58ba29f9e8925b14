"""A model that takes files or pixels and answers with logits or class names."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.errors import OptionValueError
from zoo.preprocessing import Array, ImageLike, Preprocessor, class_list, preprocessor
from zoo.record import ModelRecord, get_record, load_model

ENGINES = ("auto", "tensorflow")


@dataclass(frozen=True)
class Prediction:
    """One guess about one image."""

    name: str  # of the class, or of the target of a regression
    index: int  # of the output
    value: float  # probability; for a regression the predicted value

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3f}"


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Calls a model on uint8 batches or files; knows its preprocessing, task and class names."""

    model: keras.Model
    preprocess: Preprocessor
    record: ModelRecord

    def __call__(self, images: ImageLike | Sequence[ImageLike], batch_size: int = 32) -> Array:
        """Maps uint8 images (B, H, W, C) or files to outputs (B, num_classes), float32."""
        return self.run(self.preprocess(images), batch_size)

    def run(self, inputs: Array, batch_size: int = 32) -> Array:
        """Maps prepared inputs (B, H, W, C), float32, to outputs (B, num_classes), float32.

        Calls the compiled graph itself: on small batches `model.predict` takes twice as long.
        """
        nothing = np.zeros((0, *self.model.output_shape[1:]), np.float32)
        starts = range(0, len(inputs), batch_size)
        parts = [self._forward(inputs[first : first + batch_size]) for first in starts]
        return np.concatenate([nothing, *(np.asarray(part, np.float32) for part in parts)])

    @functools.cached_property
    def _forward(self) -> Callable[[Array], Any]:
        """One batch through the graph, compiled once for any number of images."""
        model = self.model
        if keras.backend.backend() != "tensorflow":
            return lambda batch: model.predict_on_batch(batch)
        import tensorflow as tf

        forward = tf.function(
            lambda batch: model(batch, training=False),
            input_signature=[tf.TensorSpec(model.input_shape, model.inputs[0].dtype)],
        )
        return lambda batch: forward(batch).numpy()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the outputs; their numbers where nothing names them."""
        record, outputs = self.record, int(self.model.output_shape[-1])
        names = record.class_names
        if not names and record.weights is not None and record.weights.num_classes == outputs:
            names = class_list(record.weights.labels)
        return names if len(names) == outputs else tuple(map(str, range(outputs)))

    def classify(
        self, images: ImageLike | Sequence[ImageLike], top: int = 5
    ) -> list[list[Prediction]]:
        """Names the likeliest classes of each image, best first.

        A multi-label model and a single logit give independent probabilities, a regression its
        values in order.

        Args:
            images: Files, or uint8 pixels (H, W, C).
            top: How many per image.

        Raises:
            OptionValueError: `top` is not positive, or the model has no classes.
            SourceError: A file that does not exist.
            DataError: A file that is no image.
        """
        if top < 1:
            raise OptionValueError(f"`top` must be at least 1; got top={top}.")
        if self.record.options.get("num_classes") == 0:
            raise OptionValueError(
                "A model of num_classes=0 gives features, which have no classes; call the "
                "predictor itself for them."
            )
        values = self._values(self(images))
        names = self.class_names
        if self.record.task == "regression":
            orders = [np.arange(values.shape[1])] * len(values)
        else:
            orders = list(np.argsort(-values, axis=1, kind="stable")[:, :top])
        return [
            [Prediction(names[i], int(i), float(row[i])) for i in order]
            for row, order in zip(values, orders, strict=True)
        ]

    def _values(self, outputs: Array) -> Array:
        activated = self.record.options.get("classifier_activation") not in (None, "linear")
        if self.record.task == "regression" or activated:
            return outputs
        if self.record.task == "multi-label" or outputs.shape[1] == 1:
            # the logistic function, written so that it cannot overflow
            return np.asarray((1 + np.tanh(outputs / 2)) / 2, np.float32)
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)


def predictor(model: keras.Model | str | os.PathLike[str], engine: str = "auto") -> Predictor:
    """Wraps a model for prediction from files and pixels.

    Args:
        model: A model of `zoo.create_model`, or a `.keras` file or folder that zoo saved.
        engine: "auto" or "tensorflow": the Keras model itself.

    Raises:
        OptionValueError: Another engine, a backbone, or a model whose preprocessing is unknown.
        SourceError: There is no such file.
        CheckpointError: The file is no `.keras` file.
    """
    if engine not in ENGINES:
        raise OptionValueError(f"`engine` must be one of {ENGINES}; got engine={engine!r}.")
    opened: Any = model
    if isinstance(model, str | os.PathLike):
        from zoo.pretrained import from_pretrained

        place = Path(model).expanduser()
        opened = from_pretrained(place) if place.is_dir() else load_model(place)
    prepare = preprocessor(opened)
    if isinstance(opened.output, dict):
        raise OptionValueError(f"`{opened.name}` is a backbone, which predicts nothing; call it.")
    return Predictor(
        model=opened,
        preprocess=prepare,
        record=get_record(opened) or ModelRecord(architecture=opened.name),
    )
