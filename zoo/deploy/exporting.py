"""A model as a file that runs without Keras, compared with the model before it is there."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.deploy.engines import (
    Engine,
    LiteRTEngine,
    OnnxEngine,
    OpenVINOEngine,
    SavedModelEngine,
    TensorflowEngine,
)
from zoo.deploy.graphs import (
    check_single,
    converting,
    litert_graph,
    onnx_graph,
    openvino_core,
    openvino_graph,
    require,
)
from zoo.deploy.metadata import (
    FORMATS,
    SUFFIXES,
    append_litert,
    describe,
    embed_onnx,
    embed_openvino,
    exported_format,
    reading,
    write_saved_model,
)
from zoo.errors import ExportError, OptionValueError
from zoo.preprocessing import preprocessor
from zoo.record import deep_graphs, get_record
from zoo.weights.store import atomic_path

Array = np.ndarray[Any, np.dtype[Any]]

TOLERANCE = 1e-4  # of the outputs' standard deviation
ENGINE_OF = dict(zip(FORMATS, ("tensorflow", "onnx", "openvino", "litert"), strict=True))
_SIDE = 224  # pixels, of the images that a model of any size is checked with
_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}


@dataclass(frozen=True, kw_only=True)
class Export:
    """A file that was written, and how it compared with its model."""

    path: Path
    format: str
    size_bytes: int
    difference: float  # largest |file - model| over the standard deviation of the model's outputs

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.format}, {self.size_bytes / 1e6:.1f} MB; run and compared with "
            f"the model: {self.difference:.0e} of the outputs' deviation"
        )


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002 - the word of Keras' own `model.export`
    *,
    tolerance: float = TOLERANCE,
) -> Export:
    """Writes a model for another runtime, runs the file, and compares it with the model.

    The file takes any batch size, and holds class names and preprocessing: `zoo.deploy.predictor`
    opens it. It appears whole or not at all; one of that name is replaced.

    Args:
        model: A model of one input and one output.
        path: A file ending in .onnx, .xml (OpenVINO, with a .bin beside it) or .tflite (LiteRT), or
            a folder (SavedModel).
        format: "saved_model", "onnx", "openvino" or "litert"; None: by the path's suffix.
        tolerance: Largest difference to the model, over the standard deviation of its outputs.

    Raises:
        OptionValueError: An unknown format, a path that does not fit it, a model that cannot be
            converted, or a package that is not installed.
        ExportError: The format cannot hold the model, or the file answers otherwise than it.
    """
    path = Path(path).expanduser()
    chosen = _format(path, format)
    if keras.backend.backend() != "tensorflow":
        raise OptionValueError(
            "`export` needs KERAS_BACKEND=tensorflow, whose graph every format is made from; Keras "
            f"runs on {keras.backend.backend()}. Save the model and export it there."
        )
    check_single(model)
    if chosen in _PACKAGES:
        require(_PACKAGES[chosen], f"Checking an export to {chosen}")
    check = _Check(model, chosen, tolerance)
    difference = _WRITERS[chosen](model, path, check)
    return Export(path=path, format=chosen, size_bytes=_size(path), difference=difference)


def open_engine(path: Path, precision: str = "float32", held: str = "float32") -> Engine:
    """Makes the engine of an exported file.

    Args:
        path: The file.
        precision: What is asked for.
        held: What the file was quantised to, "float32" if it was not.

    Raises:
        OptionValueError: A precision that the file's engine does not have, or an engine that is not
            installed.
        CheckpointError: The file cannot be read.
    """
    chosen = exported_format(path)
    if precision != "float32" and chosen != "openvino":
        raise OptionValueError(
            f"Of exported files only OpenVINO's run in {precision}; `{path.name}` is {chosen}."
        )
    with reading(path):
        if chosen == "openvino":
            graph = openvino_core().read_model(os.fspath(path))
            return OpenVINOEngine(graph, held if precision == "float32" else precision)
        if chosen == "litert":
            return LiteRTEngine(path, held)
        return OnnxEngine(path) if chosen == "onnx" else SavedModelEngine(path)


@dataclass(frozen=True)
class _Check:
    """Compares what was written with the model."""

    model: keras.Model
    format: str
    tolerance: float

    def __call__(self, engine: Engine) -> float:
        """Returns the difference on a batch of three images and on a single one."""
        batch = _images(self.model, 3)
        with deep_graphs():
            expected = TensorflowEngine(self.model)(batch)
        with converting(self.model, self.format):  # it may refuse to run at all
            found = [(engine(batch), expected), (engine(batch[:1]), expected[:1])]
        scale = float(expected.std()) or float(np.abs(expected).max()) or 1.0
        difference = max(_distance(*pair) for pair in found) / scale
        if not difference <= self.tolerance:  # also where it is no number
            raise ExportError(
                f"`{self.model.name}` as {self.format} answers otherwise than the model: the "
                f"largest difference is {difference:.1e} of the outputs' deviation, and "
                f"{self.tolerance:.0e} is allowed. Nothing was written."
            )
        return difference


def _distance(found: Array, expected: Array) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max())


def _images(model: keras.Model, count: int) -> Array:
    """Random prepared images: (count, H, W, C), float32."""
    record, shape = get_record(model), list(model.input_shape[1:])
    sides = preprocessor(model).size if record is not None else (_SIDE, _SIDE)
    shape[:2] = [known or side for known, side in zip(shape[:2], sides, strict=False)]
    random = np.random.default_rng(0)
    if record is not None and record.options.get("preprocess"):
        return random.uniform(0, 255, (count, *shape)).astype(np.float32)
    return random.normal(size=(count, *shape)).astype(np.float32)


def _format(path: Path, name: str | None) -> str:
    """Returns the format, given or by suffix."""
    if name is None:
        if path.suffix and exported_format(path) is None:
            raise OptionValueError(
                f"`path` must end in {', '.join(SUFFIXES.values())}, or be a folder without a "
                f"suffix; got {path.name!r}. Name the `format` for others."
            )
        return exported_format(path) or "saved_model"
    if name not in FORMATS:
        raise OptionValueError(f"`format` must be one of {FORMATS}; got format={name!r}.")
    if name in SUFFIXES and path.suffix != SUFFIXES[name]:
        raise OptionValueError(
            f"A path for {name} must end in {SUFFIXES[name]}; got {path.name!r}."
        )
    return name


def _write_saved_model(model: keras.Model, path: Path, check: _Check) -> float:
    with _atomic_folder(path) as part:
        with converting(model, "saved_model"), deep_graphs():
            model.export(part, verbose=False)
        write_saved_model(part, describe(model))
        return check(SavedModelEngine(part))


def _write_onnx(model: keras.Model, path: Path, check: _Check) -> float:
    content = embed_onnx(onnx_graph(model), describe(model))
    with atomic_path(path) as part:
        part.write_bytes(content)
        return check(OnnxEngine(part))


def _write_litert(model: keras.Model, path: Path, check: _Check) -> float:
    content = litert_graph(model)
    with atomic_path(path) as part:
        part.write_bytes(content)
        append_litert(part, describe(model))
        return check(LiteRTEngine(part))


def _write_openvino(model: keras.Model, path: Path, check: _Check) -> float:
    graph = openvino_graph(model)
    embed_openvino(graph, describe(model))
    openvino = require("openvino", "OpenVINO")
    # the .xml takes its place last: without it there is no model
    with atomic_path(path) as part, atomic_path(path.with_suffix(".bin")) as weights:
        openvino.serialize(graph, os.fspath(part), os.fspath(weights))
        written = openvino_core().read_model(os.fspath(part), os.fspath(weights))
        return check(OpenVINOEngine(written))


_WRITERS: dict[str, Callable[[keras.Model, Path, _Check], float]] = {
    "saved_model": _write_saved_model,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "litert": _write_litert,
}


@contextlib.contextmanager
def _atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a new path beside `path` that takes its place at the end, and is removed on an error.

    Raises:
        OptionValueError: `path` is something else than a SavedModel or an empty folder.
    """
    replaceable = path.is_dir() and (exported_format(path) or not any(path.iterdir()))
    if path.exists() and not replaceable:
        raise OptionValueError(
            f"`{path}` is there and is no SavedModel, so it is not replaced; name another path."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part, old = (
        path.with_name(f".{kind}-{uuid.uuid4().hex}-{path.name}") for kind in ("new", "old")
    )
    try:
        yield part
        if path.exists():
            path.replace(old)
        try:
            part.replace(path)
        except OSError:
            if old.exists():
                old.replace(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _size(path: Path) -> int:
    """The bytes on disk, with what stands beside."""
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    beside = path.with_suffix(".bin") if path.suffix == ".xml" else path
    return sum(each.stat().st_size for each in {path, beside})
