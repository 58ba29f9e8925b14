"""Eight bits instead of thirty-two: post-training quantisation of convolutions and dense layers.

OpenVINO's graphs are quantised by NNCF, LiteRT's by TensorFlow's converter; both learn the ranges
of activations from calibration images.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from zoo.deploy.calibration import Images, ImageSet, check_representative, gather
from zoo.deploy.counting import count_macs, item_bytes
from zoo.deploy.engines import Engine, LiteRTEngine, OpenVINOEngine, TensorflowEngine
from zoo.deploy.graphs import (
    check_convertible,
    converting,
    openvino_core,
    openvino_graph,
    require,
)
from zoo.deploy.metadata import append_litert, describe, embed_openvino
from zoo.deploy.quantization_report import QuantizationReport, QuantizedOperation, compare, share
from zoo.deploy.quantized_operations import (
    litert_operations,
    openvino_layers,
    openvino_operations,
)
from zoo.errors import ExportError, OptionValueError
from zoo.preprocessing import Array, preprocessor
from zoo.record import deep_graphs, get_record
from zoo.weights.store import atomic_path

SUFFIXES = {"openvino": ".xml", "litert": ".tflite"}
PRECISIONS = {"openvino": ("int8",), "litert": ("int8", "int8-weights")}
IMAGES = 300  # that ranges are learned from
BATCH = 32  # of the comparison


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A quantised model: an engine, with a report of what was changed."""

    name: str  # "openvino" or "litert"
    precision: str
    model: keras.Model  # that it was made from, unchanged
    report: QuantizationReport
    engine: Engine = field(repr=False)
    graph: Any = field(repr=False)  # an `openvino.Model`, or the content of a LiteRT file

    def __call__(self, batch: Array) -> Array:
        """Maps prepared images (B, H, W, C), float32, to outputs (B, num_classes), float32."""
        return self.engine(batch)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes a file that `zoo.deploy.predictor` opens, the report inside.

        Args:
            path: Ends in .xml for OpenVINO, which puts a .bin beside it; in .tflite for LiteRT.

        Raises:
            OptionValueError: Another suffix.
        """
        path, suffix = Path(path).expanduser(), SUFFIXES[self.name]
        if path.suffix != suffix:
            raise OptionValueError(
                f"A model quantised for {self.name} is saved as {suffix}; got {path.name!r}."
            )
        said = json.loads(describe(self.model))
        text = json.dumps(said | {"precision": self.precision, "quantized": self.report.to_json()})
        if self.name == "litert":
            with atomic_path(path) as part:
                part.write_bytes(self.graph)
                append_litert(part, text)
            return path
        openvino = require("openvino", "Saving a graph of OpenVINO")
        embed_openvino(self.graph, text)
        # the .xml takes its place last: without it there is no model
        with atomic_path(path) as part, atomic_path(path.with_suffix(".bin")) as weights:
            openvino.serialize(self.graph, os.fspath(part), os.fspath(weights))
        return path


def quantize(
    model: keras.Model,
    precision: Literal["int8", "int8-weights"] = "int8",
    calibration: Images = None,
    *,
    engine: Literal["openvino", "litert"] = "openvino",
    labels: Any = None,
    validation: Images | None = None,
    activations: Literal["symmetric", "asymmetric"] = "asymmetric",
    bias_correction: Literal["fast", "accurate"] | None = "fast",
    everything: bool = False,
    float_layers: str | None = None,
    images: int = IMAGES,
) -> Quantized:
    """Makes an int8 engine of a model, and says layer by layer what was changed.

    Args:
        model: A float32 model of zoo, of one input and one output. It is not changed.
        precision: "int8": weights and activations. "int8-weights", of LiteRT alone: weights only;
            a quarter of the size, computed in float32 or with ranges found on the way.
        calibration: What the model will meet, at least 32 images of it, prepared here as the
            weights want it: uint8 (N, H, W, C); a list of files or of images of any sizes; or a
            `tf.data.Dataset` of images or of pairs (images, labels).
        engine: "openvino" needs the packages openvino and nncf; "litert" needs ai-edge-litert.
        labels: Classes (N,) of the `validation` images, of `calibration` where those are not given.
        validation: Images on which outputs before and after are compared; None: `calibration`.
        activations: For OpenVINO: "symmetric" ranges are slightly faster, "asymmetric" ones
            slightly closer.
        bias_correction: For OpenVINO: whether the mean error of each layer is taken out of its
            bias, "fast" from one pass, "accurate" layer after layer.
        everything: For OpenVINO: whether the first convolution and the depthwise ones become int8
            as well. They are few of the multiply-adds and make most of the error.
        float_layers: For OpenVINO: a regular expression, searched in layer names; what matches
            stays float32.
        images: Most images of `calibration` that ranges are learned from.

    Raises:
        OptionValueError: A choice that is not there, a model that cannot be converted, or a package
            that is not installed.
        DataError: Too few calibration images, or images or labels of a wrong kind.
        SourceError: A file that does not exist.
        ExportError: The converter failed, or nothing was quantised.
    """
    _check_choices(engine, precision, activations, bias_correction, images)
    if calibration is None:
        raise OptionValueError(
            "`calibration` must be given: some hundred uint8 images such as the model will meet."
        )
    check_convertible(model, engine)
    if engine == "openvino":
        require("nncf", 'quantize(engine="openvino")')
    count_macs(model)  # refuses sizes that are not fixed
    prepare = preprocessor(model)
    own = labels if validation is None else None
    learned = gather(calibration, own, prepare, argument="calibration", limit=images)
    check_representative(learned)
    compared = learned
    if validation is not None:
        compared = gather(validation, labels, prepare, argument="validation", limit=None)
    if engine == "openvino":
        graph = openvino_graph(model)
        kept = _kept(graph, model, everything=everything, float_layers=float_layers)
        made = _openvino(model, graph, learned, kept, activations, bias_correction)
    else:
        made = _litert(model, learned, precision)
    _check_changed(model, made)
    report = _report(model, precision, made, learned, compared)
    return Quantized(
        name=engine,
        precision=precision,
        model=model,
        report=report,
        engine=made.engine,
        graph=made.graph,
    )


def _check_choices(
    engine: str, precision: str, activations: str, bias_correction: str | None, images: int
) -> None:
    if engine not in PRECISIONS:
        raise OptionValueError(f"`engine` must be one of {tuple(PRECISIONS)}; got {engine!r}.")
    given: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "precision": (precision, PRECISIONS[engine]),
        "activations": (activations, ("symmetric", "asymmetric")),
        "bias_correction": (bias_correction, ("fast", "accurate", None)),
    }
    for name, (value, allowed) in given.items():
        if value not in allowed:
            raise OptionValueError(
                f"`{name}` must be one of {allowed} for engine={engine!r}; got {name}={value!r}."
            )
    if images < 1:
        raise OptionValueError(f"`images` must be positive; got images={images}.")


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What a quantiser made."""

    engine: Engine
    graph: Any
    operations: tuple[QuantizedOperation, ...]
    bytes_before: int
    bytes_after: int


