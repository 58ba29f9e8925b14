"""Models whose every variable is random, so that no two of them can be mistaken for each other."""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

import zoo
from tests.fill import fill
from zoo.weights.convert import load_tensors, slots
from zoo.weights.loading import family_of

GOLDEN = Path(__file__).with_name("golden")
Array = np.ndarray[Any, np.dtype[Any]]


def named_variables(model: keras.Model) -> dict[str, Any]:
    """The stored variables by `layer/variable`, as the reports call them."""
    return {
        f"{layer.name}/{variable.name}": variable
        for layer in model.layers
        for variable in layer.variables
        if variable.name != "seed_generator_state"
    }


def values(model: keras.Model) -> dict[str, Array]:
    return {
        name: np.array(keras.ops.convert_to_numpy(variable))
        for name, variable in named_variables(model).items()
    }


def randomise(model: keras.Model, seed: int = 0) -> None:
    """Fills every variable by its name: variances and scales about 1, kernels by fan-in."""
    for name, variable in named_variables(model).items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        shape = tuple(variable.shape)
        if name.endswith(("gamma", "variance")):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            fan_in = np.prod(shape[:2]) if name.endswith("dw_conv/kernel") else np.prod(shape[:-1])
            value = rng.normal(0, np.sqrt(2 / fan_in), shape)
        else:
            value = rng.normal(0, 0.1, shape)
        variable.assign(value.astype("float32"))


def random_model(name: str, seed: int = 0, **options: Any) -> keras.Model:
    model = zoo.create_model(name, **options)
    randomise(model, seed)
    return model


@cache
def golden(family: str) -> dict[str, Any]:
    """What the parity tool recorded of a family."""
    path = GOLDEN / f"{family}.json"
    recorded: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return recorded


def torch_shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's checkpoint in the first layout's names and axis order."""
    return {
        slot.key: slot.write(np.broadcast_to(np.float32(0), slot.shape)).shape
        for slot in slots(model, family_of(model).layouts[0])
    }


def filled(name: str, **options: Any) -> keras.Model:
    """A model with the deterministic weights that the golden values were recorded with."""
    model = zoo.create_model(name, **options)
    gain = golden(zoo.model_info(name).family).get(name, {}).get("gain", 1.0)
    tensors = {key: fill(key, shape, gain) for key, shape in torch_shapes(model).items()}
    load_tensors(model, family_of(model), tensors, source="fill")
    return model


def outputs(model: keras.Model, x: Array) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))
