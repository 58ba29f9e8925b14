"""The contract of every image model in the catalog; by default one variant per family."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from tests.fill import fill, fingerprint, noise
from tools.make_index import GOLDEN, catalog, count_macs
from zoo.errors import OptionError, OptionValueError
from zoo.spec import Family, Variant
from zoo.weights.convert import load_tensors, slots

PAIRS = {v.name: (f, v) for f, v in catalog()}
QUICK = ("test_resnet", "mobilenetv2_035", "mobilenetv3_small_050", "test_efficientnet")
EACH = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in PAIRS]
)
ONE = pytest.mark.parametrize("name", QUICK)


def variant(name: str) -> tuple[Family, Variant]:
    return PAIRS[name]


@cache
def golden(family: str) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((GOLDEN / f"{family}.json").read_text("utf-8"))
    return recorded


def torch_shapes(name: str, model: keras.Model) -> dict[str, tuple[int, ...]]:
    family, _ = variant(name)
    return {
        slot.key: slot.write(np.broadcast_to(np.float32(0), slot.shape)).shape
        for slot in slots(model, family.layouts[0])
    }


def filled(name: str, **options: Any) -> keras.Model:
    """A model with the deterministic weights that the golden values were recorded with."""
    model = zoo.create_model(name, **options)
    tensors = {key: fill(key, shape) for key, shape in torch_shapes(name, model).items()}
    load_tensors(model, variant(name)[0], tensors, source="fill")
    return model


def test_quick_names_cover_every_family() -> None:
    assert {variant(name)[0].name for name in QUICK} == {f.name for f, _ in PAIRS.values()}


@EACH
@pytest.mark.parametrize("size", [224, 193])
def test_golden_output(name: str, size: int) -> None:
    recorded = golden(variant(name)[0].name)[name]
    model = filled(name, input_size=size)
    assert fingerprint(torch_shapes(name, model).items()) == recorded["keys"]
    logits = keras.ops.convert_to_numpy(model(noise((1, size, size, 3)), training=False))[0]
    expected = recorded["logits"][str(size)]
    samples = logits[:: len(logits) // 16][:16]
    assert np.abs(samples - expected["samples"]).max() <= 1e-4 * expected["std"]
    assert logits.std() == pytest.approx(expected["std"], rel=1e-4)


@EACH
def test_parameters_equal_the_metadata(name: str) -> None:
    model = zoo.create_model(name)
    info = zoo.model_info(name)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == info.params
    assert count_macs(model) == info.macs
    assert model.input_shape == (None, info.input_size, info.input_size, 3)
    assert model.output_shape == (None, 1000)


@EACH
def test_feature_names_strides_and_channels(name: str) -> None:
    backbone = zoo.create_backbone(name, input_size=64)
    maps = backbone.output
    assert list(maps) == ["stem", *(f"stage{i}" for i in range(1, len(maps)))]
    strides = [64 // m.shape[1] for m in maps.values()]
    assert strides == sorted(strides)
    assert strides[0] == 2
    assert strides[-1] == 32
    for stride in (8, 16):
        held = zoo.create_backbone(name, input_size=64, output_stride=stride)
        assert 64 // list(held.output.values())[-1].shape[1] == stride
        assert [m.shape[-1] for m in held.output.values()] == [m.shape[-1] for m in maps.values()]
    small = zoo.create_backbone(name, input_size=64, stem="small")
    assert 64 // list(small.output.values())[-1].shape[1] == 8


@ONE
def test_chosen_stages(name: str) -> None:
    backbone = zoo.create_backbone(name, stages=["stage2", "stage4"], input_size=64)
    assert list(backbone.output) == ["stage2", "stage4"]
    with pytest.raises(
        OptionValueError, match=r"`stages` must be among stem, stage1.*got 'stage9'"
    ):
        zoo.create_backbone(name, stages=["stage9"], input_size=64)
    assert list(zoo.create_backbone(name, stages="stage3", input_size=64).output) == ["stage3"]
    with pytest.raises(OptionValueError, match="at least one stage"):
        zoo.create_backbone(name, stages=())
    with pytest.raises(OptionValueError, match="no head, so it takes no `num_classes`"):
        zoo.create_backbone(name, num_classes=3)


@ONE
def test_smoke_every_option(name: str) -> None:
    model = zoo.create_model(
        name,
        num_classes=7,
        input_size=(48, 40),
        in_channels=5,
        dropout=0.1,
        drop_path=0.2,
        pool="avgmax" if variant(name)[0].name != "mobilenetv3" else "max",
        classifier_activation="softmax",
        preprocess=True,
        output_stride=4,
        stem="small",
        dtype="mixed_bfloat16",
    )
    y = keras.ops.convert_to_numpy(model(np.full((2, 48, 40, 5), 255, "float32"), training=True))
    assert y.shape == (2, 7)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-5)
    assert model.layers[-1].compute_dtype == "float32"


@ONE
def test_pooling(name: str) -> None:
    kept = zoo.create_model(name, num_classes=0, pool=None, input_size=64)
    assert len(kept.output_shape) == 4
    pooled = {
        pool: filled_head(name, pool)(noise((2, 64, 64, 3)), training=False)
        for pool in ("avg", "max")
    }
    assert pooled["avg"].shape == pooled["max"].shape == (2, kept.output_shape[-1])
    assert not np.allclose(pooled["avg"], pooled["max"])


def filled_head(name: str, pool: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    return zoo.create_model(name, num_classes=0, pool=pool, input_size=64)


@ONE
def test_preprocess_in_the_graph_equals_the_preprocessor(name: str) -> None:
    inside = filled(name, input_size=64, preprocess=True)
    outside = filled(name, input_size=64)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    prepared = zoo.preprocessor(outside)(pixels)
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    family = variant(name)[0]
    assert family.mean == (0.485, 0.456, 0.406)
    assert prepared.shape == expected.shape
    a = keras.ops.convert_to_numpy(inside(pixels.astype("float32"), training=False))
    b = keras.ops.convert_to_numpy(outside(expected.astype("float32"), training=False))
    np.testing.assert_allclose(a, b, atol=2e-4 * b.std())


@ONE
def test_every_trainable_variable_gets_a_gradient(name: str) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with TensorFlow's tape")
    import tensorflow as tf

    model = zoo.create_model(name, num_classes=3, input_size=64, drop_path=0.1)
    for layer in model.layers:  # residual branches start at nothing, which would stop the gradient
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(keras.ops.ones_like(layer.gamma))
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(model(noise((4, 64, 64, 3)), training=True) ** 2)
    values = [v.value for v in model.trainable_variables]
    gradients = tape.gradient(loss, values)
    assert [
        v.path for v, g in zip(model.trainable_variables, gradients, strict=True) if g is None
    ] == []


@ONE
def test_any_input_size(name: str) -> None:
    model = zoo.create_model(name, input_size=(None, None), num_classes=4)
    assert model(noise((1, 57, 91, 3))).shape == (1, 4)


def test_core_layers_open_where_zoo_is_absent(tmp_path: Path) -> None:
    for name in QUICK:
        model = filled(name, input_size=64, num_classes=1000)
        model.save(tmp_path / f"{name}.keras")
        y = keras.ops.convert_to_numpy(model(noise((1, 64, 64, 3)), training=False))
        np.save(tmp_path / f"{name}.npy", y)
    code = f"""
