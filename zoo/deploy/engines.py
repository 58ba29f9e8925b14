"""What runs a model: Keras itself, OpenVINO, ONNX Runtime or LiteRT, behind one call.

An engine may be called from several threads at once. All but "tensorflow" hold a copy of the
weights as they were when the engine was made.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from zoo.deploy.graphs import (
    is_installed,
    litert_graph,
    onnx_graph,
    openvino_core,
    openvino_graph,
    require,
)
from zoo.errors import ExportError, OptionValueError
from zoo.kernels import on_cpu

Array = np.ndarray[Any, np.dtype[Any]]
Source = str | os.PathLike[str] | bytes

ENGINES = ("auto", "tensorflow", "openvino", "onnx", "litert")
PRECISIONS = ("float32", "bfloat16")
# Fastest first on CPUs; what LiteRT is made for are phones. docs/deployment.md has the times.
AUTO = ("openvino", "onnx", "tensorflow")
_PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime", "litert": "ai_edge_litert"}
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # int8: what is not quantised
_LOG = logging.getLogger("zoo")


class Engine(Protocol):
    """Maps prepared images to outputs."""

    name: str  # one of ENGINES, less "auto"
    precision: str  # "float32", "bfloat16"; "int8" of a quantised graph

    def __call__(self, batch: Array) -> Array:
        """Maps prepared images (B, H, W, C), float32, to outputs (B, num_classes), float32."""


def available_engines() -> tuple[str, ...]:
    """Returns the engines whose packages are installed, in the order of `ENGINES`."""
    return tuple(
        name for name in ENGINES[1:] if name == "tensorflow" or is_installed(_PACKAGES[name])
    )


def make_engine(model: keras.Model, name: str = "auto", *, precision: str = "float32") -> Engine:
    """Makes an engine from a model.

    Args:
        model: A built model of one input and one output.
        name: One of `ENGINES`. "auto": of those installed the first of `AUTO` that can hold the
            model; on a GPU, or where Keras does not run on TensorFlow, Keras itself.
        precision: "float32", or with OpenVINO "bfloat16", about twice as fast on processors that
            compute in it; outputs stay float32.

    Raises:
        OptionValueError: An unknown name or precision, one without the other, an engine that is not
            installed, or a model that no other runtime could be given.
        ExportError: The engine's format cannot hold the model.
    """
    check_names(name, precision)
    if name != "auto":
        return _MAKERS[name](model, precision)
    if precision != "float32":
        return _openvino(model, precision)
    for candidate in _candidates(model):
        try:
            return _MAKERS[candidate](model, precision)
        except ExportError as error:
            _LOG.info("%s is passed over: %s", candidate, error)
    return TensorflowEngine(model)


def check_names(name: str, precision: str) -> None:
    """Refuses unknown names, and precisions that an engine does not have.

    Raises:
        OptionValueError: One of those.
    """
    if name not in ENGINES:
        raise OptionValueError(f"`engine` must be one of {ENGINES}; got engine={name!r}.")
    if precision not in PRECISIONS:
        raise OptionValueError(
            f"`precision` must be one of {PRECISIONS}; got precision={precision!r}. "
            "For int8 pass what zoo.deploy.quantize returns."
        )
    if precision != "float32" and name not in ("auto", "openvino"):
        raise OptionValueError(
            f'precision="{precision}" needs engine="openvino"; got engine={name!r}.'
        )


def _candidates(model: keras.Model) -> tuple[str, ...]:
    """The engines that "auto" tries before Keras itself."""
    mixed = any(layer.compute_dtype != "float32" for layer in model.layers)
    if mixed or not on_cpu():
        return ()
    found = available_engines()
    return tuple(name for name in AUTO if name in found and name != "tensorflow")


class _Named:
    """An engine's name and precision, and how it reads."""

    name: str
    precision: str = "float32"

    def __repr__(self) -> str:
        return f"<engine {self.name}, {self.precision}>"


class TensorflowEngine(_Named):
    """Keras itself: on TensorFlow one compiled graph for any batch size, which sees new weights.

    Args:
        model: A built model.
    """

    name = "tensorflow"

    def __init__(self, model: keras.Model) -> None:
        calls = {"tensorflow": _graph_call, "jax": _jax_call}
        self._forward = calls.get(keras.backend.backend(), _keras_call)(model)

    def __call__(self, batch: Array) -> Array:
        """Maps prepared images (B, H, W, C) to outputs (B, num_classes), float32."""
        return np.asarray(self._forward(batch), np.float32)


def _graph_call(model: keras.Model) -> Callable[[Array], Array]:
    """Calls the compiled graph: on small batches `model.predict` takes twice as long."""
    import tensorflow as tf

    forward = tf.function(
        lambda batch: model(batch, training=False),
        input_signature=[tf.TensorSpec(model.input_shape, model.inputs[0].dtype)],
    )
    return lambda batch: np.asarray(forward(batch).numpy())


def _jax_call(model: keras.Model) -> Callable[[Array], Array]:
    """Calls a compiled pure function; `model.predict` gives the model's own arrays away."""
    import jax

    def forward(weights: Any, states: Any, batch: Any) -> Any:
        return model.stateless_call(weights, states, batch, training=False)[0]

    compiled = jax.jit(forward)

    def call(batch: Array) -> Array:
        weights, states = model.trainable_variables, model.non_trainable_variables
        values = [[variable.value for variable in kind] for kind in (weights, states)]
        return np.asarray(compiled(*values, batch))

    return call


