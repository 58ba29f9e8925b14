"""Layouts, axis orders, adapted stems and heads, strictness of the conversion."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from tests.fill import fingerprint
from tests.random_weights import (
    Array,
    golden,
    named_variables,
    outputs,
    random_model,
    randomise,
    values,
)
from tests.test_models import EACH, variant
from zoo.blocks import NormConfig, batch_norm, conv, deferred_kernels, depthwise_conv
from zoo.errors import (
    OptionValueError,
    WeightsMismatchError,
)
from zoo.record import get_record
from zoo.spec import Layout
from zoo.weights.convert import (
    adapt_stem,
    checkpoint_classes,
    export_tensors,
    load_tensors,
    slots,
)

SMALL: dict[str, Any] = {"input_size": 64, "num_classes": 10}
RESNET = variant("test_resnet")[0]
EFFICIENTNET = variant("test_efficientnet")[0]
LAYOUTS = [("test_resnet", "timm"), ("mobilenetv2_035", "timm"), ("mobilenetv3_small_050", "timm")]
LAYOUTS += [("test_efficientnet", layout.name) for layout in EFFICIENTNET.layouts]
FEW = pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
HEADS = pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050"]
)
ALL_LAYOUTS = pytest.mark.parametrize(("name", "layout"), LAYOUTS)


def layout_of(name: str, layout: str) -> Layout:
    return next(found for found in variant(name)[0].layouts if found.name == layout)


@cache
def tensors_of(name: str, layout: str = "timm", classes: int = 10) -> dict[str, Array]:
    """A random checkpoint; do not write into it."""
    model = random_model(name, input_size=64, num_classes=classes)
    return export_tensors(model, layout_of(name, layout))


def load(model: keras.Model, tensors: dict[str, Array], **options: Any) -> Any:
    family = variant(model.name)[0]
    return load_tensors(model, family, tensors, source="a file", **options)


def write(tmp_path: Path, tensors: dict[str, Array], name: str = "weights.npz") -> Path:
    path = tmp_path / name
    np.savez(path, **tensors)  # type: ignore[arg-type]
    return path


@pytest.fixture
def resnet_file(tmp_path: Path) -> Path:
    return write(tmp_path, tensors_of("test_resnet"))


def assert_equal_but(model: keras.Model, other: keras.Model, *changed: str) -> None:
    """Every variable is bit-equal, except those named."""
    theirs = values(other)
    for name, value in values(model).items():
        if name not in changed:
            np.testing.assert_array_equal(value, theirs[name], err_msg=name)


# --- layouts ------------------------------------------------------------------------------------


def without_values(build: Any, *args: Any, **options: Any) -> keras.Model:
    """Builds a graph whose variables have shapes and no values: the largest takes a second."""
    with keras.StatelessScope(initialize_variables=False):
        return build(*args, **options)


def shapes(model: keras.Model, layout: Layout) -> dict[str, tuple[int, ...]]:
    return {
        slot.key: tuple(slot.write(np.broadcast_to(np.float32(0), slot.shape)).shape)
        for slot in slots(model, layout)
    }


@EACH
def test_every_layout_names_every_variable_once(name: str) -> None:
    family, _ = variant(name)
    model = without_values(zoo.create_model, name)
    for layout in family.layouts:
        named = shapes(model, layout)
        assert len(named) == len(model.variables)
        assert len({key.rpartition(".")[0] for key in named}) < len(named)
        layers = [layer.name for layer in model.layers]
        assert len(set(layout.module_names(layers).values())) == len(layers)
    timm = shapes(model, family.layouts[0])  # timm's own names and shapes were recorded
    assert fingerprint(timm.items()) == golden(family.name)[name]["keys"]


@pytest.mark.parametrize(
    "size", ["B0", *(pytest.param(f"B{i}", marks=pytest.mark.slow) for i in range(1, 8))]
)
def test_keras_names_and_shapes_equal_those_of_keras_applications(size: str) -> None:
    theirs = without_values(getattr(keras.applications, f"EfficientNet{size}"), weights=None)
    expected = {
        f"{layer.name}.{v.name}": tuple(v.shape) for layer in theirs.layers for v in layer.weights
    }
    name = f"tf_efficientnet_{size.lower()}"
    ours = shapes(without_values(zoo.create_model, name), layout_of(name, "keras"))
    rest = expected.keys() - ours.keys()
    assert {key: expected[key] for key in ours} == ours
    assert {key.partition(".")[0].partition("_")[0] for key in rest} == {"normalization"}
    assert all(re.search(layout_of(name, "keras").ignored, key) for key in rest)


def lukemelas_names(blocks: int, *, squeeze: bool) -> set[str]:
    """The state dict of efficientnet_pytorch, written down from its source."""
    leaves = ("weight", "bias", "running_mean", "running_var")
    norms = ["_bn0", "_bn1", *(f"_blocks.{i}._bn{j}" for i in range(blocks) for j in (1, 2))]
    norms += [f"_blocks.{i}._bn0" for i in range(1, blocks)]  # the first block does not expand
    convs = ["_conv_stem", "_conv_head", "_fc"]
    for i in range(blocks):
        convs += [f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._project_conv"]
        convs += [f"_blocks.{i}._expand_conv"] * (i > 0)
    names = {f"{norm}.{leaf}" for norm in norms for leaf in leaves}
    names |= {f"{conv}.weight" for conv in convs} | {"_fc.bias"}
    squeezes = {
        f"_blocks.{i}._se_{part}.{leaf}"
        for i in range(blocks)
        for part in ("reduce", "expand")
        for leaf in ("weight", "bias")
    }
    return names | squeezes if squeeze else names


@pytest.mark.parametrize(
    ("name", "blocks", "squeeze"),
    [("efficientnet_b0", 16, True), ("tf_efficientnet_lite0", 16, False)],
)
def test_lukemelas_names(name: str, blocks: int, squeeze: bool) -> None:
    model = without_values(zoo.create_model, name)
    named = shapes(model, layout_of(name, "lukemelas"))
    assert set(named) == lukemelas_names(blocks, squeeze=squeeze)
    # section 4 of the paper: the third stage begins with the fourth block
    assert named["_blocks.3._depthwise_conv.weight"] == (144, 1, 5, 5)


def test_flat_layouts_count_blocks_through_all_stages() -> None:
    layers = ["stem_conv", "stage1_block1_conv", "stage1_block2_conv", "stage2_block1_conv", "head"]
    layout = Layout(name="flat", renames=((r"^block(\d+)_", r"b\1."),), flat=True)
    named = ["stem_conv", "b0.conv", "b1.conv", "b2.conv", "head"]
    assert list(layout.module_names(layers).values()) == named


def test_a_layout_must_not_name_two_layers_alike() -> None:
    layout = Layout(name="worn", renames=((r"\d$", ""),))
    with pytest.raises(ValueError, match=r"Layout `worn` names several layers alike: \['a'\]"):
        layout.module_names(["a1", "b1", "a2"])


def test_checkpoint_classes() -> None:
    wide = {"fc.weight": np.zeros((7, 512)), "conv1.weight": np.zeros((64, 3, 7, 7))}
    assert checkpoint_classes(RESNET, wide) == 7
    assert checkpoint_classes(RESNET, {"conv1.weight": np.zeros((64, 3, 7, 7))}) is None
    for key, shape in (
        ("classifier.weight", (9, 1280)),
        ("predictions.kernel", (1280, 9)),
        ("_fc.weight", (9, 1280)),
    ):
        assert checkpoint_classes(EFFICIENTNET, {key: np.zeros(shape)}) == 9


@ALL_LAYOUTS
def test_round_trip(name: str, layout: str) -> None:
    first = random_model(name, seed=1, **SMALL)
    exported = export_tensors(first, layout_of(name, layout))
    assert {array.dtype for array in exported.values()} == {np.dtype("float32")}
    second = random_model(name, seed=2, **SMALL)
    report = load(second, exported)
    assert_equal_but(second, first)
    assert report.layout == layout
    assert sorted(report.loaded) == sorted(named_variables(first))
    assert (report.missing, report.unexpected, report.adapted) == ((), (), ())
    assert str(report) == f"a file: {len(exported)} loaded, 0 adapted, 0 missing, 0 unexpected"


# --- axis orders --------------------------------------------------------------------------------


def conv2d(x: Array, w: Array, *, stride: int = 1, groups: int = 1) -> Array:
    """torch's convolution: (B, I, H, W) by (O, I / groups, k, k), padded by k // 2 all round."""
    out, inner, k, _ = w.shape
    x = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    height, width = ((side - k) // stride + 1 for side in x.shape[2:])
    y = np.zeros((len(x), out, height, width))
    for o in range(out):
        start = o // (out // groups) * inner
        for i in range(height):
            for j in range(width):
                patch = x[:, start : start + inner, stride * i :, stride * j :][..., :k, :k]
                y[:, o, i, j] = (patch * w[o]).sum(axis=(1, 2, 3))
    return y


def small_net(inputs: Any) -> keras.Model:
    x = conv(inputs, 6, 3, 2, name="stem_conv", groups=2)
    x = batch_norm(x, NormConfig(epsilon=1e-3), name="stem_bn")
    x = depthwise_conv(x, 5, name="dw_conv")
    x = conv(x, 5, 1, name="point_conv", bias=True)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x), name="net")