import sys, numpy as np, keras
for name in {QUICK!r}:
    model = keras.saving.load_model(name + ".keras")
    x = np.load("x.npy")
    y = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(y, np.load(name + ".npy"), rtol=1e-4, atol=1e-4)
assert "zoo" not in sys.modules
"""
    np.save(tmp_path / "x.npy", noise((1, 64, 64, 3)))
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": -1}, "`num_classes` must be an integer >= 0; got num_classes=-1"),
        ({"input_size": 0}, "`input_size` must be a positive integer"),
        ({"in_channels": 0}, "`in_channels` must be an integer >= 1"),
        ({"dropout": 1.5}, r"`dropout` must be in \[0, 1\); got dropout=1.5"),
        ({"drop_path": -0.1}, r"`drop_path` must be in \[0, 1\)"),
        ({"pool": "mean"}, "`pool` must be one of"),
        ({"preprocess": 1}, "`preprocess` must be True or False"),
        ({"stem": "tiny"}, "`stem` must be one of"),
        ({"output_stride": 12}, "`output_stride` must be one of"),
        ({"output_stride": 32, "stem": "small"}, "with stem='small'"),
        ({"pool": None}, "needs num_classes=0"),
        ({"dtype": "float33"}, "`dtype` must be a Keras dtype policy"),
    ],
)
def test_option_values_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionValueError, match=message):
        zoo.create_model("test_resnet", **options)


def test_an_unknown_option_names_the_close_ones() -> None:
    with pytest.raises(OptionError, match=r"`num_clases`. Did you mean num_classes\?"):
        zoo.create_model("test_resnet", num_clases=3)
    with pytest.raises(TypeError):
        zoo.models.resnet50(weigths=None)  # type: ignore[call-arg]


def test_the_dtype_policy_is_restored() -> None:
    before = keras.config.dtype_policy()
    zoo.create_model("test_resnet", input_size=64, dtype="mixed_bfloat16")
    assert keras.config.dtype_policy() == before


def test_the_same_seed_gives_the_same_model() -> None:
    outputs = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        model = zoo.create_model("test_resnet", input_size=64)
        outputs.append(keras.ops.convert_to_numpy(model(noise((1, 64, 64, 3)))))
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])