def _keras_call(model: keras.Model) -> Callable[[Array], Array]:
    """Calls what every backend has, one thread after the other."""
    lock = threading.Lock()

    def call(batch: Array) -> Array:
        with lock:
            return np.asarray(model.predict_on_batch(batch))

    return call


class SavedModelEngine(_Named):
    """TensorFlow on an exported folder.

    Args:
        folder: A SavedModel with the signature `serve`.
    """

    name = "tensorflow"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        tensorflow = require("tensorflow", "A SavedModel")
        self._module = tensorflow.saved_model.load(os.fspath(folder))  # the signature needs it
        self._constant = tensorflow.constant

    def __call__(self, batch: Array) -> Array:
        """Maps prepared images (B, H, W, C) to outputs (B, num_classes), float32."""
        return np.asarray(self._module.serve(self._constant(batch)).numpy(), np.float32)


class OpenVINOEngine(_Named):
    """OpenVINO on the processor.

    OpenVINO would choose bfloat16 by itself where the processor has it, so float32 is asked for.

    Args:
        graph: An `openvino.Model`, or a file that OpenVINO reads.
        precision: "float32", "bfloat16", or "int8" for a quantised graph, whose other operations
            stay float32.
        properties: Further ones for `openvino.Core.compile_model`.

    Raises:
        OptionValueError: OpenVINO is not installed, or the processor has no bfloat16.
    """

    name = "openvino"

    def __init__(
        self, graph: Any, precision: str = "float32", properties: Mapping[str, Any] | None = None
    ) -> None:
        core = openvino_core()
        if precision == "bfloat16" and "BF16" not in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise OptionValueError(
                'precision="bfloat16" needs a processor with AVX512-BF16 or AMX; OpenVINO finds '
                'neither here. Use precision="float32".'
            )
        self.precision = precision
        settings = {
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all cores
            "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            **(properties or {}),
        }
        self._compiled = core.compile_model(graph, "CPU", settings)
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()  # requests; each is one call's

    def __call__(self, batch: Array) -> Array:
        """Maps prepared images (B, H, W, C) to outputs (B, num_classes), float32."""
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            found = request.infer([np.ascontiguousarray(batch)], share_inputs=True)
            return np.asarray(found[0], np.float32)
        finally:
            self._idle.put(request)


class OnnxEngine(_Named):
    """ONNX Runtime on the processor.

    Args:
        source: A file or its content.

    Raises:
        OptionValueError: ONNX Runtime is not installed.
    """

    name = "onnx"

    def __init__(self, source: Source) -> None:
        runtime = require("onnxruntime", 'engine="onnx"')
        content = source if isinstance(source, bytes) else os.fspath(source)
        self._session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: Array) -> Array:
        """Maps prepared images (B, H, W, C) to outputs (B, num_classes), float32."""
        return np.asarray(self._session.run(None, {self._input: batch})[0], np.float32)


class LiteRTEngine(_Named):
    """LiteRT, formerly TensorFlow Lite, on the processor.

    Args:
        source: A file or its content.
        precision: What the graph computes in; "int8" for a quantised one.

    Raises:
        OptionValueError: LiteRT is not installed.
    """

    name = "litert"

    def __init__(self, source: Source, precision: str = "float32") -> None:
        runtime = require("ai_edge_litert.interpreter", 'engine="litert"')
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        self.precision = precision
        self._interpreter = runtime.Interpreter(model_content=content, num_threads=cores())
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._shape: tuple[int, ...] = ()
        self._lock = threading.Lock()  # an interpreter runs one batch at a time

    def __call__(self, batch: Array) -> Array:
        """Maps prepared images (B, H, W, C) to outputs (B, num_classes), float32."""
        with self._lock:
            if batch.shape != self._shape:
                self._shape = ()  # should one of these fail
                self._interpreter.resize_tensor_input(self._input, batch.shape)
                self._interpreter.allocate_tensors()
                self._shape = batch.shape
            self._interpreter.set_tensor(self._input, batch)
            self._interpreter.invoke()
            return np.asarray(self._interpreter.get_tensor(self._output), np.float32)


def cores() -> int:
    """Returns the processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _openvino(model: keras.Model, precision: str) -> Engine:
    require("openvino", 'engine="openvino"')
    return OpenVINOEngine(openvino_graph(model), precision)


def _onnx(model: keras.Model, precision: str) -> Engine:  # noqa: ARG001 - float32, as checked
    require("onnxruntime", 'engine="onnx"')
    return OnnxEngine(onnx_graph(model))


def _litert(model: keras.Model, precision: str) -> Engine:  # noqa: ARG001 - float32, as checked
    require("ai_edge_litert", 'engine="litert"')
    return LiteRTEngine(litert_graph(model))


_MAKERS: dict[str, Callable[[keras.Model, str], Engine]] = {
    "tensorflow": lambda model, _: TensorflowEngine(model),
    "openvino": _openvino,
    "onnx": _onnx,
    "litert": _litert,
}
