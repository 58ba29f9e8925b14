"""The contract of every image model in the catalog; by default one variant per family."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from tests.fill import fingerprint, noise
from tests.random_weights import filled, golden, torch_shapes
from tools.make_index import catalog
from zoo.deploy.counting import count_macs
from zoo.errors import OptionError, OptionValueError
from zoo.spec import Family, Variant

PYTHONPATH = {"PYTHONPATH": str(Path(zoo.__file__).parents[1])}
PAIRS = {v.name: (f, v) for f, v in catalog()}
QUICK = (  # one of each family, the smallest
    "test_resnet",
    "mobilenetv2_035",
    "mobilenetv3_small_050",
    "test_efficientnet",
    "tf_efficientnetv2_b0",
    "mobilenetv1_100",
    "mobilenetv4_conv_small_035",
    "mnasnet_small",
    "fbnetc_100",
    "spnasnet_100",
    "tinynet_e",
    "lcnet_035",
    "seresnet18",
    "ecaresnet26t",
    "regnetx_002",
    "vgg11",
    "densenet121",
    "convnext_atto",
    "inception_v3",
    "inception_resnet_v2",
    "legacy_xception",
    "nasnet_mobile",
    "test_vit",
    "deit_tiny_distilled_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_xsmall_patch16_clip_224",
    "vit_base_patch32_siglip_256",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
)
EACH = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in PAIRS]
)
MORE_THAN_ONE_PIXEL = {"vgg11": 256, "inception_v3": 160, "inception_resnet_v2": 160}  # at the end
ONE = pytest.mark.parametrize("name", QUICK)


def variant(name: str) -> tuple[Family, Variant]:
    return PAIRS[name]


def patch(name: str) -> int | None:
    """The stride of all maps of a transformer without stages; None of other families."""
    family, chosen = variant(name)
    return chosen.config.patch if family.features.__module__.endswith(".transformer") else None


def strides(name: str, size: int, maps: Any) -> list[int]:
    """The strides of maps; convolutions without padding make them a little smaller."""
    sides = [m.shape[1] for m in maps]
    if patch(name):
        return [size // side for side in sides]
    return [2 ** round(math.log2(size / side)) for side in sides]


def test_quick_names_cover_every_family() -> None:
    assert {variant(name)[0].name for name in QUICK} == {f.name for f, _ in PAIRS.values()}


@EACH
def test_golden_output(name: str) -> None:
    recorded = golden(variant(name)[0].name)[name]
    assert len(recorded["logits"]) == 2
    for key, expected in recorded["logits"].items():
        sides = [int(side) for side in key.split("x")]
        size = (sides[0], sides[-1])
        model = filled(name, input_size=size)
        assert fingerprint(torch_shapes(model).items()) == recorded["keys"]
        logits = keras.ops.convert_to_numpy(model(noise((1, *size, 3)), training=False))[0]
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


@ONE
def test_the_momentum_of_batch_norms_is_in_keras_sense(name: str) -> None:
    """The share of the old mean that stays; torch counts the new one's, 0.1 in most models."""
    layers = zoo.create_model(name, input_size=96).layers
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(0.9 <= norm.momentum < 1 for norm in norms)
    assert all(norm.epsilon in (1e-5, 1e-3) for norm in norms)


@EACH
def test_feature_names_strides_and_channels(name: str) -> None:
    family, chosen = variant(name)
    size = chosen.input_size if patch(name) else 256
    maps = zoo.create_backbone(name, input_size=size).output
    assert list(maps) == ["stem", *(f"stage{i}" for i in range(1, len(maps)))]
    found = strides(name, size, maps.values())
    assert found == sorted(found)
    assert found[0] in (patch(name) or 2, 4)
    assert found[-1] == (patch(name) or 32)
    small = zoo.create_backbone(name, input_size=size, stem="small").output
    assert strides(name, size, small.values())[-1] == found[-1] // 4
    for stride in (8, 16):
        if not family.dilates:
            with pytest.raises(OptionValueError, match="`output_stride` cannot be chosen for"):
                zoo.create_backbone(name, output_stride=stride)
            continue
        held = zoo.create_backbone(name, input_size=size, output_stride=stride).output
        assert strides(name, size, held.values())[-1] == stride
        assert [m.shape[-1] for m in held.values()] == [m.shape[-1] for m in maps.values()]


