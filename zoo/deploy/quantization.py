"""Eight bits instead of thirty-two: post-training quantisation of convolutions and dense layers.

OpenVINO's graphs are quantised by NNCF, LiteRT's by TensorFlow's converter; both learn the ranges
of activations from calibration images.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from zoo.deploy.calibration import Images, ImageSet, check_representative, gather
from zoo.deploy.counting import count_macs
from zoo.deploy.engines import Engine, TensorflowEngine
from zoo.deploy.graphs import check_convertible, require
from zoo.deploy.metadata import append_litert, describe, embed_openvino
from zoo.deploy.quantization_report import QuantizationReport, compare, share
from zoo.deploy.quantizers import BATCH, Agreement, Made, quantize_litert, quantize_openvino
from zoo.errors import ExportError, OptionValueError
from zoo.preprocessing import Array, preprocessor
from zoo.record import deep_graphs, get_record
from zoo.weights.store import atomic_path

SUFFIXES = {"openvino": ".xml", "litert": ".tflite"}
PRECISIONS = {"openvino": ("int8",), "litert": ("int8", "int8-weights")}
IMAGES = 300  # that ranges are learned from


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
    bias_correction: Literal["fast", "accurate"] | None = "accurate",
    everything: bool = False,
    float_layers: str | None = None,
    agreement: float | None = None,
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
            bias, "accurate" layer after layer, "fast" from one pass, in half the time.
        everything: For OpenVINO: whether the first convolution and the depthwise ones become int8
            as well. They are few of the multiply-adds and make most of the error.
        float_layers: For OpenVINO: a regular expression, searched in layer names; what matches
            stays float32.
        agreement: For OpenVINO and classifiers: least share of the compared images whose best
            class must stay the same, such as 0.99. Layers whose rounding changes the outputs most
            go back to float32, one after the other, until it is reached. That takes minutes. Give
            `validation` images for it to hold beyond those of the calibration.
        images: Most images of `calibration` that ranges are learned from.

    Raises:
        OptionValueError: A choice that is not there, a model that cannot be converted, or a package
            that is not installed.
        DataError: Too few calibration images, or images or labels of a wrong kind.
        SourceError: A file that does not exist.
        ExportError: The converter failed, or nothing was quantised: perhaps because `agreement` is
            only reached without.
    """
    _check_choices(engine, precision, activations, bias_correction, images)
    _check_agreement(agreement, engine, model)
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
        made = quantize_openvino(
            model,
            learned,
            activations=activations,
            bias_correction=bias_correction,
            everything=everything,
            float_layers=float_layers,
            agreement=None if agreement is None else Agreement(agreement, compared),
        )
    else:
        made = quantize_litert(model, learned, precision)
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


def _check_agreement(agreement: float | None, engine: str, model: keras.Model) -> None:
    if agreement is None:
        return
    if not 0 < agreement <= 1:
        raise OptionValueError(f"`agreement` must be in (0, 1]; got agreement={agreement!r}.")
    if engine != "openvino" or not _has_classes(model):
        raise OptionValueError(
            f"`agreement` counts best classes and needs engine='openvino'; got engine={engine!r} "
            f"and `{model.name}` with outputs {tuple(model.output_shape)}. Leave it out."
        )


def _check_changed(model: keras.Model, made: Made) -> None:
    if not any(one.after != one.before for one in made.operations):
        raise ExportError(
            f"Nothing of `{model.name}` was quantised: none of its {len(made.operations)} "
            "convolutions and dense layers runs in int8. Take another engine, or keep float32."
        )


def _report(
    model: keras.Model, precision: str, made: Made, learned: ImageSet, compared: ImageSet
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