@pytest.mark.parametrize("head_shape", [(3, 5), (3, 5, 1, 1)])
def test_axis_orders_are_torchs(head_shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    wanted = {"stem_conv.weight": (6, 2, 3, 3), "stem_bn.weight": (6,), "stem_bn.bias": (6,)}
    wanted |= {"stem_bn.running_mean": (6,), "stem_bn.running_var": (6,)}
    wanted |= {"dw_conv.weight": (6, 1, 5, 5), "point_conv.weight": (5, 6, 1, 1)}
    wanted |= {"point_conv.bias": (5,), "head.weight": head_shape, "head.bias": (3,)}
    t = {key: rng.uniform(0.2, 1.2, shape).astype("float32") for key, shape in wanted.items()}
    x = rng.normal(size=(2, 4, 7, 6)).astype("float32")

    y = conv2d(x, t["stem_conv.weight"], stride=2, groups=2)
    scale, shift, mean, variance = (
        t[f"stem_bn.{leaf}"][:, None, None]
        for leaf in ("weight", "bias", "running_mean", "running_var")
    )
    y = (y - mean) / np.sqrt(variance + 1e-3) * scale + shift
    y = conv2d(y, t["dw_conv.weight"], groups=6)
    y = conv2d(y, t["point_conv.weight"]) + t["point_conv.bias"][:, None, None]
    expected = y.mean(axis=(2, 3)) @ t["head.weight"].reshape(3, 5).T + t["head.bias"]

    model = small_net(keras.Input((7, 6, 4)))
    family = replace(RESNET, layouts=(Layout(name="torch", renames=()),))
    load_tensors(model, family, t, source="torch")
    np.testing.assert_allclose(outputs(model, x.transpose(0, 2, 3, 1)), expected, rtol=1e-4)
    written = export_tensors(model, family.layouts[0])
    for key, array in t.items():
        np.testing.assert_array_equal(written[key], array.reshape(written[key].shape))


# --- stems --------------------------------------------------------------------------------------


def timms_rule(weight: Array, channels: int) -> Array:
    """timm 1.0.31's adapt_input_conv on a (O, 3, h, w) kernel."""
    if channels == 1:
        return np.stack([weight[:, 0] + weight[:, 1] + weight[:, 2]], axis=1)
    repeated = np.concatenate([weight] * math.ceil(channels / 3), axis=1)
    return repeated[:, :channels] * np.float32(3 / channels)


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 6])
def test_adapt_stem(channels: int) -> None:
    weight = np.random.default_rng(channels).normal(size=(8, 3, 7, 7)).astype("float32")
    ours = adapt_stem(weight.transpose(2, 3, 1, 0), channels)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(
        ours.transpose(3, 2, 0, 1), timms_rule(weight, channels), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6])
