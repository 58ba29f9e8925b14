"""A model that takes files or pixels and answers with logits or class names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np

from zoo.deploy.engines import Engine, check_names, make_engine
from zoo.deploy.exporting import ENGINE_OF, open_engine
from zoo.deploy.metadata import class_names, exported_format, read_description
from zoo.errors import OptionValueError
from zoo.preprocessing import Array, ImageLike, Preprocessor, preprocessor
from zoo.record import ModelRecord, get_record, load_model


@dataclass(frozen=True)
class Prediction:
    """One guess about one image."""

    name: str  # of the class, or of the target of a regression
    index: int  # of the output
    value: float  # probability; for a regression the predicted value

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3f}"


@dataclass(frozen=True, kw_only=True, repr=False)
class Predictor:
    """Calls a model on uint8 batches or files; knows its preprocessing, task and class names.

    It may be called from several threads at once.
    """

    name: str
    preprocess: Preprocessor
    record: ModelRecord
    engine: Engine  # what runs the model
    output_shape: tuple[int | None, ...]  # (None, num_classes)
    model: keras.Model | None = None  # None: opened from an exported file

    def __repr__(self) -> str:
        return f"<predictor of {self.name} by {self.engine.name}, {self.engine.precision}>"

    def __call__(self, images: ImageLike | Sequence[ImageLike], batch_size: int = 32) -> Array:
        """Maps uint8 images (B, H, W, C) or files to outputs (B, num_classes), float32."""
        return self.run(self.preprocess(images), batch_size)

    def run(self, inputs: Array, batch_size: int = 32) -> Array:
        """Maps prepared inputs (B, H, W, C), float32, to outputs (B, num_classes), float32.

        Raises:
            OptionValueError: `batch_size` is not positive.
        """
        if batch_size < 1:
            raise OptionValueError(f"`batch_size` must be at least 1; got batch_size={batch_size}.")
        starts = range(0, len(inputs), batch_size)
        parts = [self.engine(inputs[first : first + batch_size]) for first in starts]
        if len(parts) == 1:
            return parts[0]
        nothing = np.zeros((0, *(side or 0 for side in self.output_shape[1:])), np.float32)
        return np.concatenate(parts) if parts else nothing

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the outputs; their numbers where nothing names them."""
        return class_names(self.record, int(self.output_shape[-1] or 0))

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


def predictor(
    model: keras.Model | str | os.PathLike[str] | Engine,
    engine: str = "auto",
    precision: str = "float32",
) -> Predictor:
    """Wraps a model for prediction from files and pixels.

    Args:
        model: A model of `zoo.create_model`; a `.keras` file or folder that zoo saved; a file or
            folder of `zoo.deploy.export`; or an engine with the Keras model it was made from as
            `.model`, such as `zoo.deploy.quantize` returns.
        engine: What runs it: "tensorflow" (Keras itself), "openvino", "onnx" or "litert". "auto":
            the fastest of those installed; `repr` of the predictor and its `engine` say which.
            Engines but "tensorflow" keep the weights as they are now. An exported file has one
            engine, that of its format.
        precision: "float32", or with OpenVINO "bfloat16"; outputs stay float32.

    Raises:
        OptionValueError: An unknown engine or precision, one that is not installed or cannot run
            the model, a backbone, or a model whose preprocessing is unknown.
        SourceError: There is no such file.
        CheckpointError: The file cannot be read.
        ExportError: The engine's format cannot hold the model.
    """
    check_names(engine, precision)
    if isinstance(model, str | os.PathLike):
        place = Path(model).expanduser()
        if exported_format(place) is not None:
            return _of_export(place, engine, precision)
        model = _opened(place)
    made: Engine | None = None
    if not isinstance(model, keras.Model):
        made, model = _of_engine(model, engine, precision)
    prepare = preprocessor(model)
    if isinstance(model.output, dict):
        raise OptionValueError(f"`{model.name}` is a backbone, which predicts nothing; call it.")
    return Predictor(
        name=model.name,
        preprocess=prepare,
        record=get_record(model) or ModelRecord(architecture=model.name),
        engine=made or make_engine(model, engine, precision=precision),
        output_shape=tuple(model.output_shape),
        model=model,
    )


def _opened(place: Path) -> keras.Model:
    from zoo.pretrained import from_pretrained

    return from_pretrained(place) if place.is_dir() else load_model(place)


def _of_export(path: Path, engine: str, precision: str) -> Predictor:
    """The predictor of an exported file."""
    described = read_description(path)
    chosen = exported_format(path) or ""
    if engine not in ("auto", ENGINE_OF[chosen]):
        raise OptionValueError(
            f"`{path.name}` is {chosen}, which engine={ENGINE_OF[chosen]!r} runs; got "
            f"engine={engine!r}. Export the model to that engine's format."
        )
    return Predictor(
        name=described.name,
        preprocess=described.preprocess,
        record=described.record,
        engine=open_engine(path, precision, described.precision),
        output_shape=described.output_shape,
    )


def _of_engine(made: Any, engine: str, precision: str) -> tuple[Engine, keras.Model]:
    """The engine and its model, of an engine that was handed over."""
    model = getattr(made, "model", None)
    if not callable(made) or not isinstance(model, keras.Model):
        raise OptionValueError(
            "`model` must be a Keras model, a path, or an engine with a Keras model as `.model`; "
            f"got a {type(made).__name__}."
        )
    if engine not in ("auto", made.name) or precision != "float32":
        raise OptionValueError(
            f"What was passed is an engine already ({made.name}, {made.precision}); got "
            f"engine={engine!r}, precision={precision!r}. Leave both out."
        )
    return cast("Engine", made), model
