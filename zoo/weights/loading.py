"""Loading checkpoints into models and writing them back, by the model's family."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.catalog import find_variant
from zoo.errors import OptionValueError, SourceError, UnknownModelError
from zoo.record import ModelRecord, get_record, set_record
from zoo.spec import Family, Preprocessing, WeightsInfo
from zoo.weights.convert import Array, WeightsReport, export_tensors, load_tensors
from zoo.weights.readers import read_checkpoint
from zoo.weights.sources import fetch, fetch_config
from zoo.weights.store import atomic_path

WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
CONFIG_KEY = "keras_zoo"  # of a saved model's record in its config.json


def read_source(source: str, *, sha256: str = "", md5: str = "") -> dict[str, Array]:
    """Fetches and reads a checkpoint.

    Raises:
        SourceError: It cannot be had.
        CheckpointError: It cannot be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = next((path / name for name in WEIGHTS_FILES if (path / name).is_file()), None)
        if found is None:
            raise SourceError(f"The folder `{source}` holds none of {', '.join(WEIGHTS_FILES)}.")
        return read_checkpoint(found)
    return read_checkpoint(fetch(source, sha256=sha256 or None, md5=md5 or None))


def describe_source(source: str) -> WeightsInfo | None:
    """What the `config.json` of a folder or repository, ours or timm's, says of its weights."""
    if not source.startswith("hf://") and not Path(source).expanduser().is_dir():
        return None
    try:
        config = fetch_config(source)
    except SourceError:
        return None
    if isinstance(config.get(CONFIG_KEY), dict):
        return ModelRecord.from_json(config[CONFIG_KEY]).weights
    return timm_weights_info(config, source)


def timm_weights_info(config: dict[str, Any], source: str) -> WeightsInfo | None:
    """Reads preprocessing and licence off a timm `config.json`; None if it is not one."""
    cfg = config.get("pretrained_cfg")
    if not isinstance(cfg, dict):
        return None
    size = cfg.get("input_size") or (3, 224, 224)
    tag, classes = str(cfg.get("tag", "")), int((cfg | config).get("num_classes", 1000))
    return WeightsInfo(
        tag=tag,
        source=source,
        license=str(cfg.get("license") or "apache-2.0"),  # timm's own default on its model cards
        num_classes=classes,
        labels="imagenet1k" if classes == 1000 and tag.endswith("in1k") else "",
        preprocessing=Preprocessing(
            mean=tuple(cfg.get("mean", Preprocessing.mean)),
            std=tuple(cfg.get("std", Preprocessing.std)),
            input_size=(int(size[-2]), int(size[-1])),
            crop=float(cfg.get("crop_pct", Preprocessing.crop)),
            interpolation=cfg.get("interpolation", Preprocessing.interpolation),
        ),
    )


def family_of(model: keras.Model) -> Family:
    """The family of a catalog model, by its record or its name.

    Raises:
        UnknownModelError: zoo did not make this model.
    """
    record = get_record(model)
    name = record.architecture if record else model.name
    try:
        return find_variant(name)[0]
    except UnknownModelError as error:
        raise UnknownModelError(
            f"`{model.name}` is no model of the catalog, so its checkpoints' names are unknown. "
            "Make it with zoo.create_model, or use Keras' own model.load_weights."
        ) from error


def load_weights(
    model: keras.Model,
    source: str | os.PathLike[str],
    strict: bool = True,
) -> WeightsReport:
    """Loads a checkpoint into a catalog model; on an error the model is left as it was.

    Args:
        model: A model of `create_model`, `create_backbone` or `from_pretrained`.
        source: A file (safetensors, torch `.pth`, Keras `.h5`, `.npz`), a folder, or an address as
            in `create_model`.
        strict: Whether every tensor on both sides must find its partner.

    Returns:
        What was loaded, missing, unexpected and adapted.

    Raises:
        WeightsMismatchError: A checkpoint of another architecture; both sides are listed.
        CheckpointError: Not a readable checkpoint.
        SourceError: It cannot be had.
        UnknownModelError: zoo did not make this model.
    """
    family, place = family_of(model), os.fspath(source)
    tensors, info = read_source(place), describe_source(place)
    report = load_tensors(
        model,
        family,
        tensors,
        source=place,
        strict=strict,
        with_head=any(layer.name == "head" for layer in model.layers),
    )
    record = get_record(model)
    if record is not None and info is not None:
        set_record(model, replace(record, weights=info))
    return report


def export_weights(
    model: keras.Model, path: str | os.PathLike[str], layout: str | None = None
) -> None:
    """Writes a model's weights as another library names them; the conversion run backwards.

    Args:
        model: A catalog model.
        path: Ends in `.safetensors` or `.npz`.
        layout: Such as "timm", the default for families shared with timm, or "keras".

    Raises:
        OptionValueError: A layout the family does not have, or another suffix.
        UnknownModelError: zoo did not make this model.
    """
    family, path = family_of(model), Path(path)
    layouts = {layout.name: layout for layout in family.layouts}
    chosen = layouts.get(layout or family.layouts[0].name)
    if chosen is None:
        raise OptionValueError(
            f"`layout` must be one of {', '.join(layouts)} for {model.name}; got {layout!r}."
        )
    write_tensors(path, export_tensors(model, chosen))


def write_tensors(path: Path, tensors: dict[str, Array]) -> None:
    """Writes tensors to `.safetensors` or `.npz`, whole or not at all.

    Raises:
        OptionValueError: Another suffix.
    """
    if path.suffix not in (".safetensors", ".npz"):
        raise OptionValueError(f"`path` must end in .safetensors or .npz; got {path.name!r}.")
    with atomic_path(path) as partial:
        if path.suffix == ".npz":
            with partial.open("wb") as file:
                np.savez(file, **tensors)  # type: ignore[arg-type]
        else:
            from safetensors.numpy import save_file

            partial.touch()
            mode = partial.stat().st_mode  # of a new file; safetensors makes one of its owner alone
            save_file(tensors, partial)
            partial.chmod(mode)
