"""Models from files: deferred building, every kind of file, keras.applications both ways."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import zoo
from tests.random_weights import Array, outputs, random_model, randomise, values
from tests.test_weights_convert import FEW, RESNET, SMALL, assert_equal_but, load, tensors_of, write
from tests.torch_zip import Storage, contiguous, write_zip
from zoo.blocks import deferred_kernels
from zoo.errors import (
    OptionValueError,
    SourceError,
    UnknownModelError,
    UnknownNameError,
    WeightsMismatchError,
)
from zoo.factory import locate
from zoo.weights.convert import export_tensors, load_tensors


@pytest.fixture
def resnet_file(tmp_path: Path) -> Path:
    return write(tmp_path, tensors_of("test_resnet"))


# --- deferred building --------------------------------------------------------------------------


def kernels(model: keras.Model) -> Iterator[tuple[str, Array]]:
    for name, value in values(model).items():
        if name.endswith("kernel") and not name.startswith("head/"):
            yield name, value


def assert_random(model: keras.Model) -> None:
    for name, kernel in kernels(model):
        assert len(np.unique(kernel)) > kernel.size / 2, name


@FEW
def test_kernels_that_a_checkpoint_fills_are_not_drawn(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, tensors_of(name))
    before: dict[str, Array] = {}

    def watch(model: keras.Model, *args: Any, **options: Any) -> Any:
        before.update(kernels(model))
        return load_tensors(model, *args, **options)

    monkeypatch.setattr("zoo.factory.load_tensors", watch)
    model = zoo.create_model(name, weights=path, input_size=64)
    assert before.keys() == dict(kernels(model)).keys()
    assert not any(kernel.any() for kernel in before.values())
    assert_random(model)
    assert_random(zoo.create_model(name, input_size=64))


@FEW
def test_the_config_names_the_true_initializer(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, tensors_of(name))
    model = zoo.create_model(name, weights=path, **SMALL)
    random = zoo.create_model(name, **SMALL)
    assert model.get_config() == random.get_config()
    config = json.dumps(model.get_config())
    assert config.count('"VarianceScaling"') == len(list(kernels(model)))
    rebuilt = keras.Model.from_config(model.get_config())
    assert_random(rebuilt)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, WeightsMismatchError),
        ({"dtype": "float33"}, OptionValueError),
        ({"classifier_activation": "no such"}, ValueError),
    ],
)
def test_a_failure_leaves_no_deferred_state(
    tmp_path: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    path = write(tmp_path, {**tensors_of("test_resnet"), "neck.weight": np.zeros(3)})
    policy = keras.config.dtype_policy()
    with pytest.raises(error):
        zoo.create_model("test_resnet", weights=path, input_size=64, **options)
    assert keras.config.dtype_policy() == policy
    assert_random(zoo.create_model("test_resnet", **SMALL))


def test_deferring_is_of_the_thread_that_asks(resnet_file: Path) -> None:
    def build(weights: Path | None) -> keras.Model:
        return zoo.create_model("test_resnet", weights=weights, **SMALL)

    with ThreadPoolExecutor(4) as threads, deferred_kernels():
        plain = threads.submit(build, None)
        assert_random(plain.result())
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(build, [resnet_file, None] * 4))
    first = made[0]
    for loaded, random in zip(made[::2], made[1::2], strict=True):
        assert_equal_but(loaded, first)
        assert_random(random)


# --- sources and files --------------------------------------------------------------------------


def write_torch(path: Path, tensors: dict[str, Array]) -> Path:
    storages = {
        key: Storage(str(i), array.ravel()) for i, (key, array) in enumerate(tensors.items())
    }
    state = OrderedDict((key, contiguous(storages[key], a.shape)) for key, a in tensors.items())
    count = Storage("count", np.asarray([7], "int64"))
    state["bn1.num_batches_tracked"] = contiguous(count, ())
    return write_zip(path, state, count, *storages.values())


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The same weights in every kind of file."""
    model = random_model("test_resnet", **SMALL)
    found = {}
    for suffix in ("safetensors", "npz"):
        found[suffix] = tmp_path / f"weights.{suffix}"
        zoo.export_weights(model, found[suffix])
    found["pth"] = write_torch(tmp_path / "weights.pth", tensors_of("test_resnet"))
    for kind, name in (("safetensors", "model.safetensors"), ("pth", "pytorch_model.bin")):
        folder = tmp_path / f"folder of {kind}"
        folder.mkdir()
        (folder / name).write_bytes(found[kind].read_bytes())
        found[folder.name] = folder
    return found


