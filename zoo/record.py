"""What a model remembers of its making: architecture, options, weights, class names.

Keras' own config knows nothing of it, so it travels beside: on the model object, in
`config.json` of a saved folder, and as a further member, `zoo.json`, of a `.keras` file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from zoo.errors import CheckpointError, OptionValueError, SourceError
from zoo.kernels import quicken
from zoo.spec import WeightsInfo
from zoo.weights.store import atomic_path

MEMBER = "zoo.json"
DEEPEST = 10_000  # calls; Keras walks a graph layer by layer, and a ResNet-269 has 1,300 in a row


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The record of one model."""

    architecture: str  # catalog name
    options: Mapping[str, Any] = field(default_factory=dict)  # as given to create_model
    weights: WeightsInfo | None = None  # what it was loaded from, with its preprocessing
    class_names: tuple[str, ...] = ()  # in the order of the outputs; empty: those of the weights
    task: str = "classify"

    def to_json(self) -> dict[str, Any]:
        """A JSON form that `from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelRecord:
        """Reads the JSON form; fields this version does not know are left out."""
        known = {f.name for f in dataclasses.fields(cls)}
        fields = {k: v for k, v in data.items() if k in known}
        weights = fields.get("weights")
        if weights is not None:
            weights = dict(weights)
            fields["weights"] = WeightsInfo.from_record(weights.pop("tag"), weights)
        fields["class_names"] = tuple(fields.get("class_names", ()))
        return cls(**fields)


@contextlib.contextmanager
def deep_graphs() -> Iterator[None]:
    """Inside, Python allows Keras to follow graphs of more than a thousand layers in a row."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def set_record(model: keras.Model, record: ModelRecord) -> None:
    """Attaches the record to the model object."""
    model.zoo_record = record


def get_record(model: keras.Model) -> ModelRecord | None:
    """The model's record, or None for a model that zoo did not make."""
    record = getattr(model, "zoo_record", None)
    return record if isinstance(record, ModelRecord) else None


def save_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Saves a `.keras` file, whole or not at all, with the record inside.

    Raises:
        OptionValueError: Another suffix.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise OptionValueError(f"`path` must end in .keras; got {path.name!r}.")
    with atomic_path(path) as partial:
        model.save(partial)
        record = get_record(model)
        if record is not None:
            with zipfile.ZipFile(partial, "a") as archive:
                archive.writestr(MEMBER, json.dumps(record.to_json(), indent=1))


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Opens a `.keras` file and attaches the record it holds, if any.

    Raises:
        SourceError: There is no such file.
        CheckpointError: It is no `.keras` file.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"There is no model file at `{path}`.")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise CheckpointError(f"`{path}` is not a `.keras` file, or it is truncated.")
    import zoo.layers  # noqa: F401 - registers the layers that Keras does not have

    try:
        with zipfile.ZipFile(path) as archive:
            record = json.loads(archive.read(MEMBER)) if MEMBER in archive.namelist() else None
        with deep_graphs():
            model = keras.saving.load_model(path, compile=False)
    except (zipfile.BadZipFile, KeyError) as error:  # another zip, or a damaged member
        raise CheckpointError(f"`{path}` is not a readable `.keras` file: {error}.") from error
    for layer in model.layers:
        quicken(layer)
    if record is not None:
        set_record(model, ModelRecord.from_json(record))
    return model
