"""Freezing, heads and layer-wise rates: what trains, at which rate, and what a file keeps of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from tests.fill import noise
from tests.finetune_model import named_model
from tests.random_weights import outputs, random_model, values
from tests.test_models import PYTHONPATH, QUICK
from zoo.errors import OptionValueError
from zoo.finetune import (
    add_lora,
    freeze,
    last_stages,
    layer_decay,
    layer_depths,
    layer_stages,
    replace_head,
    unfreeze,
)
from zoo.record import get_record, save_model, set_record
from zoo.weights.convert import slots
from zoo.weights.loading import family_of

DEPTHS = Path(__file__).with_name("layer_decay.json")
DEEP = ("densenet121", "inception_resnet_v2", "nasnet_mobile", "vgg11")  # seconds to build
ONE = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in DEEP else n for n in QUICK]
)


def model(name: str = "test_resnet") -> keras.Model:
    return zoo.create_model(name, num_classes=3, input_size=64)


def names(trained: keras.Model) -> set[str]:
    return {v.path.partition("/")[0] for v in trained.trainable_variables}


def predictor(opened: Any) -> Any:
    return zoo.deploy.predictor(opened, engine="tensorflow")  # the quickest to make


def numbers(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable))


# --- freezing -----------------------------------------------------------------------------------


def test_the_package_is_light() -> None:
    code = "import zoo, zoo.finetune, sys; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**PYTHONPATH})
    assert sorted(zoo.finetune.__all__) == sorted(zoo.finetune._LAZY)
    for name in zoo.finetune.__all__:
        assert getattr(zoo.finetune, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = zoo.finetune.no_such_name


def test_by_default_only_the_head_trains() -> None:
    net = model()
    report = freeze(net)
    assert names(net) == {"head"}
    assert report.trainable == sum(
        int(np.prod(v.shape)) for v in net.get_layer("head").trainable_variables
    )
    assert report.trainable + report.frozen == net.count_params()
    assert "parameters train" in str(report)


@pytest.mark.parametrize(
    "parts", [last_stages, lambda *_: 2, lambda *_: ("stage3", "stage4", "head")]
)
def test_stages_come_back_without_their_batch_norms(parts: Any) -> None:
    net = model()
    freeze(net)
    unfreeze(net, parts(net, 2))
    kept = names(net)
    assert kept == {
        layer.name
        for layer in net.layers
        if layer.name.startswith(("stage3_", "stage4_", "head"))
        and layer.weights
        and not isinstance(layer, keras.layers.BatchNormalization)
    }
    unfreeze(net, batch_norm=True)
    assert len(net.trainable_variables) == len(model().trainable_variables)


def test_a_number_freezes_from_the_stem() -> None:
    net = model()
    freeze(net, 2)
    assert not any(name.startswith(("stem", "stage1_", "stage2_")) for name in names(net))
    assert {"stage3_block1_conv1", "stage4_block1_bn1", "head"} <= names(net)
    only = model()
    freeze(only, "stage1")
    assert "stage1_block1_conv1" not in names(only)
    assert "stem_conv1" in names(only)


def test_transformers_have_stages_too() -> None:
    """Quarters of the depth, as the backbone's maps; 6 blocks make stages of 1, 2, 1 and 2."""
    net = zoo.create_model("test_vit", num_classes=3)
    stages = layer_stages(net)
    blocks = {f"block{j}": stages[f"block{j}_qkv"] for j in range(1, 7)}
    assert list(blocks.values()) == ["stage1", "stage2", "stage2", "stage3", "stage4", "stage4"]
    freeze(net)
    unfreeze(net, last_stages(net, 1))
    found = {name.partition("_")[0] for name in names(net)}
    assert found == {"block5", "block6", "norm", "head"}
    unfreeze(net, 1)
    assert {name.partition("_")[0] for name in names(net)} == found


def test_frozen_batch_norms_keep_their_statistics() -> None:
    net = model()
    freeze(net)
    unfreeze(net)
    before = [numbers(v) for v in net.non_trainable_variables]
    net(noise((4, 64, 64, 3)) + 1, training=True)
    after = [numbers(v) for v in net.non_trainable_variables]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    moving = model()
    start = numbers(moving.non_trainable_variables[0])
    moving(noise((4, 64, 64, 3)) + 1, training=True)
    assert not np.array_equal(start, numbers(moving.non_trainable_variables[0]))


