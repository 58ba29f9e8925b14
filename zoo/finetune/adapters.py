"""What a fine-tuning learned, in a file of its own: low-rank factors and the classifier."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.errors import CheckpointError, OptionValueError, SourceError, WeightsMismatchError
from zoo.finetune.depth import CLASSIFIERS, leaf_layers, weighted_layers
from zoo.finetune.lora import LoraReport, lora_layers, restore_lora
from zoo.record import get_record, set_record
from zoo.weights.store import atomic_path

KEY = "keras_zoo_adapter"  # in the file's metadata
SUFFIX = ".safetensors"
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What an adapter belongs to."""

    architecture: str
    weights: str  # tag of those that the factors were learned beside; empty: not known
    layers: list[str]  # with factors
    rank: int
    alpha: float
    class_names: list[str]
    task: str


def save_adapter(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Writes the factors and the classifier of a model of `add_lora`, whole or not at all.

    Args:
        model: A model with factors, of which nothing else trains but the classifier.
        path: Ends in `.safetensors`.

    Raises:
        OptionValueError: Another suffix; the model has no factors; something else trains, which
            the file would not hold; or all factors are zero, because Keras merged them into the
            kernels as it loaded the model's weights.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise OptionValueError(f"`path` must end in {SUFFIX}; got {path.name!r}.")
    layers = lora_layers(model)
    _check_complete(model)
    tensors = {name: _array(variable) for name, variable in _variables(model).items()}
    if not any(tensors[f"{layer.name}/lora_kernel_a"].any() for layer in layers):
        raise OptionValueError(
            f"`model` must have its factors; those of {model.name} are zero, for Keras merges them "
            "into the kernels where it loads weights. Load them with zoo.finetune.load_adapter, or "
            "save the whole model."
        )
    record = get_record(model)
    config = AdapterConfig(
        architecture=record.architecture if record else model.name,
        weights=record.weights.tag if record and record.weights else "",
        layers=[layer.name for layer in layers],
        rank=int(layers[0].lora_rank),
        alpha=float(layers[0].lora_alpha),
        class_names=list(record.class_names) if record else [],
        task=record.task if record else "classify",
    )
    from safetensors.numpy import save_file

    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata={KEY: json.dumps(asdict(config))})


def load_adapter(model: keras.Model, path: str | os.PathLike[str]) -> LoraReport:
    """Adds the factors of a file to a model and fills them and the classifier, in place.

    Args:
        model: The model that the adapter was trained on, with the same weights and number of
            classes and without factors. On an error it is left as it was.
        path: What `save_adapter` wrote.

    Raises:
        SourceError: There is no such file.
        CheckpointError: It is no adapter.
        WeightsMismatchError: It is one of another architecture, other weights or classes; both
            sides are named.
        OptionValueError: The model has factors already.
    """
    config, tensors = _read(Path(path))
    _check_fits(model, config, tensors, str(path))
    report = restore_lora(model, config.layers, config.rank, config.alpha)
    for name, variable in _variables(model).items():
        variable.assign(tensors[name])
    record = get_record(model)
    if record is not None:
        names = tuple(config.class_names)
        set_record(model, replace(record, class_names=names, task=config.task))
    return report


def _read(path: Path) -> tuple[AdapterConfig, dict[str, Array]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise SourceError(f"There is no adapter at `{path}`.")
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return AdapterConfig(**about), tensors
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"`{path}` is no adapter of zoo.finetune.save_adapter, or it is damaged: {error}."
        ) from error


def _check_fits(
    model: keras.Model, config: AdapterConfig, tensors: dict[str, Array], path: str
) -> None:
    record = get_record(model)
    ours = record.architecture if record else model.name
    tag = record.weights.tag if record and record.weights else ""
    wrong = []
    if ours != config.architecture:
        wrong.append(f"the model is {ours}, the adapter of {config.architecture}")
    if tag and config.weights and tag != config.weights:
        wrong.append(f"the model has the weights {tag}, the adapter belongs to {config.weights}")
    expected = _expected_shapes(model, config)
    for name in sorted(expected.keys() | tensors.keys()):
        mine = expected.get(name)
        theirs = tuple(tensors[name].shape) if name in tensors else None
        if mine != theirs:
            wrong.append(f"{name}: {mine or 'not'} in the model, {theirs or 'not'} in the adapter")
    if wrong:
        raise WeightsMismatchError(
            f"{path} does not fit {model.name}: {'; '.join(wrong[:8])}"
            f"{f'; and {len(wrong) - 8} more' if len(wrong) > 8 else ''}. Create the model that "
            "the adapter was trained on, with as many classes (zoo.finetune.replace_head)."
        )


def _expected_shapes(model: keras.Model, config: AdapterConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shapes that a file for this model would have."""
    shapes: dict[str, tuple[int, ...]] = {}
    by_name = {layer.name: layer for layer in weighted_layers(model)}
    for name in config.layers:
        if hasattr(by_name.get(name), "kernel"):
            shape = tuple(by_name[name].kernel.shape)
            shapes[f"{name}/lora_kernel_a"] = (*shape[:-1], config.rank)
            shapes[f"{name}/lora_kernel_b"] = (config.rank, shape[-1])
    for name in CLASSIFIERS:
        for variable in by_name[name].weights if name in by_name else ():
            shapes[f"{name}/{variable.name}"] = tuple(variable.shape)
    return shapes


def _variables(model: keras.Model) -> dict[str, Any]:
    """Returns what an adapter holds of a model, by `layer/variable`."""
    return {
        f"{layer.name}/{variable.name}": variable
        for layer in leaf_layers(model)
        for variable in layer.weights
        if layer.name in CLASSIFIERS or variable.name.startswith("lora_kernel_")
    }


def _check_complete(model: keras.Model) -> None:
    held = {id(variable) for variable in _variables(model).values()}
    lost = [v.path for v in model.trainable_variables if id(v) not in held]
    if lost:
        raise OptionValueError(
            f"`model` must train nothing but its factors and its classifier; {lost[0]} and "
            f"{len(lost) - 1} more of {model.name} train too and would be lost. Merge the factors "
            "and save the whole model."
        )


def _array(variable: Any) -> Array:
    return np.ascontiguousarray(keras.ops.convert_to_numpy(variable), dtype=np.float32)
