"""What an exported file says of its model: class names, preprocessing, record; inside the file.

ONNX keeps it in its metadata, OpenVINO in the runtime information of the `.xml`, LiteRT as a zip
member behind the graph (as its own metadata tools do), a SavedModel in `assets.extra`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from zoo.deploy.graphs import openvino_core, require
from zoo.errors import CheckpointError, OptionValueError, SourceError, ZooError
from zoo.preprocessing import Preprocessor, class_list, preprocessor
from zoo.record import ModelRecord, get_record
from zoo.spec import Preprocessing

MEMBER = "zoo.json"  # also the key in ONNX
RUNTIME_KEY = ["keras_zoo", "json"]  # in OpenVINO
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "litert": ".tflite"}
FORMATS = ("saved_model", *SUFFIXES)


@dataclass(frozen=True, kw_only=True)
class Description:
    """An exported model, as far as its file tells."""

    name: str
    output_shape: tuple[int | None, ...]
    preprocess: Preprocessor
    record: ModelRecord
    precision: str = "float32"  # "int8" of a quantised model


def class_names(record: ModelRecord, outputs: int) -> tuple[str, ...]:
    """Returns the names of a model's outputs; their numbers where nothing names them."""
    names = record.class_names
    if not names and record.weights is not None and record.weights.num_classes == outputs:
        names = class_list(record.weights.labels)
    return names if len(names) == outputs else tuple(map(str, range(outputs)))


def describe(model: keras.Model) -> str:
    """Returns what a model's exported file holds beside the graph, as JSON.

    Of a model that zoo did not make only shapes are known.
    """
    said: dict[str, Any] = {
        "model": model.name,
        "input": {"shape": model.input_shape, "layout": "NHWC", "dtype": "float32"},
        "output": {"shape": model.outputs[0].shape},
    }
    record = get_record(model)
    if record is not None:
        prepare = preprocessor(model)
        said |= {
            "task": record.task,
            "class_names": class_names(record, int(model.outputs[0].shape[-1])),
            "preprocessing": {
                "size": prepare.size,  # pixels (H, W), of the crop
                "channels": prepare.channels,
                # True: outside the graph, (pixels / 255 - mean) / std
                "normalise": prepare.normalise,
                **dataclasses.asdict(prepare.preprocessing),
            },
            "record": record.to_json(),
        }
    return json.dumps(said)


def exported_format(path: Path) -> str | None:
    """Returns which of `FORMATS` a path looks like; None: none of them."""
    if (path / "saved_model.pb").is_file():
        return "saved_model"
    return next((name for name, suffix in SUFFIXES.items() if path.suffix == suffix), None)


def read_description(path: Path) -> Description:
    """Reads what an exported file says of its model.

    Raises:
        SourceError: There is no such file.
        CheckpointError: It cannot be read.
        OptionValueError: `zoo.deploy.export` did not write it.
    """
    kind = exported_format(path)
    if kind is None or not path.exists():
        raise SourceError(f"There is no exported model at `{path}`.")
    with reading(path):
        text = _READERS[kind](path)
        said = json.loads(text) if text else {}
    if "record" not in said:
        raise OptionValueError(
            f"`{path}` does not tell its model's preprocessing: it was not written by "
            "zoo.deploy.export, or from a model that zoo did not make."
        )
    return _parsed(said)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Inside, whatever a runtime raises about a file is a `CheckpointError` that names it."""
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CheckpointError(f"`{path}` is not a readable exported model: {reason}") from error


def _parsed(said: Mapping[str, Any]) -> Description:
    told = dict(said["preprocessing"])
    size, channels, normalise = (told.pop(key) for key in ("size", "channels", "normalise"))
    prep: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in told.items()}
    return Description(
        name=said["model"],
        output_shape=tuple(said["output"]["shape"]),
        preprocess=Preprocessor(
            size=(size[0], size[1]),
            channels=channels,
            preprocessing=Preprocessing(**prep),
            normalise=normalise,
        ),
        record=ModelRecord.from_json(said["record"]),
        precision=said.get("precision", "float32"),
    )


def embed_onnx(content: bytes, text: str) -> bytes:
    """Returns an ONNX file's content with the description inside."""
    onnx = require("onnx", "Exporting to onnx")
    graph = onnx.load_from_string(content)
    onnx.helper.set_model_props(graph, {MEMBER: text})
    return bytes(graph.SerializeToString())


def embed_openvino(graph: Any, text: str) -> None:
    """Puts the description into an `openvino.Model`."""
    graph.set_rt_info(text, RUNTIME_KEY)


def append_litert(path: str | os.PathLike[str], text: str) -> None:
    """Puts the description behind the graph of a LiteRT file."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(MEMBER, text)


def write_saved_model(folder: Path, text: str) -> None:
    """Puts the description into a SavedModel's folder."""
    extra = folder / "assets.extra"  # TensorFlow's place for files that it does not read
    extra.mkdir(exist_ok=True)
    (extra / MEMBER).write_text(text, encoding="utf-8")


def _read_onnx(path: Path) -> str:
    runtime = require("onnxruntime", f"Opening `{path.name}`")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL  # not to run
    session = runtime.InferenceSession(os.fspath(path), options, ["CPUExecutionProvider"])
    return str(session.get_modelmeta().custom_metadata_map.get(MEMBER, ""))


def _read_openvino(path: Path) -> str:
    graph = openvino_core().read_model(os.fspath(path))
    return str(graph.get_rt_info(RUNTIME_KEY).astype(str)) if graph.has_rt_info(RUNTIME_KEY) else ""


def _read_litert(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as archive:
        return archive.read(MEMBER).decode() if MEMBER in archive.namelist() else ""


def _read_saved_model(path: Path) -> str:
    place = path / "assets.extra" / MEMBER
    return place.read_text("utf-8") if place.is_file() else ""


_READERS: dict[str, Callable[[Path], str]] = {
    "saved_model": _read_saved_model,
    "onnx": _read_onnx,
    "openvino": _read_openvino,
    "litert": _read_litert,
}