def test_layers_of_nested_models_are_reached() -> None:
    inner = model()
    inputs = keras.Input((64, 64, 3))
    outer = keras.Model(inputs, inner(inputs))
    freeze(outer, "")
    assert not outer.trainable_variables
    inner.trainable = False  # as a user closes a whole part
    unfreeze(outer, "stage4")
    assert names(outer) == {n for n in names(outer) if n.startswith("stage4_") and "_bn" not in n}
    assert names(outer)
    statistics = [numbers(v) for v in inner.non_trainable_variables]
    outer(noise((4, 64, 64, 3)) + 1, training=True)
    for before, after in zip(statistics, inner.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(before, numbers(after))


def test_parts_that_match_nothing_are_errors() -> None:
    with pytest.raises(OptionValueError, match="`parts` must match a layer with weights"):
        freeze(model(), "blocks.0")
    with pytest.raises(OptionValueError, match="`count` must be from 1 to the model's 4 stages"):
        last_stages(model(), 5)
    with pytest.raises(OptionValueError, match="4 stages; got count=0"):
        freeze(model(), 0)
    with pytest.raises(OptionValueError, match=r"among stem, stage1, .*, head; got 'stage7'"):
        unfreeze(model(), ("stage4", "stage7"))


# --- every family ----------------------------------------------------------------------------


@ONE
def test_every_family_has_depths_heads_and_kernels_for_factors(name: str) -> None:
    net = zoo.create_model(name, num_classes=7, dropout=0.1)
    check_places(net)
    check_new_heads(net)
    check_factors(net)


@ONE
@pytest.mark.slow
def test_stages_are_those_of_the_backbone(name: str) -> None:
    stages = set(layer_stages(zoo.create_model(name)).values())
    maps = set(zoo.create_backbone(name).output)
    assert stages - {"head"} <= maps
    assert len(maps - stages) <= 1  # Inception's stage1 is named as its stem


def check_places(net: keras.Model) -> None:
    weighted = [layer.name for layer in net.layers if layer.weights]
    depths, stages = layer_depths(net), layer_stages(net)
    assert sorted(depths) == sorted(stages) == sorted(weighted)
    deepest = max(depths.values())
    assert sorted(set(depths.values())) == list(range(deepest + 1))
    assert depths["head"] == deepest > 4
    assert [n for n, d in depths.items() if d == deepest] in (["head"], ["head", "head_dist"])
    assert all(depths[n] == 0 for n in weighted if n.startswith("stem"))


def check_new_heads(net: keras.Model) -> None:
    renewed = replace_head(net, 3, dropout=0.4, class_names=("a", "b", "c"))
    assert renewed.output_shape == (None, 3)
    heads = {layer.name for layer in net.layers if layer.name in ("head", "head_dist")}
    ours = {layer.name: layer for layer in renewed.layers}
    for layer in net.layers:
        if layer.weights and layer.name not in heads:
            assert ours[layer.name] is layer
    assert all(ours[n].kernel.shape[-1] == 3 for n in heads)
    assert ours["head_dropout"].rate == 0.4
    assert replace_head(net, 3).get_layer("head_dropout").rate == 0.1
    bare = {layer.name for layer in replace_head(net, 3, dropout=0).layers}
    assert not bare & {"head_dropout", "head_dist_dropout"}
    record = get_record(renewed)
    assert record is not None
    assert record.options["num_classes"] == 3
    assert record.class_names == ("a", "b", "c")


def check_factors(net: keras.Model) -> None:
    report = add_lora(net, rank=4)
    layers = {layer.name: layer for layer in net.layers}
    for left in report.left_out:
        layer = layers[left]
        grouped = hasattr(layer, "depth_multiplier") or getattr(layer, "groups", 1) > 1
        shape = layer.kernel.shape
        assert grouped or min(np.prod(shape[:-1]), shape[-1]) <= 4
    with_kernel = {n for n, x in layers.items() if x.weights and hasattr(x, "kernel")}
    with_kernel -= {"head", "head_dist"}
    assert set(report.layers) | set(report.left_out) == with_kernel
    assert report.factors < 0.25 * net.count_params()


# --- heads --------------------------------------------------------------------------------------


def test_the_trunk_sees_the_same_and_the_file_knows_the_names(tmp_path: Path) -> None:
    net = random_model("test_vit", num_classes=1000)
    renewed = replace_head(net, 3, class_names=("x", "y", "z"))
    x = noise((2, 160, 160, 3))
    trunks = [keras.Model(m.input, m.get_layer("head").input) for m in (net, renewed)]
    before, after = (outputs(trunk, x) for trunk in trunks)
    np.testing.assert_array_equal(before, after)
    save_model(renewed, tmp_path / "m.keras")
    image = np.zeros((160, 160, 3), np.uint8)
    (guesses,) = predictor(tmp_path / "m.keras").classify(image)
    assert {g.name for g in guesses} == {"x", "y", "z"}
    zoo.save_pretrained(renewed, tmp_path / "folder")
    again = zoo.from_pretrained(tmp_path / "folder")
    np.testing.assert_allclose(outputs(again, x), outputs(renewed, x), rtol=1e-5, atol=1e-6)
    assert predictor(again).class_names == ("x", "y", "z")


def test_other_classes_do_not_get_the_names_of_the_weights() -> None:
    net = zoo.create_model("test_resnet")
    record = get_record(net)
    assert record is not None
    info = zoo.catalog.weights_info("resnet18", "default")
    assert info.labels == "imagenet1k"
    set_record(net, replace(record, weights=info))
    assert predictor(net).class_names[0] == "tench"
    renewed = replace_head(net, 1000)  # as many, but others
    assert predictor(renewed).class_names[0] == "0"


def test_heads_that_cannot_be_replaced() -> None:
    with pytest.raises(OptionValueError, match="`model` must end in a layer `head`; got test_res"):
        replace_head(zoo.create_model("test_resnet", num_classes=0), 3)
    with pytest.raises(OptionValueError, match="which ends in feature maps"):
        replace_head(zoo.create_backbone("test_resnet"), 3)
    with pytest.raises(OptionValueError, match="`num_classes` must be at least 1; got"):
        replace_head(model(), 0)
    with pytest.raises(OptionValueError, match=r"`dropout` must be in \[0, 1\); got dropout=1"):
        replace_head(model(), 2, dropout=1.0)
    with pytest.raises(OptionValueError, match="`class_names` must be 2 names"):
        replace_head(model(), 2, class_names=("a",))


# --- layer decay --------------------------------------------------------------------------------

# Where timm's depth is another: it counts every layer after the blocks that its expressions do not
# name to the classifier, which is new; ours are pretrained and go with the last block.
DIFFERING = {"convnext_tiny": {"head_norm": (19, 18)}}
REFERENCES = {
    "resnet50": 17,
    "vit_small_patch16_224": 13,
    "convnext_tiny": 19,
    "efficientnet_b0": 17,
    "swin_tiny_patch4_window7_224": 13,
    "deit_tiny_distilled_patch16_224": 13,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_depths_are_timms(name: str) -> None:
    recorded = json.loads(DEPTHS.read_text("utf-8"))["depths"][name]
    net = zoo.create_model(name)
    ours = layer_depths(net)
    assert max(ours.values()) == REFERENCES[name]
    theirs: dict[str, set[int]] = {}
    for slot in slots(net, family_of(net).layouts[0]):
        if slot.key in recorded:  # buffers have no rate
            theirs.setdefault(slot.layer.name, set()).add(recorded[slot.key])
    assert set(theirs) == set(ours)
    differing = {n: (min(d), ours[n]) for n, d in theirs.items() if d != {ours[n]}}
    assert differing == DIFFERING.get(name, {})


def step(net: keras.Model, optimizer: Any) -> dict[str, np.ndarray]:
    """What one step with a gradient of one everywhere takes off every variable."""
    variables = net.trainable_variables
    before = [numbers(v) for v in variables]
    optimizer.apply([keras.ops.ones_like(v) for v in variables], variables)
    return {v.path: old - numbers(v) for v, old in zip(variables, before, strict=True)}


@pytest.mark.parametrize("schedule", ["constant", "cosine", "warm-up", "polynomial", "steps"])
def test_a_step_of_sgd_is_the_closed_form(schedule: str) -> None:
    net = model()
    for v in net.trainable_variables:
        v.assign(keras.ops.zeros_like(v))
    schedules = keras.optimizers.schedules
    rate = {
        "constant": 0.5,
        "cosine": schedules.CosineDecay(0.5, 10),
        "warm-up": schedules.CosineDecay(0.5, 10, warmup_target=2.0, warmup_steps=4),
        "polynomial": schedules.PolynomialDecay(0.5, 10, 0.1),
        "steps": schedules.PiecewiseConstantDecay([3], [0.5, 0.1]),
    }[schedule]
    optimizer = layer_decay(net, keras.optimizers.SGD(rate), 0.7)
    depths = layer_depths(net)
    deepest = max(depths.values())
    for path, taken in step(net, optimizer).items():
        expected = 0.5 * 0.7 ** (deepest - depths[path.partition("/")[0]])
        np.testing.assert_allclose(taken, expected, rtol=1e-5, err_msg=path)
    if schedule == "constant":
        return
    for _ in range(4):
        last = step(net, optimizer)
    now = float(keras.ops.convert_to_numpy(rate(4)))
    np.testing.assert_allclose(last["head/kernel"], now, rtol=1e-4)
    np.testing.assert_allclose(last["stem_conv1/kernel"], now * 0.7**deepest, rtol=1e-3)


def test_weight_decay_falls_too_and_its_exclusions_stay() -> None:
    net = random_model("test_resnet", num_classes=3, input_size=64)
    plain = keras.optimizers.AdamW(0.1, weight_decay=0.5, epsilon=1e-12)
    plain.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    weights = {v.path: numbers(v) for v in net.trainable_variables}
    optimizer = layer_decay(net, plain, 0.8)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    depths = layer_depths(net)
    for path, taken in step(net, again).items():
        rate = 0.1 * 0.8 ** (max(depths.values()) - depths[path.partition("/")[0]])
        decay = 0.0 if path.endswith(("bias", "gamma", "beta")) else 0.5
        np.testing.assert_allclose(taken, rate * (1 + decay * weights[path]), rtol=2e-3, atol=1e-5)


def test_what_layer_decay_refuses() -> None:
    net, sgd = model(), keras.optimizers.SGD
    cases: list[tuple[Any, float, str]] = [
        (sgd(0.1), 0.0, r"`rate` must be in \(0, 1\]; got rate=0.0"),
        (sgd(0.1), 1.5, r"`rate` must be in \(0, 1\]"),
        (sgd(0.1, global_clipnorm=1.0), 0.9, "must not clip the global norm"),
        (layer_decay(net, sgd(0.1), 0.9), 0.9, "which wraps others"),
        (sgd(lambda: 0.1), 0.9, "got a function"),
        (sgd(Flat()), 0.9, "`optimizer` must have a schedule among CosineDecay"),
    ]
    for optimizer, rate, message in cases:
        with pytest.raises(OptionValueError, match=message):
            layer_decay(net, optimizer, rate)
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(OptionValueError, match="`model` must have the catalog's layer names"):
        layer_decay(other, sgd(0.1), 0.9)


class Flat(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step: Any) -> Any:
        return 0.1


FRESH = """
import json, sys
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
assert "zoo" not in sys.modules
data = np.load(sys.argv[2])
variables = model.optimizer.variables
assert all(np.isfinite(np.asarray(v)).all() for v in variables)
iterations = [int(np.asarray(o.iterations)) for o in model.optimizer.optimizers if o.built]
loss = float(np.asarray(model.train_on_batch(data["x"], data["y"])))
head = np.asarray(model.get_layer("head").kernel)
stem = np.asarray(model.get_layer("stem_conv").kernel)
np.savez(sys.argv[3], head=head, stem=stem)
print(json.dumps([loss, iterations]))
"""


@pytest.mark.tensorflow
def test_training_goes_on_from_a_file_in_a_process_without_zoo(tmp_path: Path) -> None:
    net = named_model()
    freeze(net, "")
    unfreeze(net)
    decayed = layer_decay(net, keras.optimizers.AdamW(1e-2, weight_decay=1e-2, clipnorm=1.0), 0.5)
    net.compile(decayed, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = noise((4, 8, 8, 3)), np.array([0, 1, 2, 0])
    for _ in range(2):
        net.train_on_batch(x, y)
    net.save(tmp_path / "m.keras")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    loss = float(net.train_on_batch(x, y))
    files = [str(tmp_path / f) for f in ("m.keras", "data.npz", "out.npz")]
    child = subprocess.run(
        [sys.executable, "-c", FRESH, *files], capture_output=True, text=True, cwd=tmp_path
    )
    assert child.returncode == 0, child.stderr[-2000:]
    there, iterations = json.loads(child.stdout.splitlines()[-1])
    assert there == pytest.approx(loss, rel=1e-5)
    assert set(iterations) == {2}
    found = np.load(tmp_path / "out.npz")
    now = values(net)
    np.testing.assert_allclose(found["head"], now["head/kernel"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["stem"], now["stem_conv/kernel"], rtol=1e-5, atol=1e-7)