@ONE
def test_chosen_stages(name: str) -> None:
    backbone = zoo.create_backbone(name, stages=["stage2", "stage4"], input_size=96)
    assert list(backbone.output) == ["stage2", "stage4"]
    with pytest.raises(
        OptionValueError, match=r"`stages` must be among stem, stage1.*got 'stage9'"
    ):
        zoo.create_backbone(name, stages=["stage9"], input_size=96)
    assert list(zoo.create_backbone(name, stages="stage3", input_size=96).output) == ["stage3"]
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
        output_stride=4 if variant(name)[0].dilates else None,
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
    size = MORE_THAN_ONE_PIXEL.get(name, 96)
    kept = zoo.create_model(name, num_classes=0, pool=None, input_size=size)
    assert len(kept.output_shape) == (3 if patch(name) else 4)
    pooled = {
        pool: random_head(name, pool, size)(noise((2, size, size, 3)), training=False)
        for pool in ("avg", "max")
    }
    assert pooled["avg"].shape == pooled["max"].shape == (2, kept.output_shape[-1])
    assert not np.allclose(pooled["avg"], pooled["max"])


def random_head(name: str, pool: str, size: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    return zoo.create_model(name, num_classes=0, pool=pool, input_size=size)


def test_a_distilled_head_is_the_mean_of_two() -> None:
    name = "deit_tiny_distilled_patch16_224"
    model = filled(name, input_size=96)
    x = noise((2, 96, 96, 3))
    both = keras.Model(model.input, [model.get_layer(n).output for n in ("head", "head_dist")])
    one, other = (keras.ops.convert_to_numpy(y) for y in both(x, training=False))
    assert np.abs(one - other).max() > 0.1
    mean = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(mean, (one + other) / 2, atol=1e-5)
    assert zoo.create_model(name, num_classes=0).output_shape[-1] == 192


@ONE
def test_preprocess_in_the_graph_equals_the_preprocessor(name: str) -> None:
    inside = filled(name, input_size=96, preprocess=True)
    outside = filled(name, input_size=96)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    prepared = zoo.preprocessor(outside)(pixels)
    family = variant(name)[0]
    expected = (pixels / 255 - family.mean) / family.std
    assert prepared.shape == expected.shape
    a = keras.ops.convert_to_numpy(inside(pixels.astype("float32"), training=False))
    b = keras.ops.convert_to_numpy(outside(expected.astype("float32"), training=False))
    np.testing.assert_allclose(a, b, atol=2e-4 * b.std())


@ONE
def test_every_trainable_variable_gets_a_gradient(name: str) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with TensorFlow's tape")
    import tensorflow as tf

    model = zoo.create_model(name, num_classes=3, input_size=96, drop_path=0.1)
    for layer in model.layers:  # residual branches start at nothing, which would stop the gradient
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(keras.ops.ones_like(layer.gamma))
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(model(noise((4, 96, 96, 3)), training=True) ** 2)
    values = [v.value for v in model.trainable_variables]
    gradients = tape.gradient(loss, values)
    assert [
        v.path for v, g in zip(model.trainable_variables, gradients, strict=True) if g is None
    ] == []


@ONE
def test_any_input_size(name: str) -> None:
    model = zoo.create_model(name, input_size=(None, None), num_classes=4)
    assert model(noise((1, 109, 131, 3))).shape == (1, 4)


def is_core(model: keras.Model) -> bool:
    return not any(type(layer).__module__.startswith("zoo") for layer in model.layers)


@pytest.mark.parametrize("core", [True, False])
def test_files_open_in_a_fresh_process(core: bool, tmp_path: Path) -> None:
    """Those of core layers where zoo is absent, the others where it is imported."""
    names = []
    for name in QUICK:
        model = filled(name, input_size=96, num_classes=1000)
        if is_core(model) is not core:
            continue
        names.append(name)
        model.save(tmp_path / f"{name}.keras")
        y = keras.ops.convert_to_numpy(model(noise((1, 96, 96, 3)), training=False))
        np.save(tmp_path / f"{name}.npy", y)
    assert "test_resnet" in names if core else "test_vit" in names
    code = f"""
import sys, numpy as np, keras
{"" if core else "import zoo.layers"}
for name in {names!r}:
    model = keras.saving.load_model(name + ".keras")
    x = np.load("x.npy")
    y = keras.ops.convert_to_numpy(model(x, training=False))
    before = np.load(name + ".npy")
    assert np.abs(y - before).max() <= 1e-4 * before.std(), name
assert ("zoo" in sys.modules) is {not core}
"""
    np.save(tmp_path / "x.npy", noise((1, 96, 96, 3)))
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=tmp_path, env=os.environ | PYTHONPATH
    )


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
