"""Batch norms folded: outputs of the untouched model, closed forms, what is left and why."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from tests.random_weights import Array, filled, outputs, random_model, randomise
from zoo.deploy import fuse, fusion_plan
from zoo.errors import OptionValueError
from zoo.record import get_record, load_model, save_model

# One of each family with batch norms, and how many of them stay: those after sums,
# concatenations and poolings.
KEPT = {
    "test_resnet": 0,
    "mobilenetv2_035": 0,
    "mobilenetv3_small_050": 0,
    "test_efficientnet": 0,
    "tf_efficientnetv2_b0": 0,
    "mobilenetv1_100": 0,
    "mobilenetv4_conv_small_035": 0,
    "mnasnet_small": 0,
    "fbnetc_100": 0,
    "spnasnet_100": 0,
    "tinynet_e": 0,
    "lcnet_035": 0,
    "seresnet18": 0,
    "ecaresnet26t": 0,
    "regnetx_002": 0,
    "vgg11_bn": 0,
    "densenet121": 62,
    "inception_v3": 0,
    "inception_resnet_v2": 0,
    "legacy_xception": 0,
    "nasnet_mobile": 4,
}
SIZES = {"inception_v3": 96, "inception_resnet_v2": 96, "vgg11_bn": 64, "nasnet_mobile": 64}
FAST = ("test_resnet", "mobilenetv2_035", "test_efficientnet", "regnetx_002")
FAMILIES = [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in KEPT]
BN = keras.layers.BatchNormalization


def norms(model: keras.Model) -> int:
    return sum(isinstance(layer, BN) for layer in model.layers)


def images(model: keras.Model, count: int = 2) -> Array:
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def assert_same(fused: keras.Model, model: keras.Model, share: float = 1e-5) -> None:
    x = images(model)
    expected = outputs(model, x)
    np.testing.assert_allclose(outputs(fused, x), expected, atol=share * expected.std(), rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family(name: str) -> None:
    model = filled(name, num_classes=11, input_size=SIZES.get(name, 64))  # statistics too
    before = norms(model)
    assert before > 0
    fused, plan = fuse(model), fusion_plan(model)
    assert (len(plan.folded), len(plan.kept)) == (before - KEPT[name], KEPT[name])
    assert norms(fused) == KEPT[name]
    assert len(fused.layers) == len(model.layers) - len(plan.folded)
    assert norms(model) == before  # as it was
    assert_same(fused, model)


def test_every_family_with_batch_norms_is_listed() -> None:
    from zoo.image import FAMILIES as ALL

    without = {"convnext", "vit", "deit", "dinov2", "clip", "siglip", "swin", "swinv2"}
    assert {zoo.model_info(name).family for name in KEPT} == set(ALL) - without


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, True), (True, False)])
def test_a_convolution_in_closed_form(bias: bool, scale: bool, center: bool) -> None:
    inputs = keras.Input((5, 5, 2))
    x = keras.layers.Conv2D(3, 3, use_bias=bias, name="conv")(inputs)
    x = BN(epsilon=0.1, scale=scale, center=center, name="bn")(x)
    model = keras.Model(inputs, x)
    randomise(model)
    kernel, bias_value = fuse(model).get_layer("conv").get_weights()
    kept = model.get_layer("conv").get_weights()
    norm = dict(zip([v.name for v in model.get_layer("bn").weights],
                    model.get_layer("bn").get_weights(), strict=True))  # fmt: skip
    factor = norm.get("gamma", 1) / np.sqrt(norm["moving_variance"] + 0.1)
    np.testing.assert_allclose(kernel, kept[0] * factor, rtol=1e-6)
    shift = norm.get("beta", 0) - norm["moving_mean"] * factor
    np.testing.assert_allclose(
        bias_value, shift + (kept[1] * factor if bias else 0), rtol=1e-5, atol=1e-6
    )


def after(layer: Any, *between: Any) -> keras.Model:
    """An image, a layer, what comes between, a batch norm."""
    x = inputs = keras.Input((6, 6, 4))
    for each in (layer, *between, BN(name="bn")):
        x = each(x)
    model = keras.Model(inputs, x)
    randomise(model)
    return model


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        keras.layers.DepthwiseConv2D(3, padding="same"),
        keras.layers.Conv2D(6, 3, strides=2, padding="same"),
        keras.layers.Conv2D(6, 3, dilation_rate=2, activation="linear"),
        keras.layers.Dense(5),
    ],
    ids=lambda layer: layer.name,
)
def test_layers_that_take_a_batch_norm(layer: Any) -> None:
    model = after(layer)
    fused = fuse(model)
    assert norms(fused) == 0
    assert fused.layers[-1].name == layer.name
    assert_same(fused, model)


@pytest.mark.tensorflow  # on a CPU Keras has grouped convolutions by XLA alone, elsewhere plainly
def test_a_grouped_convolution() -> None:
    model = after(keras.layers.Conv2D(8, 3, groups=2, use_bias=False))
    assert norms(fuse(model)) == 0
    assert_same(fuse(model), model)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ((keras.layers.MaxPooling2D(),), "before them is a layer of type MaxPooling2D"),
        (
            (keras.layers.Conv2D(3, 1, activation="relu"),),
            "the layer before them has an activation",
        ),
        (
            (keras.layers.Conv2D(3, 1), keras.layers.ReLU()),
            "before them is a layer of type ReLU",
        ),
    ],
)
def test_what_stays_and_why(layers: tuple[Any, ...], reason: str) -> None:
    model = after(*layers)
    assert fusion_plan(model).kept == {"bn": reason}
    assert norms(fuse(model)) == 1
    assert_same(fuse(model), model)


def test_other_axes_stay() -> None:
    inputs = keras.Input((6, 6, 4))
    model = keras.Model(inputs, BN(axis=1, name="bn")(keras.layers.Conv2D(3, 1)(inputs)))
    assert fusion_plan(model).kept == {"bn": "they do not normalise the last axis"}


def test_an_operation_before_stays() -> None:
    inputs = keras.Input((6, 6, 4))
    model = keras.Model(inputs, BN(name="bn")(keras.ops.abs(inputs)))
    assert fusion_plan(model).kept == {"bn": "before them is an operation"}


def test_adapters_stay() -> None:
    layer = keras.layers.Conv2D(3, 1)
    model = after(layer)
    layer.enable_lora(1)
    assert fusion_plan(model).kept == {"bn": "the layer before them is quantised or has adapters"}
    assert_same(fuse(model), model)


@pytest.mark.parametrize("where", ["a second consumer", "an output"])
def test_other_consumers(where: str) -> None:
    inputs = keras.Input((6, 6, 4))
    x = keras.layers.Conv2D(4, 1, name="conv")(inputs)
    y = BN(name="bn")(x)
    model = keras.Model(
        inputs, {"sum": x + y} if where == "a second consumer" else {"a": x, "b": y}
    )
    randomise(model)
    assert fusion_plan(model).kept == {"bn": "the layer before them has other consumers too"}
    found, expected = fuse(model)(images(model)), model(images(model))
    for key, value in expected.items():
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(found[key]), keras.ops.convert_to_numpy(value), atol=1e-6
        )


def test_shared_batch_norms_stay() -> None:
    inputs = keras.Input((6, 6, 4))
    shared = BN(name="bn")
    x = shared(keras.layers.Conv2D(4, 1, name="one")(inputs))
    y = shared(keras.layers.Conv2D(4, 1, name="two")(inputs))
    model = keras.Model(inputs, x + y)
    randomise(model)
    assert fusion_plan(model).kept == {"bn": "they are called more than once"}
    assert_same(fuse(model), model)


def test_models_inside() -> None:
    inner = after(keras.layers.Conv2D(4, 1))
    inputs = keras.Input((6, 6, 4))
    outer = keras.Model(inputs, inner(inputs))
    assert fusion_plan(outer).kept == {
        f"{inner.name}/bn": f"they are inside the model `{inner.name}`"
    }
    assert_same(fuse(outer), outer)


def test_sequential_models() -> None:
    model = keras.Sequential(
        [keras.Input((6, 6, 4)), keras.layers.Conv2D(3, 1), BN(), keras.layers.ReLU()]
    )
    randomise(model)
    fused = fuse(model)
    assert norms(fused) == 0
    assert_same(fused, model)


def test_models_without_a_graph() -> None:
    class Plain(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(OptionValueError, match="takes functional and built sequential models"):
        fuse(Plain())
    with pytest.raises(OptionValueError, match="which has no graph of layers"):
        fusion_plan(keras.Sequential([keras.layers.Dense(2)]))


def test_the_record_goes_along_and_files_open(tmp_path: Path) -> None:
    model = random_model("test_resnet", num_classes=5, input_size=32)
    fused = fuse(model)
    assert get_record(fused) == get_record(model)
    save_model(fused, tmp_path / "fused.keras")
    opened = load_model(tmp_path / "fused.keras")
    assert norms(opened) == 0
    assert_same(opened, model)
    assert zoo.preprocessor(fused) == zoo.preprocessor(model)
    with pytest.raises(OptionValueError, match=r"other weights than a test_resnet of its options"):
        zoo.save_pretrained(fused, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_the_plan_reads(caplog: pytest.LogCaptureFixture) -> None:
    model = after(keras.layers.MaxPooling2D())
    assert str(fusion_plan(model)) == (
        "0 of 1 batch norms fold into the layer before them\n"
        "  1 stay, before them is a layer of type MaxPooling2D: bn"
    )
    with caplog.at_level(logging.INFO, logger="zoo"):
        fuse(model)
    assert "0 of 1 batch norms fold" in caplog.text