def test_adapted_stems_keep_the_response(channels: int) -> None:
    """Exactly where every channel counts equally: in the kernel, or in how often it is repeated."""
    rng = np.random.default_rng(0)
    grey = rng.normal(size=(3, 3, 1, 8)).repeat(3, axis=2)
    np.testing.assert_allclose(adapt_stem(grey, channels).sum(axis=2), grey.sum(axis=2))
    colour = rng.normal(size=(3, 3, 3, 8))
    if channels in (1, 3, 6):
        np.testing.assert_allclose(adapt_stem(colour, channels).sum(axis=2), colour.sum(axis=2))


@FEW
def test_pretrained_model_of_grey_images(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, tensors_of(name))
    colour = zoo.create_model(name, weights=path, input_size=64)
    grey = zoo.create_model(name, weights=path, input_size=64, in_channels=1)
    x = np.random.default_rng(0).normal(size=(2, 64, 64, 1)).astype("float32")
    expected = outputs(colour, x.repeat(3, axis=-1))
    np.testing.assert_allclose(outputs(grey, x), expected, atol=1e-4 * expected.std())


@pytest.mark.parametrize("channels", [1, 4])
def test_only_the_stem_is_adapted(resnet_file: Path, channels: int) -> None:
    colour = zoo.create_model("test_resnet", weights=resnet_file, **SMALL)
    other = zoo.create_model("test_resnet", in_channels=channels, **SMALL)
    report = zoo.load_weights(other, resnet_file)
    assert report.adapted == ("stem_conv1/kernel",)
    assert set(report.loaded) == set(named_variables(colour))
    assert_equal_but(other, colour, "stem_conv1/kernel")
    torch = tensors_of("test_resnet")["conv1.0.weight"]
    np.testing.assert_allclose(
        values(other)["stem_conv1/kernel"].transpose(3, 2, 0, 1),
        timms_rule(torch, channels),
        atol=1e-6,
    )


