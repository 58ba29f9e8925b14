"""The quantisers: NNCF for OpenVINO's graphs, TensorFlow's converter for LiteRT's."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.deploy.calibration import ImageSet
from zoo.deploy.counting import item_bytes
from zoo.deploy.engines import Engine, LiteRTEngine, OpenVINOEngine
from zoo.deploy.graphs import converting, openvino_core, openvino_graph, require
from zoo.deploy.quantization_report import QuantizedOperation
from zoo.deploy.quantized_operations import (
    litert_operations,
    openvino_layers,
    openvino_operations,
)
from zoo.errors import OptionValueError
from zoo.preprocessing import Array
from zoo.record import deep_graphs

BATCH = 32  # of a comparison
_LOG = logging.getLogger("zoo")


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a quantiser made."""

    engine: Engine
    graph: Any
    operations: tuple[QuantizedOperation, ...]
    bytes_before: int
    bytes_after: int


# --- OpenVINO -----------------------------------------------------------------------------------


def _kept(
    graph: Any, model: keras.Model, *, everything: bool, float_layers: str | None
) -> list[str]:
    """The names in the graph of what stays float32."""
    layers = openvino_layers(graph, model)
    kept = [] if everything else _sensitive(layers)
    if float_layers is None:
        return kept
    matching = [name for name, one in layers.items() if re.search(float_layers, one.name)]
    if not matching:
        some = ", ".join([one.name for one in layers.values()][:4])
        raise OptionValueError(
            f"`float_layers` must match a layer that multiplies; got {float_layers!r} for "
            f"{model.name}, whose layers are named like {some}."
        )
    return list(dict.fromkeys([*kept, *matching]))


def _sensitive(layers: dict[str, QuantizedOperation]) -> list[str]:
    """The first multiplication and the depthwise ones, by their names in the graph.

    The first sees every detail that is lost for good, and a depthwise one sums over nine products
    only, in which errors do not cancel out.
    """
    first = next(iter(layers), "")
    depthwise = [name for name, one in layers.items() if one.kind.startswith("depthwise")]
    return list(dict.fromkeys([first, *depthwise]))


@dataclass(frozen=True)
class Agreement:
    """How often the best class must stay what it was."""

    least: float
    images: ImageSet

    def batches(self, graph: Any) -> list[tuple[Array, Array]]:
        """Prepared batches and the best classes that the unchanged graph finds in them."""
        engine = OpenVINOEngine(graph)
        return [(batch, engine(batch).argmax(axis=1)) for batch in self.images.batches(BATCH)]


def _agreeing(compiled: Any, batches: Iterable[tuple[Array, Array]]) -> tuple[float, Any]:
    """The share of images with the same best class, and the outputs of each batch."""
    outputs, same = [], []
    for batch, best in batches:
        outputs.append([np.array(compiled(batch)[0])])
        same.append(outputs[-1][0].argmax(axis=1) == best)
    share = float(np.mean(np.concatenate(same)))
    _LOG.info("the same best class for %.1f %% of images", 100 * share)
    return share, outputs


def quantize_openvino(
    model: keras.Model,
    learned: ImageSet,
    *,
    activations: str,
    bias_correction: str | None,
    everything: bool,
    float_layers: str | None,
    agreement: Agreement | None,
) -> Made:
    """Makes an int8 graph of OpenVINO; the options are those of `zoo.deploy.quantize`.

    Raises:
        OptionValueError: `float_layers` matches nothing, or a package is not installed.
        ExportError: OpenVINO cannot hold the model, or NNCF failed.
    """
    graph = openvino_graph(model)
    kept = _kept(graph, model, everything=everything, float_layers=float_layers)
    nncf = require("nncf", 'quantize(engine="openvino")')
    preset = nncf.QuantizationPreset
    ranges = importlib.import_module("nncf.quantization.range_estimator")
    parameters = importlib.import_module("nncf.quantization.advanced_parameters")
    advanced = nncf.AdvancedQuantizationParameters(
        disable_bias_correction=bias_correction is None,
        # NNCF's own are means of the images' ranges, for each channel of a depthwise convolution:
        # what few images or channels hold is cut off
        activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX,
        activations_quantization_params=parameters.QuantizationParameters(per_channel=False),
    )
    options = {
        "preset": preset.MIXED if activations == "asymmetric" else preset.PERFORMANCE,
        "subset_size": len(learned),
        "ignored_scope": nncf.IgnoredScope(names=kept) if kept else None,
        "fast_bias_correction": bias_correction != "accurate",
    }
    examples = nncf.Dataset(list(learned.examples()))
    with converting(model, "int8 of openvino"), _quiet(nncf):
        if agreement is None:
            quantised = nncf.quantize(graph, examples, advanced_parameters=advanced, **options)
        else:
            # which draws several progress bars for every layer it tries
            with contextlib.redirect_stdout(io.StringIO()):
                quantised = nncf.quantize_with_accuracy_control(
                    graph,
                    examples,
                    nncf.Dataset(agreement.batches(graph), lambda pair: pair[0]),
                    _agreeing,
                    max_drop=1 - agreement.least,
                    advanced_quantization_parameters=advanced,
                    **options,
                )
    return Made(
        engine=OpenVINOEngine(quantised, "int8"),
        graph=quantised,
        operations=openvino_operations(quantised, openvino_core(), model),
        bytes_before=_constant_bytes(graph),
        bytes_after=_constant_bytes(quantised),
    )


def _constant_bytes(graph: Any) -> int:
    constants = [op for op in graph.get_ordered_ops() if op.get_type_name() == "Constant"]
    return sum(op.get_byte_size() for op in constants)


@contextlib.contextmanager
def _quiet(nncf: Any) -> Iterator[None]:
    """Inside, NNCF reports errors only."""
    nncf.set_log_level(logging.ERROR)
    try:
        yield
    finally:
        nncf.set_log_level(logging.INFO)


# --- LiteRT -------------------------------------------------------------------------------------


def quantize_litert(model: keras.Model, learned: ImageSet, precision: str) -> Made:
    """Makes an int8 file of LiteRT; the options are those of `zoo.deploy.quantize`.

    Raises:
        OptionValueError: A package is not installed.
        ExportError: TensorFlow's converter failed.
    """
    import tensorflow as tf

    require("ai_edge_litert.interpreter", 'quantize(engine="litert")')
    sets = tf.lite.OpsSet
    options: dict[str, Any] = {"target_spec": {"supported_ops": [sets.TFLITE_BUILTINS]}}
    if precision == "int8":
        options["representative_dataset"] = _examples(learned)
        # whatever has no form in int8 stays float32; inputs and outputs too
        options["target_spec"]["supported_ops"].insert(0, sets.TFLITE_BUILTINS_INT8)
    with (
        tempfile.TemporaryDirectory() as folder,
        converting(model, "int8 of litert"),
        deep_graphs(),
    ):
        path = Path(folder) / "model.tflite"
        model.export(
            str(path),
            format="litert",
            verbose=False,
            optimizations=[tf.lite.Optimize.DEFAULT],
            experimental_enable_resource_variables=False,  # weights are constants
            **options,
        )
        content = path.read_bytes()
    return Made(
        engine=LiteRTEngine(content, precision),
        graph=content,
        operations=litert_operations(content, model),
        bytes_before=sum(math.prod(v.shape) * item_bytes(v.dtype) for v in model.weights),
        bytes_after=len(content),
    )


def _examples(learned: ImageSet) -> Callable[[], Iterator[list[Array]]]:
    return lambda: ([one] for one in learned.examples())
