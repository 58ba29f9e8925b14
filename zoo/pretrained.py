"""Saving a model as a folder and opening folders and repositories, ours and timm's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras

from zoo.errors import CheckpointError, UnknownModelError
from zoo.factory import create_model
from zoo.record import ModelRecord, get_record, set_record
from zoo.spec import WeightsInfo
from zoo.weights.convert import export_tensors
from zoo.weights.loading import family_of, timm_weights_info, write_tensors
from zoo.weights.sources import fetch_config
from zoo.weights.store import atomic_path

_KEY = "keras_zoo"


def save_pretrained(model: keras.Model, folder: str | os.PathLike[str]) -> None:
    """Saves a catalog model as `config.json` and `model.safetensors`.

    The tensors carry the reference library's names, so that it can read them too.

    Raises:
        UnknownModelError: zoo did not make this model.
    """
    import json

    record = get_record(model)
    if record is None:
        raise UnknownModelError(
            f"`{model.name}` is no model of the catalog; save it with Keras' own model.save."
        )
    family, folder = family_of(model), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", export_tensors(model, family.layouts[0]))
    config = {
        "architecture": record.architecture,
        "num_classes": record.options.get("num_classes", 1000),
        _KEY: record.to_json(),
    }
    with atomic_path(folder / "config.json") as partial:  # last: without it the folder is no model
        partial.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def from_pretrained(folder_or_repo: str | os.PathLike[str], **options: Any) -> keras.Model:
    """Opens a model folder or a Hugging Face repository, ours or timm's.

    Args:
        folder_or_repo: A folder with `config.json` and `model.safetensors`, or `owner/repo`, or
            `hf://owner/repo@revision`.
        **options: As in `zoo.create_model`; they override those saved.

    Raises:
        UnknownModelError: An architecture that the catalog does not hold.
        CheckpointError: The `config.json` is of another kind.
        SourceError: It cannot be had.
        WeightsMismatchError: The tensors are of another architecture.
    """
    place = os.fspath(folder_or_repo)
    source = place if Path(place).is_dir() or "://" in place else f"hf://{place}"
    config = fetch_config(source)
    saved, info = _described(config, source)
    model = create_model(saved.architecture, weights=source, **{**saved.options, **options})
    record = get_record(model)
    same_head = options.get("num_classes") in (None, saved.options.get("num_classes"))
    set_record(
        model,
        ModelRecord(
            architecture=saved.architecture,
            options=record.options if record else {},
            weights=info,
            class_names=saved.class_names if same_head else (),
            task=saved.task,
        ),
    )
    return model


def _described(config: dict[str, Any], source: str) -> tuple[ModelRecord, WeightsInfo | None]:
    if isinstance(config.get(_KEY), dict):
        record = ModelRecord.from_json(config[_KEY])
        return record, record.weights
    if "architecture" not in config:
        raise CheckpointError(
            f"The config.json of `{source}` names no `architecture`, so it is neither keras-zoo's "
            f"nor timm's; it has: {', '.join(config) or 'nothing'}."
        )
    name = str(config["architecture"])
    info = timm_weights_info(config, source)
    return ModelRecord(architecture=name, weights=info), info