def test_every_kind_of_file(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = random_model("test_resnet", **SMALL)
    for path in files.values():
        made = zoo.create_model("test_resnet", weights=path, input_size=64)
        assert_equal_but(made, expected)
        filled = random_model("test_resnet", seed=1, **SMALL)
        assert zoo.load_weights(filled, path).source == str(path)
        assert_equal_but(filled, expected)
    monkeypatch.setenv("HOME", str(files["npz"].parent))
    for home in ("~/weights.npz", "~/folder of pth"):
        made = zoo.create_model("test_resnet", weights=home, input_size=64)
        assert_equal_but(made, expected)
    url = files["npz"].as_uri()
    assert_equal_but(zoo.create_model("test_resnet", weights=url, input_size=64), expected)


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds none of model\.safetensors, pytorch_model\.bin"):
        zoo.create_model("test_resnet", weights=tmp_path)


def test_a_tag_goes_before_a_file_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("r160_in1k", "default", "own"):
        Path(name).mkdir()
    published = "hf://timm/test_resnet.r160_in1k"
    for tag in ("r160_in1k", "default"):
        info, source = locate("test_resnet", tag)
        assert info is not None
        assert (info.tag, source) == ("r160_in1k", published)
    assert locate("test_resnet", Path("own")) == (None, "own")
    assert locate("test_resnet", "./default") == (None, "./default")
    assert locate("test_resnet", None) == (None, "")
    with pytest.raises(UnknownNameError, match=r"has no weights `r160_in1`\. Did you"):
        locate("test_resnet", "r160_in1")
    for nothing in ("", "missing.npz"):
        with pytest.raises(UnknownNameError, match=f"`test_resnet` has no weights `{nothing}`"):
            locate("test_resnet", nothing)
    with pytest.raises(UnknownNameError, match=r"None are published for it\. A path that e"):
        locate("mobilenetv2_035", "in1k")


def test_half_precision(files: dict[str, Path]) -> None:
    expected = values(random_model("test_resnet", **SMALL))
    model = zoo.create_model("test_resnet", weights=files["npz"], dtype="bfloat16", input_size=64)
    kernel = model.get_layer("stem_conv1").kernel
    assert keras.backend.standardize_dtype(kernel.dtype) == "bfloat16"
    rounded = keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float32"))
    np.testing.assert_allclose(rounded, expected["stem_conv1/kernel"], rtol=2**-8)
    exported = export_tensors(model, RESNET.layouts[0])["conv1.0.weight"]
    assert exported.dtype == np.float32
    np.testing.assert_array_equal(exported, rounded.transpose(3, 2, 0, 1))
    float16 = {key: array.astype("float16") for key, array in tensors_of("test_resnet").items()}
    whole = random_model("test_resnet", seed=1, **SMALL)
    load(whole, float16)
    assert values(whole)["head/bias"].dtype == np.float32
    np.testing.assert_array_equal(values(whole)["head/bias"], float16["fc.bias"])


def test_export_refuses(tmp_path: Path) -> None:
    model = zoo.create_model("test_resnet", **SMALL)
    with pytest.raises(OptionValueError, match="`layout` must be one of timm for test_resnet; got"):
        zoo.export_weights(model, tmp_path / "a.npz", layout="keras")
    with pytest.raises(OptionValueError, match=r"must end in \.safetensors or \.npz; got 'a\.h5'"):
        zoo.export_weights(model, tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []
    foreign = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="foreign")
    with pytest.raises(UnknownModelError, match="`foreign` is no model of the catalog"):
        zoo.export_weights(foreign, tmp_path / "a.npz")
    with pytest.raises(UnknownModelError, match="`foreign` is no model of the catalog"):
        zoo.load_weights(foreign, tmp_path / "a.npz")


# --- keras.applications -------------------------------------------------------------------------

MEAN, VARIANCE = [0.485, 0.456, 0.406], [0.05, 0.06, 0.07]


def keras_b0(size: int) -> keras.Model:
    model = keras.applications.EfficientNetB0(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )
    randomise(model)
    normalization = next(
        layer for layer in model.layers if isinstance(layer, keras.layers.Normalization)
    )
    normalization.set_weights([np.array(MEAN), np.array(VARIANCE), np.array(0)])
    normalization.finalize_state()  # the layer computes with copies
    return model


def write_keras_2(model: keras.Model, path: Path) -> None:
    """The layout of the published files: Keras 2 wrote `layer/leaf:0`, with names of its own."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            names = [f"{layer.name}/{'depthwise_' * depthwise}{v.name}:0" for v in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, variable in zip(names, layer.weights, strict=True):
                group[name] = keras.ops.convert_to_numpy(variable)


@pytest.fixture(scope="module")
def applications(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("applications")
    model = keras_b0(64)
    write_keras_2(model, folder / "keras2.h5")
    model.save(folder / "keras3.h5")
    return {"keras2": folder / "keras2.h5", "keras3": folder / "keras3.h5"}


@pytest.mark.parametrize(("size", "kind"), [(64, "keras2"), (75, "keras2"), (64, "keras3")])
def test_file_of_keras_applications(applications: dict[str, Path], size: int, kind: str) -> None:
    theirs = keras_b0(size)
    ours = zoo.create_model("tf_efficientnet_b0", weights=applications[kind], input_size=size)
    pixels = np.random.default_rng(size).integers(0, 256, (2, size, size, 3)).astype("float32")
    expected = outputs(theirs, pixels)
    normalised = (pixels / 255 - np.array(MEAN)) / np.sqrt(np.array(VARIANCE))
    difference = np.abs(outputs(ours, normalised.astype("float32")) - expected).max()
    assert expected.std() > 0.1
    assert difference <= 1e-4 * expected.std()


def test_the_way_back_to_keras_applications(applications: dict[str, Path], tmp_path: Path) -> None:
    ours = zoo.create_model("tf_efficientnet_b0", weights=applications["keras2"], input_size=64)
    zoo.export_weights(ours, tmp_path / "keras.npz", layout="keras")
    again = random_model("tf_efficientnet_b0", seed=1, **SMALL)
    assert zoo.load_weights(again, tmp_path / "keras.npz").layout == "keras"
    assert_equal_but(again, ours)
    theirs = values(keras_b0(64))
    with np.load(tmp_path / "keras.npz") as exported:
        for key in exported:
            np.testing.assert_array_equal(exported[key], theirs[key.replace(".", "/")], err_msg=key)
        left = {name.partition("/")[0] for name in theirs} - {k.partition(".")[0] for k in exported}
    assert {name.partition("_")[0] for name in left} == {"normalization"}