def test_small_stem_of_a_large_kernel_starts_afresh(tmp_path: Path) -> None:
    path = write(tmp_path, tensors_of("resnet18"))
    whole = zoo.create_model("resnet18", weights=path, input_size=64)
    small = zoo.create_model("resnet18", stem="small", **SMALL)
    before = values(small)["stem_conv/kernel"]
    small.get_layer("stem_conv").kernel.assign(np.zeros((3, 3, 3, 64)))
    report = zoo.load_weights(small, path)
    assert report.adapted == ("stem_conv/kernel",)
    assert set(report.loaded) == set(named_variables(whole)) - {"stem_conv/kernel"}
    assert_equal_but(small, whole, "stem_conv/kernel")
    assert values(small)["stem_conv/kernel"].std() == pytest.approx(before.std(), rel=0.1)
    made = zoo.create_model("resnet18", weights=path, stem="small", input_size=64)
    assert values(made)["stem_conv/kernel"].std() == pytest.approx(before.std(), rel=0.1)


@pytest.mark.parametrize("name", ["mobilenetv2_035", "test_resnet"])
def test_small_stem_of_an_equal_kernel_is_loaded(name: str) -> None:
    model = zoo.create_model(name, stem="small", **SMALL)
    report = load(model, tensors_of(name))
    assert (report.adapted, report.missing) == ((), ())
    assert set(report.loaded) == set(named_variables(model))


# --- heads --------------------------------------------------------------------------------------

HEAD = ("head/kernel", "head/bias")


@FEW
def test_head_of_other_classes_is_replaced(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, tensors_of(name))
    whole = zoo.create_model(name, weights=path, input_size=64)
    assert whole.output_shape == (None, 10)  # the checkpoint's
    other = zoo.create_model(name, num_classes=5, input_size=64)
    randomise(other)
    report = zoo.load_weights(other, path)
    assert report.adapted == HEAD
    assert (report.missing, report.unexpected) == ((), ())
    assert set(report.loaded) == set(named_variables(whole)) - set(HEAD)
    made = zoo.create_model(name, weights=path, num_classes=5, input_size=64)
    for model in (other, made):
        assert_equal_but(model, whole, *HEAD)
        kernel = values(model)["head/kernel"]
        assert kernel.std() == pytest.approx(0.01, rel=0.1)
        assert not values(model)["head/bias"].any()
    again = zoo.create_model(name, weights=path, num_classes=5, input_size=64)
    assert not np.array_equal(values(again)["head/kernel"], kernel)


def test_number_of_classes_is_recorded(resnet_file: Path) -> None:
    def recorded(**options: Any) -> Any:
        record = get_record(zoo.create_model("test_resnet", input_size=64, **options))
        assert record is not None
        return record.options["num_classes"]

    assert recorded() == 1000
    assert recorded(weights=resnet_file) == 10
    assert recorded(weights=resnet_file, num_classes=3) == 3


