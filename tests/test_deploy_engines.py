"""Engines: outputs of the Keras model for any batch, from any thread; names, choices, refusals."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from tests.random_weights import Array, outputs, random_model
from zoo.deploy import available_engines, engines, make_engine, predictor
from zoo.deploy.engines import AUTO, ENGINES, OpenVINOEngine, TensorflowEngine
from zoo.deploy.graphs import openvino_core, openvino_graph
from zoo.errors import ExportError, OptionValueError

PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime", "litert": "ai_edge_litert"}
EACH = pytest.mark.parametrize("name", ENGINES[1:])
OTHERS = pytest.mark.parametrize("name", list(PACKAGES))
CLASSES = 7


@cache
def model() -> keras.Model:
    return random_model("test_resnet", num_classes=CLASSES, input_size=32)


@cache
def engine(name: str) -> Any:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    return make_engine(model(), name)


def batch(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(count, 32, 32, 3)).astype("float32")


def assert_close(found: Array, expected: Array, share: float = 1e-5) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=share * expected.std(), rtol=0)


# --- values -------------------------------------------------------------------------------------


@pytest.mark.tensorflow
@EACH
def test_any_batch_size(name: str) -> None:
    assert engine(name).name == name
    assert engine(name).precision == "float32"
    for count in (3, 1, 8, 3):
        assert_close(engine(name)(batch(count)), outputs(model(), batch(count)))


@pytest.mark.tensorflow
@EACH
def test_any_thread(name: str) -> None:
    batches = [batch(1 + seed % 3, seed) for seed in range(24)]
    expected = [outputs(model(), x) for x in batches]
    with ThreadPoolExecutor(8) as pool:
        for found, values in zip(pool.map(engine(name), batches), expected, strict=True):
            assert_close(found, values)


@pytest.mark.tensorflow
@EACH
def test_an_answer_stays_what_it_was(name: str) -> None:
    first = engine(name)(batch(2))
    kept = first.copy()
    engine(name)(batch(2, seed=1))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.tensorflow
@OTHERS
def test_batches_that_are_views(name: str) -> None:
    view = batch(6)[::2, :, ::-1]
    assert_close(engine(name)(view), outputs(model(), view.copy()))


@pytest.mark.tensorflow
def test_models_of_any_image_size() -> None:
    free = zoo.create_model("test_resnet", num_classes=CLASSES, input_size=(None, None))
    free.set_weights(model().get_weights())
    for name in available_engines():
        made = make_engine(free, name)
        for side in (32, 48):
            x = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype("float32")
            assert_close(made(x), outputs(free, x))


@pytest.mark.tensorflow
def test_bfloat16() -> None:
    pytest.importorskip("openvino")
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("the processor has no bfloat16")
    made = make_engine(model(), precision="bfloat16")
    assert repr(made) == "<engine openvino, bfloat16>"
    expected = outputs(model(), batch(8))
    found = made(batch(8))
    assert_close(found, expected, 0.1)  # 8 bits of mantissa
    assert np.abs(found - expected).max() > 1e-4 * expected.std()  # else it was float32


@pytest.mark.tensorflow
def test_which_weights() -> None:
    changed = random_model("test_resnet", num_classes=CLASSES, input_size=32)
    before = outputs(changed, batch(2))
    made = {name: make_engine(changed, name) for name in available_engines()}
    changed.set_weights(random_model("test_resnet", 1, num_classes=CLASSES, input_size=32).get_weights())  # fmt: skip # noqa: E501
    after = outputs(changed, batch(2))
    assert np.abs(after - before).max() > 0.1 * before.std()
    for name, each in made.items():
        assert_close(each(batch(2)), after if name == "tensorflow" else before)


def test_keras_itself_on_any_backend() -> None:
    made = make_engine(model(), "tensorflow")
    batches = [batch(1 + seed % 2, seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for found, x in zip(pool.map(made, batches), batches, strict=True):
            assert_close(found, outputs(model(), x))


# --- choices ------------------------------------------------------------------------------------


def test_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_engines()[0] == "tensorflow"
    for package in PACKAGES.values():
        monkeypatch.setitem(sys.modules, package, None)
    assert available_engines() == ("tensorflow",)
    assert isinstance(make_engine(model()), TensorflowEngine)


@pytest.mark.tensorflow
def test_auto_takes_the_first_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise ExportError("no")

    monkeypatch.setattr(engines, "available_engines", lambda: ENGINES[1:])
    made = {name: SimpleNamespace(name=name) for name in AUTO}
    for name in AUTO[:-1]:
        monkeypatch.setitem(engines._MAKERS, name, lambda *_, name=name: made[name])
    for name in AUTO[:-1]:
        assert make_engine(model()) is made[name]
        monkeypatch.setitem(engines._MAKERS, name, refuse)
    assert isinstance(make_engine(model()), TensorflowEngine)


def test_auto_on_a_gpu_is_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "on_cpu", lambda: False)
    assert isinstance(make_engine(model()), TensorflowEngine)


def test_other_floats() -> None:
    mixed = zoo.create_model("test_resnet", num_classes=2, input_size=32, dtype="mixed_bfloat16")
    assert make_engine(mixed).name == "tensorflow"


@pytest.mark.tensorflow
@OTHERS
def test_other_floats_are_refused(name: str) -> None:
    pytest.importorskip(PACKAGES[name])
    mixed = zoo.create_model("test_resnet", num_classes=2, input_size=32, dtype="mixed_bfloat16")
    with pytest.raises(OptionValueError, match=r"compute in float32; .* has layers of bfloat16"):
        make_engine(mixed, name)


@OTHERS
def test_what_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    message = rf'engine="{name}" needs the package `{PACKAGES[name]}`.*keras-zoo\[deploy\]'
    with pytest.raises(OptionValueError, match=message):
        make_engine(model(), name)


@pytest.mark.tensorflow
def test_a_converter_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(OptionValueError, match=r"Converting a model to onnx needs .* `tf2onnx`"):
        make_engine(model(), "onnx")


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        ("tensorrt", "float32", "`engine` must be one of .*; got engine='tensorrt'"),
        ("auto", "float8", "`precision` must be one of .*; got precision='float8'"),
        ("auto", "int8", "For int8 pass what zoo.deploy.quantize returns"),
        ("onnx", "bfloat16", 'precision="bfloat16" needs engine="openvino"; got engine=\'onnx\''),
    ],
)
def test_names_are_checked(name: str, precision: str, message: str) -> None:
    with pytest.raises(OptionValueError, match=message):
        make_engine(model(), name, precision=precision)
    with pytest.raises(OptionValueError, match=message):
        predictor(model(), name, precision)


@pytest.mark.tensorflow
def test_processors_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    none = SimpleNamespace(get_property=lambda *_: ["FP32"])
    monkeypatch.setattr(engines, "openvino_core", lambda: none)
    with pytest.raises(OptionValueError, match="needs a processor with AVX512-BF16 or AMX"):
        OpenVINOEngine(None, "bfloat16")


@pytest.mark.tensorflow
def test_what_no_engine_takes() -> None:
    pytest.importorskip("openvino")
    backbone = zoo.create_backbone("test_resnet", input_size=32)
    with pytest.raises(OptionValueError, match="must have one input and one output"):
        make_engine(backbone, "openvino")


@pytest.mark.tensorflow
def test_what_a_converter_raises_names_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such\noperation")

    monkeypatch.setattr(openvino, "convert_model", fail)
    with pytest.raises(ExportError, match="`test_resnet` cannot be converted to openvino: Runtime"):
        openvino_graph(model())


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="of the other backends")
@OTHERS
def test_other_backends_are_told(name: str) -> None:
    pytest.importorskip(PACKAGES[name])
    with pytest.raises(OptionValueError, match=f"{name} is made from TensorFlow's graph"):
        make_engine(model(), name)


@pytest.mark.tensorflow
def test_openvino_gets_one_output_and_keeps_maps_as_they_lie() -> None:
    """TensorFlow's swish has a gradient whose operation would be an output of its own."""
    pytest.importorskip("openvino")
    swish = random_model("test_efficientnet", num_classes=CLASSES, input_size=32)
    graph = openvino_graph(swish)
    assert len(graph.outputs) == 1
    kinds = [operation.get_type_name() for operation in graph.get_ordered_ops()]
    assert kinds.count("Swish") > 10
    run = openvino_core().compile_model(graph, "CPU").get_runtime_model()
    moved = [op for op in run.get_ops() if op.get_rt_info()["layerType"].astype(str) == "Transpose"]
    assert len(moved) <= 1  # of the images


@pytest.mark.tensorflow
def test_no_tool_reports_to_its_maker(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = pytest.importorskip("openvino_telemetry.utils.sender").TelemetrySender
    from openvino_telemetry import Telemetry

    sent: list[object] = []
    monkeypatch.setattr(sender, "send", lambda *message: sent.append(message))
    monkeypatch.delenv("CI", raising=False)
    # as in a process that has not asked yet
    monkeypatch.setattr(Telemetry, "_SingletonMetaClass__single_instance", None)
    openvino_graph(model())
    assert not sent
    assert "CI" not in os.environ
