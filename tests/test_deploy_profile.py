"""Costs by closed forms, published counts and TensorFlow's own graph; clocks by known sleeps."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from PIL import Image
from rich.console import Console

import zoo
from tests.random_weights import Array
from zoo.deploy import counting, engines, profiling
from zoo.deploy.counting import count_macs, operation_costs, peak_activations, steps, uncounted
from zoo.deploy.profiling import Profile, profile, stage_groups
from zoo.errors import ExportError, OptionValueError

Maker = Callable[[Any], Any]


def graph(make: Maker, shape: tuple[int | None, ...], **options: Any) -> keras.Model:
    inputs = keras.Input(shape, **options)
    return keras.Model(inputs, make(inputs), name="graph")


# --- multiply-accumulates -----------------------------------------------------------------------

CLOSED: dict[str, tuple[Maker, tuple[int, ...], str, int]] = {
    # what, input, kind, multiply-accumulates: outputs * (products in each)
    "convolution": (
        layers.Conv2D(4, 3, strides=2, padding="same"), (8, 8, 3), "convolution", 4 * 4 * 4 * 27,
    ),
    "no padding": (layers.Conv2D(5, (3, 1)), (8, 6, 2), "convolution", 6 * 6 * 5 * 6),
    "dilated": (
        layers.Conv2D(5, 3, dilation_rate=2, padding="same"), (8, 8, 2), "convolution", 64 * 5 * 18,
    ),
    "one axis": (layers.Conv1D(7, 5, padding="same"), (10, 3), "convolution", 10 * 7 * 15),
    "grouped": (
        layers.Conv2D(8, 3, groups=2, padding="same"), (6, 6, 4), "grouped convolution",
        36 * 8 * 9 * 2,
    ),
    "depthwise": (
        layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 3), "depthwise convolution",
        36 * 6 * 9,
    ),
    "separable": (
        layers.SeparableConv2D(5, 3, padding="same"), (8, 8, 3), "separable convolution",
        64 * 3 * 9 + 64 * 5 * 3,
    ),
    # each input value meets the whole kernel
    "transposed": (
        layers.Conv2DTranspose(4, 3, strides=2), (5, 5, 2), "transposed convolution",
        5 * 5 * 2 * 9 * 4,
    ),
    "dense": (layers.Dense(3), (7,), "dense", 21),
    "dense of tokens": (layers.Dense(3), (5, 7), "dense", 5 * 21),
    "einsum": (layers.EinsumDense("abc,cde->abde", (5, 2, 4)), (5, 6), "dense", 5 * 8 * 6),
    # 4 queries and 6 keys of 2 heads with 8 channels: scores, then weighted values
    "product": (
        lambda x: ops.dot_product_attention(x[:, :4], x[:, 4:], x[:, 4:]), (10, 2, 8), "attention",
        2 * (4 * 6 * 2 * 8),
    ),
    # q, k, v of 5 tokens from 12 to 3 * 4, the products, and back to 12
    "layer of attention": (
        lambda x: layers.MultiHeadAttention(3, 4)(x, x), (5, 12), "attention",
        4 * 5 * 12 * 12 + 2 * 5 * 5 * 12,
    ),
    "cross attention": (
        lambda x: layers.MultiHeadAttention(3, 4, value_dim=2)(x[:, :2], x[:, 2:]), (5, 12),
        "attention", (2 + 3) * 12 * 12 + 3 * 12 * 6 + 2 * 6 * 12 + 2 * 3 * (12 + 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name: str) -> None:
    make, shape, kind, expected = CLOSED[name]
    model = graph(make, shape)
    assert count_macs(model) == expected
    assert {cost.kind for cost in operation_costs(model) if cost.macs} == {kind}
    assert uncounted(model) == ()


def test_shared_layers_multiply_twice_and_weigh_once() -> None:
    shared = layers.Dense(4, use_bias=False)
    model = graph(lambda x: shared(shared(x)), (4,))
    assert [cost.macs for cost in operation_costs(model)] == [16, 16]
    assert [cost.params for cost in operation_costs(model)] == [16, 0]


def test_models_inside_a_model_are_opened() -> None:
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(5), layers.Dense(2)])
    model = graph(lambda x: layers.Dense(3)(inner(x)), (6,))
    assert count_macs(model) == 30 + 10 + 6
    assert count_macs(inner) == 40


def test_what_cannot_be_counted_is_named() -> None:
    def make(x: Any) -> Any:
        x = layers.Dense(4, name="known")(layers.LSTM(4, name="lstm")(x))
        return layers.LayerNormalization()(x)

    model = graph(make, (5, 3))
    assert uncounted(model) == ("lstm",)
    product = graph(lambda x: ops.matmul(x, ops.swapaxes(x, 1, 2)), (5, 3))
    assert [name.rstrip("_0123456789") for name in uncounted(product)] == ["matmul"]
    assert uncounted(zoo.create_model("test_vit", input_size=32)) == ()


# GMACs that torchvision 0.29 gives with its weights (`meta["_ops"]`).
PUBLISHED = {
    "resnet18": 1.814,
    "resnet50": 4.089,
    "densenet121": 2.834,
    "vgg16": 15.47,
    "inception_v3": 5.713,
    "mnasnet_100": 0.314,
    "mobilenetv3_small_100": 0.057,
    "mobilenetv3_large_100": 0.217,
    "efficientnet_b0": 0.386,
    "regnety_004": 0.402,
    "convnext_tiny": 4.456,
    "vit_base_patch16_224": 17.564,
    "swin_tiny_patch4_window7_224": 4.491,
    "swin_small_patch4_window7_224": 8.741,
    "swin_base_patch4_window7_224": 15.431,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_index_has_the_published_counts(name: str) -> None:
    assert zoo.model_info(name).macs / 1e9 == pytest.approx(PUBLISHED[name], abs=6e-4)


def tensorflow_macs(model: keras.Model, shape: tuple[int, ...]) -> int:
    """What TensorFlow multiplies for one example, by the shapes in its own graph."""
    import tensorflow as tf

    function = tf.function(lambda x: model(x, training=False))
    total = 0
    for op in function.get_concrete_function(tf.TensorSpec((1, *shape))).graph.get_operations():
        if not op.outputs or op.outputs[0].shape.rank is None:
            continue
        out = math.prod(op.outputs[0].shape)
        if op.type in ("Conv2D", "DepthwiseConv2dNative"):
            height, width, inner, _ = op.inputs[1].shape
            total += out * height * width * (inner if op.type == "Conv2D" else 1)
        elif op.type in ("MatMul", "BatchMatMulV2", "BatchMatMulV3"):
            transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
            total += out * op.inputs[0].shape[-2 if transposed else -1]
        elif op.type == "Einsum":
            terms, result = op.get_attr("equation").decode().split("->")
            sides = {
                axis: side
                for term, tensor in zip(terms.split(","), op.inputs, strict=True)
                for axis, side in zip(term, tensor.shape, strict=True)
            }
            total += math.prod(sides.values())
            assert set(result) <= set(sides)
    return total


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_vit", None),
        ("test_efficientnet", 64),
        pytest.param("swin_tiny_patch4_window7_224", None, marks=pytest.mark.slow),
        pytest.param("swinv2_tiny_window8_256", None, marks=pytest.mark.slow),
    ],
)
def test_tensorflow_multiplies_as_much(name: str, size: int | None) -> None:
    model = zoo.create_model(name, input_size=size)
    assert count_macs(model) == tensorflow_macs(model, model.input_shape[1:])


# --- memory -------------------------------------------------------------------------------------


def conv(width: int, name: str | None = None) -> Any:
    return layers.Conv2D(width, 3, padding="same", name=name)


MAP = 4 * 4 * 4  # bytes of one channel of a 4x4 map in float32


def test_a_chain_holds_two_maps() -> None:
    model = graph(lambda x: conv(1)(conv(3, "wide")(conv(2)(x))), (4, 4, 1))
    found = peak_activations(model)
    assert found.bytes == (2 + 3) * MAP
    assert found.operation == "wide"
    assert peak_activations(model, batch=7).bytes == 7 * found.bytes


def test_a_shortcut_is_held_until_it_is_added() -> None:
    def make(x: Any) -> Any:
        y = conv(2, "first")(x)
        y = conv(2, "second")(y)
        return layers.Add(name="add")([x, y])

    assert peak_activations(graph(make, (4, 4, 2))).bytes == 3 * 2 * MAP
    # without the shortcut: input and first, first and second
    chain = graph(lambda x: conv(2)(conv(2)(x)), (4, 4, 2))
    assert peak_activations(chain).bytes == 2 * 2 * MAP


def test_maps_that_are_joined_late_are_held() -> None:
    def make(x: Any) -> Any:
        maps = [x]
        for i in range(4):
            maps.append(conv(1, f"c{i}")(maps[-1]))
        return layers.Concatenate(name="join")(maps)

    found = peak_activations(graph(make, (4, 4, 1)))
    assert (found.bytes, found.operation) == ((5 + 5) * MAP, "join")


def test_outputs_are_held_to_the_end() -> None:
    inputs = keras.Input((4, 4, 1))
    first = conv(3)(inputs)
    second = conv(1)(first)
    third = conv(4)(second)
    alone = keras.Model(inputs, third)
    both = keras.Model(inputs, [first, third])
    assert peak_activations(alone).bytes == (1 + 4) * MAP
    assert peak_activations(both).bytes == (3 + 1 + 4) * MAP


def test_views_take_no_memory() -> None:
    def make(x: Any) -> Any:
        x = layers.Dropout(0.5)(layers.Reshape((4, 4, 2))(x))
        return layers.Flatten()(x)

    assert peak_activations(graph(make, (16, 2))).bytes == 2 * MAP
    # and their bytes stay held while a view of them is read
    used = graph(lambda x: conv(3)(layers.Reshape((4, 4, 2))(conv(2)(x))), (4, 4, 5))
    assert peak_activations(used).bytes == (5 + 2) * MAP


def test_attention_holds_scores_and_softmax() -> None:
    model = graph(lambda x: ops.dot_product_attention(x, x, x), (10, 2, 8))
    tokens, scores = 10 * 2 * 8 * 4, 2 * 10 * 10 * 4
    assert peak_activations(model, batch=3).bytes == 3 * (2 * tokens + 2 * scores)
    layer = graph(lambda x: layers.MultiHeadAttention(2, 8)(x, x), (10, 16))
    assert peak_activations(layer).bytes == 2 * 10 * 16 * 4 + 2 * scores


def test_windows_are_rows() -> None:
    from zoo.layers import WindowAttention, WindowMerge, WindowPartition

    def make(x: Any) -> Any:
        y = WindowPartition((3, 3), (0, 0))(x)  # a map of 5x7 becomes 2 * 3 windows
        y = layers.Dense(24, use_bias=False, name="qkv")(y)
        y = WindowAttention(2, (3, 3), (0, 0), name="attention")([y, x])
        return WindowMerge((3, 3), (0, 0))([y, x])

    model = graph(make, (5, 7, 8))
    assert [step.rows for step in steps(model)] == [6, 6, 6, 1]
    macs = {cost.name: cost.macs for cost in operation_costs(model)}
    assert macs["qkv"] == 6 * 9 * 8 * 24
    assert macs["attention"] == 6 * 2 * 9 * 9 * 8
    numbers = 5 * 7 * 8 + 6 * 9 * (24 + 8) + 2 * 6 * 2 * 9 * 9  # map, qkv, result, scores twice
    assert peak_activations(model).bytes == 4 * numbers


def test_half_the_bits_are_half_the_bytes() -> None:
    def make(x: Any) -> Any:
        return layers.Conv2D(2, 3, padding="same", dtype="bfloat16")(x)

    model = graph(make, (4, 4, 2), dtype="bfloat16")
    assert peak_activations(model).bytes == 2 * 2 * MAP // 2
    assert [counting.item_bytes(t) for t in ("float32", "float64", "bool", "int8", "uint16")] == [
        4, 8, 1, 1, 2,
    ]  # fmt: skip


def test_a_model_inside_brings_its_own_peak() -> None:
    inner = graph(lambda x: conv(1)(conv(9)(x)), (4, 4, 1))
    outer = graph(lambda x: inner(x), (4, 4, 1))
    assert peak_activations(outer).bytes == peak_activations(inner).bytes == (1 + 9) * MAP


def test_graphs_without_sizes_or_without_a_graph() -> None:
    with pytest.raises(OptionValueError, match=r"must have a fixed input size.*input_size="):
        count_macs(graph(conv(2), (None, None, 3)))

    class Subclassed(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(OptionValueError, match=r"functional or a built sequential.*Subclassed"):
        count_macs(Subclassed())
    with pytest.raises(OptionValueError, match="functional or a built sequential"):
        count_macs(keras.Sequential([layers.Dense(2)]))


# --- stages -------------------------------------------------------------------------------------


def test_stages() -> None:
    few = ["", "stem", "stage1", "stage1", "stage2", "head"]
    assert stage_groups(few) == {
        "": "start", "stem": "stem", "stage1": "stage1", "stage2": "stage2", "head": "head",
    }  # fmt: skip
    many = ["stem", *(f"block{i}" for i in range(1, 13)), "head"]
    groups = stage_groups(many)
    assert list(dict.fromkeys(groups.values())) == [
        "stem", "block1-3", "block4-6", "block7-9", "block10-12", "head",
    ]  # fmt: skip
    assert groups["block9"] == "block7-9"


def test_stages_hold_all_of_the_model() -> None:
    model = zoo.create_model("test_resnet", input_size=32)
    found = profile(model, engines=())
    assert found.stages[0].name in ("start", "stem")
    assert found.stages[-1].name == "head"
    assert sum(stage.params for stage in found.stages) == found.params == model.count_params()
    assert sum(stage.macs for stage in found.stages) == found.macs == count_macs(model)
    assert sum(found.macs_by_kind.values()) == found.macs
    head = found.stages[-1]
    dense = model.get_layer("head")
    assert head.params == dense.count_params()
    assert head.macs == math.prod(dense.kernel.shape)
    assert found.weight_bytes == 4 * found.params
    trainable = sum(math.prod(v.shape) for v in model.trainable_variables)
    assert found.trainable_params == trainable < found.params
    assert (found.latencies, found.stage_engine, found.stages[0].seconds) == ((), "", None)


# --- time ---------------------------------------------------------------------------------------


class Sleeper:
    """An engine whose calls last as long as is said."""

    precision = "int8"

    def __init__(self, name: str, seconds: float, calls: list[str]) -> None:
        self.name, self.seconds, self.calls = name, seconds, calls

    def __call__(self, batch: Array) -> Array:
        self.calls.append(self.name)
        assert batch.shape[1:] == (32, 32, 3)
        assert batch.dtype == np.float32
        time.sleep(self.seconds)
        return np.zeros((len(batch), 10), np.float32)


@pytest.fixture(scope="module")
def tiny() -> keras.Model:
    return zoo.create_model("test_resnet", input_size=32, num_classes=10)


def test_engines_take_turns_and_their_time_is_told(tiny: keras.Model) -> None:
    calls: list[str] = []
    sleepers = [Sleeper("slow", 0.02, calls), Sleeper("fast", 0.004, calls)]
    found = profile(tiny, sleepers, batch=4, seconds=0.2)
    slow, fast = found.latencies
    assert (slow.engine, fast.engine, fast.precision) == ("slow", "fast", "int8")
    assert slow.calls == fast.calls >= profiling.FEWEST
    timed = calls[-2 * slow.calls :]
    assert timed == ["slow", "fast"] * slow.calls
    for latency, expected in ((slow, 0.02), (fast, 0.004)):
        assert expected <= latency.low_s <= latency.median_s <= latency.high_s
        assert latency.median_s < 2.5 * expected
        assert latency.images_per_s == pytest.approx(4 / latency.median_s)
        assert latency.memory_bytes is None  # it was there before
    assert found.stage_engine == ""


def test_stages_are_timed_by_what_each_adds(
    tiny: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = [stage.name for stage in profile(tiny, ()).stages]
    lasting = iter([0.002 * (i + 1) ** 2 for i in range(len(order))])

    def make_engine(model: keras.Model, name: str, *, precision: str) -> Any:
        wait = 0.0 if model is tiny else next(lasting)
        return Sleeper(name, wait, [])

    monkeypatch.setattr(profiling, "make_engine", make_engine)
    found = profile(tiny, ["tensorflow"], seconds=0.05)
    assert found.stage_engine == "tensorflow"
    for i, stage in enumerate(found.stages):
        expected = 0.002 * ((i + 1) ** 2 - i**2)
        assert stage.seconds == pytest.approx(expected, abs=0.004)


@pytest.fixture(scope="module")
def measured(tiny: keras.Model) -> Profile:
    return profile(tiny, ["tensorflow"], batch=2, seconds=0.05)


def test_a_real_engine(measured: Profile) -> None:
    (latency,) = measured.latencies
    assert latency.engine == measured.stage_engine == "tensorflow"
    assert 0 < latency.low_s <= latency.median_s <= latency.high_s
    assert measured.input_shape == (32, 32, 3)
    assert measured.batch == 2
    times = [stage.seconds for stage in measured.stages]
    assert all(seconds is not None and seconds >= 0 for seconds in times)
    assert measured.processor
    assert measured.cores >= 1


def test_json(measured: Profile) -> None:
    data = json.loads(json.dumps(measured.to_json()))
    assert data["params"] == measured.params
    assert data["stages"][-1]["name"] == "head"
    assert data["latencies"][0]["median_s"] == measured.latencies[0].median_s


def test_the_table_says_it_all(measured: Profile) -> None:
    console = Console(width=140)
    with console.capture() as captured:
        console.print(measured)
    text = captured.get()
    for part in (
        "test_resnet, 2 x 32x32x3", f"{measured.params:,}", "convolution", "dense", "stem", "head",
        "tensorflow", "float32", f"{measured.latencies[0].median_s * 1e3:.2f}", "GMACs",
    ):  # fmt: skip
        assert part in text, part


def test_the_picture(measured: Profile, tmp_path: Path) -> None:
    path = tmp_path / "profile.png"
    measured.save_picture(path)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] == 1440
    colours = {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in ("#0072B2", "#009E73")}
    drawn = {tuple(map(int, colour)) for colour in np.unique(pixels.reshape(-1, 3), axis=0)}
    assert colours <= drawn
    with pytest.raises(OptionValueError, match=r"`path` must end in \.png; got 'profile\.svg'"):
        measured.save_picture(tmp_path / "profile.svg")
    assert [each.name for each in tmp_path.iterdir()] == ["profile.png"]


def test_engines_that_nobody_named_may_fail(
    tiny: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:

    def make_engine(model: keras.Model, name: str, *, precision: str) -> Any:
        if name == "onnx":
            raise ExportError("it has no such operation")
        return engines.make_engine(model, name, precision=precision)

    monkeypatch.setattr(profiling, "make_engine", make_engine)
    monkeypatch.setattr(profiling, "available_engines", lambda: ("tensorflow", "onnx"))
    found = profile(tiny, seconds=0.01)
    assert [one.engine for one in found.latencies] == ["tensorflow"]
    assert found.skipped == ("onnx: it has no such operation",)
    with pytest.raises(ExportError, match="no such operation"):
        profile(tiny, ["onnx"], seconds=0.01)


def test_wrong_options(tiny: keras.Model) -> None:
    for options in ({"batch": 0}, {"seconds": -1.0}, {"batch": True}):
        (name,) = options
        with pytest.raises(OptionValueError, match=f"`{name}` must be positive; got {name}="):
            profile(tiny, (), **options)
    with pytest.raises(OptionValueError, match="`engine` must be one of"):
        profile(tiny, ["onyx"])
    with pytest.raises(OptionValueError, match="fixed input size"):
        profile(zoo.create_model("test_resnet", input_size=(None, None)), ())
    assert profile("test_resnet", ()).model == "test_resnet"


# --- command ------------------------------------------------------------------------------------


def run_command(*arguments: str) -> tuple[int, str]:
    from typer.testing import CliRunner

    from recipes.cli import app

    done = CliRunner().invoke(app, ["profile", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_the_command(tmp_path: Path, tiny: keras.Model) -> None:
    quick = ("--engine", "tensorflow", "--seconds", "0.01")
    out = tmp_path / "cost.png"
    code, text = run_command("test_resnet", "--image-size", "32", "--out", str(out), *quick)
    assert code == 0
    assert "test_resnet, 1 x 32x32x3" in text
    assert out.stat().st_size > 10_000
    zoo.record.save_model(tiny, tmp_path / "tiny.keras")
    code, text = run_command(str(tmp_path / "tiny.keras"), "--batch", "2", "--json", *quick)
    data = json.loads(text)
    assert (data["batch"], data["params"]) == (2, tiny.count_params())
    with pytest.raises(OptionValueError, match="`--image-size` is for names of the catalog"):
        run_command(str(tmp_path / "tiny.keras"), "--image-size", "64")
    with pytest.raises(OptionValueError, match=r"`--out` must end in \.png; got 'cost\.svg'"):
        run_command("test_resnet", "--out", "cost.svg")