@HEADS
def test_without_a_head(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, tensors_of(name))
    whole = zoo.create_model(name, weights=path, input_size=64)
    pooled = zoo.create_model(name, weights=path, num_classes=0, input_size=64)
    assert_equal_but(pooled, whole)
    assert set(named_variables(whole)) - set(named_variables(pooled)) == set(HEAD)
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    features, head = outputs(pooled, x), values(whole)
    logits = features @ head["head/kernel"] + head["head/bias"]
    np.testing.assert_allclose(outputs(whole, x), logits, atol=1e-4 * logits.std())
    kept = zoo.create_model(name, weights=path, num_classes=0, pool=None, input_size=64)
    assert_equal_but(kept, whole)


@HEADS
def test_checkpoint_without_a_head(name: str, tmp_path: Path) -> None:
    bare = export_tensors(random_model(name, num_classes=0), layout_of(name, "timm"))
    path = write(tmp_path, bare)
    assert zoo.create_model(name, weights=path, input_size=64).output_shape[1] > 10  # features
    model = zoo.create_model(name, input_size=64, num_classes=5)
    report = zoo.load_weights(model, path)
    assert report.missing == HEAD
    tuned = zoo.create_model(name, weights=path, input_size=64, num_classes=5)
    assert values(tuned)["head/kernel"].std() == pytest.approx(0.01, rel=0.1)
    half = dict(tensors_of(name))
    del half[next(key for key in half if key not in bare and key.endswith("weight"))]
    with pytest.raises(WeightsMismatchError, match=r"not in the checkpoint \(1\): head/kernel"):
        load(model, half)


@HEADS
def test_backbone_ignores_the_head_and_is_strict_otherwise(name: str, tmp_path: Path) -> None:
    tensors = tensors_of(name)
    path = write(tmp_path, tensors)
    whole = zoo.create_model(name, weights=path, input_size=64)
    backbone = zoo.create_backbone(name, weights=path, input_size=64)
    assert_equal_but(backbone, whole)
    assert {n for n in named_variables(whole) if n.startswith("stage")} <= set(values(backbone))
    cut = zoo.create_backbone(name, weights=path, stages=["stage2"], input_size=64)
    assert_equal_but(cut, whole)
    with pytest.raises(OptionValueError, match=r"`stages` must be among stem, .*got 'stage9'"):
        zoo.create_backbone(name, weights=path, stages=["stage9"], input_size=64)
    more = write(tmp_path, {**tensors, "neck.weight": np.zeros(3)}, "more.npz")
    with pytest.raises(WeightsMismatchError, match=r"not ours \(1\): neck.weight\."):
        zoo.create_backbone(name, weights=more, input_size=64)
    key = next(key for key in tensors if key.endswith("running_mean"))
    less = write(tmp_path, {k: v for k, v in tensors.items() if k != key}, "less.npz")
    with pytest.raises(WeightsMismatchError, match=rf"\(1\): .*\({re.escape(key)}\)\."):
        zoo.create_backbone(name, weights=less, input_size=64)


# --- strictness ---------------------------------------------------------------------------------


def refusal(model: keras.Model, tensors: dict[str, Array], **options: Any) -> str:
    """The error's message, after looking that nothing was changed."""
    before = values(model)
    with pytest.raises(WeightsMismatchError) as caught:
        load(model, tensors, **options)
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_wrong_architecture_lists_both_sides_in_full(tmp_path: Path) -> None:
    theirs = tensors_of("mobilenetv2_035")
    model = random_model("test_resnet", **SMALL)
    message = refusal(model, theirs)
    ours = {slot.name: slot.key for slot in slots(model, RESNET.layouts[0])}
    shared = theirs.keys() & set(ours.values())
    assert message.startswith("a file does not fit test_resnet. ")
    for name, key in ours.items():
        assert (f"{name} ({key})" in message) == (key not in shared)
    for key in theirs.keys() - shared:
        assert re.search(rf"[ ,]{re.escape(key)}[,.]", message), key
    assert f"Ours, not in the checkpoint ({len(ours) - len(shared)}): " in message
    assert f"In the checkpoint, not ours ({len(theirs) - len(shared)}): " in message
    with pytest.raises(WeightsMismatchError, match="does not fit test_resnet"):
        zoo.create_model("test_resnet", weights=write(tmp_path, theirs))


