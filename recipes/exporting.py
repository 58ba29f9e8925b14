"""A finished model in the forms people load: `.keras` and, on TensorFlow, a SavedModel."""

from __future__ import annotations

from dataclasses import replace

import keras

from recipes.data import ImageData
from recipes.folder import RunFolder
from zoo.record import ModelRecord, get_record, save_model, set_record
from zoo.spec import Preprocessing, WeightsInfo

TASKS = {"classification": "classify", "multi-label": "multi-label", "regression": "regression"}


def export_model(model: keras.Model, data: ImageData, folder: RunFolder) -> None:
    """Writes `model.keras` with class names and preprocessing inside, and `saved_model/`.

    Raises:
        RunError: The run folder cannot be written.
    """
    record = get_record(model) or ModelRecord(architecture=model.name)
    weights = record.weights or WeightsInfo(tag="", source="", license="")
    # the data was resized bilinearly and cropped from the whole short side
    prep = replace(
        weights.preprocessing if record.weights else Preprocessing(),
        input_size=data.size,
        crop=1.0,
        interpolation="bilinear",
    )
    set_record(
        model,
        replace(
            record,
            class_names=data.class_names,
            task=TASKS[data.task],
            weights=replace(weights, preprocessing=prep, num_classes=len(data.class_names)),
        ),
    )
    with folder.write("model.keras") as path:
        save_model(model, path)
    if keras.backend.backend() == "tensorflow":
        with folder.write_folder("saved_model") as path:
            model.export(path, verbose=False)