def _check_changed(model: keras.Model, made: _Made) -> None:
    if not any(one.after != one.before for one in made.operations):
        raise ExportError(
            f"Nothing of `{model.name}` was quantised: none of its {len(made.operations)} "
            "convolutions and dense layers runs in int8. Take another engine, or keep float32."
        )


def _report(
    model: keras.Model, precision: str, made: _Made, learned: ImageSet, compared: ImageSet
) -> QuantizationReport:
    with deep_graphs():
        original = TensorflowEngine(model)
        pairs = [(original(batch), made.engine(batch)) for batch in compared.batches(BATCH)]
    before, after = (np.concatenate(side) for side in zip(*pairs, strict=True))
    found = compare(before, after, compared.labels, classes=_has_classes(model))
    return QuantizationReport(
        model=model.name,
        engine=made.engine.name,
        precision=precision,
        operations=made.operations,
        quantized=sum(one.after != one.before for one in made.operations),
        mac_share=share(made.operations),
        calibration_images=len(learned),
        compared_images=len(compared),
        compared_on="calibration" if compared is learned else "validation",
        agreement=found.agreement,
        accuracy_before=found.accuracy_before,
        accuracy_after=found.accuracy_after,
        largest_change=found.largest_change,
        outputs_std=found.outputs_std,
        bytes_before=made.bytes_before,
        bytes_after=made.bytes_after,
    )


def _has_classes(model: keras.Model) -> bool:
    record = get_record(model)
    single = len(model.output_shape) != 2 or model.output_shape[-1] == 1
    if record is None or single:
        return not single
    return record.task == "classify" and record.options.get("num_classes") != 0


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


def _openvino(
    model: keras.Model,
    graph: Any,
    learned: ImageSet,
    kept: list[str],
    activations: str,
    bias_correction: str | None,
) -> _Made:
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
    with converting(model, "int8 of openvino"), _quiet(nncf):
        quantised = nncf.quantize(
            graph,
            nncf.Dataset(list(learned.examples())),
            preset=preset.MIXED if activations == "asymmetric" else preset.PERFORMANCE,
            subset_size=len(learned),
            ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
            fast_bias_correction=bias_correction != "accurate",
            advanced_parameters=advanced,
        )
    return _Made(
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


def _litert(model: keras.Model, learned: ImageSet, precision: str) -> _Made:
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
    return _Made(
        engine=LiteRTEngine(content, precision),
        graph=content,
        operations=litert_operations(content, model),
        bytes_before=sum(math.prod(v.shape) * item_bytes(v.dtype) for v in model.weights),
        bytes_after=len(content),
    )


def _examples(learned: ImageSet) -> Callable[[], Iterator[list[Array]]]:
    return lambda: ([one] for one in learned.examples())