def test_one_tensor_missing() -> None:
    tensors = dict(tensors_of("test_resnet"))
    del tensors["layer3.0.bn2.running_var"]
    assert refusal(random_model("test_resnet", **SMALL), tensors) == (
        "a file does not fit test_resnet. Ours, not in the checkpoint (1): "
        "stage3_block1_bn2/moving_variance (layer3.0.bn2.running_var). Create the model the "
        "checkpoint was made for, or load what fits with zoo.load_weights(..., strict=False)."
    )


def test_one_tensor_too_many() -> None:
    tensors = {**tensors_of("test_resnet"), "neck.weight": np.zeros(3)}
    message = refusal(random_model("test_resnet", **SMALL), tensors)
    assert "In the checkpoint, not ours (1): neck.weight. " in message
    assert "Ours, not" not in message


def test_counters_of_batch_norm_are_no_weights() -> None:
    tensors = {**tensors_of("test_resnet"), "bn1.num_batches_tracked": np.asarray(7)}
    assert load(random_model("test_resnet", **SMALL), tensors).unexpected == ()


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        (
            "layer2.0.conv1.weight",
            (48, 32, 5, 5),
            "stage2_block1_conv1/kernel (3, 3, 32, 48) <- layer2.0.conv1.weight (5, 5, 32, 48)",
        ),
        (
            "layer2.0.conv1.weight",
            (48, 32),
            "stage2_block1_conv1/kernel (3, 3, 32, 48) <- layer2.0.conv1.weight (48, 32)",
        ),
        (
            "conv1.0.weight",
            (16, 27),
            "stem_conv1/kernel (3, 3, 3, 16) <- conv1.0.weight (16, 27)",
        ),
        ("bn1.bias", (31,), "stem_bn3/beta (32,) <- bn1.bias (31,)"),
        ("bn1.bias", (), "stem_bn3/beta (32,) <- bn1.bias ()"),
        ("fc.weight", (10, 95), "head/kernel (96, 10) <- fc.weight (95, 10)"),
        ("fc.weight", (10, 96, 3, 3), "head/kernel (96, 10) <- fc.weight (10, 96, 3, 3)"),
        ("fc.weight", (960,), "head/kernel (96, 10) <- fc.weight (960,)"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_one_tensor_of_another_shape(
    key: str, shape: tuple[int, ...], expected: str, strict: bool
) -> None:
    tensors = {**tensors_of("test_resnet"), key: np.zeros(shape, "float32")}
    assert refusal(random_model("test_resnet", **SMALL), tensors, strict=strict) == (
        f"a file does not fit test_resnet. Shapes that disagree (ours <- theirs) (1): {expected}. "
        "Create the model the checkpoint was made for."
    )


def test_not_strict_loads_the_rest_and_initialises_what_is_missing() -> None:
    whole = zoo.create_model("test_efficientnet", **SMALL)
    tensors = dict(tensors_of("test_efficientnet"))
    load(whole, tensors)
    gone = ["conv_stem.weight", "blocks.3.0.conv_dw.weight", "blocks.3.0.se.conv_reduce.weight"]
    gone += [f"bn1.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]
    for key in gone:
        del tensors[key]
    tensors["neck.weight"] = np.zeros(3, "float32")
    with deferred_kernels():  # as create_model does: kernels begin as zeros
        model = zoo.create_model("test_efficientnet", **SMALL)
    report = load(model, tensors, strict=False)
    names = {
        "stem_conv/kernel",
        "stage4_block1_inverted_dw_conv/kernel",
        "stage4_block1_inverted_se_reduce/kernel",
        *(f"stem_bn/{leaf}" for leaf in ("gamma", "beta", "moving_mean", "moving_variance")),
    }
    assert set(report.missing) == names
    assert report.unexpected == ("neck.weight",)
    assert_equal_but(model, whole, *names)
    found = values(model)
    for name in names:
        if name.endswith("kernel"):
            assert len(np.unique(found[name])) > found[name].size / 2
    assert [float(found[f"stem_bn/{leaf}"][0]) for leaf in ("gamma", "beta")] == [1, 0]
    assert [found[f"stem_bn/moving_{leaf}"][0] for leaf in ("mean", "variance")] == [0, 1]
