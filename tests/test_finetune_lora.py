"""Low-rank factors: what they change, what they cost, what a file of them holds."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import zoo
from tests.fill import noise
from tests.random_weights import outputs, random_model, values
from zoo.errors import CheckpointError, OptionValueError, SourceError, WeightsMismatchError
from zoo.finetune import (
    add_lora,
    freeze,
    load_adapter,
    merge_lora,
    replace_head,
    save_adapter,
    unfreeze,
)
from zoo.record import get_record, save_model, set_record

CASES = {  # model -> pattern, layers: counted by hand from the configurations
    "test_vit": (r"^block\d+_(qkv|proj)$", 12),
    "test_efficientnet": (r"_project_conv$|^head_conv$", 5),
    "test_resnet": (r"stage[34]_block\d_conv", 5),
}
SIZES = {"test_vit": 160, "test_efficientnet": 64, "test_resnet": 64}


def adapted(name: str, rank: int = 2, **options: Any) -> tuple[keras.Model, Any]:
    net = random_model(name, num_classes=3, input_size=SIZES[name])
    return net, add_lora(net, CASES[name][0], rank, **options)


def predictor(opened: Any) -> Any:
    return zoo.deploy.predictor(opened, engine="tensorflow")  # the quickest to make


def stir(net: keras.Model) -> None:
    """Gives what trains other values, as a training would."""
    rng = np.random.default_rng(1)
    for v in net.trainable_variables:
        v.assign(rng.normal(0, 0.1, tuple(v.shape)).astype("float32"))


@pytest.mark.parametrize("name", CASES)
def test_factors_change_nothing_then_what_the_formula_says(name: str, tmp_path: Path) -> None:
    x = noise((2, SIZES[name], SIZES[name], 3))
    plain = random_model(name, num_classes=3, input_size=SIZES[name])
    net, report = adapted(name, alpha=3.0)
    assert len(report.layers) == CASES[name][1]
    np.testing.assert_allclose(outputs(net, x), outputs(plain, x), rtol=1e-5, atol=1e-6)
    stir(net)
    arrays = {v.path: np.array(keras.ops.convert_to_numpy(v)) for v in net.weights}
    for layer in plain.layers:  # the oracle: the product added by hand
        for v in layer.weights:
            value = arrays[v.path]
            if v.name == "kernel" and layer.name in report.layers:
                a, b = (arrays[f"{layer.name}/lora_kernel_{side}"] for side in "ab")
                value = value + 3.0 / 2 * np.tensordot(a, b, axes=1)
            v.assign(value)
    expected = outputs(plain, x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs(net, x), expected, atol=2e-5 * scale)
    merged = merge_lora(net)
    np.testing.assert_allclose(outputs(merged, x), expected, atol=2e-5 * scale)
    assert [v.path for v in merged.weights] == [v.path for v in plain.weights]
    save_model(merged, tmp_path / "merged.keras")
    with zipfile.ZipFile(tmp_path / "merged.keras") as archive:
        assert b"lora" not in archive.read("config.json")
    assert predictor(tmp_path / "merged.keras").class_names == ("0", "1", "2")


def test_what_trains_is_what_the_report_says() -> None:
    net, report = adapted("test_vit")
    held = {v.path for v in net.trainable_variables}
    assert held == {
        *(f"{name}/lora_kernel_{side}" for name in report.layers for side in "ab"),
        "head/kernel",
        "head/bias",
    }
    width = 64  # 6 blocks of a qkv 64 -> 192 and a projection 64 -> 64, rank 2
    assert report.factors == 6 * 2 * ((width + 3 * width) + (width + width))
    assert report.trainable == report.factors + width * 3 + 3
    assert report.trainable + report.frozen == net.count_params()
    assert "12 layers of rank 2" in str(report)
    freeze(net, "")
    unfreeze(net)  # lets factors learn, never the kernels below them
    assert "block1_qkv/kernel" not in {v.path for v in net.trainable_variables}
    assert "block1_qkv/lora_kernel_a" in {v.path for v in net.trainable_variables}


def test_batch_norms_stand_still_while_factors_learn() -> None:
    net, _ = adapted("test_efficientnet")
    before = values(net)
    net(noise((2, 64, 64, 3)) + 1, training=True)
    for name, value in values(net).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


@pytest.mark.tensorflow
def test_factors_and_head_learn_and_nothing_else() -> None:
    net, report = adapted("test_efficientnet")
    before = values(net)
    net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.fit(noise((8, 64, 64, 3)), np.arange(8) % 3, epochs=2, batch_size=4, verbose=0)
    changed = {
        name for name, value in values(net).items() if not np.array_equal(value, before[name])
    }
    assert changed == {v.path for v in net.trainable_variables}
    assert len(changed) == 2 * len(report.layers) + 2


def test_what_add_lora_refuses() -> None:
    def fresh(name: str = "test_efficientnet") -> keras.Model:
        return zoo.create_model(name, num_classes=3)

    with pytest.raises(OptionValueError, match="must match a dense, convolution or einsum layer"):
        add_lora(fresh(), "attention", 4)
    with pytest.raises(OptionValueError, match="must match a dense, convolution or einsum layer"):
        add_lora(fresh(), "^head$", 2)
    with pytest.raises(OptionValueError, match="one small filter for each channel, with no low"):
        add_lora(fresh(), "stage4", 4)
    with pytest.raises(OptionValueError, match=r"kernel in \d+ groups is as many small ones"):
        add_lora(fresh("regnetx_002"), "stage4_block1_conv2", 4)
    with pytest.raises(OptionValueError, match=r"its kernel \(3, 3, 3, 24\) has rank 24 at most"):
        add_lora(fresh(), "stem_conv", 24)
    with pytest.raises(OptionValueError, match="must be positive; got rank=0"):
        add_lora(fresh(), rank=0)
    with pytest.raises(OptionValueError, match="must be positive; got rank=2, alpha=0"):
        add_lora(fresh(), rank=2, alpha=0)
    net = fresh()
    add_lora(net)
    with pytest.raises(OptionValueError, match="`model` must have no low-rank factors yet"):
        add_lora(net)
    with pytest.raises(OptionValueError, match="`model` must have low-rank factors; test_eff"):
        merge_lora(fresh())
    inputs = keras.Input((8, 8, 4))
    layers = keras.layers
    x = layers.SeparableConv2D(8, 3, name="separable")(inputs)
    odd = keras.Model(inputs, layers.Conv2D(8, 3, kernel_constraint="unit_norm", name="bound")(x))
    with pytest.raises(OptionValueError, match="Keras has no low-rank form of a constrained"):
        add_lora(odd, "bound", 2)


def test_user_models_with_einsum_and_nested_parts() -> None:
    inner_in = keras.Input((5, 8))
    y = keras.layers.MultiHeadAttention(2, 4, name="attention")(inner_in, inner_in)
    inner = keras.Model(inner_in, keras.layers.EinsumDense("abc,cd->abd", (5, 16), name="mix")(y))
    inputs = keras.Input((5, 8))
    flat = keras.layers.Flatten()(inner(inputs))
    net = keras.Model(inputs, keras.layers.Dense(3, name="head")(flat))
    x = noise((2, 5, 8))
    report = add_lora(net, "mix", 2)
    assert report.factors == 2 * (8 + 16)
    stir(net)
    expected = outputs(net, x)
    np.testing.assert_allclose(outputs(merge_lora(net), x), expected, rtol=1e-4, atol=1e-5)


# --- adapters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_gives_the_model_back(name: str, tmp_path: Path) -> None:
    net, report = adapted(name, alpha=5.0)
    record = get_record(net)
    assert record is not None
    set_record(net, replace(record, class_names=("a", "b", "c")))
    stir(net)
    path = tmp_path / "a.safetensors"
    save_adapter(net, path)
    held = sum(array.size for array in load_file(path).values())
    assert held == report.trainable
    assert path.stat().st_size < 4 * held + 8192
    base = random_model(name, num_classes=3, input_size=SIZES[name])
    again = load_adapter(base, path)
    assert again == report
    x = noise((2, SIZES[name], SIZES[name], 3))
    np.testing.assert_array_equal(outputs(base, x), outputs(net, x))
    assert predictor(base).class_names == ("a", "b", "c")
    assert predictor(merge_lora(base)).class_names == ("a", "b", "c")


def test_adapters_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    net, _ = adapted("test_vit")
    stir(net)
    path = tmp_path / "a.safetensors"
    save_adapter(net, path)
    other = random_model("test_resnet", num_classes=3, input_size=64)
    with pytest.raises(WeightsMismatchError, match="model is test_resnet, the adapter of test_vit"):
        load_adapter(other, path)
    wide = random_model("test_vit", num_classes=4)
    before = values(wide)
    said = r"head/kernel: \(64, 4\) in the model, \(64, 3\) in the adapter"
    with pytest.raises(WeightsMismatchError, match=said):
        load_adapter(wide, path)
    for name, value in values(wide).items():
        np.testing.assert_array_equal(value, before[name])
    load_adapter(replace_head(wide, 3), path)
    with pytest.raises(OptionValueError, match="must have no low-rank factors yet"):
        load_adapter(net, path)
    tagged = random_model("test_vit", num_classes=3)
    record, info = get_record(tagged), zoo.catalog.weights_info("resnet18", "default")
    assert record is not None
    set_record(tagged, replace(record, weights=info))
    add_lora(tagged, CASES["test_vit"][0], 2)
    save_adapter(tagged, tmp_path / "tagged.safetensors")
    twin = random_model("test_vit", num_classes=3)
    set_record(twin, replace(record, weights=replace(info, tag="another")))
    with pytest.raises(WeightsMismatchError, match="has the weights another, the adapter belongs"):
        load_adapter(twin, tmp_path / "tagged.safetensors")


def test_files_that_are_no_adapters(tmp_path: Path) -> None:
    net = zoo.create_model("test_vit", num_classes=3)
    with pytest.raises(SourceError, match="There is no adapter at"):
        load_adapter(net, tmp_path / "none.safetensors")
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for name in ("other", "broken"):
        with pytest.raises(CheckpointError, match=r"is no adapter of zoo.finetune.save_adapter"):
            load_adapter(net, tmp_path / f"{name}.safetensors")


def test_what_an_adapter_would_lose_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(OptionValueError, match="`model` must have low-rank factors"):
        save_adapter(zoo.create_model("test_vit", num_classes=3), path)
    net, _ = adapted("test_vit")
    with pytest.raises(OptionValueError, match=r"`path` must end in .safetensors; got 'a.keras'"):
        save_adapter(net, tmp_path / "a.keras")
    unfreeze(net, "^norm$")
    with pytest.raises(OptionValueError, match="norm/gamma and 1 more of test_vit train too"):
        save_adapter(net, path)
    freeze(net, "^norm$")
    net.save_weights(tmp_path / "m.weights.h5")
    net.load_weights(tmp_path / "m.weights.h5")  # Keras merges here, and forgets the factors
    with pytest.raises(OptionValueError, match="those of test_vit are zero"):
        save_adapter(net, path)
    assert not path.exists()


@pytest.mark.tensorflow
def test_a_merged_model_opens_without_zoo(tmp_path: Path) -> None:
    net, _ = adapted("test_efficientnet")
    stir(net)
    x = noise((2, 64, 64, 3))
    merged = merge_lora(net)
    save_model(merged, tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, keras, numpy as np\n"
        "model = keras.models.load_model('m.keras')\n"
        "assert 'zoo' not in sys.modules\n"
        "assert not any(getattr(l, 'lora_enabled', False) for l in model.layers)\n"
        "np.save('y.npy', np.asarray(model(np.load('x.npy'), training=False)))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    expected = outputs(net, x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=2e-5 * scale)
