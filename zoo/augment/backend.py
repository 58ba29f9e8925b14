"""`keras.ops`, also inside of tf.data when Keras runs on another backend.

A function mapped over a `tf.data.Dataset` is a TensorFlow graph, whatever backend Keras has. Used
as `ops.where(...)`: in such a graph the name is TensorFlow's form of Keras' operation, everywhere
else it is `keras.ops` itself.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import keras

_PARTS = ("numpy", "core", "math", "nn", "image")  # where Keras keeps a backend's operations
Tensor = Any


def in_tensorflow_graph() -> bool:
    """Returns whether the code that runs is being traced by TensorFlow."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and not tf.executing_eagerly()


def in_foreign_graph() -> bool:
    """Returns whether TensorFlow traces a function while Keras runs on another backend."""
    return keras.backend.backend() != "tensorflow" and in_tensorflow_graph()


def backend() -> str:
    """Returns the backend that operations go to."""
    return "tensorflow" if in_foreign_graph() else str(keras.backend.backend())


def stop_gradient(x: Tensor) -> Tensor:
    """Returns the tensor, through which no gradient flows."""
    if in_foreign_graph():
        return x
    return keras.ops.stop_gradient(x)


def to_uint8(x: Tensor) -> Tensor:
    """Rounds numbers of [0, 255], halves to even: float32 -> uint8.

    The last byte of a float32 between 2**23 and 2**24 is that of its integer. So an addition rounds
    and converts, where XLA would guard a conversion against numbers that do not fit.
    """
    view, cast = __getattr__("view"), __getattr__("cast")
    return cast(view(x + 2.0**23, "int32"), "uint8")


def __getattr__(name: str) -> Any:
    if not in_foreign_graph():
        return getattr(keras.ops, name)
    for part in _PARTS:
        module = importlib.import_module(f"keras.src.backend.tensorflow.{part}")
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"Keras has no operation {name!r} for TensorFlow")
