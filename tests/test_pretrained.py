"""Saved folders and Hugging Face repositories, ours and timm's, through a local hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from safetensors.numpy import save

import zoo
from tests.file_server import serve
from tests.hub import Hub, open_hub
from tests.random_weights import Array, outputs, random_model, values
from tests.test_models import variant
from tests.test_weights_convert import SMALL, assert_equal_but, tensors_of
from zoo.errors import (
    CheckpointError,
    OfflineError,
    OptionError,
    OptionValueError,
    SourceError,
    UnknownModelError,
    WeightsMismatchError,
)
from zoo.record import ModelRecord, get_record, set_record
from zoo.spec import Preprocessing, WeightsInfo
from zoo.weights.convert import export_tensors

REPO = "timm/test_resnet.x"
PRETRAINED_CFG = {
    "tag": "x_in1k",
    "license": "cc-by-nc-4.0",
    "input_size": [3, 160, 160],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.5, 0.125],
    "crop_pct": 0.95,
    "interpolation": "bilinear",
    "num_classes": 1000,
}
TIMM_CONFIG = {"architecture": "test_resnet", "num_classes": 10, "pretrained_cfg": PRETRAINED_CFG}
TIMM_PREPROCESSING = Preprocessing(
    mean=(0.5, 0.4, 0.3),
    std=(0.25, 0.5, 0.125),
    input_size=(160, 160),
    crop=0.95,
    interpolation="bilinear",
)


@pytest.fixture(autouse=True)
def _private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_ZOO_CACHE", str(tmp_path / "cache"))
    for name in ("KERAS_ZOO_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def publish(hub: Hub, config: dict[str, Any] | None = None) -> Hub:
    hub.put("model.safetensors", save(tensors_of("test_resnet")))
    hub.put_small("config.json", json.dumps(config or TIMM_CONFIG).encode())
    return hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as server:
        yield publish(open_hub(server, tmp_path / "hub", monkeypatch, REPO))


def record_of(model: keras.Model) -> ModelRecord:
    record = get_record(model)
    assert record is not None
    return record


def pixels(size: int = 64, channels: int = 3) -> Array:
    return np.random.default_rng(0).integers(0, 256, (2, size, size, channels), dtype=np.uint8)


# --- the hub ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [REPO, f"hf://{REPO}"])
def test_a_repository_of_timms(hub: Hub, name: str) -> None:
    model = zoo.from_pretrained(name)
    assert_equal_but(model, random_model("test_resnet", **SMALL))
    assert model.input_shape == (None, 160, 160, 3)
    assert model.output_shape == (None, 10)
    info = record_of(model).weights
    assert info == WeightsInfo(
        tag="x_in1k",
        source=f"hf://{REPO}",
        license="cc-by-nc-4.0",
        num_classes=10,
        preprocessing=TIMM_PREPROCESSING,
    )
    prepared = zoo.preprocessor(model)(pixels(160))  # floor(160 / 0.95) = 168 px, then the centre
    assert prepared.shape == (2, 160, 160, 3)
    assert zoo.preprocessor(model).preprocessing == TIMM_PREPROCESSING


def test_a_repository_as_weights(hub: Hub) -> None:
    model = zoo.create_model("test_resnet", weights=f"hf://{REPO}", input_size=64)
    assert_equal_but(model, random_model("test_resnet", **SMALL))
    assert zoo.preprocessor(model).preprocessing == TIMM_PREPROCESSING
    backbone = zoo.create_backbone("test_resnet", weights=f"hf://{REPO}", input_size=64)
    assert_equal_but(backbone, model)
    filled = zoo.create_model("test_resnet", **SMALL)
    zoo.load_weights(filled, f"hf://{REPO}")
    assert_equal_but(filled, model)
    assert zoo.preprocessor(filled).preprocessing == TIMM_PREPROCESSING
    inside = zoo.create_model("test_resnet", weights=f"hf://{REPO}", input_size=64, preprocess=True)
    x = (pixels() / 255 - [0.5, 0.4, 0.3]) / [0.25, 0.5, 0.125]
    expected = outputs(model, x.astype("float32"))
    np.testing.assert_allclose(
        outputs(inside, pixels().astype("float32")), expected, atol=1e-4 * expected.std()
    )


def test_published_weights_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as server:
        repo = "timm/test_resnet.r160_in1k"
        hub = publish(open_hub(server, tmp_path / "hub", monkeypatch, repo))
        info = zoo.catalog.weights_info("test_resnet")
        assert info.preprocessing.crop == 0.95
        for name, weights in (
            ("test_resnet", "default"),
            ("test_resnet", "r160_in1k"),
            ("test_resnet.r160_in1k", None),
        ):
            model = zoo.create_model(name, weights=weights, input_size=64)
            assert_equal_but(model, random_model("test_resnet", **SMALL))
            assert record_of(model).weights == info
            assert zoo.preprocessor(model).preprocessing == info.preprocessing
        assert zoo.preprocessor("test_resnet.r160_in1k").preprocessing == info.preprocessing
        assert hub.downloads() == 1  # the catalog knows what config.json says


def test_class_names_of_a_repository(hub: Hub) -> None:
    names = [f"sort {i}" for i in range(10)]
    publish(hub, {**TIMM_CONFIG, "label_names": names})
    assert record_of(zoo.from_pretrained(REPO)).class_names == tuple(names)
    assert record_of(zoo.from_pretrained(REPO, num_classes=3)).class_names == ()


def test_labels_of_imagenet(hub: Hub) -> None:
    publish(hub, {**TIMM_CONFIG, "num_classes": 1000})
    hub.put("model.safetensors", save(tensors_of("test_resnet", classes=1000)))
    model = zoo.from_pretrained(REPO, input_size=64)
    assert zoo.deploy.predictor(model).class_names[285] == "Egyptian cat"


def test_channels_of_a_repository(hub: Hub) -> None:
    grey = export_tensors(
        random_model("test_resnet", in_channels=1, **SMALL), variant("test_resnet")[0].layouts[0]
    )
    publish(hub, {**TIMM_CONFIG, "pretrained_cfg": {**PRETRAINED_CFG, "input_size": [1, 96, 96]}})
    hub.put("model.safetensors", save(grey))
    model = zoo.from_pretrained(REPO)
    assert model.input_shape == (None, 160, 160, 1)
    assert_equal_but(model, random_model("test_resnet", in_channels=1, **SMALL))
    assert zoo.from_pretrained(REPO, in_channels=3).input_shape[-1] == 3


def test_a_broken_config_changes_nothing(hub: Hub) -> None:
    hub.put_small("config.json", b"<html>")
    model = zoo.create_model("test_resnet", **SMALL)
    before = values(model)
    with pytest.raises(CheckpointError, match="is not JSON"):
        zoo.load_weights(model, f"hf://{REPO}")
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError, match="not in the Hugging Face cache, and offline mode"):
        zoo.from_pretrained(REPO)
    with pytest.raises(OfflineError, match="not in the Hugging Face cache, and offline mode"):
        zoo.create_model("test_resnet", weights=f"hf://{REPO}")
    assert not hub.server.asked
    monkeypatch.delenv("HF_HUB_OFFLINE")
    online = zoo.from_pretrained(REPO)
    monkeypatch.setenv("KERAS_ZOO_OFFLINE", "1")
    hub.server.asked.clear()
    offline = zoo.from_pretrained(REPO)
    assert_equal_but(offline, online)
    assert record_of(offline) == record_of(online)
    assert not hub.server.asked


def test_transformers_config_is_refused(hub: Hub) -> None:
    publish(hub, {"architectures": ["ResNetForImageClassification"], "model_type": "resnet"})
    with pytest.raises(
        CheckpointError,
        match=rf"config\.json of `hf://{re.escape(REPO)}` names no `architecture`, so it is "
        r"neither keras-zoo's nor timm's; it has: architectures, model_type\.",
    ):
        zoo.from_pretrained(REPO)
    model = zoo.create_model("test_resnet", weights=f"hf://{REPO}", input_size=64)
    assert record_of(model).weights is None  # the tensors do fit


def test_unknown_architecture(hub: Hub) -> None:
    publish(hub, {**TIMM_CONFIG, "architecture": "test_resnets"})
    with pytest.raises(UnknownModelError, match="Unknown model `test_resnets`"):
        zoo.from_pretrained(REPO)


def test_config_of_another_architecture(hub: Hub) -> None:
    publish(hub, {**TIMM_CONFIG, "architecture": "test_efficientnet"})
    with pytest.raises(WeightsMismatchError, match="does not fit test_efficientnet"):
        zoo.from_pretrained(REPO)


def test_preprocessing_that_timm_leaves_out(hub: Hub) -> None:
    publish(hub, {"architecture": "test_resnet", "num_classes": 10, "pretrained_cfg": {}})
    info = record_of(zoo.from_pretrained(REPO, input_size=64)).weights
    assert info is not None
    assert info.preprocessing == Preprocessing()
    publish(hub, {"architecture": "test_resnet"})


# --- folders ------------------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {
    "num_classes": 7,
    "input_size": (48, 40),
    "in_channels": 1,
    "preprocess": True,
    "stem": "small",
    "pool": "max",
    "classifier_activation": "softmax",
    "dropout": 0.25,
    "drop_path": 0.125,
    "output_stride": 4,
}


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050"])
def test_saved_and_opened(name: str, tmp_path: Path) -> None:
    first = random_model(name, **OPTIONS)
    set_record(first, replace(record_of(first), class_names=tuple("abcdefg"), task="multi-label"))
    zoo.save_pretrained(first, tmp_path / "new" / "folder")
    (tmp_path / "new" / "file").touch()
    modes = {path.stat().st_mode for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert len(modes) == 1  # whoever may read new files here may read the weights
    second = zoo.from_pretrained(tmp_path / "new" / "folder")
    assert_equal_but(second, first)
    x = np.random.default_rng(0).uniform(0, 255, (3, 48, 40, 1)).astype("float32")
    np.testing.assert_array_equal(outputs(second, x), outputs(first, x))
    assert second.get_config() == first.get_config()
    saved, opened = record_of(first), record_of(second)
    assert opened.options == {**saved.options, "input_size": [48, 40]}
    assert replace(opened, options={}) == replace(saved, options={})
    zoo.save_pretrained(second, tmp_path / "again")
    for file in ("config.json", "model.safetensors"):
        content = (tmp_path / "again" / file).read_bytes()
        assert content == (tmp_path / "new" / "folder" / file).read_bytes()


def saved(tmp_path: Path, **options: Any) -> Path:
    model = random_model("test_resnet", **SMALL, **options)
    info = WeightsInfo(tag="t", source="s", license="mit", preprocessing=TIMM_PREPROCESSING)
    names = tuple(f"sort {i}" for i in range(10))
    set_record(model, replace(record_of(model), weights=info, class_names=names))
    zoo.save_pretrained(model, tmp_path / "saved")
    return tmp_path / "saved"


def test_options_override_those_saved(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    whole = zoo.from_pretrained(folder)
    assert record_of(whole).class_names[3] == "sort 3"
    other = zoo.from_pretrained(folder, num_classes=3, input_size=96, in_channels=1)
    assert (other.input_shape, other.output_shape) == ((None, 96, 96, 1), (None, 3))
    assert_equal_but(other, whole, "head/kernel", "head/bias", "stem_conv1/kernel")
    assert record_of(other).class_names == ()
    assert record_of(other).options == {"num_classes": 3, "input_size": 96, "in_channels": 1}
    same = zoo.from_pretrained(folder, num_classes=10)
    assert record_of(same).class_names == record_of(whole).class_names
    with pytest.raises(OptionError, match=r"`num_clases`\. Did you mean num_classes\?"):
        zoo.from_pretrained(folder, num_clases=3)


def test_a_saved_folder_brings_its_preprocessing(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    opened = zoo.from_pretrained(folder)
    as_weights = zoo.create_model("test_resnet", weights=folder, input_size=64)
    for model in (opened, as_weights):
        assert zoo.preprocessor(model).preprocessing == TIMM_PREPROCESSING
    inside = zoo.from_pretrained(folder, preprocess=True)
    x = (pixels() / 255 - [0.5, 0.4, 0.3]) / [0.25, 0.5, 0.125]
    expected = outputs(opened, x.astype("float32"))
    np.testing.assert_allclose(
        outputs(inside, pixels().astype("float32")), expected, atol=1e-4 * expected.std()
    )


def test_a_saved_folder_is_timms(tmp_path: Path) -> None:
    """timm 1.0.31 opens it: timm.create_model("local-dir:saved", pretrained=True)."""
    from safetensors.numpy import load_file

    folder = saved(tmp_path)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert (config["architecture"], config["num_classes"]) == ("test_resnet", 10)
    left_out = {"tag", "license"}
    assert config["pretrained_cfg"] == {
        **{key: value for key, value in PRETRAINED_CFG.items() if key not in left_out},
        "num_classes": 10,
        "input_size": [3, 64, 64],
    }
    tensors = load_file(folder / "model.safetensors")
    assert tensors.keys() == tensors_of("test_resnet").keys()
    for key, array in tensors_of("test_resnet").items():
        np.testing.assert_array_equal(tensors[key], array)


def test_a_folder_of_timms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timms").mkdir()
    (tmp_path / "timms" / "config.json").write_text(json.dumps(TIMM_CONFIG))
    (tmp_path / "timms" / "model.safetensors").write_bytes(save(tensors_of("test_resnet")))
    expected = random_model("test_resnet", **SMALL)
    assert_equal_but(zoo.from_pretrained(tmp_path / "timms"), expected)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_equal_but(zoo.from_pretrained("~/timms"), expected)
    monkeypatch.chdir(tmp_path)
    model = zoo.from_pretrained("timms")
    assert zoo.preprocessor(model).preprocessing == TIMM_PREPROCESSING


def test_a_half_written_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def fail(path: Path, *args: Any, **kwargs: Any) -> int:
        if path.name.endswith("config.json"):
            raise KeyboardInterrupt
        return write(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", fail)
        with pytest.raises(KeyboardInterrupt):
            saved(tmp_path)
    written = {path.name for path in (tmp_path / "saved").iterdir()}
    assert written == {"README.md", "model.safetensors"}
    with pytest.raises(SourceError, match=r"exists; got .*saved/config\.json"):
        zoo.from_pretrained(tmp_path / "saved")
    saved(tmp_path)
    (tmp_path / "saved" / "model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"holds none of model\.safetensors"):
        zoo.from_pretrained(tmp_path / "saved")


def test_places_that_are_none(tmp_path: Path) -> None:
    for place in ("no such", "https://host/folder", "hf://folder"):
        with pytest.raises(SourceError, match="must be written hf://owner/repo"):
            zoo.from_pretrained(place)
    for place in ("./folder", "../folder", "~/folder", str(tmp_path / "folder")):
        with pytest.raises(SourceError, match=rf"There is no folder `{re.escape(place)}`\."):
            zoo.from_pretrained(place)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="it has: nothing"):
        zoo.from_pretrained(tmp_path)


def test_what_is_not_saved(tmp_path: Path) -> None:
    foreign = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="foreign")
    with pytest.raises(UnknownModelError, match=r"`foreign` is no model of the catalog; save it w"):
        zoo.save_pretrained(foreign, tmp_path / "x")
    backbone = zoo.create_backbone("test_resnet", input_size=64)
    with pytest.raises(OptionValueError, match=r"`test_resnet` is a backbone.*zoo\.export_weights"):
        zoo.save_pretrained(backbone, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    zoo.export_weights(backbone, tmp_path / "b.safetensors")  # the way that the message names
    again = zoo.create_backbone("test_resnet", weights=tmp_path / "b.safetensors", input_size=64)
    assert_equal_but(again, backbone)
