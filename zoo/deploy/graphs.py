"""A Keras model as another runtime's graph, its weights as constants; TensorFlow's tracing."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from zoo.errors import ExportError, OptionValueError, ZooError
from zoo.record import deep_graphs

INPUT, OUTPUT = "images", "outputs"  # names in every graph whose format can rename them
# What turns a Keras model into each graph, beside TensorFlow; the engines need less.
CONVERTERS = {"openvino": ("openvino",), "onnx": ("onnx", "tf2onnx"), "litert": ()}


def require(package: str, purpose: str) -> Any:
    """Imports an optional package.

    Args:
        package: Its import name.
        purpose: What needs it, the begin of the message: 'engine="openvino"'.

    Raises:
        OptionValueError: It is not installed.
    """
    try:
        with no_telemetry():
            return importlib.import_module(package)
    except ImportError as error:
        raise OptionValueError(
            f"{purpose} needs the package `{package}`, which is not installed: "
            'pip install "keras-zoo[deploy]".'
        ) from error


def is_installed(package: str) -> bool:
    """Whether a package could be imported; it is not."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of `a.b` where there is no `a`
        return False


def check_convertible(model: keras.Model, target: str) -> None:
    """Refuses what no other runtime could be given.

    Args:
        model: A built model.
        target: "openvino", "onnx" or "litert".

    Raises:
        OptionValueError: Another backend, several inputs or outputs, other floats than float32, or
            a package that is not installed.
    """
    if keras.backend.backend() != "tensorflow":
        raise OptionValueError(
            f"{target} is made from TensorFlow's graph of a model, and Keras runs on "
            f"{keras.backend.backend()} here. Save the model and open it under "
            'KERAS_BACKEND=tensorflow, or take engine="tensorflow", which calls Keras itself.'
        )
    check_single(model)
    others = {layer.compute_dtype for layer in model.layers} - {"float32"}
    if others:
        raise OptionValueError(
            f"{target} takes models that compute in float32; `{model.name}` has layers of "
            f"{', '.join(sorted(others))}. Create it with dtype=None; "
            'predictor(model, precision="bfloat16") converts it.'
        )
    for package in CONVERTERS[target]:
        require(package, f"Converting a model to {target}")


def check_single(model: keras.Model) -> None:
    """Refuses models of several inputs or outputs.

    Raises:
        OptionValueError: It is such a model, perhaps a backbone.
    """
    structured = isinstance(getattr(model, "output", None), dict | list | tuple)
    if len(model.inputs) != 1 or len(model.outputs) != 1 or structured:
        raise OptionValueError(
            f"A model must have one input and one output; `{model.name}` has "
            f"{len(model.inputs)} and {len(model.outputs)}. A backbone's maps are for models built "
            "on it; num_classes=0 gives a model of pooled features."
        )


def traced(model: keras.Model) -> Any:
    """Returns the model's inference as a concrete function of TensorFlow, for any batch size."""
    import tensorflow as tf

    spec = tf.TensorSpec(model.input_shape, model.inputs[0].dtype, name=INPUT)
    function = tf.function(
        lambda images: model(images, training=False), input_signature=[spec], autograph=False
    )
    with deep_graphs():
        return function.get_concrete_function()


def openvino_graph(model: keras.Model) -> Any:
    """Returns the model as an `openvino.Model`: (B, H, W, C) -> (B, num_classes).

    The weights are copied: training the model later changes nothing here.

    Raises:
        OptionValueError: As `check_convertible`.
        ExportError: OpenVINO cannot hold the model.
    """
    check_convertible(model, "openvino")
    openvino = require("openvino", "OpenVINO")
    with converting(model, "openvino"), no_telemetry():
        graph = openvino.convert_model(traced(model), share_weights=False)
    for unused in graph.results[1:]:  # of gradients, as that of TensorFlow's swish: read by nobody
        graph.remove_result(unused)
    for port, name in ((graph.inputs[0], INPUT), (graph.outputs[0], OUTPUT)):
        port.get_tensor().set_names({name})
    return graph


def onnx_graph(model: keras.Model) -> bytes:
    """Returns the model as an ONNX file's content: (B, H, W, C) -> (B, num_classes).

    Raises:
        OptionValueError: As `check_convertible`.
        ExportError: ONNX cannot hold the model.
    """
    check_convertible(model, "onnx")
    traced(model)  # Keras refuses to export what was never called
    return _exported(model, "onnx", ".onnx")


def litert_graph(model: keras.Model) -> bytes:
    """Returns the model as a LiteRT file's content: (B, H, W, C) -> (B, num_classes).

    Of LiteRT's own operations only, so that every runtime of it can open the file.

    Raises:
        OptionValueError: As `check_convertible`.
        ExportError: LiteRT cannot hold the model.
    """
    check_convertible(model, "litert")
    import tensorflow as tf

    builtins = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    return _exported(
        model,
        "litert",
        ".tflite",
        target_spec=builtins,
        experimental_enable_resource_variables=False,
    )


def _exported(model: keras.Model, target: str, suffix: str, **options: Any) -> bytes:
    """The content of the file that Keras writes."""
    with tempfile.TemporaryDirectory() as folder, converting(model, target), deep_graphs():
        path = Path(folder) / f"model{suffix}"
        with warnings.catch_warnings():
            # Keras mends tf2onnx for numpy 2 and, while at it, looks for `np.object`
            warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
            model.export(str(path), format=target, verbose=False, **options)
        return path.read_bytes()


@contextlib.contextmanager
def converting(model: keras.Model, target: str) -> Iterator[None]:
    """Inside, whatever a converter raises is an `ExportError` that names model and target."""
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise ExportError(f"`{model.name}` cannot be converted to {target}: {reason}") from error


@contextlib.contextmanager
def no_telemetry() -> Iterator[None]:
    """Inside, the tools of OpenVINO and NNCF report nothing to their makers.

    They do so unasked, on import too, but for test runs: they look at the variable `CI` then.
    """
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


@functools.cache
def openvino_core() -> Any:
    """Returns the one OpenVINO core of this process; it may be used from any thread."""
    return require("openvino", "OpenVINO").Core()
