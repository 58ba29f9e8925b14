"""Saving a model as a folder and opening folders and repositories, ours and timm's."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from zoo.errors import CheckpointError, OptionValueError, SourceError, UnknownModelError
from zoo.factory import create_model
from zoo.preprocessing import preprocessor
from zoo.record import ModelRecord, get_record, set_record
from zoo.weights.convert import export_tensors
from zoo.weights.loading import CONFIG_KEY, family_of, timm_weights_info, write_tensors
from zoo.weights.sources import fetch_config
from zoo.weights.store import atomic_path


def save_pretrained(model: keras.Model, folder: str | os.PathLike[str]) -> None:
    """Saves a catalog model as `config.json` and `model.safetensors`.

    The folder is timm's too, where its model of that name has the same graph: tensors under
    timm's names, its `config.json`, preprocessing included.

    Raises:
        UnknownModelError: zoo did not make this model.
        OptionValueError: A backbone, which `from_pretrained` could not rebuild.
    """
    import json

    record = get_record(model)
    if record is None:
        raise UnknownModelError(
            f"`{model.name}` is no model of the catalog; save it with Keras' own model.save."
        )
    if isinstance(model.output, dict):
        raise OptionValueError(
            f"`{model.name}` is a backbone, and a folder holds a whole model. Write its weights "
            "with zoo.export_weights and pass them to zoo.create_backbone(..., weights=file)."
        )
    family, folder = family_of(model), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", export_tensors(model, family.layouts[0]))
    classes, prep = record.options.get("num_classes", 1000), preprocessor(model)
    config = {
        "architecture": record.architecture,
        "num_classes": classes,
        "pretrained_cfg": {  # timm's
            "num_classes": classes,
            "input_size": [prep.channels, *prep.size],
            "mean": prep.preprocessing.mean,
            "std": prep.preprocessing.std,
            "crop_pct": prep.preprocessing.crop,
            "interpolation": prep.preprocessing.interpolation,
        },
        CONFIG_KEY: record.to_json(),
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
    is_folder = Path(place).expanduser().is_dir()
    if not is_folder and place.startswith((".", "/", "~")):
        raise SourceError(f"There is no folder `{place}`.")
    source = place if is_folder or "://" in place else f"hf://{place}"
    saved = _described(fetch_config(source), source)
    model = create_model(saved.architecture, weights=source, **{**saved.options, **options})
    made = get_record(model) or saved
    same_head = made.options.get("num_classes") == len(saved.class_names)
    names = saved.class_names if same_head else ()
    set_record(model, replace(made, class_names=names, task=saved.task))
    return model


def _described(config: dict[str, Any], source: str) -> ModelRecord:
    if isinstance(config.get(CONFIG_KEY), dict):
        return ModelRecord.from_json(config[CONFIG_KEY])
    if "architecture" not in config:
        raise CheckpointError(
            f"The config.json of `{source}` names no `architecture`, so it is neither keras-zoo's "
            f"nor timm's; it has: {', '.join(config) or 'nothing'}."
        )
    names = config.get("label_names")  # timm: of a set other than ImageNet
    channels = (config.get("pretrained_cfg") or {}).get("input_size", (3,))[0]
    return ModelRecord(
        architecture=str(config["architecture"]),
        options={} if channels == 3 else {"in_channels": channels},
        weights=timm_weights_info(config, source),
        class_names=tuple(map(str, names)) if isinstance(names, list) else (),
    )
